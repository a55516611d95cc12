"""The record of what alerts had done: a line of JSON for each step, on disk before the step is taken, and never changed."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from copier_mlops import ProjectError, _locks


class AuditError(ProjectError):
    """The record cannot be written or read; what is not written down is not done."""


def append(file: Path, line: bytes, *, mode: int = 0o640) -> None:
    """Append a line to a file, and return when it is on disk. Several processes may do so at the same time.

    Args:
        file: Path of the file, which is created if it is missing.
        line: One line, without its end.
        mode: Permissions of a file that is created, to which the umask applies.

    Raises:
        OSError: If the line cannot be written, or only a part of it.
    """
    line += b"\n"
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
    try:
        _locks.take(descriptor)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a process was killed while it wrote its line: that line ends here
        if os.write(descriptor, line) != len(line):
            raise OSError("only a part of the line was written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Audit:
    """One file, which several processes may write.

    Args:
        file: Made, with its folder, when something is written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, at: dt.datetime, **entry: Any) -> dict[str, Any]:
        """Write a line, and return when it is on disk.

        Args:
            at: When, with a time zone.
            entry: The rest of it, as JSON knows it.

        Raises:
            AuditError: If the disk is full, or the file cannot be written.
        """
        whole = {"at": at.astimezone(dt.UTC).isoformat(), **entry}
        line = json.dumps(whole, ensure_ascii=False).encode(errors="backslashreplace")  # \ud800 is JSON, too
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            append(self.file, line)
        except OSError as error:
            raise AuditError(
                f"{self.file} cannot be written ({error}), and so nothing is done. Make room, or give this account the right."
            ) from error
        return whole

    def entries(self) -> Iterator[dict[str, Any]]:
        """All that was written, in its order; a line that a killed process left torn is passed over.

        Raises:
            AuditError: If the file is there and cannot be read.
        """
        try:
            with self.file.open("rb") as lines:
                for line in lines:
                    try:
                        entry = json.loads(line)
                    except (ValueError, RecursionError):
                        continue
                    if isinstance(entry, dict) and "at" in entry:
                        yield entry
        except FileNotFoundError:
            return
        except OSError as error:
            raise AuditError(f"{self.file} cannot be read ({error}). Give this account the right.") from error
