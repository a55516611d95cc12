"""What a release does to a project before an update merges: on small trees, stopped at every step, and under Copier itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml
from conftest import ROOT
from copier.errors import TaskError, UnsafeTemplateError, UserMessageError
from releases import Releases, add_steps, git, hooks_without_steps, stand_in

sys.path.insert(0, str(ROOT / "hooks"))
import migrate
from migrate import MigrationError, Tree

FILES = {
    ".copier-answers.yml": "# by Copier\n_commit: v1.0.0\nowner: ada\ntext: 'two words,\n\n  and more: of them'\n",
    "src/flights/cli.py": "",
    "src/flights/api.py": "",
    "src/flights/core/schema.py": "CONTRACT = 1\n",
    "src/flights/core/features.py": "from .schema import CONTRACT\nfrom .schema import CONTRACT as AGAIN\n",
    "README.md": "see schema.py\r\nand more\r\n",
}
OLD, NEW = "src/flights/core/schema.py", "src/flights/contract/schema.py"


def steps(tree: Tree) -> None:
    """One of each."""
    tree.move("src/{package}/core/schema.py", "src/{package}/contract/schema.py")
    tree.replace("src/{package}/core/features.py", "from .schema", "from ..contract.schema")
    tree.replace("src/{package}/contract/schema.py", "CONTRACT = 1", "CONTRACT = 2")
    tree.rename_answer("owner", "organisation")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project, committed."""
    return made(tmp_path / "project")


def made(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "as it is")


def state(project: Path) -> dict[str, object]:
    """What git knows, what it says, and every file."""
    files = {str(path.relative_to(project)): path.read_bytes() for path in sorted(project.rglob("*")) if path.is_file() and ".git" not in path.parts}  # fmt: skip
    return {"index": git(project, "write-tree"), "status": git(project, "status", "--porcelain"), **files}


# --------------------------------------------------------------------------------------------------- What it does


def test_each_step_once_with_all_edits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / OLD).write_text("CONTRACT = 1\nMINE = True\n")
    commit(project)
    with (project / OLD).open("a") as file:
        file.write("NOT_COMMITTED = True\n")
    (project / OLD).chmod(0o755)
    start = state(project)
    steps(Tree(project, plan=True))
    planned = capsys.readouterr().out.splitlines()
    assert state(project) == start
    assert [line.split()[:3] for line in planned] == [["would", "move", OLD], ["would", "replace", "'from"], ["would", "replace", "'CONTRACT"], ["would", "rename", "answer"]]  # fmt: skip
    steps(Tree(project))
    done = capsys.readouterr().out.splitlines()
    assert [line.strip().removeprefix("would ").split()[1:] for line in planned] == [line.split()[1:] for line in done]
    assert not (project / OLD).exists()
    assert (project / NEW).read_text() == "CONTRACT = 2\nMINE = True\nNOT_COMMITTED = True\n"
    assert (project / NEW).stat().st_mode & 0o777 == 0o755
    assert (project / "src/flights/core/features.py").read_text() == FILES["src/flights/core/features.py"].replace("from .", "from ..contract.")  # fmt: skip
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert answers == {"_commit": "v1.0.0", "organisation": "ada", "text": "two words,\nand more: of them"}
    assert "# by Copier" in (project / ".copier-answers.yml").read_text()
    known = git(project, "ls-files").splitlines()
    assert NEW in known and OLD not in known
    end = state(project)
    steps(Tree(project))
    assert state(project) == end
    said = capsys.readouterr().out
    assert (
        said.count("\n") == 4 and f"{OLD} is {NEW} already" in said and "answer owner is organisation already" in said
    )


def test_a_project_inside_another_repository(tmp_path: Path) -> None:
    git_root = tmp_path / "all"
    inner = git_root / "teams/one"
    git_root.mkdir()
    git(git_root, "init", "--quiet")
    for name, text in FILES.items():
        (inner / name).parent.mkdir(parents=True, exist_ok=True)
        (inner / name).write_text(text)
    commit(git_root)
    steps(Tree(inner))
    assert (inner / NEW).read_text() == "CONTRACT = 2\n" and not (inner / OLD).exists()
    listed = git(git_root, "ls-files").splitlines()
    assert f"teams/one/{NEW}" in listed and f"teams/one/{OLD}" not in listed and len(listed) == len(FILES)


def test_lines_end_as_they_did(project: Path) -> None:
    Tree(project).replace("README.md", "schema.py\nand", "table.py\nbut")
    assert (project / "README.md").read_bytes() == b"see table.py\r\nbut more\r\n"


def test_what_the_user_took_away_stays_away(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / OLD).unlink()
    commit(project)
    start = state(project)
    steps(Tree(project, say=lambda line: None))
    Tree(project).move(OLD, NEW)
    assert "is not here: nothing to move" in capsys.readouterr().out
    assert not (project / NEW).exists() and (project / "README.md").read_bytes() == start["README.md"]


