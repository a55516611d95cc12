"""Counts of rows and answers as they come, by the bins and the names of the profile in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.bundle.calendar import days_of
from copier_mlops.bundle.reference import VERSION, bins, flag_cells, is_flag, levels
from copier_mlops.bundle.values import as_numbers, factorized

UNIT = 2.0**32  # answers are summed in whole numbers of its inverse: the same sum in whatever parts they come
RESERVOIR = 5_000  # rows that a window keeps
STRANGE = 1_000  # names that it keeps beside those of the profile
DAYS = 4_000  # that it counts apart
ENOUGH = 30  # rows, below which nothing can be told


class DriftError(ProjectError):
    """A profile cannot be compared with; the text says what to do."""


class Window:
    """Counts of rows as they come, in memory that does not grow with them.

    Args:
        profile: The reference of a bundle.
        seed: The same rows with the same seed make the same window, in whatever parts they come.

    Raises:
        DriftError: If the profile is of another release.
    """

    def __init__(self, profile: Mapping[str, Any], seed: int = 0) -> None:
        if profile.get("version") != VERSION:
            raise DriftError(
                f"the bundle keeps a reference of version {profile.get('version', 'none')}, and this release compares with version "
                f"{VERSION}. Train again, or watch this model with the release that made it."
            )
        self.profile = profile
        self.rows = 0
        self.columns = {name: Counts(column) for name, column in profile["columns"].items()}
        self.answers = {name: Counts(column) for name, column in profile["answers"].items()}
        self.labels = {name: Counts(column) for name, column in profile["labels"].items()}
        self.confidence = Counts(profile["confidence"]) if "confidence" in profile else None
        self.days: dict[int, int] = {}
        self.kept: dict[str, np.ndarray] = {name: counts.nothing for name, counts in self.columns.items()}
        self._lots = np.empty(0)
        self._random = np.random.default_rng(seed)

    def update(self, rows: pd.DataFrame, answers: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Count some more rows.

        Args:
            rows: Rows of the contract, of shape (rows, columns). A column that is not there counts as missing in each.
            answers: Of shape (rows,) or (rows, classes).
            labels: The truth as `Contract.labels` gives it, NaN where it is not known yet. May come alone and later, with no rows.

        Raises:
            ValueError: If there are not as many answers as rows.
        """
        table = np.asarray(answers, dtype="float64")
        table = table if table.ndim == 2 else table[:, None]
        if len(table) != len(rows) or (len(rows) and table.shape[1] != len(self.answers)):
            raise ValueError(f"answers of shape {np.shape(answers)} do not belong to {len(rows)} rows")
        for counts in self.labels.values():
            if labels is not None:
                counts.add_labels(np.asarray(labels, dtype="float64"))
        if not len(rows):
            return
        self.rows += len(rows)
        chosen, stay = self._draw(len(rows))
        for name, counts in self.columns.items():
            values = rows[name] if name in rows else pd.Series(np.full(len(rows), np.nan), rows.index)
            counts.add(values)
            some = values.iloc[chosen]
            some = levels(some, counts.column) if counts.edges is None else as_numbers(some)
            self.kept[name] = np.concatenate([self.kept[name], some])[stay]
        for counts, scores in zip(self.answers.values(), table.T, strict=True):
            counts.add_scores(scores)
        if self.confidence:
            self.confidence.add_scores(table.max(axis=1))
        time = self.profile["time"]
        if time is not None and time in rows:
            days = days_of(rows[time])
            for day, count in zip(*_counted(days), strict=True):
                known = day in self.days or len(self.days) < DAYS
                self.days[day if known else -1] = self.days.get(day if known else -1, 0) + count

    def _draw(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw a lot for each row; the rows with the smallest lots are kept, so each row has the same chance.

        Returns:
            Which of the new rows to look at, and which of the kept and these to keep.
        """
        lots = self._random.random(rows)
        full = len(self._lots) == RESERVOIR
        chosen = np.flatnonzero(lots < self._lots.max()) if full else np.arange(rows)
        if len(chosen) > RESERVOIR:
            chosen = np.sort(chosen[np.argpartition(lots[chosen], RESERVOIR)[:RESERVOIR]])
        together = np.concatenate([self._lots, lots[chosen]])
        stay = np.arange(len(together))
        if len(together) > RESERVOIR:
            stay = np.sort(np.argpartition(together, RESERVOIR)[:RESERVOIR])
        self._lots = together[stay]
        return chosen, stay


class Counts:
    """How often values fell into the bins of one column's profile, or had its names."""

    def __init__(self, column: Mapping[str, Any]) -> None:
        self.column = column
        self.edges = np.array(column["edges"], dtype="float64") if "edges" in column else None
        self.names = sorted(column.get("values", ()))
        size = len(self.names) if self.edges is None else len(self.edges)
        self.counts = np.zeros(size + 1, dtype="int64")
        self._units = np.zeros((2, size + 1), dtype="int64")
        self.missing = 0
        self.strange: dict[str, int] = {}
        self.nothing = np.empty(0, dtype="uint8" if self.edges is None else "float64")

    @property
    def known(self) -> int:
        return int(self.counts.sum())

    def add(self, values: pd.Series) -> None:
        """Count values of the contract's kind, of any type."""
        if self.edges is not None:
            self._add_numbers(as_numbers(values))
            return
        if is_flag(values, self.names):
            self._add_cells(np.bincount(flag_cells(values) + 1, minlength=len(self.counts) + 1))
            return
        codes, there = factorized(values)
        rows = np.bincount(codes + 1, minlength=len(there) + 1)
        places = pd.Index(self.names, dtype=object).get_indexer(pd.Index(there, dtype=object))
        places = np.where(places < 0, len(self.names), places)
        counts = np.bincount(places, rows[1:], minlength=len(self.counts)).astype("int64")
        self._add_cells(np.append(rows[0], counts))
        for place in np.flatnonzero(places == len(self.names)):
            self.strange[there[place]] = self.strange.get(there[place], 0) + int(rows[1 + place])
        if len(self.strange) > STRANGE:  # those that came most often stay
            self.strange = dict(sorted(self.strange.items(), key=lambda one: -one[1])[: STRANGE // 2])

    def _add_numbers(self, values: np.ndarray) -> None:
        assert self.edges is not None
        cells = bins(self.edges, values)  # NaN goes to the last bin, and is taken out again
        missing = int(np.isnan(values).sum())
        self.counts += np.bincount(cells, minlength=len(self.counts))
        self.counts[-1] -= missing
        self.missing += missing

    def _add_cells(self, counts: np.ndarray) -> None:
        self.missing += int(counts[0])
        self.counts += counts[1:]

    def add_scores(self, scores: np.ndarray) -> None:
        """Count answers; their sums and sums of squares by bin are kept as well."""
        known = scores[np.isfinite(scores)]
        self.missing += len(scores) - len(known)
        self._add_numbers(known)
        if "observed" in self.column:
            cells = bins(self.column["edges"], known)
            for place, values in enumerate((known, known * known)):
                units = np.bincount(cells, np.rint(values * UNIT), minlength=len(self.counts))
                self._units[place] += units.astype("int64")

    @property
    def sums(self) -> np.ndarray:
        """The sum of the answers in each bin, float64 of shape (bins,)."""
        return np.asarray(self._units[0] / UNIT)

    @property
    def squares(self) -> np.ndarray:
        """The sum of their squares."""
        return np.asarray(self._units[1] / UNIT)

    def add_labels(self, y: np.ndarray) -> None:
        """Count the truth where it is known."""
        known = y[np.isfinite(y)]
        if self.edges is not None:
            self._add_numbers(known)
            return
        place = np.array([self.names.index(name) for name in self.column["classes"]])
        self._add_cells(np.bincount(place[known.astype(int)] + 1, minlength=len(self.counts) + 1))


def _counted(days: np.ndarray) -> tuple[list[int], list[int]]:
    """The different days, and how many rows each has."""
    first = days.min()
    if days.max() - first < 100_000:
        counts = np.bincount(days - first)
        found = np.flatnonzero(counts)
        return (found + first).tolist(), counts[found].tolist()
    found, counts = np.unique(days, return_counts=True)
    return found.tolist(), counts.tolist()
