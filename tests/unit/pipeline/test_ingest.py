"""Rows arrive by month, and nothing that names a person is ever on disk as it came."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sample_project import schema, source

from copier_mlops import Column, Contract, ProjectError
from copier_mlops.contract.contract import mask
from copier_mlops.contract.validation import FIRST_MOMENT
from copier_mlops.data import tables
from copier_mlops.params import Resolved, Window, load_run
from copier_mlops.pipeline import ingest
from copier_mlops.settings import Paths, Settings

CONTRACT = Contract(
    (
        Column("id", "string", "id"),
        Column("at", "timestamp", "time"),
        Column("name", "string", personal=True),
        Column("y", "boolean", "target"),
    )
)


def read(location: str, start: pd.Timestamp, end: pd.Timestamp, columns: list[str]) -> Iterator[pd.DataFrame]:
    times = pd.to_datetime(["2024-01-31", "2024-02-01"], utc=True)
    for chunk in range(2):
        yield pd.DataFrame({"id": [f"{chunk}a", f"{chunk}b"], "at": times, "name": ["Lovelace", "Byron"], "y": True})


def test_every_row_of_the_window_is_there(project: Path, source_uri: str) -> None:
    window, months = load_run().resolved, tables.parts(Paths.RAW)
    bounds = (pd.Timestamp(window.start), pd.Timestamp(window.end)) if window.start and window.end else (None, None)
    expected = pd.concat(source.read(source_uri, *bounds, schema.CONTRACT.names))
    expected = mask(expected, schema.CONTRACT, "of the tests")
    raw = pd.concat(tables.read(file) for _, files in months for file in files)
    for name in schema.CONTRACT.order:
        assert set(raw[name]) == set(expected[name])
    assert len(raw) == len(expected) > 0
    assert set(raw) == set(schema.CONTRACT.names)
    assert len(months) > 1 if schema.CONTRACT.time else [month for month, _ in months] == ["all"]


def test_personal_values_are_masked_before_they_are_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sample_project.schema.CONTRACT", CONTRACT)
    monkeypatch.setattr("sample_project.source.read", read)
    assert ingest.ingest(Settings()) == 4
    content = b"".join(file.read_bytes() for file in Paths.RAW.rglob("*") if file.is_file())
    assert b"Lovelace" not in content
    names = pd.concat(tables.read(file) for _, files in tables.parts(Paths.RAW) for file in files)["name"]
    assert names.nunique() == 2
    assert names.str.fullmatch("[0-9a-f]{24}").all()
    with pytest.raises(ProjectError, match="column name is personal, and there is no key"):
        ingest.ingest(Settings(mask_key=""))


def test_rows_outside_the_window_are_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A project's window moves with its newest row; without a message the oldest rows go unnoticed."""
    run = load_run()
    end = run.resolved.end or dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    moments = Resolved(start=end - dt.timedelta(days=9), test_start=end - dt.timedelta(days=2), end=end)
    asked: list[pd.Timestamp | None] = []

    def source(location: str, start: pd.Timestamp, end: pd.Timestamp, columns: list[str]) -> Iterator[pd.DataFrame]:
        asked.append(start)
        yield from read(location, start, end, columns)

    def said(window: Window, resolved: Resolved, rows: int) -> str:
        update = {"window": window, "resolved": resolved, "source": run.source.model_copy(update={"rows": rows})}
        monkeypatch.setattr(ingest, "load_run", lambda: run.model_copy(update=update))
        assert ingest.ingest(Settings()) == 4
        return capsys.readouterr().out

    monkeypatch.setattr("sample_project.schema.CONTRACT", CONTRACT)
    monkeypatch.setattr("sample_project.source.read", source)
    few = said(Window(days=10), moments, 1_004)
    assert f"1,000 of 1,004 rows at the source are outside the window (before {moments.start:%Y-%m-%d})" in few
    assert "outside" not in said(Window(days=10), moments, 4)
    every = said(Window(), moments.model_copy(update={"start": None}), 1_004)
    assert "outside" not in every  # the source left them out, or a change of it: no window did
    assert asked[-1] == FIRST_MOMENT  # a source of a project's own may compare it with times
    ended = said(Window(until=end.date()), moments.model_copy(update={"start": None}), 5)
    assert f"1 of 5 rows at the source are outside the window (from {end:%Y-%m-%d} on)" in ended


def test_a_source_without_rows_stops_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sample_project.source.read", lambda *arguments: iter(()))
    with pytest.raises(ProjectError, match=r"the source has no rows( from|\.)"):
        ingest.ingest(Settings())
