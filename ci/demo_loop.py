"""Carry the demo on to a live answer: champion, signed bundle, deployment, a question over HTTP; and to two months of production.

It goes through the image where there is an engine for containers that can build it, else through the same service without one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

MONTHS = {"FROM": "2013-09-01", "UNTIL": "2013-11-01", "LIVES": "loop never"}  # in which summer turns to autumn
PORTS = {"LISTEN": "127.0.0.1:18080", "PORTS": "18100"}  # others may hold the ports that a project begins with


def engine() -> str:
    """`containers` where docker or podman answers, else `process`."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return "containers"
    return "process"


def make(project: Path, *words: str, may_fail: bool = False, more: Mapping[str, str] | None = None) -> bool:
    """Run a target and show what it says; ends with it where it fails and may not."""
    print(f"\n$ make {' '.join(words)}", flush=True)
    done = subprocess.run(
        ["make", "--no-print-directory", *words], cwd=project, env={**os.environ, **(more or {})}, check=False
    )
    if done.returncode and not may_fail:
        sys.exit(done.returncode)
    return done.returncode == 0


def ask(project: Path) -> str:
    """Ask what answers on the proxy's address one of the bundle's example rows; what it says, in a line."""
    expected = json.loads((project / "dist/bundle/expected.json").read_text(encoding="utf-8"))
    row = dict(zip(expected["columns"], expected["rows"][0], strict=True))
    where = f"http://{PORTS['LISTEN']}/predict"
    request = urllib.request.Request(where, json.dumps(row).encode(), {"Content-Type": "application/json"})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=20) as answer:
        said = answer.read().decode()
    return f"POST {where}\n  {said}\n  in {1000 * (time.perf_counter() - began):.0f} ms"


def told(project: Path) -> str:
    """What the loop did in these months, in a line."""
    looped = json.loads((project / "reports/replay/replay.json").read_text(encoding="utf-8"))["lives"]["loop"]
    trained = f"the loop trained {len(looped['trainings'])} times"
    moves = [f"version {one['version']} goes live on {one['at'][:10]}" for one in looped["moves"]]
    return f"in two months {trained}; " + ("; ".join(moves) or "no version took over")


def main(project: Path) -> None:
    """Deploy the project's champion, ask it, end it; then let two months go by, in which it is looked after."""
    make(project, "key")
    kind = engine()
    if kind == "containers" and not make(project, "deploy", "ENGINE=containers", may_fail=True, more=PORTS):
        print("\nthe image could not be built or started here (see above); the same service runs without one")
        kind = "process"
    if kind == "process":
        make(project, "deploy", "ENGINE=process", more=PORTS)
    try:
        make(project, "smoke", more=PORTS)
        print(f"\n{ask(project)}", flush=True)
    finally:
        make(project, "undeploy", more=PORTS)
    how = "the deployed image" if kind == "containers" else "the service without a container engine"
    print(
        f"\n  a live answer came through {how}. To keep it running: cd {project.name} && make deploy ENGINE={kind}",
        flush=True,
    )
    make(project, "replay", *(f"{name}={value}" for name, value in MONTHS.items()))
    print(f"\n  {told(project)}\n  {project.name}/reports/replay/report.html shows it")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
