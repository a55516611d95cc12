"""Ctrl-C: how fast a run ends, and whether the next one goes on."""

from __future__ import annotations

import random

from inside.terminal import Ended, interrupted
from lab import Lab, Project, environment
from rows import Row, limited

MOMENTS = 20
SEED = 1
MEANING = {
    "interrupt": "Ctrl-C at random moments of a fresh `make run` in a terminal: seconds until its last process has ended, the "
    "slowest of 20",
    "interrupt_left": "processes that such a Ctrl-C leaves, and runs after it that do not resume",
}


def press(project: Project, seconds: float) -> Ended:
    """Type Ctrl-C so many seconds after `make run` has begun.

    Raises:
        RuntimeError: If the command had ended already.
    """
    ended = interrupted(
        ["make", "--no-print-directory", "run"], project.folder, environment(), lambda passed, _: passed >= seconds
    )
    if not ended.interrupted:
        raise RuntimeError(f"the run ended before {seconds:.1f} s:\n{ended.output[-3000:]}")
    return ended


def measure(lab: Lab) -> list[Row]:
    project = lab.project("main")
    whole = project.make("run").seconds
    draw = random.Random(SEED)
    seconds, left, stuck = [], 0, 0
    for number in range(MOMENTS):
        project.forget()
        ended = press(project, whole * (number + draw.random()) / (MOMENTS + 1))
        seconds.append(ended.seconds)
        left += len(ended.left)
        if "kept" not in ended.output and "nothing has changed" not in ended.output:
            raise RuntimeError(f"the output does not state what is kept:\n{ended.output[-3000:]}")
        if number % 5 == 4:  # a whole run each time would take an hour
            resumed = project.make("run").output
            stuck += "1, champion" not in resumed
    note = (
        f"run of {whole:.0f} s, one moment in each twentieth of it; the median is {sorted(seconds)[MOMENTS // 2]:.2f} s"
    )
    return [
        limited("interrupt", max(seconds), "s", 3, (min(seconds), max(seconds)), note),
        limited(
            "interrupt_left",
            left + stuck,
            "processes",
            0,
            None,
            f"{MOMENTS} interruptions, {MOMENTS // 5} whole runs after",
        ),
    ]
