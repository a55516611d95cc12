"""Move this project to a newer release of its template, or to other answers, so that nothing of anybody's is lost.

All is tried on a clone in .cache/update: merged, locked, checked, tested. What passed becomes a branch here; what a person has
to decide stands on that branch with marks. Databases are copied before new packages open them.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ci.merge import HERE, merge
from ci.origin import (
    ANSWERS,
    MIRROR,
    OURS,
    YOURS,
    Origin,
    OriginError,
    Ownership,
    Release,
    address,
    answers,
    files,
    run,
)

PLACE = Path(".cache/update")
STATE = PLACE / "state.json"
FIXED = {
    "project_name": "the package, and so every path, is called after it",
    "problem": "params.yaml, the contract and the model are yours since then; `make adopt` writes them anew",
    "data_source": "contract, source and features are yours since then; `make adopt` brings another table",
}
"""Answers that files of the user's depend on, and why another answer cannot move those."""
BACKUPS = 3
TRAILER = "Template-release"
LENT = ("GITHUB_TOKEN", "UPDATE_TOKEN", "GIT_CONFIG_")


@dataclass(frozen=True)
class Conflict:
    """A file that a person has to decide.

    Attributes:
        marked: Its text, with marks around each place.
        sides: What the release before rendered, what stands in the project, what the next release renders.
        place: Where one's own goes instead; empty if docs/ownership.md names nothing.
    """

    marked: bytes
    sides: tuple[bytes | None, bytes, bytes]
    place: str

    @property
    def lines(self) -> list[int]:
        """Where the marks begin, counted from 1."""
        return [number for number, line in enumerate(self.marked.splitlines(), 1) if line.startswith(HERE.encode())]


@dataclass
class Outcome:
    """What a merge came to.

    Attributes:
        old, new: The releases.
        branch: Its name in the clone.
        start: The commit that it began on.
        changed: How many files changed.
        stat: What `git diff --stat` says of it.
        changelog: What an owner must know.
        conflicts: Files that a person has to decide; in the clone they stand as they were.
        kept: Files that the template dropped and somebody had changed.
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


# ------------------------------------------------------------------------------------------------------- Before


def git(project: Path, *words: str, fails: bool = False, text: str | None = None) -> str:
    """Run git in a project, as somebody where git does not know who.

    Raises:
        OriginError: If it ends badly and may not.
    """
    known = subprocess.run(["git", "config", "user.email"], cwd=project, capture_output=True, check=False).stdout
    who = () if known else ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    return run("git", *who, *words, at=project, fails=fails, text=text)


def commit(place: Path, release: str, message: str) -> None:
    """Commit all that changed, marked as an update's: what nobody else committed may be written anew."""
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", f"{message}\n\n{TRAILER}: {release}\n")


def by_updates(place: Path, since: str, until: str) -> bool:
    """Whether all commits between two were made by updates."""
    told = git(place, "log", f"--format=%H %(trailers:key={TRAILER},valueonly,separator=%x2C)", f"{since}..{until}")
    return all(len(line.split(maxsplit=1)) == 2 for line in told.splitlines())


def clean(project: Path) -> None:
    """Refuse to start on work that git does not have.

    Raises:
        OriginError: If the project is no repository of its own, or something is not committed.
    """
    top = git(project, "rev-parse", "--show-toplevel", fails=True).strip()
    if not top or Path(top).resolve() != project.resolve():
        raise OriginError(f"{project} is no git repository of its own; `make setup` makes it one")
    dirty = git(project, "status", "--porcelain").splitlines()
    if dirty:
        listed = "\n  ".join(dirty[:10])
        raise OriginError(
            f"these are not committed, so an update could hurt them:\n  {listed}\nCommit them (git add --all && git commit) or put them "
            "away (git stash --include-untracked), then do it again."
        )


def choose(project: Path, origin: Origin, ref: str, given: Mapping[str, str]) -> tuple[Release, Release] | None:
    """From which release to which; None if there is nothing to do.

    Raises:
        OriginError: If an answer is fixed, or one to no question; if a release is unknown, or lies behind.
    """
    known = answers(project)
    for name, reason in FIXED.items():
        if name in given and given[name] != str(known.get(name)):
            raise OriginError(
                f"{name} is fixed since this project began ({known.get(name)}): {reason}. A project with another answer "
                "is a new one: copier copy"
            )
    old = origin.release(str(known["_commit"]))
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
    """A clone of the project's last commit, on a branch of its own: what happens there happens to nobody's files."""
    place = project / PLACE / "tree"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    git(project, "clone", "--quiet", "--local", ".", str(place))
    for name in ("user.name", "user.email"):
        value = git(project, "config", name, fails=True).strip()
        if value:
            git(place, "config", name, value)
    git(place, "checkout", "--quiet", "-B", branch)
    return place


