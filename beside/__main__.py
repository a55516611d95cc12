"""Render a project beside a repository, with a proposal of where its code belongs. The repository is read, never run or
written to; the project appears whole or not at all.

python -m beside REPOSITORY [INTO]
"""

from __future__ import annotations

import configparser
import glob
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

from . import facts, hidden, packages, proposal, purposes, reading

ROOT = Path(__file__).parent.parent
ASKED = "say which repository: make beside REPOSITORY=../churn [INTO=../churn-mlops]"


class BesideError(Exception):
    """There can be no project; the text says why, and what to do."""


def beside(repository: Path, into: Path | None = None) -> tuple[Path, reading.Repository]:
    """Make the project.

    Args:
        repository: A folder with Python in it.
        into: A folder that is not there yet; by default the repository's name with -mlops, beside it.

    Returns:
        The project, and what was read.

    Raises:
        BesideError: If something is missing or in the way; then nothing was written.
    """
    repository = repository.expanduser()
    place = repository.resolve() if repository.name in ("", "..") else repository.absolute()
    into = into.expanduser() if into else place.with_name(f"{place.name}-mlops")
    check(repository, into)
    old = reading.read(repository)
    if all(source.fault == reading.FOREIGN for source in old.sources):
        unread = "".join(f"\n  not read: {name} {reason}" for name, reason in old.unread.items())
        raise BesideError(f"{repository} has no Python: neither a .py file nor a notebook with code.{unread}")
    reader = purposes.Reader()
    reader.learn_names(old)
    found = facts.Looker(old, reader.names).look()
    reader.learn_functions(old, found.target.value if found.target else "")
    pieces = [piece for source in old.sources for piece in reader.pieces(source)]
    given, licence = answers(old, found)

    def propose(project: Path) -> None:
        package, provided = _platform(project)
        known = proposal.Known(
            old, found, hidden.hide(old), packages.required(old), pieces, into, package, provided, reader.names, licence
        )
        (project / "PROPOSAL.md").write_text(proposal.write(known), encoding="utf-8")

    render(given, into, propose)
    return into, old


def check(repository: Path, into: Path) -> None:
    """Refuse what cannot work, before anything is read.

    Raises:
        BesideError: The text says what to do instead.
    """
    if not repository.exists():
        raise BesideError(f"{repository} is not there; {ASKED}")
    if not repository.is_dir():
        raise BesideError(f"{repository} is a file; name the folder of the repository")
    if not os.access(repository, os.R_OK | os.X_OK):
        raise BesideError(f"{repository} cannot be read; ask its owner for the right to")
    if not any(repository.iterdir()):
        raise BesideError(f"{repository} is empty; {ASKED}")
    if _ours(repository):
        update = "make update" if _has_target(repository / "Makefile", "update") else "uvx copier update"
        raise BesideError(
            f"{repository} was made by this template: 'cd {repository} && {update}' brings it to a newer release"
        )
    if os.path.lexists(into):
        raise BesideError(f"{into} is there already; move it away, or name another folder with INTO=...")
    if into.resolve().is_relative_to(repository.resolve()):
        raise BesideError(
            f"{into} lies in {repository}, which is not written to; name a folder beside it with INTO=..."
        )
    if not into.parent.is_dir():
        raise BesideError(f"{into.parent} is not there; make it, or name another folder with INTO=...")
    if not os.access(into.parent, os.W_OK | os.X_OK):
        raise BesideError(f"{into.parent} cannot be written to; name another folder with INTO=...")


def _ours(repository: Path) -> bool:
    file = repository / ".copier-answers.yml"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return all(
        re.search(rf"^{name}:", text, re.M) for name in ("project_name", "problem", "data_source", "data_remote")
    )


def _has_target(makefile: Path, name: str) -> bool:
    return makefile.is_file() and bool(
        re.search(rf"^{name}:", makefile.read_text(encoding="utf-8", errors="replace"), re.M)
    )


# ------------------------------------------------------------------------------------------------------- Answers


def answers(old: reading.Repository, found: facts.Facts) -> tuple[dict[str, str], str]:
    """The answers to the template's questions, as far as the repository has them, and a sentence about its licence."""
    given = {"data_source": "own", "project_name": _project_name(old)}
    target = found.target.value if found.target else ""
    given["description"] = _one_line(_about(old).get("description", ""), 200) or (
        f"Predicts {_one_line(target, 80)}." if target else ""
    )
    author, owner = _git(old.root)
    given["author"] = _one_line(author, 80)
    given["owner"] = owner
    given["problem"] = found.problem
    given["licence"], said = _licence(old)
    return {key: value for key, value in given.items() if value}, said


