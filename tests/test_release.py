"""The template's own releases, and the canary that notices when the world moves on."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, GitHub

sys.path.insert(0, str(ROOT / "ci"))
import canary
import release

TODAY = dt.date(2030, 1, 31)


@pytest.fixture(autouse=True)
def _there(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's own variables lead to the stand-in."""
    monkeypatch.setenv("GITHUB_API_URL", github.address)
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/copier-mlops")
    monkeypatch.setenv("GITHUB_TOKEN", "made-on-the-spot")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of a bare repository, with the files that a release touches."""
    bare, clone = tmp_path / "bare.git", tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(bare), str(clone)], check=True, capture_output=True)
    for name in release.FILES:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name)
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n## 1.4.0 (2030-01-31)\n\nA notebook.\n\n## 1.3.0\n\nOlder.\n")
    git(clone, "checkout", "--quiet", "-B", "main")
    git(clone, "add", "--all")
    git(clone, "-c", "user.name=Ada", "-c", "user.email=ada@localhost", "commit", "--quiet", "--message", "first")
    git(clone, "push", "--quiet", "origin", "main")
    return clone


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_release_moves_the_day_and_tells_what_changed(repository: Path, github: GitHub) -> None:
    release.refresh(repository, TODAY)
    for name in release.FILES:
        assert 'exclude-newer = "2030-01-31T00:00:00Z"' in (repository / name).read_text()
    assert release.publish(repository, "1.4.0") == "v1.4.0"
    bare = repository.parent / "bare.git"
    assert git(bare, "tag") == "v1.4.0"
    assert "2030-01-31" in git(bare, "show", "main:pyproject.toml") and not git(repository, "status", "--porcelain")
    path, body = github.written[0]
    assert path == "/repos/ada/copier-mlops/releases"
    assert (body["tag_name"], body["body"]) == ("v1.4.0", "A notebook.")
    with pytest.raises(release.ReleaseError, match=r"v1\.4\.0 is there already"):
        release.publish(repository, "1.4.0")


@pytest.mark.parametrize(
    ("version", "says"),
    [("1.5.0", "no section 1.5.0"), ("v1.4.0", "is no version"), ("", "is no version"), ("1.4.0; id", "is no version")],
)
def test_what_is_no_release_is_refused(repository: Path, github: GitHub, version: str, says: str) -> None:
    with pytest.raises(release.ReleaseError, match=says):
        release.publish(repository, version)
    assert not github.written and not git(repository, "tag")


def test_a_file_without_a_day_is_named(repository: Path) -> None:
    (repository / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(release.ReleaseError, match=r"pyproject\.toml names the known-good day 0 times"):
        release.refresh(repository, TODAY)


@pytest.fixture
def world(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the canary, and a make that notes what it was asked for; what FAIL names fails."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "make").write_text(
        f'#!/bin/sh\necho "$3" >> {tmp_path}/asked\ngrep -c "^exclude-newer = " "$2/pyproject.toml" > {tmp_path}/constrained\n'
        '[ "$3" != "$FAIL" ] || { echo "TypeError: no such thing any more"; exit 1; }\n'
    )
    (tools / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(canary, "ROOT", template)
    monkeypatch.setattr(canary, "PLACE", tmp_path / "project")
    monkeypatch.setattr(canary, "LOG", tmp_path / "canary.log")
    return tmp_path


def test_the_canary_sings_where_everything_works(world: Path) -> None:
    copier = (str(Path(sys.executable).with_name("copier")),)
    assert canary.watch(copier) == 0
    assert (world / "asked").read_text().split() == ["setup", "check", "test", "run"]
    assert (world / "constrained").read_text().strip() == "0"


def test_the_canary_falls_and_tells_once(
    world: Path, github: GitHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIL", "test")
    monkeypatch.setenv("RUN", "http://here/runs/1")
    assert canary.watch((str(Path(sys.executable).with_name("copier")),)) == 1
    assert (world / "asked").read_text().split() == ["setup", "check", "test"]
    assert "no such thing any more" in capsys.readouterr().err
    assert canary.tell() == 0
    github.open = [{"title": "another", "number": 3}, {"title": canary.TITLE, "number": 5}]
    assert canary.tell() == 0
    (first, issue), (second, comment) = github.written
    assert first == "/repos/ada/copier-mlops/issues" and issue["title"] == canary.TITLE
    assert second == "/repos/ada/copier-mlops/issues/5/comments"
    assert "no such thing any more" in issue["body"] and "http://here/runs/1" in comment["body"]
