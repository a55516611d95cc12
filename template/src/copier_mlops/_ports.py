"""The ports of everything that listens on this machine.

| what | ports |
|---|---|
| servers of the monitoring stack | `SERVERS`, or `<NAME>_PORT` |
| replicas of a deployment | 1 to `MAX_REPLICAS` after `PORTS` for blue, the same `COLOR_STRIDE` further for green |

The module needs nothing but Python: a deploy sends it to hosts without the project's packages.
"""

from __future__ import annotations

from collections.abc import Mapping

COLORS = ("blue", "green")
MAX_REPLICAS = 8
"""Largest number of replicas of one color."""
COLOR_STRIDE = 10
"""Distance between the ports of the two colors."""
SPAN = COLOR_STRIDE * (len(COLORS) - 1) + MAX_REPLICAS
"""Distance from the first port of a deployment to its last one."""

SERVERS = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "mlflow": 5000, "prefect": 4200, "receiver": 9099}
SERVICE = 8000
"""Port of the service outside a deployment (`make serve`)."""


def servers(settings: Mapping[str, str]) -> dict[str, int]:
    """Return the port of each server of the monitoring stack: `PROMETHEUS_PORT` and so on, or its usual port."""
    return {name: int(settings.get(f"{name.upper()}_PORT") or port) for name, port in SERVERS.items()}


def replica(first: int, color: str, number: int) -> int:
    """Return the port of a replica of a deployment.

    Args:
        first: `PORTS` of the deployment; the ports of the replicas follow it.
        color: Blue or green.
        number: Number of the replica, from 1.
    """
    return first + COLOR_STRIDE * COLORS.index(color) + number
