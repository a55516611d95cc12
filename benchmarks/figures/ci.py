"""How long a pull request waits for its workflow, on a runner of this size."""

from __future__ import annotations

import sys
import time

from lab import ROOT, Lab
from rows import Row, repeated

REPETITIONS = 2
MEANING = {
    "ci": "`ci.yml` on the sample project, as act runs it from a fresh clone with an empty home, packages cached"
}


def measure(lab: Lab) -> list[Row]:
    sys.path.insert(0, str(ROOT / "tests"))
    import runner
    import workspace

    act = runner.bring(workspace.tools())
    if act is None:
        raise RuntimeError("act is missing, and there is no Go to build it with")
    project = lab.project("ci")
    times, said = [], ""
    for number in range(REPETITIONS):
        clone = runner.push(project.folder, lab.folder / f"ci-clone-{number}")
        begun = time.perf_counter()
        done = runner.run(act, clone, "push", {"before": "0" * 40})
        times.append(time.perf_counter() - begun)
        if not done.passed:
            raise RuntimeError(done.output[-4000:])
        said = f"{len(done.jobs)} jobs, two at a time"
    lab.drop("ci")
    return [repeated("ci", times, "s", 300, said)]
