"""Contributions add up, and belong to the inputs that they come from."""

import numpy as np
import pandas as pd
import pytest

from copier_mlops.bundle.shapley import WALKS, contributions

BACKGROUND = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 1.0, 4.0], "kind": ["x", "y", None]})
ROW = pd.DataFrame({"a": [3.0], "b": [2.0], "kind": ["z"]})


def linear(rows: pd.DataFrame) -> np.ndarray:
    return (2 * rows["a"] - rows["b"]).to_numpy() + 10 * (rows["kind"] == "z").to_numpy()


def test_of_a_sum_each_input_has_its_own_term() -> None:
    found = contributions(linear, ROW, BACKGROUND.iloc[[0]], list(ROW)).set_index("input")["contribution"]
    assert found.to_dict() == pytest.approx({"kind": 10.0, "a": 6.0, "b": -1.0})
    assert found.index.tolist() == ["kind", "a", "b"]  # the largest first


def test_what_acts_together_is_shared() -> None:
    found = contributions(lambda rows: (rows["a"] * rows["b"]).to_numpy(), ROW, BACKGROUND.iloc[[0]], ["a", "b"])
    # from 0 * 1 to 3 * 2: a alone gives 3, b alone 0, both 6
    assert found.set_index("input")["contribution"].to_dict() == pytest.approx({"a": 4.5, "b": 1.5})


def product(rows: pd.DataFrame) -> np.ndarray:
    return (rows["a"] * rows["b"]).to_numpy() + 10 * (rows["kind"] == "z").to_numpy()


@pytest.mark.parametrize("rows", [1, 2, 3, 63, WALKS])
def test_they_add_up_to_the_prediction_minus_the_mean_of_the_background(rows: int) -> None:
    """Of a model whose inputs act together, whatever the number of background rows."""
    background = BACKGROUND.iloc[np.arange(rows) % 3].assign(a=np.arange(rows) ** 1.5).reset_index(drop=True)
    found = contributions(product, ROW, background, list(ROW), seed=5)
    base = product(background).mean()
    assert base + found["contribution"].sum() == pytest.approx(product(ROW)[0])
    again = contributions(product, ROW, background, list(ROW), seed=5)
    pd.testing.assert_frame_equal(found, again)


def test_an_input_that_nobody_reads_contributes_nothing() -> None:
    found = contributions(lambda rows: rows["a"].to_numpy(), ROW, BACKGROUND, list(ROW)).set_index("input")
    assert found.loc[["b", "kind"], "contribution"].tolist() == [0.0, 0.0]
    assert found.loc["kind", "value"] == "z"


def test_without_rows_to_compare_with_there_is_nothing_to_say() -> None:
    for rows in (0, WALKS + 1):
        background = BACKGROUND.iloc[np.arange(rows) % 3]
        with pytest.raises(ValueError, match=f"{rows} rows to compare with; expected 1 to {WALKS}"):
            contributions(linear, ROW, background, list(ROW))
