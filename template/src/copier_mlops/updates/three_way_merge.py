"""Merge three versions of a file: of the previous release, of the project, of the next release."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path

from copier_mlops._environment import for_git

HERE, THERE = "<" * 7, ">" * 7  # not written out, so that a search for marks does not find this file
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
    """Merge the versions of a file that the template owns.

    Args:
        before: the bytes that the previous release rendered; None if it had no such file.
        here: the bytes in the project; None if the owner deleted the file.
        after: the bytes that the next release renders; None if it has no such file.
        names: the names of the two releases, for the marks of a conflict.

    Returns:
        The merged file: a deleted file stays deleted, an edit is never lost, line ends stay as they are in the project.
    """
    if here is not None and b"\r\n" in here and b"\0" not in here and not _windows(before, after):
        merged = merge(before, here.replace(b"\r\n", b"\n"), after, names)
        if merged.content == here.replace(b"\r\n", b"\n"):
            return replace(merged, content=here)
        if merged.content and 2 * here.count(b"\r\n") > here.count(b"\n"):
            return replace(merged, content=merged.content.replace(b"\n", b"\r\n"))
        return merged
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
    return _pair(here, after, names) if before is None else _lines(before, here, after, names)


def _windows(*sides: bytes | None) -> bool:
    return any(b"\r\n" in side for side in sides if side is not None)


def _pair(here: bytes, after: bytes, names: tuple[str, str]) -> Merged:
    """Mark each place in which two versions without a common base differ."""
    ours, theirs = (re.findall(rb"[^\n]*\n|[^\n]+$", side) for side in (here, after))
    old, new = (name.encode() for name in names)
    lines, conflicts = [], 0
    for kind, i, j, k, m in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind == "equal":
            lines += ours[i:j]
            continue
        conflicts += 1
        lines += [HERE.encode() + b" yours\n", *map(_ended, ours[i:j]), b"|" * 7 + b" " + old + b"\n", b"=" * 7 + b"\n"]
        lines += [*map(_ended, theirs[k:m]), THERE.encode() + b" " + new + b"\n"]
    return Merged(b"".join(lines), conflicts)


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"


def _lines(before: bytes, here: bytes, after: bytes, names: tuple[str, str]) -> Merged:
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch) / name for name in ("here", "before", "after")]
        for place, content in zip(places, (here, before, after), strict=True):
            place.write_bytes(content)
        labels = [word for label in ("yours", *names) for word in ("-L", label)]
        words = ["git", "merge-file", "-p", "--diff3", *labels, *map(str, places)]
        done = subprocess.run(words, env=for_git(), cwd=scratch, capture_output=True, check=False)
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
