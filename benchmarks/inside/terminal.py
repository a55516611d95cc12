"""Run a command in a pseudo-terminal of its own, type Ctrl-C at some moment, and report what becomes of it.

    python terminal.py SECONDS command [words]    prints JSON: the exit code, the seconds from Ctrl-C to the end, the
                                                  processes of the working folder that are left, and the output

The kernel sends SIGINT to the whole foreground process group, as it does for a person at a terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """What became of a command.

    Attributes:
        code: exit code.
        seconds: from Ctrl-C to the end of the command and of all processes of its folder; of an uninterrupted command
            from its start.
        interrupted: whether the command still ran when Ctrl-C was typed.
        left: command lines of processes that work in the folder after the patience.
        output: all that the terminal showed.
    """

    code: int
    seconds: float
    interrupted: bool
    left: list[str]
    output: str


def processes_in(folder: Path) -> dict[int, str]:
    """Return the command lines of the processes whose working folder this is, by process id; zombies are left out."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "cwd").readlink() == folder.resolve():
                words = (place / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
                if words:
                    found[int(place.name)] = words
    return found


def _foreground() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def interrupted(
    command: list[str], folder: Path, env: Mapping[str, str], when: Callable[[float, str], bool], patience: float = 30
) -> Ended:
    """Run a command, type Ctrl-C as soon as `when` returns true, and wait until nothing of it is left.

    Args:
        command: the words.
        folder: its working folder; processes in it count as those of the command.
        env: its whole environment.
        when: gets the seconds since the start and the output so far.
        patience: seconds to wait after Ctrl-C; what is left then is killed.
    """
    ours, theirs = pty.openpty()
    strangers = set(processes_in(folder))
    begun = time.monotonic()
    child = subprocess.Popen(
        command, cwd=folder, env=dict(env), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_foreground,  # noqa: PLW1509 - no threads run here
    )  # fmt: skip
    os.close(theirs)
    output, pressed = "", 0.0
    try:
        while True:
            if select.select([ours], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):  # the last process has closed the terminal
                    output += os.read(ours, 65536).decode(errors="replace")
            now = time.monotonic()
            if not pressed and child.poll() is None and when(now - begun, output):
                os.write(ours, b"\x03")
                pressed = now
            if child.poll() is not None and not set(processes_in(folder)) - strangers:
                break
            if pressed and now - pressed > patience:
                break
        seconds = time.monotonic() - (pressed or begun)
        left = {pid: words for pid, words in processes_in(folder).items() if pid not in strangers}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while select.select([ours], [], [], 0)[0]:
                output += os.read(ours, 65536).decode(errors="replace")
        return Ended(child.wait(10), seconds, bool(pressed), list(left.values()), output)
    finally:
        os.close(ours)


def main() -> int:
    """Run the command of the arguments."""
    seconds, *command = sys.argv[1:]
    moment = float(seconds)
    print(json.dumps(asdict(interrupted(command, Path.cwd(), os.environ, lambda passed, _: passed >= moment))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
