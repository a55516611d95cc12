"""The first minute on machines that lack something: each works, or says what to do."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import test_hostile
from conftest import Project, Render

TOOLS = (
    "sh",
    "bash",
    "make",
    "awk",
    "sed",
    "grep",
    "test",
    "rm",
    "touch",
    "pwd",
    "env",
    "ls",
    "cat",
    "mkdir",
    "dirname",
    "uname",
    "head",
)


@pytest.fixture
def bare(render: Render, tmp_path: Path) -> Project:
    """A fresh project and a PATH that holds a shell, make and nothing else."""
    shutil.copytree(render(), tmp_path / "project")
    (tmp_path / "bin").mkdir()
    (tmp_path / "home").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (tmp_path / "bin" / tool).symlink_to(found)
    return Project(tmp_path / "project", PATH=str(tmp_path / "bin"), HOME=str(tmp_path / "home"))


def give(project: Project, tool: str, text: str | None = None) -> None:
    place = Path(project.environment["PATH"]) / tool
    if text is None:
        found = shutil.which(tool)
        assert found
        place.symlink_to(found)
    else:
        place.write_text(text)
        place.chmod(0o755)


def test_no_git(bare: Project) -> None:
    said = bare.make("setup", fails=True)
    assert "git is not installed" in said and "make setup" in said


def test_no_python(bare: Project) -> None:
    give(bare, "git")
    said = bare.make("setup", fails=True)
    assert "neither uv nor python3 is installed" in said


def test_an_old_python(bare: Project) -> None:
    give(bare, "git")
    give(bare, "uv", "#!/bin/sh\nexit 2\n")
    give(bare, "python3", "#!/bin/sh\necho Python 3.9.2\n")
    said = bare.make("setup", fails=True)
    assert "Python 3.11 to 3.14 is needed" in said and "Python 3.9.2" in said


def test_uv_cannot_be_fetched(bare: Project) -> None:
    give(bare, "git")
    give(bare, "python3", "#!/bin/sh\nexit 1\n")
    said = bare.make("setup", fails=True)
    assert "uv could not be fetched" in said
    assert not (bare / ".tools").exists()


def test_a_folder_of_another_repository_is_refused_with_the_way_out(bare: Project) -> None:
    """The outer repository would keep a link in place of the project's files."""
    give(bare, "git")
    outer = Project(bare.folder.parent, **bare.environment)
    assert outer.command("git", "init", "--quiet").returncode == 0
    said = bare.make("setup", fails=True)
    assert f"belongs to the git repository {outer.folder.resolve()}" in said
    assert "echo '/project/' >>" in said
    assert not (bare / ".git").exists()


@pytest.mark.parametrize("name", ["a:b", "50%", "a#b", "a;b", 'a"b', "a$b", "a`b", "a?b", "a*b", "a[b", "a\\b"])
def test_a_path_that_tools_misread_is_refused(bare: Project, name: str) -> None:
    give(bare, "git")
    moved = Project(bare.folder.rename(bare.folder.parent / name), **bare.environment)
    said = moved.make("setup", fails=True)
    assert "the path of this folder contains one of" in said and "Move the project to another folder" in said


def test_uv_is_fetched_without_an_identity_inside_another_repository(bare: Project) -> None:
    """No uv, an empty home, no git identity; a repository that ignores the project and a uv workspace contain it."""
    give(bare, "git")
    give(bare, "python3", f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python3" "$@"\n')
    outer = Project(bare.folder.parent, **bare.environment)
    assert outer.command("git", "init", "--quiet").returncode == 0
    (outer / ".gitignore").write_text("/project/\n")
    (outer / "pyproject.toml").write_text(
        '[project]\nname = "outer"\nversion = "0"\n[tool.uv.workspace]\nmembers = ["*"]\n'
    )
    cache = os.environ.get("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser()))
    said = bare.make("setup", UV_CACHE_DIR=cache)
    assert "fetching uv" in said
    top = bare.command("git", "rev-parse", "--show-toplevel").stdout.strip()
    assert Path(top).resolve() == bare.folder.resolve()
    assert bare.command("git", "log", "--format=%s").stdout.strip() == "Start from copier-mlops"
    # The delivery workflows run on main, whatever init.defaultBranch is.
    assert bare.command("git", "branch", "--show-current").stdout.strip() == "main"
    assert not bare.command("git", "status", "--porcelain").stdout
    assert (bare / "uv.lock").is_file() and not (outer / "uv.lock").exists()
    assert "train" in bare.make("help")


def test_telemetry_is_off(trained: Project) -> None:
    said = trained.python(
        "from copier_mlops.settings import Settings; Settings().apply()\n"
        "import os\nfrom dvc.analytics import is_enabled\n"
        "print(is_enabled(), os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'],"
        " os.environ['PREFECT_SERVER_ANALYTICS_ENABLED'])"
    )
    assert said.split() == ["False", "true", "1", "false"]


def test_the_environment_is_what_the_lock_says(small_environment: Path) -> None:
    """The known-good set travels with the release, and every floor is kept."""
    project = Project(small_environment)
    assert project.command("uv", "lock", "--check").returncode == 0
    lock = (small_environment / "uv.lock").read_text()
    assert 'name = "mlflow"' in lock
    [day] = re.findall(r'^exclude-newer = "([^"]+)"', (small_environment / "pyproject.toml").read_text(), re.M)
    uploaded = re.findall(r'upload-time = "([^"]+)"', lock)
    assert max(uploaded) < day and f'exclude-newer = "{day}"' in lock


def test_the_uv_configuration_of_a_user_does_not_change_the_lock(small_environment: Path, tmp_path: Path) -> None:
    """uv compares the options of the lock with those that apply, so this needs neither the index nor a new lock."""
    file = tmp_path / "uv/uv.toml"
    file.parent.mkdir()
    for line in test_hostile.UV_CONFIGURATION.splitlines():
        file.write_text(line)
        words = ("uv", "lock", "--check", "--offline")
        done = Project(small_environment).command(*words, XDG_CONFIG_HOME=str(tmp_path))
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_it_resolves_for_every_python_that_it_names(small_environment: Path) -> None:
    lock = (small_environment / "uv.lock").read_text()
    assert 'requires-python = ">=3.11, <3.15"' in lock
