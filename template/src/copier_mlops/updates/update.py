"""Move this project to a newer release of its template, or to other answers, without losing an edit of its owner.

The update is merged, locked, checked and tested in a clone below .cache/update. If it passes, it becomes a branch of
the project; conflicts are marked on that branch. Databases are copied before newer packages open them.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import difflib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from copier_mlops import _env_file, _files
from copier_mlops._environment import for_make
from copier_mlops._environment_names import GIT_NEUTRAL
from copier_mlops._errors import print_error
from copier_mlops.updates.three_way_merge import HERE, merge
from copier_mlops.updates.upstream import (
    ANSWERS,
    FIXED,
    LINE_ENDS,
    MIRROR,
    OURS,
    TRAILER,
    YOURS,
    Origin,
    OriginError,
    Ownership,
    Release,
    address,
    answers,
    edited_answers,
    files,
    for_copier,
    git_environment,
    neutral,
    run,
)

PLACE = Path(".cache/update")
STATE = PLACE / "state.json"
CHECKS = PLACE / "checks.log"
"""The whole output of the last checks."""
BACKUPS = 3
LENT = ("GITHUB_TOKEN", "UPDATE_TOKEN", "FLEET_TOKEN")
IN_PROGRESS = {
    "rebase-merge": "git rebase --continue, or git rebase --abort",
    "rebase-apply": "git rebase --continue or git am --continue, or the same with --abort",
    "MERGE_HEAD": "git commit, or git merge --abort",
    "CHERRY_PICK_HEAD": "git cherry-pick --continue, or git cherry-pick --abort",
    "REVERT_HEAD": "git revert --continue, or git revert --abort",
    "BISECT_LOG": "git bisect reset",
}
"""Files of git's folder that an unfinished command leaves, each with the commands that end it."""


@dataclass(frozen=True)
class Conflict:
    """A file that the owner and the template both changed.

    Attributes:
        marked: its bytes with marks around each conflict; those of the project if it is binary.
        sides: the bytes of the previous release (None if it had no such file), of the project, of the next release.
        place: the place for the owner's code instead of this file; empty if docs/ownership.md names none.
    """

    marked: bytes
    sides: tuple[bytes | None, bytes, bytes]
    place: str

    @property
    def lines(self) -> list[int]:
        """Where the marks begin, counted from 1."""
        return [number for number, line in enumerate(self.marked.splitlines(), 1) if line.startswith(HERE.encode())]

    def as_json(self) -> dict[str, Any]:
        texts = [None if side is None else base64.b64encode(side).decode() for side in (self.marked, *self.sides)]
        return {"texts": texts, "place": self.place}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Conflict:
        marked, before, here, after = (None if text is None else base64.b64decode(text) for text in saved["texts"])
        assert marked is not None and here is not None and after is not None
        return cls(marked, (before, here, after), saved["place"])


@dataclass(frozen=True)
class Missed:
    """A change of the template to a file that the owner deleted or renamed.

    Attributes:
        path: the file as the template names it.
        renamed: its path in the project; empty if it was deleted.
        patch: the change as a unified diff of that path; empty if it is binary or the template deleted the file.
        gone: whether the next release has no such file.
    """

    path: str
    renamed: str
    patch: str
    gone: bool

    def __str__(self) -> str:
        if self.gone:
            return f"{self.path}, which you renamed to {self.renamed}, is no longer in the template"
        lines = [line[:1] for line in self.patch.splitlines()[2:]]
        size = f"+{lines.count('+')} -{lines.count('-')} lines" if lines else "binary"
        now = (
            f"renamed to {self.renamed}, which does not have the change"
            if self.renamed
            else "deleted; it stays deleted"
        )
        return f"the release changes {self.path} ({size}), which you {now}"


@dataclass
class Outcome:
    """The result of a merge.

    Attributes:
        old, new: the releases.
        branch: the name of its branch in the clone.
        start: the commit that it began on.
        changed: the number of changed files.
        stat: the output of `git diff --stat`.
        changelog: the notes for the project's owner.
        conflicts: the files that the owner has to decide; in the clone they are as they were.
        kept: files that the template dropped and the owner had changed.
        missed: changes of the template to files that the owner deleted or renamed.
    """

    old: Release
    new: Release
    branch: str
    start: str
    changed: int = 0
    stat: str = ""
    changelog: str = ""
    conflicts: dict[str, Conflict] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)

    def notes(self) -> list[str]:
        """One line for each change that the merge did not bring."""
        kept = [f"{path} is no longer in the template; you changed it, so it stays and is yours" for path in self.kept]
        return [*kept, *map(str, self.missed)]

    def patch(self) -> str:
        """The changes that the renamed files of the owner do not have."""
        return "".join(one.patch for one in self.missed if one.renamed)


# ------------------------------------------------------------------------------------------------------- Before


def git(project: Path, *words: str, fails: bool = False, text: str | None = None, **variables: str) -> str:
    """Run git in a project; if git has no identity, commits have a placeholder as their author.

    Raises:
        OriginError: If it fails and `fails` is false.
    """
    known = run("git", "config", "user.email", at=project, fails=True).strip()
    who = () if known else ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    return run("git", *who, *words, at=project, fails=fails, text=text, variables=variables)


