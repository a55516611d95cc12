"""Answers ahead of the question: the rows of a file, answered into the file that `hybrid` looks them up in."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import check_rows
from copier_mlops.data.readers import Table
from copier_mlops.serving.batch_input import questions, table_at
from copier_mlops.serving.bundle_loader import answering, records
from copier_mlops.serving.prediction_cache import LAYOUT, checksum, digest
from copier_mlops.settings import Settings

TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, id TEXT, at REAL, answer BLOB) WITHOUT ROWID;
"""


def precompute(settings: Settings, given: str) -> tuple[int, int]:
    """Answer the rows of a file and put what came of it in the place of what was computed before.

    A run that was killed goes on where it was, if bundle and file are the same.

    Args:
        settings: Which bundle answers, and where the answers go.
        given: A table as `make score` takes it, with the ids.

    Returns:
        How many rows have an answer, and how many break the contract and have none.

    Raises:
        ProjectError: If there is no bundle or no table to read, or another run is at work.
    """
    table = table_at(given)
    files = [table.at(file) for file in table.files()]
    which = " ".join(f"{file.location} {file.fingerprint()}" for file in files)
    bundle = answering(settings)
    target = settings.precomputed
    partial = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    times = [place for place, one in enumerate(bundle.contract.without_target()) if one.kind == "timestamp"]
    facts = {"layout": LAYOUT, "bundle": bundle.digest, "version": str(bundle.version), "times": str(times)}
    with closing(_begun(partial, {**facts, "rows": which})) as file:
        passed, refused = _progress(file)
        if passed:
            print(f"going on after {passed:,} rows", file=sys.stderr, flush=True)
        for rows in _after(passed, files, bundle.contract, settings.mask_key.get_secret_value()):
            checked = check_rows(rows, bundle.contract, labelled=False, repeats=True)
            passed, refused = passed + len(rows), refused + len(checked.set_aside)
            ids = checked.good[bundle.contract.id].astype("str").tolist()
            answers = records(bundle.answers(checked.good))
            at = time.time()
            kept = []
            for name, answer, *values in zip(ids, answers, *_columns(checked.good, bundle.contract), strict=True):
                key, said = digest(bundle.digest, values), msgspec.json.encode(answer)
                kept.append((key, name, at, checksum(key, said) + said))
            try:
                with file:
                    file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", kept)
                    file.execute("INSERT OR REPLACE INTO facts VALUES ('progress', ?)", (f"{passed} {refused}",))
            except sqlite3.OperationalError as error:
                raise ProjectError(
                    f"{partial} cannot be written ({error}). Make room, then run the same again: what it has is kept."
                ) from error
        count = int(file.execute("SELECT count(*) FROM answers").fetchone()[0])
        if not count:
            raise ProjectError(f"no row of {given} has an answer; {target} was left as it was.")
    partial.replace(target)
    return count, refused


def _begun(partial: Path, facts: dict[str, str]) -> sqlite3.Connection:
    """The file that is being written: the one that a killed run left, if it is of the same, else a new one."""
    for again in (False, True):
        file = sqlite3.connect(partial, timeout=1)
        try:
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("BEGIN EXCLUSIVE")  # and so it stays until the file is closed
            file.commit()
            file.executescript(TABLES)
            there = dict(file.execute("SELECT name, value FROM facts WHERE name != 'progress'"))
            if not there:
                with file:
                    file.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            if not there or there == facts:
                return file
        except sqlite3.OperationalError as error:
            file.close()
            raise ProjectError(
                f"{partial} cannot be written ({error}). If another `make precompute` is at work, wait for it; else remove the file."
            ) from error
        except sqlite3.DatabaseError:
            if again:
                raise
        file.close()
        for left in (partial, Path(f"{partial}-journal")):
            left.unlink(missing_ok=True)
    raise AssertionError("a new file has the facts that it was made with")


def _progress(file: sqlite3.Connection) -> tuple[int, int]:
    found = file.execute("SELECT value FROM facts WHERE name = 'progress'").fetchone()
    passed, refused = map(int, found[0].split()) if found else (0, 0)
    return passed, refused


def _after(passed: int, files: Iterable[Table], contract: Contract, key: str) -> Iterator[pd.DataFrame]:
    """The rows of some files but for the first so many."""
    for file in files:
        read = 0
        for rows, read_then in questions(file, contract, key, passed):
            read = read_then
            if len(rows):
                yield rows
        passed = max(0, passed - read)


def _columns(good: pd.DataFrame, contract: Contract) -> Iterator[list[Any]]:
    """The columns of rows that keep the contract, as `digest` has the values of one."""
    for column in contract.without_target():
        values = good[column.name]
        if column.kind == "timestamp":
            numbers = values.dt.tz_localize(None).to_numpy("datetime64[us]").astype("int64").astype("float64")
            values = pd.Series(np.where(values.isna(), np.nan, numbers))
        elif column.kind != "string":
            values = values.astype("float64")
        yield values.astype("object").where(values.notna(), None).tolist()
