"""Why this answer: what each input of a row contributed to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

WALKS = 64  # orders of the inputs, half of them the others backwards


def contributions(
    answer: Callable[[pd.DataFrame], np.ndarray],
    row: pd.DataFrame,
    background: pd.DataFrame,
    inputs: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Return Shapley values of one prediction, estimated from random orders of the inputs (Strumbelj and Kononenko 2014), each order
    used in both directions, which removes most of the noise.

    Args:
        answer: predictions of shape (rows,) for rows of the contract.
        row: the row that is explained, as a frame of one row.
        background: at most WALKS rows that stand for "nothing known", with the columns of `row`.
        inputs: the columns that may have contributed.
        seed: seed of the orders; the same seed gives the same contributions.

    Returns:
        Columns input, value, contribution (in the unit of the prediction), the largest first. The contributions add up to the prediction
        minus the mean prediction of the background: each background row starts as many walks as any other.

    Raises:
        ValueError: If there is no background row, or more than WALKS.
    """
    if not 1 <= len(background) <= WALKS:
        raise ValueError(f"{len(background)} rows to compare with; expected 1 to {WALKS}")
    random = np.random.default_rng(seed)
    names, orders = list(inputs), []
    times = -(-WALKS // len(background))
    times += times * len(background) % 2  # an even number of walks
    for _ in range(times * len(background) // 2):
        order = random.permutation(len(names))
        orders += [order, order[::-1]]
    starts = random.permutation(np.repeat(np.arange(len(background)), times))
    # Row k of a walk has the first k inputs of its order from the row that is explained, the others from the background.
    place = np.argsort(np.array(orders), axis=1)  # (walks, inputs): when an input is switched
    steps = len(names) + 1
    switched = (place[:, None, :] < np.arange(steps)[None, :, None]).reshape(-1, len(names))
    walks = background.iloc[np.repeat(starts, steps)].reset_index(drop=True)
    for number, name in enumerate(names):
        walks[name] = walks[name].where(~switched[:, number], row[name].iloc[0])
    answers = answer(walks).reshape(len(orders), steps)
    gains = np.diff(answers, axis=1)
    total = np.zeros(len(names))
    for order, gain in zip(orders, gains, strict=True):
        total[order] += gain
    found = pd.DataFrame(
        {
            "input": names,
            "value": [row[name].iloc[0] for name in names],
            "contribution": total / len(orders),
        }
    )
    return found.sort_values("contribution", key=np.abs, ascending=False, kind="stable").reset_index(drop=True)
