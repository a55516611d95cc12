"""Late labels and the predictions that they belong to: each label counts once, or is set aside with a reason.

A label names a prediction (`prediction_id`, as the service returned it) or the contract's id. An id may have been answered
several times. Of these answers the newest that was there before the label is the one that the label judges, and it alone counts:
one truth says something about one question, and counted n times it would make intervals too narrow, in favour of whoever asks often.

Predictions come as a stream. What is kept of them are the rows that a label belongs to; of a label without a prediction there
are some 50 bytes.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Column, Contract, as_text
from copier_mlops.contract.validation import check_values, fingerprints, rows_of

PREDICTION, LABELLED_AT = "prediction_id", "labelled_at"

REASONS = {
    "no_id": "names neither a prediction nor an id",
    "no_value": "has no value yet",
    "wrong_value": "has a value that the contract does not allow",
    "no_time": f"has a {LABELLED_AT} that is no time",
    "future": "is from the future",
    "before_prediction": "is older than the answer that it would judge",
    "repeated": "says again what another says",
    "corrected": "was corrected by a newer one",
    "contradictory": "contradicts another, and no time says which of them is right",
    "outside_window": "belongs to an answer outside of the window",
    "unknown": "belongs to no answer in the log",
}
"""Why a label is not counted, in the order in which it is asked."""

HARMLESS = frozenset({"no_value", "repeated", "corrected", "outside_window"})
"""Reasons for which nobody has to do anything."""

NO_TIME = np.iinfo("int64").min
IN_TIME = ["at", "_key", "prediction"]  # the key of an id, since a prediction has another name in each replay
SPARE = 50_000  # answers that are kept beside those that count, until the older ones are dropped


@dataclass(frozen=True)
class Joined:
    """Answers with their truth, and what became of all labels.

    Attributes:
        rows: A line for each label that counts, in the order of time: the columns of the predictions, `label` (the target as a
            number) and `labelled_at`.
        labels: How many labels there were.
        reasons: How many are not counted, by the keys of REASONS.
        wrong: The same of wrong values, by the rule that they break.
        answered: How many answers in the window the labels belong to, those that were given again included.
    """

    rows: pd.DataFrame
    labels: int
    reasons: dict[str, int]
    wrong: dict[str, int] = field(default_factory=dict)
    answered: int = 0


class Labels:
    """Takes labels, then the predictions of a log, then gives what belongs together.

    Args:
        contract: Names the id and the target, and says what a target may be.
        since, until: The window: answers with since <= at <= until are judged.
        now: What is later is from the future.
        tolerance: By how much clocks may differ.
    """

    def __init__(
        self,
        contract: Contract,
        since: pd.Timestamp,
        until: pd.Timestamp,
        now: pd.Timestamp,
        tolerance: dt.timedelta = dt.timedelta(minutes=5),
    ) -> None:
        self.contract = contract
        self._since, self._until = _microseconds(since), _microseconds(until)
        self._now, self._tolerance = _microseconds(now), int(tolerance.total_seconds() * 1e6)
        self.count = 0
        self._reasons: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._pieces: list[pd.DataFrame] = []
        self._kept: list[pd.DataFrame] = []  # answers that have a label; the first are those that count so far
        self._extra = 0
        self._answered = 0
        self._table: pd.DataFrame | None = None
        self._places: list[tuple[np.ndarray, np.ndarray]] = []

    # ---------------------------------------------------------------------------------------------- Labels

    def add(self, frame: pd.DataFrame) -> None:
        """Take the next labels.

        Args:
            frame: The target, PREDICTION or the contract's id or both, perhaps LABELLED_AT; as they were written. Personal ids
                are pseudonyms, as they are in the log. Of a label that names both, the prediction counts.
        """
        assert self._table is None, "all labels come before the first prediction"
        frame = frame.reset_index(drop=True)
        self.count += len(frame)
        checked = check_labels(frame, self.contract)
        self._wrong.update(checked.wrong)
        reason = checked.reason
        late = (reason == "") & (checked.time > self._now + self._tolerance)
        reason[late] = "future"
        # Its answer was there before it, and so before the window.
        early = (reason == "") & (checked.time != NO_TIME) & (checked.time < self._since - self._tolerance)
        reason[early] = "outside_window"
        self._count(reason)
        good = reason == ""
        columns = {"by_id": checked.by_id, "key": checked.key, "value": checked.value, "time": checked.time}
        self._pieces.append(pd.DataFrame({name: values[good] for name, values in columns.items()}))

    def _count(self, reasons: np.ndarray) -> None:
        self._reasons.update(Counter(reasons[reasons != ""].tolist()))

    def _settled_labels(self) -> pd.DataFrame:
        """One label for each name, made when the first prediction comes."""
        if self._table is not None:
            return self._table
        empty = {"by_id": np.empty(0, bool), "key": np.empty(0, "uint64"), "value": np.empty(0)}
        whole = pd.concat([pd.DataFrame({**empty, "time": np.empty(0, "int64")}), *self._pieces], ignore_index=True)
        self._pieces = []
        keeps = np.zeros(len(whole), bool)
        for kind in (False, True):
            places = np.flatnonzero(whole["by_id"] == kind)
            key, value, time = (whole[name].to_numpy()[places] for name in ("key", "value", "time"))
            reason = settle(key, value, time, np.zeros(len(places), "int64"))
            self._count(reason)
            keeps[places[reason == ""]] = True
        table = whole[keeps].reset_index(drop=True)
        self._table = table.assign(early=False, outside=False)
        for kind in (False, True):
            places = np.flatnonzero(table["by_id"] == kind)
            keys = table["key"].to_numpy()[places]
            order = np.argsort(keys, kind="stable")
            self._places.append((keys[order], places[order]))
        return self._table

    # ----------------------------------------------------------------------------------------- Predictions

    def take(self, predictions: pd.DataFrame) -> np.ndarray:
        """Look for the labels of some predictions, in any order, also of those outside the window.

        Args:
            predictions: `prediction`, `id`, `at` (datetime64[us, UTC]), and what else shall stand in `Joined.rows`.

        Returns:
            For each prediction its label as far as it is known by now, NaN where there is none or where it does not count, shape
            (n,): an answer that is given again later may still take the place of this one.
        """
        table = self._settled_labels()
        predictions = predictions.reset_index(drop=True)
        at = _microseconds_of(predictions["at"])
        found = np.full(len(predictions), np.nan)
        names = prediction_keys(predictions["prediction"])
        ids = id_keys(predictions["id"], self.contract)
        inside = (at >= self._since) & (at <= self._until)
        pairs = []
        for (keys, places), (wanted, there) in zip(self._places, (names, ids), strict=True):
            if len(keys) == 0:
                continue
            spot = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            rows = np.flatnonzero((keys[spot] == wanted) & there)
            pairs.append((places[spot[rows]], rows))
        if not pairs:
            return found
        label = np.concatenate([one for one, _ in pairs])
        row = np.concatenate([one for _, one in pairs])
        time = table["time"].to_numpy()[label]
        early = (time != NO_TIME) & (time < at[row] - self._tolerance)
        before = at[row] < self._since
        for name, which in (("early", early), ("outside", ~early & before)):
            marks = table[name].to_numpy(copy=True)
            marks[label[which]] = True
            table[name] = marks
        fits = ~early & ~before  # one after the window is not judged, but takes the place of an older one
        label, row = label[fits], row[fits]
        if len(row):
            judged = inside[row]
            found[row[judged]] = table["value"].to_numpy()[label[judged]]
            self._answered += len(np.unique(row[judged]))
            self._kept.append(predictions.iloc[row].assign(_label=label))
            self._extra += len(row)
            if self._extra > max(SPARE, len(self._kept[0])):
                self._drop_older()
        return found

    def _drop_older(self) -> None:
        """Keep the newest answer of each label: that is the one which it judges."""
        if not self._kept:
            return
        whole = pd.concat(self._kept, ignore_index=True)
        whole = whole.sort_values(["_label", "at", "prediction"], kind="stable")
        self._kept = [whole.drop_duplicates("_label", keep="last")]
        self._extra = 0

    def beside(self) -> Labels:
        """The same labels, all of which have come, for other answers to the same questions: those of a model in the shadow."""
        other = copy.copy(self)
        other._table = self._settled_labels().copy()
        other._reasons, other._wrong = Counter(), Counter()
        other._kept, other._extra, other._answered = [], 0, 0
        return other

    def kept(self) -> pd.DataFrame:
        """The predictions that were taken and have a label, of each label the newest, those of after the window included."""
        self._drop_older()
        return self._kept[0].drop(columns="_label") if self._kept else self._empty()

    # -------------------------------------------------------------------------------------------- Together

    def joined(self) -> Joined:
        """What belongs together, when all predictions were seen."""
        table = self._settled_labels()
        self._drop_older()
        kept = self._kept[0].reset_index(drop=True) if self._kept else None
        reason = np.full(len(table), "unknown", dtype=object)
        for name, why in (("early", "before_prediction"), ("outside", "outside_window")):
            reason[table[name].to_numpy()] = why
        if kept is None:
            self._count(reason)
            return Joined(self._empty(), self.count, *self._counted(), self._answered)
        after = _microseconds_of(kept["at"]) > self._until
        reason[kept["_label"].to_numpy()[after]] = "outside_window"
        kept = kept[~after].reset_index(drop=True)
        label = kept["_label"].to_numpy()
        value, time = (table[name].to_numpy()[label] for name in ("value", "time"))
        # An id that was labelled both by its prediction and by itself, or in two of its answers, still counts once.
        key, there = id_keys(kept["id"], self.contract)
        key = np.where(there, key, np.arange(len(key), dtype="uint64"))
        order = np.empty(len(kept), "int64")
        kept = kept.assign(_key=key)
        order[kept.sort_values(IN_TIME, kind="stable").index.to_numpy()] = np.arange(len(kept))
        reason[label] = again = settle(key, value, time, order)
        self._count(reason)
        moments = pd.Series(time, kept.index).mask(time == NO_TIME).astype("Int64")
        rows = kept.assign(
            label=value, **{LABELLED_AT: pd.to_datetime(moments, unit="us", utc=True).astype("datetime64[us, UTC]")}
        )
        rows = rows[again == ""].sort_values(IN_TIME, kind="stable", ignore_index=True)
        rows = rows.drop(columns=["_label", "_key"])
        return Joined(rows, self.count, *self._counted(), self._answered)

    def _counted(self) -> tuple[dict[str, int], dict[str, int]]:
        reasons = {name: self._reasons[name] for name in REASONS if self._reasons[name]}
        return reasons, dict(sorted(self._wrong.items()))

    @staticmethod
    def _empty() -> pd.DataFrame:
        moments = pd.Series(dtype="datetime64[us, UTC]")
        return pd.DataFrame({"prediction": [], "id": [], "at": moments, "label": np.empty(0), LABELLED_AT: moments})


# ------------------------------------------------------------------------------------------------------- Labels


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Labels as numbers, each array of shape (n,).

    Attributes:
        by_id: Whether a label names an id, and not a prediction.
        key: uint64 hash of what it names.
        value: The target as `Contract.labels` gives it.
        time: Microseconds since 1970 in UTC; NO_TIME where there is none.
        reason: Why it cannot be counted, whatever the log has; empty where it can.
        wrong: How many values break which rule.
    """

    by_id: np.ndarray
    key: np.ndarray
    value: np.ndarray
    time: np.ndarray
    reason: np.ndarray
    wrong: dict[str, int]


