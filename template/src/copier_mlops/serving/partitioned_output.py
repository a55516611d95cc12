"""Answers to a large table: a folder of Parquet parts with a journal, on this machine or in an object store.

part-00000.parquet ...   the answers, in the order of the questions; each is there whole or not at all
_journal.json            which parts hold, and up to which row of which file they go
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet as pq

from copier_mlops import ProjectError, UnreachableError, _locks
from copier_mlops.data import readers, tables

JOURNAL = "_journal.json"
PART = re.compile(r"part-\d{5,}\.parquet")
SINGLE = (".csv", ".parquet")


class PartsError(ProjectError):
    """The answers cannot be written where they should go; the text says why, and what to do."""


@dataclass(frozen=True)
class Part:
    """A part that is written.

    Attributes:
        name: Of its file.
        rows: How many there are.
        set_aside: How many of them have no answer.
        file, row: How far it goes: which file of the table, counted from 0, and how many of its rows are answered then.
    """

    name: str
    rows: int
    set_aside: int
    file: int
    row: int


@dataclass
class Journal:
    """What is written so far, and of what.

    Attributes:
        bundle: The digest of the bundle that answers.
        files: The files that were read, or begun, each with its fingerprint.
        parts: In order.
        finished: Whether that is all.
        run: Who writes, so that two runs notice each other where nothing can be locked.
    """

    bundle: str
    files: list[tuple[str, str]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    finished: bool = False
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def set_aside(self) -> int:
        return sum(part.set_aside for part in self.parts)

    def cut(self, files: int) -> None:
        """Keep the parts all of whose rows come from the first so many files."""
        self.parts = [part for part in self.parts if part.file < files]
        self.files = self.files[: self.parts[-1].file + 1 if self.parts else 0]
        self.finished = False


class Parts:
    """A place for answers.

    Args:
        location: A folder, or a file whose name ends in .csv or .parquet, which becomes one of the parts at the end; each of
            them also as s3://bucket/path.
    """

    def __init__(self, location: str) -> None:
        readers.check_location(location, "")
        self.location = location.rstrip("/")
        self.single = self.location.endswith(SINGLE)
        place = PurePosixPath(self.location.removeprefix("s3://"))
        folder = str(place.with_name(f".{place.name}.parts")) if self.single else str(place)
        self._far = self.location.startswith("s3://")
        self._system: Any = readers.object_store(self.location)[0] if self._far else pyarrow.fs.LocalFileSystem()
        self._file, self._folder = str(place), folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes here meanwhile.

        Raises:
            PartsError: If somebody does, the place cannot be written to, or it holds what is no answer of ours.
            UnreachableError: If the store does not answer.
        """
        with contextlib.ExitStack() as stack:
            with self._explained():
                if not self._far:
                    Path(self._folder).mkdir(parents=True, exist_ok=True)
                self._only_ours()
                if not self._far:
                    stack.enter_context(self._lock())
            yield

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock file. A link is not followed, since others may write to the folder, too."""
        path = Path(self._folder, ".lock")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_locks.locked(path, wait=False, mode=0o600, follow=False))
            except _locks.HeldError as error:
                raise PartsError(
                    f"another run writes to {self.location}. Wait for it, or name another OUTPUT."
                ) from error
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise PartsError(
                        f"{path} is a symbolic link, not the lock file of a run. Remove it, or name another OUTPUT."
                    ) from error
                raise
            yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong with files, in words."""
        try:
            yield
        except OSError as error:
            said = str(error).strip().partition("\n")[0][:300]
            if self._far and not isinstance(error, FileNotFoundError | PermissionError):
                raise UnreachableError(f"{self.location} cannot be written to now: {said}") from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise PartsError(
                    f"the disk is full while writing {self.location}. What is finished is kept: make room and run the same again."
                ) from error
            raise PartsError(f"{self.location} cannot be written to: {said}. Name another OUTPUT.") from error

    def _only_ours(self) -> None:
        names = self._names()
        foreign = sorted(name for name in names if not PART.fullmatch(name) and not name.startswith((".", "_")))
        if foreign or (JOURNAL not in names and any(map(PART.fullmatch, names))):
            raise PartsError(
                f"{self.location} holds other files than answers ({', '.join(foreign[:3] or sorted(names)[:3])}). "
                "Name an OUTPUT that is empty or not there."
            )

    def _names(self) -> list[str]:
        found = self._system.get_file_info(pyarrow.fs.FileSelector(self._folder, allow_not_found=True))
        return [one.base_name for one in found]

    def journal(self) -> Journal | None:
        """What was written by an earlier run; None if nothing was, or what it wrote is not all there."""
        with self._explained():
            names = self._names()
            if JOURNAL not in names:
                return None
            with self._system.open_input_stream(f"{self._folder}/{JOURNAL}") as stream:
                text = stream.read()
            single = self.single and self._there(self._file)
        try:
            content = json.loads(text)
            files = [(name, fingerprint) for name, fingerprint in content.pop("files")]
            journal = Journal(**{**content, "files": files, "parts": [Part(**part) for part in content["parts"]]})
        except (ValueError, TypeError, KeyError):
            return None
        if self.single and journal.finished:
            return journal if single else None
        return journal if {part.name for part in journal.parts} <= set(names) else None

    def _there(self, path: str) -> bool:
        return bool(self._system.get_file_info(path).type == pyarrow.fs.FileType.File)

    def note(self, journal: Journal) -> None:
        """Replace the journal; parts that are not in it are no answers."""
        self._put(JOURNAL, json.dumps(asdict(journal), indent=1).encode())

    def begin(self, journal: Journal) -> None:
        """Take the place over, with the parts that the journal has and no others."""
        journal.run = secrets.token_hex(8)
        self.note(journal)
        self._remove_but({part.name for part in journal.parts})

    def _remove_but(self, kept: set[str]) -> None:
        with self._explained():
            for name in self._names():
                if PART.fullmatch(name) and name not in kept:
                    readers.remove(self._system, f"{self._folder}/{name}")

    def add(self, journal: Journal, answers: Sequence[pa.Table], set_aside: int, file: int, row: int) -> None:
        """Write the next part, and then that it is there.

        Raises:
            PartsError: If another run took the place over.
        """
        if self._far:
            now = self.journal()
            if now is None or now.run != journal.run:
                raise PartsError(f"another run writes to {self.location} since a moment ago; this one ends.")
        table = pa.concat_tables(answers)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        name = f"part-{len(journal.parts):05d}.parquet"
        self._put(name, sink.getvalue())
        journal.parts.append(Part(name, table.num_rows, set_aside, file, row))
        self.note(journal)

    def finish(self, journal: Journal, schema: pa.Schema) -> None:
        """Say that all is there; the parts become one file where one was asked for."""
        if self.single:
            self._join(journal, schema)
        journal.finished = True
        self.note(journal)
        if self.single:
            self._remove_but(set())

    def _put(self, name: str, content: Any) -> None:
        with self._explained():
            if self._far:
                with self._system.open_output_stream(f"{self._folder}/{name}") as stream:
                    stream.write(content)
                return
            with tables.writing(Path(self._folder, name)) as partial:
                partial.write_bytes(content)

    def _join(self, journal: Journal, schema: pa.Schema) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._explained())
            if self._far:
                target = stack.enter_context(self._system.open_output_stream(self._file))
            else:
                target = stack.enter_context(stack.enter_context(tables.writing(Path(self._file))).open("wb"))
            writer: Any
            if self._file.endswith(".csv"):
                options = pyarrow.csv.WriteOptions(quoting_style="needed")
                writer = stack.enter_context(pyarrow.csv.CSVWriter(target, schema, write_options=options))
            else:
                writer = stack.enter_context(pq.ParquetWriter(target, schema, compression="zstd"))
            for part in journal.parts:
                with pq.ParquetFile(
                    self._system.open_input_file(f"{self._folder}/{part.name}"), pre_buffer=False
                ) as table:
                    for batch in table.iter_batches():
                        writer.write_batch(_for_spreadsheets(batch) if self._file.endswith(".csv") else batch)


def _for_spreadsheets(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        tables.spreadsheet_safe(values) if pa.types.is_string(values.type) else values for values in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
