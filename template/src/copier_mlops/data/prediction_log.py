"""The prediction log: what was asked and what was answered, in files that many processes write and a crash does not spoil.

<hour>-<process>-<token>.log   what one process wrote in an hour (UTC), a frame a line; held by a lock while it is written
<day>-<token>.parquet          what compaction made of a day's frames
compacted.json                 which of those Parquet files hold, and which logs they replace

A frame is one line: CRC-32 of the JSON in 8 hex digits, a space, the JSON, a line break. An entry has

    prediction   the uuid that was returned, and that a later label refers to
    id           the contract's id
    version      of the model
    at           when, ISO 8601 in UTC
    way          online, batch, stream or hybrid; or shadow: nobody was given this answer, another model was asked the same beside the
                 one that answered, whose entry has the same `prediction`
    inputs       the row's columns. Whoever calls has replaced personal ones by their pseudonyms, as `core.contract.mask` does:
                 nothing in here knows a contract, and what it is given is stored
    answer       what `Bundle.answers` said
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import secrets
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from copier_mlops import ProjectError, _locks

LOGGER = logging.getLogger(__name__)
MOST_BYTES = 64 << 20  # that wait for a disk that is full; what comes on top of them is dropped, and counted
SOON_BYTES = 4 << 20  # that are not kept waiting for the next flush
CHUNK = 1 << 20  # bytes that are written at once
SHADOW = "shadow"
TEXTS = ("prediction", "id", "version", "way")  # columns of the Parquet files, beside `at` and the whole `entry`


class LogError(ProjectError):
    """The log cannot be compacted or read; the text says why, and what to do. Nothing of it is lost."""


def _plain(value: Any) -> Any:
    """What JSON has for a value of numpy or pandas."""
    if getattr(value, "dtype", None) is not None and hasattr(value, "tolist"):
        return value.tolist()
    try:
        missing = bool(value != value)
    except TypeError:  # pandas' NA is neither
        missing = True
    if missing:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def framed(entry: bytes) -> bytes:
    """The line of an entry that is written as JSON."""
    entry = entry.replace(b"\n", b" ")  # JSON has a line break between values only
    return b"%08x %b\n" % (zlib.crc32(entry), entry)


# ------------------------------------------------------------------------------------------------------ Writing


class PredictionLog:
    """The log of one process. Several of them write into one folder.

    What is added is on disk within `flush_seconds`, and all of it when `close` returns. Where the disk is full, entries wait
    in memory, `MOST_BYTES` of them; more are dropped. When there is room again, those that waited are written.

    Args:
        folder: Made if it is not there.
        flush_seconds: How long an entry stays in memory at most, while the disk takes it.

    Attributes:
        dropped: How many entries were not written and will not be.
    """

    def __init__(self, folder: Path, flush_seconds: float) -> None:
        self.dropped = 0
        self._failing = False
        self._folder = folder
        self._seconds = flush_seconds
        self._waiting: list[bytes] = []  # entries as JSON
        self._size = 0
        self._unwritten = b""  # the end of frames of which the disk took the beginning
        self._file: IO[bytes] | None = None
        self._hour = ""
        self._adding = threading.Lock()
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._flush_again_and_again, name="prediction log", daemon=True)
        self._thread.start()

    def add(self, entries: Sequence[Mapping[str, Any]] | Sequence[bytes]) -> None:
        """Take entries, as mappings or as JSON. Never waits for the disk and never raises: what cannot be written is counted."""
        taken, size, refused = [], 0, 0
        for entry in entries:
            try:
                text = entry if isinstance(entry, bytes) else _encoder.encode(entry)
            except Exception:  # an answer is not held up by a value that JSON does not have
                refused += 1
                continue
            taken.append(text)
            size += len(text)
        with self._adding:
            if self._over.is_set() or self._size + size > MOST_BYTES:
                refused += len(taken)
            else:
                self._waiting += taken
                self._size += size
            self.dropped += refused
            soon = self._size > SOON_BYTES
        if soon:
            self._wake.set()

    def close(self) -> None:
        """Write all that was added. What a full disk does not take is counted as dropped."""
        with self._adding:
            self._over.set()
        self._wake.set()
        self._thread.join()

    def _flush_again_and_again(self) -> None:
        while not self._over.is_set():
            self._wake.wait(self._seconds)
            self._wake.clear()
            if not self._flush():
                self._over.wait(self._seconds)  # however much is added meanwhile
        self._flush()
        with self._adding:
            self.dropped += len(self._waiting) + self._unwritten.count(b"\n")
            self._waiting, self._size = [], 0
        self._leave()

    def _flush(self) -> bool:
        """Write what waits; False if the disk did not take all of it."""
        try:
            if self._file is not None and os.fstat(self._file.fileno()).st_nlink == 0:  # somebody removed the folder
                self.dropped += bool(self._unwritten)
                self._unwritten = self._unwritten.partition(b"\n")[2]
                self._leave()
            if self._hour and not self._unwritten and _hour() != self._hour:
                self._leave()  # an hour that is over can be compacted
            while self._unwritten or self._waiting:
                self._unwritten = self._unwritten or self._next()
                if self._file is None:
                    self._file, self._hour = self._begin()
                written = os.write(self._file.fileno(), self._unwritten)
                self._unwritten = self._unwritten[written:]
        except OSError as error:  # it is full, or the folder is not to be written: later, perhaps
            if not self._failing:
                LOGGER.error(
                    "the prediction log in %s cannot be written (%s). Entries wait in memory, and are lost when this process ends. Make room, "
                    "or let this account write there.", self._folder, error.strerror,
                )  # fmt: skip
            self._failing = True
            return False
        if self._failing:
            LOGGER.warning("the prediction log in %s is written again", self._folder)
        self._failing = False
        return True

    def _next(self) -> bytes:
        """Frames of some of what waits, the oldest first."""
        with self._adding:
            size = count = 0
            while count < len(self._waiting) and size < CHUNK:
                size += len(self._waiting[count])
                count += 1
            entries, self._waiting = self._waiting[:count], self._waiting[count:]
            self._size -= size
        return b"".join(map(framed, entries))

    def _begin(self) -> tuple[IO[bytes], str]:
        """A new file, which has its name only when its lock is held: whoever sees it knows whether it is written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # rows of callers, for this account alone
        hour = _hour()
        name = self._folder / f"{hour}-{os.getpid()}-{secrets.token_hex(6)}.log"
        file = name.with_suffix(".new").open("xb", buffering=0)
        _locks.take(file.fileno(), wait=False)
        name.with_suffix(".new").rename(name)
        return file, hour

    def _leave(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())
            self._file.close()
        self._file, self._hour = None, ""


def _hour() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H")


def is_closed(path: Path) -> bool:
    """Whether nobody writes it, nor ever will: its writer holds a lock, and a file is never opened again."""
    try:
        with path.open("rb+") as file:
            _locks.take(file.fileno(), wait=False)
    except _locks.HeldError:
        return False
    return True
