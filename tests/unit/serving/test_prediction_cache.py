"""Answers computed ahead are those of the live model, or nobody gets them."""

import dataclasses
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops import ProjectError
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.contract.contract import Column, Contract
from copier_mlops.data.readers import Table
from copier_mlops.serving import batch_input, precompute
from copier_mlops.serving.bundle_loader import records
from copier_mlops.serving.predict_endpoint import Answers
from copier_mlops.serving.prediction_cache import Precomputed
from copier_mlops.serving.request_parser import Reader
from copier_mlops.settings import Settings

from ..conftest import mlops

KEY = "of the tests"
MIXED = Contract(
    (
        Column("id", "integer", "id"),
        Column("at", "timestamp", "time"),
        Column("whole", "integer", nullable=True),
        Column("number", "number", nullable=True),
        Column("flag", "boolean", nullable=True),
        Column("text", "string", nullable=True),
        Column("who", "string", personal=True, nullable=True),
        Column("y", "number", "target"),
    )
)
ROWS = [
    {"id": 1, "at": "2026-01-01T10:00:00Z", "whole": 3, "number": 0.1, "flag": True, "text": "3", "who": "Ada"},
    {"id": 2, "at": "2026-01-01T10:00:00.5Z", "whole": None, "number": None, "flag": None, "text": None, "who": None},
    {
        "id": 3,
        "at": "1969-12-31T23:59:59.999999Z",
        "whole": -1,
        "number": 1e300,
        "flag": False,
        "text": "\u00fc",
        "who": "Bo",
    },
]


class Hashing:
    """A model whose answer depends on all of a row."""

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return pd.util.hash_pandas_object(features, index=False).to_numpy() % 997 / 997


def made(contract: Contract, digest: str = "a" * 64) -> Bundle:
    if len(contract.classes) > 2:
        contract = dataclasses.replace(contract, columns=tuple(
            Column(one.name, "number", "target") if one.role == "target" else one for one in contract.columns
        ))  # fmt: skip
    return Bundle({"version": 3}, contract, lambda rows: rows.drop(columns=contract.id), Hashing(), {}, digest=digest)


class Place:
    """Where rows are computed ahead and looked up again."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, bundle: Bundle) -> None:
        self.folder, self.patch, self.bundle = folder, patch, bundle
        self.settings = Settings(precomputed=folder / "precomputed.db")
        self.reader = Reader(bundle.contract, 1000, KEY)
        patch.setattr(batch_input.project, "source", SimpleNamespace)  # tables of the tests are written as they are

    def compute(self, rows: pd.DataFrame | list[dict[str, Any]]) -> tuple[int, int]:
        self.patch.setattr(precompute, "answering", lambda settings: self.bundle)
        file = self.folder / "rows.parquet"
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
        if not file.exists() or not pd.read_parquet(file).equals(frame):
            frame.to_parquet(file)
        return precompute.precompute(self.settings, str(file))

    def looking(self, hours: float = 1, digest: str = "") -> Precomputed:
        return Precomputed(self.settings.precomputed, digest or self.bundle.digest, hours)

    def decoded(self, rows: list[dict[str, Any]]) -> list[Any]:
        return self.reader.read(json.dumps(rows).encode()).rows

    def live(self, rows: list[dict[str, Any]], bundle: Bundle | None = None) -> list[dict[str, Any]]:
        return list(
            records((bundle or self.bundle).answers(self.reader.frame([self.reader.read(json.dumps(rows).encode())])))
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Rows of each kind, computed ahead."""
    one = Place(tmp_path, monkeypatch, made(MIXED))
    assert one.compute(ROWS) == (3, 0)
    yield one


def test_rows_of_this_projects_contract_are_found_with_the_answers_of_the_live_model(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, monkeypatch, made(CONTRACT))
    some = rows.head(100)
    assert place.compute(some) == (some[CONTRACT.id].nunique(), 0)
    text = some.drop(columns=CONTRACT.target).to_json(
        orient="records", date_format="iso", date_unit="us", double_precision=15
    )
    asked = json.loads(text)
    looking = place.looking()
    found = looking.lookup(place.decoded(asked))
    known = [number for number, answer in enumerate(found) if answer is not None]
    assert len(known) > 90, "JSON of pandas may be off in the last digit"
    live = place.live(asked)
    assert [found[number] for number in known] == [live[number] for number in known]
    assert (looking.hits, looking.misses) == (len(known), len(asked) - len(known))


