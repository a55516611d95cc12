"""Checks of what Prometheus, Alertmanager and the alert webhook read from monitoring/."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from copier_mlops import ProjectError
from copier_mlops.automation.alert_webhook import load_policy

FOLDER = Path("monitoring")
ACTIONS = ("retrain", "promote", "roll_back", "add_replica")


def check() -> None:
    """Check the policy, the rules with their tests, and where Alertmanager sends alerts.

    Raises:
        ProjectError: If one of them is not valid; the output of the tool is above.
    """
    load_policy()
    prometheus, alertmanager = FOLDER / "prometheus", FOLDER / "alertmanager/alertmanager.yml"
    _run(["promtool", "check", "rules", *_files(prometheus / "rules")])
    _run(["promtool", "check", "config", "--syntax-only", str(prometheus / "prometheus.yml")])
    _run(["promtool", "test", "rules", *_files(prometheus / "tests")])
    _run(["amtool", "check-config", str(alertmanager)])
    if not _routed(alertmanager, "person", "severity=critical"):
        raise ProjectError("an alert without an action does not go to person")
    for action in ACTIONS:
        if not _routed(alertmanager, "loop,person", f"action={action}"):
            raise ProjectError(f"an alert with the action {action} does not go to loop and person")


def _files(folder: Path) -> list[str]:
    return [str(file) for file in sorted(folder.glob("*.yml"))]


def _run(words: Sequence[str]) -> None:
    if subprocess.run(words, check=False).returncode:
        raise ProjectError(f"`{' '.join(words)}` failed; its output is above")


def _routed(file: Path, receivers: str, label: str) -> bool:
    """Return whether Alertmanager sends an alert with a label to these receivers."""
    words = ["amtool", "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receivers}", label]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
