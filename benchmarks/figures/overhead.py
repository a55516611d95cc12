"""What data versions, a registry and an orchestrator cost, over a script that does the same work without them."""

from __future__ import annotations

import json
from statistics import median

from lab import PACKAGE, Lab, Project
from rows import Row, repeated

REPETITIONS = 3
SAME = 1e-9  # largest difference of the two results' metrics
MEANING = {
    "run_over_script_with_server": "seconds of a fresh `make run` with a Prefect server there, minus those of a bare "
    "script that does the same work",
    "run_over_script_no_server": "the same without a server, so that Prefect starts a temporary one",
}


def check_same_work(project: Project, said: str) -> None:
    """Two clocks can be compared only if the same work was done: every metric must agree.

    Raises:
        RuntimeError: If one does not.
    """
    script = json.loads(said.splitlines()[-1])
    run = json.loads((project.folder / "reports" / "metrics.json").read_text())
    if script.keys() != run.keys() or any(abs(script[name] - run[name]) > SAME for name in run):
        raise RuntimeError(f"the bare script did other work than the project: {script} against {run}")


def measure(lab: Lab) -> list[Row]:
    project = lab.project("main")
    script, without, with_server = [], [], []
    with lab.prefect_server(project) as url:
        for _ in range(REPETITIONS):
            project.forget()
            without.append(project.make("run").seconds)
            bare = project.script("bare_script.py", PACKAGE)
            check_same_work(project, bare.output)
            script.append(bare.seconds)
            project.forget()
            with_server.append(project.make("run", PREFECT_API_URL=url).seconds)
            print(
                f"  {without[-1]:.1f} s, script {script[-1]:.1f} s, with a server {with_server[-1]:.1f} s", flush=True
            )
    rows = []
    for name, seconds, bar in (("with", with_server, 12), ("no", without, 25)):
        more = [run - bare for run, bare in zip(seconds, script, strict=True)]
        note = f"run {median(seconds):.1f} s, script {median(script):.1f} s, all metrics equal"
        rows.append(repeated(f"run_over_script_{name}_server", more, "s", bar, note))
    return rows
