"""Ready checks for the tests of a project, in the manner of `sklearn.utils.estimator_checks`.

    @parametrize_with_checks(contract_checks(), source_checks(), feature_checks())
    def test_data(check: Check, sample: Sample) -> None:
        check(sample)

    @parametrize_with_checks(model_checks())
    def test_model(check: Check, trained: Trained) -> None:
        check(trained)

`sample` is the data that tests/sample.py writes. `trained` is the model of `pytest --bundle models/bundle` with the rows that it
was made from, or one that is trained on the sample. A check raises AssertionError. pyproject.toml loads this module as a plugin of
pytest (`-p copier_mlops.testing`), which brings the two fixtures.
"""

from copier_mlops.testing.data_checks import contract_checks, feature_checks, source_checks
from copier_mlops.testing.fixtures import (
    Check,
    Sample,
    Trained,
    parametrize_with_checks,
    pytest_addoption,
    sample,
    small_project,
    trained,
)
from copier_mlops.testing.model_checks import model_checks
from copier_mlops.testing.wiring_checks import flow_checks, pipeline_checks

__all__ = [
    "Check",
    "Sample",
    "Trained",
    "contract_checks",
    "feature_checks",
    "flow_checks",
    "model_checks",
    "parametrize_with_checks",
    "pipeline_checks",
    "pytest_addoption",
    "sample",
    "small_project",
    "source_checks",
    "trained",
]
