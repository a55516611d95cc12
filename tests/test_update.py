"""`make update`: a project follows its template, and nothing that anybody wrote is lost, marked or brought back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from conftest import ROOT, Project, first, once
from releases import Future, Releases, future, missing, release

sys.path.insert(0, str(ROOT / "template"))
from ci.merge import merge
from ci.origin import ANSWERS, OURS, Origin, OriginError, Ownership, answers, files

from ci import update

SETS: dict[str, dict[str, Any]] = {
    "default": {},
    "own": {"data_source": "own", "problem": "regression", "licence": "MIT", "data_remote": "s3://bucket/path"},
    "name": {"project_name": "Müller's churn", "licence": "BSD-3-Clause", "problem": "regression"},
    "served": {
        "project_name": "Served",
        "serving": ["online", "batch", "streaming", "hybrid"],
        "deploy": "compose",
        "monitoring": True,
    },
    "long": {"project_name": "x" * 80, "data_source": "own", "author": 'O\'Brien "Bob"', "description": ""},
}
TWO = ["default", "own"]
ONE = ["own"]
MARKS = ("<<<<<<<", ">>>>>>>")
WORKFLOW = """name: mine
on: workflow_dispatch
permissions: {}
jobs:
  mine:
    runs-on: ubuntu-24.04
    steps:
      - run: make mine
