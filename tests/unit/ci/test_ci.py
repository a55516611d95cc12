"""What CI looks at beside tests and model: each check lets the good through and stops the bad."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest
import yaml

from copier_mlops.ci import lockfile, notebooks, pr_comment, quality_ratchet, required_jobs, security_scan

from ..fixture_project import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("Hello.\n")
    git("init", "--quiet")
    commit("first")
    return tmp_path


def git(*words: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


# ------------------------------------------------------------------------------------------------- The standard


def test_this_project_keeps_the_standard() -> None:
    assert quality_ratchet.settings(PYPROJECT) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fail_under = 90", "fail_under = 60", "fail_under is 60; the standard is 90"),
        ("branch = true", "branch = false", "branch is off"),
        ("branch = true", 'branch = true\nomit = ["*/source.py"]', "omit leaves code out"),
        ("show_missing = true", 'show_missing = true\nexclude_also = ["if "]', "exclude_also leaves code out"),
        (
            'source = ["sample_project"]',
            'source = ["ci"]',
            "source is not the package",
        ),
        ("strict = true", "strict = false", "strict is off"),
        ("--strict-config -q", "--strict-config -q --deselect=tests/test_cli.py", "addopts has --deselect"),
    ],
)
def test_a_standard_that_is_lowered_is_named(old: str, new: str, says: str) -> None:
    assert old in PYPROJECT
    found = quality_ratchet.settings(PYPROJECT.replace(old, new, 1))
    assert len(found) == 1
    assert says in found[0]


def test_a_commit_runs_the_quick_checks_and_make_check_all() -> None:
    """A commit takes seconds: types, lowered standards, workflows and packages are left to `make` and CI."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [(hook["id"], hook.get("files", "all")) for hook in hooks] == [
        ("format", "all"),
        ("lint", "all"),
        ("secrets", "all"),
        ("lock", r"^(pyproject\.toml|uv\.lock)$"),
    ]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    for tool in ("ruff format --check", "ruff check", "mypy", "ci.standards"):
        assert tool in recipe[1]


# --------------------------------------------------------------------------------------------------- The others


