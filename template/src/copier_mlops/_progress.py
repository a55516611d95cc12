"""How far long work is: a bar on a terminal, and a file by which `make run` shows the bar of a stage in another process."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from copier_mlops.settings import shows_progress

FILE = Path(".cache/progress.json")
SECONDS_BETWEEN = 0.2


@contextlib.contextmanager
def progress(name: str, unit: str, total: int | None = None, of_stage: bool = False) -> Iterator[Callable[[int], None]]:
    """Show how far a piece of work is, until the block ends.

    Args:
        name: what the bar is called.
        unit: what is counted.
        total: number of units in all; None if it is not known.
        of_stage: whether a run in another process may show it.

    Yields:
        A function that gets the number of units that were finished since its last call.
    """
    if shows_progress():
        with _bar(name, unit, total) as bar:
            yield bar.update
        return
    if not of_stage:
        yield lambda more: None
        return
    done, written = 0, 0.0

    def advance(more: int) -> None:
        nonlocal done, written
        done += more
        now = time.monotonic()
        if now - written >= SECONDS_BETWEEN or done == total:
            written = now
            _write({"name": name, "unit": unit, "total": total, "done": done})

    advance(0)
    try:
        yield advance
    finally:
        FILE.unlink(missing_ok=True)


def _write(state: dict[str, Any]) -> None:
    with contextlib.suppress(
        OSError
    ):  # outside a run there is no such folder; a full disk is reported by the work itself
        partial = FILE.with_suffix(".partial")
        partial.write_text(json.dumps(state))
        partial.replace(FILE)


def _bar(name: str, unit: str, total: int | None) -> Any:
    from tqdm import tqdm  # on a terminal only

    return tqdm(desc=name, unit=f" {unit}", total=total, leave=False, dynamic_ncols=True, file=sys.stderr)


class Follower:
    """Shows the progress of stages that run in another process; shows nothing off a terminal."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.bar: Any = None
        self.known: tuple[object, ...] = ()
        self.file.unlink(missing_ok=True)

    def look(self) -> None:
        """Bring the bar to what the stage wrote."""
        if not shows_progress():
            return
        try:
            state = json.loads(self.file.read_text())
        except (OSError, ValueError):
            self.close()
            return
        known = (state["name"], state["unit"], state["total"])
        if known != self.known:
            self.close()
            self.known, self.bar = known, _bar(*known)
        self.bar.n = state["done"]
        self.bar.refresh()

    def say(self, text: str, say: Callable[[str], None]) -> None:
        """Print a line above the bar."""
        if self.bar is None:
            say(text)
            return
        with self.bar.external_write_mode(file=sys.stdout):
            say(text)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
        self.bar, self.known = None, ()