def test_every_kind_of_value_is_found_however_it_is_written(place: Place) -> None:
    looking = place.looking()
    assert looking.lookup(place.decoded(ROWS)) == place.live(ROWS)
    written = [
        {**ROWS[0], "at": "2026-01-01T11:00:00+01:00", "whole": 3.0, "id": 1.0},
        {"id": 2, "at": "2026-01-01 10:00:00.500000"},
        {**ROWS[2], "flag": "no", "whole": "-1"},
    ]
    assert looking.lookup(place.decoded(written)) == place.live(written) == place.live(ROWS)


@pytest.mark.parametrize("name", [column.name for column in MIXED.without_target()])
def test_a_row_that_differs_in_anything_is_not_found(place: Place, name: str) -> None:
    others = {"id": 4, "at": "2026-01-01T10:00:00.000001Z", "number": 0.1000000000000001, "flag": False}
    looking = place.looking()
    other = {**ROWS[0], name: others.get(name, "4")}
    assert looking.lookup(place.decoded([other, ROWS[0]])) == [None, place.live(ROWS)[0]]
    if MIXED[name].nullable:
        assert looking.lookup(place.decoded([{**ROWS[0], name: None}])) == [None]


def test_rows_that_break_the_contract_have_no_answer(place: Place) -> None:
    assert place.compute([*ROWS[:1], {**ROWS[1], "at": None}]) == (1, 1)
    with pytest.raises(ProjectError, match="no row of"):
        place.compute([{**ROWS[1], "at": None}])
    assert place.looking().lookup(place.decoded(ROWS[:1])) == place.live(ROWS[:1]), "what was there stays"


def test_rows_need_their_names_and_a_missing_column_is_named_with_its_file(place: Place) -> None:
    for name in ("id", "flag"):
        with pytest.raises(ProjectError, match=rf"rows\.parquet: .*column {name} is missing"):
            place.compute([{key: value for key, value in row.items() if key != name} for row in ROWS])


def test_an_old_answer_is_not_given(place: Place) -> None:
    assert place.looking(hours=1e-9).lookup(place.decoded(ROWS)) == [None] * 3


