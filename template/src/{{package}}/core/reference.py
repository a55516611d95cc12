"""What rows looked like when the model was made: kept in its bundle, for whoever compares production with it later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..core.contract import Contract

BINS = 20
CATEGORIES = 50  # what is rarer than the most frequent of these is counted together
VERSION = 1


def reference(rows: pd.DataFrame, scores: np.ndarray, contract: Contract) -> dict[str, Any]:
    """The profile of some rows and of the answers to them; numbers only, no row can be told from it.

    Args:
        rows: Rows that keep the contract.
        scores: Answers of shape (rows,) or (rows, classes).
        contract: Says which columns are inputs.

    Returns:
        JSON-ready: `rows`, and for each input `missing` (how many) with `edges` and `counts` of a number (one more count than
        edges: the first is what lies below or at the first edge) or `values` and `other` of a text or boolean; the same of each answer
        under `answers`.
    """
    columns: dict[str, Any] = {}
    for name in contract.features("integer", "number"):
        columns[name] = _numbers(rows[name].to_numpy("float64"))
    for name in contract.features("boolean", "string"):
        columns[name] = _texts(rows[name], CATEGORIES)
    table = scores if scores.ndim == 2 else scores[:, None]
    answers = {name: _numbers(table[:, place]) for place, name in enumerate(contract.answers)}
    return {"version": VERSION, "rows": len(rows), "columns": columns, "answers": answers}


def _numbers(values: np.ndarray) -> dict[str, Any]:
    """Bins that hold about as many rows each; a value that many rows share has a bin of its own."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if len(known) else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1)
    return {"missing": int(len(values) - len(known)), "edges": edges.tolist(), "counts": counts.tolist()}


def _texts(values: pd.Series, most: int) -> dict[str, Any]:
    known = values.dropna().astype("str")
    counted = known.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    kept = counted.head(most)
    return {
        "missing": int(len(values) - len(known)),
        "values": {str(name): int(count) for name, count in kept.items()},
        "other": int(counted.sum() - kept.sum()),
    }