def _about(old: reading.Repository) -> dict[str, str]:
    """Name and description, as pyproject.toml has them."""
    try:
        content = tomllib.loads(old.texts.get("pyproject.toml", ""))
    except tomllib.TOMLDecodeError:
        return {}
    about = content.get("project") or content.get("tool", {}).get("poetry", {})
    return {key: value for key, value in about.items() if isinstance(value, str)} if isinstance(about, dict) else {}


def _project_name(old: reading.Repository) -> str:
    for name in (_about(old).get("name", ""), old.root.resolve().name):
        words = re.sub(r"[\x00-\x1f\x7f_-]+", " ", name).strip()[:80].strip()
        if re.search(r"[A-Za-z0-9]", words):
            return words[0].upper() + words[1:]
    return "Adopted project"


def _one_line(text: str, length: int) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()[:length].strip()


def _git(root: Path) -> tuple[str, str]:
    """Who worked here last, and the account of the remote: read from git's files, since git itself may run what they say."""
    place = next((one / ".git" for one in (root.resolve(), *root.resolve().parents) if (one / ".git").exists()), None)
    if place is None:
        return _identity(), ""
    if place.is_file():  # a work tree beside another
        told = re.match(r"gitdir: (.+)", place.read_text(encoding="utf-8", errors="replace"))
        place = (place.parent / told[1].strip()) if told else place
    common = place / "commondir"
    shared = (place / common.read_text(encoding="utf-8").strip()) if common.is_file() else place
    author = ""
    if (place / "logs/HEAD").is_file():
        last = (place / "logs/HEAD").read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
        told = re.match(r"\S+ \S+ (.*?) <", last)
        author = told[1] if told else ""
    return author or _identity(), _account(shared / "config")


def _identity() -> str:
    """The name that this person commits with."""
    done = subprocess.run(["git", "config", "--global", "user.name"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _account(file: Path) -> str:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, interpolation=None)
    try:
        parser.read_string(re.sub(r"^[ \t]+", "", file.read_text(encoding="utf-8", errors="replace"), flags=re.M))
    except (OSError, configparser.Error):
        return ""
    url = parser.get('remote "origin"', "url", fallback="") or ""
    told = re.match(r"(?:[a-z+]+://[^/]+/|[^/:@]+@[^/:]+:)([^/]+)/", url)
    return told[1] if told and re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?", told[1]) else ""


def _licence(old: reading.Repository) -> tuple[str, str]:
    names = [name for name in old.others if re.match(r"(?:licen[cs]e|copying)(?:\.\w+)?$", name, re.I)]
    if not names:
        return "Proprietary", "**Licence**: the repository names none, so the project says: all rights reserved."
    text = " ".join((old.root / names[0]).read_bytes()[:20_000].decode("utf-8", errors="replace").split())
    if "Permission is hereby granted, free of charge" in text:
        return "MIT", ""
    if "Redistribution and use in source and binary forms" in text and "Neither the name" in text:
        return "BSD-3-Clause", ""
    return (
        "Proprietary",
        f"**Licence**: `{names[0]}` is none of those that the template writes; copy it into the project before you publish it.",
    )


# ------------------------------------------------------------------------------------------------------- Writing


def render(given: dict[str, str], into: Path, finish: Callable[[Path], None]) -> None:
    """Render under another name beside `into`, let `finish` add to it, then give it its name in one step.

    A kill leaves a hidden folder with the number of the process; the next run into the same place takes it away.
    """
    import copier

    for left in into.parent.glob(f".{glob.escape(into.name)}.*.part"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not _alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    part = into.with_name(f".{into.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the template's clone has changes is its owner's business
            copier.run_copy(str(ROOT), part, data=given, defaults=True, quiet=True, vcs_ref="HEAD")
        finish(part)
        if os.path.lexists(into):
            raise BesideError(f"{into} has appeared meanwhile; nothing was changed in it")
        part.rename(into)
    except copier.errors.CopierError as error:
        raise BesideError(f"the template could not be rendered: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _platform(project: Path) -> tuple[str, frozenset[str]]:
    """The project's package, and the packages that it brings, as indexes compare them."""
    groups = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    named = [one for group in groups.values() for one in group if isinstance(one, str)]
    package = next(path.parent.name for path in (project / "src").glob("*/cli.py"))
    return package, frozenset(packages.distribution(re.split(r"[\[<>=!~; ]", one)[0]) for one in named)


def main(words: list[str]) -> int:
    """0 if the project is there."""
    repository, into = [*words, "", ""][:2]
    try:
        if not repository:
            raise BesideError(ASKED)
        project, old = beside(Path(repository), Path(into) if into else None)
    except BesideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; nothing was left behind", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: stopped; nothing was left behind", file=sys.stderr)
        return 130
    files = len({source.file for source in old.sources})
    print(f"  {files} files of code were read in {repository}; nothing in it was run or changed")
    for name, reason in old.unread.items():
        print(f"  not read: {name} {reason}")
    print(f"  the project is {project}: PROPOSAL.md in it says what to type first, and where the code belongs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
