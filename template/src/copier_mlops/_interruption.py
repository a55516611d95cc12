"""Ctrl-C: end within seconds, leave no process, and print what is kept.

A terminal sends SIGINT to the command and to most of what it started, so that a library may wait for a process that has
ended already. Therefore a command gets a short time to end, then it is ended. Everything that a command finishes is on
the disk before the next step begins; the next run needs nothing from the process that was ended.
"""

import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SECONDS_TO_END = 1.5
SECONDS_TO_STOP = 0.7
STOPPED = "stopped; what was finished is kept."

_at_once: list[Callable[[], str]] = []


def handle() -> None:
    """Handle SIGINT in this process from here on. A process that ignores it, as a shell's background job does, goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def without_time_limit() -> None:
    """Let SIGINT raise KeyboardInterrupt from here on, with no time limit, for a command that has to end in order."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def at_once(kept: Callable[[], str]) -> Iterator[None]:
    """End the process at SIGINT without waiting for anything.

    Args:
        kept: returns the sentences that name what was stopped and what is kept.
    """
    importlib.import_module("psutil")  # a signal may arrive while something else imports the same module
    _at_once.append(kept)
    try:
        yield
    finally:
        _at_once.pop()


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would interrupt what ends the processes
    if _at_once:
        end(_at_once[-1]())
    timer = threading.Timer(SECONDS_TO_END, end, (STOPPED,))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def end(kept: str) -> NoReturn:
    """Stop all processes that this one started, print the text, and end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the stages' last words are those of a stopped process
    stop_children(SECONDS_TO_STOP)
    with contextlib.suppress(OSError):  # `print` fails where the signal arrived during another `print`
        os.write(2, f"\r\033[Kerror: {kept}\n".encode() if os.isatty(2) else f"error: {kept}\n".encode())
    os._exit(130)


def stop_children(seconds: float) -> None:
    """Stop the processes that this one started, and theirs: with SIGTERM, and after some seconds with SIGKILL."""
    import psutil  # at this point only: a command that is not interrupted does without it

    alive = psutil.Process().children(recursive=True)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for child in alive:
            with contextlib.suppress(psutil.Error, OSError):
                if os.getpgid(child.pid) == child.pid:  # what it starts meanwhile is in its group
                    os.killpg(child.pid, kind)
                else:
                    child.send_signal(kind)
        _, alive = psutil.wait_procs(alive, seconds)
