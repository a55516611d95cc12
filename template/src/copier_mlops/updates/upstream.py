"""The template of this project: its releases, the owner of each file, what it renders for some answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from copier_mlops import ProjectError, _files, _locks
from copier_mlops._environment import for_child, for_git

ANSWERS = ".copier-answers.yml"
MIRROR = ".cache/template.git"
SHORT = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}
YOURS, SEED, OURS = "yours", "seeds", "ours"
RELEASE = r"v?\d+\.\d+\.\d+[\w.+]*"
"""The tag of a release. Tags such as `v1` and `latest` move, so they name no release."""
EXACT = rf"{RELEASE}|.+-\d+-g[0-9a-f]+|[0-9a-f]{{7,64}}"
"""What names one commit for good: the tag of a release, the output of `git describe`, a hash."""
FROM_GIT = ("git+", "git@", "git://", "gh:", "gl:", "https://github.com/", "https://gitlab.com/")
"""Addresses that Copier takes for git repositories without the ending .git."""
LINE_ENDS = ("core.attributesFile", "core.autocrlf", "core.eol")
"""Settings of git for the bytes of a work tree: the user's in the project, git's defaults in clones and renders."""
FIXED = {
    "project_name": "the package, and so every path, is called after it",
    "problem": "params.yaml, the contract and the model are yours since then; `make adopt` writes them again",
    "data_source": "contract, source and features are yours since then; `make adopt` brings another table",
}
"""Answers that the owner's files depend on, and why another answer cannot change those files."""
TRAILER = "Template-release"
"""Marks the commits that updates make."""
INSIDE = ("core/", "io/", "stages/", "flows/", "serving/")  # docs/ownership.md left src/<package>/ out before 2.0


class OriginError(ProjectError):
    """The template or this project is not as it has to be; the text says what to do."""


@dataclass(frozen=True)
class Release:
    """A state of the template.

    Attributes:
        ref: A tag, or a commit between two of them as `git describe` names it.
        commit: Its hash.
        version: Its number by PEP 440; None without a tag at or before it.
        day: When it was committed.
    """

    ref: str
    commit: str
    version: Version | None
    day: dt.date


@cache
def _line_ends(folder: Path) -> dict[str, str]:
    words = ["git", "config", "--get"]
    found = {
        name: subprocess.run([*words, name], cwd=folder, env=for_child(), capture_output=True, text=True, check=False)
        for name in LINE_ENDS
    }
    return {name: done.stdout.strip() for name, done in found.items() if done.returncode == 0}


def git_environment(folder: Path) -> dict[str, str]:
    """The environment for git in a folder: neutral, except that line ends in the user's work tree are the user's."""
    return for_git(settings=_line_ends(folder.resolve()))