@pytest.mark.parametrize(
    ("results", "code"),
    [("success success", 0), ("success skipped", 1), ("failure", 1), ("success cancelled success", 1), ("", 1)],
)
def test_all_jobs_have_to_pass(results: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULTS", results)
    assert required_jobs.main() == code


def test_a_lock_that_is_not_committed_is_offered(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script plays uv: it writes a lock, and finds one that says `edited` wrong."""
    uv = repository / "uv"
    uv.write_text('#!/bin/sh\nif [ "$2" = --check ]; then ! grep -q edited uv.lock; else echo known > uv.lock; fi\n')
    uv.chmod(0o755)
    monkeypatch.setattr("sys.argv", ["lock.py", str(uv)])
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert lockfile.main() == 0
    assert "::warning::uv.lock is not committed" in capsys.readouterr().out
    assert (repository / ".cache/offer/uv.lock").read_text() == "known\n"
    commit("with it")
    assert lockfile.main() == 0
    (repository / "uv.lock").write_text("edited\n")
    assert lockfile.main() == 1
    assert "run `uv lock`" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["lock.py", str(repository / "nowhere")])
    assert lockfile.main() == 1
    assert "uv is not installed" in capsys.readouterr().err


def token(kind: str = "ghp") -> str:
    return kind + "_" + "0123456789abcdefABCDEF0123456789abcdef"[:36]


def test_a_secret_in_a_file_is_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "settings.py").write_text("PLACE = 'here'\n")
    commit("good")
    assert security_scan.secrets()
    (repository / "settings.py").write_text(f"TOKEN = '{token()}'\n")
    assert not security_scan.secrets()
    assert "settings.py:1" in capsys.readouterr().err


def test_a_commit_is_searched_for_secrets_in_its_own_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "old.py").write_text(f"TOKEN = '{token()}'\n")
    (repository / "new.py").write_text("PLACE = 'here'\n")
    monkeypatch.setattr("sys.argv", ["audit", "secrets", "--only", "new.py"])
    assert security_scan.main() == 0
    monkeypatch.setattr("sys.argv", ["audit", "secrets", "--only", "new.py", "old.py"])
    assert security_scan.main() == 1
    assert "old.py:1" in capsys.readouterr().err


def test_a_secret_that_a_later_commit_removes_is_found(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret that a later commit removes stays in the history."""
    base = git("rev-parse", "HEAD")
    (repository / "settings.py").write_text(f"TOKEN = '{token()}'\n")
    commit("bad")
    (repository / "settings.py").unlink()
    commit("never mind")
    assert security_scan.secrets()
    monkeypatch.setenv("BASE", base)
    assert not security_scan.secrets()
    assert "a commit since" in capsys.readouterr().err
    monkeypatch.setenv("BASE", "HEAD^")  # to remove it is no fault
    assert security_scan.secrets()
    (repository / "settings.py").write_text(f"TOKEN = '{token()}'  # {'pragma: allowlist' + ' secret'}\n")
    commit("it is a fixture")
    assert security_scan.secrets()


def test_a_repository_without_a_commit_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASE", raising=False)
    git("init", "--quiet")
    (tmp_path / "rows.txt").write_text("1\n")
    assert security_scan.files()
    (tmp_path / "rows.parquet").write_text("x")
    assert not security_scan.files()


def test_a_large_file_is_searched_for_secrets_in_seconds(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a table of 30 MB the detectors would take minutes; the search for known forms of secrets takes a second."""
    rows = "".join(f"{number},ada{number}@customer.org,{number / 7}\n" for number in range(20_000))
    file = repository / "customers.csv"
    file.write_text(rows * 40)
    assert file.stat().st_size > 28e6
    assert security_scan.secrets()
    with file.open("a") as opened:
        opened.write(f"1,{token('gho')}\n")
    assert not security_scan.secrets()
    assert "customers.csv holds a token" in capsys.readouterr().err


def test_a_token_between_two_chunks_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security_scan, "CHUNK", 64)
    (repository / "rows.txt").write_text("x" * 50 + " " + token() + " " + "y" * 200)
    assert security_scan.holds_token(repository / "rows.txt")


def test_files_that_do_not_belong_into_git_are_found(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BASE", raising=False)
    assert security_scan.files()
    (repository / "rows.parquet").write_text("x")
    assert not security_scan.files()
    said = capsys.readouterr().err
    assert "rows.parquet does not belong in git" in said and "Lowers: rows.parquet, because" in said
    base = git("rev-parse", "HEAD")
    commit("rows")
    assert security_scan.files()  # it is in the last commit, so nothing is about to be added
    monkeypatch.setenv("BASE", base)
    assert not security_scan.files()
    git("commit", "--quiet", "--allow-empty", "--message", "Why\n\nLowers: rows.parquet, because it is a fixture")
    assert security_scan.files()
    assert "reason: it is a fixture" in capsys.readouterr().out
    monkeypatch.setenv("BASE", "0" * 40)  # a first push: everything is new
    assert not security_scan.files()


def test_an_action_that_is_not_pinned_is_found(repository: Path) -> None:
    folder = repository / ".github/workflows"
    folder.mkdir(parents=True)
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    (folder / "ci.yml").write_text(text)
    assert security_scan.workflows()
    (folder / "ci.yml").write_text(text.replace("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@main", 1))
    assert not security_scan.workflows()
    (folder / "ci.yml").write_text(text.replace("permissions: {}", "permissions: write-all", 1))
    assert not security_scan.workflows()


def test_a_section_of_a_notebook_shows_something() -> None:
    heading, cell = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    shown = cell("1", outputs=[nbformat.v4.new_output("stream", text="1")])
    cells = [heading("# T"), cell("a"), heading("## A"), cell("b"), shown, heading("## B"), cell("c")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert notebooks.sections(notebook) == {"A": True, "B": False}
    assert notebooks.committed_outputs(notebook)
    assert not notebooks.committed_outputs(nbformat.v4.new_notebook(cells=[cell("a")]))


def test_the_notebooks_here_are_committed_without_outputs() -> None:
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        assert not notebooks.committed_outputs(nbformat.read(file, as_version=4)), file.name


# -------------------------------------------------------------------------------------------------- The comment


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """A stand-in for GitHub's API, with the comments of pull request 7: a hundred of other people to begin with."""
    comments: list[dict[str, object]] = [{"id": number, "body": "well done"} for number in range(100)]

    class Api(BaseHTTPRequestHandler):
        def answer(self, content: object, code: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def allowed(self) -> bool:
            if self.headers["Authorization"] == "Bearer made-on-the-spot":
                return True
            self.answer({"message": "Resource not accessible by integration"}, 403)
            return False

        def body(self) -> str:
            return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

        def do_GET(self) -> None:
            page = int(self.path.rpartition("page=")[2])
            assert self.path.startswith("/repos/ada/flights/issues/7/comments?")
            if self.allowed():
                self.answer(comments[100 * (page - 1) : 100 * page])

        def do_POST(self) -> None:
            assert self.path == "/repos/ada/flights/issues/7/comments"
            comments.append({"id": 1000, "body": self.body(), "html_url": "http://here/1000"})
            self.answer(comments[-1], 201)

        def do_PATCH(self) -> None:
            assert self.path == "/repos/ada/flights/issues/comments/1000"
            comments[-1]["body"] = self.body()
            self.answer(comments[-1])

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("GITHUB_REPOSITORY", "ada/flights")
        monkeypatch.setenv("GITHUB_TOKEN", "made-on-the-spot")
        monkeypatch.setenv("PULL_REQUEST", "7")
        yield comments
        server.shutdown()


def test_the_comment_is_written_once_and_then_anew(
    github: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "review.md"
    monkeypatch.setattr("sys.argv", ["comment.py", str(file)])
    for text in ("## first", "## second " + "x" * 70_000):
        file.write_text(text)
        assert pr_comment.main() == 0
    assert len(github) == 101
    body = str(github[-1]["body"])
    assert body.startswith(f"{pr_comment.MARK}\n## second")
    assert len(body) < 65_536


def test_the_comment_starts_with_what_is_lowered(
    github: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that failed early does not write one of the files."""
    files = tmp_path / "standards.md", tmp_path / "review.md"
    monkeypatch.setattr("sys.argv", ["comment.py", *map(str, files)])
    files[0].write_text("## Standards\n")
    assert pr_comment.main() == 0
    assert github[-1]["body"] == f"{pr_comment.MARK}\n## Standards\n"
    files[1].write_text("## Model\n")
    assert pr_comment.main() == 0
    assert github[-1]["body"] == f"{pr_comment.MARK}\n## Standards\n\n## Model\n"


def test_a_comment_that_cannot_be_written_says_why(
    github: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "review.md"
    monkeypatch.setattr("sys.argv", ["comment.py", str(file)])
    assert pr_comment.main() == 1
    assert "make review" in capsys.readouterr().err
    file.write_text("## first")
    monkeypatch.setenv("GITHUB_TOKEN", "of a fork")
    assert pr_comment.main() == 1
    assert "pull-requests: write" in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    assert pr_comment.main() == 1
    assert "does not answer" in capsys.readouterr().err
