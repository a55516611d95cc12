"""The repository of the project has all of its files under any configuration of git."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from copier_mlops.ci import repository

from ..fixture_project import ROOT

HOSTILE = """
[core]
    excludesFile = {home}/excludes
    hooksPath = {home}/hooks
    attributesFile = {home}/attributes
    autocrlf = true
[commit]
    gpgSign = true
    template = {home}/missing
[gpg]
    program = false
[init]
    defaultBranch = trunk
[log]
    showSignature = true
[status]
    showUntrackedFiles = no
[user]
    useConfigOnly = true
"""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose configuration of git hides every file and refuses every commit."""
    folder = tmp_path / "home"
    (folder / "hooks").mkdir(parents=True)
    for name in ("pre-commit", "commit-msg", "post-checkout", "reference-transaction"):
        hook = folder / "hooks" / name
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    (folder / "excludes").write_text("*\n")
    (folder / "attributes").write_text("*.py export-ignore\n")
    (folder / "config").write_text(HOSTILE.format(home=folder))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(folder / "config"))
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some files of the project, one with line ends of Windows, and one that is private."""
    folder = tmp_path / "project"
    (folder / "src/project/core").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in (".gitignore", ".gitattributes"):
        shutil.copyfile(ROOT / name, name)
    for name in (
        "src/project/model.py",
        "src/project/words.txt",
        "uv.lock",
        "dvc.lock",
        "champion.json",
        "private.txt",
    ):
        Path(name).write_bytes(b"one\r\ntwo\r\n")
    for name in (".env", "src/project/server.pem", "mlflow.db"):
        Path(name).write_text("secret")
    return folder


def test_a_hostile_configuration_hides_no_file_of_the_project(home: Path, folder: Path) -> None:
    repository.create(folder)
    listed = git("ls-tree", "-r", "--name-only", "HEAD").split()
    code = ["src/project/model.py", "src/project/words.txt"]
    assert listed == [".gitattributes", ".gitignore", "champion.json", "dvc.lock", *code, "uv.lock"]
    assert git("symbolic-ref", "--short", "HEAD") == "main"
    assert git("-c", "log.showSignature=false", "log", "--format=%s") == repository.FIRST
    assert git("show", "HEAD:src/project/model.py") == "one\ntwo"


def test_a_commit_that_was_interrupted_is_made_the_next_time(folder: Path) -> None:
    git("init", "--quiet")
    repository.create(folder)
    first = git("rev-parse", "HEAD")
    repository.create(folder)
    assert git("rev-parse", "HEAD") == first


def test_the_name_that_git_knows_is_the_author(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[user]\nname = Ada\nemail = ada@localhost\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    repository.create(folder)
    assert git("log", "--format=%an %ae") == "Ada ada@localhost"


def test_a_submodule_is_a_repository_of_its_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.create(folder)
    outer = tmp_path / "outer"
    outer.mkdir()
    monkeypatch.chdir(outer)
    git("init", "--quiet")
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(folder), "inner")
    monkeypatch.chdir(outer / "inner")
    assert repository.own(outer / "inner")
    assert not repository.own(outer)


def test_what_git_says_is_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".git").write_text("gitdir: /nowhere\n")
    assert repository.main() == 1
    assert "error: `git init` failed: " in capsys.readouterr().err


def test_a_hook_that_cannot_be_installed_is_reported(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repository.main() == 0
    said = capsys.readouterr().out
    assert "commits are not checked here" in said
    assert "core.hooksPath" in said


def test_a_second_setup_waits_for_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "install_hook", lambda: "")
    with ThreadPoolExecutor(1) as pool:
        with repository.alone(folder):
            second = pool.submit(repository.main)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
            assert not (folder / ".git").exists()
        assert second.result(timeout=60) == 0
    assert git("log", "--format=%s") == repository.FIRST
    assert ".cache" not in git("ls-files")
