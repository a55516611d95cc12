"""Prometheus and Alertmanager, as tests find and ask them."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

PACKAGES = ("prometheus", "prometheus-alertmanager")
BOARDS = ("drift", "loop", "model", "service")


def ask(port: int, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers; an error if the query is none."""
    asked = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{asked}", timeout=10) as answer:
        return list(json.load(answer)["data"]["result"])


def panels(project: Path) -> set[tuple[str, str, str]]:
    """Dashboard, title and query of everything that a project's dashboards show."""
    boards = sorted((project / "monitoring/grafana/dashboards").glob("*.json"))
    assert tuple(board.stem for board in boards) == BOARDS
    return {
        (board.stem, panel["title"], target["expr"])
        for board in boards
        for panel in json.loads(board.read_text())["panels"]
        for target in panel["targets"]
    }