def check_labels(frame: pd.DataFrame, contract: Contract) -> Checked:
    """Hold labels against the contract, each for itself.

    Args:
        frame: As `Labels.add` takes it, numbered from 0.
        contract: Names the id and the target, and says what a target may be.
    """
    count = len(frame)
    reason = np.full(count, "", dtype=object)
    key, named = np.zeros(count, "uint64"), np.zeros(count, bool)
    if PREDICTION in frame and contract.id != PREDICTION:
        key, named = prediction_keys(frame[PREDICTION])
    by_id = ~named
    if contract.id in frame:
        ids, there = id_keys(frame[contract.id], contract)
        key, named = np.where(named, key, ids), named | there
    reason[~named] = "no_id"
    target = contract[contract.target]
    typed, violations = check_values(frame[contract.target], target, repeats=True)
    wrong: Counter[str] = Counter()
    for violation in violations:
        for row in violation.rows:
            if reason[row] == "":
                reason[row] = "wrong_value"
                wrong[violation.broken_rule] += 1
    reason[(reason == "") & typed.isna().to_numpy()] = "no_value"
    time = np.full(count, NO_TIME)
    if LABELLED_AT in frame:
        moments, unread = check_values(frame[LABELLED_AT], Column(LABELLED_AT, "timestamp", nullable=True))
        time = _microseconds_of(moments)
        rows = rows_of(unread)
        reason[rows] = np.where(reason[rows] == "", "no_time", reason[rows])
    return Checked(by_id=by_id, key=key, value=contract.labels(typed), time=time, reason=reason, wrong=dict(wrong))