# --------------------------------------------------------------------------------------------------- What it refuses


def link_out(project: Path) -> None:
    outside = project.parent / "outside"
    shutil.move(project / "src/flights/core", outside)
    (project / "src/flights/core").symlink_to(outside)
    commit(project)


def link(project: Path) -> None:
    (project / OLD).rename(project / "elsewhere.py")
    (project / OLD).symlink_to(project / "elsewhere.py")
    commit(project)


def another(project: Path) -> None:
    (project / NEW).parent.mkdir()
    (project / NEW).write_text("# somebody's\n")
    commit(project)


def a_file_for_a_folder(project: Path) -> None:
    (project / NEW).parent.write_text("# somebody's\n")
    commit(project)


def not_known(project: Path) -> None:
    git(project, "rm", "--quiet", "--cached", OLD)


def both_answers(project: Path) -> None:
    with (project / ".copier-answers.yml").open("a") as file:
        file.write("organisation: grace\n")


def merging(project: Path) -> None:
    blob = git(project, "rev-parse", f"HEAD:{OLD}")
    lines = "".join(f"100644 {blob} {stage}\t{OLD}\n" for stage in (1, 2, 3))
    subprocess.run(["git", "update-index", "--index-info"], cwd=project, input=f"0 {'0' * 40}\t{OLD}\n{lines}", text=True, check=True)  # fmt: skip


def locked(project: Path) -> None:
    (project / ".git/index.lock").touch()


def two_packages(project: Path) -> None:
    shutil.copytree(project / "src/flights", project / "src/trains")


def no_answers(project: Path) -> None:
    (project / ".copier-answers.yml").unlink()


def no_repository(project: Path) -> None:
    shutil.rmtree(project / ".git")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (link_out, "src/flights/core is a link.*by hand"),
        (link, "core/schema.py is a link"),
        (another, "another file is there.*Rename"),
        (a_file_for_a_folder, "src/flights/contract is a file.*Rename"),
        (not_known, "not known to git.*git add"),
        (both_answers, "both owner and organisation"),
        (merging, "in the middle of a merge"),
        (locked, r"update-index failed.*index\.lock"),
        (two_packages, "which folder of .*src is this project's package"),
        (no_answers, r"has no \.copier-answers\.yml"),
        (no_repository, "rev-parse failed.*not a git repository"),
    ],
)
def test_what_is_in_the_way_is_named_and_nothing_is_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], says: str
) -> None:
    monkeypatch.setitem(migrate.RELEASES, "9.0.0", steps)
    spoil(project)
    before = {
        path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file() and ".git" not in path.parts
    }
    with pytest.raises(MigrationError, match=f"(?s){says}"):
        migrate.migrate("9.0.0", project)
    after = {
        path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file() and ".git" not in path.parts
    }
    assert after == before


@pytest.mark.parametrize(
    "step",
    [
        lambda tree: tree.move("../outside.py", "here.py"),
        lambda tree: tree.move(OLD, "/tmp/there.py"),
        lambda tree: tree.move(OLD, ".git/hooks/post-checkout"),
        lambda tree: tree.move("src/flights/core", "src/flights/room"),
        lambda tree: tree.replace(OLD, "CONTRACT", "CONTRACTS"),
        lambda tree: tree.replace(OLD, "", "x"),
    ],
)
def test_steps_that_can_never_be_right(project: Path, step: Callable[[Tree], None]) -> None:
    start = state(project)
    with pytest.raises(MigrationError):
        step(Tree(project))
    assert state(project) == start


def test_a_second_package_is_told_apart_by_the_answers(project: Path) -> None:
    two_packages(project)
    with (project / ".copier-answers.yml").open("a") as file:
        file.write("package: trains\n")
    assert Tree(project).package == "trains"


# ------------------------------------------------------------------------------------------------------ The command


