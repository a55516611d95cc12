"""Labels are read from wherever they are; a copy of them is checked, masked, and there once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from copier_mlops import Column, Contract, ProjectError
from copier_mlops.contract.contract import pseudonym
from copier_mlops.monitoring import label_store
from copier_mlops.monitoring.label_join import Labels
from copier_mlops.monitoring.label_store import Feed, keep, told

KEY = "of the tests"
TARGET = Column("late", "boolean", role="target")
CONTRACT = Contract((Column("id", "string", role="id"), Column("size", "number"), TARGET))
PERSONAL = Contract((Column("id", "string", role="id", personal=True), Column("size", "number"), TARGET))
GOOD = {"id": ["a", "b"], "late": ["yes", "no"], "labelled_at": ["2024-01-10", "2024-01-11T09:30:00Z"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name: str, content: Mapping[str, Any]) -> str:
    file, frame = Path(name), pd.DataFrame(content)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        frame.to_parquet(file)
    elif file.suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, index=False, sep=";" if "german" in name else ",")
    return name


def read(location: str, contract: Contract = CONTRACT, key: str = KEY) -> tuple[pd.DataFrame, Feed]:
    feed = Feed(location, contract, key)
    found = list(feed)
    return (pd.concat(found, ignore_index=True) if found else pd.DataFrame()), feed


@pytest.mark.parametrize("name", ["x.csv", "german.csv", "x.csv.gz", "x.parquet", "x.jsonl"])
def test_in_whatever_form_they_are(name: str) -> None:
    found, feed = read(written(name, {**GOOD, "beside": [1, 2]}))
    assert found[["id", "late", "labelled_at"]].astype("str").to_dict("list") == GOOD
    assert "beside" not in found
    assert (feed.there, feed.files, feed.troubles) == (True, 1, [])


def test_files_of_a_folder_need_not_have_the_same_columns() -> None:
    written("labels/a.csv", GOOD)
    written("labels/b/c.parquet", {"prediction_id": ["p1"], "late": [True]})
    found, feed = read("labels")
    assert len(found) == 3
    assert (feed.files, feed.troubles) == (2, [])


def test_a_broken_file_is_told_and_the_others_are_read() -> None:
    written("labels/a.csv", GOOD)
    Path("labels/b.parquet").write_bytes(b"PAR1 and no more")
    written("labels/c.csv", {"name": ["a"], "truth": [1]})
    Path("labels/d.csv").write_text("id,late\nx,1\ny\n")
    Path("labels/notes.md").write_text("nothing to read")
    found, feed = read("labels")
    assert {"a", "b"} <= set(found["id"])
    assert "labels/b.parquet cannot be read" in feed.troubles[0]
    assert "labels/c.csv has the columns name, truth. Labels need late, and prediction_id or id." in feed.troubles[1]
    assert "line 3 of labels/d.csv has 1 fields" in feed.troubles[2]


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("nowhere.csv", "there is no table at nowhere.csv"),
        ("other/", "there is no table at other/"),
        ("sqlite:///shop.db", "labels are read from files, folders and s3://, not from sqlite://"),
    ],
)
def test_a_feed_that_is_missing_is_told(location: str, says: str) -> None:
    found, feed = read(location)
    assert found.empty
    assert says in feed.troubles[0]


def test_the_projects_own_folder_may_be_empty() -> None:
    for _ in range(2):
        _, feed = read(label_store.FOLDER)
        assert (feed.there, feed.troubles) == (False, [])
        Path(label_store.FOLDER).mkdir(exist_ok=True)


def test_personal_ids_are_masked_as_they_are_in_the_log() -> None:
    file = written("x.csv", GOOD)
    found, _ = read(file, PERSONAL)
    assert found["id"].tolist() == [pseudonym("a", KEY), pseudonym("b", KEY)]
    _, feed = read(file, PERSONAL, key="")
    assert "there is no key to mask it with" in feed.troubles[0]


def test_a_copy_is_kept_once() -> None:
    file = written("x.csv", GOOD)
    first = keep(file, Path("labels"), CONTRACT, KEY)
    assert (first.new, first.rows, first.left_out) == (True, 2, {})
    again = keep(written("y.parquet", GOOD), Path("labels"), CONTRACT, KEY)  # the same content, written otherwise
    assert (again.new, again.file) == (False, first.file)
    assert "already; nothing changed" in told(again)
    other = keep(written("x.csv", {**GOOD, "late": ["no", "no"]}), Path("labels"), CONTRACT, KEY)
    assert other.file != first.file
    assert len(list(Path("labels").glob("*.parquet"))) == 2
    assert Path("labels/.gitignore").read_text() == "*\n"
    found, feed = read("labels")
    assert len(found) == 4 and not feed.troubles


def test_a_copy_says_what_the_file_said() -> None:
    keep(written("x.csv", {**GOOD, "prediction_id": ["p1", None]}), Path("labels"), CONTRACT, KEY)
    moments = [pd.Timestamp(one, tz="UTC") for one in ("2024-01-01", "2024-01-31", "2024-01-31")]
    lot = pd.DataFrame(
        {"prediction": ["p1", "p2"], "id": ["z", "b"], "at": pd.Series([pd.Timestamp("2024-01-05", tz="UTC")] * 2)}
    )
    joined = []
    for location in ("x.csv", "labels"):
        taken = Labels(CONTRACT, *moments)
        for frame in Feed(location, CONTRACT, KEY):
            taken.add(frame)
        taken.take(lot)
        joined.append(taken.joined())
    assert joined[0].rows.to_dict("list") == joined[1].rows.to_dict("list")
    assert joined[1].rows["label"].tolist() == [1.0, 0.0]


def test_what_cannot_be_used_is_left_out_of_a_copy() -> None:
    given = {"id": ["a", "b", "", "c"], "late": ["1", "perhaps", "1", None]}
    kept = keep(written("x.csv", given), Path("labels"), CONTRACT, KEY)
    assert (kept.rows, kept.left_out) == (1, {"wrong_value": 1, "no_id": 1, "no_value": 1})
    assert "late: neither true nor false: 1" in told(kept)
    for broken in ({"id": ["a"], "late": ["perhaps"]}, {"id": [], "late": []}):
        with pytest.raises(ProjectError, match="has no label that can be used"):
            keep(written("y.csv", broken), Path("labels"), CONTRACT, KEY)
    assert len(list(Path("labels").glob("*.parquet"))) == 1


def test_a_copy_has_no_personal_ids() -> None:
    kept = keep(written("x.csv", GOOD), Path("labels"), PERSONAL, KEY)
    content = pd.read_parquet(kept.file)
    assert content["masked id"].tolist() == [pseudonym("a", KEY), pseudonym("b", KEY)]
    assert "id" not in content
    found, _ = read("labels", PERSONAL)
    assert found["id"].tolist() == [pseudonym("a", KEY), pseudonym("b", KEY)]  # and not masked twice
    with pytest.raises(ProjectError, match="no key"):
        keep("x.csv", Path("elsewhere"), PERSONAL, "")
    assert not Path("elsewhere").exists()


def test_a_copy_is_there_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(label_store.pq, "ParquetWriter", full)
    with pytest.raises(ProjectError, match="the disk is full"):
        keep(written("x.csv", GOOD), Path("labels"), CONTRACT, KEY)
    assert not list(Path("labels").glob("*.parquet")) + list(Path("labels").glob(".*.partial"))


@pytest.mark.parametrize(
    ("target", "values"),
    [
        (Column("y", "number", role="target"), [1.5, -2.0]),
        (Column("y", "string", role="target", allowed=("x", "z", "w")), ["x", "w"]),
    ],
)
def test_targets_of_each_kind_are_kept(target: Column, values: list[Any]) -> None:
    contract = Contract((Column("id", "integer", role="id"), Column("size", "number"), target))
    kept = keep(written("x.csv", {"id": [1, 2], "y": values}), Path("labels"), contract, KEY)
    assert pd.read_parquet(kept.file)["y"].tolist() == values
    assert pd.read_parquet(kept.file)["id"].tolist() == ["1", "2"]
