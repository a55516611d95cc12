"""`make update` under conditions that other machines bring: a small template makes each case quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from conftest import ROOT, clean_environment, first
from hostile_git import configure_git

sys.path.insert(0, str(ROOT / "template"))
from ci.origin import ANSWERS, Origin, answers

from ci import doctor, update

FILES = {
    "copier.yml": """_subdirectory: template
_templates_suffix: .jinja
_answers_file: .copier-answers.yml
project_name: {type: str, default: Small}
problem: {type: str, default: classification}
data_source: {type: str, default: sample}
option: {type: bool, default: false}
""",
    "CHANGELOG.md": "# Changes\n",
    "docs/ownership.md": "| file | owner | |\n|---|---|---|\n| `README.md` | yours | |\n\n| instead of editing | write |\n|---|---|\n| `Makefile` | `local.mk` |\n",
    "template/{{_copier_conf.answers_file}}.jinja": (ROOT / "template/{{_copier_conf.answers_file}}.jinja")
    .read_text()
    .replace("{{ package }}", "small"),
    "template/Makefile": "check test setup verify:\n\t@true\n",
    "template/README.md": "# Small\n",
    "template/.gitignore": "/.cache/\n",
    "template/code.py": "".join(f"line_{n} = {n}\n" for n in range(20)),
    "template/other.py": "".join(f"other_{n} = {n}\n" for n in range(20)),
    "template/{% if option %}deploy{% endif %}/compose.yaml": "".join(f"service_{n}: {n}\n" for n in range(20)),
}
MAIN = f"import sys; sys.path.insert(0, {str(ROOT / 'template')!r}); from ci.update import main; sys.exit(main())"


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def commit(folder: Path, message: str = "mine") -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


class Small:
    """A small template with the release v1.0.0, and a project of it."""

    def __init__(self, folder: Path) -> None:
        self.template, self.project = folder / "template", folder / "project"
        for name, text in FILES.items():
            self._write(name, text)
        git(self.template, "init", "--quiet", "--initial-branch", "main")
        commit(self.template, "first")
        git(self.template, "tag", "v1.0.0")

    def _write(self, name: str, text: str) -> None:
        (self.template / name).parent.mkdir(parents=True, exist_ok=True)
        (self.template / name).write_text(text)

    def start(self, **given: object) -> Path:
        """Make the project, with one commit."""
        copier.run_copy(str(self.template), self.project, data=given, defaults=True, quiet=True, vcs_ref="v1.0.0")
        git(self.project, "init", "--quiet", "--initial-branch", "main")
        commit(self.project, "first")
        return self.project

    def release(self, tag: str = "v1.1.0", **texts: str) -> None:
        """Release the template; the keywords are files of it, with _ for . in their names."""
        for name, text in (texts or {"code_py": FILES["template/code.py"].replace("= 5", "= 55")}).items():
            self._write(f"template/{name.replace('_', '.')}", text)
        commit(self.template, tag)
        git(self.template, "tag", tag)

    def update(self, *words: str, fails: bool = False, **environment: str) -> str:
        """Run the updater in the project, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *words],
            cwd=self.project,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) is fails and "Traceback" not in said, said
        return said

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.project / name).read_text()
        assert old in text
        (self.project / name).write_text(text.replace(old, new))
        commit(self.project, f"edit {name}")


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


# --------------------------------------------------------------------------------------- Environment and user settings


def test_a_plan_changes_nothing_when_git_variables_of_the_caller_are_set(small: Small) -> None:
    project = small.start()
    small.release()
    commits = git(project, "rev-parse", "HEAD"), git(project, "for-each-ref")
    foreign = {
        "GIT_DIR": str(project / ".git"),
        "GIT_INDEX_FILE": str(project / ".git/index"),
        "GIT_WORK_TREE": str(project),
    }
    said = small.update("--plan", **foreign)
    assert "code.py" in said and "nothing was changed" in said
    assert (git(project, "rev-parse", "HEAD"), git(project, "for-each-ref")) == commits
    assert not git(project, "status", "--porcelain")
    small.update(**foreign)
    assert answers(project)["_commit"] == "v1.1.0"