def prediction_keys(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """A hash for each prediction's name, whichever way its uuid is written, and whether there is one."""
    texts = as_text(values.mask(values.isin([""])))
    texts = texts.str.replace("-", "", regex=False).str.lower() if texts.notna().any() else texts
    return fingerprints(texts), texts.notna().to_numpy()


def id_keys(values: pd.Series, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """A hash for each id, whichever way its number is written, and whether there is one that can be read."""
    column = contract[contract.id]
    plain = dataclasses.replace(column, nullable=True, minimum=None, maximum=None, allowed=None, pattern=None)
    typed, _ = check_values(values.reset_index(drop=True), plain, repeats=True)
    there = typed.notna().to_numpy()
    if column.kind == "string":
        return fingerprints(typed), there
    numbers = _microseconds_of(typed) if column.kind == "timestamp" else typed.to_numpy("float64")
    return pd.util.hash_array(numbers), there


def settle(key: np.ndarray, value: np.ndarray, time: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Choose one of the labels that name the same.

    Where all say the same, the newest stays. Where they do not, the newest is right if each has a time and no other of that very time
    says something else; else nobody knows.

    Args:
        key, value, time: What they name, what they say, and when (NO_TIME where that is not known), of shape (n,).
        order: Decides between labels of the same time.

    Returns:
        For each label `repeated`, `corrected` or `contradictory`; empty for those that stay. Objects of shape (n,).
    """
    reason = np.full(len(key), "", dtype=object)
    if len(key) == 0:
        return reason
    by = np.lexsort((order, time, key))
    key, value, time = key[by], value[by], time[by]
    begins = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    group = np.cumsum(np.r_[True, key[1:] != key[:-1]]) - 1
    last = np.r_[begins[1:], len(key)] - 1
    agrees = value == value[last][group]
    alike = np.logical_and.reduceat(agrees, begins)
    timed = time[begins] != NO_TIME
    unclear = np.logical_or.reduceat(~agrees & (time == time[last][group]), begins)
    nobody_knows = (~alike & (~timed | unclear))[group]
    found = np.where(nobody_knows, "contradictory", np.where(agrees, "repeated", "corrected")).astype(object)
    found[last[~nobody_knows[last]]] = ""
    reason[by] = found
    return reason


def _microseconds(moment: pd.Timestamp) -> int:
    return int(_microseconds_of(pd.Series([moment]))[0])


def _microseconds_of(moments: pd.Series) -> np.ndarray:
    """Microseconds since 1970; NO_TIME where there is none."""
    return moments.astype("datetime64[us, UTC]").to_numpy("datetime64[us]").astype("int64")


def waits(answers: int, joined: Joined, delays: Sequence[float] = (0.5, 0.9)) -> dict[str, float | None]:
    """How many answers wait for their truth, and how long it took to come.

    Args:
        answers: In the window.
        joined: What has come.
        delays: Quantiles.

    Returns:
        `answers`, `share`, and `days_50`, `days_90` from the answer to its label; None where labels carry no time.
    """
    rows = joined.rows
    days = (rows[LABELLED_AT] - rows["at"]).dt.total_seconds().dropna().clip(lower=0) / 86_400
    waiting = max(0, answers - joined.answered)
    found: dict[str, float | None] = {"answers": waiting, "share": waiting / answers if answers else None}
    for share in delays:
        found[f"days_{share * 100:.0f}"] = float(days.quantile(share)) if len(days) else None
    return found
