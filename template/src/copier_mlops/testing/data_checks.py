"""Checks of schema.py, source.py and features.py on the sample."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copier_mlops.testing.fixtures import Check, Sample


def contract_checks() -> list[Check]:
    """Return the checks of schema.py: they take a Sample."""
    return [check_sample_keeps_the_contract, check_broken_values_are_set_aside]


def source_checks() -> list[Check]:
    """Return the checks of source.py: they take a Sample."""
    return [check_extent_is_that_of_the_rows, check_only_rows_of_the_window_are_read, check_fingerprint_is_stable]


def feature_checks() -> list[Check]:
    """Return the checks of features.py: they take a Sample."""
    return [
        check_order_of_rows_does_not_matter,
        check_a_row_alone_gives_the_same_features,
        check_features_do_not_use_the_target,
        check_features_have_a_row_for_each_row,
        check_missing_values_are_accepted,
    ]


def check_sample_keeps_the_contract(sample: Sample) -> None:
    """At most 2 % of the sample's rows break the contract, and most have a label."""
    from copier_mlops.contract.validation import REASON, check_rows

    checked = check_rows(sample.raw, sample.contract)
    why = checked.set_aside[REASON].value_counts().head(3).to_dict() if len(checked.set_aside) else {}
    assert len(checked.set_aside) <= 0.02 * len(sample.raw), f"{len(checked.set_aside)} rows break the contract: {why}"
    assert len(checked.good) > 0.5 * len(sample.raw), "most rows have no label"


def check_broken_values_are_set_aside(sample: Sample) -> None:
    """A value of another kind sets its row aside, and no other row."""
    from copier_mlops.contract.validation import check_rows

    rows = sample.rows.head(20)
    for column in sample.contract.columns:
        if column.role == "target" or column.kind == "string":
            continue
        broken = rows.astype({column.name: "object"})
        broken.loc[3, column.name] = "no such value"
        aside = check_rows(broken, sample.contract, labelled=False).set_aside
        assert list(aside.index) == [3], f"{column.name}: 'no such value' sets {len(aside)} rows aside, not its own"


def check_extent_is_that_of_the_rows(sample: Sample) -> None:
    """`extent` returns the number of rows that `read` yields, and the time of the newest."""
    from copier_mlops import project

    rows, newest = project.source().extent(sample.location)
    assert rows == len(sample.raw), f"extent says {rows} rows, read yields {len(sample.raw)}"
    if sample.contract.time:
        assert newest == sample.raw[sample.contract.time].max(), "extent names another newest time than read yields"


def check_only_rows_of_the_window_are_read(sample: Sample) -> None:
    """`read` yields the rows with `start <= time < end`, all of them and no others."""
    import pandas as pd

    from copier_mlops import project

    if not sample.contract.time:
        return
    times = pd.to_datetime(sample.raw[sample.contract.time], utc=True).sort_values()
    start, end = times.iloc[len(times) // 3], times.iloc[len(times) // 2]
    found = list(project.source().read(sample.location, start, end, sample.contract.names))
    wanted = int(times.between(start, end, inclusive="left").sum())
    assert sum(map(len, found)) == wanted, f"read yields {sum(map(len, found))} rows of a window that has {wanted}"


def check_fingerprint_is_stable(sample: Sample) -> None:
    """`fingerprint` is the same as long as no row changes, or each run would train again."""
    from copier_mlops import project

    source = project.source()
    assert source.fingerprint(sample.location) == source.fingerprint(sample.location)


def check_order_of_rows_does_not_matter(sample: Sample) -> None:
    """Features of shuffled rows are the shuffled features."""
    import pandas as pd

    from copier_mlops.project import build_features

    shuffled = sample.rows.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(build_features(shuffled), build_features(sample.rows).loc[shuffled.index])


def check_a_row_alone_gives_the_same_features(sample: Sample) -> None:
    """A service computes features of one row, training of many: a row's features come from the row alone."""
    import numpy as np
    import pandas as pd

    from copier_mlops.project import build_features

    rows = sample.rows.head(100)
    for parts in (2, min(50, len(rows))):
        cut = np.linspace(0, len(rows), parts + 1).astype(int)
        pieces = [build_features(rows.iloc[start:end]) for start, end in itertools.pairwise(cut)]
        pd.testing.assert_frame_equal(pd.concat(pieces), build_features(rows))


def check_features_do_not_use_the_target(sample: Sample) -> None:
    """Features are the same with other labels, and without any."""
    import pandas as pd

    from copier_mlops.project import build_features

    target = sample.contract.target
    without = build_features(sample.rows.drop(columns=target))
    other = sample.rows.assign(**{target: sample.rows[target].iloc[::-1].to_numpy()})
    pd.testing.assert_frame_equal(build_features(other), without)


def check_features_have_a_row_for_each_row(sample: Sample) -> None:
    """Features keep the index, hold no key, and the rows are not changed on the way."""
    import numpy as np
    import pandas as pd

    from copier_mlops.project import build_features

    moved = sample.rows.set_index(np.arange(len(sample.rows)) + 1000)
    before = moved.copy()
    inputs = build_features(moved)
    assert inputs.index.equals(moved.index), "the features have another index than the rows"
    assert inputs.shape[1] > 0, "there is no input"
    assert not set(inputs) & set(sample.contract.keys), "id, time or target are among the inputs"
    pd.testing.assert_frame_equal(moved, before)


def check_missing_values_are_accepted(sample: Sample) -> None:
    """What the contract lets be missing may be missing in every row."""
    import pandas as pd

    from copier_mlops.project import build_features

    bare = sample.rows.copy()
    for column in sample.contract.columns:
        if column.nullable:
            bare[column.name] = bare[column.name].where(pd.Series(False, bare.index))
    assert len(build_features(bare)) == len(sample.rows)