"""


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def commit(project: Path, message: str = "mine") -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--no-verify", "--message", message)


def start(template: Path, ref: str, folder: Path, given: dict[str, Any]) -> Project:
    """A project of a release, as a repository with one commit."""
    copier.run_copy(str(template), folder, data=given, defaults=True, quiet=True, vcs_ref=ref)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "first")
    return Project(folder)


def later(releases: Releases, lock: Path | None = None) -> Future:
    """The release to come, made once; its floors are those of a lock that resolves."""

    def make(folder: Path) -> None:
        made = future(releases, folder / "copier-mlops", lock)
        (folder / "tags").write_text(f"{made.before} {made.tag}")

    place = once("future", make)
    before, tag = (place / "tags").read_text().split()
    return Future(place / "copier-mlops", before, tag)


@pytest.fixture(scope="session")
def ahead(releases: Releases, small_environment: Path) -> Future:
    return later(releases, small_environment / "uv.lock")


# ------------------------------------------------------------------------------------------------- File by file

LIST = 'platform = [\n  "httpx>=0.28",\n  "mlflow>=3.17",\n  "numpy>=2.2",\n]\n'


@pytest.mark.parametrize(
    ("before", "here", "after", "becomes"),
    [
        (None, None, "new\n", "new\n"),
        ("a\n", None, "b\n", None),  # what somebody deleted stays deleted
        ("a\n", "a\n", None, None),
        ("a\n", "mine\n", None, "mine\n"),  # what somebody changed stays
        (None, "mine\n", None, "mine\n"),
        ("a\n", "a\n", "b\n", "b\n"),
        ("a\n", "mine\n", "a\n", "mine\n"),
        ("a\n", "b\n", "b\n", "b\n"),
        ("a\nb\nc\n", "mine\nb\nc\n", "a\nb\nnew\n", "mine\nb\nnew\n"),
        (LIST, LIST.replace("  \"numpy", "  \"lightgbm>=4\",\n  \"numpy"), LIST.replace("3.17", "3.18").replace("2.2", "2.3"),
         LIST.replace("  \"mlflow>=3.17", "  \"lightgbm>=4\",\n  \"mlflow>=3.18").replace("2.2", "2.3")),
        (LIST, LIST.replace('  "mlflow>=3.17",\n', ""), LIST.replace("2.2", "2.3"), LIST.replace('  "mlflow>=3.17",\n', "").replace("2.2", "2.3")),
        ("a\nb\nc\n", "a\r\nb\r\nc\r\n", "a\nb\nnew\n", "a\r\nb\r\nnew\r\n"),  # line ends stay those of the project
        ("a\nb\nc\n", "mine\r\nb\r\nc\r\n", "a\nb\nnew\n", "mine\r\nb\r\nnew\r\n"),
        ("a\nb\nc\n", "mine\r\nb\nc\n", "a\nb\nnew\n", "mine\nb\nnew\n"),  # most of them
        ("a\nb\n", "mine\r\nb\r\n", "a\nb\n", "mine\r\nb\r\n"),
        ("a\nb\n", "a\r\nb\r\n", None, None),
    ],
)  # fmt: skip
def test_three_texts_become_one(before: str | None, here: str | None, after: str | None, becomes: str | None) -> None:
    sides = [None if side is None else side.encode() for side in (before, here, after)]
    done = merge(*sides, ("v1", "v2"))
    assert (None if done.content is None else done.content.decode()) == becomes and not done.conflicts
    assert done.kept is (after is None and here == "mine\n" and before is not None)


@pytest.mark.parametrize(
    ("before", "here", "after"),
    [
        ("a\n", "mine\n", "theirs\n"),
        (None, "mine\n", "theirs\n"),
        (LIST, LIST.replace("3.17", "3.19"), LIST.replace("3.17", "3.18")),
        (LIST, LIST.replace('  "mlflow>=3.17",\n', ""), LIST.replace("3.17", "3.18")),
        ("a\n", "\0mine", "\0theirs"),
    ],
)
def test_what_a_person_has_to_decide(before: str | None, here: str, after: str) -> None:
    """Both sides stand in the text; what is no text stays as it is here."""
    done = merge(None if before is None else before.encode(), here.encode(), after.encode(), ("v1", "v2"))
    assert done.conflicts == 1 and done.content is not None
    text = done.content.decode()
    if "\0" in here:
        assert text == here
    else:
        assert all(line in text for side in (here, after) for line in side.splitlines())
        assert "<<<<<<< yours" in text and ">>>>>>> v2" in text


@pytest.mark.parametrize(
    ("before", "here", "after", "marked"),
    [
        ("a\nb\nc\nd\n", "a\r\nmine\r\nc\r\nd\r\n", "a\ntheirs\nc\nd\n", ["mine", "b", "theirs"]),
        (None, "a\nmine\nc\n", "a\ntheirs\nc\n", ["mine", "theirs"]),  # an option that is switched on again
        (None, "a\nc\nmine", "a\nc\n", ["mine"]),
    ],
)
def test_a_conflict_marks_the_lines_that_differ_only(
    before: str | None, here: str, after: str, marked: list[str]
) -> None:
    done = merge(None if before is None else before.encode(), here.encode(), after.encode(), ("v1", "v2"))
    assert done.conflicts == 1 and done.content is not None
    lines = done.content.decode().splitlines()
    first, last = (next(n for n, line in enumerate(lines) if line.startswith(mark)) for mark in MARKS)
    assert [line for line in lines[first:last] if not line.startswith(("<<<<<<<", "|||||||", "======="))] == marked
    assert lines[:first] + lines[last + 1 :] == [line for line in here.splitlines() if line not in marked]
    assert (b"\r\n" in done.content) is ("\r\n" in here)


# -------------------------------------------------------------------------------------- What owners do to a project


def edit(project: Project) -> dict[str, str]:
    """What real owners do; returns a line of each file that has to survive."""
    package = project.package
    lines = {
        "README.md": "We call it the oracle.",
        f"src/{package}/core/features.py": "# a feature of our own",
        f"src/{package}/core/model.py": "# tuned in a long night",
        f"src/{package}/core/schema.py": "# agreed with the warehouse",
        "params.yaml": "# since the outage",
        "tests/sample.py": "# rows like ours",
        "Makefile": "# see also our wiki",  # ours, at its end: no release touches that
        f"src/{package}/core/metrics.py": "# our metric stands in another file",
        "local.mk": "mine: ## a target of our own\n\t@echo ours",
        ".github/workflows/mine.yml": WORKFLOW,
        "pipelines/mine/dvc.yaml": "stages:\n  count:\n    cmd: wc -l ../../params.yaml > count.txt\n    deps: [../../params.yaml]\n    outs: [count.txt]",
        "notes/why.md": "Because.",
    }
    for name, line in lines.items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        space = "\n\n" if name.endswith(".py") else ""  # as the formatter has it
        file.write_text((file.read_text() if file.exists() else "") + f"{space}{line.rstrip()}\n")
    (project / "notebooks/explore.ipynb").unlink()
    git(project.folder, "mv", "tests/core/test_values.py", "tests/core/test_how_values_are_read.py")
    project.replace("pyproject.toml", 'version = "0.1.0"', 'version = "3.2.1"')
    project.replace("pyproject.toml", "dependencies = []", 'dependencies = [\n  "tomlkit>=0.13",\n]')
    project.replace("pyproject.toml", '  "matplotlib>=', '  "markupsafe>=2",\n  "matplotlib>=')  # beside lines of ours
    commit(project.folder)
    return {name: line.splitlines()[-1] for name, line in lines.items()}


def adopt(project: Project, environment: Path) -> dict[str, bytes]:
    """A table of one's own becomes the project; returns what `make adopt` wrote."""
    before = {name: (project / name).read_bytes() for name in files(project.folder) if not name.startswith(".git/")}
    table = project.folder.parent / "customers.csv"
    rows = (
        f"c{n},2024-{n % 12 + 1:02d}-{n % 28 + 1:02d},{n * 7 % 50},{'abc'[n % 3]},{'yes' if n * 7 % 50 > 30 else 'no'}"
        for n in range(600)
    )
    table.write_text("customer,signed_up,visits,plan,churned\n" + "\n".join(rows) + "\n")
    (project / ".venv").symlink_to(environment / ".venv")
    call = f"from {project.package}.cli import app; app()"  # the installed command is that of another release
    options = ("--target=churned", "--time=signed_up", "--id=customer")
    done = project.command(
        ".venv/bin/python", "-c", call, "adopt", str(table), *options, PYTHONPATH=str(project / "src")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (project / ".venv").unlink()
    commit(project.folder, "our table")
    written = {name for name, content in before.items() if (project / name).read_bytes() != content}
    assert {"params.yaml", "adoption.json"} < written, written
    return {name: (project / name).read_bytes() for name in written}


def holds(project: Project, lines: dict[str, str], moved: tuple[str, str] = ("", "")) -> None:
    """No edit is lost, nothing is marked, what was deleted is gone."""
    for name, line in lines.items():
        assert line in (project / name.replace(*moved)).read_text(), f"{name} lost its edit"
    assert not (project / "notebooks/explore.ipynb").exists() and not (project / "tests/core/test_values.py").exists()
    assert (project / "tests/core/test_how_values_are_read.py").exists()
    manifest = (project / "pyproject.toml").read_text()
    assert all(text in manifest for text in ('"3.2.1"', '"tomlkit>=0.13"', '"markupsafe>=2"'))
    unmarked(project.folder)


def _starred(path: str) -> bool:
    return Ownership((ROOT / "docs/ownership.md").read_text()).of(path) != OURS


def unmarked(project: Path) -> None:
    for name in filter(None, git(project, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")):
        assert not name.endswith(".rej"), name
        lines = (project / name).read_text(errors="ignore").splitlines()
        assert not any(line.startswith(MARKS) for line in lines), f"marks in {name}"


def as_rendered(project: Project, template: Path, ref: str, scratch: Path, but: set[str]) -> None:
    """Every file of ours that nobody edited is as a fresh render has it."""
    given = {key: value for key, value in answers(project.folder).items() if not key.startswith("_")}
    copier.run_copy(str(template), scratch, data=given, defaults=True, quiet=True, vcs_ref=ref)
    ownership = Ownership((template / "docs/ownership.md").read_text())
    for name in files(scratch):
        if ownership.of(name) == OURS and name not in but | {ANSWERS, "pyproject.toml"}:
            assert (project / name).read_bytes() == (scratch / name).read_bytes(), (
                f"{name} is not as the release has it"
            )


def merged(project: Project, template: Path, ref: str, branch: str = "update", trust: bool = False) -> update.Outcome:
    """An update as far as its merge, checked out here."""
    origin = Origin(str(template), project / update.MIRROR)
    chosen = update.choose(project.folder, origin, ref, {})
    assert chosen is not None
    with update.staged(project.folder, branch) as place:
        outcome = update.apply(place, origin, *chosen, branch, {}, trust)
        git(project.folder, "fetch", "--quiet", str(place), f"+{branch}:{branch}")
    git(project.folder, "switch", "--quiet", branch)
    return outcome


def check(project: Project, environment: Path) -> None:
    """`make check` with packages that are installed already."""
    (project / ".venv").symlink_to(environment / ".venv")
    (project / "uv.lock").exists() or shutil.copy2(environment / "uv.lock", project / "uv.lock")
    project.make("-o", ".venv/.ready", "check", PYTHONPATH=str(project / "src"))
    (project / ".venv").unlink()


def cases() -> Iterator[object]:
    """Every release, and the commit before this one, with every set of answers; in `make test` the oldest and the newest release."""
    known = [] if missing() else release.released(ROOT)  # the fixture says what is missing
    refs = [*(f"v{version}" for version in known), "HEAD~1"]
    for name in SETS:
        for ref in refs:
            marks = [] if name in TWO and ref in (refs[0], refs[-2]) else [pytest.mark.long]
            yield pytest.param(name, ref, id=f"{name}-{ref}", marks=marks)


@pytest.mark.parametrize(("name", "ref"), list(cases()))
def test_from_a_release_to_this_one(
    name: str, ref: str, releases: Releases, small_environment: Path, tmp_path: Path
) -> None:
    project = start(releases.clone, ref, tmp_path / "project", SETS[name])
    if name == "own":
        adopt(project, small_environment)
    lines = edit(project)
    yours = {path: (project / path).read_bytes() for path in lines}
    origin = Origin(str(releases.clone), project / update.MIRROR)
    if update.choose(project.folder, origin, "HEAD", {}) is not None:  # else this commit is that release
        assert not merged(project, releases.clone, "HEAD").conflicts
    holds(project, lines)
    assert all((project / path).read_bytes() == content for path, content in yours.items() if _starred(path))
    as_rendered(project, releases.clone, "HEAD", tmp_path / "fresh", {*lines, "tests/core/test_values.py"})
    assert update.choose(project.folder, origin, "HEAD", {}) is None, "a second update has something to do"
    if "project_name" not in SETS[name]:
        check(project, small_environment)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ONE else [pytest.mark.long]) for name in SETS])
