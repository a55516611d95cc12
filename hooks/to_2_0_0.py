"""The step to release 2.0: the user's files move, files of the user name the new modules, edits of the platform are carried over.

`before` runs before an update merges, `after` when Copier has merged. Standard library only, Python 3.10; Copier renders the
previous release as a child process.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from layout_2 import RUNTIME, TEXTS, Layout
from names_2 import problems
from renders_2 import ANSWERS, TEMPLATE, rendered, template_names

if TYPE_CHECKING:
    from migrate import Tree

SAVED = ".update"
"""The folder of a project with the edits that could not be merged."""
NOTES = f"{SAVED}/tests.md"
STARRED = ("README.md", "params.yaml", "prefect.yaml", "adoption.json", "tests/sample.py")
SEEDS = "notebooks/"
LARGEST = 1_000_000  # bytes of a text that may name modules
NO_PLACE = {
    "tests/": "the platform's tests are in the template's repository since 2.0",
    "": "2.0 has no such file",
}


def before(tree: Tree) -> None:
    """Change git's index and the work tree; a second run finishes what a killed one left, and changes nothing else."""
    layout = Layout(tree.package)
    step = Step(tree, layout)
    if any(path in step.tracked for path in layout.user_files()):
        step.collect()
        step.finish()
    elif not tree.plan:
        step.settle()


def after(tree: Tree) -> list[str]:
    """Put merged modules in their places after Copier's own merge, and return the edits that are saved as patches.

    Copier has no common base for a file of the platform that moved, so it marks a conflict in each. Git's index has the
    merged text: a project of release 1 tracks nothing else there.
    """
    listed = tree.git("ls-files", "--stage", "-z", "--", f"src/{RUNTIME}").split("\0")
    lines = []
    for mode, blob, stage, path in (re.split(r"[ \t]", line, maxsplit=3) for line in listed if line):
        if stage not in ("0", "2"):
            continue
        lines += [("0", "0" * len(blob), path), (mode, blob, path)]
        (tree.root / f"{path}.rej").unlink(missing_ok=True)
    if lines:
        tree.index(*lines)
        paths = sorted({path for _, _, path in lines})
        tree.git("checkout-index", "--force", "-z", "--stdin", given="\0".join(paths).encode())
    return [f"{path}: {reason}" for path, reason in saved(tree.root).items()]


def by_updater(root: Path) -> bool:
    """Whether the project's own updater runs this, in its clone of the project."""
    return root.parts[-3:] == (".cache", "update", "tree")


def saved(root: Path) -> dict[str, str]:
    """Return the patches of a project, each with its first line."""
    files = sorted((root / SAVED).rglob("*.patch"))
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        for path in files
    }