def commit(place: Path, release: str, message: str, rendered: Sequence[str] = ()) -> None:
    """Commit all changes, marked as made by an update; files of the template also where .gitignore names them."""
    git(place, "add", "--all")
    if rendered:
        git(place, "add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", text="\0".join(rendered), GIT_LITERAL_PATHSPECS="1")  # fmt: skip
    git(place, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", f"{message}\n\n{TRAILER}: {release}\n")


def by_updates(place: Path, since: str, until: str) -> bool:
    """Whether all commits between two were made by updates."""
    told = git(place, "log", f"--format=%H %(trailers:key={TRAILER},valueonly,separator=%x2C)", f"{since}..{until}")
    return all(len(line.split(maxsplit=1)) == 2 for line in told.splitlines())


def clean(project: Path, plan: bool = False) -> None:
    """Refuse to start on work that git does not have; a plan reads the last commit, so only the answers count.

    Raises:
        OriginError: If the project is no repository of its own, or something is not committed.
    """
    top = git(project, "rev-parse", "--show-toplevel", fails=True).strip()
    if not top or Path(top).resolve() != project.resolve():
        raise OriginError(f"{project} is no git repository of its own; `make setup` makes it one")
    dirty = git(project, "status", "--porcelain", *(["--", ANSWERS] if plan else [])).splitlines()
    listed = "\n  ".join(dirty[:10])
    if not plan:
        _settled(project, listed)
    if dirty:
        raise OriginError(
            f"these are not committed, so an update could hurt them:\n  {listed}\nCommit them (git add --all && git commit) or put them "
            "away (git stash --include-untracked), then do it again."
        )


def _settled(project: Path, dirty: str) -> None:
    """Refuse to start in the middle of an update, a merge or a rebase: git could not change the branch afterwards.

    Raises:
        OriginError: If one is not finished.
    """
    unmerged = git(project, "ls-files", "--unmerged")
    if unmerged and (project / STATE).exists() and State.load(project).branch == head(project):
        raise OriginError(
            f"the update on this branch has conflicts:\n  {dirty}\nDecide, git add them, then make update CONTINUE=1. "
            "make update-undo goes back."
        )
    for name, remedy in IN_PROGRESS.items():
        if (project / git(project, "rev-parse", "--git-path", name).strip()).exists():
            files = f":\n  {dirty}" if dirty else ""
            raise OriginError(
                f"a git command is not finished here ({name}), and an update cannot change the branch{files}\nFinish it or take it "
                f"back ({remedy}), then do it again."
            )
    if unmerged:
        raise OriginError(f"these files have conflicts:\n  {dirty}\nDecide, git add them and commit, then do it again.")


def choose(project: Path, origin: Origin, ref: str, given: Mapping[str, str]) -> tuple[Release, Release] | None:
    """From which release to which; None if there is nothing to do.

    Raises:
        OriginError: If an answer is fixed, or one to no question; if a release is unknown, or lies behind.
    """
    known = answers(project)
    by_hand = edited_answers(project)
    if by_hand:
        raise OriginError(f"fixed answers in {ANSWERS} were edited:\n  " + "\n  ".join(by_hand))
    for name, reason in FIXED.items():
        if name in given and given[name] != str(known.get(name)):
            raise OriginError(
                f"{name} is fixed since this project began ({known.get(name)}): {reason}. A project with another answer "
                "is a new one: copier copy"
            )
    old = origin.recorded(project)
    new = origin.release(ref) if ref else origin.newest()
    if old.version and new.version and new.version < old.version:
        if ref:
            raise OriginError(f"{new.ref} lies behind {old.ref}, and updates do not go back; make update-undo does")
        new = old
    changes = any(known.get(name) != value for name, value in understood(origin.questions(new), given).items())
    return (old, new) if changes or new.commit != old.commit else None


def understood(asked: Mapping[str, Mapping[str, Any]], given: Mapping[str, str]) -> dict[str, Any]:
    """Answers as people type them, as Copier takes them: `online,batch` where several may be chosen, `yes` where it is yes or no.

    Raises:
        OriginError: If one answers no question, or says neither yes nor no where that is asked.
    """
    found: dict[str, Any] = {}
    for name, text in given.items():
        if name not in asked:
            close = difflib.get_close_matches(name, asked, n=1)
            meant = f"; did you mean {close[0]}?" if close else "."
            raise OriginError(f"{name} is no question of the template{meant} It asks {', '.join(asked)}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        if asked[name].get("multiselect"):
            several = value if isinstance(value, list) else text.strip("[] ").split(",")
            found[name] = [str(one).strip() for one in several if str(one).strip()]
        elif asked[name].get("type") == "bool":
            if not isinstance(value, bool):  # Copier takes any word for no
                raise OriginError(f"{name} is answered yes or no, not {text}")
            found[name] = value
        else:
            found[name] = text
    return found


# ------------------------------------------------------------------------------------------------------- Merging


def stage(project: Path, branch: str) -> Path:
    """Clone the project's last commit onto a branch of its own, with the bytes of the commit and its submodules."""
    place = project / PLACE / "tree"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    settings = [
        word
        for name in (*LINE_ENDS, "core.excludesFile")
        for word in ("--config", f"{name}={GIT_NEUTRAL.get(name, os.devnull)}")
    ]
    git(project, "clone", "--quiet", "--local", *settings, ".", str(place))
    for name in ("user.name", "user.email"):
        value = git(project, "config", name, fails=True).strip()
        if value:
            git(place, "config", name, value)
    git(place, "checkout", "--quiet", "-B", branch)
    _submodules(project, place)
    return place


def _submodules(project: Path, place: Path) -> None:
    """Check out the submodules that the project has checked out, from their clones there."""
    words = ("config", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    for line in git(project, *words, fails=True).splitlines() if (project / ".gitmodules").is_file() else ():
        key, _, path = line.partition(" ")
        name = key.removeprefix("submodule.").removesuffix(".path")
        if not (project / path / ".git").exists() or not git(place, "ls-files", "--stage", "--", path).startswith(
            "160000"
        ):
            continue
        git(place, "config", f"submodule.{name}.url", str((project / path).resolve()))
        git(place, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--", path)
        _submodules(project / path, place / path)


def apply(
    place: Path, origin: Origin, old: Release, new: Release, branch: str, given: Mapping[str, str], trust: bool
) -> Outcome:
    """Bring a clone to another release, and commit everything except conflicts.

    Raises:
        OriginError: If Copier refuses, or a migration is not trusted; the text lists its steps.
    """
    outcome = Outcome(old, new, branch, tip(place, "HEAD"), changelog=origin.changelog(old, new))
    with tempfile.TemporaryDirectory(prefix="update-") as scratch:
        before, after, again = (Path(scratch) / name for name in ("before", "after", "again"))
        origin.render(old, answers(place), before)
        born = origin.ownership(old)
        starred = [path for path in files(before) if born.of(path) == YOURS]
        untouched = all(_read(place / path) == _read(before / path) for path in starred)
        moved = _migrate(place, origin, old, new, Path(scratch) / "template", trust)
        settled, source = tip(place, "HEAD"), answers(place)["_src_path"]
        # Copier reads the mirror, which has only the tags of releases and needs no network.
        _answer(place, _src_path=str(origin.mirror.resolve()), _commit=old.commit)
        commit(place, new.ref, "Copier's start")
        _copier(place, origin, new, given, trust)
        _answer(place, _src_path=source, _commit=new.ref)
        origin.render(new, answers(place), after)

        def earlier(path: str) -> bytes | None:
            """A file of the previous release with the new answers: the common base if an option is switched on."""
            if not again.exists():
                with contextlib.suppress(OriginError):
                    origin.render(old, answers(place), again)
                again.mkdir(exist_ok=True)
            return _read(again / path)

        _reconcile(place, before, after, moved, origin.ownership(new), untouched, outcome, earlier)
        git(place, "add", "--all")  # Copier leaves conflicts in the index
        git(place, "reset", "--quiet", "--soft", settled)
        rendered = [path for path in files(after) if (place / path).is_file()]
    commit(place, new.ref, _message(outcome), rendered)
    outcome.changed = len(git(place, "diff", "--name-only", outcome.start).splitlines())
    outcome.stat = git(place, "diff", "--no-ext-diff", "--stat=100", outcome.start).rstrip()
    return outcome


def _answer(place: Path, **values: str) -> None:
    """Write settings of Copier into the answers."""
    file = place / ANSWERS
    lines = file.read_text(encoding="utf-8").splitlines()
    for name, value in values.items():
        text = yaml.safe_dump({name: value}, width=10**6, allow_unicode=True).strip()
        lines = [text if line.startswith(f"{name}:") else line for line in lines]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _message(outcome: Outcome) -> str:
    where = f"Update to {outcome.new.ref}" if outcome.new.commit != outcome.old.commit else "Other answers"
    told = f"\n\n{outcome.changelog}" if outcome.changelog else ""
    notes = "".join(f"\n- {note}" for note in outcome.notes())
    return f"{where}{told}" + (f"\n\nNot merged:\n{notes}" if notes else "")


def _migrate(place: Path, origin: Origin, old: Release, new: Release, template: Path, trust: bool) -> dict[str, str]:
    """Move what the releases between moved; returns where each file came from.

    Raises:
        OriginError: If there is something to move and nobody said TRUST=1.
    """
    crossed = origin.migrations(old, new)
    if not crossed:
        return {}
    run("git", "clone", "--quiet", "--no-checkout", str(origin.mirror), str(template), at=place)
    run("git", "checkout", "--quiet", new.commit, at=template)
    script = [sys.executable, str(template / "hooks/migrate.py")]
    if not trust:
        plans = [f"{one}: {line}" for one in crossed for line in run(*script, one, "--plan", at=place).splitlines()]
        listed = "\n  ".join(plans)
        raise OriginError(
            f"on the way to {new.ref} a migration moves files of yours:\n  {listed}\nIt is code of the template "
            f"(hooks/migrate.py of {origin.url}). If you trust it: make update TRUST=1. It works on a branch, and "
            "make update-undo takes it back."
        )
    for one in crossed:
        run(*script, one, at=place)
    if not git(place, "status", "--porcelain"):
        return {}
    commit(place, new.ref, f"Migrations of {', '.join(crossed)}")
    lines = git(place, "diff", "--name-status", "--find-renames", "HEAD~1", "HEAD").splitlines()
    renames = [line.split("\t") for line in lines if line.startswith("R")]
    return {target: source for _, source, target in renames}


def _copier(place: Path, origin: Origin, new: Release, given: Mapping[str, str], trust: bool) -> None:
    """Copier asks what is new, holds the answers against its rules, and writes the files.

    Raises:
        OriginError: With what Copier says.
    """
    from copier import run_update
    from copier.errors import CopierError

    try:
        with _silence(), neutral():
            run_update(
                place,
                data=understood(origin.questions(new), given),
                vcs_ref=new.commit,
                defaults=True,
                overwrite=True,
                quiet=True,
                unsafe=trust,
            )
    except (CopierError, ValueError) as error:
        raise OriginError(f"Copier refuses: {error}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing on standard output, of child processes neither: Copier runs migrations again, which have nothing to do."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as nowhere:
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _reconcile(
    place: Path,
    before: Path,
    after: Path,
    moved: Mapping[str, str],
    ownership: Ownership,
    untouched: bool,
    outcome: Outcome,
    earlier: Callable[[str], bytes | None],
) -> None:
    """Replace what Copier wrote by a merge of our own, file by file, which loses nothing.

    Copier drops a file that a release dropped, with whatever somebody wrote into it, and knows nothing of a file of ours that
    moved. Files that no release ever rendered are nobody's business but the user's. As long as nobody wrote into one of the
    starred files they follow the template, all of them; from then on none does.
    """
    here = set(filter(None, git(place, "ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0")))
    rendered = {path for path in (*files(before), *files(after)) if path != ANSWERS}
    mine = _contents(place, sorted(rendered & here))
    touched = [line[3:] for line in git(place, "status", "--porcelain", "-z", "--no-renames").split("\0")]
    for path in set(touched) & here - rendered - {ANSWERS}:
        git(place, "checkout", "HEAD", "--", path)
    absent = {}
    for path in sorted(rendered):
        file, old, new = place / path, _read(before / moved.get(path, path)), _read(after / path)
        owner = ownership.of(path)
        if file.is_symlink() or (owner == YOURS and path not in mine):
            continue  # a starred file that was deleted comes back
        if owner != OURS and not (owner == YOURS and untouched):
            _write(file, mine.get(path), file)
            continue
        if path not in mine and old is not None and old != new:
            absent[path] = (old, new)
        if path in mine and old is None and new is not None and mine[path] != new:
            old = earlier(path)
        merged = merge(old, mine.get(path), new, (outcome.old.ref, outcome.new.ref))
        if merged.conflicts:
            assert merged.content is not None and new is not None
            outcome.conflicts[path] = Conflict(merged.content, (old, mine[path], new), ownership.place(path))
        _write(file, mine[path] if merged.conflicts else merged.content, after / path)
        if merged.kept:
            outcome.kept.append(path)
    for left in git(place, "ls-files", "--others", "--exclude-standard").splitlines():
        if left.endswith(".rej") and left not in rendered:
            (place / left).unlink()
    outcome.missed = _missed(place, before, absent)


def _missed(place: Path, before: Path, absent: Mapping[str, tuple[bytes, bytes | None]]) -> list[Missed]:
    """The changes of files that are not in the project, with the names that their owner gave them."""
    if not absent:
        return []
    with tempfile.TemporaryDirectory(prefix="index-") as scratch:
        index = {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_DIR": str(place / ".git"), "GIT_WORK_TREE": str(before)}
        run("git", "add", "--all", "--force", ".", at=before, variables=index)
        tree = run("git", "write-tree", at=before, variables=index).strip()
    words = ("diff-tree", "-r", "-l0", "--find-renames", "--diff-filter=R", "--name-status", "-z", tree, "HEAD")
    listed = git(place, *words).split("\0")
    renamed = dict(zip(listed[1::3], listed[2::3], strict=False))
    found = []
    for path, (old, new) in absent.items():
        name = renamed.get(path, "")
        if new is not None:
            found.append(Missed(path, name, _patch(old, new, name or path), gone=False))
        elif name:
            found.append(Missed(path, name, "", gone=True))
    return found


def _patch(old: bytes, new: bytes, path: str) -> str:
    if b"\0" in old + new:
        return ""
    was, becomes = (side.decode("utf-8", "surrogateescape").splitlines(keepends=True) for side in (old, new))
    lines = difflib.unified_diff(was, becomes, f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _contents(place: Path, paths: Sequence[str]) -> dict[str, bytes]:
    """Files as the last commit has them, asked for in one go."""
    asked = "".join(f"HEAD:{path}\n" for path in paths).encode()
    words = ["git", "cat-file", "--batch"]
    told = subprocess.run(
        words, cwd=place, env=git_environment(place), input=asked, capture_output=True, check=True
    ).stdout
    found, at = {}, 0
    for path in paths:
        line = told.index(b"\n", at)
        size = int(told[at:line].split()[2])
        found[path] = told[line + 1 : line + 1 + size]
        at = line + size + 2
    return found


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _write(file: Path, content: bytes | None, like: Path) -> None:
    """Write a file unless it is as it has to be; a new one has the mode of another."""
    if content is None:
        file.unlink(missing_ok=True)
    elif _read(file) != content:
        new = not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if new and like.exists():
            file.chmod(like.stat().st_mode)


# -------------------------------------------------------------------------------------------------------- Checks


def tools(project: Path) -> dict[str, str]:
    """The environment for make in a clone: without this project's packages and tokens, with the uv that it fetched.

    The checks run the code of another release.
    """
    kept = {key: value for key, value in for_make().items() if key not in (*LENT, "PYTHONPATH")}
    ours = {str(project / ".venv/bin"), str(Path(sys.executable).parent)}
    others = [part for part in kept.get("PATH", "").split(os.pathsep) if part not in ours]
    types = str((project / ".mypy_cache").resolve())  # of libraries: most of them are the same after the update
    path = os.pathsep.join([*others, str((project / ".tools/bin").resolve())])
    return {"MYPY_CACHE_DIR": types, **kept, "PATH": path}


def _outside(project: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a clone, whatever becomes of it."""
    return subprocess.run(
        words, cwd=place, env=tools(project), capture_output=True, text=True, errors="replace", check=False
    )


def make(project: Path, place: Path, *targets: str) -> str:
    """Run targets in a folder, and return the end of the output of the first that fails; empty if none does."""
    log = project / CHECKS
    log.parent.mkdir(parents=True, exist_ok=True)
    for target in targets:
        print(f"  make {target}", flush=True)
        done = _outside(project, place, "make", "--no-print-directory", target)
        said = (done.stdout + done.stderr).strip()
        with log.open("a", encoding="utf-8") as file:
            file.write(f"make {target}\n{said}\n")
        if done.returncode:
            return f"make {target} failed; the whole output is in {CHECKS}:\n{said[-4000:]}"
    return ""


def lock(project: Path, place: Path, release: str) -> None:
    """Move the lock to the known-good set of a release, where the project has one.

    Raises:
        OriginError: If packages of the user's do not go together with that set.
    """
    if not git(place, "ls-files", "uv.lock").strip():
        return
    done = _outside(project, place, "uv", "lock", "--upgrade", "--quiet")
    if done.returncode:
        raise OriginError(
            f"the packages of {release} do not resolve together with those of this project:\n{done.stderr.strip()}"
        )
    if git(place, "status", "--porcelain"):
        commit(place, release, f"Known-good packages of {release}")


def databases(project: Path) -> list[Path]:
    """Files of MLflow, Prefect and Optuna, which newer packages change for good, relative to the project."""
    found = [*project.glob("*.db"), *project.glob(".prefect/*.db"), *project.glob(".cache/*.db")]
    return sorted(path.relative_to(project) for path in found if path.is_file())


def elsewhere(project: Path) -> Path | None:
    """MLflow's file where it is outside the project: others may write to it, so it is copied and never put back by itself."""
    said = [os.environ.get("MLFLOW_TRACKING_URI", "")]
    if (project / ".env").is_file():
        try:
            said.append(_env_file.read(project / ".env", errors="replace").get("MLFLOW_TRACKING_URI", ""))
        except _env_file.EnvFileError as error:
            raise OriginError(str(error)) from error
    uri = next(filter(None, said), "")
    file = (project / uri.removeprefix("sqlite:///")).resolve()
    return file if uri.startswith("sqlite:") and file.is_file() and not file.is_relative_to(project.resolve()) else None


def back_up(project: Path, target: Path) -> list[Path]:
    """Copy the databases as they are at one moment, also while somebody writes to them.

    Returns:
        The names of those inside the project.
    """
    for old in sorted(target.parent.glob("backup-*"))[: -(BACKUPS - 1)]:
        shutil.rmtree(old)
    names = databases(project)
    for name in names:
        _copy(project / name, target / name)
    outside = elsewhere(project)
    if outside is not None:
        _copy(outside, target / f"outside-{outside.name}")
        print(f"note: {outside} is copied to {target / f'outside-{outside.name}'}; update-undo leaves it as it is")
    return names


def _copy(database: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as one, contextlib.closing(sqlite3.connect(copy)) as other:
        one.backup(other)


def finish(project: Path, place: Path, release: str, targets: Sequence[str]) -> str:
    """Lock, check and test what was merged; what failed, empty if nothing did."""
    (project / CHECKS).unlink(missing_ok=True)
    try:
        lock(project, place, release)
    except OriginError as error:
        return str(error)
    return make(project, place, *targets)


# ------------------------------------------------------------------------------------------------- Here, and back


@dataclass
class State:
    """What has to be known to go on with an update, or back.

    Attributes:
        start: The branch, or the commit, that the update began on.
        commit: Its commit then.
        branch: That of the update.
        tip: Its commit when the update was done with it; empty before that.
        release: What it leads to.
        backup: Where the databases are, relative to the project; empty before they were copied.
        databases: Their names.
        conflicts: the files that the owner has to decide, by path, as `Conflict.as_json` writes them.
        decided: the paths of those that are decided.
    """

    start: str
    commit: str
    branch: str
    release: str
    tip: str = ""
    backup: str = ""
    databases: list[str] = field(default_factory=list)
    conflicts: dict[str, Any] = field(default_factory=dict)
    decided: list[str] = field(default_factory=list)

    def open(self) -> dict[str, Conflict]:
        """The conflicts that are not decided yet."""
        return {path: Conflict.of(one) for path, one in self.conflicts.items() if path not in self.decided}

    def save(self, project: Path) -> None:
        file = project / STATE
        file.parent.mkdir(parents=True, exist_ok=True)
        _files.write_text(file, json.dumps(vars(self), indent=2) + "\n")

    @classmethod
    def load(cls, project: Path) -> State:
        """Raises: OriginError: If no update was begun."""
        try:
            saved = json.loads((project / STATE).read_text(encoding="utf-8"))
            return cls(**{name: value for name, value in saved.items() if name in cls.__dataclass_fields__})
        except OSError as error:
            raise OriginError("no update was begun here, so there is nothing to go on with or back from") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise OriginError(f"{STATE} is damaged ({error}); the copies of the databases are beside it") from error


def head(project: Path) -> str:
    """The branch that is checked out; its commit where there is none."""
    return git(project, "symbolic-ref", "--short", "--quiet", "HEAD", fails=True).strip() or tip(project, "HEAD")


def tip(project: Path, ref: str) -> str:
    """The commit of a branch; empty if it is not there."""
    return git(project, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", fails=True).strip()


def take(project: Path, place: Path, state: State) -> None:
    """Bring the clone's branch here, as a branch that nobody has to use yet."""
    state.save(project)
    words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
    git(project, *words, str(place), f"+{state.branch}:refs/heads/{state.branch}")
    state.tip = tip(project, state.branch)
    state.save(project)


def free(project: Path, branch: str) -> None:
    """Refuse to write over a branch that somebody went on with.

    Raises:
        OriginError: If it has other commits than an earlier update left there.
    """
    if head(project) == branch:
        raise OriginError("this is the branch of that update; git switch to yours first, or make update CONTINUE=1")
    if tip(project, branch) and not by_updates(project, "HEAD", branch):
        raise OriginError(
            f"the branch {branch} is there, with commits that are not on {head(project)} and that no update made. Merge it, or put it "
            f"away: git branch --move {branch} mine"
        )
    used = worktree(project, branch)
    if used:
        raise OriginError(
            f"the branch {branch} is checked out in the worktree {used}, so git does not replace it. Switch to another branch there, or "
            f"remove it: git worktree remove {used}"
        )


def worktree(project: Path, branch: str) -> str:
    """Return the worktree in which a branch is checked out; empty if there is none."""
    for entry in git(project, "worktree", "list", "--porcelain").split("\n\n"):
        fields = dict(line.partition(" ")[::2] for line in entry.split("\n"))
        if fields.get("branch") == f"refs/heads/{branch}":
            return fields["worktree"]
    return ""


def switch(project: Path, branch: str) -> None:
    """Check out a branch; a file that git ignores is not overwritten.

    Raises:
        OriginError: If git refuses.
    """
    git(project, "switch", "--quiet", "--no-overwrite-ignore", branch)


def collisions(project: Path, place: Path, start: str) -> None:
    """Refuse an update that puts a file where the project has one that git does not know.

    Raises:
        OriginError: With the paths.
    """
    added = git(place, "diff", "--no-ext-diff", "--no-renames", "--name-only", "--diff-filter=A", "-z", start).split(
        "\0"
    )
    known = set(git(project, "ls-files", "-z").split("\0"))
    found: dict[str, None] = {}
    for path in filter(None, added):
        for part in (path, *(str(parent) for parent in Path(path).parents)):
            here = project / part
            if part not in known and os.path.lexists(here) and (part == path or here.is_symlink() or not here.is_dir()):
                found[part] = None
    if found:
        listed = "\n  ".join(found)
        raise OriginError(
            f"the update brings files where this project has others, which git ignores:\n  {listed}\n"
            "Move them away, or take them out of .gitignore and commit them; then run make update again."
        )


def decide(project: Path, state: State) -> None:
    """Switch to the branch, write marks into the files that the owner has to decide, and record the conflicts in git.

    After a kill it can be run again: the conflicts are in the state before the branch is checked out.
    """
    if head(project) != state.branch:
        switch(project, state.branch)
    lines = []
    for path, conflict in state.open().items():
        file: Path = project / path
        with _files.replacing(file, partial=project / PLACE / "partial") as partial:
            partial.write_bytes(conflict.marked)
            partial.chmod(file.stat().st_mode)
        mode = git(project, "ls-files", "--stage", "-z", "--", path).split(maxsplit=1)[0]
        lines.append(f"0 {'0' * 40}\t{path}\0")
        for number, side in zip((1, 2, 3), conflict.sides, strict=True):
            if side is not None:
                lines.append(f"{mode} {_blob(project, side)} {number}\t{path}\0")
    git(project, "update-index", "-z", "--index-info", text="".join(lines))


def undecided(project: Path, state: State) -> tuple[list[str], list[str]]:
    """The files with marks or in binary conflict, and those without their marks; the state gets those that are decided.

    `git add` leaves a trace in git's index, which `git reset` and a switch of branches remove.
    """
    merging = {line.partition("\t")[2] for line in git(project, "ls-files", "--unmerged", "-z").split("\0")}
    added = {line.partition("\t")[2] for line in git(project, "ls-files", "--resolve-undo", "-z").split("\0")}
    marked, lost = [], []
    for path, conflict in state.open().items():
        now = _read(project / path)
        same = now is not None and now.replace(b"\r\n", b"\n") in (
            side.replace(b"\r\n", b"\n") for side in (conflict.marked, conflict.sides[1])
        )
        if path not in merging and path not in added and same:
            lost.append(path)
        elif HERE.encode() in (now or b"") or (path in merging and not conflict.lines):
            marked.append(path)
        else:
            state.decided.append(path)
    state.save(project)
    return marked, lost


def _blob(project: Path, content: bytes) -> str:
    words = ["git", "hash-object", "-w", "--stdin"]
    done = subprocess.run(
        words, cwd=project, env=git_environment(project), input=content, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def arrive(project: Path, state: State) -> str:
    """Switch to the branch with databases copied first, install, ask the champion; what is to be said of it."""
    stamp = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    backup = PLACE / f"backup-{stamp}"
    state.databases = [str(name) for name in back_up(project, project / backup)]
    state.backup = str(backup)
    state.save(project)
    if head(project) != state.branch:
        switch(project, state.branch)
    failed = make(project, project, "setup")
    if failed:
        raise OriginError(f"{failed}\nmake update-undo goes back")
    if not (project / "champion.json").exists():
        return "no champion yet"
    failed = make(project, project, "verify")
    if not failed:
        return "the champion answers as it did"
    print(failed, file=sys.stderr)
    again = make(project, project, "run")
    if again:
        raise OriginError(
            f"{again}\nThe champion of before does not answer with these packages; make update-undo goes back"
        )
    return "the champion of before does not answer with the new packages, so another was trained (make history)"


def undo(project: Path) -> str:
    """Go back to where the update began: files, branch and databases; what is to be said of it.

    What was done since then is kept: commits on their branch, files that are not committed as a patch, databases beside their
    backup.

    Raises:
        OriginError: If the update was merged already, or git does not do its part.
    """
    state = State.load(project)
    if tip(project, state.start) not in ("", state.commit):
        raise OriginError(
            f"{state.start} went on since the update began, so files are git's to take back (git revert). "
            f"The databases of before are in {state.backup or 'nowhere, none was changed'}."
        )
    told = []
    stamp = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    if head(project) == state.branch:
        left = git(project, "status", "--porcelain")
        if left:
            patch = project / PLACE / f"left-{stamp}.patch"
            git(project, "add", "--all")
            patch.write_text(
                git(project, "diff", "--no-ext-diff", "--cached", "--binary", "HEAD"),
                encoding="utf-8",
                errors="surrogateescape",
            )
            told.append(f"what was not committed is kept in {patch.relative_to(project)} (git apply)")
        git(project, "reset", "--quiet", "--hard")
        switch(project, state.start) if tip(project, f"refs/heads/{state.start}") else git(
            project, "checkout", "--quiet", "--no-overwrite-ignore", "--detach", state.start
        )
    if state.backup:
        aside = project / PLACE / f"after-{stamp}"
        for current in databases(project):
            (aside / current).parent.mkdir(parents=True, exist_ok=True)
            (project / current).replace(aside / current)
            for more in ("-wal", "-shm"):
                (project / f"{current}{more}").unlink(missing_ok=True)
        for name in state.databases:
            shutil.copy2(project / state.backup / name, project / name)
        told.append(f"databases are those of before; the newer ones are in {aside.relative_to(project)}")
    if tip(project, state.branch) and tip(project, state.branch) != state.tip:
        told.append(f"the branch {state.branch} has commits of yours and stays")
    elif tip(project, state.branch):
        git(project, "branch", "--quiet", "-D", state.branch)
    (project / STATE).unlink()
    failed = make(project, project, "setup")
    return "\n".join([f"back on {state.start}, as before the update", *told, *filter(None, [failed])])


def push(project: Path, place: Path, branch: str) -> bool:
    """Push what a clone has to where the project comes from, in place of what an earlier update left there.

    Returns:
        Whether there is such a place.

    Raises:
        OriginError: If somebody went on with that branch, or it is not taken.
    """
    remote = git(project, "remote", "get-url", "origin", fails=True).strip()
    if not remote:
        return False
    there = git(project, "ls-remote", "--heads", remote, f"refs/heads/{branch}").split()
    if there:
        git(place, "fetch", "--quiet", "--no-tags", "--", remote, branch)
        if not by_updates(place, tip(project, "HEAD"), "FETCH_HEAD"):
            raise OriginError(f"the branch {branch} of {remote} has commits that no update made; it is left as it is")
    lease = f"--force-with-lease=refs/heads/{branch}:{there[0] if there else ''}"
    git(place, "push", "--quiet", "--no-verify", lease, "--", remote, f"HEAD:refs/heads/{branch}")
    return True


# ------------------------------------------------------------------------------------------------------ Commands


def show(outcome: Outcome) -> None:
    """What changes, for people."""
    old, new = outcome.old, outcome.new
    print(
        f"{old.ref} of {old.day} -> {new.ref} of {new.day}" if old.commit != new.commit else f"other answers, {new.ref}"
    )
    if outcome.changelog:
        print(f"\n{outcome.changelog}\n")
    print(outcome.stat or "no file changes")
    for note in outcome.notes():
        print(f"note: {note}")


def decisions(conflicts: Mapping[str, Conflict]) -> str:
    """The list of files that the owner has to decide."""
    lines = []
    for path, conflict in conflicts.items():
        where = f"lines {', '.join(map(str, conflict.lines))}" if conflict.lines else "binary; git add the one you want"
        hint = f"; next time in {conflict.place}" if conflict.place else ""
        lines.append(f"  {path}: {where}{hint}")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an update is asked for.

    Attributes:
        ref: release to move to; empty for the newest.
        given: answers that change.
        template: new address of the template; empty for the recorded one.
        trust: whether migrations may run, which are code of the template.
        plan: whether to show what would change, and change nothing.
        targets: make targets that have to pass.
    """

    ref: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    template: str = ""
    trust: bool = False
    plan: bool = False
    targets: Sequence[str] = ("check", "test")


def update(project: Path, options: Options) -> int:
    """Run the whole update; 0 if the project has arrived, 1 if its owner has something to do."""
    clean(project, options.plan)
    source = options.template or str(answers(project)["_src_path"])
    origin = Origin(address(project, source), project / MIRROR)
    chosen = choose(project, origin, options.ref, options.given)
    if origin.note:
        print(f"note: {origin.note}", file=sys.stderr)
    if chosen is None:
        print(f"{origin.recorded(project).ref} is the newest; nothing to do")
        return 0
    old, new = chosen
    branch = f"update/{new.ref}" if new.commit != old.commit else f"answers/{'-'.join(options.given)}"
    free(project, branch)
    with staged(project, branch) as place:
        settle_source(place, source, origin.url)
        outcome = apply(place, origin, old, new, branch, options.given, options.trust)
        show(outcome)
        if options.plan:
            print(f"\n{decide_text(outcome)}nothing was changed; make update does it")
            left = git(project, "status", "--porcelain").splitlines()
            if left:
                listed = "\n  ".join(left[:10])
                print(f"note: the plan is of the last commit. Commit these first:\n  {listed}")
            return 0
        if not outcome.changed and not outcome.conflicts:
            print("nothing to do")
            return 0
        collisions(project, place, outcome.start)
        _save_patch(project, outcome)
        state = State(head(project), tip(project, "HEAD"), branch, new.ref)
        if outcome.conflicts:
            state.conflicts = {path: one.as_json() for path, one in outcome.conflicts.items()}
            take(project, place, state)
            decide(project, state)
            print(f"\n{decide_text(outcome)}", file=sys.stderr, end="")
            print(_after_conflict(state), file=sys.stderr)
            return 1
        print()
        failed = finish(project, place, new.ref, options.targets)
        take(project, place, state)
    if failed:
        print(failed, file=sys.stderr)
        return print_error(
            f"your branch {state.start} is as it was. The update is on {branch}: git switch {branch}, fix it, commit, "
            "then make update CONTINUE=1. make update-undo deletes that branch."
        )
    return done(project, state, arrive(project, state))


def _save_patch(project: Path, outcome: Outcome) -> None:
    """Write the changes for files that the owner renamed where `git apply` finds them."""
    if not outcome.patch():
        return
    file = project / PLACE / f"missed-{outcome.new.ref}.patch"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(outcome.patch(), encoding="utf-8", errors="surrogateescape", newline="\n")
    print(f"note: git apply {file.relative_to(project)} brings the changes into the files that you renamed")


def decide_text(outcome: Outcome) -> str:
    if not outcome.conflicts:
        return ""
    count = len(outcome.conflicts)
    return f"{count} file{'s' * (count > 1)} that you and the template both changed:\n{decisions(outcome.conflicts)}\n"


def _after_conflict(state: State) -> str:
    # Commands of git, not of make: with marks in it, the Makefile may not work.
    return (
        f"error: this is the branch {state.branch} now, with marks in those files; none of your edits is lost. Decide, git add them, "
        f"then make update CONTINUE=1. Back to where you were: git reset --hard && git switch {_switchable(state.start)}"
    )


def _switchable(start: str) -> str:
    """Return what `git switch` takes to go back to a branch, or to a commit without one."""
    return f"--detach {start}" if len(start) >= 40 and not set(start) - set("0123456789abcdef") else start


def done(project: Path, state: State, said: str) -> int:
    state.tip = tip(project, state.branch)
    state.save(project)
    print(f"\n{state.release} on the branch {state.branch}; {said}")
    print(f"  look    git diff {state.start}...{state.branch}")
    if tip(project, f"refs/heads/{state.start}"):
        print(f"  keep    git switch {state.start} && git merge {state.branch}")
    else:
        print(
            f"  keep    git switch <your branch> && git merge {state.branch}    (the update began on the commit {state.start[:12]})"
        )
    print("  back    make update-undo    files, packages and databases as they were")
    return 0


def proceed(project: Path, options: Options) -> int:
    """Go on where a person has decided."""
    state = State.load(project)
    if head(project) != state.branch:
        raise OriginError(f"the update is on the branch {state.branch}; git switch {state.branch}, then do it again")
    marked, lost = undecided(project, state)
    if lost:
        decide(project, state)
        print(
            f"these files have their marks again:\n{decisions(state.open())}\n{_after_conflict(state)}", file=sys.stderr
        )
        return 1
    if marked:
        raise OriginError(f"marks ({HERE}) are left, or git add is, in {', '.join(marked)}")
    git(project, "add", "--all")
    if git(project, "status", "--porcelain"):
        git(project, "commit", "--quiet", "--no-verify", "--message", f"Conflicts of {state.release}")
    failed = finish(project, project, state.release, options.targets)
    if failed:
        raise OriginError(
            f"{failed}\nMend it, commit, then make update CONTINUE=1; make update-undo goes back to {state.start}"
        )
    return done(project, state, arrive(project, state))


@contextlib.contextmanager
def staged(project: Path, branch: str) -> Iterator[Path]:
    """A clone to work on, gone afterwards."""
    place = stage(project, branch)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def settle_source(place: Path, source: str, url: str) -> None:
    """Write the template's address as Copier takes it, where another one was given or the recorded one is relative."""
    known = str(answers(place)["_src_path"])
    now = for_copier(source)
    if "://" not in now and (Path(url) / "copier.yml").is_file():
        now = url
    if now == known:
        return
    _answer(place, _src_path=now)
    commit(place, str(answers(place)["_commit"]), "Where the template is")
