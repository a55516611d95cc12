"""What an update cannot do by itself: a release that moves a file of the user's, or renames an answer, brings it along here.

python hooks/migrate.py VERSION [--plan] [PROJECT]     the steps of one release; --plan says what it would do
python hooks/migrate.py VERSION --after [PROJECT]      what is left to do when Copier has merged

Copier runs it before an update merges (`_migrations` in copier.yml), with the Python that runs Copier: standard library
only, nothing newer than 3.10. Everything is looked at before anything is changed, each step is done whole or not at all,
and what is done already is left alone: after a kill, run it again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import NoReturn

ANSWERS = ".copier-answers.yml"
OUTER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # what a git hook around us would lead elsewhere
FRESH = ".migrating"  # ends the name of what is written beside a file before it takes its place


class MigrationError(Exception):
    """The project cannot be brought along; the text says what is in the way, where, and what to do."""


class Tree:
    """The files of a project that git tracks, for the steps of a release.

    Paths are relative to the project, with slashes; `{package}` in one stands for the project's package. Nothing outside
    the project is read or written, nor through a link, nor what git does not know: git has what was there before.

    Attributes:
        root: The project.
        plan: Whether the steps only say what they would do.
    """

    def __init__(self, root: Path, plan: bool = False, say: Callable[[str], object] = print) -> None:
        """Raises MigrationError if the folder is no project, or not in a git repository."""
        self.root = root.resolve()
        self.plan = plan
        self._say = say
        self._comes_from: dict[str, str] = {}  # what a plan has moved: new path, old path
        self._would_be: dict[str, bytes] = {}  # what a plan has changed, by old path
        if not (self.root / ANSWERS).is_file():
            raise MigrationError(f"{root} has no {ANSWERS}: it is no project of this template. Name its folder.")
        self._prefix = self._git("rev-parse", "--show-prefix")  # git's index names files from the repository's top

    # ------------------------------------------------------------------------------------------- What a release can do

    def move(self, old: str, new: str) -> None:
        """Move a file with all that the user made of it, committed or not.

        Raises:
            MigrationError: If another file is where it goes, or git does not know it.
        """
        old, new = self._inside(old), self._inside(new)
        known = self._entry(old)
        here, there = self._there(old), self._there(new)
        if not here and not there:
            return self._tell(f"{old} is not here: nothing to move")
        if not known and there:
            return self._tell(f"{old} is {new} already")
        if not known and not self._entry(new):
            raise MigrationError(
                f"{old} is not known to git, so a move could lose it. Do `git add {old}`, then the same again."
            )
        if there or (known and self._entry(new)):
            raise MigrationError(
                f"{old} moves to {new} in this release, and another file is there. "
                f"Rename that one, commit, then the same again."
            )
        self._tell(f"moves {old} to {new}", f"would move {old} to {new}")
        if self.plan:
            self._comes_from[new] = self._comes_from.pop(old, old)
            return None
        # The index first, in one write. A kill before the rename leaves a state that nothing else makes: the new name
        # known and not here, the old one here and not known. Nothing is lost in it, and the next run ends the move.
        if known:
            mode, blob = known
            self._index((mode, blob, new), ("0", "0" * len(blob), old))
        (self.root / new).parent.mkdir(parents=True, exist_ok=True)
        (self.root / old).rename(self.root / new)
        for folder in (self.root / old).parents:  # as `git mv` does
            if folder == self.root or any(folder.iterdir()):
                break
            folder.rmdir()
        return None

    def rename_answer(self, old: str, new: str) -> None:
        """Let the answer of a question be that of its successor.

        Raises:
            MigrationError: If both are answered.
        """
        text = self._read(ANSWERS).decode()
        of_old, of_new = (re.search(rf"^{re.escape(key)}:", text, re.M) for key in (old, new))
        if not of_old:
            return self._tell(
                f"answer {old} is {new} already" if of_new else f"answer {old} is not here: nothing to rename"
            )
        if of_new:
            raise MigrationError(
                f"{ANSWERS} answers both {old} and {new}. Take the line of {old} out, commit, then the same again."
            )
        self._tell(f"renames answer {old} to {new}", f"would rename answer {old} to {new}")
        return self._write(ANSWERS, (text[: of_old.start()] + f"{new}:" + text[of_old.end() :]).encode())

    def replace(self, path: str, old: str, new: str) -> None:
        """Put a text in the place of another, wherever that stands in a file.

        Raises:
            MigrationError: If git does not know the file, or it can never be done: the new text holds the old one.
        """
        path, old, new = self._inside(path), self._named(old), self._named(new)
        if not old or old in new:
            raise MigrationError(f"{old!r} cannot be replaced by {new!r}: a second run would do it again.")
        if not self._there(path):
            return self._tell(f"{path} is not here: nothing to replace")
        content = self._read(path)
        ends = b"\r\n" if b"\r\n" in content else b"\n"
        before, after = (text.encode().replace(b"\n", ends) for text in (old, new))
        count = content.count(before)
        if not count:
            return self._tell(f"{path} has no {old!r}: nothing to replace")
        times = "once" if count == 1 else f"{count} times"
        self._tell(
            f"replaces {old!r} by {new!r} in {path}, {times}", f"would replace {old!r} by {new!r} in {path}, {times}"
        )
        return self._write(path, content.replace(before, after))

    def refuse(self, why: str) -> NoReturn:
        """Stop before anything is changed.

        Raises:
            MigrationError: With the reason.
        """
        raise MigrationError(f"{why} Then run the same command again.")

    def say(self, line: str) -> None:
        """Report one thing that the step does."""
        self._tell(line)

    def git(self, *words: str, given: bytes = b"") -> str:
        """Return the output of git in the project.

        Raises:
            MigrationError: If git fails.
        """
        return self._git(*words, given=given)

    def index(self, *entries: tuple[str, str, str]) -> None:
        """Change git's index in one write: mode, blob and path of each file; the mode 0 takes a file out."""
        self._index(*entries)

    @cached_property
    def package(self) -> str:
        """The project's package.

        Raises:
            MigrationError: If it cannot be told which one that is.
        """
        layouts = (("cli.py", "api.py"), ("schema.py", "features.py", "model.py"))  # of release 1, and since 2.0
        found: list[str] = []
        for names in layouts:
            found = found or [
                folder.name
                for folder in sorted(self.root.glob("src/*"))
                if all((folder / name).exists() for name in names)
            ]
        if len(found) != 1:  # somebody's second package beside ours, or files that were moved
            answers = (self.root / ANSWERS).read_text(encoding="utf-8")
            found = re.findall(r"^package: (\w+)$", answers, re.M)
        if len(found) != 1:
            raise MigrationError(
                f"which folder of {self.root / 'src'} is this project's package? It has to be the only one with cli.py "
                f"and api.py, or with schema.py, features.py and model.py, or named by a line `package: name` in {ANSWERS}."
            )
        return found[0]

    # ------------------------------------------------------------------------------------------------- Behind it

    def _tell(self, done: str, planned: str = "") -> None:
        self._say(f"  {planned if self.plan and planned else done}")

    def _named(self, text: str) -> str:
        return text.replace("{package}", self.package) if "{package}" in text else text

    def _inside(self, path: str) -> str:
        """The path with its names, held to the project: no link on the way, none at its end."""
        name = PurePosixPath(self._named(path))
        if name.is_absolute() or ".." in name.parts or not name.parts or name.parts[0] == ".git":
            raise MigrationError(f"{path} is no path inside a project")
        for part in (*reversed(name.parents), name):
            if (self.root / part).is_symlink() and part.parts:
                raise MigrationError(
                    f"{part} is a link, and what it leads to is not for an update to change. "
                    f"Do by hand what this release does with {name}, or put the file itself there; commit, then the same again."
                )
            if part != name and (self.root / part).exists() and not (self.root / part).is_dir():
                raise MigrationError(
                    f"{part} is a file, and {name} needs a folder there. Rename it, commit, then the same again."
                )
        if (self.root / name).is_dir():
            raise MigrationError(f"{name} is a folder, and a file is meant. Rename it, commit, then the same again.")
        return str(name)

    def _there(self, path: str) -> bool:
        """Whether a file is in its place, or would be by now."""
        return path in self._comes_from or (os.path.lexists(self.root / path) and path not in self._comes_from.values())

    def _entry(self, path: str) -> tuple[str, str] | None:
        """Mode and content of a file as git's index has it; None where git does not know it."""
        origin = self._comes_from.get(path, path)
        if origin == path and path in self._comes_from.values():
            return None
        listed = self._git("ls-files", "--stage", "-z", "--", origin).rstrip("\0")
        if not listed and origin != path:  # moved in git's index by a run that was stopped before the file itself
            listed = self._git("ls-files", "--stage", "-z", "--", path).rstrip("\0")
        if not listed:
            return None
        mode, blob, stage = listed.partition("\t")[0].split(" ")
        if stage != "0":
            raise MigrationError(f"{path} is in the middle of a merge. Resolve it, commit, then the same again.")
        return mode, blob

    def _read(self, path: str) -> bytes:
        path = self._inside(path)
        if not self._entry(path):
            raise MigrationError(
                f"{path} is not known to git, so a change could not be undone. Do `git add {path}`, then the same again."
            )
        origin = self._comes_from.get(path, path)
        return self._would_be[origin] if origin in self._would_be else (self.root / origin).read_bytes()

    def _write(self, path: str, content: bytes) -> None:
        """Another content for a file, whole or not at all. The index first: what Copier merges is what git knows, and a
        kill in between leaves the old text in the file, so that the next run does the same again."""
        if self.plan:
            self._would_be[self._comes_from.get(path, path)] = content
            return
        known = self._entry(path)
        assert known
        self._index((known[0], self._git("hash-object", "-w", "--stdin", "--path", path, given=content), path))
        file = self.root / path
        fresh = file.with_name(file.name + FRESH)
        fresh.write_bytes(content)
        fresh.chmod(file.stat().st_mode)
        fresh.replace(file)

    def _index(self, *entries: tuple[str, str, str]) -> None:
        """Change what git knows, all of it in one write: mode, content and path; mode 0 takes a path out."""
        lines = "".join(f"{mode} {blob}\t{self._prefix}{path}\0" for mode, blob, path in entries)
        self._git("update-index", "-z", "--index-info", given=os.fsencode(lines))

    def _git(self, *words: str, given: bytes = b"") -> str:
        environment = {key: value for key, value in os.environ.items() if key not in OUTER}
        try:
            done = subprocess.run(
                ["git", "--literal-pathspecs", *words],
                cwd=self.root,
                env=environment,
                input=given,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise MigrationError(f"git cannot be run: {error}") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise MigrationError(f"git {words[0]} failed in {self.root}: {said}")
        return os.fsdecode(done.stdout).rstrip("\n")


# --------------------------------------------------------------------------------------------------- The releases

# A function for each release that moves a file of the user's or renames a question, named in the table below and by an
# entry of `_migrations` in copier.yml. It knows the files as the release before left them. docs/releasing.md says more.
#
#     def to_3_0_0(tree: Tree) -> None:
#         """The contract has a folder of its own."""
#         tree.move("src/{package}/schema.py", "src/{package}/contract/schema.py")
#         tree.replace("src/{package}/features.py", "from .schema import", "from .contract.schema import")
#         tree.rename_answer("data_remote", "data_store")


def to_2_0_0(tree: Tree) -> None:
    """The platform becomes the package copier_mlops, and the user's four files move."""
    _module("to_2_0_0").before(tree)


def after_2_0_0(tree: Tree) -> list[str]:
    """Merged modules take their places; returns the edits that could not be merged."""
    listed: list[str] = _module("to_2_0_0").after(tree)
    return listed


def _module(name: str) -> ModuleType:
    """A module beside this file, also where this file was read without its folder on the path."""
    folder = str(Path(__file__).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return import_module(name)


RELEASES: dict[str, Callable[[Tree], None]] = {
    "2.0.0": to_2_0_0,
}
AFTER: dict[str, Callable[[Tree], list[str]]] = {
    "2.0.0": after_2_0_0,
}
"""What some releases do when Copier has merged; each function returns what is left for a person."""


def migrate(version: str, project: Path, plan: bool = False) -> None:
    """Run the steps of a release, or say what they would do.

    Raises:
        MigrationError: If the release has none, or something is in the way; nothing has been changed then.
    """
    if version not in RELEASES:
        known = ", ".join(RELEASES) or "no release has any yet"
        raise MigrationError(f"release {version} has no steps in {Path(__file__).name}. Those that have: {known}.")
    step = RELEASES[version]
    step(Tree(project, plan=True, say=print if plan else lambda line: None))
    if not plan:
        step(Tree(project))


def finish(version: str, project: Path) -> int:
    """Do what a release does after the merge; 1 if something is left for a person.

    The project's own updater reads the exit code as a failure of Copier. It reports what is left with `make check`.

    Raises:
        MigrationError: If git fails.
    """
    tree = Tree(project)
    left = AFTER[version](tree) if version in AFTER else []
    if not left or _module("to_2_0_0").by_updater(tree.root):
        return 0
    print("error: the update is done, but these edits of yours are not in it:", file=sys.stderr)
    print("\n".join(f"  {line}" for line in left), file=sys.stderr)
    print("Each file has the edit and says where it belongs. Delete it when it is there.", file=sys.stderr)
    return 1


def main() -> int:
    """0 if the project is as the release wants it, 1 if something is in the way."""
    parser = argparse.ArgumentParser(description="The steps of a release on a project, before an update merges.")
    parser.add_argument("version", help="the release, such as 2.0.0")
    parser.add_argument("project", nargs="?", type=Path, default=Path(), help="the project; this folder if not given")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--after", action="store_true", help="do what is left to do when Copier has merged")
    given = parser.parse_intermixed_args()
    if given.after:
        try:
            return finish(given.version, given.project)
        except (MigrationError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(f"{'plan of' if given.plan else 'steps of'} release {given.version}:", flush=True)
    try:
        migrate(given.version, given.project, given.plan)
    except (MigrationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
