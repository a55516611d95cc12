"""The metrics of the service, which decide about a deployment and its alerts."""

from types import SimpleNamespace
from typing import Any

import pytest
from sample_project.schema import CONTRACT

from copier_mlops.serving.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    bundle: Any = SimpleNamespace(contract=CONTRACT, version=1, digest="digest")
    return Metrics(bundle, ("/predict", "/model"), lambda: 0, lambda: 0)


def test_durations_of_predictions_are_those_of_processed_requests(metrics: Metrics) -> None:
    """Neither slow nor quick requests without a key change the quantile that stops a deployment."""
    for status in (401, 404, 405, 408, 413, 422, 429, 499):
        metrics.answered("/predict", status, 9.0)
    for status in (200, 500, 504):
        metrics.answered("/predict", status, 0.2)
    metrics.answered("/model", 401, 0.2)
    text = metrics.text().decode()
    assert 'http_request_duration_seconds_count{path="/predict"} 3.0' in text
    assert 'http_request_duration_seconds_count{path="/model"} 1.0' in text
    assert 'http_requests_total{path="/predict",status="401"} 1.0' in text