def test_to_a_release_that_moves_deletes_and_renames(name: str, ahead: Future, tmp_path: Path) -> None:
    project = start(ahead.clone, ahead.before, tmp_path / "project", SETS[name])
    lines = edit(project)
    with pytest.raises(OriginError, match="TRUST=1") as refused:
        merged(project, ahead.clone, ahead.tag)
    assert ahead.moved[0] in str(refused.value) and ahead.moved[1] in str(refused.value), (
        "it does not say what it would do"
    )
    assert not git(project.folder, "status", "--porcelain")
    outcome = merged(project, ahead.clone, ahead.tag, trust=True)
    assert not outcome.conflicts and not outcome.kept
    holds(project, lines, ahead.moved)
    assert (project / ahead.added).exists() and not (project / ahead.deleted).exists()
    assert not (project / ahead.moved[0]).exists()
    old, new = ahead.renamed
    assert old not in answers(project.folder) and answers(project.folder)[new] == "my-organisation"
    as_rendered(project, ahead.clone, ahead.tag, tmp_path / "fresh", {*lines, "tests/core/test_values.py"})


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ONE else [pytest.mark.long]) for name in SETS])
def test_an_unedited_project_becomes_a_fresh_one(name: str, ahead: Future, tmp_path: Path) -> None:
    project = start(ahead.clone, ahead.before, tmp_path / "project", {**SETS[name], "owner": "ada"})
    merged(project, ahead.clone, ahead.tag, trust=True)
    given = {**SETS[name], ahead.renamed[1]: "ada"}
    copier.run_copy(str(ahead.clone), tmp_path / "fresh", data=given, defaults=True, quiet=True, vcs_ref=ahead.tag)
    fresh = tmp_path / "fresh"
    assert set(files(fresh)) == {name for name in files(project.folder) if not name.startswith(".cache/")}
    different = [name for name in files(fresh) if (fresh / name).read_bytes() != (project / name).read_bytes()]
    assert not different


