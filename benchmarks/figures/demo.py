"""From nothing to a registered champion."""

from __future__ import annotations

from statistics import median

from lab import Lab
from rows import Row, repeated

from .steps import steps

REPETITIONS = 2
MEANING = {"demo": "a new project, installed and run: `copier copy`, `make setup`, `make run`, packages cached"}


def measure(lab: Lab) -> list[Row]:
    lab.project("main")  # fills uv's cache
    parts: dict[str, list[float]] = {"render": [], "setup": [], "run": []}
    said = ""
    for number in range(REPETITIONS):
        project, rendering = lab.render(f"demo-{number}")
        parts["render"].append(rendering)
        parts["setup"].append(project.make("setup").seconds)
        run = project.make("run")
        parts["run"].append(run.seconds)
        said = steps(run.output)
        lab.drop(f"demo-{number}")
    note = ", ".join(f"{name} {median(seconds):.1f}" for name, seconds in parts.items())
    return [repeated("demo", [sum(one) for one in zip(*parts.values(), strict=True)], "s", 90, f"{note} ({said})")]
