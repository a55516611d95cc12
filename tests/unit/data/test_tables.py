"""A file is there whole or not at all, and what cannot be read is named."""

import errno
import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from copier_mlops.data import tables
from copier_mlops.data.tables import TableError

FRAME = pd.DataFrame({"at": pd.to_datetime(["2024-01-31", "2024-02-01"], utc=True), "x": [1.0, 2.0], "s": ["a", None]})


def test_a_frame_comes_back_as_it_was(tmp_path: Path) -> None:
    tables.write(FRAME.set_index(np.array([5, 6])), tmp_path / "new" / "t.parquet")
    pd.testing.assert_frame_equal(tables.read(tmp_path / "new" / "t.parquet"), FRAME)
    assert list(tables.read(tmp_path / "new" / "t.parquet", skip=["x"])) == ["at", "s"]
    tables.write(FRAME, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "new" / "t.parquet").read_bytes()


def test_a_column_of_mixed_kinds_is_kept_as_text_for_validation_to_judge(tmp_path: Path) -> None:
    tables.write(pd.DataFrame({"x": [1, "two", 3.5]}), tmp_path / "t.parquet")
    assert tables.read(tmp_path / "t.parquet")["x"].tolist() == ["1", "two", "3.5"]


def test_what_is_interrupted_leaves_what_was_there(tmp_path: Path) -> None:
    tables.write_text("before", tmp_path / "t.txt")
    with pytest.raises(KeyboardInterrupt), tables.writing(tmp_path / "t.txt") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("t.txt", "before")]


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, r"the disk is full while writing .*t.txt \(\d+ MiB free\)"), (errno.EACCES, "cannot be written")],
)
def test_a_full_disk_and_a_locked_folder_are_explained(tmp_path: Path, number: int, says: str) -> None:
    with pytest.raises(TableError, match=says), tables.writing(tmp_path / "t.txt"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("name", "says"),
    [("folder", r"folder cannot be written: Is a directory. Name another file"), ("file/t.txt", "cannot be written")],
)
def test_a_place_that_is_no_file_is_named(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("existing")
    with pytest.raises(TableError, match=says):
        tables.write_text("new", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.csv.gz", "rows"])
def test_a_name_that_names_no_format_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=r"has to end in .csv or .parquet"):
        tables.write_any(FRAME, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_other_errors_of_the_system_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), tables.writing(tmp_path / "t.txt"):
        raise OSError(errno.EIO, "Input/output error")


def test_a_stream_becomes_a_folder_a_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FLUSH_ROWS", 3)
    days = pd.date_range("2023-12-30", periods=8, tz="UTC")
    chunks = (pd.DataFrame({"at": days[start : start + 2], "x": range(start, start + 2)}) for start in range(0, 8, 2))
    folder = tmp_path / "raw"
    (folder / "month=1999-01").mkdir(parents=True)  # of an earlier run
    assert tables.write_by_month(chunks, folder, "at") == 8
    assert [(month, len(files)) for month, files in tables.parts(folder)] == [("2023-12", 1), ("2024-01", 2)]
    assert sorted(tables.read_between(folder, "at")["x"]) == list(range(8))
    assert tables.write_by_month([], folder, "at") == 0
    with pytest.raises(TableError, match="holds no data"):
        tables.parts(folder)


@pytest.mark.filterwarnings("ignore:Could not infer format")
@pytest.mark.parametrize("times", [["noon", "2024-02-01"], [1, 2]])
def test_what_is_no_time_is_kept_for_validation(tmp_path: Path, times: list[object]) -> None:
    tables.write_by_month([pd.DataFrame({"at": times})], tmp_path / "raw", "at")
    assert "unknown" in dict(tables.parts(tmp_path / "raw"))
    tables.write_by_month([pd.DataFrame({"x": times})], tmp_path / "raw", "at")
    assert list(dict(tables.parts(tmp_path / "raw"))) == ["unknown"]


def test_rows_between_two_moments(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", "2024-04-30", tz="UTC")
    frame = pd.DataFrame({"at": days, "s": [f"{day:%b}" for day in days], "x": np.arange(len(days))})
    tables.write_by_month([frame], tmp_path, "at")
    start, end = pd.Timestamp("2024-02-28", tz="UTC"), pd.Timestamp("2024-04-01", tz="UTC")
    found = tables.read_between(tmp_path, "at", start, end, skip=["x"])
    assert list(found) == ["at", "s"]
    assert (found["at"].min(), found["at"].max()) == (start, end - pd.Timedelta(days=1))  # the end is not in
    assert found["s"].tolist() == ["Feb"] * 2 + ["Mar"] * 31
    assert isinstance(found["s"].dtype, pd.CategoricalDtype)
    with pytest.raises(TableError, match="no rows from 2025"):
        tables.read_between(tmp_path, "at", pd.Timestamp("2025-01-01", tz="UTC"), None)


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"t.parquet is missing"):
        tables.read(tmp_path / "t.parquet")
    tables.write(FRAME, tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TableError, match=r"t.parquet cannot be read as Parquet.*truncated"):
        tables.read(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_people_bring_csv_or_parquet(tmp_path: Path, name: str) -> None:
    if name == "rows.csv.gz":
        (tmp_path / name).write_bytes(gzip.compress(FRAME.to_csv(index=False).encode()))
    else:
        tables.write_any(FRAME, tmp_path / name)
    found = tables.read_any(tmp_path / name)
    assert found["x"].tolist() == [1.0, 2.0]
    assert pd.to_datetime(found["at"], utc=True).tolist() == FRAME["at"].tolist()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", None, "does not exist"),
        ("rows.xlsx", b"x", r"neither .parquet nor .csv"),
        ("rows.csv", b"", "cannot be read as CSV"),
        ("rows.csv", b"a,b\n1,2,3\n4,5,6,7\n", "cannot be read as CSV"),
        ("rows.csv", b"a\n\xe9\n", "cannot be read as CSV"),
        ("rows.csv.gz", b"not gzip", "cannot be read as CSV"),
        ("rows.parquet", b"not parquet", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=says) as error:
        tables.read_any(tmp_path / name)
    assert name in str(error.value)


def test_json(tmp_path: Path) -> None:
    tables.write_json({"é": [1, None]}, tmp_path / "t.json")
    assert tables.read_json(tmp_path / "t.json") == {"é": [1, None]}
    with pytest.raises(TableError, match="is missing"):
        tables.read_json(tmp_path / "other.json")
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(TableError, match="cannot be read"):
        tables.read_json(tmp_path / "t.json")


def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".t.txt.partial").symlink_to(tmp_path / "victim")
    tables.write_text("new", tmp_path / "t.txt")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "t.txt").read_text() == "new"
    assert not (tmp_path / "t.txt").is_symlink()


def test_a_csv_file_holds_no_formulas(tmp_path: Path) -> None:
    texts = [
        "=cmd|' /C calc'!A0",
        "+1+cmd",
        "-2+3",
        "@SUM(A1)",
        "\tx",
        " =1",
        "-5",
        "+49 170",
        "-1.5e3",
        "a=b",
        "",
        None,
    ]
    tables.write_any(pd.DataFrame({"id": texts, "x": range(12)}), tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv", dtype={"id": str}, keep_default_na=False)["id"].tolist()
    assert read[:6] == [f"'{text}" for text in texts[:6]]
    assert read[6:] == [*texts[6:-1], ""]
    tables.write_any(pd.DataFrame({"id": texts}), tmp_path / "t.parquet")
    assert tables.read(tmp_path / "t.parquet")["id"].tolist()[:-1] == texts[:-1]