def test_an_update_under_a_hostile_configuration_of_git(small: Small, tmp_path: Path) -> None:
    """Edits on both sides of the file merge, although the user's git converts line ends, signs, and runs hooks."""
    project = small.start()
    small.edit("code.py", "= 15", "= 'mine'")
    small.release(code_py=FILES["template/code.py"].replace("= 2\n", "= 22\n"), fresh_lock="x\n", core="x\n")
    home = tmp_path / "home"
    configuration = configure_git(home)
    said = small.update(HOME=str(home), GIT_CONFIG_GLOBAL=str(configuration))
    assert "update/v1.1.0" in said
    text = git(project, "show", "update/v1.1.0:code.py")
    assert "line_2 = 22" in text and "line_15 = 'mine'" in text and "\r" not in text
    assert {"core", "fresh.lock"} <= set(git(project, "ls-tree", "--name-only", "update/v1.1.0").splitlines())


def test_the_files_of_an_option_arrive_although_gitignore_names_them(small: Small) -> None:
    project = small.start()
    (project / ".gitignore").write_text("/.cache/\ndeploy/\n")
    commit(project)
    small.update("--set", "option=yes")
    assert "deploy/compose.yaml" in git(project, "ls-files")
    assert (project / "deploy/compose.yaml").read_text() == FILES[
        "template/{% if option %}deploy{% endif %}/compose.yaml"
    ]


@pytest.mark.parametrize("local", first(["deploy/compose.yaml", "deploy", "deploy/compose.yaml/x"]))
def test_an_ignored_local_file_is_neither_overwritten_nor_deleted(local: str, small: Small) -> None:
    project = small.start()
    (project / ".gitignore").write_text("/.cache/\ndeploy\n")
    commit(project)
    (project / local).parent.mkdir(parents=True, exist_ok=True)
    (project / local).write_text("password of mine\n")
    said = small.update("--set", "option=yes", fails=True)
    assert "which git ignores" in said and local.removesuffix("/x") in said
    assert (project / local).read_text() == "password of mine\n"
    assert git(project, "branch", "--show-current") == "main" and not git(project, "branch", "--list", "answers/*")


def test_a_local_file_that_came_during_the_update_is_not_overwritten(small: Small) -> None:
    """The checks take minutes; a file that appears meanwhile stays."""
    project = small.start()
    (project / ".gitignore").write_text("/.cache/\ndeploy\n")
    (project / "Makefile").write_text(
        f"check test setup verify:\n\t@mkdir -p {project}/deploy; echo mine > {project}/deploy/compose.yaml\n"
    )
    commit(project)
    assert "compose.yaml" in small.update("--set", "option=yes", fails=True)
    assert (project / "deploy/compose.yaml").read_text() == "mine\n"