def apply(
    place: Path, origin: Origin, old: Release, new: Release, branch: str, given: Mapping[str, str], trust: bool
) -> Outcome:
    """Bring a clone to another release, and commit all but what a person has to decide.

    Raises:
        OriginError: If Copier refuses, or a migration is not trusted; the text says what it would do.
    """
    outcome = Outcome(old, new, branch, tip(place, "HEAD"), changelog=origin.changelog(old, new))
    with tempfile.TemporaryDirectory(prefix="update-") as scratch:
        before, after = Path(scratch) / "before", Path(scratch) / "after"
        origin.render(old, answers(place), before)
        born = origin.ownership(old)
        starred = [path for path in files(before) if born.of(path) == YOURS]
        untouched = all(_read(place / path) == _read(before / path) for path in starred)
        moved = _migrate(place, origin, old, new, Path(scratch) / "template", trust)
        _copier(place, origin, new, given, trust)
        origin.render(new, answers(place), after)
        _reconcile(place, before, after, moved, origin.ownership(new), untouched, outcome)
    commit(place, new.ref, _message(outcome))
    outcome.changed = len(git(place, "diff", "--name-only", outcome.start).splitlines())
    outcome.stat = git(place, "diff", "--stat=100", outcome.start).rstrip()
    return outcome


def _message(outcome: Outcome) -> str:
    where = f"Update to {outcome.new.ref}" if outcome.new.commit != outcome.old.commit else "Other answers"
    told = f"\n\n{outcome.changelog}" if outcome.changelog else ""
    return f"{where}{told}"


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
        with _silence():
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
) -> None:
    """Hold what Copier left against a merge of our own, file by file, which loses nothing.

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
    for path in sorted(rendered):
        file, old, new = place / path, _read(before / moved.get(path, path)), _read(after / path)
        owner = ownership.of(path)
        if file.is_symlink() or (owner == YOURS and path not in mine):
            continue  # a starred file that was deleted comes back
        if owner != OURS and not (owner == YOURS and untouched):
            _write(file, mine.get(path), file)
            continue
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


def _contents(place: Path, paths: Sequence[str]) -> dict[str, bytes]:
    """Files as the last commit has them, asked for in one go."""
    asked = "".join(f"HEAD:{path}\n" for path in paths).encode()
    told = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=place, input=asked, capture_output=True, check=True
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
    """The environment for make in a clone: not this project's own, but with the uv that it fetched; without a token, since
    what is checked is another release's code."""
    inner = ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHONPATH", "BASE")
    kept = {key: value for key, value in os.environ.items() if key not in inner and not key.startswith(LENT)}
    ours = {str(project / ".venv/bin"), str(Path(sys.executable).parent)}
    path = [part for part in kept.get("PATH", "").split(os.pathsep) if part not in ours]
    types = str((project / ".mypy_cache").resolve())  # of libraries: most of them are the same after the update
    path = os.pathsep.join([*path, str((project / ".tools/bin").resolve())])
    return {"MYPY_CACHE_DIR": types, **kept, "PATH": path}


def _outside(project: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a clone, whatever becomes of it."""
    return subprocess.run(words, cwd=place, env=tools(project), capture_output=True, text=True, check=False)


def make(project: Path, place: Path, *targets: str) -> str:
    """Run targets in a folder one after the other; what the first one that fails said, empty if none does."""
    for target in targets:
        print(f"  make {target}", flush=True)
        done = _outside(project, place, "make", "--no-print-directory", target)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            return f"make {target} failed:\n{said[-4000:]}"
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
            f"the packages of {release} do not resolve together with those of this project:\n{done.stderr.strip()[-3000:]}"
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
        lines = (project / ".env").read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.partition("=") for line in lines]
        said += [value.strip().strip("\"'") for name, _, value in named if name.strip() == "MLFLOW_TRACKING_URI"]
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
    """

    start: str
    commit: str
    branch: str
    release: str
    tip: str = ""
    backup: str = ""
    databases: list[str] = field(default_factory=list)

    def save(self, project: Path) -> None:
        file = project / STATE
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(vars(self), indent=2) + "\n", encoding="utf-8")
        partial.replace(file)

    @classmethod
    def load(cls, project: Path) -> State:
        """Raises: OriginError: If no update was begun."""
        try:
            return cls(**json.loads((project / STATE).read_text(encoding="utf-8")))
        except OSError as error:
            raise OriginError("no update was begun here, so there is nothing to go on with or back from") from error
        except (ValueError, TypeError) as error:
            raise OriginError(f"{STATE} is damaged ({error}); the copies of the databases are beside it") from error