# ----------------------------------------------------------------------------------------- In full, as people type it


@pytest.mark.parametrize("only", ["tests/core/test_gate.py", pytest.param("", marks=pytest.mark.long)])
def test_in_full_with_a_champion_and_back(
    ahead: Future, small_environment: Path, trained: Project, tmp_path: Path, only: str
) -> None:
    """Everything: a table of one's own decisions, packages that move, a champion that goes on answering, the way back."""
    project = start(ahead.clone, ahead.before, tmp_path / "project", {})
    lines = edit(project)
    shutil.copy2(small_environment / "uv.lock", project / "uv.lock")
    project.make("lock")
    project.environment |= {**trained.environment, "PYTHONPATH": ""}
    _give_a_champion(project, trained)
    commit(project.folder, "trained")
    before = {name: (project / name).read_bytes() for name in ("mlflow.db", "params.yaml", "uv.lock")}
    head = git(project.folder, "rev-parse", "HEAD")

    assert "TRUST=1" in project.make("update", fails=True)
    planned = project.make("update", "TRUST=1", "PLAN=1")
    assert "nothing was changed" in planned and ahead.moved[1] in planned
    assert git(project.folder, "branch", "--show-current") == "main" and not git(
        project.folder, "status", "--porcelain"
    )

    said = project.make("update", "TRUST=1", ONLY=only)
    assert f"{ahead.tag} on the branch update/{ahead.tag}" in said and "the champion answers as it did" in said
    holds(project, lines, ahead.moved)
    assert git(project.folder, "rev-parse", "main") == head and not git(project.folder, "status", "--porcelain")
    assert "nothing to do" in project.make("update")
    assert "core/metrics.py was edited" in project.make("doctor", fails=True)

    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("CREATE TABLE newer (x)")  # as a newer MLflow does
    said = project.make("update-undo")
    assert git(project.folder, "branch", "--show-current") == "main"
    assert {name: (project / name).read_bytes() for name in before if name != "mlflow.db"} == {
        name: content for name, content in before.items() if name != "mlflow.db"
    }
    with sqlite3.connect(project / "mlflow.db") as database:
        assert not database.execute("SELECT name FROM sqlite_master WHERE name = 'newer'").fetchall()
    assert list((project / ".cache/update").glob("after-*/mlflow.db")), "what was written since then is lost"
    assert "answers as it did" in project.make("verify")


