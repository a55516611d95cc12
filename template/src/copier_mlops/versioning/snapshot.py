"""Git: the commit that a version was made from, kept under a ref of its own; branch and index are never touched."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from copier_mlops import ProjectError, _environment

REFS = "refs/versions"
NOBODY = {
    "GIT_AUTHOR_NAME": "nobody",
    "GIT_AUTHOR_EMAIL": "nobody@localhost",
    "GIT_COMMITTER_NAME": "nobody",
    "GIT_COMMITTER_EMAIL": "nobody@localhost",
}
"""Who signs a snapshot where git knows no name; a snapshot says what, the audit of promotions says who."""


class GitError(ProjectError):
    """Git is missing, or this folder is no repository of its own."""


class GitCommandError(GitError):
    """A command of git failed."""


def _git(*arguments: str, hooks: bool = False, more: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",  # names of files are bytes
            check=True,
            env={**_environment.for_git(hooks=hooks), **(more or {})},
        )
    except FileNotFoundError as error:
        raise GitError(
            "git is not installed; versions cannot be traced without it. Install git, then `make setup`."
        ) from error
    except subprocess.CalledProcessError as error:
        raise GitCommandError(
            f"git {arguments[0]} failed: {error.stderr.strip()}. Is this the project's folder?"
        ) from error
    return done.stdout.strip()


def head() -> str:
    """The commit that is checked out, or an empty text before the first."""
    try:
        return _git("rev-parse", "--verify", "--quiet", "HEAD")
    except GitCommandError:
        return ""


def own_root() -> bool:
    """Whether this folder is the root of a repository, not a folder somewhere inside one."""
    try:
        return Path(_git("rev-parse", "--show-toplevel")).resolve() == Path.cwd().resolve()
    except GitError:
        return False


def ignored(path: Path, root: Path = Path()) -> bool:
    """Whether git leaves a path of the project alone; no, where there is no repository to ask."""
    try:
        _git("-C", str(root), "check-ignore", "--quiet", "--", path.as_posix())
    except GitError:
        return False
    return True


def snapshot(name: str, message: str) -> str:
    """Commit the work tree as it is, without the ignored files, to `refs/versions/<name>`.

    Returns:
        The commit. The same tree on the same commit under the same name gives the commit that is there.
    """
    if not own_root():
        raise GitError("this folder has no git repository of its own. Run `make setup`.")
    with tempfile.TemporaryDirectory() as scratch:
        own_index = {"GIT_INDEX_FILE": str(Path(scratch, "index").absolute())}
        _git("add", "--all", ".", more=own_index)
        tree = _git("write-tree", more=own_index)
    ref = f"{REFS}/{name}"
    try:
        known = _git("rev-parse", "--verify", "--quiet", ref)
        if _git("rev-parse", known + "^{tree}") == tree:
            return known
    except GitError:
        pass
    parent = head()
    commit = _git("commit-tree", tree, *(("-p", parent) if parent else ()), "-m", message, more=NOBODY)
    _git("update-ref", ref, commit)
    return commit


def committed(file: Path, commit: str = "HEAD") -> str | None:
    """Return the text of a file of this folder at a commit; None without the commit, the file or a repository."""
    try:
        return _git("show", f"{commit}:./{file.as_posix()}")
    except GitError:
        return None


def archive(commit: str, file: Path) -> None:
    """Write the files of a commit, and those of its submodules, into a tar.gz."""
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole.tar")
        _git("archive", "--format=tar", f"--output={whole}", commit)
        for path, inner in _submodules(commit).items():
            part = Path(scratch, "part.tar")
            _git("-C", path, "archive", "--format=tar", f"--prefix={path}/", f"--output={part}", inner)
            with tarfile.open(whole, "a") as target, tarfile.open(part) as source:
                for member in source:
                    target.addfile(member, source.extractfile(member) if member.isfile() else None)
        with whole.open("rb") as plain, gzip.open(file, "wb") as packed:
            shutil.copyfileobj(plain, packed)


def _submodules(commit: str) -> dict[str, str]:
    """Return the submodules that are checked out, by path, each with its commit."""
    entries = [entry.split("\t", 1) for entry in _git("ls-tree", "-r", "-z", commit).split("\0") if entry]
    links = {path: described.split()[2] for described, path in entries if described.startswith("160000 ")}
    found = {path: inner for path, inner in links.items() if (Path(path) / ".git").exists()}
    for path in found:
        if _git("-C", path, "status", "--porcelain"):
            print(
                f"note: the submodule {path} has changes without a commit; this version keeps its last commit",
                flush=True,
            )
    return found


def files() -> list[str]:
    """The files of the work tree that git does not ignore, as paths."""
    found = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [name for name in found if name and Path(name).is_file()]


def begin(folder: Path) -> None:
    """Make a folder a repository, with all that is in it and not ignored as its first commit."""
    _git("-C", str(folder), "init", "--quiet")
    _git("-C", str(folder), "add", "--all")
    _git("-C", str(folder), "commit", "--quiet", "--no-verify", "--message", "As it is", more=NOBODY)


def push_versions() -> bool:
    """Push the snapshots to the remote `origin`; False where there is none."""
    if "origin" not in _git("remote").split():
        return False
    _git("push", "--quiet", "origin", f"{REFS}/*:{REFS}/*", hooks=True)
    return True
