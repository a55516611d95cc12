"""Which rows teach, and which judge: the newest days, or a share of each class."""

import numpy as np
import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops.contract.units import copies_of, subjects
from copier_mlops.contract.validation import fingerprints
from copier_mlops.data import tables
from copier_mlops.params import Run
from copier_mlops.settings import Paths


def training(run: Run) -> tuple[pd.DataFrame, np.ndarray]:
    """The inputs and the truth to learn from, in the order of time, or of the id where there is none.

    Raises:
        ProjectError: If there are no such rows.
    """
    inputs, y, _ = training_in_units(run)
    return inputs, y


def training_in_units(run: Run) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """The same as `training`, and what folds by lot keep on one side: rows of a subject, else copies.

    Returns:
        Inputs; truth; uint64 array of shape (rows,), None where time makes the folds.

    Raises:
        ProjectError: If there are no such rows.
    """
    drawn = run.split.test_share is not None
    skip = [] if drawn else [project.contract().id]
    rows = tables.read_between(
        Paths.FEATURES, project.contract().time, *_moments(run, "start", "test_start"), skip=skip
    )
    if drawn:
        given = tables.read_between(Paths.VALIDATED, project.contract().time, *_moments(run, "start", "test_start"))
        judges = fingerprints(given[project.contract().id][_drawn(run, given)])
        rows = rows[~np.isin(fingerprints(rows[project.contract().id]), judges)].sort_values(
            project.contract().order, kind="stable", ignore_index=True
        )
    y = project.contract().labels(rows.pop(project.contract().target))
    inputs = rows.drop(columns=project.contract().keys, errors="ignore")
    if not drawn:
        return inputs, y, None
    return (
        inputs,
        y,
        fingerprints(subjects(rows, project.contract())) if project.contract().group else copies_of(inputs),
    )


def known_subjects(run: Run, rows: pd.DataFrame) -> np.ndarray:
    """Which rows of the test are of subjects that the model learnt from; only time puts a subject on both sides.

    Returns:
        Boolean array of shape (rows,).
    """
    given = tables.read_between(Paths.VALIDATED, project.contract().time, *_moments(run, "start", "test_start"))
    return np.isin(fingerprints(subjects(rows, project.contract())), fingerprints(subjects(given, project.contract())))


def test(run: Run) -> pd.DataFrame:
    """The rows of the contract to judge by, in the same order, texts as text.

    Raises:
        ProjectError: If there are none.
    """
    rows = tables.read_between(Paths.VALIDATED, project.contract().time, *_moments(run, "test_start", "end"))
    if run.split.test_share is not None:
        rows = rows[_drawn(run, rows)]
    if rows.empty:
        raise ProjectError(f"there are no rows in {says(run)}, which are the test; widen `split` in params.yaml.")
    rows = rows.sort_values(project.contract().order, kind="stable", ignore_index=True)
    return rows.astype(dict.fromkeys(rows.select_dtypes("category"), "str"))


def window(run: Run) -> dict[str, str]:
    """The days from which rows were taken, for people; empty where rows have no time."""
    return {key: f"{moment:%Y-%m-%d}" for key, moment in run.resolved if moment is not None}


def says(run: Run) -> str:
    """Which rows judge, in words."""
    if run.split.test_share is not None:
        return f"{run.split.test_share:.0%} of the rows, drawn by their {project.contract().group or project.contract().id}"
    return f"the last {run.split.test_days} days"


def _drawn(run: Run, rows: pd.DataFrame) -> np.ndarray:
    from copier_mlops.pipeline.search import drawn_for_test  # imports scikit-learn, which takes a second

    y = project.contract().labels(rows[project.contract().target])
    if project.contract().group:
        named = subjects(rows, project.contract())
        return drawn_for_test(run.problem, named, y, run.split.test_share or 0, fingerprints(named))
    copies = copies_of(rows.drop(columns=project.contract().keys))
    return drawn_for_test(run.problem, rows[project.contract().id], y, run.split.test_share or 0, copies)


def _moments(run: Run, *names: str) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """Moments of the window; where a share is drawn both sides come from the whole of it."""
    start, end = ("start", "end") if run.split.test_share is not None else names
    moments = [getattr(run.resolved, name) for name in (start, end)]
    first, last = (pd.Timestamp(moment) if moment else None for moment in moments)
    return first, last