def _give_a_champion(project: Project, trained: Project) -> None:
    """The registry and the outputs of a run that somebody else did."""
    for name in ("mlflow.db", "champion.json", "dvc.lock", "run.yaml"):
        shutil.copy2(trained / name, project / name)
    for name in ("mlartifacts", "models", "reports", ".cache/bundles"):
        if (trained / name).exists():
            shutil.copytree(trained / name, project / name, dirs_exist_ok=True)


# ------------------------------------------------------------------------------------------------------- Conflicts


def test_a_conflict_is_listed_decided_and_taken_back(ahead: Future, small_environment: Path, tmp_path: Path) -> None:
    project = start(ahead.clone, ahead.before, tmp_path / "project", {})
    project.replace("Makefile", "## run the tests with the coverage gate;", "## run our tests with the coverage gate;")
    (project / ahead.deleted).write_text("# ours now\n")
    commit(project.folder)
    shutil.copytree(small_environment / ".venv", project / ".venv", symlinks=True)
    shutil.copy2(small_environment / "uv.lock", project / "uv.lock")
    commit(project.folder, "lock")
    said = project.make("-o", ".venv/.ready", "update", "TRUST=1", fails=True)
    assert "Makefile: lines" in said and "local.mk" in said and "CONTINUE=1" in said
    assert f"{ahead.deleted} is no longer in the template; you changed it, so it stays" in said
    assert git(project.folder, "status", "--porcelain").split() == ["UU", "Makefile"]
    text = (project / "Makefile").read_text()
    assert all(f"## run {words} tests with the coverage gate;" in text for words in ("our", "all", "the"))
    assert (project / ahead.deleted).read_text() == "# ours now\n"
    git(project.folder, "reset", "--quiet", "--hard")
    git(project.folder, "switch", "--quiet", "main")
    assert "our tests" in (project / "Makefile").read_text() and not git(project.folder, "status", "--porcelain")

    # again, decided this time; where marks are left it is said
    project.make("-o", ".venv/.ready", "update", "TRUST=1", fails=True)
    words = (str(small_environment / ".venv/bin/python"), "-m", "ci.update", "--continue", "--checks", "check")
    assert "marks" in project.command(*words).stderr
    git(project.folder, "checkout", "--ours", "Makefile")
    git(project.folder, "add", "Makefile")
    done = project.command(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "our tests" in (project / "Makefile").read_text()
    assert answers(project.folder)["_commit"] == ahead.tag


# -------------------------------------------------------------------------------------------------------- Bad days


def broken(change: Callable[[Project], object], ahead: Future, folder: Path) -> tuple[int, str]:
    """What an update says of a project that is not as it should be."""
    project = start(ahead.clone, ahead.before, folder, {})
    change(project)
    done = project.command(sys.executable, "-c", MAIN)
    return done.returncode, done.stdout + done.stderr


MAIN = f"import sys; sys.path.insert(0, {str(ROOT / 'template')!r}); from ci.update import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("change", "says"),
    first([
        (lambda project: (project / "README.md").write_text("mine"), "not committed"),
        (lambda project: (project / "new.txt").write_text("mine"), "new.txt"),
        (lambda project: shutil.rmtree(project / ".git"), "no git repository"),
        (lambda project: ((project / ANSWERS).write_text("_commit: v1"), commit(project.folder)), "_src_path"),
        (lambda project: ((project / ANSWERS).write_text("a: ["), commit(project.folder)), "no YAML"),
        (lambda project: ((project / ANSWERS).unlink(), commit(project.folder)), "nobody knows which template"),
        (lambda project: (_answer(project, "_src_path", "/nowhere/at-all"), commit(project.folder)), "TEMPLATE="),
        (lambda project: (_answer(project, "_commit", "v0.0.7"), commit(project.folder)), "has no v0.0.7"),
    ], 4),
)  # fmt: skip
def test_what_cannot_be_updated_says_why(
    change: Callable[[Project], object], says: str, ahead: Future, tmp_path: Path
) -> None:
    code, said = broken(change, ahead, tmp_path / "project")
    assert code == 1 and says in said and "Traceback" not in said, said


