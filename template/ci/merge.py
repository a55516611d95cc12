"""Three texts become one: what a release rendered, what became of it here, what the next release renders."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE, THERE = "<" * 7, ">" * 7  # not written out: whoever looks for marks in a project finds none here
REQUIREMENT = r'^\s*"([A-Za-z0-9][\w.-]*)[^"]*",?\s*(#.*)?$'


@dataclass(frozen=True)
class Merged:
    """What a file becomes.

    Attributes:
        content: Its bytes; None if there is no such file.
        conflicts: How many places of it a person has to decide.
        kept: Whether it stays although the template no longer has it, because somebody changed it.
    """

    content: bytes | None
    conflicts: int = 0
    kept: bool = False


def merge(before: bytes | None, here: bytes | None, after: bytes | None, names: tuple[str, str]) -> Merged:
    """What a file of ours becomes in an update.

    Args:
        before: What the release before rendered; None if it had no such file.
        here: What stands in the project.
        after: What the next release renders.
        names: Those of the two releases, for the marks of a conflict.

    Returns:
        A deleted file stays deleted, a changed one is never lost.
    """
    if here is None:
        return Merged(after if before is None else None)
    if after is None:
        gone = before == here
        return Merged(None if gone else here, kept=before is not None and not gone)
    if before == here or here == after:
        return Merged(after)
    if before == after:
        return Merged(here)
    if b"\0" in here + after:
        return Merged(here, conflicts=1)
    return _lines(before or b"", here, after, names)


def _lines(before: bytes, here: bytes, after: bytes, names: tuple[str, str]) -> Merged:
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch) / name for name in ("here", "before", "after")]
        for place, content in zip(places, (here, before, after), strict=True):
            place.write_bytes(content)
        labels = [word for label in ("yours", *names) for word in ("-L", label)]
        done = subprocess.run(
            ["git", "merge-file", "-p", "--diff3", *labels, *map(str, places)], capture_output=True, check=False
        )
    text = done.stdout.decode("utf-8", errors="surrogateescape")
    conflict = rf"^{HERE} yours\n(.*?)^\|{{7}} [^\n]*\n(.*?)^={{7}}\n(.*?)^{THERE} [^\n]*\n"
    text = re.sub(conflict, _requirements, text, flags=re.M | re.S)
    left = len(re.findall(rf"^{HERE} yours$", text, re.M))
    return Merged(text.encode("utf-8", errors="surrogateescape"), left)


def _requirements(conflict: re.Match[str]) -> str:
    """Lists of packages are sets: one that was added here stands beside those that the template moved."""
    sides = [[line for line in side.splitlines() if line.strip()] for side in conflict.groups()]
    if not all(re.match(REQUIREMENT, line) for side in sides for line in side):
        return conflict[0]
    here, before, after = ({_package(line): line.rstrip().rstrip(",") for line in side} for side in sides)
    wanted = {}
    for name in here.keys() | before.keys() | after.keys():
        was, now, then = before.get(name), here.get(name), after.get(name)
        if now != then and was not in (now, then):
            return conflict[0]  # one package, changed on both sides
        wanted[name] = then if was == now else now
    return "".join(f"{line}{',' if '#' not in line else ''}\n" for _, line in sorted(wanted.items()) if line)


def _package(line: str) -> str:
    found = re.match(REQUIREMENT, line)
    return found[1].lower().replace("_", "-") if found else line
