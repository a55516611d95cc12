"""The registry's records: versions, moves and runs. A command reads them from MLflow's SQLite file without MLflow.

The import of MLflow takes longer than the rest of `make history`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from copier_mlops import project

POINTER = Path("champion.json")
CHAMPION, CHALLENGER = "champion", "challenger"
MOVE = "move."
FILES = "mlartifacts"
CREATED = "moved.created"
TEXTS = "texts"

PARENT = "mlflow.parentRunId"
"""Tag of a child run: a trial of the search. It is no run of the stages."""

RECORDED = "recorded"
"""Tag of a run: when it was logged, in milliseconds. A run starts when its training starts; 1.2 and earlier: when it is logged."""

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
"""The tables and columns in which MLflow's database keeps absolute paths of files."""


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        number: 1, 2, 3 ...
        run_id: The MLflow run that registered it.
        lineage: The files, commit and settings that it was made from.
        status: champion, challenger or archived.
        created: The time of its registration.
    """

    number: int
    run_id: str
    lineage: str
    status: str
    created: dt.datetime


@dataclass(frozen=True)
class Move:
    """One change of the champion: its direction, the version before and after, and who made it, when and why."""

    action: str
    before: int | None
    after: int
    who: str
    when: str
    why: str


@dataclass(frozen=True)
class RunRecord:
    """One run in a list of runs; `started` is when it was logged, in milliseconds."""

    run_id: str
    started: int
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Records:
    """All finished runs, versions and moves, the oldest first."""

    runs: list[RunRecord]
    versions: list[Version]
    moves: list[Move]
    aliases: Mapping[str, int]

    def settled(self, pointer: Mapping[str, Any]) -> bool:
        """Whether aliases, status tags and champion.json agree with the last move."""
        holders = held(self.aliases, self.versions)
        champion, challenger = holders.get(CHAMPION), holders.get(CHALLENGER)
        status = {one.number: "archived" for one in self.versions}
        status |= {challenger.number: CHALLENGER} if challenger else {}
        status |= {champion.number: CHAMPION} if champion else {}
        if any(one.status != status[one.number] for one in self.versions):
            return False
        if not self.moves or champion is None:
            return not self.moves and champion is None and not pointer
        last, run = self.moves[-1], next((run for run in self.runs if run.run_id == champion.run_id), None)
        return (
            run is not None
            and last.after == champion.number
            and champion != challenger
            and [pointer.get(name) for name in ("version", "run_id", "bundle", "since", "by", "why")]
            == [champion.number, champion.run_id, run.tags.get("bundle", ""), last.when, last.who, last.why]
        )


def held(aliases: Mapping[str, int], versions: Iterable[Version]) -> dict[str, Version]:
    """Return the version of each alias that is set."""
    numbers = {one.number: one for one in versions}
    return {alias: numbers[number] for alias, number in aliases.items() if number in numbers}


def moves_of(tags: Mapping[str, str]) -> list[Move]:
    """Return the moves in the tags of the registered model, the oldest first."""
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(MOVE)]


def read(uri: str) -> Records | None:
    """Return the records of a SQLite file; None if they have to be read through MLflow.

    MLflow has to read a server, a file that it has yet to create or migrate, and records of which one was deleted.
    """
    file = database(uri)
    if file is None or not file.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=10)) as base:
            old = _former_folder(base)
            if old is None or _folder(f"{old}/{FILES}").resolve() != (file.parent / FILES).resolve():
                return None  # a folder that was moved: MLflow's places are corrected first
            return _read(base)
    except (sqlite3.Error, ValueError, TypeError):  # another release of MLflow may name its tables differently
        return None


def _read(base: sqlite3.Connection) -> Records | None:
    experiment = base.execute(
        "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'", (project.name(),)
    ).fetchone()
    if experiment is None:
        return None
    of = "WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = ?)"
    metrics = _by_run(base.execute(f"SELECT run_uuid, key, value FROM latest_metrics {of} AND NOT is_nan", experiment))  # noqa: S608
    params = _by_run(base.execute(f"SELECT run_uuid, key, value FROM params {of}", experiment))  # noqa: S608
    tags = _by_run(base.execute(f"SELECT run_uuid, key, value FROM tags {of}", experiment))  # noqa: S608
    found = base.execute(
        "SELECT run_uuid, start_time FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active' "
        "AND status = 'FINISHED'",
        experiment,
    )
    runs = [
        RunRecord(run, recorded(named, start), metrics.get(run, {}), params.get(run, {}), named)
        for run, start in found
        if PARENT not in (named := tags.get(run, {}))
    ]
    runs.sort(key=lambda run: (run.started, run.run_id))
    described = _by_run(
        base.execute("SELECT version, key, value FROM model_version_tags WHERE name = ?", (project.name(),))
    )
    found = base.execute(
        "SELECT version, run_id, creation_time FROM model_versions WHERE name = ? "
        "AND current_stage != 'Deleted_Internal' ORDER BY version",
        (project.name(),),
    )
    versions = [version_of(number, run, described.get(number, {}), made) for number, run, made in found]
    if {one.run_id for one in versions} - {run.run_id for run in runs}:
        return None
    moves = dict(base.execute("SELECT key, value FROM registered_model_tags WHERE name = ?", (project.name(),)))
    aliases = dict(
        base.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (project.name(),))
    )
    return Records(runs, versions, moves_of(moves), aliases)


def recorded(tags: Mapping[str, str], started: int) -> int:
    """Return when a run was logged, in milliseconds."""
    return int(tags.get(RECORDED, started))


def experiment_of(uri: str) -> str | None:
    """Return the id of this project's experiment in a SQLite file; None without one."""
    file = database(uri)
    if file is None or not file.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=10)) as base:
            found = base.execute("SELECT experiment_id FROM experiments WHERE name = ?", (project.name(),)).fetchone()
    except sqlite3.Error:  # another release of MLflow may name its tables differently
        return None
    return str(found[0]) if found else None


