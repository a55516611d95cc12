"""What batch notes in the prediction log: of every part some rows, drawn at random, and of a small part all of them.

A part names the rows that are noted in `prediction_id`, and they are noted when the part is there: so a run that goes on
notes none twice, and one that is killed just then leaves at most the notes of that part out.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import REASON, check_rows
from copier_mlops.data.prediction_log import PredictionLog
from copier_mlops.serving.bundle_loader import records
from copier_mlops.settings import Settings

PREDICTION = "prediction_id"


class Notes:
    """The prediction log of a run.

    Args:
        contract: Of the bundle that answers.
        settings: Where the log is, and how many rows of a part it gets.
    """

    def __init__(self, contract: Contract, settings: Settings) -> None:
        self._contract, self._most = contract, settings.log_batch_rows
        self._random = np.random.default_rng()
        self._log = PredictionLog(settings.prediction_log, settings.log_flush_seconds) if self._most else None

    def named(self, answers: Sequence[pa.Table]) -> list[pa.Table]:
        """Draw rows of a part, of those that have an answer, and give them a name.

        Args:
            answers: The part, in pieces.

        Returns:
            The same with `prediction_id`, empty where a row is not drawn.
        """
        places = [np.flatnonzero(one["score"].is_valid().to_numpy()) for one in answers]
        count = sum(map(len, places))
        drawn = np.zeros(count, dtype=bool)
        drawn[self._random.choice(count, min(count, self._most), replace=False)] = True
        ends = np.cumsum([len(one) for one in places])
        return [
            _with_names(one, where[mine])
            for one, where, mine in zip(answers, places, np.split(drawn, ends[:-1]), strict=True)
        ]

    def add(self, frames: Sequence[pd.DataFrame], answers: Sequence[pa.Table]) -> None:
        """Note the rows of a part that have a name.

        Args:
            frames: The rows as they were asked, masked.
            answers: The answers to them, as `named` gave them.
        """
        if self._log is None:
            return
        for frame, answer in zip(frames, answers, strict=True):
            places = np.flatnonzero(answer[PREDICTION].is_valid().to_numpy())
            self._log.add([*entries(self._contract, frame.iloc[places], answer.take(pa.array(places)))])

    def close(self, say: Callable[[str], None]) -> None:
        """Write what was added, and say what could not be written."""
        if self._log is None:
            return
        self._log.close()
        if self._log.dropped:
            say(f"{self._log.dropped:,} answers are not in the prediction log: it cannot be written to, or is too slow")


def _with_names(answers: pa.Table, places: np.ndarray) -> pa.Table:
    names = np.full(answers.num_rows, None, dtype=object)
    names[places] = [uuid.uuid4().hex for _ in places]
    return answers.add_column(answers.schema.get_field_index(REASON), PREDICTION, pa.array(names, pa.string()))


def entries(contract: Contract, frame: pd.DataFrame, answers: pa.Table) -> Iterator[bytes]:
    """The entries of rows that have an answer, as JSON; values are those that the model saw.

    Args:
        contract: Of the bundle that answered.
        frame: The rows, masked.
        answers: A line for each, with its name.
    """
    good = check_rows(frame, contract, labelled=False, repeats=True).good
    ids, names, versions = (answers[name].to_pylist() for name in (contract.id, PREDICTION, "version"))
    said = answers.drop_columns([contract.id, PREDICTION, "version", REASON]).to_pandas()
    inputs = pd.DataFrame({column.name: _plain(good[column.name], column.kind) for column in contract.without_target()})
    inputs[contract.id] = pd.Series(ids, index=inputs.index, dtype=object)
    at, encode = dt.datetime.now(dt.UTC).isoformat(), msgspec.json.Encoder().encode
    lines = zip(names, ids, versions, records(inputs), records(said), strict=True)
    for prediction, name, version, row, answer in lines:
        entry = {"prediction": prediction, "id": name, "version": version, "at": at, "way": "batch"}
        yield encode({**entry, "inputs": row, "answer": answer})


def _plain(values: pd.Series, kind: str) -> pd.Series:
    """A column as JSON has it."""
    missing = values.isna().to_numpy()
    if kind == "timestamp":
        moments = values.dt.tz_convert(None).to_numpy("datetime64[us]")
        values = pd.Series(np.datetime_as_string(moments, timezone="UTC"), values.index)
    elif kind == "boolean":
        values = pd.Series(values.fillna(0).to_numpy() != 0, values.index)
    return values.astype(object).mask(missing, None)