def _answer(project: Project, name: str, value: str) -> None:
    known = yaml.safe_load((project / ANSWERS).read_text())
    (project / ANSWERS).write_text(yaml.safe_dump({**known, name: value}))


def test_a_folder_that_is_named_from_where_it_was_rendered(ahead: Future, tmp_path: Path) -> None:
    """`copier copy ../template project` writes a path that is right from that day's folder alone."""
    shutil.copytree(ahead.clone, tmp_path / "template")
    project = start(ahead.clone, ahead.before, tmp_path / "project", {})
    _answer(project, "_src_path", "template")
    commit(project.folder)
    done = project.command(sys.executable, "-c", MAIN, "--trust", "--checks", "help")
    assert done.returncode == 1 or "on the branch" in done.stdout, done.stdout + done.stderr
    git(project.folder, "switch", "--quiet", f"update/{ahead.tag}")
    assert answers(project.folder)["_src_path"] == str(tmp_path / "template")


@pytest.mark.parametrize(
    "after", [1.0, 3.0, *(pytest.param(x / 2, marks=pytest.mark.long) for x in (1, 3, 4, 5, 7, 9))]
)
def test_killed_at_any_moment(after: float, ahead: Future, tmp_path: Path) -> None:
    """Whatever was done, the project is as it was, and the next update goes through."""
    project = start(ahead.clone, ahead.before, tmp_path / "project", {})
    lines = edit(project)
    head = git(project.folder, "rev-parse", "HEAD")
    process = project.start(sys.executable, "-c", MAIN, "--trust", "--checks", "check")
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert git(project.folder, "rev-parse", "main") == head
    assert git(project.folder, "branch", "--show-current") == "main" and not git(
        project.folder, "status", "--porcelain"
    )
    outcome = merged(project, ahead.clone, ahead.tag, f"update/{ahead.tag}", trust=True)
    assert not outcome.conflicts
    holds(project, lines, ahead.moved)


