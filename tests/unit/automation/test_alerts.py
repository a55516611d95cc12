"""Rules, runbooks, dashboards and routes are held against each other; what they compute is tried by `make check-monitoring`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parent.parent / "monitoring"
ACTIONS = ("retrain", "promote", "roll_back", "add_replica")


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


RULES = [
    rule
    for file in sorted(MONITORING.glob("prometheus/rules/*.yml"))
    for group in read(file)["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = [test["name"] for file in MONITORING.glob("prometheus/tests/*.yml") for test in read(file)["tests"]]


def test_an_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^### (\w+)$", (MONITORING / "runbooks.md").read_text(encoding="utf-8"), re.M)
    assert sorted(headings) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_a_person_needs(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["labels"].get("action", ACTIONS[0]) in ACTIONS
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"monitoring/runbooks.md#{name.lower()}"
    assert {f"{name} fires", f"{name} is quiet"} <= set(TESTS)


def test_no_alert_is_tested_that_is_not_there() -> None:
    assert {name.split()[0] for name in TESTS} == set(ALERTS)


def test_what_is_routed_is_what_alerts_ask_for() -> None:
    routes = read(MONITORING / "alertmanager/alertmanager.yml")
    (matcher,) = routes["route"]["routes"][0]["matchers"]
    assert re.findall(r"\w+", matcher.partition("=~")[2]) == [*ACTIONS]
    named = {
        name
        for rule in routes["inhibit_rules"]
        for side in rule.values()
        for text in side
        for name in re.findall(r'alertname=~?"([^"]+)"', text)
    }
    for pattern in named:
        assert any(re.fullmatch(pattern, name) for name in ALERTS), pattern


@pytest.mark.parametrize("file", sorted(MONITORING.glob("grafana/dashboards/*.json")), ids=lambda file: file.stem)
def test_dashboards_can_be_read(file: Path) -> None:
    board = json.loads(file.read_text(encoding="utf-8"))
    assert board["uid"] == file.stem
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"] and target["datasource"]["uid"] == "prometheus" for target in panel["targets"])
