"""Whether rows and answers still look as they did when the model was made: counts against the profile in its bundle.

    window = Window(bundle.reference)
    for rows, answers in stream:
        window.update(rows, answers)
    drift = compare(bundle.reference, window)

A column has changed if a test says that chance does not make such a difference, and its size says that it matters. Both know how many
rows there are in reference and window, and how much rows of one day resemble each other. It has drifted if the change is larger than
the season explains (pipeline.season), and the model depends on the column.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.monitoring.drift_histograms import DriftError, Window
from copier_mlops.monitoring.drift_multivariate import Together, rows_together
from copier_mlops.monitoring.drift_statistics import Apart, adjusted
from copier_mlops.monitoring.drift_univariate import Compared
from copier_mlops.monitoring.performance_estimation import estimated
from copier_mlops.pipeline import season

__all__ = ["Drift", "DriftError", "Window", "compare"]

LEVEL = 0.01  # of the windows in which nothing drifts as many may look as if something did
FLOOR = 0.05  # what matters at least: 2.5 points of a half, 1.1 of a twentieth, 0.05 standard deviations


@dataclass(frozen=True)
class Drift:
    """What a window is like beside the profile.

    Attributes:
        rows, reference_rows: How many rows were compared.
        table: A line for each input (`what` is feature), answer and label: what, name, effect (Cohen's h, d or w, whichever tells
            most), limit, p (of all questions about this column together), adjusted (over all columns), changed, drifted (changed, and
            neither seasonal nor minor), seasonal (no more than weeks of the training differ), minor (it hardly moves the predictions),
            change and season (Cohen's h, and what the season explains of it), weight (share in what moves the predictions), impact
            (see `season.impact`), counted (not if it follows the calendar or is ignored), psi, missing_then, missing_now, unseen (share of values whose name the profile does
            not have), unseen_values (up to 5, separated by commas), why.
        together: Whether columns go together otherwise.
        estimated: What the metrics come to as long as labels are not there: metric, then, now, margin (of 99 %, for the rows
            drawn). None where that cannot be told.
        estimated_why: Why it cannot be told, or under which condition it holds.
    """

    rows: int
    reference_rows: int
    table: pd.DataFrame
    together: Together
    estimated: pd.DataFrame | None
    estimated_why: str

    @property
    def drifted(self) -> bool:
        """Whether anything that counts did."""
        return bool(self.table["drifted"].any()) or self.together.drifted

    @property
    def reasons(self) -> list[str]:
        """A sentence for each thing that drifted, what the model depends on most first."""
        lines = self.table[self.table["drifted"]].sort_values(["impact", "effect"], ascending=False, kind="stable")
        return [*lines["why"], *([self.together.why] if self.together.drifted else [])]

    @property
    def notes(self) -> list[str]:
        """A line for all seasonal changes, and one for all changes that hardly matter to the model."""
        named = (
            ("seasonal", "no more than weeks of the training differ from those before them"),
            ("minor", "by more than the season explains, but that hardly moves the predictions"),
        )
        found = []
        for kind, what in named:
            names = [str(name) for name in self.table.loc[self.table[kind], "name"]]
            if names:
                found.append(
                    f"{len(names)} of {len(self.table)} columns differ from the reference, {what}: {', '.join(names)}"
                )
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-ready: None where a number is not defined."""
        return {
            "drifted": self.drifted,
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "reasons": self.reasons,
            "notes": self.notes,
            "table": _records(self.table),
            "together": {key: _plain(value) for key, value in vars(self.together).items()},
            "estimated": None if self.estimated is None else _records(self.estimated),
            "estimated_why": self.estimated_why,
        }


def compare(
    profile: Mapping[str, Any],
    window: Window,
    level: float = LEVEL,
    floor: float = FLOOR,
    ignored: Collection[str] = (),
) -> Drift:
    """Hold a window against the profile that it was counted by.

    Args:
        profile: The reference of a bundle.
        window: Rows of production, none or many.
        level: The probability of an alarm where nothing drifts: two thirds of it for the columns one by one, adjusted for their number
            (Benjamini and Hochberg 1995), a third for columns together.
        floor: Effects up to here do not matter, however many rows show them; twice as much where many bins changed a little.
        ignored: Columns that are reported and do not count, as those that follow the calendar.

    Returns:
        Where there are too few rows nothing drifted, and the sentences say so.

    Raises:
        ValueError: If the window was counted by another profile.
    """
    if window.profile is not profile and window.profile != profile:
        raise ValueError("the window was counted by another profile")
    trained = profile.get("training", {}).get("columns", {})
    asked, answered = (Apart.of(profile[days], window.days) for days in ("days", "answered_days"))
    columns = [
        *(
            Compared("feature", name, counts, asked, window.kept[name], trained.get(name))
            for name, counts in window.columns.items()
        ),
        *(Compared("answer", name, counts, answered) for name, counts in window.answers.items()),
        *(Compared("label", name, counts, answered) for name, counts in window.labels.items()),
    ]
    units = {name: column["calendar"] for name, column in profile["columns"].items() if "calendar" in column}
    left = dict.fromkeys(ignored, "is ignored")
    left |= {name: f"follows the calendar ({unit})" for name, unit in units.items()}
    asides = [left.get(column.name) if column.what == "feature" else None for column in columns]
    judged = [column.judged(floor) for column in columns]
    counted = [best is not None and aside is None for best, aside in zip(judged, asides, strict=True)]
    sure = np.full(len(columns), np.nan)
    sure[counted] = adjusted(np.array([best.p for best, one in zip(judged, counted, strict=True) if one and best]))
    alone, lines = level * 2 / 3, []
    weights = {"feature": profile.get("weights", {})}
    for column, best, aside, p in zip(columns, judged, asides, sure.tolist(), strict=True):
        changed = bool(p <= alone and best is not None and best.matters)
        change, most = column.change(), season.limit(profile, column.what, column.name, window.days)
        unknown = season.UNKNOWN if weights["feature"] else np.nan
        weight = weights[column.what].get(column.name, np.nan) if column.what in weights else unknown
        impact = season.impact(weight, change, most)
        explained = changed and not column.broken(season.limit(profile, "missing", column.name, window.days), most)
        kinds = {"seasonal": explained and change <= most}
        kinds |= {"minor": explained and not kinds["seasonal"] and bool(weights["feature"]) and impact < season.MINOR}
        drifted = changed and not any(kinds.values())
        line = {"what": column.what, "name": column.name, "effect": np.nan, "limit": np.nan, "p": np.nan}
        line |= {key: getattr(best, key) for key in ("effect", "limit", "p")} if best else {}
        line |= {"adjusted": p, "changed": changed, "drifted": drifted, **kinds}
        line |= {
            "change": change,
            "season": most,
            "weight": weight,
            "impact": impact,
            "counted": aside is None,
            **column.facts(),
        }
        lines.append(line | {"why": f"{column.name}: {column.why(alone, p, changed, aside)}"})
        if column.what == "feature" and any(kinds.values()):
            left[column.name] = "changed as the season does, or hardly matters"
    together = rows_together(profile, window, asked, left, level / 3)
    return Drift(window.rows, profile["rows"], pd.DataFrame(lines), together, *estimated(window))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _plain(value) for key, value in line.items()} for line in table.to_dict("records")]
