"""Reads the entries of prediction logs: those that a service still writes, and compacted ones."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from copier_mlops import _files, _locks
from copier_mlops.data.prediction_log import SHADOW, LogError

ROWS = 20_000  # of a row group
INDEX = "compacted.json"


# ------------------------------------------------------------------------------------------------------ Reading


class Frames:
    """Takes frames apart, and counts those that are not what was written."""

    def __init__(self) -> None:
        self.damaged = 0

    def read(self, log: Iterable[bytes]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The entries of a file, as JSON and as what it says."""
        for line in log:
            try:
                if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:-1]):
                    raise ValueError("not what was written")
                yield line[9:-1], msgspec.json.decode(line[9:-1], type=dict)
            except ValueError:  # also of what was given as JSON and is none
                if line.endswith(b"\n"):  # without one its writer was interrupted, which is no damage
                    self.damaged += 1


class Entries(Iterator[dict[str, Any]]):
    """The entries of logs, one after the other, days that were compacted first; as they were when the first of a log was asked for."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._frames = Frames()
        self._entries = itertools.chain.from_iterable(map(self._all, folders))

    @property
    def damaged(self) -> int:
        """How many frames were passed over so far, since they are not what was written."""
        return self._frames.damaged

    def __next__(self) -> dict[str, Any]:
        return next(self._entries)

    def _all(self, folder: Path) -> Iterator[dict[str, Any]]:
        if not folder.is_dir():
            return
        with contextlib.ExitStack() as stack:
            try:
                with _locks.locked(
                    folder, shared=True
                ):  # afterwards a file may be removed: one that is open is still read
                    index = Index.read(folder)
                    tables = [stack.enter_context((folder / name).open("rb")) for _, name in sorted(index.days.items())]
                    logs = [stack.enter_context(path.open("rb")) for path in logs_of(folder, index)]
            except OSError as error:
                raise LogError(
                    f"the log in {folder} cannot be read ({error}). Many small files become few: make compact-log"
                ) from error
            for table in tables:
                yield from map(msgspec.json.decode, _compacted(table))
            for log in logs:
                for _, entry in self._frames.read(log):
                    yield entry


def entries(*folders: Path) -> Entries:
    """All entries of one log or several, as a stream; a last frame that is torn is left out, a damaged one is passed over and counted.

    Raises:
        LogError: If a file cannot be opened.
    """
    return Entries(folders)


def find(folder: Path, prediction: str) -> dict[str, Any] | None:
    """The entry of one prediction, looked for from the newest backwards; None if it is not there. What a model answered in the
    shadow is none.

    Where pyarrow is not installed, as in a service, days that were compacted are passed over.

    Raises:
        LogError: If a file cannot be opened.
    """
    if not folder.is_dir():
        return None
    frames, mark = Frames(), prediction.encode()
    with contextlib.ExitStack() as stack:
        try:
            with _locks.locked(folder, shared=True):
                index = Index.read(folder)
                days = sorted(index.days.items(), reverse=True) if importlib.util.find_spec("pyarrow") else []
                tables = [stack.enter_context((folder / name).open("rb")) for _, name in days]
                logs = [stack.enter_context(path.open("rb")) for path in reversed(logs_of(folder, index))]
        except OSError as error:
            raise LogError(f"the log in {folder} cannot be read ({error}).") from error
        for log in logs:
            for _, entry in frames.read(line for line in log if mark in line):
                if entry.get("prediction") == prediction and entry.get("way") != SHADOW:
                    return entry
        for table in tables:
            for text in _compacted(table):
                entry = msgspec.json.decode(text, type=dict) if prediction in text else {}
                if entry.get("prediction") == prediction and entry.get("way") != SHADOW:
                    return entry
    return None


def logs_of(folder: Path, index: Index) -> list[Path]:
    return [path for path in sorted(folder.glob("*.log")) if path.name not in index.taken]


def _compacted(file: IO[bytes]) -> Iterator[str]:
    for (column,) in _columns(file, "entry"):
        yield from column.to_pylist()


def named(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """The id and the way of each entry of a day."""
    for ids, ways in _columns(file, "id", "way"):
        yield from zip(ids.to_pylist(), ways.to_pylist(), strict=True)


def _columns(file: IO[bytes], *names: str) -> Iterator[list[Any]]:
    """Columns of a day, in pieces."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, pre_buffer=False) as table:
        for batch in table.iter_batches(ROWS, columns=[*names]):
            yield [batch.column(name) for name in names]


@dataclass
class Index:
    """Which Parquet file has a day's entries, and which logs are in them."""

    days: dict[str, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Index:
        if not (folder / INDEX).exists():
            return cls()
        try:
            return cls(**json.loads((folder / INDEX).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise LogError(f"{folder / INDEX} is damaged ({error}). Bring it back from a backup.") from error

    def write(self, folder: Path) -> None:
        """Put it in the place of the one before, when no reader is just opening the files of that one."""
        with _files.replacing(folder / INDEX, sync=True, during=_locks.locked(folder)) as partial:
            partial.write_text(json.dumps({"days": self.days, "taken": self.taken}, indent=2), encoding="utf-8")
