"""Where labels come from: a file, a folder of files or an object store, in whatever form; and the project's own folder of them.

A label names its prediction (`prediction_id`) or the contract's id, has the contract's target, and perhaps `labelled_at`, the
moment from which it was known. Files of a folder need not have the same columns. One that is broken is told, and the others are read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from copier_mlops import ProjectError
from copier_mlops.contract.contract import Contract, as_text, mask
from copier_mlops.contract.validation import check_values
from copier_mlops.data import readers, tables
from copier_mlops.data.readers import SourceError, Table
from copier_mlops.monitoring.label_join import LABELLED_AT, PREDICTION, REASONS, check_labels

FOLDER = "labels"
MASKED = "masked "  # before the name of an id that is a pseudonym already


@dataclass(frozen=True)
class Kept:
    """What became of a file of labels.

    Attributes:
        file: Its checked copy.
        new: Whether it was not there before.
        rows: Labels in the copy.
        left_out: How many are not in it, by the keys of REASONS.
        wrong: The same of wrong values, by the rule that they break.
    """

    file: Path
    new: bool
    rows: int
    left_out: dict[str, int]
    wrong: dict[str, int]


class Feed(Iterator[pd.DataFrame]):
    """Labels as a stream of frames, each with the target, PREDICTION or the id or both, perhaps LABELLED_AT.

    Args:
        location: A file, a folder or a glob of them, here or at s3://.
        contract: Names the id and the target, and says what is personal.
        key: The key that personal ids are masked with.

    Attributes:
        troubles: What could not be read so far, a sentence each.
        files: How many files were read.
        there: Whether there is anything; the project's own folder may be empty.
    """

    def __init__(self, location: str, contract: Contract, key: str) -> None:
        self.troubles: list[str] = []
        self.files = 0
        self.there = not (location == FOLDER and is_empty(Path(location)))
        self._frames = self._read(location, contract, key) if self.there else iter(())

    def __next__(self) -> pd.DataFrame:
        return next(self._frames)

    def _read(self, location: str, contract: Contract, key: str) -> Iterator[pd.DataFrame]:
        try:
            files = _files(location)
        except (ProjectError, OSError) as error:
            self.troubles.append(str(error))
            return
        for file in files:
            try:
                yield from frames(file, contract, key)
                self.files += 1
            except (ProjectError, OSError) as error:
                self.troubles.append(str(error))


def is_empty(folder: Path) -> bool:
    """Whether there is no such folder, or no file in it that anybody reads."""
    return not any(path.is_file() and not path.name.startswith((".", "_")) for path in folder.rglob("*"))


def _files(location: str) -> list[str]:
    if "://" in location and not location.startswith("s3://"):
        raise SourceError(
            f"labels are read from files, folders and s3://, not from {location.partition('://')[0]}://. Write them into a file, "
            "and name it in LABELS_URI."
        )
    return Table(location).files()


def frames(file: str, contract: Contract, key: str) -> Iterator[pd.DataFrame]:
    """The labels of one file.

    Raises:
        SourceError: If it cannot be read, or does not say which label is whose.
        ContractError: If ids are personal, and there is no key.
    """
    masked = f"{MASKED}{contract.id}"
    table = readers.sniff(Table(file))
    for frame in table.read([PREDICTION, contract.id, masked, contract.target, LABELLED_AT]):
        if contract.target not in frame or not {PREDICTION, contract.id, masked} & set(frame):
            there: list[str] = next((batch.column_names for batch in table.batches()), [])
            raise SourceError(
                f"{file} has the columns {', '.join(there)}. Labels need {contract.target}, and {PREDICTION} or {contract.id}."
            )
        if masked in frame:
            yield frame.drop(columns=contract.id, errors="ignore").rename(columns={masked: contract.id})
        else:
            yield mask(frame, contract, key)


def keep(given: str, folder: Path, contract: Contract, key: str) -> Kept:
    """Put a checked copy of a file of labels into a folder, whole or not at all. Its name is made of its content, so that the same labels
    are there once.

    Args:
        given: A file, a folder or a glob of them, here or at s3://.
        folder: Made if it is not there.
        contract, key: As for `Feed`. Personal ids are pseudonyms in the copy.

    Raises:
        ProjectError: If it cannot be read, nothing in it can be used, or the copy cannot be written.
    """
    files = _files(given)
    left_out: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    digest, rows = hashlib.sha256(), 0
    for frame in _checked(files, contract, key, left_out, wrong):
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
        rows += len(frame)
    if rows == 0:
        said = "; ".join(f"{count:,} {REASONS[reason]}" for reason, count in left_out.items()) or "it is empty"
        rules = f" ({'; '.join(wrong)})" if wrong else ""
        raise ProjectError(f"{given} has no label that can be used: {said}{rules}. Nothing was kept.")
    copy = folder / f"{digest.hexdigest()[:16]}.parquet"
    new = not copy.exists()
    if new:
        _write(copy, _checked(files, contract, key, Counter(), Counter()), contract)
    return Kept(copy, new, rows, dict(left_out), dict(wrong))


def _checked(
    files: list[str], contract: Contract, key: str, left_out: Counter[str], wrong: Counter[str]
) -> Iterator[pd.DataFrame]:
    """Labels that can be used, typed: names as text, the target as the contract has it, moments in UTC."""
    target, moment = contract.target, pd.Series(dtype="datetime64[us, UTC]")
    for file in files:
        for frame in frames(file, contract, key):
            checked = check_labels(frame, contract)
            left_out.update(Counter(checked.reason[checked.reason != ""].tolist()))
            wrong.update(checked.wrong)
            good = frame[checked.reason == ""].reset_index(drop=True)
            names = {name: _text(good, name) for name in (PREDICTION, contract.id)}
            values, _ = check_values(good[target], contract[target], repeats=True)
            when = pd.to_datetime(good[LABELLED_AT], utc=True, format="ISO8601") if LABELLED_AT in good else moment
            when = when.astype("datetime64[us, UTC]").reindex(range(len(good)))
            if len(good):
                yield pd.DataFrame({**names, target: values, LABELLED_AT: when})


def _text(frame: pd.DataFrame, name: str) -> pd.Series:
    texts = as_text(frame[name]) if name in frame else pd.Series(pd.NA, frame.index, dtype="str")
    return texts.astype("str")


def _write(copy: Path, labels: Iterator[pd.DataFrame], contract: Contract) -> None:
    id_name = f"{MASKED}{contract.id}" if contract[contract.id].personal else contract.id
    kinds = {PREDICTION: pa.string()} if contract.id != PREDICTION else {}
    kinds |= {id_name: pa.string(), LABELLED_AT: pa.timestamp("us", "UTC")}
    kinds[contract.target] = pa.string() if contract[contract.target].kind == "string" else pa.float64()
    schema = pa.schema(kinds)
    if not copy.parent.exists():  # data, and perhaps of people: git does not keep it
        tables.write_text("*\n", copy.parent / ".gitignore")
    with tables.writing(copy) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for frame in labels:
            named = frame.rename(columns={contract.id: id_name})
            writer.write_table(pa.Table.from_pandas(named, schema=schema, preserve_index=False))


def told(kept: Kept) -> str:
    """What became of the labels, in a line or two."""
    what = f"{kept.rows:,} labels are in {kept.file}" + ("" if kept.new else " already; nothing changed")
    lines = [f"{count:,} left out: a label {REASONS[reason]}" for reason, count in kept.left_out.items()]
    rules = [f"  {rule}: {count:,}" for rule, count in kept.wrong.items()]
    return "\n".join([what, *lines, *rules])
