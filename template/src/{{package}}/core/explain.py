"""Why this answer: what each input of a row contributed to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

PAIRS = 32  # orders of the inputs, each once forwards and once backwards


def contributions(
    answer: Callable[[pd.DataFrame], np.ndarray],
    row: pd.DataFrame,
    background: pd.DataFrame,
    inputs: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Shapley values of one answer, estimated from random orders of the inputs (Strumbelj and Kononenko 2014), each order used
    in both directions, which takes most of the noise out.

    Args:
        answer: Answers of shape (rows,) to rows of the contract.
        row: The row that is explained, as a frame of one row.
        background: Rows that stand for "nothing known", with the columns of `row`.
        inputs: The columns that may have contributed.
        seed: The same seed gives the same contributions.

    Returns:
        Columns input, value, contribution (in the unit of the answer), the largest first. The contributions add up to the answer
        minus the mean answer to the background rows that were used.

    Raises:
        ValueError: If there is no background row.
    """
    if not len(background):
        raise ValueError("there are no rows to compare with")
    random = np.random.default_rng(seed)
    names, orders = list(inputs), []
    for _ in range(PAIRS):
        order = random.permutation(len(names))
        orders += [order, order[::-1]]
    starts = np.repeat(random.permutation(np.arange(PAIRS) % len(background)), 2)  # a pair starts from the same row
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
