"""Two versions are compared by what differs, and by their predictions of the same rows."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from sample_project.schema import CONTRACT

from copier_mlops.bundle.bundle import Bundle
from copier_mlops.bundle.bundle_files import StaleBundleError
from copier_mlops.contract.contract import Contract
from copier_mlops.lifecycle import compare
from copier_mlops.pipeline import split
from copier_mlops.registry.database import Version
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.settings import Paths, Settings

FEATURE = CONTRACT.features()[0]


def loads(monkeypatch: pytest.MonkeyPatch, second: Bundle) -> None:
    """Let the registry load this bundle as version 2."""
    load = Registry.load
    monkeypatch.setattr(Registry, "load", lambda self, version: second if version.number == 2 else load(self, version))


def test_parameters_and_metrics_are_beside_each_other(registered: Path) -> None:
    found = compare.compare(Settings(), 1, 2)
    metrics = {line[""] for line in found["metrics, each on its own test rows"]}
    assert metrics >= json.loads(Paths.METRICS.read_text()).keys()
    assert "answer_cost (1,000 rows; 1 = sorting 200,000 numbers)" in metrics
    assert {"": "seed", "version 1": "7", "version 2": "8"} in found["parameters"]
    assert found["data"] == found["columns"] == found["inputs"] == []  # they were trained on the same
    assert compare.compare(Settings(), 1, 1)["parameters"] == []


def test_the_gain_has_an_interval_and_is_of_the_same_rows(registered: Path) -> None:
    [same] = compare.compare(Settings(), 1, 1)["same test rows"]
    assert (same["value"], same["from"], same["to"]) == (0, 0, 0)
    [there] = compare.compare(Settings(), 1, 2)["same test rows"]
    [back] = compare.compare(Settings(), 2, 1)["same test rows"]
    assert there["rows"] == len(split.test(compare.load_run()))
    assert there["value"] == pytest.approx(-back["value"])
    assert there["from"] == pytest.approx(-back["to"])


def test_columns_and_inputs_that_differ_are_named(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(Settings())
    loaded = registry.load(registry.version(2))
    columns = tuple(
        dataclasses.replace(column, unit="other", nullable=True) if column.name == FEATURE else column
        for column in loaded.contract.columns
    )
    inputs = [*loaded.manifest["inputs"][1:], "new"]
    loads(
        monkeypatch,
        dataclasses.replace(loaded, contract=Contract(columns), manifest={**loaded.manifest, "inputs": inputs}),
    )
    found = compare.compare(Settings(), 1, 2)
    [column] = found["columns"]
    assert column[""] == FEATURE and "unit other" in column["version 2"] and "unit other" not in column["version 1"]
    assert found["inputs"] == [
        {"": loaded.manifest["inputs"][0], "version 1": "input", "version 2": None},
        {"": "new", "version 1": None, "version 2": "input"},
    ]


def test_rows_of_the_training_are_left_out(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was trained through a later day is not judged by rows of its training."""
    registry = Registry(Settings())
    loaded = registry.load(registry.version(2))
    window = {**loaded.manifest["window"], "test_start": "2999-01-01"}
    loads(monkeypatch, dataclasses.replace(loaded, manifest={**loaded.manifest, "window": window}))
    found = compare.compare(Settings(), 1, 2)
    if CONTRACT.time:
        assert found["same test rows"] == []
        assert "no test rows that neither version was trained on" in found["notes"][0][""]


def test_another_target_is_not_compared(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(Settings())
    loaded = registry.load(registry.version(2))
    loads(monkeypatch, dataclasses.replace(loaded, manifest={**loaded.manifest, "target": "another"}))
    found = compare.compare(Settings(), 1, 2)
    assert found["same test rows"] == [] and "predict different targets" in found["notes"][0][""]


def test_a_version_of_other_packages_is_compared_by_its_records(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(self: Registry, version: Version) -> Bundle:
        raise StaleBundleError("the packages differ")

    monkeypatch.setattr(Registry, "load", stale)
    found = compare.compare(Settings(), 1, 2)
    assert "columns" not in found and "the packages differ" in found["notes"][0][""]
    assert found["parameters"]


def test_data_are_described_by_count_and_content(registered: Path) -> None:
    registry = Registry(Settings())
    described = compare._data(registry, registry.version(1).run_id)
    outs = [out["path"] for stage in yaml.safe_load(Paths.LOCK.read_text())["stages"].values() for out in stage["outs"]]
    assert {f"content of {path}" for path in outs if path.startswith("data/")} <= described.keys()
    assert described["rows good"] == json.loads(Paths.VALIDATION.read_text())["good"]


def test_content_of_the_same_size_differs_by_its_digest() -> None:
    rows = compare._without_digests([{"": "content of data/raw", "version 1": ("5 bytes", "a"), "version 2": None}])
    assert rows == [{"": "content of data/raw", "version 1": "5 bytes", "version 2": None}]