def test_the_answers_of_another_model_are_not_given(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    looking = place.looking(digest="b" * 64)
    assert looking.lookup(place.decoded(ROWS)) == looking.lookup(place.decoded(ROWS)) == [None] * 3
    assert caplog.text.count("computed with another bundle") == 1
    place.bundle = dataclasses.replace(place.bundle, digest="b" * 64)
    place.compute(ROWS)
    assert looking.lookup(place.decoded(ROWS)) == place.live(ROWS), "the new file is noticed"


def test_without_a_file_the_live_model_answers_until_there_is_one(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    file = place.settings.precomputed
    file.rename(file.with_suffix(".away"))
    looking = place.looking()
    for _ in range(3):
        assert looking.lookup(place.decoded(ROWS)) == [None] * 3
    assert caplog.text.count("is not there") == 1
    file.with_suffix(".away").rename(file)
    assert None not in looking.lookup(place.decoded(ROWS))
    file.unlink()
    assert looking.lookup(place.decoded(ROWS)) == [None] * 3
    assert looking.misses == 12 and looking.hits == 3


@pytest.mark.parametrize("damage", ["no database", "cut", "other tables", "a spoiled answer"])
def test_a_damaged_file_is_as_none(place: Place, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    file = place.settings.precomputed
    content = file.read_bytes()
    if damage == "no database":
        file.write_bytes(b"\x00" * 5000)
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "other tables":
        file.unlink()
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE facts (name TEXT)")
    else:
        digit = content.rindex(b'{"score":') + 11
        file.write_bytes(content[:digit] + bytes([content[digit] ^ 1]) + content[digit + 1 :])
    looking = place.looking()
    for _ in range(2):
        found = looking.lookup(place.decoded(ROWS))
        assert found == [None] * 3
    assert caplog.text.count("the live model answers") == 1


def test_a_killed_run_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was there is given until the new answers are complete; nothing is computed twice."""
    many = [{**ROWS[0], "id": number} for number in range(30)]
    computed: list[int] = []

    def features(rows: pd.DataFrame) -> pd.DataFrame:
        if len(computed) == 20:
            raise KeyboardInterrupt
        computed.extend(rows["id"].astype("int").tolist())
        return rows.drop(columns="id")

    read = Table.read
    monkeypatch.setattr(
        Table,
        "read",
        lambda *words: (part for whole in read(*words) for part in (whole[:10], whole[10:20], whole[20:])),
    )
    whole = place.bundle
    place.bundle = dataclasses.replace(whole, build_features=features)
    with pytest.raises(KeyboardInterrupt):
        place.compute(many)
    assert place.looking().lookup(place.decoded(ROWS)) == place.live(ROWS, whole)
    place.bundle = whole
    assert place.compute(many) == (30, 0)
    assert "going on after 20 rows" in capsys.readouterr().err
    assert place.looking().lookup(place.decoded(many)) == place.live(many)
    assert [path.name for path in place.folder.glob(".*")] == []


def test_other_rows_or_another_model_begin_anew(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    partial = place.folder / ".precomputed.db.partial"
    for left in (b"", b"\x00" * 5000, place.settings.precomputed.read_bytes()):
        partial.write_bytes(left)
        assert place.compute(ROWS[:2]) == (2, 0)
        assert "going on" not in capsys.readouterr().err


def test_two_runs_at_once_are_one_too_many(place: Place) -> None:
    partial = place.folder / ".precomputed.db.partial"
    code = "import sqlite3, sys, time\nf = sqlite3.connect(sys.argv[1])\nf.execute('BEGIN EXCLUSIVE')\nprint(flush=True)\ntime.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(partial)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ProjectError, match="another `make precompute`"):
            place.compute(ROWS)
    finally:
        other.kill()
        other.wait()


def test_the_command_says_what_it_did(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRECOMPUTED", str(place.settings.precomputed))
    assert mlops("precompute", str(place.folder / "rows.parquet")) == 0
    assert "3 answers in" in capsys.readouterr().out
    for rows, said in (("", "name the rows"), ("nowhere.csv", "no table at")):
        assert mlops("precompute", rows) == 1
        assert said in capsys.readouterr().err


def test_a_lookup_takes_less_than_a_millisecond(place: Place) -> None:
    many = [{**ROWS[0], "id": number} for number in range(500)]
    place.compute(many)
    looking, asked = place.looking(), place.decoded(many)
    looking.lookup(asked)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        for row in asked:
            looking.lookup([row])
        seconds.append((time.process_time() - began) / len(asked))
    assert min(seconds) < 1e-3  # of the processor; a few microseconds on an idle machine


class Kept:
    """In place of the prediction log."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def add(self, entries: list[bytes]) -> None:
        self.entries += map(json.loads, entries)


def test_the_service_answers_what_it_knows_without_the_model(place: Place) -> None:
    """Alike to the live answer but for the prediction's name, and noted as hybrid; a body with a row that is not known goes to the model."""
    kept = Kept()
    answers = Answers(place.bundle, place.reader, kept, place.looking())  # type: ignore[arg-type]
    one, many = (place.reader.read(json.dumps(rows).encode()) for rows in (ROWS[0], ROWS))
    for asked in (one, many):
        known, live = answers.known(asked), answers([asked])[0]
        assert known is not None
        plain = [
            [{**row, "prediction_id": ""} for row in (found if isinstance(found, list) else [found])]
            for found in map(json.loads, (known, live))
        ]
        assert plain[0] == plain[1] and isinstance(json.loads(known), list) is asked.many
    assert [entry["way"] for entry in kept.entries] == ["hybrid", "online"] + ["hybrid"] * 3 + ["online"] * 3
    stranger = place.reader.read(json.dumps([ROWS[0], {**ROWS[0], "id": 99}]).encode())
    assert answers.known(stranger) is None
    assert Answers(place.bundle, place.reader, kept).known(one) is None  # type: ignore[arg-type]
