"""Small Parquet files that would take gigabytes are refused or read in small batches."""

import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copier_mlops import ProjectError
from copier_mlops.data import parquet, readers, tables
from copier_mlops.data.readers import SourceError, Table


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of the limits, so that a test needs no gigabyte."""
    monkeypatch.setattr(parquet, "MAX_TEXT_BYTES", 8 << 10)
    monkeypatch.setattr(parquet, "MAX_BATCH_BYTES", 64 << 10)
    monkeypatch.setattr(parquet, "MAX_CHUNK_BYTES", 64 << 10)


def written(path: Path, texts: list[str], *, dictionary: bool = True, group: int = 1000) -> str:
    table = pa.table({"x": list(range(len(texts))), "s": texts})
    pq.write_table(table, path, compression="zstd", use_dictionary=dictionary, row_group_size=group)
    return str(path)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("texts", [["a" * (400 << 10)], ["b"] * 50 + ["a" * (400 << 10)]], ids=["alone", "late"])
def test_a_text_that_grows_when_it_is_read_is_refused(tmp_path: Path, texts: list[str], dictionary: bool) -> None:
    file = written(tmp_path / "bomb.parquet", texts, dictionary=dictionary)
    assert Path(file).stat().st_size < 4000
    with pytest.raises(ProjectError, match=r"bomb.parquet: column s grows from [\d,]+ to 40\d,\d+ bytes"):
        list(Table(file).batches())
    with pytest.raises(ProjectError, match="column s grows"):
        tables.read_any(Path(file), limited=True)
    assert [batch.num_rows for batch in Table(file).batches(["x"])] == [len(texts)]  # the column is not read


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_long_text_that_does_not_compress_is_refused(tmp_path: Path, dictionary: bool) -> None:
    file = written(tmp_path / "long.parquet", ["b", secrets.token_hex(5 << 10)], dictionary=dictionary, group=1)
    with pytest.raises(ProjectError, match=r"column s has a value of 10,240 bytes"):
        list(Table(file).batches())


@pytest.mark.usefixtures("limits")
def test_a_text_that_occurs_often_is_read_in_small_batches(tmp_path: Path) -> None:
    text = "a" * (4 << 10)
    file = written(tmp_path / "often.parquet", [text] * 300 + ["b"] * 300)
    assert Path(file).stat().st_size < 20_000
    batches = list(Table(file).batches())
    assert max(batch.num_rows for batch in batches) == 16
    assert sum(batch.num_rows for batch in batches) == 600
    assert batches[0]["s"][0].as_py() == text


@pytest.mark.usefixtures("limits")
def test_a_file_that_grows_too_much_is_not_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_TABLE_BYTES", 1 << 20)
    monkeypatch.setattr(parquet, "MAX_RATIO", 50)
    file = written(tmp_path / "often.parquet", ["a" * (4 << 10)] * 3000)
    with pytest.raises(ProjectError, match=r"often\.parquet grows from [\d,]+ to more than [\d,]+ bytes"):
        tables.read_any(Path(file), limited=True)
    assert len(tables.read_any(Path(file))) == 3000  # `make forget` reads all of the project's own tables


def test_columns_that_hold_no_values_are_left_out(tmp_path: Path) -> None:
    columns = {"x": [1, 2], "b": [b"a", b"b"], "l": [[1], [2]], "v": pa.array([b"a", b"b"], pa.large_binary())}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert list(tables.read_any(tmp_path / "t.parquet", limited=True)) == ["x"]
    for name in ("b", "l", "v"):
        with pytest.raises(SourceError, match=f"{name} is of type"):
            list(Table(str(tmp_path / "t.parquet")).batches([name]))


def test_an_ordinary_file_is_read_in_large_batches(tmp_path: Path) -> None:
    file = written(tmp_path / "t.parquet", [f"id{number}" for number in range(50_000)], group=50_000)
    assert [batch.num_rows for batch in Table(file).batches()] == [50_000]


def test_a_line_of_json_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BLOCK", 1000)
    (tmp_path / "t.jsonl").write_text('{"x": 1}\n{"x": "' + "a" * 2000 + '"}\n')
    with pytest.raises(SourceError, match=r"line 2 of .*t\.jsonl is longer than"):
        list(Table(str(tmp_path / "t.jsonl")).batches())