def head(project: Path) -> str:
    """The branch that is checked out; its commit where there is none."""
    return git(project, "symbolic-ref", "--short", "--quiet", "HEAD", fails=True).strip() or tip(project, "HEAD")


def tip(project: Path, ref: str) -> str:
    """The commit of a branch; empty if it is not there."""
    return git(project, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", fails=True).strip()


def take(project: Path, place: Path, state: State) -> None:
    """Bring the clone's branch here, as a branch that nobody has to use yet."""
    git(project, "fetch", "--quiet", "--no-tags", str(place), f"+{state.branch}:refs/heads/{state.branch}")
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
            f"the branch {branch} is there, with commits that no update made. Merge it, or put it away: git branch --move {branch} mine"
        )


def decide(project: Path, outcome: Outcome, state: State) -> None:
    """Switch to the branch, with marks in the files that a person has to decide, and git knowing them as conflicts."""
    git(project, "switch", "--quiet", state.branch)
    lines = []
    for path, conflict in outcome.conflicts.items():
        (project / path).write_bytes(conflict.marked)
        mode = git(project, "ls-files", "--stage", "--", path).split(maxsplit=1)[0]
        lines.append(f"0 {'0' * 40}\t{path}")
        for number, side in zip((1, 2, 3), conflict.sides, strict=True):
            if side is not None:
                lines.append(f"{mode} {_blob(project, side)} {number}\t{path}")
    git(project, "update-index", "--index-info", text="\n".join(lines) + "\n")


def _blob(project: Path, content: bytes) -> str:
    words = ["git", "hash-object", "-w", "--stdin"]
    return subprocess.run(words, cwd=project, input=content, capture_output=True, check=True).stdout.decode().strip()


def arrive(project: Path, state: State) -> str:
    """Switch to the branch with databases copied first, install, ask the champion; what is to be said of it."""
    stamp = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    backup = PLACE / f"backup-{stamp}"
    state.databases = [str(name) for name in back_up(project, project / backup)]
    state.backup = str(backup)
    state.save(project)
    if head(project) != state.branch:
        git(project, "switch", "--quiet", state.branch)
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
                git(project, "diff", "--cached", "--binary", "HEAD"), encoding="utf-8", errors="surrogateescape"
            )
            told.append(f"what was not committed is kept in {patch.relative_to(project)} (git apply)")
        git(project, "reset", "--quiet", "--hard")
        git(project, "switch", "--quiet", state.start)
    if state.backup:
        aside = project / PLACE / f"after-{stamp}"
        for name in databases(project):
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).replace(aside / name)
            for more in ("-wal", "-shm"):
                (project / f"{name}{more}").unlink(missing_ok=True)
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
    for path in outcome.kept:
        print(f"note: {path} is no longer in the template; you changed it, so it stays and is yours")


def decisions(outcome: Outcome) -> str:
    """The list of what a person has to decide."""
    lines = []
    for path, conflict in outcome.conflicts.items():
        where = f"lines {', '.join(map(str, conflict.lines))}" if conflict.lines else "not text; yours stands there"
        hint = f"; next time in {conflict.place}" if conflict.place else ""
        lines.append(f"  {path}: {where}{hint}")
    return "\n".join(lines)