class Step:
    """The step on one project: new contents by path, written to git's index at once, then to the files.

    Attributes:
        tracked: mode of each file that git tracks, by path.
        changes: the new content by path; None deletes a file.
        bases: what the project's own updater takes for the previous release, by path.
        told: what is done, a line each.
        notes: tests and modules of the user that need work, with the reasons.
    """

    def __init__(self, tree: Tree, layout: Layout) -> None:
        self.tree, self.layout, self.package = tree, layout, tree.package
        listed = tree.git("ls-files", "--stage", "-z").split("\0")
        self.tracked = {line.partition("\t")[2]: line.split(" ")[0] for line in listed if line}
        self.changes: dict[str, bytes | None] = {}
        self.modes: dict[str, str] = {}
        self.bases: dict[str, bytes] = {}
        self.told: list[str] = []
        self.notes: list[str] = []

    # ------------------------------------------------------------------------------------------- What changes

    def collect(self) -> None:
        """Compute all changes; nothing is written.

        Raises:
            MigrationError: If something is in the way.
        """
        text = (self.tree.root / ANSWERS).read_text(encoding="utf-8")
        commit = re.search(r"^_commit: *['\"]?([^'\"\s]+)", text, re.M)
        if not commit:
            self.tree.refuse(
                f"{ANSWERS} has no _commit, so the previous release is unknown. Restore that line, commit."
            )
        assert commit
        self.old = rendered(commit[1], re.sub(r"^_.*\n(?:[ \t].*\n)*", "", text, flags=re.M))
        self.names = template_names(self.package)
        files = sorted(path for path in self.tracked if (self.tree.root / path).is_file() and not self._link(path))
        self._move_user_files()
        for path in files:
            if path in self.layout.user_files() or path == ANSWERS:
                continue
            base = self._rendered(path)
            if base is None or path in STARRED or path.startswith(SEEDS):
                self._rename(path, base)
            elif self._differs(path, base):
                self._carry_over(path, base)
        self._adoption()
        self._own_tests()

    def _move_user_files(self) -> None:
        for old, new in self.layout.user_files().items():
            if old not in self.tracked:
                continue
            for path in (old, new):
                if self._link(path):
                    self.tree.refuse(
                        f"{path} is a link, and an update changes no files outside of the project. Put the file there."
                    )
            if (self.tree.root / new).exists() or new in self.tracked:
                self.tree.refuse(
                    f"{old} moves to {new} in this release, and another file is there. Rename that one, commit."
                )
            content = self._content(old)
            self._move(old, new, self._renamed(old, content), f"moves {old} to {new}")
            base = self._rendered(old)
            if base is not None:
                self.bases[old] = self.bases[new] = self._renamed(old, base)

    def _rename(self, path: str, base: bytes | None) -> None:
        """A file of the user's: new names of modules, files and commands."""
        if not self._text(path):
            return
        content = self._content(path)
        new = self._renamed(path, content)
        if base is not None:
            self.bases[path] = self._renamed(path, base)
        if new != content:
            self._change(path, new, f"names the modules of 2.0 in {path}")

    def _carry_over(self, path: str, base: bytes) -> None:
        """An edited file of the platform: merged into its new place, or saved as a patch."""
        content, new_path = self._content(path), self.layout.new_path(path)
        if new_path == path and path in self.names:  # the update merges it where it is
            lines = (
                self._added_lines(path, base, content) if self._text(path) or "." not in Path(path).name else content
            )
            if lines != content:
                self._change(path, lines, f"names the modules of 2.0 in your lines of {path}")
            return
        if hashlib.sha256(content).hexdigest() == self._born(path):  # written by `make adopt`, and not edited since
            self.changes[path] = None
            return
        theirs = self._new(new_path) if new_path != path else None
        base, ours = self._renamed(path, base), self._renamed(path, content)
        if theirs is None:
            reason = next(reason for start, reason in NO_PLACE.items() if path.startswith(start))
            self._save(path, path, base, ours, reason)
            return
        merged = self._merged(base, ours, theirs)
        if merged is None:
            self._save(path, new_path, base, ours, f"{new_path} has other lines there")
            return
        self._move(path, new_path, merged, f"merges your edits of {path} into {new_path}")
        self.bases[path] = self.bases[new_path] = theirs

    def _save(self, path: str, new_path: str, base: bytes, ours: bytes, reason: str) -> None:
        old, mine = (side.decode("utf-8", "surrogateescape").splitlines(keepends=True) for side in (base, ours))
        diff = difflib.unified_diff(old, mine, f"a/{new_path}", f"b/{new_path}")
        text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in diff)
        target = f"{SAVED}/{new_path}.patch"
        head = (
            f"Your edits of {path} are not in release 2.0: {reason}.\n"
            f"Put them where they belong now. Then delete this file: git rm {target}\n\n"
        )
        self.changes[path] = None
        self._change(
            target,
            (head + text).encode("utf-8", "surrogateescape"),
            f"saves your edits of {path} as {target}: {reason}",
        )

    def _adoption(self) -> None:
        """The digests in adoption.json of files that this step changed."""
        path = "adoption.json"
        for contents, base in ((self.changes, False), (self.bases, True)):
            text = contents.get(path)
            if text is None:
                continue
            try:
                known = json.loads(text)
                entries = dict(known["files"])
            except (ValueError, KeyError, TypeError):
                continue
            for old, new in [*self.layout.user_files().items(), *((one, one) for one in STARRED)]:
                was = self._rendered(old) if base else self._content(old) if old in self.tracked else None
                now = contents.get(new)
                if was is not None and now is not None and entries.get(new) == hashlib.sha256(was).hexdigest():
                    entries[new] = hashlib.sha256(now).hexdigest()
            known["files"] = {
                name: digest for name, digest in entries.items() if name in self.names or not self._gone(name)
            }
            contents[path] = (json.dumps(known, indent=2, ensure_ascii=False) + "\n").encode()

    def _gone(self, name: str) -> bool:
        return self._rendered(name) is not None and name not in self.names

    def _own_tests(self) -> None:
        """What the user's own modules and tests use, and 2.0 does not have."""
        own = {}
        for path in sorted({*self.tracked, *self.changes}):
            moved = path in self.layout.user_files().values()
            if path.endswith((".py", ".ipynb")) and (self._rendered(path) is None or moved or path in STARRED):
                content = self.changes[path] if path in self.changes else self._content(path)
                if content is not None:
                    own[path] = content.decode("utf-8", "replace")
        fixtures = TEMPLATE / "template/src" / RUNTIME / "testing/fixtures.py"
        self.notes = problems(own, self.package, TEMPLATE / "template/src", self.old, fixtures, self.names)
        if self.notes:
            head = "Parts of your own code use something that release 2.0 does not have:\n\n"
            self.changes[NOTES] = (head + "".join(f"- {line}\n" for line in self.notes)).encode()
            self.told += [f"note: {line}" for line in self.notes]

    # ------------------------------------------------------------------------------------------- The parts of it

    def _change(self, path: str, content: bytes | None, said: str) -> None:
        self.changes[path] = content
        self.told.append(said)

    def _move(self, old: str, new: str, content: bytes, said: str) -> None:
        self.changes[old], self.modes[new] = None, self.tracked[old]
        self._change(new, content, said)

    def _content(self, path: str) -> bytes:
        return (self.tree.root / path).read_bytes()

    def _rendered(self, path: str) -> bytes | None:
        file = self.old / path
        return file.read_bytes() if file.is_file() else None

    def _new(self, path: str) -> bytes | None:
        file = TEMPLATE / "template" / path
        return file.read_bytes() if path and file.is_file() else None

    def _link(self, path: str) -> bool:
        return any((self.tree.root / part).is_symlink() for part in (Path(path), *Path(path).parents))

    def _differs(self, path: str, base: bytes) -> bool:
        return self._content(path).replace(b"\r\n", b"\n") != base.replace(b"\r\n", b"\n")

    def _text(self, path: str) -> bool:
        small = (self.tree.root / path).stat().st_size <= LARGEST
        hidden = path.startswith((".dvc/", "reports/", f"{SAVED}/", f"src/{RUNTIME}/")) or path == "champion.json"
        return small and not hidden and path.endswith(TEXTS)

    def _renamed(self, path: str, content: bytes) -> bytes:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            return content
        ends = "\r\n" in text
        new = self.layout.file(path, text.replace("\r\n", "\n"))
        return new.replace("\n", "\r\n").encode() if ends else new.encode()

    def _added_lines(self, path: str, base: bytes, content: bytes) -> bytes:
        """A file with the new names in the lines that the user wrote."""
        try:
            old, mine = (side.decode("utf-8").splitlines(keepends=True) for side in (base, content))
        except UnicodeDecodeError:
            return content
        found: list[str] = []
        for kind, _, _, start, end in difflib.SequenceMatcher(None, old, mine, autojunk=False).get_opcodes():
            lines = mine[start:end]
            found += lines if kind == "equal" or path.endswith(".py") else map(self.layout.text, lines)
        return "".join(found).encode()

    def _born(self, path: str) -> str:
        try:
            return str(json.loads((self.tree.root / "adoption.json").read_bytes())["files"].get(path, ""))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return ""

    def _merged(self, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        """The three texts as one; None if they conflict."""
        with tempfile.TemporaryDirectory(prefix="migrate-") as scratch:
            files = [Path(scratch) / name for name in ("ours", "base", "theirs")]
            for file, content in zip(files, (ours, base, theirs)):  # noqa: B905 (three of each)
                file.write_bytes(content)
            done = subprocess.run(["git", "merge-file", "-p", "-q", *map(str, files)], capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else None

    # ------------------------------------------------------------------------------------------- Writing

    def finish(self) -> None:
        """Say what is done; do it unless it is a plan."""
        for line in self.told:
            self.tree.say(line)
        if self.tree.plan:
            return
        if by_updater(self.tree.root):
            self._hand_over()
        lines, none = [], "0" * len(self.tree.git("rev-parse", "HEAD"))
        for path, content in sorted(self.changes.items(), key=lambda item: item[1] is not None):
            if content is None:
                lines.append(("0", none, path))
                continue
            blob = self.tree.git("hash-object", "-w", "--stdin", "--path", path, given=content)
            lines.append((self.modes.get(path, self.tracked.get(path, "100644")), blob, path))
        self.tree.index(*lines)  # in one write: a kill leaves all of the step in the index, or nothing
        self.settle(force=True)

    def _hand_over(self) -> None:
        """Write the common bases of files that moved where the updaters of 1.0 to 1.3 look for them.

        These updaters render the previous release into the folder `before`, beside their clone of the template, and merge
        each file against it. They know no base for a file that moved and changed.
        """
        folder = TEMPLATE.parent / "before"
        if (folder / ANSWERS).is_file():
            for path, content in self.bases.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)

    def settle(self, force: bool = False) -> None:
        """Make the files as git's index has them, where they are as the last commit has them.

        Args:
            force: whether the index was made from the files, so that none of their edits can be lost.
        """
        for status, path in self._staged():
            file = self.tree.root / path
            if file.exists() and not force:
                known = self.tree.git("rev-parse", f"HEAD:./{path}") if status != "A" else ""
                if self.tree.git("hash-object", "--", path) != known:
                    continue
            if status != "D":
                file.parent.mkdir(parents=True, exist_ok=True)
                self.tree.git("checkout-index", "--force", "--", path)
                continue
            file.unlink(missing_ok=True)
            for folder in file.parents:
                if folder == self.tree.root or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()

    def _staged(self) -> Iterator[tuple[str, str]]:
        words = ("diff", "--cached", "--name-status", "--no-renames", "--relative", "-z", "HEAD")
        listed = self.tree.git(*words).split("\0")
        return zip(listed[::2], listed[1::2])  # noqa: B905 (the last entry ends the list)
