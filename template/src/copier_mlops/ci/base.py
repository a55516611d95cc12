"""The commit that a change is compared with, and the reasons that commits give for a lowered standard."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from copier_mlops import _environment

ANSWERS = ".copier-answers.yml"
TRAILER = "Template-release"  # as in updates.upstream, which needs more than the standard library
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
        ["git", *words], capture_output=True, text=True, errors="replace", check=not fails, env=_environment.for_git()
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
    _trees: dict[str, dict[str, str]] = field(default_factory=dict, compare=False, repr=False)

    def read(self, path: str) -> str | None:
        """Return the text of a file at this commit, or at the update that brought it; None if it is not there."""
        commit = self.updated.get(path, self.commit)
        return git("show", f"{commit}:./{path}") if path in self._blobs(commit) else None

    def _blobs(self, commit: str) -> dict[str, str]:
        """Return all files of a commit with their modes and hashes; nothing where the commit does not exist."""
        if commit not in self._trees:
            lines = git("ls-tree", "-r", "-z", commit, fails=True).split("\0")
            self._trees[commit] = {path: blob for blob, _, path in (line.partition("\t") for line in lines) if path}
        return self._trees[commit]

    @cached_property
    def differing(self) -> list[str]:
        """All files that differ from this commit: changed, added or removed, committed or not."""
        return sorted({*_differing(self.commit), *self._untracked})

    @cached_property
    def changed(self) -> list[str]:
        """Files that the project changed; a file that an update brought counts if it differs from that update."""
        found = {path for path in self.differing if path not in self.updated}
        for update in {*self.updated.values()}:
            differing = {*_differing(update), *self._untracked}
            found |= {path for path in differing if self.updated.get(path) == update}
        return sorted(found)

    @cached_property
    def _untracked(self) -> list[str]:
        return listed("ls-files", "-z", "--others", "--exclude-standard")

    @cached_property
    def updates(self) -> list[str]:
        """Commits that updates of the template made since this commit, the oldest first."""
        words = ("log", "--reverse", "--topo-order", "--no-merges", "--format=%H", f"--grep=^{TRAILER}: ")
        return git(*words, f"{self.commit}..HEAD", fails=True).split()

    @cached_property
    def updated(self) -> dict[str, str]:
        """Files that updates changed, each with the last of these commits.

        A file is left out if the project changed it between this commit and an update: it is compared with this commit.
        """
        last: dict[str, str] = {}
        content: dict[str, str | None] = dict(self._blobs(self.commit))
        mixed = set()
        for update in self.updates:
            before, after = self._blobs(f"{update}^"), self._blobs(update)
            for path in {*before, *after}:
                if before.get(path) != after.get(path):
                    if content.get(path) != before.get(path):
                        mixed.add(path)
                    content[path], last[path] = after.get(path), update
        return {path: update for path, update in last.items() if path not in mixed}

    def releases(self) -> tuple[str, str, set[str]]:
        """Return the release of the template at this commit, the one in the work tree, and those that updates brought."""
        return self._recorded("_commit")

    def templates(self) -> tuple[str, str, set[str]]:
        """Return the address of the template at this commit, the one in the work tree, and those that updates recorded."""
        return self._recorded("_src_path")

    def _recorded(self, key: str) -> tuple[str, str, set[str]]:
        brought = {_answer(key, git("show", f"{update}:./{ANSWERS}", fails=True)) for update in self.updates}
        before = git("show", f"{self.commit}:./{ANSWERS}", fails=True)
        return _answer(key, before), _answer(key, read(ANSWERS) or ""), brought

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


def _differing(commit: str) -> list[str]:
    words = ("diff", "-z", "--relative", "--name-only", "--no-renames", "--no-ext-diff")
    return listed(*words, commit, "--")


def _answer(key: str, text: str) -> str:
    found = re.search(rf"^{key}:[ \t]*(.*)$", text, re.M)
    return found[1].strip("'\" ") if found else ""


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