@contextlib.contextmanager
def neutral() -> Iterator[None]:
    """Let Copier, and the git that Copier starts, render the bytes of the template whatever the user's settings are."""
    from plumbum import local

    before, wanted = dict(os.environ), for_git()
    with local.env():  # Copier starts git through plumbum, which has a copy of the environment
        for name in local.env.getdict().keys() - wanted.keys():
            del local.env[name]
        local.env.update(wanted)
        os.environ.clear()
        os.environ.update(wanted)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def run(
    *words: str, at: Path, fails: bool = False, text: str | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Run a command and return its standard output; bytes that are not UTF-8 survive.

    Raises:
        OriginError: If the command fails and `fails` is false.
    """
    done = subprocess.run(
        words,
        cwd=at,
        env={**git_environment(at), **(variables or {})},
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    if done.returncode and not fails:
        raise OriginError(f"`{' '.join(words)}` failed in {at}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def answers(project: Path) -> dict[str, Any]:
    """The answers that a project was rendered with.

    Raises:
        OriginError: If there are none, or they are not what Copier wrote.
    """
    file = project / ANSWERS
    if not file.is_file():
        raise OriginError(f"{file} is not there, so nobody knows which template this project follows")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OriginError(f"{file} is no YAML ({error}); `git log -p {ANSWERS}` shows what it was") from error
    if not isinstance(found, dict) or not {"_src_path", "_commit"} <= found.keys():
        raise OriginError(f"{file} does not say _src_path and _commit; `git log -p {ANSWERS}` shows what it was")
    return found


def edited_answers(project: Path) -> list[str]:
    """The fixed answers that a commit changed by hand, with the remedy for each."""
    lines = run(
        "git",
        "log",
        "--reverse",
        f"--format=%H %(trailers:key={TRAILER},valueonly,separator=%x2C)",
        "--",
        ANSWERS,
        at=project,
    ).splitlines()
    first: dict[str, Any] = {}
    found: dict[str, str] = {}
    for line in lines:
        commit_, _, by_update = line.partition(" ")
        try:
            given = yaml.safe_load(run("git", "show", f"{commit_}:./{ANSWERS}", at=project, fails=True))
        except yaml.YAMLError:
            continue
        for name in (*FIXED, "made_as") if isinstance(given, dict) else ():
            if name not in given:
                continue
            if name not in first or by_update:
                first[name] = given[name]
            elif given[name] != first[name]:
                found[name] = f"{name} was {first[name]}, and commit {commit_[:9]} changed it to {given[name]}"
            if given[name] == first[name]:
                found.pop(name, None)
    return [
        f"{text}: {FIXED.get(name, 'every path has it')}. Write `{name}: {first[name]}` back into {ANSWERS}, and commit it"
        for name, text in found.items()
    ]


def address(project: Path, source: str) -> str:
    """Where a template is, for git: a folder relative to the project or to the folder beside it becomes absolute.

    Raises:
        OriginError: If it is a folder that is not there.
    """
    for short, whole in SHORT.items():
        if source.startswith(short):
            return f"{whole}{source.removeprefix(short).removesuffix('.git')}.git"
    if source.startswith("git+"):
        return source.removeprefix("git+")
    if "://" in source or re.match(r"[\w.-]+@[\w.-]+:", source):
        return source
    for place in (Path(source).expanduser(), project / source, project.parent / source):
        if place.is_absolute() and (place / "copier.yml").is_file():
            return str(place.resolve())
    raise OriginError(
        f"the template is not at {source}, where {ANSWERS} says. Name where it is now: make update TEMPLATE=<address>"
    )


def for_copier(source: str) -> str:
    """The address as Copier takes it for a git repository: `git+` before one that it would take for a folder."""
    remote = "://" in source or re.match(r"[\w.-]+@[\w.-]+:", source)
    plain = not remote or source.startswith(FROM_GIT) or source.endswith(".git")
    return source if plain else f"git+{source}"


class Origin:
    """A mirror of the template's history. Moving tags are below refs/moving, so that `git describe` does not use them.

    Args:
        url: What git clones.
        mirror: Where the mirror is kept.

    Raises:
        OriginError: If the template does not answer, and never did.
    """

    def __init__(self, url: str, mirror: Path) -> None:
        self.url, self.mirror = url, mirror
        self.note = ""
        mirror.parent.mkdir(parents=True, exist_ok=True)
        with _locks.locked(Path(f"{mirror}.lock")):  # projects of a fleet share a mirror
            self._fetch()

    def _fetch(self) -> None:
        known = self.mirror.exists() and run("git", "remote", "get-url", "origin", at=self.mirror, fails=True).strip()
        if known == self.url:
            words = ["git", "remote", "update", "--prune"]
            if subprocess.run(words, cwd=self.mirror, env=for_git(), capture_output=True, check=False).returncode:
                self.note = f"the template at {self.url} is not responding; what was fetched before is used"
            return self._move_tags(self.mirror)
        with _files.replacing_folder(self.mirror) as partial:
            words = ["git", "clone", "--quiet", "--mirror", "--", self.url, str(partial)]
            done = subprocess.run(words, env=for_git(), capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                raise OriginError(f"the template at {self.url} cannot be cloned: {done.stderr.strip()[-500:]}")
            self._move_tags(partial)
        return None

    @staticmethod
    def _move_tags(mirror: Path) -> None:
        words = ["git", "for-each-ref", "refs/tags", "--format=%(refname:strip=2) %(objectname)"]
        tags = [line.split(" ") for line in run(*words, at=mirror).splitlines()]
        steps = [
            f"update refs/moving/{tag} {name}\ndelete refs/tags/{tag}\n"
            for tag, name in tags
            if not re.fullmatch(RELEASE, tag)
        ]
        if steps:
            run("git", "update-ref", "--stdin", at=mirror, text="".join(steps))

    def _git(self, *words: str, fails: bool = False) -> str:
        return run("git", *words, at=self.mirror, fails=fails)

    def text(self, ref: str, path: str) -> str:
        """A file of the template as a release has it; empty where it has none."""
        return self._git("show", f"{ref}:{path}", fails=True)

    def release(self, ref: str) -> Release:
        """The release of a tag, a commit or what `git describe` says.

        Raises:
            OriginError: If the template has no such thing.
        """
        commit = self._commit(ref) or self._commit(f"refs/moving/{ref}")
        if not commit:
            raise OriginError(f"the template at {self.url} has no {ref}; its releases: {self.listed() or 'none'}")
        name = ref if self._commit(f"refs/tags/{ref}") else self._git("describe", "--tags", "--always", commit).strip()
        day = dt.date.fromisoformat(self._git("show", "--no-patch", "--format=%cs", commit).strip())
        return Release(name, commit, number(name), day)

    def _commit(self, ref: str) -> str:
        return self._git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", fails=True).strip()

    def recorded(self, project: Path) -> Release:
        """The release that a project follows; if its answers name a moving tag, the one that rendered most files.

        Raises:
            OriginError: If the template has no such release.
        """
        given = answers(project)
        ref = str(given["_commit"])
        if re.fullmatch(EXACT, ref) or not self.releases:
            return self.release(ref)
        found = min(reversed(self.releases), key=lambda release: self._distance(release, given, project))
        self.note = f"{ANSWERS} names {ref}, a tag that moves; the files of this project are those of {found.ref}"
        return found

    def _distance(self, release: Release, given: Mapping[str, Any], project: Path) -> int:
        """How many lines of a project differ from what a release renders."""
        lines = 0
        with tempfile.TemporaryDirectory(prefix="distance-") as scratch:
            try:
                self.render(release, given, Path(scratch))
            except OriginError:
                return sys.maxsize
            for path in files(Path(scratch)):
                here = (project / path).read_bytes() if (project / path).is_file() else b""
                lines += len(set(here.splitlines()) ^ set((Path(scratch) / path).read_bytes().splitlines()))
        return lines

    @cached_property
    def releases(self) -> list[Release]:
        """All releases that are none before their time, the oldest first."""
        lines = self._git("for-each-ref", "refs/tags", "--format=%(refname:short)").split()
        known = [(number(tag), tag) for tag in lines]
        finished = sorted((version, tag) for version, tag in known if version and not version.is_prerelease)
        return [self.release(tag) for _, tag in finished]

    def listed(self) -> str:
        return ", ".join(release.ref for release in self.releases[-5:])

    def newest(self) -> Release:
        """The newest release; the newest commit where there is none."""
        return self.releases[-1] if self.releases else self.release("HEAD")

    def since(self, old: Release, new: Release) -> list[Release]:
        """The releases after one, up to another."""
        return [
            one
            for one in self.releases
            if one.version
            and new.version
            and one.version <= new.version
            and (not old.version or one.version > old.version)
        ]

    def changelog(self, old: Release, new: Release) -> str:
        """What an owner must know of the releases after one, up to another; of an untagged one what is unreleased."""
        sections = re.split(r"^## ", self.text(new.commit, "CHANGELOG.md"), flags=re.M)[1:]
        wanted = {str(one.version) for one in self.since(old, new)}
        told = []
        for section in sections:
            head = section.split(maxsplit=1)[0].removeprefix("v") if section.strip() else ""
            untagged = (
                head.lower() == "unreleased" and new.ref != f"v{new.version}" and section.split("\n", 1)[1].strip()
            )
            if head in wanted or untagged:
                told.append(f"## {section.strip()}")
        return "\n\n".join(told)

    def questions(self, release: Release) -> dict[str, Mapping[str, Any]]:
        """What a release asks, by name; what it computes is left out."""
        listed = yaml.safe_load(self.text(release.commit, "copier.yml")) or {}
        asked = {name: one if isinstance(one, Mapping) else {"default": one} for name, one in listed.items()}
        return {name: one for name, one in asked.items() if name[0] != "_" and one.get("when") is not False}

    def migrations(self, old: Release, new: Release) -> list[str]:
        """The versions whose migration an update crosses, the oldest first."""
        listed = (yaml.safe_load(self.text(new.commit, "copier.yml")) or {}).get("_migrations", [])
        found = {str(one["version"]) for one in listed if isinstance(one, Mapping) and "version" in one}
        crossed = [text for text in found if new.version and old.version and old.version < Version(text) <= new.version]
        return sorted(crossed, key=Version)

    def render(self, release: Release, given: Mapping[str, Any], target: Path) -> None:
        """Write what a release renders for some answers.

        Raises:
            OriginError: If Copier refuses the answers.
        """
        from copier import run_copy
        from copier.errors import CopierError

        data = {key: value for key, value in given.items() if not key.startswith("_")}
        try:
            with neutral():
                run_copy(str(self.mirror), target, data=data, defaults=True, quiet=True, vcs_ref=release.commit)
        except (CopierError, ValueError, TypeError) as error:  # Copier iterates over an answer that should be a list
            raise OriginError(
                f"{release.ref} does not render with the answers of {ANSWERS}: {error}; `git log -p {ANSWERS}` shows what they were"
            ) from error

    def ownership(self, release: Release) -> Ownership:
        """Whose file is whose in a release."""
        return Ownership(self.text(release.commit, "docs/ownership.md"))


def number(name: str) -> Version | None:
    """v1.2.0 as a version; v1.2.0-3-gabcdef as one after it; None for a bare hash."""
    found = re.fullmatch(rf"({RELEASE}?)(?:-(\d+)-g[0-9a-f]+)?", name)
    if not found:
        return None
    try:
        return Version(f"{found[1]}.post{found[2]}" if found[2] else found[1])
    except InvalidVersion:
        return None


class Ownership:
    """docs/ownership.md, as people read it.

    Args:
        text: The page.
    """

    def __init__(self, text: str) -> None:
        rows = re.findall(r"^\| `([^`]+)`[^|]*\| (yours|seeds) +\|", text, re.M)
        self.starred = [_whole(name) for name, owner in rows if owner == YOURS]
        self.seeds = [_whole(name) for name, owner in rows if owner == SEED]
        table = text.partition("| instead of editing |")[2].partition("\n\n")[0]
        self.places = {
            _whole(name): place.strip() for name, place in re.findall(r"^\| `([^`]+)`[^|]*\| (.+?) *\|$", table, re.M)
        }

    def of(self, path: str) -> str:
        """yours, seeds or ours."""
        if any(_matches(path, pattern) for pattern in self.seeds):
            return SEED
        return YOURS if any(_matches(path, pattern) for pattern in self.starred) else OURS

    def place(self, path: str) -> str:
        """Where one's own goes instead of into a file of ours; empty where the page names none."""
        return next((place for pattern, place in self.places.items() if _matches(path, pattern)), "")


def _whole(name: str) -> str:
    return f"src/*/{name}" if name.startswith(INSIDE) else name


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern names a path; its stars match within one folder, as those of `_skip_if_exists` do."""
    if pattern.endswith("/"):
        return path.startswith(pattern)
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def files(folder: Path, but: Sequence[str] = (".git", "__pycache__")) -> Iterator[str]:
    """The files under a folder, relative to it, with slashes."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in but)
        for name in sorted(names):
            yield (Path(place) / name).relative_to(folder).as_posix()
