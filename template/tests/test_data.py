"""The contract, the source and the features. Checks of your own columns come below."""

from copier_mlops.testing import (
    Check,
    Sample,
    contract_checks,
    feature_checks,
    parametrize_with_checks,
    source_checks,
)


@parametrize_with_checks(contract_checks(), source_checks(), feature_checks())
def test_data(check: Check, sample: Sample) -> None:
    check(sample)