def update(project: Path, options: argparse.Namespace) -> int:
    """The whole way; 0 if the project is there, 1 if a person has something to do."""
    clean(project)
    source = options.template or str(answers(project)["_src_path"])
    origin = Origin(address(project, source), project / MIRROR)
    if origin.note:
        print(f"note: {origin.note}", file=sys.stderr)
    chosen = choose(project, origin, options.ref, options.given)
    if chosen is None:
        print(f"{answers(project)['_commit']} is the newest; nothing to do")
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
            return 0
        if not outcome.changed and not outcome.conflicts:
            print("nothing to do")
            return 0
        state = State(head(project), tip(project, "HEAD"), branch, new.ref)
        if outcome.conflicts:
            take(project, place, state)
            decide(project, outcome, state)
            print(f"\n{decide_text(outcome)}", file=sys.stderr, end="")
            print(_after_conflict(state), file=sys.stderr)
            return 1
        print()
        failed = finish(project, place, new.ref, options.targets)
        take(project, place, state)
    if failed:
        print(failed, file=sys.stderr)
        print(
            f"error: your branch {state.start} is as it was. The update is on {branch}: git switch {branch}, mend it, commit, "
            "then make update CONTINUE=1. make update-undo forgets it.",
            file=sys.stderr,
        )
        return 1
    return done(project, state, arrive(project, state))


def decide_text(outcome: Outcome) -> str:
    if not outcome.conflicts:
        return ""
    count = len(outcome.conflicts)
    return f"{count} file{'s' * (count > 1)} that you and the template both changed:\n{decisions(outcome)}\n"


def _after_conflict(state: State) -> str:
    # In the words of git: with marks in it, the Makefile may not work.
    return (
        f"error: this is the branch {state.branch} now, with marks in those files; nothing of yours is lost. Decide, git add them, "
        f"then make update CONTINUE=1. Back to where you were: git reset --hard && git switch {state.start}"
    )


def done(project: Path, state: State, said: str) -> int:
    state.tip = tip(project, state.branch)
    state.save(project)
    print(f"\n{state.release} on the branch {state.branch}; {said}")
    print(f"  look    git diff {state.start}...{state.branch}")
    print(f"  keep    git switch {state.start} && git merge {state.branch}")
    print("  back    make update-undo    files, packages and databases as they were")
    return 0


def proceed(project: Path, options: argparse.Namespace) -> int:
    """Go on where a person has decided."""
    state = State.load(project)
    if head(project) != state.branch:
        raise OriginError(f"the update is on the branch {state.branch}; git switch {state.branch}, then do it again")
    unmerged = sorted({line.split("\t")[1] for line in git(project, "ls-files", "--unmerged").splitlines()})
    marked = [path for path in unmerged if HERE in (project / path).read_text(encoding="utf-8", errors="replace")]
    if marked:
        raise OriginError(f"marks ({HERE}) are left in {', '.join(marked)}")
    git(project, "add", "--all")
    if git(project, "status", "--porcelain"):
        git(project, "commit", "--quiet", "--no-verify", "--message", f"What was to decide for {state.release}")
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
    """Write down where the template is, if it is not where the answers say, or only from the folder of that day."""
    file = place / ANSWERS
    known = str(answers(place)["_src_path"])
    now = source if source != known else known
    if "://" not in now and (Path(url) / "copier.yml").is_file():
        now = url
    if now == known:
        return
    text = file.read_text(encoding="utf-8")
    lines = [f"_src_path: {json.dumps(now)}" if line.startswith("_src_path:") else line for line in text.splitlines()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    commit(place, str(answers(place)["_commit"]), "Where the template is")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line; make passes what it was given, also where that is empty."""
    parser = argparse.ArgumentParser(description="Move this project to a newer release of its template.")
    parser.add_argument("--ref", default="", help="a release, default: the newest")
    parser.add_argument("--set", default=[], action="append", metavar="QUESTION=ANSWER", help="another answer")
    parser.add_argument("--template", default="", help="where the template is now")
    parser.add_argument("--trust", action="store_true", help="run migrations, which are code of the template")
    parser.add_argument("--plan", action="store_true", help="only show what would change")
    parser.add_argument("--continue", dest="proceed", action="store_true", help="go on after something was decided")
    parser.add_argument("--undo", action="store_true", help="back to where the update began")
    parser.add_argument("--checks", default="check test", help="targets that have to pass, apart by spaces")
    options = parser.parse_args(words)
    wrong = [one for one in options.set if "=" not in one]
    if wrong:
        parser.error(f"{wrong[0]!r} is no answer; it looks like licence=MIT")
    options.given = dict(one.split("=", 1) for one in options.set)
    options.targets = options.checks.split()
    return options


def main() -> int:
    """0 if it was done, 1 if there is something to do for a person."""
    options, project = parse(sys.argv[1:]), Path.cwd()
    try:
        if options.undo:
            print(undo(project))
            return 0
        return proceed(project, options) if options.proceed else update(project, options)
    except OriginError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
