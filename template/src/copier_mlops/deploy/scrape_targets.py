"""What Prometheus asks for metrics on this host: written by `make up`, and again when there are more replicas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from copier_mlops import _files, _ports
from copier_mlops.deploy import host

FILE, ALERTMANAGERS = Path("monitoring/targets.json"), Path("monitoring/alertmanagers.json")
DEPLOY, DEPLOYED = Path("deploy"), Path(".deploy")


def services(given: Mapping[str, str]) -> dict[str, list[int]]:
    """The ports of what answers, by environment: all places of those that are deployed here, else the one of `make serve`."""
    found = {}
    for state in sorted(DEPLOYED.glob("*/state.json")):
        live, environment = json.loads(state.read_text())["live"], state.parent.name
        if live:
            said = host.variables(DEPLOY / f"{environment}.env")
            first, replicas = int(given.get("PORTS") or said["PORTS"]), max(live["replicas"], int(said["REPLICAS"]))
            found[environment] = [
                _ports.replica(first, color, number) for color in _ports.COLORS for number in range(1, replicas + 1)
            ]
    if not found and any(Path("src").glob("*/serving/online.py")):
        found[given.get("SERVICE_ENVIRONMENT") or "dev"] = [int(given.get("SERVICE_PORT") or _ports.SERVICE)]
    return found


def write(given: Mapping[str, str]) -> None:
    """Write both files; Prometheus sees by itself that they changed."""
    where = _ports.servers(given)

    def group(numbers: list[int], **labels: str) -> dict[str, Any]:
        return {"targets": [f"127.0.0.1:{number}" for number in numbers], "labels": labels}

    asked = [group(numbers, job="service", environment=name) for name, numbers in services(given).items()]
    asked += [group([where[name]], job=name) for name in ("receiver", "alertmanager", "prometheus")]
    for file, content in ((FILE, asked), (ALERTMANAGERS, [group([where["alertmanager"]])])):
        _files.write_text(file, json.dumps(content, indent=2) + "\n", sync=True)
