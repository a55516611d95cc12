"""A snapshot keeps the work tree as it is, and neither the branch nor the index hears of it."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from copier_mlops.versioning import snapshot
from copier_mlops.versioning.snapshot import GitError


def run(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit, one change in the index, one outside of it, a new file and an ignored one. Git knows no name."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    run("init", "--quiet", "--initial-branch", "trunk")
    for name in ("staged", "changed"):
        Path(name).write_text("before")
    Path(".gitignore").write_text("secret\n")
    run("add", "--all")
    run("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "first")
    Path("staged").write_text("now")
    run("add", "staged")
    for name in ("changed", "new", "secret"):
        Path(name).write_text("now")
    return folder


def state() -> list[str]:
    return [run("status", "--porcelain"), run("rev-parse", "HEAD"), run("branch", "--list", "-v"), run("stash", "list")]


def test_a_snapshot_has_all_files_but_the_ignored_and_changes_nothing(repository: Path) -> None:
    before = state()
    commit = snapshot.snapshot("abc", "why")
    assert state() == before
    assert run("show", "--no-patch", "--format=%s", commit) == "why"
    assert run("rev-parse", "refs/versions/abc") == commit
    assert run("rev-parse", f"{commit}^") == snapshot.head()
    assert run("ls-tree", "--name-only", commit).split() == [".gitignore", "changed", "new", "staged"]
    assert {run("show", f"{commit}:{name}") for name in ("staged", "changed", "new")} == {"now"}


def test_the_same_tree_is_the_same_snapshot(repository: Path) -> None:
    first = snapshot.snapshot("abc", "why")
    assert snapshot.snapshot("abc", "again") == first
    Path("new").write_text("later")
    assert snapshot.snapshot("abc", "again") != first


def test_a_repository_without_a_commit_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("init", "--quiet")
    Path("file").write_text("")
    assert snapshot.head() == ""
    assert run("ls-tree", "--name-only", snapshot.snapshot("abc", "why")) == "file"


def test_the_surroundings_do_not_lead_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook runs with GIT_DIR and GIT_INDEX_FILE set, an alias with GIT_PREFIX and its settings."""
    head = snapshot.head()
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True).stdout
    for name in listed.split():
        monkeypatch.setenv(name, "/nowhere")
    assert snapshot.head() == head
    assert snapshot.snapshot("abc", "why")


HOSTILE = """
[core]
    autocrlf = true
    attributesFile = {home}/attributes
    hooksPath = {home}/hooks
    quotePath = true
[color]
    ui = always
[commit]
    gpgSign = true
[gpg]
    program = false
[log]
    showSignature = true
[safe]
    bareRepository = explicit
"""


def test_the_users_configuration_changes_neither_files_nor_output(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hooks").mkdir()
    for name in ("pre-commit", "reference-transaction"):
        (tmp_path / "hooks" / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "hooks" / name).chmod(0o755)
    (tmp_path / "attributes").write_text("new export-ignore\n* diff=external\n")
    (tmp_path / "hostile").write_text(HOSTILE.format(home=tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "hostile"))
    Path("Größe.txt").write_bytes(b"one\ntwo\n")
    commit = snapshot.snapshot("abc", "why")
    snapshot.archive(commit, tmp_path / "source.tar.gz")
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        assert {"new", "Größe.txt"} <= set(archive.getnames())
        file = archive.extractfile("Größe.txt")
        assert file is not None
        assert file.read() == b"one\ntwo\n"
    assert "Größe.txt" in snapshot.files()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("")
    snapshot.begin(tmp_path / "other")
    assert run("-C", str(tmp_path / "other"), "rev-parse", "HEAD")


def test_a_folder_inside_another_repository_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert snapshot.own_root()
    (repository / "inner").mkdir()
    monkeypatch.chdir(repository / "inner")
    assert not snapshot.own_root()
    with pytest.raises(GitError, match=r"no git repository of its own. Run `make setup`"):
        snapshot.snapshot("abc", "why")


def test_a_machine_without_git_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(GitError, match="git is not installed"):
        snapshot.head()
    assert not snapshot.own_root()


def test_an_archive_has_the_files_of_the_commit(repository: Path, tmp_path: Path) -> None:
    snapshot.archive(snapshot.snapshot("abc", "why"), tmp_path / "source.tar.gz")
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        assert sorted(archive.getnames()) == [".gitignore", "changed", "new", "staged"]
    with pytest.raises(GitError, match="git archive failed"):
        snapshot.archive("0000000", tmp_path / "source.tar.gz")


def test_an_archive_has_the_files_of_submodules(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = tmp_path / "inner"
    (inner / "code").mkdir(parents=True)
    (inner / "code/module.py").write_text("x = 1\n")
    snapshot.begin(inner)
    run("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "vendor/inner")
    (repository / "vendor/inner/code/module.py").write_text("x = 2\n")
    snapshot.archive(snapshot.snapshot("abc", "why"), tmp_path / "source.tar.gz")
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        file = archive.extractfile("vendor/inner/code/module.py")
        assert file is not None
        assert file.read() == b"x = 1\n"
        assert "changed" in archive.getnames()
    assert "the submodule vendor/inner has changes without a commit" in capsys.readouterr().out


def test_snapshots_are_pushed_where_there_is_a_remote(repository: Path, tmp_path: Path) -> None:
    commit = snapshot.snapshot("abc", "why")
    assert not snapshot.push_versions()
    run("init", "--quiet", "--bare", str(tmp_path / "origin"))
    run("remote", "add", "origin", str(tmp_path / "origin"))
    assert snapshot.push_versions()
    assert run("--git-dir", str(tmp_path / "origin"), "for-each-ref", "--format=%(objectname) %(refname)") == (
        f"{commit} refs/versions/abc"
    )
