"""Prometheus: whether it is here, and which alerts it raised."""

from __future__ import annotations

import shutil
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

import msgspec

from copier_mlops import ProjectError


def is_installed() -> bool:
    """Whether Prometheus and Alertmanager are installed here."""
    return bool(
        shutil.which("prometheus") and (shutil.which("alertmanager") or shutil.which("prometheus-alertmanager"))
    )


def fired(port: int) -> list[str]:
    """The names of the alerts that it has raised in its last hour.

    Raises:
        ProjectError: If it does not say.
    """
    asked = quote('count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))')
    there = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        there.request("GET", f"/api/v1/query?query={asked}")
        found = msgspec.json.decode(there.getresponse().read())
        return sorted(one["metric"]["alertname"] for one in found["data"]["result"])
    except (OSError, HTTPException, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ProjectError(f"Prometheus at 127.0.0.1:{port} does not say what it raised ({error}).") from error
    finally:
        there.close()
