"""Turns closed logs into Parquet files by day, applies the retention, and removes the entries of a subject."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier_mlops import _locks
from copier_mlops.data.log_reader import ROWS, Frames, Index, logs_of, named
from copier_mlops.data.prediction_log import SHADOW, TEXTS, LogError, is_closed

FILES = 200  # logs that are compacted in one step


# --------------------------------------------------------------------------------------------------- Compaction


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Attributes:
        logs: Files that became Parquet.
        entries: How many entries were in them.
        damaged: How many frames of them were not what was written, and are gone.
        removed: Days that were older than is kept.
    """

    logs: int = 0
    entries: int = 0
    damaged: int = 0
    removed: tuple[str, ...] = ()


def compact(folder: Path, keep_days: int) -> Compacted:
    """Make Parquet of what is no longer written, a file for each day, and remove what is too old.

    It may be killed at any moment: what counts is the index, which is replaced as a whole after the files that it names are
    there and before those that they replace go. Files that a process still writes are left alone.

    Args:
        folder: Of the log.
        keep_days: Days before today that are kept.

    Raises:
        LogError: If the disk is full, a file cannot be read, or another compaction runs.
    """
    if not folder.is_dir():
        return Compacted()
    oldest = str(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=keep_days))
    with _alone(folder):
        return _compact(folder, oldest)


@dataclass(frozen=True)
class Forgotten:
    """What became of a row's entries.

    Attributes:
        entries: How many are gone.
        waiting: How many stand in files that a process still writes.
    """

    entries: int = 0
    waiting: int = 0


def forget(folder: Path, name: str) -> Forgotten:
    """Remove the entries of a row, by its id as the log has it. Files that nobody writes any longer are compacted on the way.

    Like a compaction it may be killed at any moment.

    Raises:
        LogError: As for `compact`.
    """
    if not folder.is_dir():
        return Forgotten()
    with _alone(folder):
        _compact(folder, "")
        index, gone = Index.read(folder), 0
        for day, before in sorted(index.days.items()):
            with (folder / before).open("rb") as table:
                ways = [way for one, way in named(table) if one == name]
            if not ways:
                continue
            with _Day(folder, day, before, without=name) as rest:
                pass
            Index({**Index.read(folder).days, day: rest.name}).write(folder)
            _tidy(folder)
            gone += len(ways) - ways.count(SHADOW)
        frames, waiting = Frames(), set()
        for path in logs_of(folder, index):
            with path.open("rb") as log:
                waiting |= {entry.get("prediction") for _, entry in frames.read(log) if str(entry.get("id")) == name}
        return Forgotten(gone, len(waiting))  # a shadow of a prediction is none of its own


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Change the files of a log while no other process does."""
    try:
        with _locks.locked(folder / ".compacting", wait=False):
            yield
    except _locks.HeldError as error:
        raise LogError(f"the log in {folder} is just being compacted by another process.") from error
    except OSError as error:  # pyarrow's errors of files among them
        raise LogError(
            f"the log in {folder} was not compacted ({error}). Nothing is lost; make room or give it the right to write there, "
            "and run it again."
        ) from error


def _compact(folder: Path, oldest: str) -> Compacted:
    index = _tidy(folder)
    logs = count = damaged = 0
    while closed := [path for path in logs_of(folder, index) if is_closed(path)][:FILES]:
        step, lines, bad = _step(folder, index, closed, oldest)
        step.write(folder)
        index = _tidy(folder)
        logs, count, damaged = logs + len(closed), count + lines, damaged + bad
    old = tuple(sorted(day for day in index.days if day < oldest))
    if old:
        Index({day: name for day, name in index.days.items() if day not in old}, index.taken).write(folder)
        _tidy(folder)
    return Compacted(logs, count, damaged, old)


def _tidy(folder: Path) -> Index:
    """Remove what the index replaced, and what a compaction that was killed left behind."""
    index = Index.read(folder)
    for path in folder.glob("*.parquet"):
        if path.name not in index.days.values():
            path.unlink()
    for name in index.taken:  # a log's name never comes again
        (folder / name).unlink(missing_ok=True)
    return index


def _step(folder: Path, index: Index, logs: Sequence[Path], oldest: str) -> tuple[Index, int, int]:
    """Write the days that some logs touch anew: the index that holds then, how many entries, how many damaged frames."""
    days: dict[str, _Day] = {}
    frames, count = Frames(), 0
    with contextlib.ExitStack() as stack:
        for path in logs:
            with path.open("rb") as log:
                for text, entry in frames.read(log):
                    facts = {**_facts(entry, path), "entry": text.decode()}
                    day = str(facts["at"].date())
                    count += 1
                    if day < oldest:
                        continue
                    if day not in days:
                        days[day] = stack.enter_context(_Day(folder, day, index.days.get(day)))
                    days[day].add(facts)
    names = {day: one.name for day, one in days.items()}
    return Index({**index.days, **names}, [path.name for path in logs]), count, frames.damaged


def _facts(entry: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The columns of an entry beside itself; when it was is told by its file, if not by itself."""
    try:
        at = dt.datetime.fromisoformat(entry["at"])
        at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at.astimezone(dt.UTC)
    except (KeyError, TypeError, ValueError):
        at = dt.datetime.strptime(path.name[:11], "%Y%m%dT%H").replace(tzinfo=dt.UTC)
    return {"at": at, **{name: None if entry.get(name) is None else str(entry[name]) for name in TEXTS}}


class _Day:
    """A new file of a day: what the old one had, but for the entries of one id, and what is added."""

    def __init__(self, folder: Path, day: str, before: str | None, without: str | None = None) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        self.name = f"{day}-{secrets.token_hex(6)}.parquet"
        self._path = folder / self.name
        fields = {"at": pa.timestamp("us", "UTC"), **dict.fromkeys(TEXTS, pa.string()), "entry": pa.string()}
        self._schema = pa.schema(fields)
        self._rows: list[dict[str, Any]] = []
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        if before is not None:
            with pq.ParquetFile(folder / before, pre_buffer=False) as table:
                for batch in table.iter_batches(ROWS):
                    others = None if without is None else pc.not_equal(batch.column("id"), without).fill_null(True)
                    self._writer.write_batch(batch if others is None else batch.filter(others))

    def __enter__(self) -> _Day:
        return self

    def add(self, facts: dict[str, Any]) -> None:
        self._rows.append(facts)
        if len(self._rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self._flush()
        self._writer.close()
        if error is None:
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
