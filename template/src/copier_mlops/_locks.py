"""Locks between processes of one machine. The system releases the lock of a process that ends, however it ends.

The module needs nothing but Python: a deploy sends it to hosts without the project's packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class HeldError(Exception):
    """Another process holds the lock.

    Attributes:
        holder: What that process wrote into the locked file; empty if it wrote nothing.
    """

    def __init__(self, holder: str = "") -> None:
        super().__init__(f"the lock is held by {holder or 'another process'}")
        self.holder = holder


def take(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file until it is closed.

    Args:
        descriptor: File descriptor of the file or folder.
        shared: Whether other processes may hold a shared lock at the same time.
        wait: Whether to wait for the lock.

    Raises:
        HeldError: If another process holds the lock and `wait` is False.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise HeldError from None


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    wait: bool = True,
    holder: str = "",
    mode: int = 0o666,
    follow: bool = True,
) -> Iterator[int]:
    """Hold the lock of a file, which is created if it is missing, or of a folder; yield its descriptor.

    Args:
        path: File or folder. What the file contains is kept.
        shared: Whether other processes may hold a shared lock at the same time.
        wait: Whether to wait for the lock.
        holder: Description of this process for others that find the lock held; replaces the content of the file.
        mode: Permissions of a file that is created, to which the umask applies.
        follow: Whether the path may be a symbolic link.

    Raises:
        HeldError: If another process holds the lock and `wait` is False; with the holder's description of itself.
        OSError: If the file cannot be opened.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | (0 if follow else os.O_NOFOLLOW), mode)
    try:
        try:
            take(descriptor, shared=shared, wait=wait)
        except HeldError:
            said = "" if path.is_dir() else os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            raise HeldError(said) from None
        if holder:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
