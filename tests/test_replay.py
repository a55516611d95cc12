"""A replay, whole and on real flights: a time that is over is lived again through the deployed service, and stays good by itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
import pytest
from conftest import Project, Render, make_small, need, once, wait_until
from prometheus import ask, panels

FROM, UNTIL, BAD = "2013-08-01", "2013-09-15", "2013-08-08"


@pytest.fixture(scope="session")
def _watched(render: Render, flights: Callable[[Path, list[int]], Path]) -> Path:
    """A watched project that is deployed by Compose, set up, with every 12th flight of some months to learn from."""

    def make(folder: Path) -> None:
        shutil.copytree(render(serving=["online"], deploy="compose", monitoring=True), folder)
        flights(folder.parent / "flights", [4, 5, 6, 7, 8, 9])
        project = Project(folder)
        make_small(project)
        with (folder / "params.yaml").open("a") as file:
            file.write("monitoring: {min_rows: 100, min_labelled: 100}\n")
        project.make("setup")

    return once("replay/project", make)


@pytest.fixture
def project(_watched: Path, tmp_path: Path) -> Project:
    need(engine.bring("haproxy"))  # without it no requests are sent while a version goes live
    folder = tmp_path / "project"
    shutil.copytree(_watched, folder, ignore=shutil.ignore_patterns(".venv"), symlinks=True)
    (folder / ".venv").symlink_to(_watched / ".venv")
    return Project(
        folder, PYTHONPATH=str(folder / "src"), SOURCE_URI=str(_watched.parent / "flights"), OMP_NUM_THREADS="1"
    )


def running(folder: Path) -> list[str]:
    """The commands that work somewhere in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").resolve().is_relative_to(folder.resolve()):
                found.append((entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " "))
    return found


def replay(project: Project, **more: str) -> dict[str, Any]:
    project.make("replay", *(f"{name}={value}" for name, value in more.items()))
    found: dict[str, Any] = json.loads((project / "reports/replay/replay.json").read_text())
    return found


def test_a_bad_champion_is_taken_back_and_nobody_who_asks_notices(servers: None, project: Project) -> None:
    before = sorted(path.name for path in project.folder.iterdir())
    given = {
        "FROM": FROM,
        "UNTIL": UNTIL,
        "FAULT": f"bad-champion@{BAD},missing:pressure@2013-08-20,bad-challenger@2013-09-03",
    }
    child, empty = (
        project.start("make", "replay", *(f"{name}={value}" for name, value in given.items())),
        panels(project.folder),
    )
    while child.poll() is None:
        with contextlib.suppress(OSError, IndexError):  # it is not there yet, or no longer
            port = re.findall(r"PROMETHEUS_PORT='(\d+)'", (project / ".replay/loop/.env").read_text())[0]
            empty -= {one for one in empty if ask(int(port), one[2])}
        time.sleep(0.5)
    assert child.returncode == 0, child.stdout and child.stdout.read()
    # Nobody stands in the shadow here, and nothing is asked against the contract.
    empty -= {one for one in empty if "predict_shadow" in one[2] or "predict_refused" in one[2]}
    assert not empty, "these panels showed nothing in the whole of a replay"
    found: dict[str, Any] = json.loads((project / "reports/replay/replay.json").read_text())
    looped = found["lives"]["loop"]
    assert looped["failed"] == 0 and looped["refused"] == 0 and looped["requests"] > 800
    moves = [(one["move"], one["version"]) for one in looped["moves"]]
    assert moves[:2] == [("promote", 2), ("roll_back", 1)], looped["proposals"]
    assert looped["moves"][0]["at"].startswith(BAD) and "RollbackProposed" in looped["fired"]
    [back] = [one for one in looped["proposals"] if one["action"] == "roll_back" and one["allowed"]]
    assert back["at"] == looped["moves"][1]["at"] and "worse" in back["reasons"][0]
    # Whatever lived answered every flight, and what is said was measured on the same ones.
    assert found["found"]["rows"] > 2000 and set(found["found"]["values"]) == {"never", "calendar", "loop"}
    assert [one["at"][:10] for one in found["lives"]["calendar"]["trainings"]] == ["2013-09-01"]
    page = (project / "reports/replay/report.html").read_text()
    assert "missing:pressure@2013-08-20" in page and "goes live again" in page
    # The project itself is as it was: no registry, no log, nothing that runs.
    assert sorted(
        path.name for path in project.folder.iterdir() if path.name not in (".replay", "reports", ".cache")
    ) == [name for name in before if name not in ("reports", ".cache")]
    assert running(project / ".replay") == []


@pytest.mark.long
def test_what_goes_wrong_with_rows_is_seen(project: Project) -> None:
    """A sensor that tells another unit, a carrier with another name, a day with three times the traffic."""
    fault = "celsius:temperature@2013-08-15,renamed:carrier:UA:United@2013-08-22,traffic:3@2013-09-03"
    found = replay(project, FROM=FROM, UNTIL=UNTIL, LIVES="loop never", FAULT=fault)
    looped = found["lives"]["loop"]
    assert looped["failed"] == 0
    looks = {one["at"][:10]: one["says"] for one in looped["looks"]}
    print(json.dumps(looped["looks"], indent=1))
    assert "temperature" in looks["2013-08-22"] and "temperature" not in looks["2013-08-15"]
    assert "carrier" in looks["2013-08-29"] and "carrier" not in looks["2013-08-22"]


@pytest.mark.long
def test_the_same_replay_comes_to_the_same(project: Project) -> None:
    given = {"FROM": FROM, "UNTIL": "2013-09-10", "LIVES": "loop,never", "FAULT": f"bad-challenger@{BAD}"}
    first, second = replay(project, **given), replay(project, **given)
    for found in (first, second):
        for life in found["lives"].values():
            life.pop("compute")
        found.pop("seconds")
        found["lives"]["loop"].pop(
            "requests"
        )  # while a version goes live others are asked, as many as there is time for
    assert first == second
    assert [one for one in first["lives"]["loop"]["moves"] if one["version"] == 2] == [], (
        "the bad challenger became champion"
    )


def test_a_replay_that_is_stopped_leaves_nothing_running(project: Project) -> None:
    child = project.start("make", "replay", f"FROM={FROM}", f"UNTIL={UNTIL}", "LIVES=loop")
    try:
        wait_until((project / ".replay/loop/.deploy/dev/state.json").exists, 240)
        os.killpg(child.pid, signal.SIGTERM)
        assert child.wait(60) != 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    wait_until(lambda: running(project / ".replay") == [], 60)


def test_what_cannot_be_replayed_is_told_in_a_line(project: Project) -> None:
    said = project.make("replay", "FAULT=celsius:carrier@2013-08-08", fails=True)
    assert "error: FAULT=celsius:carrier@2013-08-08: carrier is no number." in said
    said = project.make("replay", "FROM=2019-01-01", fails=True)
    assert "there are rows of 2013-04-01 to 2013-10-01" in said