def test_the_clone_has_the_submodules_of_the_project(small: Small, tmp_path: Path) -> None:
    project = small.start()
    for name in ("inner", "library"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text("needed\n")
        git(tmp_path / name, "init", "--quiet")
        commit(tmp_path / name, "first")
    words = ("-c", "protocol.file.allow=always", "submodule", "--quiet")
    git(tmp_path / "library", *words, "add", str(tmp_path / "inner"), "inner")
    commit(tmp_path / "library", "inner")
    git(project, *words, "add", str(tmp_path / "library"), "vendor/library")
    git(project, *words, "update", "--init", "--recursive")
    (project / "Makefile").write_text(
        "check test setup verify:\n\t@cat vendor/library/data.txt vendor/library/inner/data.txt\n"
    )
    commit(project)
    for name in ("inner", "library"):  # the remotes are not there
        (tmp_path / name).rename(tmp_path / f"{name}-gone")
    small.release()
    small.update()
    assert answers(project)["_commit"] == "v1.1.0" and (project / "vendor/library/inner/data.txt").exists()


# ---------------------------------------------------------------------------------------------------------- Conflicts


def conflict(small: Small) -> Path:
    project = small.start()
    small.edit("code.py", "= 5", "= 'mine'")
    small.release()
    return project


KILLED: dict[str, Callable[[Path], object]] = {
    "before the marks": lambda project: None,
    "after git reset": lambda project: (
        git(project, "reset", "--quiet", "--hard"),
        git(project, "switch", "--quiet", "main"),
    ),
    "before git knows of the conflict": lambda project: git(project, "reset", "--quiet"),
}


@pytest.mark.parametrize("when", first(KILLED))
def test_a_conflict_is_not_lost_when_the_update_is_killed(
    when: str, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill or a reset of the marks, CONTINUE=1 writes the marks again instead of losing the change."""
    project = conflict(small)
    if when == "before the marks":
        code = MAIN.replace("from ci.update import main;", "from ci import update; update.decide = lambda *a: (update.switch(a[0], a[1].branch), update.os._exit(9)); from ci.update import main;")  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=project, env=clean_environment(), capture_output=True, check=False
        )
        assert done.returncode == 9 and git(project, "branch", "--show-current") == "update/v1.1.0"
    else:
        small.update(fails=True)
        KILLED[when](project)
        git(project, "switch", "--quiet", "update/v1.1.0")
    said = small.update("--continue", fails=True)
    assert "code.py" in said and "marks again" in said
    assert git(project, "status", "--porcelain").split() == ["UU", "code.py"]
    assert "= 55" in (project / "code.py").read_text() and "= 'mine'" in (project / "code.py").read_text()
    assert "left" in small.update("--continue", fails=True)
    git(project, "checkout", "--theirs", "code.py")
    git(project, "add", "code.py")
    small.update("--continue")
    assert "line_5 = 55" in git(project, "show", "update/v1.1.0:code.py")
    assert "nothing to do" in small.update()


def test_the_side_of_the_project_can_be_kept(small: Small) -> None:
    project = conflict(small)
    small.update(fails=True)
    git(project, "checkout", "--ours", "code.py")
    git(project, "add", "code.py")
    small.update("--continue")
    assert "'mine'" in git(project, "show", "update/v1.1.0:code.py") and answers(project)["_commit"] == "v1.1.0"


def test_a_binary_conflict_waits_for_git_add(small: Small) -> None:
    project = small.start()
    (project / "code.py").write_bytes(b"\0mine")
    commit(project)
    small.release()
    assert "binary" in small.update(fails=True)
    assert "code.py" in small.update("--continue", fails=True)
    git(project, "add", "code.py")
    small.update("--continue")
    assert (project / "code.py").read_bytes() == b"\0mine"


def test_changes_to_files_that_the_owner_deleted_or_renamed_are_listed(small: Small) -> None:
    project = small.start()
    git(project, "mv", "code.py", "ours.py")
    (project / "other.py").unlink()
    commit(project)
    small.release(
        code_py=FILES["template/code.py"].replace("= 5", "= 55"), other_py=FILES["template/other.py"] + "more = 1\n"
    )
    for words in (["--plan"], []):
        said = small.update(*words)
        assert "the release changes code.py (+1 -1 lines), which you renamed to ours.py" in said
        assert "the release changes other.py (+1 -0 lines), which you deleted" in said
    assert "ours.py" in git(project, "log", "-1", "--format=%b") and not (project / "other.py").exists()
    git(project, "apply", ".cache/update/missed-v1.1.0.patch")
    assert "line_5 = 55" in (project / "ours.py").read_text()


def test_an_option_that_is_switched_on_again_conflicts_in_the_edited_lines_only(small: Small) -> None:
    """The file was kept when the option went off; the template changed another line of it meanwhile."""
    project = small.start(option=True)
    small.edit("deploy/compose.yaml", "service_3: 3", "service_3: mine")
    assert "it stays and is yours" in small.update("--set", "option=no")
    git(project, "switch", "--quiet", "main")
    git(project, "merge", "--quiet", "answers/option")
    name = "template/{% if option %}deploy{% endif %}/compose.yaml"
    (small.template / name).write_text(FILES[name].replace("service_15: 15", "service_15: theirs"))
    small.release()
    small.update("--set", "option=yes")
    text = (project / "deploy/compose.yaml").read_text()
    assert "service_3: mine" in text and "service_15: theirs" in text and "<<<<" not in text


# -------------------------------------------------------------------------------------------------- Tags and addresses


def test_tags_that_move_do_not_break_updates(small: Small) -> None:
    """v1 and latest, annotated and newer, are on the release of the project, and move with the next release."""
    for name in ("v1", "latest", "v1.0"):
        git(small.template, "tag", "--annotate", "--message", "moves", name)
    project = small.start()
    first = git(small.template, "rev-parse", "v1.0.0^{commit}")
    assert answers(project)["_commit"] in ("v1.0.0", first), "a tag that moves is recorded"
    small.release()
    for name in ("v1", "latest", "v1.0"):
        git(small.template, "tag", "--force", "--annotate", "--message", "moves", name)
    small.update()
    assert answers(project)["_commit"] == "v1.1.0"
    origin = Origin(str(small.template), project / update.MIRROR)
    assert [release.ref for release in origin.releases] == ["v1.0.0", "v1.1.0"]
    assert origin.release("latest").ref == "v1.1.0"


def test_a_project_that_recorded_a_moving_tag_is_updated_from_its_own_release(small: Small) -> None:
    project = small.start()
    text = (project / ANSWERS).read_text()
    (project / ANSWERS).write_text(text.replace("_commit: v1.0.0", "_commit: v1"))
    commit(project)
    small.edit("code.py", "= 15", "= 'mine'")
    small.release()
    git(small.template, "tag", "v1")
    said = small.update()
    assert "a tag that moves" in said and "v1.0.0" in said
    assert answers(project)["_commit"] == "v1.1.0"
    assert "line_5 = 55" in (project / "code.py").read_text() and "'mine'" in (project / "code.py").read_text()


@pytest.mark.parametrize("address", first(["file://{}", "git+file://{}", "{}"]))
def test_an_address_with_a_scheme_is_taken_and_remembered(address: str, small: Small) -> None:
    project = small.start()
    small.release()
    said = small.update("--template", address.format(small.template))
    assert "v1.1.0" in said
    recorded = answers(project)["_src_path"]
    assert recorded == (f"git+file://{small.template}" if "file" in address else str(small.template))
    commit(project, "merged") if git(project, "status", "--porcelain") else None
    small.release("v1.2.0", code_py="new = 1\n")
    copier.run_update(project, defaults=True, overwrite=True, quiet=True)  # Copier takes the address, too
    assert (project / "code.py").read_text() == "new = 1\n"


@pytest.mark.parametrize(
    ("address", "recorded"),
    [
        ("https://example.com/team/template", "git+https://example.com/team/template"),
        ("https://example.com/team/template.git", "https://example.com/team/template.git"),
        ("https://github.com/team/template", "https://github.com/team/template"),
        ("ssh://git@example.com/team/template", "git+ssh://git@example.com/team/template"),
        ("ada@example.com:team/template", "git+ada@example.com:team/template"),
        ("git@example.com:team/template", "git@example.com:team/template"),
        ("gh:team/template", "gh:team/template"),
        ("../template", "../template"),
    ],
)
def test_addresses_as_copier_takes_them(address: str, recorded: str) -> None:
    from ci.origin import for_copier
    from copier._vcs import get_repo

    assert for_copier(address) == recorded
    assert recorded.startswith("../") or get_repo(recorded) is not None


# ------------------------------------------------------------------------------------------------------- Fixed answers


def test_a_fixed_answer_that_was_edited_by_hand_is_refused(small: Small, tmp_path: Path) -> None:
    project = small.start()
    small.release()
    small.edit(ANSWERS, "problem: classification", "problem: regression")
    edited = git(project, "rev-parse", "--short=9", "HEAD")
    said = small.update(fails=True)
    assert f"problem was classification, and commit {edited} changed it to regression" in said
    assert "Write `problem: classification` back" in said and git(project, "branch", "--show-current") == "main"
    report = doctor.examine(project, Origin(str(small.template), tmp_path / "mirror.git"), uv="")
    assert [finding.kind for finding in report.findings if finding.file == ANSWERS and finding.counts] == ["answers"]
    small.edit(ANSWERS, "problem: regression", "problem: classification")
    small.update()
    assert answers(project)["_commit"] == "v1.1.0" and not update.edited_answers(project)


def test_a_plan_needs_no_clean_project(small: Small) -> None:
    project = small.start()
    small.release()
    (project / "notes.md").write_text("not yet\n")
    said = small.update("--plan")
    assert "code.py" in said and "notes.md" in said
    assert "not committed" in small.update(fails=True)


@pytest.mark.parametrize(
    ("words", "remedy"),
    first([
        (["rebase", "--interactive", "HEAD^"], "git rebase --continue, or git rebase --abort"),
        (["merge", "--no-commit", "--no-ff", "other"], "git commit, or git merge --abort"),
        (["cherry-pick", "clash"], "git cherry-pick --continue, or git cherry-pick --abort"),
        (["revert", "HEAD^"], "git revert --continue, or git revert --abort"),
        (["bisect", "start"], "git bisect reset"),
    ], 2),
)  # fmt: skip
def test_an_update_does_not_start_in_the_middle_of_another_command_of_git(
    words: list[str], remedy: str, small: Small
) -> None:
    project = small.start()
    small.release()
    for branch, file in (("other", "note.md"), ("clash", "other.py")):
        git(project, "switch", "--quiet", "--create", branch, "main")
        (project / file).write_text("of another branch\n")
        commit(project)
    git(project, "switch", "--quiet", "main")
    small.edit("other.py", "= 7", "= 77")
    small.edit("other.py", "= 77", "= 777")
    subprocess.run(
        ["git", "-c", "user.name=Ada", "-c", "user.email=ada@localhost", *words],
        cwd=project, env=clean_environment(GIT_SEQUENCE_EDITOR="sed -i 1s/pick/edit/"), capture_output=True, check=False,
    )  # fmt: skip
    said = small.update(fails=True)
    assert remedy in said and "git add --all" not in said
    assert "update/" not in git(project, "branch")
    small.update("--plan")


def test_an_update_with_conflicts_is_continued_and_not_committed(small: Small) -> None:
    conflict(small)
    small.update(fails=True)
    said = small.update(fails=True)
    assert "make update CONTINUE=1" in said and "git add --all" not in said


def test_a_branch_that_another_worktree_has_is_found_before_the_update(small: Small, tmp_path: Path) -> None:
    project = small.start()
    small.release()
    other = tmp_path / "other tree"
    git(project, "worktree", "add", "--quiet", "-b", "update/v1.1.0", str(other))
    said = small.update(fails=True)
    assert f"git worktree remove {other}" in said and not (project / ".cache/update/tree").exists()


def test_an_update_of_a_commit_without_a_branch_names_commands_that_work(small: Small) -> None:
    project = small.start()
    small.release()
    git(project, "switch", "--quiet", "--detach")
    start = git(project, "rev-parse", "HEAD")
    said = small.update()
    assert f"git switch {start}" not in said and "git switch <your branch> && git merge update/v1.1.0" in said


@pytest.mark.parametrize("answer", first(["yes", "7", "[nonsense]"]))
def test_an_answer_of_another_kind_is_reported_with_the_remedy(answer: str, small: Small) -> None:
    text = FILES["copier.yml"] + "serving: {type: str, multiselect: true, choices: [online, batch], default: []}\n"
    (small.template / "copier.yml").write_text(text)
    commit(small.template, "ask")
    git(small.template, "tag", "--force", "v1.0.0")
    project = small.start()
    recorded = (project / ANSWERS).read_text()
    assert "serving: []" in recorded
    small.edit(ANSWERS, "serving: []", f"serving: {answer}")
    small.release()
    assert f"git log -p {ANSWERS}" in small.update("--plan", fails=True)
