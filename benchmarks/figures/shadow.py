"""What a challenger in the shadow costs those who ask: its answers are nobody's, so nobody should wait for them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request

from lab import PACKAGE, ROOT, Lab, Project
from rows import Row, limited, repeated

from .online import Server

RATE = 500
SECONDS = 10
REPETITIONS = 7
WAYS = ("alone", "beside")
MEANING = {
    "shadow_p99": f"of {RATE} requests for one row a second the time that all but the slowest hundredth took, with a challenger in the shadow "
    "against without",
    "shadow_dropped": "of the rows of these requests those that the shadow had no time for, in percent",
}


def challenged(lab: Lab) -> Project:
    """A project whose champion answers, and the bundle of a challenger in dist/shadow."""
    project = lab.serving("online", monitoring="true")
    params = project.folder / "params.yaml"
    params.write_text(re.sub(r"^seed: .*", "seed: 2", params.read_text(), flags=re.M))
    for name in ("run", "shadow"):
        project.make(name)
    return project


def counted(address: str) -> dict[str, float]:
    """What the shadow answered and what it left, as the service counts them."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        found = re.findall(
            r"^predict_shadow_(rows|dropped|failures)_total(?:\{.*\})? (\S+)$", answer.read().decode(), re.M
        )
    return {name: float(value) for name, value in found}


def one_turn(lab: Lab, server: Server) -> tuple[float, dict[str, float]]:
    """Milliseconds of the slowest hundredth, and what became of the rows in the shadow.

    Raises:
        RuntimeError: If a request failed, or the shadow took no part where it should.
    """
    row = lab.folder / "row.json"
    row.write_text(server.body)
    with server.running(lab.folder / f"{server.name}.log") as (address, _):
        place = address.removeprefix("http://").removesuffix("/predict")
        words = [sys.executable, str(ROOT / "tests/load.py"), place, str(RATE), str(row)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:
            time.sleep(SECONDS)
            told = json.loads(asking.communicate()[0])
        time.sleep(1)  # the shadow answers afterwards
        found = counted(f"http://{place}/metrics")
    if told["failed"] or (sum(found.values()) < told["requests"]) is (server.name == "beside"):
        raise RuntimeError(
            f"{server.name}: {told['requests']} requests, {told['failed']} failed; in the shadow: {found}"
        )
    return 1000 * told["p99"], found


def measure(lab: Lab) -> list[Row]:
    project = challenged(lab)
    expected = json.loads((project.folder / "dist/bundle/expected.json").read_text())
    body = json.dumps(dict(zip(expected["columns"], expected["rows"][0], strict=True)))
    more = {"PYTHONPATH": str(project.folder / "src"), "OMP_NUM_THREADS": "1"}
    words = [project.python, "-m", f"{PACKAGE}.serving.online"]
    shadow = {"alone": "", "beside": "dist/shadow"}
    servers = {
        way: Server(way, words, "/health/ready", "/predict", body, project.folder, {**more, "SHADOW_DIR": shadow[way]}) for way in WAYS
    }  # fmt: skip
    slow: dict[str, list[float]] = {way: [] for way in WAYS}
    rows = dropped = 0.0
    for turn in range(REPETITIONS):
        for way in WAYS[:: 1 if turn % 2 else -1]:
            took, found = one_turn(lab, servers[way])
            slow[way].append(took)
            rows, dropped = rows + sum(found.values()), dropped + found.get("dropped", 0)
    lab.drop("online")
    shares = [beside / alone for beside, alone in zip(slow["beside"], slow["alone"], strict=True)]
    middle = {way: sorted(times)[len(times) // 2] for way, times in slow.items()}
    note = (
        f"{middle['beside']:.1f} ms, and {middle['alone']:.1f}; 2 cores serve and ask; {REPETITIONS} of each by turns"
    )
    return [
        repeated("shadow_p99", shares, "times", None, note),
        limited("shadow_dropped", 100 * dropped / rows, "%", note=f"of {rows:,.0f}"),
    ]
