"""Progress bars appear on a terminal, never in CI, and never in a log."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from copier_mlops import _progress as bars
from copier_mlops._progress import FILE, Follower, progress
from copier_mlops.settings import shows_progress


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


Attach = Callable[[], Terminal]


@pytest.fixture
def attach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attach:
    """Make a terminal the standard error, in an empty project; pytest sets its own between a fixture and a test."""
    (tmp_path / FILE).parent.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)

    def attached() -> Terminal:
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    return attached


def test_a_terminal_shows_a_bar(attach: Attach) -> None:
    terminal = attach()
    with progress("validate", "files", 4) as advance:
        advance(1)
        advance(3)
    assert "validate" in terminal.getvalue() and "0/4" in terminal.getvalue()
    assert not FILE.exists()


@pytest.mark.parametrize("ci", [True, False])
def test_a_log_has_no_bar(attach: Attach, monkeypatch: pytest.MonkeyPatch, ci: bool) -> None:
    log = Terminal() if ci else io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    if ci:
        monkeypatch.setenv("CI", "true")
    assert not shows_progress()
    with progress("predict", "rows") as advance:
        advance(5)
        assert not FILE.exists()
    assert log.getvalue() == ""


def test_a_stage_in_another_process_is_followed(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage writes into a file, and `make run` draws the bar; lines of the stage appear above it."""
    terminal = attach()
    follower = Follower(Path())
    said: list[str] = []
    with monkeypatch.context() as stage:
        stage.setattr(bars, "shows_progress", lambda: False)
        work = progress("search", "trials", 7, of_stage=True)
        advance = work.__enter__()
        advance(7)
    assert json.loads(FILE.read_text())["done"] == 7
    follower.look()
    follower.say("trial 7 of 7", said.append)
    assert "search: 100%" in terminal.getvalue() and "7/7" in terminal.getvalue()
    assert said == ["trial 7 of 7"]
    work.__exit__(None, None, None)
    follower.look()
    assert follower.bar is None and not FILE.exists()


def test_a_follower_off_a_terminal_shows_nothing(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attach()
    follower = Follower(Path())
    FILE.write_text(json.dumps({"name": "search", "unit": "trials", "total": 7, "done": 7}))
    monkeypatch.setattr(bars, "shows_progress", lambda: False)
    follower.look()
    assert follower.bar is None and terminal.getvalue() == ""


def test_a_damaged_file_shows_nothing(attach: Attach) -> None:
    attach()
    follower = Follower(Path())
    FILE.write_text("{")
    follower.look()
    assert follower.bar is None