def version_of(number: int | str, run_id: str | None, tags: Mapping[str, str], created: int) -> Version:
    """Return a version from MLflow's record of it; `created` is in milliseconds."""
    return Version(
        int(number),
        str(run_id),
        tags.get("lineage", ""),
        tags.get("status", "archived"),
        dt.datetime.fromtimestamp(int(tags.get(CREATED, created)) / 1000, dt.UTC),
    )


def _by_run(rows: Iterator[tuple[Any, str, Any]]) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for owner, key, value in rows:
        found.setdefault(owner, {})[key] = value
    return found


def warn(text: str) -> None:
    """Print a warning."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def database(uri: str) -> Path | None:
    """The file of a `sqlite:` address; None for any other."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute() if uri.startswith("sqlite:///") else None


def settle_in(uri: str) -> None:
    """Correct the paths in a database that was moved or copied with its folder, before MLflow opens it.

    MLflow keeps absolute paths. Each is changed to the same path relative to the new place of the database, unless the
    file exists only in the old place. All changes are one transaction. So a copy is an independent project: it neither
    reads nor writes files of the folder that it was copied from. If no file came along and the old ones exist, nothing
    changes.

    Raises:
        sqlite3.Error: If the database cannot be written to.
    """
    file = database(uri)
    if file is None or not file.is_file():
        return
    with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as base:
        old = _former_folder(base)
        if old is None or _folder(f"{old}/{FILES}").resolve() == (file.parent / FILES).resolve():
            return
        base.execute("BEGIN IMMEDIATE")
        new = _new_places(base, old, file.parent)
        for table, column, before, after in new:
            base.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (after, before))  # noqa: S608 - _PLACES
        base.execute("COMMIT")
    if new:
        was = "is a copy of" if _folder(old).exists() else "was moved from"
        said = f"this project {was} {_folder(old)}: its registry names the files in {file.parent} now"
        print(said, file=sys.stderr, flush=True)


def _folder(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path) if uri.startswith("file:") else uri)


def _former_folder(base: sqlite3.Connection) -> str | None:
    """The former folder of the database and of this project's runs, as MLflow writes it."""
    try:
        found = base.execute("SELECT artifact_location FROM experiments WHERE name = ?", (project.name(),)).fetchone()
    except sqlite3.DatabaseError:  # not MLflow's, or not yet: MLflow reports that
        return None
    place = str(found[0]) if found else ""
    return place.removesuffix(f"/{FILES}") if place.startswith("file:") and place.endswith(f"/{FILES}") else None


def _new_places(base: sqlite3.Connection, old: str, home: Path) -> list[tuple[str, str, str, str]]:
    """The changes as table, column, old and new path; without moved files at most the folder for new files changes."""
    roots = {f"{old}/": f"{home.as_uri()}/", f"{_folder(old)}/": f"{home}/"}  # the default experiment has no file://
    found = []
    for table, column in _PLACES:
        if column in {line[1] for line in base.execute(f"PRAGMA table_info({table})")}:
            for (place,) in base.execute(f"SELECT DISTINCT {column} FROM {table}"):  # noqa: S608 - _PLACES
                root = next((root for root in roots if str(place).startswith(root)), None)
                if root:
                    found.append((table, column, place, roots[root] + place.removeprefix(root)))
    came = [one for one in found if one[0] != "experiments" and _folder(one[3]).exists()]
    if came:
        return [one for one in found if _folder(one[3]).exists() or not _folder(one[2]).exists()]
    return [one for one in found if one[0] == "experiments" and not _folder(one[2]).exists()]


def text_of(file: Path) -> str | None:
    """Return the text of a file; None without one."""
    return file.read_text(encoding="utf-8") if file.exists() else None


def parsed(text: str | None) -> Mapping[str, Any]:
    """Return the content of a champion.json; empty if it is missing or not valid."""
    with contextlib.suppress(ValueError):
        found = json.loads(text or "{}")
        return found if isinstance(found, dict) else {}
    return {}
