"""The commit that a change is compared with, and the reasons that commits give for a lowered standard."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from ci import environment

REASON = re.compile(r"^Lowers:[ \t]*([^\s,]+),?[ \t]+(?:because[ \t]+)?(\S.*)$", re.M)
REMOVED_TEST = re.compile(r"^Removes-test:[ \t]*(\w+)(?:,?[ \t]+(?:because[ \t]+)?(\S.*))?$", re.M)


@dataclass(frozen=True)
class Finding:
    """A standard that a change lowers.

    Attributes:
        file: The file that lowers it; a reason that names the file allows all its findings.
        name: The name that a reason in a commit uses.
        text: One sentence for people.
        trailer: The keyword of the line that allows it.
        reason: The reason that a commit gives; empty if there is none.
    """

    file: str
    name: str
    text: str
    trailer: str = "Lowers"
    reason: str = field(default="", compare=False)


def git(*words: str, fails: bool = False) -> str:
    """Return the output of git in this repository, whatever repository a hook or an alias named.

    Raises:
        subprocess.CalledProcessError: If git fails and `fails` is not set.
    """
    done = subprocess.run(
        ["git", *words], capture_output=True, text=True, errors="replace", check=not fails, env=environment.for_git()
    )
    return done.stdout if done.returncode == 0 else ""


def listed(*words: str) -> list[str]:
    """Return the paths that git prints with `-z`, relative to the folder of the project."""
    return [name for name in git(*words).split("\0") if name]


@dataclass(frozen=True)
class Base:
    """A commit to compare with.

    Attributes:
        commit: The commit, or another name that git knows.
    """

    commit: str

    def read(self, path: str) -> str | None:
        """Return the text of a file at this commit; None if it is not there."""
        return git("show", f"{self.commit}:./{path}") if path in self.files else None

    @cached_property
    def files(self) -> frozenset[str]:
        """All files at this commit."""
        return frozenset(listed("ls-tree", "-r", "-z", "--name-only", self.commit))

    @cached_property
    def changed(self) -> list[str]:
        """Files that differ from this commit: changed, added or removed, committed or not."""
        tracked = listed("diff", "-z", "--relative", "--name-only", "--no-renames", "--no-ext-diff", self.commit, "--")
        return sorted({*tracked, *listed("ls-files", "-z", "--others", "--exclude-standard")})

    @cached_property
    def updated(self) -> bool:
        """Whether `make update` brought another release since then, whose files are not a change of the project."""
        before = re.search(r"^_commit:.*$", self.read(".copier-answers.yml") or "", re.M)
        now = re.search(r"^_commit:.*$", read(".copier-answers.yml") or "", re.M)
        return bool(before and now and before[0] != now[0])

    def reasoned(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings, each with the reason that a commit since then gives for it."""
        messages = git("log", "--format=%B", f"{self.commit}..HEAD", fails=True)
        reasons = {name: why.strip() for name, why in REASON.findall(messages)}
        tests = {name: why.strip() or "no reason given" for name, why in REMOVED_TEST.findall(messages)}
        told = []
        for one in findings:
            given = tests if one.trailer == "Removes-test" else reasons
            why = given.get(one.name) or reasons.get(one.file, "")
            told.append(Finding(one.file, one.name, one.text, one.trailer, why))
        return told


def read(path: str) -> str | None:
    """Return the text of a file in the work tree; None if it is missing or a link that leads nowhere."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (the same path as in git)
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def find() -> tuple[Base | None, str]:
    """Return the commit to compare with, and a note where it is not the one that BASE names.

    BASE is empty or all zeros at a first push: then there is nothing to compare with.
    """
    named = os.environ.get("BASE", "").strip()
    if not named.strip("0"):
        return None, ""
    for commit in (named, "HEAD^"):
        found = git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", fails=True).strip()
        if found:
            instead = "" if commit == named else f"BASE {named} is not here; the change is compared with HEAD^ instead"
            return Base(found), instead
    return None, f"BASE {named} is not here, so nothing was compared with it; a checkout with fetch-depth: 0 has it"
