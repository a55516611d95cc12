"""Make this folder a git repository of its own, with a first commit that no setting of the user prevents."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from copier_mlops import _locks
from copier_mlops._environment import for_child, for_git
from copier_mlops._errors import print_error

FIRST = "Start from copier-mlops"
UNKNOWN = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")


class RepositoryError(Exception):
    """Git failed; the text has its reason and the fix."""


def git(*words: str, fails: bool = False) -> str:
    """Return what git prints.

    Raises:
        RepositoryError: If git fails and `fails` does not allow it.
    """
    done = subprocess.run(["git", *words], env=for_git(), capture_output=True, text=True, check=False)
    if done.returncode and not fails:
        raise RepositoryError(f"`git {words[0]}` failed: {done.stderr.strip()}. Fix the cause, then: make setup")
    return done.stdout.strip()


def own(folder: Path) -> bool:
    """Return whether a folder is the root of a repository, also as a submodule or a linked work tree."""
    top = git("rev-parse", "--show-toplevel", fails=True)
    return bool(top) and Path(top).resolve() == folder.resolve()


def create(folder: Path) -> None:
    """Create the repository and its first commit; do nothing where both exist.

    The commit is made without the user's hooks and unsigned: a program cannot enter a passphrase.
    """
    if not own(folder):
        git("init", "--quiet")
    if git("rev-parse", "--verify", "--quiet", "HEAD", fails=True):
        return
    git("add", "--all")
    who = () if git("var", "GIT_COMMITTER_IDENT", fails=True) and git("config", "user.email", fails=True) else UNKNOWN
    git(*who, "commit", "--quiet", "--no-verify", "--message", FIRST)


def install_hook() -> str:
    """Install pre-commit's hook; return why it could not be installed, empty if it was."""
    words = [str(Path(sys.executable).with_name("pre-commit")), "install"]
    done = subprocess.run(words, env=for_child(), capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    return " ".join((done.stdout + done.stderr).split())


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other setup of this folder is between its first command of git and its last."""
    lock = folder / ".cache" / "setup.lock"
    lock.parent.mkdir(exist_ok=True)
    with _locks.locked(lock):
        yield


def main() -> int:
    """Return 0 if the folder is a repository with a commit, else 1."""
    try:
        with alone(Path.cwd()):
            create(Path.cwd())
            reason = install_hook()
    except RepositoryError as error:
        return print_error(error)
    if reason:
        print(
            f"note: commits are not checked here, because the hook was not installed ({reason}). `make check` checks."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
