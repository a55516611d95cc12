"""Values of a column as numbers, and its different values with the places of each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import as_text

# ------------------------------------------------------------------------------------------------------- Counting


def as_numbers(values: pd.Series) -> np.ndarray:
    """A column of numbers or booleans as float64 of the same shape; NaN where there is no finite one."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        found = values.to_numpy("float64")
    elif isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object:
        found = pd.to_numeric(values.astype("object"), errors="coerce").astype("float64").to_numpy()
    else:
        found = pd.to_numeric(values, errors="coerce").to_numpy("float64", na_value=np.nan)
    finite = np.isfinite(found)
    return found if finite.all() else np.where(finite, found, np.nan)


def factorized(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The place of each value among the different ones, -1 where there is none; and these, as text."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, names = values.cat.codes.to_numpy("int64"), list(as_text(pd.Series(values.cat.categories)))
    else:
        codes, found = pd.factorize(values if pd.api.types.is_string_dtype(values.dtype) else as_text(values))
        names = list(found)
    return codes, np.array([str(name) for name in names], dtype=object)
