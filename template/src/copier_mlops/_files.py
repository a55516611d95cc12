"""Files and folders that are written whole or not at all, and folders for one account alone.

The module needs nothing but Python: a deploy sends it to hosts without the project's packages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(
    target: Path,
    *,
    partial: Path | None = None,
    mode: int = 0o666,
    sync: bool = False,
    during: contextlib.AbstractContextManager[Any] | None = None,
) -> Iterator[Path]:
    """Yield a path to write to. It replaces the target when the block ends without an error, and is removed otherwise.

    The partial file is created exclusively: in a folder that others may write to, its name could be a link to another file.

    Args:
        target: File that is replaced as a whole.
        partial: Path of the partial file, on the file system of the target; by default beside it.
        mode: Permissions of the new file, to which the umask applies.
        sync: Whether the content is on disk before the target is replaced.
        during: Context in which the target is replaced, such as a lock.
    """
    partial = partial or target.with_name(f".{target.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        yield partial
        if sync:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        with during or contextlib.nullcontext():
            partial.replace(target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(file: Path, text: str, *, partial: Path | None = None, mode: int = 0o666, sync: bool = False) -> None:
    """Write a text file as UTF-8, whole or not at all. The arguments are those of `replacing`."""
    with replacing(file, partial=partial, mode=mode, sync=sync) as path:
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder. It replaces the target when the block ends without an error, and is removed otherwise."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    previous = target.with_name(f".{target.name}.before")
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    partial.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


def private_folder(folder: Path) -> None:
    """Create a folder that only its owner can read. An existing one loses the access of other accounts."""
    folder.mkdir(mode=0o700, exist_ok=True)
    mode = folder.stat().st_mode & 0o777
    if mode & 0o007:
        folder.chmod(mode & 0o770)
