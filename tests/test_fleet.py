"""`make doctor` in a project, `make fleet-status` and `make fleet-update` over many."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, GitHub, Project, clean_environment
from test_update import commit, edit, git, start
from test_update_cases import Small

sys.path.insert(0, str(ROOT / "template"))
from ci.origin import Origin, OriginError

from ci import doctor

# ---------------------------------------------------------------------------------------------------------- Doctor


def healthy(two: tuple[Path, str, str], small_environment: Path, folder: Path) -> Project:
    template, before, _ = two
    project = start(template, before, folder, {})
    shutil.copy2(small_environment / "uv.lock", project / "uv.lock")
    commit(project.folder)
    return project


def test_a_project_as_it_was_rendered_is_healthy_whatever_is_its_owners(
    two: tuple[Path, str, str], small_environment: Path, tmp_path: Path
) -> None:
    project = healthy(two, small_environment, tmp_path / "project")
    origin = Origin(str(two[0]), tmp_path / "mirror.git")
    report = doctor.examine(project.folder, origin, uv="")
    assert (report.score, report.healthy, report.behind, report.newest) == (95, True, 1, "v99.0.0")
    assert [finding.kind for finding in report.findings] == ["outdated"] and report.checked > 100
    edit(project)
    found = {(finding.kind, finding.file) for finding in doctor.examine(project.folder, origin, uv="").findings}
    ours = {"Makefile", "src/copier_mlops/evaluation/metrics.py"}
    assert found == {("outdated", ".copier-answers.yml"), ("deleted", "tests/core/test_values.py"), *(("edited", name) for name in ours)}  # fmt: skip


def _sed(name: str, old: str, new: str) -> Callable[[Project], None]:
    return lambda project: project.replace(name, old, new)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda project: (project / "src/copier_mlops/ci/required_jobs.py").unlink(), "deleted", "src/copier_mlops/ci/required_jobs.py was deleted"),
        (lambda project: (project / "params.yaml").unlink(), "deleted", "the platform needs it"),
        (_sed("Makefile", ".DEFAULT_GOAL", "# ours\n.DEFAULT_GOAL"), "edited", "Makefile was edited (+1 -0 lines)"),
        (_sed("pyproject.toml", "fail_under = 90", "fail_under = 10"), "edited", "fail_under is 10, the release has 90"),
        (_sed("pyproject.toml", '  "mlflow>=3.17",\n', ""), "edited", 'lacks "mlflow>=3.17"'),
        (_sed(".gitignore", "/models/\n", ""), "edited", "/models/"),
        (_sed(".github/workflows/ci.yml", "actions/checkout@", "actions/checkout@v7 # "), "unpinned", "actions/checkout@v7"),
        (_sed("uv.lock", "exclude-newer = ", 'exclude-newer = "2020-01-01T00:00:00Z" # '), "lock", "2020-01-01"),
        (lambda project: (project / "uv.lock").unlink(), "lock", "uv.lock is not there"),
        (lambda project: (project / "x.md").write_text("<<<<<<< yours\n"), "marks", "x.md has marks"),
        (lambda project: (project / "Makefile.rej").write_text("@@\n"), "marks", "Makefile.rej"),
    ],
)  # fmt: skip
def test_what_differs_is_found_and_has_a_remedy(
    change: Callable[[Project], None], kind: str, says: str,
    two: tuple[Path, str, str], small_environment: Path, tmp_path: Path,
) -> None:  # fmt: skip
    project = healthy(two, small_environment, tmp_path / "project")
    change(project)
    commit(project.folder)
    report = doctor.examine(project.folder, Origin(str(two[0]), tmp_path / "mirror.git"), uv="")
    found = [finding for finding in report.findings if finding.kind == kind]
    assert found and says in found[0].says and found[0].remedy
    assert not report.healthy and report.score < 95


def test_a_lock_off_the_known_good_set(two: tuple[Path, str, str], small_environment: Path, tmp_path: Path) -> None:
    project = healthy(two, small_environment, tmp_path / "project")
    uv = shutil.which("uv", path=clean_environment()["PATH"]) or "uv"
    assert not list(doctor.moved(project.folder, uv))
    subprocess.run([uv, "lock", "--quiet", "--upgrade-package", "rich<14.1"], cwd=project.folder, check=True)
    (finding,) = doctor.moved(project.folder, uv)
    assert "rich" in finding.says and finding.remedy == "make lock" and finding.counts


def test_healing_brings_a_file_back_and_nothing_uncommitted_is_lost(
    two: tuple[Path, str, str], small_environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = healthy(two, small_environment, tmp_path / "project")
    origin = Origin(str(two[0]), tmp_path / "mirror.git")
    before = (project / "Makefile").read_bytes()
    project.replace("Makefile", ".DEFAULT_GOAL", "# ours\n.DEFAULT_GOAL")
    with pytest.raises(OriginError, match="not committed"):
        doctor.bring_back(project.folder, origin, ["Makefile"])
    commit(project.folder)
    (project / "src/copier_mlops/ci/required_jobs.py").unlink()
    doctor.bring_back(project.folder, origin, ["Makefile", "src/copier_mlops/ci/required_jobs.py"])
    assert (project / "Makefile").read_bytes() == before and (project / "src/copier_mlops/ci/required_jobs.py").exists()
    with pytest.raises(OriginError, match="has no nowhere"):
        doctor.bring_back(project.folder, origin, ["nowhere"])


def test_doctor_as_it_is_called(two: tuple[Path, str, str], small_environment: Path, tmp_path: Path) -> None:
    """In the project, with its own environment: a text for people, JSON for a fleet, an exit code for CI."""
    project = healthy(two, small_environment, tmp_path / "project")
    (project / ".venv").symlink_to(small_environment / ".venv")
    words = (".venv/bin/python", "-m", "copier_mlops.updates.doctor")
    done = project.command(*words)
    assert done.returncode == 0 and "score 95 of 100" in done.stdout and "make update" in done.stdout, done.stderr
    (project / "src/copier_mlops/ci/required_jobs.py").unlink()
    done = project.command(*words, "--json")
    told = json.loads(done.stdout)
    assert (
        done.returncode == 1
        and not told["healthy"]
        and told["findings"][0]["file"] == "src/copier_mlops/ci/required_jobs.py"
    )
    (project / ".copier-answers.yml").unlink()
    done = project.command(*words)
    assert done.returncode == 2 and "nobody knows which template" in done.stderr and "Traceback" not in done.stderr


# ----------------------------------------------------------------------------------------------------------- Fleet


def fleet(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "ci/fleet.py"), *words], env=clean_environment(**environment), capture_output=True, text=True, check=False)  # fmt: skip


@pytest.fixture
def projects(two: tuple[Path, str, str], small_environment: Path, tmp_path: Path) -> Path:
    """A fleet: a folder, a folder with a remote, a bare repository, one with a conflict, one with work in it, one newer."""
    template, _, after = two
    for name in ("plain", "remote", "bare", "conflict", "dirty"):
        healthy(two, small_environment, tmp_path / name)
    start(template, after, tmp_path / "newest", {})
    for name in ("remote", "bare"):
        git(tmp_path, "clone", "--quiet", "--bare", name, f"{name}.git")
    git(tmp_path / "remote", "remote", "add", "origin", str(tmp_path / "remote.git"))
    Project(tmp_path / "conflict").replace("Makefile", "## run the tests with", "## run our tests with")
    commit(tmp_path / "conflict")
    (tmp_path / "dirty/notes.md").write_text("not yet\n")
    listed = tmp_path / "projects.txt"
    listed.write_text("# ours\nplain\nremote   # has a remote\n\nbare.git\nconflict\ndirty\nnewest\n")
    return listed


def test_a_fleet(projects: Path, two: tuple[Path, str, str]) -> None:
    _, before, after = two
    here = projects.parent
    done = fleet("status", str(projects), "--json")
    rows = {row["project"]: row for row in json.loads(done.stdout)}
    assert list(rows) == ["plain", "remote", "bare", "conflict", "dirty", "newest"], done.stderr
    assert [row["release"] for row in rows.values()] == [before] * 5 + [after]
    assert [row["behind"] for row in rows.values()] == ["1"] * 5 + ["0"]
    assert rows["plain"]["well"] and not rows["conflict"]["well"]
    assert [row["score"] for row in rows.values()] == ["95", "95", "95", "93", "95", "95"], (
        "a missed release costs 5 points, a lock that is not there too"
    )

    planned = json.loads(fleet("update", str(projects), "--json", "--plan").stdout)
    assert [row["result"].split(":")[0] for row in planned] == ["would be updated"] * 3 + ["to decide", "would be updated", "nothing to do"]  # fmt: skip
    assert not git(here / "plain", "branch", "--list", "update/*")

    heads = {name: git(here / name, "rev-parse", "HEAD") for name in ("plain", "remote", "conflict", "dirty")}
    done = fleet("update", str(projects), "--checks", "check-lock", "--force")
    assert done.returncode == 1 and "4 of 6 are well" in done.stderr, done.stdout + done.stderr
    lines = {line.split("|")[1].strip(): line for line in done.stdout.splitlines()[2:]}
    assert (
        "updated, no remote" in lines["plain"]
        and "updated, pushed" in lines["remote"]
        and "updated, pushed" in lines["bare"]
    )
    assert (
        "to decide: Makefile" in lines["conflict"]
        and "not committed" in lines["dirty"]
        and "nothing to do" in lines["newest"]
    )
    assert {name: git(here / name, "rev-parse", "HEAD") for name in heads} == heads, "a folder's own branch moved"
    assert (here / "dirty/notes.md").read_text() == "not yet\n"
    for name in ("plain", "remote.git", "bare.git"):
        assert "all tests" in git(here / name, "show", f"update/{after}:Makefile")
    assert not git(here / "conflict", "branch", "--list", "update/*")

    # again: what is done stays as it is, also where a person went on with it
    git(here, "clone", "--quiet", "--branch", f"update/{after}", "bare.git", "person")
    (here / "person/README.md").write_text("A person was here.\n")
    commit(here / "person")
    git(here / "person", "push", "--quiet", "origin", f"update/{after}")
    done_before = {
        name: git(here / name, "rev-parse", f"update/{after}") for name in ("plain", "remote.git", "bare.git")
    }
    again = {
        row["project"]: row
        for row in json.loads(fleet("update", str(projects), "--checks", "check-lock", "--json").stdout)
    }
    assert [again[name]["result"] for name in ("plain", "remote", "bare")] == ["done already"] * 3
    assert {name: git(here / name, "rev-parse", f"update/{after}") for name in done_before} == done_before
    assert "not committed" in again["dirty"]["reason"] and "notes.md" in again["dirty"]["reason"]


@pytest.mark.long  # a fleet in make test: the test above
def test_a_wave_that_goes_badly_is_the_last(projects: Path) -> None:
    projects.write_text("conflict\nplain\nremote\n")
    done = fleet("update", str(projects), "--json")
    assert [row["result"] for row in json.loads(done.stdout)] == ["to decide: Makefile", "not started", "not started"]
    assert done.returncode == 1 and "2 are left as they are" in done.stderr


# The tests below use a small template, whose checks take no time.


@pytest.fixture
def many(tmp_path: Path) -> Small:
    """A small template and copies of its project: a, b, c and d, the first with work that is not committed."""
    small = Small(tmp_path)
    small.start()
    for name in "abcd":
        shutil.copytree(small.project, tmp_path / name)
    (tmp_path / "a/notes.md").write_text("not yet\n")
    small.release()
    return small


def listed(small: Small, *lines: str) -> str:
    (small.project.parent / "projects.txt").write_text("\n".join(lines) + "\n")
    return str(small.project.parent / "projects.txt")


def results(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.stdout, done.stderr
    return {row["project"]: row["result"].split(":")[0] for row in json.loads(done.stdout)}


def test_a_project_with_work_in_it_stops_neither_a_plan_nor_a_wave(many: Small) -> None:
    projects = listed(many, "a", "b", "c")
    assert results(fleet("update", projects, "--plan", "--json")) == dict.fromkeys("abc", "would be updated")
    done = fleet("update", projects, "--json", "--waves", "1 1")
    blocked = "these are not committed, so an update could hurt them"
    assert results(done) == {"a": blocked, "b": "updated, no remote", "c": "updated, no remote"}


def test_pilots_come_first_and_a_project_is_held_back(many: Small) -> None:
    """If a pilot fails, the other projects are not touched; the one on hold is never touched."""
    pilot = many.project.parent / "d"
    (pilot / "Makefile").write_text("setup:\n\t@true\ncheck:\n\t@seq 3000; echo broken; exit 1\n")
    commit(pilot)
    projects = listed(many, "b", "c [hold: until the audit]   # later", "d [pilot]")
    done = fleet("update", projects, "--json")
    rows = {row["project"]: row for row in json.loads(done.stdout)}
    assert {name: row["result"] for name, row in rows.items() if name != "d"} == {"b": "not started", "c": "held back: until the audit"}  # fmt: skip
    assert "make check failed" in rows["d"]["result"] and "broken" in rows["d"]["reason"]
    log = Path(rows["d"]["log"]).read_text()
    assert "\n1\n2\n3\n" in log and "broken" in log, "the log is cut"
    assert "held back: until the audit" in fleet("status", projects).stdout
    assert not git(many.project.parent / "b", "branch", "--list", "update/*")
    again = results(fleet("update", projects, "--json", "--force"))
    assert again["b"] == "updated, no remote" and again["c"] == "held back" and "failed" in again["d"]


def test_pull_requests_are_opened_where_a_token_is_given(many: Small, github: GitHub, tmp_path: Path) -> None:
    """The checks of the project see no token, in their environment or in that of their parents."""
    for name in ("b", "c"):
        git(tmp_path, "clone", "--quiet", "--bare", name, f"ada/{name}.git")
        git(tmp_path / name, "config", f"url.{tmp_path}/.insteadOf", "https://github.com/")
        git(tmp_path / name, "remote", "add", "origin", f"https://github.com/ada/{name}.git")
    look = "import os, pathlib; pid = os.getpid()\nwhile pid > 1:\n    assert b'made-here' not in pathlib.Path(f'/proc/{pid}/environ').read_bytes(), pid\n    pid = int(pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])\n    if b'pytest' in pathlib.Path(f'/proc/{pid}/cmdline').read_bytes(): break\n"
    (tmp_path / "b/look.py").write_text(look)
    (tmp_path / "b/Makefile").write_text(f"setup:\n\t@true\ncheck:\n\t@{sys.executable} look.py\n")
    commit(tmp_path / "b")
    git(tmp_path / "b", "push", "--quiet", "origin", "HEAD:main")
    environment = {"GITHUB_TOKEN": "made-here", "GITHUB_API_URL": github.address}
    rows = json.loads(fleet("update", listed(many, "b", "c"), "--json", **environment).stdout)
    assert [row["result"] for row in rows] == ["updated, pushed"] * 2, rows
    assert [row["pull_request"] for row in rows] == ["http://here"] * 2
    assert sorted(path for path, _ in github.written) == ["/repos/ada/b/pulls", "/repos/ada/c/pulls"]
    assert {body["head"] for _, body in github.written} == {"update/v1.1.0"} and {body["base"] for _, body in github.written} == {"main"}  # fmt: skip
    github.open = [{"number": 7, "head": {"ref": "update/v1.1.0"}, "html_url": "http://there"}]
    rows = json.loads(fleet("update", listed(many, "b"), "--json", **environment).stdout)
    assert (
        rows[0]["result"] == "done already" and rows[0]["pull_request"] == "http://there" and len(github.written) == 2
    )


@pytest.mark.parametrize(
    ("text", "says"), [(None, "is not there"), ("# nothing\n", "names no project"), ("nowhere\n", "there is no folder")]
)
def test_lists_that_are_none(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "projects.txt").write_text(text)
    done = fleet("status", str(tmp_path / "projects.txt"))
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_all_wrong_lines_of_a_list_are_reported(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    lines = ["a [pilot]", "b", "./a/  # again", "none", "b [pilto]", "ssh://host/c.git", "ssh://host/c"]
    (tmp_path / "projects.txt").write_text("\n".join(lines))
    done = fleet("status", str(tmp_path / "projects.txt"))
    assert done.returncode == 1 and [line.split("projects.txt:")[1] for line in done.stderr.splitlines()] == [
        "3: line 1 names the same project; remove one of them",
        f"4: there is no folder {tmp_path / 'none'}",
        f"5: there is no folder {tmp_path / 'b [pilto]'}; the marks are [pilot] and [hold: reason]",
        "7: line 6 names the same project; remove one of them",
    ]


def test_a_folder_that_is_no_repository_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.copier-answers.yml").write_text("_commit: v1.0.0\n_src_path: /nowhere\n")
    (tmp_path / "projects.txt").write_text("a\n")
    done = fleet("status", str(tmp_path / "projects.txt"))
    assert done.returncode == 1 and "is no git repository of its own; `make setup` in it makes it one" in done.stdout


def test_defaults_of_an_organisation(two: tuple[Path, str, str], tmp_path: Path) -> None:
    (tmp_path / "organisation.yml").write_text("owner: ada-labs\nlicence: MIT\nauthor: Ada Labs\n")
    words = [
        str(Path(sys.executable).with_name("copier")),
        "copy",
        "--defaults",
        "--quiet",
        "--data-file",
        str(tmp_path / "organisation.yml"),
    ]
    subprocess.run([*words, str(two[0]), str(tmp_path / "project")], check=True, capture_output=True)
    assert "Ada Labs" in (tmp_path / "project/LICENSE").read_text()
    assert "owner: ada-labs" in (tmp_path / "project/.copier-answers.yml").read_text()
