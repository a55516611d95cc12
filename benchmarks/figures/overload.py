"""Throughput of the online service under eight times the requests that it can process."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import Any

from lab import INSIDE, PACKAGE, Lab, call
from rows import Row, limited

from .online import Server

ROWS = 100  # per request
CONNECTIONS = 1024
SECONDS = 6
TIMES = 8
REPETITIONS = 5
MEANING = {
    "overload_accepted": f"requests for {ROWS} rows that are accepted in a second at {TIMES} times the service's capacity, against the "
    "capacity",
    "overload_p99": "of the accepted requests all but the slowest hundredth took so long, of a deadline of 5 s",
}


def load(lab: Lab, address: str, rate: float, connections: int, seconds: float) -> dict[str, Any]:
    place = address.removeprefix("http://").removesuffix("/predict")
    words = [sys.executable, str(INSIDE / "overload.py"), place, str(rate), str(connections), str(seconds)]
    found: dict[str, Any] = json.loads(call([*words, str(lab.folder / "rows.json")], lab.folder).output)
    return found


def measure(lab: Lab) -> list[Row]:
    project = lab.serving("online")
    expected = json.loads((project.folder / "dist/bundle/expected.json").read_text())
    row = dict(zip(expected["columns"], expected["rows"][0], strict=True))
    (lab.folder / "rows.json").write_text(json.dumps([row] * ROWS))
    more = {"PYTHONPATH": str(project.folder / "src"), "OMP_NUM_THREADS": "1"}
    words = [project.python, "-m", f"{PACKAGE}.serving.online"]
    server = Server("ours", words, "/health/ready", "/predict", json.dumps(row), project.folder, more)
    shares, slow, peaks = [], [], []
    for _ in range(REPETITIONS):
        with server.running(lab.folder / "overload.log") as (address, _):
            load(lab, address, 0, 8, 2)
            peaks.append(load(lab, address, 0, 8, SECONDS)["accepted"])
            found = load(lab, address, TIMES * peaks[-1], CONNECTIONS, SECONDS)
            shares.append(found["accepted"] / peaks[-1])
            slow.append(found["p99"])
    share, spread = median(shares), (round(min(shares), 3), round(max(shares), 3))
    note = f"the capacity is {median(peaks):,.0f} a second; the client needs a processor of its own"
    lab.drop("online")
    return [
        Row("overload_accepted", round(share, 3), "times", spread, "0.9 or more", share >= 0.9, note),
        limited("overload_p99", round(median(slow), 3), "s", 5),
    ]
