"""Setup, run, update and deploy where every tool obeys an environment and a configuration that lead it elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import copier
import pytest
from conftest import Project, free_port, make_small
from hostile_git import configure_git
from releases import git

DEAD = "127.0.0.1:9"  # no server listens there
UV_CONFIGURATION = 'resolution = "lowest"\nprerelease = "allow"\nfork-strategy = "fewest"\n'


def hostile(folder: Path) -> dict[str, str]:
    """Write a user's configuration into a folder, and return the environment of a shell that points to it."""
    home = folder / "home"
    configure_git(home)
    (home / ".config/uv").mkdir(parents=True)
    (home / ".config/uv/uv.toml").write_text(UV_CONFIGURATION)
    (home / "elsewhere").mkdir()
    git(home / "elsewhere", "init", "--quiet")
    poison = home / "poison"
    poison.mkdir()
    for module in ("numpy", "yaml", "dvc", "copier", "logging"):
        (poison / f"{module}.py").write_text('raise ImportError("a module of PYTHONPATH was imported")\n')
    (home / "shell").write_text("exit 7\n")
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GIT_DIR": str(home / "elsewhere/.git"),
        "GIT_WORK_TREE": str(home / "elsewhere"),
        "GIT_INDEX_FILE": str(home / "elsewhere/.git/index"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.bare",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_AUTHOR_DATE": "no date",
        "GIT_ALLOW_PROTOCOL": "https",
        "GIT_PROTOCOL_FROM_USER": "0",
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser())),
        "UV_PROJECT_ENVIRONMENT": str(home / "venv"),
        "UV_NO_DEV": "1",
        "UV_NO_DEFAULT_GROUPS": "1",
        "UV_LOCKED": "1",
        "UV_NO_SYNC": "1",
        "UV_PROJECT": str(home),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "MLFLOW_WORKSPACE": "elsewhere",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILE": "elsewhere",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/missing/prefect.db",
        "DVC_EXP_NAME": "elsewhere",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "TAR_OPTIONS": "--exclude=*",
        "PYTEST_ADDOPTS": "--collect-only",
        "PIP_USER": "1",
        "PIP_TARGET": str(home / "pip"),
        "PYTHONPATH": str(poison),
        "PYTHONHOME": str(home),
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
        "BASH_ENV": str(home / "shell"),
        "CDPATH": f"{home}:/",
        "GREP_OPTIONS": "--invert-match",
        "FORCE_COLOR": "1",
        "CLICOLOR_FORCE": "1",
        "VIRTUAL_ENV": str(home / "venv"),
        "HTTP_PROXY": f"http://{DEAD}",
        "http_proxy": f"http://{DEAD}",
    }


def untouched(home: Path) -> None:
    """Nothing was written where the environment points to."""
    assert not (home / "elsewhere/.git/index").exists()
    assert not git(home / "elsewhere", "for-each-ref")
    assert not (home / "venv").exists() and not (home / "pip").exists()
    assert not (home / "prefect").exists() and not (home / "site").exists()


@pytest.fixture
def project(two: tuple[Path, str, str], tmp_path: Path) -> Project:
    """A fresh project in a folder that is a workspace of uv and on a machine whose every setting leads elsewhere."""
    outer = tmp_path / "work space"
    outer.mkdir()
    (outer / "pyproject.toml").write_text(
        '[project]\nname = "outer"\nversion = "0"\n[tool.uv.workspace]\nmembers = ["*"]\n'
    )
    given: dict[str, Any] = {"serving": ["online"], "deploy": "compose"}
    copier.run_copy(str(two[0]), outer / "project", data=given, defaults=True, quiet=True, vcs_ref=two[1])
    return Project(outer / "project", **hostile(tmp_path))


def test_setup_run_update_and_deploy(
    project: Project, two: tuple[Path, str, str], tmp_path: Path, flights: Any
) -> None:
    make_small(project)
    (project / "local.mk").write_text(
        "follow: .venv/.ready\n\t@$(BIN)/python -m copier_mlops.updates.update --checks check-lock\n"
    )
    project.make("setup")
    files = {
        path.relative_to(project.folder).as_posix()
        for path in project.folder.rglob("*.py")
        if ".venv" not in path.parts
    }
    assert files | {"uv.lock", "deploy/prod.env"} <= set(git(project.folder, "ls-files").splitlines())
    assert git(project.folder, "branch", "--show-current") == "main"
    assert all((project / f".venv/bin/{name}").exists() for name in ("ruff", "pytest", "dvc", "mlflow"))
    untouched(tmp_path / "home")

    # SOCKS as well: clients fail if they lack the package for it, or if the address has the form that desktops write.
    source = flights(tmp_path / "source", [1, 2, 3, 4])
    project.environment |= {"SOURCE_URI": str(source), "all_proxy": f"socks://{DEAD}/", "ALL_PROXY": f"socks5://{DEAD}"}
    project.environment |= {"OMP_NUM_THREADS": "1", "RETRIES": "0"}
    assert "1, champion" in project.make("run")
    [snapshot] = git(project.folder, "for-each-ref", "--format=%(refname)", "refs/versions").splitlines()
    assert files | {"uv.lock", "dvc.lock", "params.yaml"} <= set(
        git(project.folder, "ls-tree", "-r", "--name-only", snapshot).splitlines()
    )
    untouched(tmp_path / "home")

    project.environment |= {"LISTEN": f"127.0.0.1:{free_port()}", "PORTS": str(20_000 + os.getpid() % 1000 * 20)}
    try:
        project.make("deploy", "ENGINE=process", STEP_SECONDS="1")
        assert "version 1" in project.make("deployed")
    finally:
        if (project / ".deploy/dev/state.json").exists():
            project.make("undeploy", "ENV=dev", "ENGINE=process")

    for name in ("all_proxy", "ALL_PROXY"):  # uv uses them for the package index, too
        del project.environment[name]
    git(project.folder, "add", "--all")
    git(project.folder, "commit", "--quiet", "--no-verify", "--message", "trained")
    head = git(project.folder, "rev-parse", "HEAD")
    planned = project.make("update", "PLAN=1")
    assert two[2] in planned and git(project.folder, "rev-parse", "HEAD") == head
    assert not git(project.folder, "status", "--porcelain")
    said = project.make("follow")
    assert f"update/{two[2]}" in said
    assert git(project.folder, "branch", "--show-current") == f"update/{two[2]}"
    changed = git(project.folder, "diff", "--name-only", head).splitlines()
    assert set(changed) <= {
        ".copier-answers.yml",
        "Makefile",
        ".github/workflows/train.yml",
        "uv.lock",
        "champion.json",
    }
    assert b"\r" not in (project / "Makefile").read_bytes()
    untouched(tmp_path / "home")
