"""Half a year of real flights as production: what the loop is worth, what it costs, and whether somebody who asks notices it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lab import ROOT, Lab, Project, call, environment
from rows import Row, limited

FROM, UNTIL = "2013-07-01", "2014-01-01"
BAD = "bad-champion@2013-11-05"
MEANING = {
    "replay_time": "`make replay`, July to December: the looped life through HTTP, the other two in batch",
    "replay_gain": "Brier score of never training again, less that of the looped life, over these months",
    "replay_trainings": "trainings of the loop, of those on the first of each month",
    "replay_failed": "requests that failed in a replay with promotions and a rollback: a bad model is made champion by hand in November",
    "demo_loop_time": "`make demo-loop`: the demo, a live answer, and two replayed months in which the loop trains and promotes",
}


def measure(lab: Lab) -> list[Row]:
    words = [
        sys.executable,
        "-m",
        "copier",
        "copy",
        "--quiet",
        "--defaults",
        "--vcs-ref",
        "HEAD",
        "--data",
        "serving=[online]",
    ]
    target = lab.folder / "replay"
    call(
        [*words, "--data", "deploy=compose", "--data", "monitoring=true", str(lab.template), str(target)],
        cwd=lab.folder,
    )
    project = Project(target)
    project.make("setup")
    plain = replayed(project)
    rows = [limited("replay_time", plain["seconds"], "s", 300, note=f"{plain['lives']['loop']['requests']:,} requests")]
    gains = plain["found"]["gains"]
    over = gains["loop over never"]
    note = "; ".join(
        f"{name} {one['value']:.5f} ({one['low']:.5f} to {one['high']:.5f})" for name, one in gains.items()
    )
    spread = (round(over["low"], 5), round(over["high"], 5))
    rows.append(
        Row("replay_gain", round(over["value"], 5), "", spread, "more than 0, with its interval", over["low"] > 0, note)
    )
    mine, monthly = (len(plain["lives"][life]["trainings"]) for life in ("loop", "calendar"))
    moved = len(plain["lives"]["loop"]["moves"])
    rows.append(
        Row("replay_trainings", mine, "trainings", None, f"fewer than {monthly}", mine < monthly, f"{moved} promotions")
    )
    spoiled = replayed(project, FAULT=BAD)["lives"]["loop"]
    moves = [one["move"] for one in spoiled["moves"]]
    note = (
        f"{spoiled['requests']:,} requests, {moves.count('promote')} promotions, {moves.count('roll_back')} rollbacks"
    )
    rows.append(limited("replay_failed", spoiled["failed"], "requests", 0, note=note))
    rows.append(limited("demo_loop_time", demo_loop(lab), "s", 300))
    lab.drop("replay")
    return rows


def replayed(project: Project, **more: str) -> dict[str, Any]:
    """A replay of the half year, and what its report says."""
    project.make("replay", FROM=FROM, UNTIL=UNTIL, **more)
    found: dict[str, Any] = json.loads((project.folder / "reports/replay/replay.json").read_text())
    return found


def demo_loop(lab: Lab) -> float:
    """Seconds of `make demo-loop` in a clone of this repository, whose own packages are there."""
    (lab.template / ".venv").symlink_to(ROOT / ".venv")
    began = time.perf_counter()
    said = call(["make", "--no-print-directory", "demo-loop"], lab.template, environment(), timeout=1800).output
    seconds = time.perf_counter() - began
    if "goes live" not in said and "answers" not in said:
        raise RuntimeError(f"the loop promoted nothing:\n{said[-3000:]}")
    return seconds
