"""Checks of what the stages made on the sample, and of flow.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from copier_mlops.testing.fixtures import Check


def pipeline_checks() -> list[Check]:
    """Return the checks of the stages: they take the folder of a small project."""
    return [check_stages_write_their_outputs, check_metrics_are_finite]


def flow_checks() -> list[Check]:
    """Return the checks of flow.py: they take the function that Prefect runs."""
    return [check_flow_has_the_steps]


def check_stages_write_their_outputs(folder: Path) -> None:
    """Each output of dvc.yaml is there after the stages ran on the sample."""
    import yaml

    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        for output in (*stage.get("outs", ()), *stage.get("metrics", ())):
            path = output if isinstance(output, str) else next(iter(output))
            assert (folder / path).exists(), f"the stage {name} did not write {path}"


def check_metrics_are_finite(folder: Path) -> None:
    """reports/metrics.json has the metric that decides, and each value is a number."""
    import math

    metrics = json.loads((folder / "reports/metrics.json").read_text(encoding="utf-8"))
    values = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    assert values, "reports/metrics.json is empty"
    assert all(math.isfinite(value) for value in values.values()), values


class _Recorder:
    """Takes the place of a training run: it notes the names of the steps and runs none."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fresh = True
        self.settings = _Settings()

    def step(self, name: str, work: Any, retries: int | None = None) -> None:
        self.names.append(name)

    def report(self) -> list[str]:
        return self.names

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Settings:
    push_data = True


def check_flow_has_the_steps(train: Any) -> None:
    """The flow has the steps of a training in their order; your own steps may come between."""
    import importlib

    module = importlib.import_module(train.fn.__module__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TrainingRun", _Recorder)
        names = train.fn()
    wanted = ["resolve", "stages", "gate", "record", "register", "promote", "push"]
    assert [name for name in names if name in wanted] == wanted, (
        f"the flow runs {names}; {wanted} have to be among them"
    )