def test_databases_are_copied_while_they_are_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the project, and MLflow's outside of it, which others may share; three copies are kept."""
    project = tmp_path / "project"
    for name in ("mlflow.db", ".prefect/prefect.db", ".cache/search.db", "../shared.db"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(project / name) as database:
            database.execute("CREATE TABLE kept (x)")
            database.execute("INSERT INTO kept VALUES (1)")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (project / ".env").write_text(f"MLFLOW_TRACKING_URI='sqlite:///{tmp_path}/shared.db'\n")
    with sqlite3.connect(project / "mlflow.db") as writer:
        writer.execute("INSERT INTO kept VALUES (2)")  # not committed yet
        for number in range(5):
            target = project / update.PLACE / f"backup-{number}"
            names = update.back_up(project, target)
    assert [str(name) for name in names] == [".cache/search.db", ".prefect/prefect.db", "mlflow.db"]
    with sqlite3.connect(target / "mlflow.db") as copy:
        assert copy.execute("SELECT x FROM kept").fetchall() == [(1,)]
    assert (target / "outside-shared.db").is_file()
    assert len(list((project / update.PLACE).glob("backup-*"))) == update.BACKUPS


# --------------------------------------------------------------------------------------------------------- Answers


def test_answers_come_and_go(releases: Releases, tmp_path: Path) -> None:
    """An option that is switched on and off again leaves the same files of ours, byte for byte, and no file of the user's."""
    project = start(releases.clone, "HEAD", tmp_path / "project", {})
    lines = edit(project)
    origin = Origin(str(releases.clone), project / update.MIRROR)
    before = {name: (project / name).read_bytes() for name in files(project.folder) if not name.startswith(".cache/")}
    starred = {name for name in before if _starred(name)}
    for number, given in enumerate(
        [
            {"licence": "MIT", "author": "Ada", "description": "Other words.", "data_remote": "s3://bucket/x", "owner": "ada"},
            {name: str(answers(project.folder)[name]) for name in ("licence", "author", "description", "data_remote", "owner")},
        ]
    ):  # fmt: skip
        chosen = update.choose(project.folder, origin, "HEAD", given)
        assert chosen is not None
        with update.staged(project.folder, f"answers-{number}") as place:
            outcome = update.apply(place, origin, *chosen, f"answers-{number}", given, trust=False)
            git(project.folder, "pull", "--quiet", "--ff-only", str(place), f"answers-{number}")
        assert not outcome.conflicts
        holds(project, lines)
        assert (project / "LICENSE").exists() is (number == 0)
        assert ("dvc[s3]" in (project / "pyproject.toml").read_text()) is (number == 0)
        assert {name: (project / name).read_bytes() for name in starred} == {name: before[name] for name in starred}
    after = {name: (project / name).read_bytes() for name in files(project.folder) if not name.startswith(".cache/")}
    assert after == before


def test_a_name_that_is_taken_later_stays_with_those_that_have_it(two: tuple[Path, str, str], tmp_path: Path) -> None:
    """A release brings a library; a project that is called like it keeps its package, and so all its paths."""
    template, before, _ = two
    git(tmp_path, "clone", "--quiet", str(template), "template")
    names = tmp_path / "template/includes/names.jinja"
    names.write_text(names.read_text().replace("{%- set taken -%}\n", "{%- set taken -%}\nzebra "))
    commit(tmp_path / "template", "zebra")
    git(tmp_path / "template", "tag", "v99.1.0")
    project = start(tmp_path / "template", before, tmp_path / "project", {"project_name": "Zebra"})
    merged(project, tmp_path / "template", "v99.1.0")
    assert project.package == "zebra" and not git(project.folder, "diff", "--name-only", "--diff-filter=AD", "main")
    later = start(tmp_path / "template", "v99.1.0", tmp_path / "later", {"project_name": "Zebra"})
    assert later.package == "zebra_project"


def test_answers_are_taken_as_people_type_them(releases: Releases, tmp_path: Path) -> None:
    project = start(releases.clone, "HEAD", tmp_path / "project", {"serving": ["online"], "licence": "MIT"})
    origin = Origin(str(releases.clone), project / update.MIRROR)
    here = origin.release("HEAD")
    for text in ("online,batch", "online, batch", "[online,batch]", "[ 'online', batch ]"):
        assert update.understood(origin.questions(here), {"serving": text}) == {"serving": ["online", "batch"]}
    for text in ("", "[]"):
        assert update.understood(origin.questions(here), {"serving": text}) == {"serving": []}
    for same in (
        {"serving": "online"},
        {"serving": "[online]"},
        {"monitoring": "no"},
        {"monitoring": "false"},
        {"licence": "MIT"},
    ):
        assert update.choose(project.folder, origin, "HEAD", same) is None, same
    given = {"serving": "online,batch", "monitoring": "yes", "description": "no: [words"}
    chosen = update.choose(project.folder, origin, "HEAD", given)
    assert chosen is not None
    with update.staged(project.folder, "answers") as place:
        update.apply(place, origin, *chosen, "answers", given, trust=False)
        after = answers(place)
        assert {name: after[name] for name in given} == {
            "serving": ["online", "batch"], "monitoring": True, "description": "no: [words"
        }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    first([
        ("servin=[online]", r"servin is no question of the template; did you mean serving\? It asks project_name,"),
        ("zzz=1", "zzz is no question of the template. It asks"),
        ("package=other", "package is no question"),
        ("serving=onlin", "Copier refuses: .*'onlin' is not in"),
        ("monitoring=perhaps", "monitoring is answered yes or no, not perhaps"),
        ("deploy=kubernetes", "Copier refuses"),
    ], 2),
)  # fmt: skip
def test_an_answer_that_cannot_be_is_refused(two: tuple[Path, str, str], given: str, says: str, tmp_path: Path) -> None:
    template, _, after = two
    project = start(template, after, tmp_path / "project", {})
    done = project.command(sys.executable, "-c", MAIN, "--set", given)
    assert done.returncode == 1 and re.search(says, done.stderr) and "Traceback" not in done.stderr, done.stderr
    assert git(project.folder, "branch", "--format=%(refname:short)") == "main"
    assert not git(project.folder, "status", "--porcelain")


