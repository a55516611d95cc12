"""Columns one by one: whether what is in one is what was in it, and what people are told about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from copier_mlops.bundle.reference import SELDOM
from copier_mlops.monitoring.drift_histograms import ENOUGH, Counts
from copier_mlops.monitoring.drift_statistics import NORMAL, Apart, Asked, all_bins, middle, psi, shares, upper
from copier_mlops.pipeline.season import change

ELSEWHERE = 2.5  # Cohen's h from which on nine of ten values lie where the reference has hardly any
GONE = 0.05  # share of values that are missing beside those of the reference
STRANGE = 0.01  # share of values whose name neither reference nor training have
FREQUENT = 0.05  # share of a name in the reference, or more, whose absence is a fault
EXPECTED = 20  # occurrences that the window would have of it, or more
CHANCE = 0.001  # of differences that chance makes as many lie above the limit


@dataclass(frozen=True, order=True)
class _Told:
    """The answer to one question; of several the largest tells most."""

    matters: bool  # the effect is above its limit
    z: float
    kind: str
    place: int
    effect: float
    limit: float
    p: float  # of such an answer to any of the column's questions


class Compared:
    """What is asked about one column, and what people are told about it.

    Args:
        what: `feature`, `answer` or `label`.
        name: Of the column.
        counts: Of the window, with the profile.
        apart: In time.
        kept: Some of the values, where they are numbers.
        trained: What the whole training window holds, as `season.training` gives it.
    """

    def __init__(
        self,
        what: str,
        name: str,
        counts: Counts,
        apart: Apart | None,
        kept: np.ndarray | None = None,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        self.what, self.name, self.counts, self.apart, self.kept = what, name, counts, apart, kept
        self.trained = trained or {}
        self.then, self.now, self.edges = counts.column, counts.counts, counts.edges
        before = self.then["counts"] if "counts" in self.then else self._named()
        self.before = np.array(before)
        self.n, self.m = int(self.before.sum()), counts.known
        self.rows = self.n + self.then["missing"], self.m + counts.missing
        self.told: list[_Told] = []

    def _named(self) -> list[int]:
        return [*(self.then["values"][name] for name in self.counts.names), self.then["other"]]

    def change(self) -> float:
        """Return the largest Cohen's h against the reference, as `season.change` has it for weeks of the training."""
        ordered = self.edges is not None
        return change(self.before, self.then["missing"], self.now, self.counts.missing, ordered)

    def broken(self, most: float, season: float = np.inf) -> bool:
        """Return whether the values look like a fault of their source: elsewhere, missing, under another name, or no longer there.

        A frequent name that no longer occurs may be another one now, whose rows break the contract and so are not in the log.

        Args:
            most: change of the share of missing values that the season explains.
            season: change of the column that the season explains.
        """
        if self.change() >= ELSEWHERE:
            return True
        gaps = self.counts.missing / max(self.rows[1], 1) - self.then["missing"] / max(self.rows[0], 1)
        known, present = np.array([self.n]), np.array([self.m])
        unexplained = not change(known, self.then["missing"], present, self.counts.missing, ordered=False) <= most
        if gaps >= GONE and unexplained:
            return True
        if self.edges is None and self.n and not self.change() <= season:
            share = self.before[:-1] / self.n
            if ((share >= FREQUENT) & (share * self.m >= EXPECTED) & (np.array(self.now)[:-1] == 0)).any():
                return True
        names = set(self.counts.strange) - set(self.trained.get("names", ()))
        return self.edges is None and sum(self.counts.strange[name] for name in names) >= STRANGE * max(self.m, 1)

    def facts(self) -> dict[str, Any]:
        """What the table says beside the test."""
        known = min(self.n, self.m) > 0
        return {
            "psi": psi(self.before, self.now) if known else np.nan,
            "missing_then": self.then["missing"] / self.rows[0] if self.rows[0] else np.nan,
            "missing_now": self.counts.missing / self.rows[1] if self.rows[1] else np.nan,
            "unseen": self.now[-1] / self.m if self.m and self.edges is None else np.nan,
            "unseen_values": ", ".join(self._strange()),
        }

    def judged(self, floor: float) -> _Told | None:
        """The answer that tells most, with the probability of all; None if there are too few rows to ask anything."""
        if min(self.rows) < ENOUGH:
            return None
        asked, more = self._asked()
        questions = sum(len(one.z) for one in asked) + more
        for one in asked:
            sides, least = (1, 2 * floor) if one.kind == "all" else (2, floor)
            limit = max(least, one.far(NORMAL.inv_cdf(1 - CHANCE / sides / questions)))
            for place, effect, z in zip(one.place.tolist(), one.effect.tolist(), one.z.tolist(), strict=True):
                p = min(1.0, questions * sides * upper(z))
                self.told.append(_Told(effect > limit, z, one.kind, place, effect, limit, p))
        self.told.sort(reverse=True)
        return self.told[0] if self.told else _Told(False, 0.0, "all", 0, 0.0, floor, 1.0)

    def _asked(self) -> tuple[list[Asked], int]:
        """All questions, and how many more there might have been."""
        alike, apart, n, m = self.then["alike"], self.apart, self.n, self.m
        gaps = shares(
            "missing",
            then=np.array([self.then["missing"]]),
            of_then=self.rows[0],
            now=np.array([self.counts.missing]),
            of_now=self.rows[1],
            alike=alike["missing"],
            apart=apart,
        )
        asked: list[Asked | None] = [gaps]
        more = 0
        if min(n, m) >= ENOUGH:
            before, now = self.before, self.now
            expected = (before + now) / (n + m)
            few = expected * min(n, m) < SELDOM
            if self.edges is None:
                # A name is kept for having many rows, so only one that was sure to be stands for itself.
                few |= (expected * n < 3 * SELDOM) | (np.arange(len(few)) == len(few) - 1)
            asked.append(all_bins(before, now, few, alike["cells"], apart))
            if self.edges is not None:
                below, later = np.cumsum(self.before)[:-1], np.cumsum(self.now)[:-1]
                new = np.flatnonzero(np.diff(below + later, prepend=0))  # edges with nothing between them ask the same
                cuts = shares(
                    "cut", then=below[new], of_then=n, now=later[new], of_now=m, alike=alike["cuts"], apart=apart
                )
                asked += [replace(cuts, place=new[cuts.place]), middle(self.before, self.now, alike["cuts"], apart)]
            else:
                seldom = self.then["seldom"]  # rows that had no name if they came anew
                part = SELDOM if seldom else 1  # so many of them come and go together, with their name
                strange = shares(
                    "cell",
                    then=np.array([seldom / part]),
                    of_then=n // part,
                    now=now[-1:],
                    of_now=m,
                    alike=alike["cells"],
                    apart=apart,
                )
                asked.append(replace(strange, place=strange.place + len(self.counts.names)))
                before, now = before[:-1], now[:-1]
                more = self.then["distinct"] - len(self.counts.names)  # the names that are kept were not chosen by lot
            asked.append(shares("cell", then=before, of_then=n, now=now, of_now=m, alike=alike["cells"], apart=apart))
        return [one for one in asked if one is not None and len(one.z)], more

    def why(self, level: float, p: float, drifted: bool, aside: str | None) -> str:
        """The sentence for people.

        Args:
            level: From which on something is certain.
            p: The probability, adjusted for the other columns.
            drifted: What became of it.
            aside: Why the column does not count, if it does not.
        """
        certain = [one for one in self.told if one.p <= level]
        others = [one for one in certain if one.kind != "missing"]
        gaps, come = self.counts.missing / max(self.rows[1], 1), self.then["missing"] / max(self.rows[0], 1)
        parts = [f"missing in {_percent(gaps)} of the rows, in the reference in {_percent(come)}"]
        parts = parts if len(certain) > len(others) else []
        if others:
            parts += self._names(others) if self.edges is None else self._numbers(others[0], self.edges)
        says = "; ".join(parts)
        if min(self.rows) < ENOUGH:
            side = "the reference has" if self.rows[0] < ENOUGH <= self.rows[1] else "there are"
            says = f"{side} only {min(self.rows)} rows: nothing can be told"
        elif not says and min(self.n, self.m) < ENOUGH:
            says = f"only {min(self.n, self.m)} values in the {'reference' if self.n < self.m else 'window'}: nothing can be told about them"
        if aside:
            return f"{aside} and does not count; {says or 'as in the reference'}"
        if certain and not drifted:
            return f"{says}; too little to matter" if p <= level else "as in the reference, as far as the rows tell"
        return says or "as in the reference, as far as the rows tell"

    def _strange(self) -> list[str]:
        """The names that came most often among those that the profile does not have."""
        most = sorted(self.counts.strange.items(), key=lambda one: (-one[1], one[0]))[:5]
        return [name if len(name) <= 40 else name[:37] + "..." for name, _ in most]

    def _names(self, others: Sequence[_Told]) -> list[str]:
        """Names that were not there before, and those whose shares moved most."""
        names, parts = self.counts.names, []
        then, now = self.before / self.n, self.now / self.m
        cells = [one.place for one in others if one.kind == "cell"]
        if len(names) in cells:
            how = "hardly ever has" if self.then["seldom"] else "does not have"
            trained = [name for name in self._strange() if name in self.trained.get("names", ())]
            more = f"; the training rows have {', '.join(trained)}" if trained else ""
            parts.append(
                f"{_percent(now[-1])} have values that the reference {how} ({', '.join(self._strange())}){more}"
            )
        parts += [
            f"{names[place]} is {_percent(now[place])} of the values, in the reference {_percent(then[place])}"
            for place in [place for place in cells if place < len(names)][:2]
        ]
        if not parts:
            place = int(np.abs(then - now)[:-1].argmax())
            moved = f"{names[place]} from {_percent(then[place])} to {_percent(now[place])}"
            parts.append(f"many values moved a little, {moved}")
        return parts

    def _numbers(self, best: _Told, edges: np.ndarray) -> list[str]:
        """Where most of the values lie, or what else moved, and how many lie outside of anything seen."""
        then, now, place = self.before / self.n, self.now / self.m, best.place
        outside = [f"{_percent(now[at])} lie {side} the reference{self._also(side)}" for at, side in ((0, "below"), (-1, "above"))
                   if now[at] > 0.005 and then[at] == 0]  # fmt: skip
        most, later = _most(then, edges), _most(now, edges)
        if self.kept is not None and max(now[0], now[-1]) > 0.1:  # bins do not tell how far out
            later = np.quantile(self.kept[~np.isnan(self.kept)], [0.1, 0.9])
        far = np.abs(later - most).max() > 0.05 * (most[1] - most[0])
        if far and (best.kind != "cell" or outside):
            return [f"most values are {_range(*later)}, in the reference {_range(*most)}", *outside]
        if best.kind == "cut" and place > 0:
            where, share, before = f"{_number(edges[place])} or less", now[: place + 1].sum(), then[: place + 1].sum()
        else:
            place = place if best.kind in ("cell", "cut") else int(np.abs(then - now).argmax())
            where, share, before = self._bin(place, edges), now[place], then[place]
        return [f"{where} is {_percent(share)} of the values, in the reference {_percent(before)}", *outside]

    def _also(self, side: str) -> str:
        """Return the share of training rows that lies outside of the reference, and their range."""
        if not self.trained:
            return ""
        share, ends = self.trained[side], _range(self.trained["low"], self.trained["high"])
        return f" (so do {_percent(share)} of the training rows, most of which lie in {ends})"

    @staticmethod
    def _bin(place: int, edges: np.ndarray) -> str:
        if place == 0:
            return f"less than {_number(edges[0])}"
        return f"more than {_number(edges[-1])}" if place == len(edges) else _range(edges[place - 1], edges[place])


def _most(shares: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Between which values eight of ten lie, as far as bins tell."""
    return np.asarray(np.interp([0.1, 0.9], np.cumsum(shares)[:-1], edges))


def _range(low: float, high: float) -> str:
    ends = _number(low), _number(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _number(value: float) -> str:
    if abs(value) < 1e-300:  # the neighbour of 0
        return "0"
    if not 1000 <= abs(value) < 1e15:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) < 10_000 else f"{float(f'{value:.3g}'):,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