def command(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    """hooks/migrate.py with a release that has a step of each kind."""
    file = tmp_path / "migrate.py"
    head, table, rest = (ROOT / "hooks/migrate.py").read_text().partition("\nRELEASES: ")
    code = "\n\ndef _steps(tree: Tree) -> None:\n" + "".join(
        f"    tree.{line.strip().removeprefix('tree.')}\n"
        for line in (
            'move("src/{package}/core/schema.py", "src/{package}/contract/schema.py")',
            'replace("src/{package}/core/features.py", "from .schema", "from ..contract.schema")',
            'replace("src/{package}/contract/schema.py", "CONTRACT = 1", "CONTRACT = 2")',
            'rename_answer("owner", "organisation")',
        )
    )
    file.write_text(head + code + table + rest.replace("{\n", '{\n    "9.0.0": _steps,\n', 1))
    return file


def test_the_command(project: Path, hook: Path) -> None:
    start = state(project)
    planned = command(str(hook), "9.0.0", "--plan", str(project), cwd=ROOT)
    assert planned.returncode == 0 and planned.stdout.count("would ") == 4 and state(project) == start
    done = command(str(hook), "9.0.0", cwd=project)
    assert done.returncode == 0 and done.stdout.count("\n") == 5 and (project / NEW).exists()
    shutil.rmtree(project / ".git")
    failed = command(str(hook), "9.0.0", cwd=project)
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


def test_a_release_without_steps_is_refused(project: Path) -> None:
    start = state(project)
    done = command(str(ROOT / "hooks/migrate.py"), "1.0.0", cwd=project)
    assert done.returncode == 1 and "release 1.0.0 has no steps" in done.stderr and state(project) == start


@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_anywhere_and_run_again(tmp_path: Path, hook: Path, when: str) -> None:
    """A git that kills who called it at its n-th call, before it does anything or after: the second run ends the work."""
    tools, real = tmp_path / "bin", shutil.which("git")
    tools.mkdir()
    act = f'{real} "$@"; code=$?' if when == "after" else "code=0"
    (tools / "git").write_text(
        f'#!/bin/sh\necho x >> "$CALLS"\nif [ "$(wc -l < "$CALLS")" -eq "$STOP" ]; then {act}; kill -9 $PPID; exit $code; fi\n'
        f'exec {real} "$@"\n'
    )
    (tools / "git").chmod(0o755)
    start, whole = made(tmp_path / "start"), tmp_path / "whole"
    shutil.copytree(start, whole)
    command(str(hook), "9.0.0", cwd=whole)
    calls, stop, stopped = tmp_path / "calls", 0, 0
    while True:
        stop += 1
        calls.write_text("")
        project = tmp_path / f"project-{stop}"
        shutil.copytree(start, project)
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        first = command(str(hook), "9.0.0", cwd=project, PATH=path, STOP=str(stop), CALLS=str(calls))
        if first.returncode == 0:
            break
        assert first.returncode == -9
        stopped += state(project) != state(whole)
        again = command(str(hook), "9.0.0", cwd=project)
        assert again.returncode == 0, again.stderr
        assert state(project) == state(whole), f"stopped {when} call {stop} of git"
    assert stopped > 10


# ------------------------------------------------------------------------------------------------------- Under Copier


SETTINGS = """_subdirectory: template
_templates_suffix: .jinja
_answers_file: .copier-answers.yml
_skip_if_exists: [{mine}]
_message_before_copy: ""

owner: {{type: str, default: ada}}
"""
LINES = "".join(f"line {number}\n" for number in range(20))
EDITED, CHANGED = LINES.replace("line 15\n", "line fifteen\n"), LINES.replace("line 1\n", "line one\n")
NAMES = ("mine.txt", "ours.txt", "same.txt")


def small_template(folder: Path) -> Path:
    """Two releases of a template of three files, which all move with the second; it changes two of them also."""
    template = folder / "template"
    (template / "src/flights").mkdir(parents=True)
    for name in ("cli.py", "api.py"):
        (template / "src/flights" / name).touch()
    for name in NAMES:
        (template / name).write_text(LINES)
    (template / ".copier-answers.yml.jinja").write_text("{{ _copier_answers|to_nice_yaml }}")
    hooks_without_steps(folder)
    (folder / "copier.yml").write_text(SETTINGS.format(mine="mine.txt"))
    git(folder, "init", "--quiet")
    commit(folder)
    git(folder, "tag", "v1.0.0")
    (folder / "copier.yml").write_text(SETTINGS.format(mine="room/mine.txt").replace("owner:", "organisation:"))
    moves = [f"tree.move({name!r}, {'room/' + name!r})" for name in NAMES]
    add_steps(folder, "2.0.0", [*moves, 'tree.rename_answer("owner", "organisation")'])
    (template / "room").mkdir()
    for name in NAMES:
        (template / name).rename(template / "room" / name)
        (template / "room" / name).write_text(LINES if name == "same.txt" else CHANGED)
    commit(folder)
    git(folder, "tag", "v2.0.0")
    return folder


def small_project(template: Path, folder: Path) -> Path:
    """Made of the first release; two of the files were edited."""
    copier.run_copy(str(template), folder, data={"owner": "grace"}, defaults=True, quiet=True, vcs_ref="v1.0.0")
    git(folder, "init", "--quiet")
    for name in ("mine.txt", "ours.txt"):
        (folder / name).write_text(EDITED)
    commit(folder)
    return folder


def update(project: Path, **options: bool) -> None:
    copier.run_update(project, defaults=True, overwrite=True, quiet=True, **options)


@pytest.mark.parametrize("options", [{}, {"skip_answered": True}], ids=["asked", "skip answered"])
def test_copier_keeps_edits_of_what_moved(tmp_path: Path, options: dict[str, bool]) -> None:
    template = small_template(tmp_path / "template")
    project = small_project(template, tmp_path / "project")
    with pytest.raises(UnsafeTemplateError, match="migrations"):
        update(project, **options)
    assert not git(project, "status", "--porcelain")
    update(project, unsafe=True, **options)
    assert not [name for name in NAMES if (project / name).exists()]
    assert (project / "room/mine.txt").read_text() == EDITED
    assert (project / "room/same.txt").read_text() == LINES
    # Copier has no base for a file of ours in its new place: whatever differs is a conflict, and nothing is lost in it.
    ours = (project / "room/ours.txt").read_text()
    assert ours.count("<<<<<<<") == 2 and "line fifteen\n" in ours and "line one\n" in ours
    assert yaml.safe_load((project / ".copier-answers.yml").read_text())["organisation"] == "grace"


def test_trust_is_asked_for_by_an_update_that_crosses_it_alone(tmp_path: Path) -> None:
    template = small_template(tmp_path / "template")
    (template / "template/room/same.txt").write_text(CHANGED)
    commit(template)
    git(template, "tag", "v2.1.0")
    copier.run_copy(str(template), tmp_path / "project", defaults=True, quiet=True, vcs_ref="v2.0.0")
    git(tmp_path / "project", "init", "--quiet")
    commit(tmp_path / "project")
    update(tmp_path / "project")
    assert (tmp_path / "project/room/same.txt").read_text() == CHANGED


@pytest.mark.parametrize("way", ["taken back", "committed"])
def test_an_update_that_was_stopped_after_the_steps(tmp_path: Path, way: str) -> None:
    """Copier refuses to go on over what is not committed; either way out ends where an undisturbed update does."""
    template = small_template(tmp_path / "template")
    project, whole = (small_project(template, tmp_path / name) for name in ("project", "whole"))
    update(whole, unsafe=True)
    steps_alone = command(str(template / "hooks/migrate.py"), "2.0.0", cwd=project)
    assert steps_alone.returncode == 0, steps_alone.stderr
    with pytest.raises(UserMessageError, match="dirty"):
        update(project, unsafe=True)
    if way == "taken back":
        git(project, "reset", "--quiet", "--hard")
    else:
        commit(project)
    update(project, unsafe=True)
    for name in (".copier-answers.yml", *(f"room/{name}" for name in NAMES)):
        assert (project / name).read_text() == (whole / name).read_text()
    assert not [name for name in NAMES if (project / name).exists()]


def test_copier_stops_where_the_steps_are_refused(tmp_path: Path) -> None:
    template = small_template(tmp_path / "template")
    project = small_project(template, tmp_path / "project")
    (project / "room").mkdir()
    (project / "room/mine.txt").write_text("somebody's\n")
    commit(project)
    before = state(project)
    with pytest.raises(TaskError):
        update(project, unsafe=True)
    assert state(project) == before


def test_the_contract_of_a_project_moves_with_its_edits(releases: Releases, tmp_path: Path) -> None:
    """This template, and a release to come that moves schema.py."""
    template = tmp_path / "copier-mlops"
    git(releases.clone, "clone", "--quiet", str(releases.clone), str(template))
    before = stand_in(template)
    tree = template / "template/src/{{package}}"
    (tree / "contract").mkdir()
    git(template, "mv", str(tree / "schema.py.jinja"), str(tree / "contract/schema.py.jinja"))
    settings = template / "copier.yml"
    settings.write_text(settings.read_text().replace("src/*/schema.py", "src/*/contract/schema.py"))
    add_steps(template, "99.0.0", ['tree.move("src/{package}/schema.py", "src/{package}/contract/schema.py")'])
    born = template / "template/adoption.json.jinja"
    born.write_text(born.read_text().replace("('schema', 'features'", "('contract/schema', 'features'"))
    commit(template)
    git(template, "tag", "v99.0.0")
    for count, answers in enumerate(({}, {"data_source": "own", "project_name": "Kundenabwanderung"})):
        project = tmp_path / f"project-{count}"
        copier.run_copy(str(template), project, data=answers, defaults=True, quiet=True, vcs_ref=f"v{before}")
        git(project, "init", "--quiet")
        old = next(path for path in project.glob("src/*/schema.py"))
        text = old.read_text() + "\nMINE = True\n"
        old.write_text(text)
        commit(project)
        copier.run_update(project, defaults=True, overwrite=True, quiet=True, unsafe=True, vcs_ref="v99.0.0")
        assert (old.parent / "contract/schema.py").read_text() == text and not old.exists()
        own = [path for path in project.rglob("*.py") if "copier_mlops" not in path.parts]
        assert "<<<<<<<" not in "".join(path.read_text() for path in own)
