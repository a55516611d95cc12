"""The model: one that is trained on the sample, or the one of `make test-model`. Checks of your own come below."""

from copier_mlops.testing import Check, Trained, model_checks, parametrize_with_checks


@parametrize_with_checks(model_checks())
def test_model(check: Check, trained: Trained) -> None:
    check(trained)
