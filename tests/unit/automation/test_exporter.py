"""The report of the monitor as metrics: what is there is told, what is not is absent, and nothing of it breaks the rest."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from copier_mlops.automation.exporter import MOST_SERIES, family, of_report
from copier_mlops.monitoring.report_reader import from_json

REPORT = {
    "at": "2026-03-04T12:00:00+00:00",
    "version": 3,
    "trained_at": "2026-02-01T00:00:00Z",
    "newest": "2026-03-03T00:00:00",
    "window": {"rows": 5000},
    "verdict": {"status": "worse", "sure": "measured", "actions": [{"action": "retrain", "reasons": ["it is worse"]}]},
    "performance": {
        "metrics": {"auc": 0.7, "brier": None},
        "expected": {"auc": 0.75},
        "estimated": {"auc": 0.72},
        "worse": True,
        "before": {"version": 2, "worse": False},
        "slices": [{"slice": "carrier", "group": 'a "b"\\\nc', "metrics": {"auc": 0.6}}, {"slice": "month"}],
    },
    "drift": {
        "columns": {
            "distance": {"effect": 0.2, "limit": 0.1, "drifted": True, "counted": True},
            "month": {"effect": 0.9, "limit": None, "drifted": False, "counted": False},
        },
        "multivariate": {"auc": 0.6, "limit": 0.55, "drifted": True},
    },
    "challenger": {"version": 4, "rows": 900, "gain": 0.02, "low": -0.01, "high": 0.05, "margin": 0.0, "better": False},
    "labels": {"joined": 900, "waiting": 100, "aside": {"repeated": 4}},
}


def lines(report: object) -> list[str]:
    class Report(Collector):
        def collect(self) -> Iterable[Metric]:
            return of_report(from_json(report))

    registry = CollectorRegistry()
    registry.register(Report())
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_everything_that_a_report_has() -> None:
    found = lines(REPORT)
    assert "monitor_last_look_timestamp_seconds 1.7726256e+09" in found
    assert "model_trained_timestamp_seconds 1.769904e+09" in found
    assert "data_newest_timestamp_seconds 1.772496e+09" in found
    assert 'model_metric{metric="auc",version="3"} 0.7' in found
    assert 'model_metric_expected{metric="auc"} 0.75' in found
    assert 'model_metric_estimated{metric="auc"} 0.72' in found
    assert "model_metric_worse 1.0" in found and "model_worse_than_before 0.0" in found
    assert r'model_slice_metric{group="a \"b\"\\\nc",metric="auc",slice="carrier"} 0.6' in found
    assert [line for line in found if line.startswith("drift_")] == [
        "drift_multivariate_auc 0.6",
        "drift_multivariate_limit 0.55",
        "drift_multivariate_drifted 1.0",
        'drift_effect{column="distance"} 0.2',
        'drift_effect{column="month"} 0.9',
        'drift_limit{column="distance"} 0.1',
        'drift_drifted{column="distance"} 1.0',
        'drift_drifted{column="month"} 0.0',
        "drift_columns 1.0",
    ]
    assert {"labels_joined_rows 900.0", "labels_waiting_rows 100.0", 'labels_aside_rows{reason="repeated"} 4.0'} <= set(
        found
    )
    assert 'monitor_verdict{status="worse",sure="measured"} 1.0' in found
    assert 'monitor_proposed_action{action="retrain"} 1.0' in found
    assert 'monitor_proposed_action{action="roll_back"} 0.0' in found
    assert 'monitor_proposed_action{action="promote"} 0.0' in found
    assert [line for line in found if "challeng" in line or "champion" in line] == [
        "monitor_champion_version 3.0",
        "monitor_challenger_version 4.0",
        "monitor_challenger_rows 900.0",
        "monitor_challenger_gain 0.02",
        "monitor_challenger_gain_low -0.01",
        "monitor_challenger_gain_high 0.05",
        "monitor_challenger_margin 0.0",
    ]


def test_without_a_challenger_there_are_no_numbers_of_one() -> None:
    assert "challenger" not in "\n".join(lines({**REPORT, "challenger": None}))


@pytest.mark.parametrize(
    "report",
    [
        None,
        [],
        "text",
        {},
        {"at": "yesterday", "version": None, "performance": [], "drift": {"columns": 3}, "labels": {"aside": []}},
        {"at": True, "performance": {"metrics": {"auc": "0.7"}, "slices": "text"}, "drift": {"columns": {"a": None}}},
        {"performance": {"metrics": {"auc": float("nan")}, "slices": [None, 3]}, "verdict": {"actions": [None]}},
    ],
)
def test_what_is_missing_or_wrong_is_absent(report: object) -> None:
    assert [line for line in lines(report) if not line.startswith(("monitor_", "drift_columns"))] == []


def test_a_mistake_does_not_become_a_million_series() -> None:
    columns = {f"column {number}": {"effect": 0.1, "drifted": number == 9_999} for number in range(10_000)}
    found = lines({"drift": {"columns": columns}})
    assert len([one for one in found if one.startswith("drift_effect")]) == MOST_SERIES
    assert 'drift_drifted{column="column 9999"} 1.0' in found  # what has drifted comes first
    assert family("a_total", "counter", "None.", []).samples == []