@pytest.mark.parametrize("given", [{"problem": "regression"}, {"data_source": "own"}, {"project_name": "Other"}])
def test_what_is_fixed_at_birth_is_refused_with_the_reason(
    given: dict[str, Any], releases: Releases, tmp_path: Path
) -> None:
    project = start(releases.clone, "HEAD", tmp_path / "project", {})
    origin = Origin(str(releases.clone), project / update.MIRROR)
    with pytest.raises(OriginError, match="fixed since this project began"):
        update.choose(project.folder, origin, "", given)
    with pytest.raises(ValueError, match="since this project began"):  # Copier by itself refuses it, too
        copier.run_update(project.folder, data=given, defaults=True, overwrite=True, quiet=True, vcs_ref="HEAD")
    assert not git(project.folder, "status", "--porcelain")


# ------------------------------------------------------------------------------------------------------------ Lock


def test_a_stale_lock_is_found_and_not_renewed(small_environment: Path, tmp_path: Path) -> None:
    """`make check-lock` needs no environment, and CI installs nothing but the lock."""
    shutil.copytree(small_environment, tmp_path / "project", symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    project = Project(tmp_path / "project")
    assert "uv.lock matches pyproject.toml" in project.make("check-lock")
    project.replace("pyproject.toml", "dependencies = []", 'dependencies = ["tomlkit>=0.13"]')
    before = (project / "uv.lock").read_bytes()
    assert "run `uv lock`" in project.make("check-lock", fails=True)
    assert "--locked" in project.make("setup", fails=True, CI="true")
    assert (project / "uv.lock").read_bytes() == before and not (project / ".venv/.ready").exists()
