"""What it costs to ask again when nothing has changed."""

from __future__ import annotations

from lab import Done, Lab, Project
from rows import Row, repeated

MEANING = {
    "again_pipeline": "`make pipeline` with nothing to do",
    "again_run_with_server": "`make run` with nothing to do, with a Prefect server there",
    "again_run_no_server": "the same without a server, so that Prefect starts a temporary one",
    "history": "`make history` of one version",
}


def idle(done: Done) -> float:
    """The seconds of a command that had nothing to do.

    Raises:
        RuntimeError: If it did something.
    """
    if "nothing has changed" not in " ".join(done.output.split()):
        raise RuntimeError(f"there was something to do:\n{done.output}")
    return done.seconds


def prepared(lab: Lab) -> Project:
    """A project after its first run."""
    project = lab.project("main")
    project.make("run")
    return project


def measure(lab: Lab) -> list[Row]:
    project = prepared(lab)
    history = [project.make("history").seconds for _ in range(5)]
    pipeline = [idle(project.make("pipeline")) for _ in range(5)]
    alone = [idle(project.make("run")) for _ in range(3)]
    with lab.prefect_server(project) as url:
        served = [idle(project.make("run", PREFECT_API_URL=url)) for _ in range(3)]
    return [
        repeated("again_pipeline", pipeline, "s", 2.5),
        repeated("again_run_with_server", served, "s", 6),
        repeated("again_run_no_server", alone, "s", 18),
        repeated("history", history, "s", 2),
    ]
