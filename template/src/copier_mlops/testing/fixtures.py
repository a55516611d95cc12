"""The fixtures of a project's tests: the sample, a small project whose stages ran on it, and a trained model."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from copier_mlops.bundle.bundle import Bundle
    from copier_mlops.contract.contract import Contract
    from copier_mlops.params import Run

Check = Callable[[Any], None]


def parametrize_with_checks(*lists: list[Check]) -> pytest.MarkDecorator:
    """Run a test once for each check; the test has an argument `check` and calls it."""
    checks = [check for one in lists for check in one]
    return pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__.removeprefix("check_"))


class Sample:
    """The data that the tests learn from.

    Attributes:
        location: What SOURCE_URI is for it.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    @property
    def contract(self) -> Contract:
        """The contract of schema.py."""
        from copier_mlops import project

        return project.contract()

    @cached_property
    def raw(self) -> pd.DataFrame:
        """All rows of the sample as source.py reads them, with the columns of the contract."""
        import pandas as pd

        from copier_mlops import project

        start, end = (pd.Timestamp(day, tz="UTC") for day in ("1900-01-01", "2200-01-01"))
        first, last = (start, end) if self.contract.time else (None, None)
        return pd.concat(project.source().read(self.location, first, last, self.contract.names), ignore_index=True)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The newest rows that keep the contract and have a label, at most 800, in their order."""
        from copier_mlops.contract.validation import check_rows

        good = check_rows(self.raw, self.contract).good
        return good.sort_values(self.contract.order, kind="stable").tail(800).reset_index(drop=True)


@dataclass(frozen=True)
class Trained:
    """A model with the rows that judge it.

    Attributes:
        bundle: The model.
        run: What it was trained under.
        rows: The newest test rows, at most 4,000, without the label; their index counts from 0.
        y: float64 array of shape (rows,): the labels as numbers.
        inputs: Features of training rows, at most 4,000.
        truth: float64 array: their labels.
    """

    bundle: Bundle
    run: Run
    rows: pd.DataFrame
    y: np.ndarray
    inputs: pd.DataFrame
    truth: np.ndarray

    @property
    def contract(self) -> Contract:
        """The contract that the model was trained under."""
        return self.bundle.contract

    def fit(self, inputs: pd.DataFrame, truth: np.ndarray, params: Any = None) -> Any:
        """Fit the estimator of model.py with the hyperparameters of the model, or others."""
        from copier_mlops import project

        params = self.bundle.manifest["params"] if params is None else params
        return project.model().build_model(self.run.problem, params, self.run.seed).fit(inputs, truth)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the model to check."""
    parser.addoption(
        "--bundle", help="the bundle to check, such as models/bundle; by default one trained on the sample"
    )


@pytest.fixture(scope="session")
def sample(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The data that tests/sample.py writes."""
    return Sample(_module(pytestconfig.rootpath / "tests/sample.py").write(tmp_path_factory.mktemp("sample")))


@pytest.fixture(scope="session")
def small_project(pytestconfig: pytest.Config, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose stages ran on the sample, with parameters that take seconds; no test writes into it."""
    return run_on_sample(pytestconfig.rootpath, tmp_path_factory.mktemp("small") / "project", sample)


@pytest.fixture(scope="session")
def trained(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[Trained]:
    """The model of `--bundle`, or one that is trained on the sample."""
    given = pytestconfig.getoption("--bundle")
    folder = pytestconfig.rootpath if given else request.getfixturevalue("small_project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield _load(Path(given or "models/bundle"), bool(given))


def _load(file: Path, checked: bool) -> Trained:
    from copier_mlops.bundle import bundle
    from copier_mlops.params import load_run
    from copier_mlops.pipeline import split
    from copier_mlops.versioning import dvc

    if checked:
        assert file.exists(), f"{file} is not there; `make run` or `make review` trains it"
        dvc.check_output(file)
    run, loaded = load_run(), bundle.load(file)
    target = loaded.contract.target
    test = split.test(run).tail(4_000).reset_index(drop=True)
    inputs, truth = split.training(run)
    labels = loaded.contract.labels(test[target])
    few = inputs.tail(4_000).reset_index(drop=True)
    return Trained(loaded, run, test.drop(columns=target), labels, few, truth[-4_000:])


def _module(file: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("sample_of_the_tests", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run_on_sample(root: Path, folder: Path, sample: Sample) -> Path:
    """Copy a project and run its stages there on the sample, in this process.

    Args:
        root: The project.
        folder: Where the copy goes.
        sample: The data.

    Returns:
        The folder.
    """
    from copier_mlops.pipeline import evaluate, features, ingest, run_config, train, validate
    from copier_mlops.settings import Settings
    from copier_mlops.versioning import dvc

    folder.mkdir(parents=True)
    shutil.copytree(root / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "copier_mlops"))
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml", "adoption.json"):
        shutil.copyfile(root / name, folder / name)
    make_small(folder / "params.yaml", sample.contract)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in list(os.environ):
            if name.lower() in Settings.model_fields:
                patch.delenv(name)
        patch.setenv("SOURCE_URI", sample.location)
        patch.setenv("MASK_KEY", "of the tests")
        patch.setattr(dvc, "complete_params", lambda params: False)
        run_config.resolve_run(settings := Settings())
        ingest.ingest(settings)
        validate.validate()
        features.features()
        train.train()
        evaluate.evaluate()
    return folder


def make_small(file: Path, contract: Contract) -> None:
    """Change a params.yaml so that training takes seconds, and that any model passes the gate."""
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["seed"] = 7
    content.pop("window", None)
    if contract.time:
        content["window"] = {"days": 100, "until": "newest"}
        content["split"] = {"test_days": 20, "folds": 2}
        slices = ["month"]
    else:
        content["split"] = {"test_share": 0.2, "folds": 2}
        inputs = [contract[name] for name in contract.features("boolean", "string")]
        slices = [column.name for column in inputs if column.kind == "boolean" or column.allowed][:1]
    content["search"] = {"trials": 2}
    content["validation"] = {"max_bad_share": 0.05, "max_single_input_skill": 1.0}
    content["evaluation"] = {"slices": slices, "bootstrap": 20, "importance_rows": 100}
    content["gate"] = {"metric": content["gate"]["metric"], "better_than_baseline": -1e6, "worse_than_champion": 1e6}
    content["promotion"] = {"automatic": False}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
