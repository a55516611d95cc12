"""Answers computed ahead: `make precompute` writes them, the online service looks a row up before it asks the model.

dist/precomputed.db is a SQLite file that is written beside its place, takes it as a whole, and is never changed afterwards:

    answers   key: a digest of the bundle, the id and all inputs of a row; at: when it was computed, seconds since 1970; answer:
              CRC-32 of key and JSON, and the JSON of what `Bundle.answers` said; id: whose it is
    facts     what the file is of: the bundle's digest, the place of times among the columns

So a row is answered from the file if nothing at all of it, nor of the model, is other than it was then, and if that was not
long ago. Else the live model answers, as it does where the file is missing, old or damaged.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import sqlite3
import time
import zlib
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

LAYOUT = "1"  # of the file; another is not read
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

log = logging.getLogger(__name__)


class Precomputed:
    """Looks answers up. A file that takes the place of the one that is open is noticed.

    Args:
        path: The file; it may be missing.
        digest: Of the bundle that answers.
        hours: How old an answer may be.

    Attributes:
        hits: How many rows were found.
        misses: How many were not.
    """

    def __init__(self, path: Path, digest: str, hours: float) -> None:
        self.hits = self.misses = 0
        self._path, self._digest, self._seconds = path, digest, hours * 3600
        self._seen: object = ()  # which file is open, or cannot be used
        self._file: sqlite3.Connection | None = None
        self._times: list[int] = []
        self._places: dict[type, Any] = {}

    def lookup(self, rows: Sequence[Any]) -> list[dict[str, Any] | None]:
        """The answers to rows that are known, None for each of the others; never raises.

        Args:
            rows: As `Asked.rows` has them.
        """
        file = self._current()
        found: list[dict[str, Any] | None] = [None] * len(rows)
        if file is not None:
            oldest = time.time() - self._seconds
            try:
                found = [self._answer(file, row, oldest) for row in rows]
            except (sqlite3.Error, msgspec.DecodeError) as error:
                self._leave(f"is damaged ({error})")
        hits = sum(answer is not None for answer in found)
        self.hits += hits
        self.misses += len(rows) - hits
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _answer(self, file: sqlite3.Connection, row: Any, oldest: float) -> dict[str, Any] | None:
        key = self._key(row)
        kept = file.execute("SELECT answer FROM answers WHERE key = ? AND at > ?", (key, oldest)).fetchone()
        if kept is None:
            return None
        if kept[0][:4] != checksum(key, kept[0][4:]):
            raise sqlite3.DatabaseError("an answer is not what was written")
        answer: dict[str, Any] = msgspec.json.decode(kept[0][4:])
        return answer

    def _key(self, row: Any) -> bytes:
        places = self._places.get(type(row))
        if places is None:
            names = [name for name in row.__struct_fields__ if name != "target"]
            places = self._places[type(row)] = attrgetter(*names)
        values: list[Any] = [value if value is None or type(value) is str else float(value) for value in places(row)]
        for place in self._times:
            values[place] = _microseconds(values[place])
        return digest(self._digest, values)

    def _current(self) -> sqlite3.Connection | None:
        """The file that is there now, opened; None if it cannot be used, which is noted once."""
        try:
            there = self._path.stat()
            seen: object = (there.st_ino, there.st_mtime_ns, there.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return self._file
        self.close()
        self._seen = seen
        if seen is None:
            self._leave("is not there; `make precompute` makes it")
            return None
        try:
            # Immutable: it is never changed in its place, so nothing has to be locked or asked again.
            file = sqlite3.connect(f"{self._path.absolute().as_uri()}?immutable=1", uri=True, check_same_thread=False)
            self._file = file
            file.execute("PRAGMA cache_size = -65536")  # KiB, where the file has so many
            facts = dict(file.execute("SELECT name, value FROM facts"))
            if facts.get("layout") != LAYOUT or facts.get("bundle") != self._digest:
                self._leave("was computed with another bundle")
            else:
                self._times = msgspec.json.decode(facts["times"])
                log.info("answers that were computed ahead are looked up in %s", self._path)
        except (sqlite3.Error, msgspec.DecodeError, KeyError) as error:
            self._leave(f"is damaged ({error})")
        return self._file

    def _leave(self, why: str) -> None:
        """The live model answers, until another file is there."""
        self.close()
        log.warning("%s %s: the live model answers", self._path, why)


# ------------------------------------------------------------------------------------------------------- The key


def digest(bundle: str, values: Sequence[Any]) -> bytes:
    """The key of a row.

    Args:
        bundle: The digest of what answers.
        values: In the order of the contract, without the target: texts, float64 for numbers and booleans, microseconds
            since 1970 for times, None for what is missing.
    """
    return hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=16, key=bundle.encode()[:64]).digest()


def checksum(key: bytes, answer: bytes) -> bytes:
    """What stands before an answer in the file, so that one that the disk has spoiled is not given."""
    return zlib.crc32(answer, zlib.crc32(key)).to_bytes(4, "big")


def _microseconds(text: str | None) -> float | None:
    """Since 1970, in UTC, however the time is written."""
    if text is None:
        return None
    moment = dt.datetime.fromisoformat(text)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) - EPOCH
    return float((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)
