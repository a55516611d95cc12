"""A table is read as it was written, wherever it is and by whomever, or the line that is wrong is named."""

import codecs
import dataclasses
import datetime as dt
import decimal
import gzip
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copier_mlops import UnreachableError
from copier_mlops.data import readers
from copier_mlops.data.readers import EncodingError, SourceError, Table, csv_files, json_files, locations
from copier_mlops.data.readers import table as table_module

PLAIN = "name,number\nAda,1\nGrace,2\n"
ROWS = {"name": ["Ada", "Grace"], "number": ["1", "2"]}


def patched(monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
    """Set a size in each module of the readers that has it."""
    for module in (csv_files, json_files, locations, table_module):
        for name, value in sizes.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def written(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def found(table: Table, columns: list[str] | None = None) -> dict[str, list[object]]:
    """The whole table, column by column."""
    return pa.concat_tables(list(table.batches(columns)), promote_options="permissive").to_pydict()


def opened(file: Path) -> Table:
    return readers.sniff(Table(str(file)))


# --------------------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    ("content", "separator", "encoding"),
    [
        (PLAIN, ",", "utf-8"),
        (PLAIN.replace(",", ";"), ";", "utf-8"),
        (PLAIN.replace(",", "\t"), "\t", "utf-8"),
        (PLAIN.replace(",", "|"), "|", "utf-8"),
        (PLAIN.replace("\n", "\r\n"), ",", "utf-8"),
        (PLAIN.rstrip(), ",", "utf-8"),
        ("sep=;\n" + PLAIN.replace(",", ";"), ";", "utf-8"),
        ("\ufeffsep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"), ";", "utf-8"),
        (codecs.BOM_UTF8 + PLAIN.encode(), ",", "utf-8"),
        (PLAIN.encode("utf-16"), ",", "utf-16"),
        (codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"), ",", "utf-16"),
    ],
)
def test_a_csv_file_of_any_dialect(tmp_path: Path, content: str | bytes, separator: str, encoding: str) -> None:
    table = opened(written(tmp_path / "rows.csv", content))
    assert (table.separator, table.encoding) == (separator, encoding)
    assert found(table) == ROWS


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_a_file_with_another_separator_than_the_source_is_read_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mark: str, name: str
) -> None:
    table = Table(str(written(tmp_path / "rows.csv", PLAIN.replace(",", mark))), separator=",")
    assert pd.concat(table.read(["name", "number"])).to_dict("list") == ROWS
    assert f"rows.csv separates values by {name} and the source by commas; it is read so" in capsys.readouterr().err
    [whole] = table.names()
    assert [len(frame) for frame in table.read([whole])] == [2]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866"])
def test_named_columns_tell_the_encoding(tmp_path: Path, encoding: str) -> None:
    table = opened(written(tmp_path / "rows.csv", "цвет;цель\nсиний;да\n".encode(encoding)))
    table = readers.with_columns(table, ["цель"])
    assert table.encoding == encoding
    assert found(table) == {"цвет": ["синий"], "цель": ["да"]}
    assert readers.with_columns(table, ["other"]) == table


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_file_shows_that_it_is_unicode(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path / "rows.csv", "größe;preis\nüber;5 €\n".encode(encoding))
    (frame,) = Table(str(file), separator=";", encoding="cp1252").read(["größe", "preis"])
    assert frame.to_dict("list") == {"größe": ["über"], "preis": ["5 €"]}


def test_folders_that_are_named_by_values_are_reported(tmp_path: Path) -> None:
    for year in (2023, 2024):
        written(tmp_path / f"rows/year={year}/rows.csv", PLAIN)
    notes: list[str] = []
    assert sum(batch.num_rows for batch in Table(str(tmp_path / "rows")).batches(say=notes.append)) == 4
    assert notes == ["folders are named by values, such as year=2023: these are no column and are passed over."]


def test_letters_of_western_europe(tmp_path: Path) -> None:
    table = opened(written(tmp_path / "rows.csv", "größe;preis\nüber;5 €\n".encode("cp1252")))
    assert table.encoding == "cp1252"
    assert found(table) == {"größe": ["über"], "preis": ["5 €"]}


def test_quotes_keep_marks_and_lines_together(tmp_path: Path) -> None:
    table = opened(written(tmp_path / "rows.csv", 'name,number\n"Lovelace, Ada",1\n"two\nlines",\n"a ""b""",3\n'))
    assert found(table) == {"name": ["Lovelace, Ada", "two\nlines", 'a "b"'], "number": ["1", None, "3"]}


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_a_file_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"rows.csv{suffix}"
    with pa.output_stream(str(file), compression=readers.COMPRESSED[suffix]) as stream:
        stream.write(PLAIN.encode())
    assert found(opened(file)) == ROWS


def test_names_that_are_double_or_missing_can_be_told_apart(tmp_path: Path) -> None:
    table = opened(written(tmp_path / "rows.csv", "a,a,,score\n1,2,3,4\n"))
    assert found(table) == {"a": ["1"], "a_2": ["2"], "column_3": ["3"], "score_": ["4"]}
    assert found(table, ["a_2", "nowhere"]) == {"a_2": ["2"]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", "a,b\n1,2\n3,4,5\n6,7\n", r"line 3 of .*rows.csv has 3 fields, the header has 2: 3,4,5"),
        ("rows.csv", 'a,b\n"1\n2",3\n4\n', r"line 4 of .*rows.csv has 1 fields"),
        ("rows.csv", "", "rows.csv is empty"),
        ("rows.csv", "\n \n", "rows.csv is empty"),
        ("rows.csv", "1,2.5\n3,4.5\n", "seems to have no header: its first line is 1, 2.5"),
        ("rows.csv", b"PK\x03\x04\0\0\0\0", "is no text; is it a spreadsheet"),
        ("rows.csv.gz", gzip.compress(PLAIN.encode() * 999)[:40], "cannot be read: it is truncated"),
        ("rows.csv.gz", PLAIN, "rows.csv.gz cannot be read"),
        ("rows.xlsx", b"x", "of no kind that can be read; its name should end in one of .csv"),
        (
            "rows.csv",
            "# of June\na,b\n1,2\n",
            r"line 2 of .* has 2 fields, the header has 1.*remove titles and comments",
        ),
        ("rows.csv", "sep=,\na,b\n1,2\n3\n", r"line 4 of .*rows.csv has 1 fields, the header has 2"),
        ("rows.parquet", b"no parquet", "rows.parquet cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    file = written(tmp_path / name, content)
    with pytest.raises(SourceError, match=says):
        found(opened(file))


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    table = opened(written(tmp_path / "rows.csv", "name,number\n"))
    assert sum(batch.num_rows for batch in table.batches()) == 0
    assert table.extent() == (0, None)


def test_bytes_of_another_encoding_further_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, HEAD=1000)
    file = written(tmp_path / "rows.csv", b"name,number\n" + b"Ada,1\n" * 1000 + "Zoé,2\n".encode("cp1252"))
    with pytest.raises(EncodingError, match=r"is not written in utf-8 throughout.*name its encoding in source.py"):
        found(opened(file))


def test_a_quote_that_is_never_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, BLOCK=2000)
    file = written(tmp_path / "rows.csv", PLAIN + '"open,3\n' + "Ada,1\n" * 5000)
    with pytest.raises(SourceError, match=r"is a quote never closed|fields, the header has 2"):
        found(opened(file))


@pytest.mark.parametrize("text", ["name,number", "x", "name,number\r\n"])
def test_a_header_whose_line_does_not_end_has_no_rows(tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "rows.csv", text)
    assert sum(batch.num_rows for batch in opened(file).batches()) == 0


def test_rows_come_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, BLOCK=1000)
    table = opened(written(tmp_path / "rows.csv", "name,number\n" + "".join(f"n{row},{row}\n" for row in range(999))))
    batches = list(table.batches())
    assert len(batches) > 3
    assert pa.concat_tables(batches)["number"].to_pylist() == [str(row) for row in range(999)]


# ------------------------------------------------------------------------------------------------- Many files


def test_a_folder_and_a_glob_are_one_table_in_order_of_names(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        written(tmp_path / "deep" / f"{number}.csv", f"a\n{number}\n")
    written(tmp_path / "deep" / "read.me", "no table")
    written(tmp_path / "deep" / ".hidden.csv", "b\n0\n")
    assert found(Table(str(tmp_path))) == {"a": ["1", "2", "3"]}
    assert found(Table(str(tmp_path / "deep" / "[12].csv"))) == {"a": ["1", "2"]}
    assert found(Table(str(tmp_path / "*" / "*.csv"))) == {"a": ["1", "2", "3"]}


def test_a_glob_may_begin_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "1.csv", "a\n1\n")
    assert found(Table("*.csv")) == found(Table("./?.csv")) == {"a": ["1"]}


def test_files_of_one_table_have_the_same_columns(tmp_path: Path) -> None:
    written(tmp_path / "1.csv", "a,b\n1,2\n")
    written(tmp_path / "2.csv", "b,a\n4,3\n")
    assert found(Table(str(tmp_path))) == {"a": ["1", "3"], "b": ["2", "4"]}
    written(tmp_path / "3.csv", "a,b,c\n5,6,7\n")
    said: list[str] = []
    assert [row for batch in Table(str(tmp_path)).batches(say=said.append) for row in batch["b"].to_pylist()] == [
        "2",
        "4",
        "6",
    ]
    assert len(said) == 1 and "3.csv has columns that" in said[0] and said[0].endswith("passed over: c.")
    written(tmp_path / "4.csv", "a,c\n1,2\n")
    with pytest.raises(SourceError, match=r"4.csv lacks columns that .*1.csv has: b"):
        found(Table(str(tmp_path)))


def test_lines_may_end_as_on_an_old_mac(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", "")
    file.write_bytes(b"a;b\r1;x\r2;y\r")
    assert found(opened(file)) == {"a": ["1", "2"], "b": ["x", "y"]}


def test_a_value_may_be_long(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", "a,note,y\n1," + '"' + "word\n" * 40_000 + '",1\n')
    assert [len(value) for value in found(opened(file))["note"]] == [200_000]


HEADERS = [
    ("2019,2020,grew\n0.5,0.25,1\n", ["2019", "2020", "grew"]),
    ("2019,2020\n0.5,0.25\n", ["2019", "2020"]),
    ("country,2019,2020,2021\nIT,5,6,7\n", ["country", "2019", "2020", "2021"]),
]


@pytest.mark.parametrize(("text", "names"), HEADERS)
def test_years_are_names_of_columns(tmp_path: Path, text: str, names: list[str]) -> None:
    assert list(found(opened(written(tmp_path / "rows.csv", text)))) == names


def test_a_gap_in_the_first_row_is_no_name_of_a_column(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="seems to have no header"):
        found(opened(written(tmp_path / "rows.csv", "5.1,NA,1.4,0.2,setosa\n4.9,3.0,1.5,0.1,setosa\n")))


def test_a_table_may_have_no_header_if_somebody_says_so(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", "1.5,2,x\n3,4,y\n")
    with pytest.raises(SourceError, match=r"seems to have no header: .*HEADER=no"):
        found(opened(file))
    without = dataclasses.replace(opened(file), header=False)
    assert found(without) == {"column_1": ["1.5", "3"], "column_2": ["2", "4"], "column_3": ["x", "y"]}
    assert list(found(dataclasses.replace(opened(file), header=True))) == ["1.5", "2", "x"]


@pytest.mark.parametrize("name", ["nowhere.csv", "*.csv", ""])
def test_where_nothing_is_it_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"there is no table at .*: no such file"):
        found(Table(f"{tmp_path}/{name}"))


def test_without_a_location_the_command_is_named() -> None:
    with pytest.raises(SourceError, match="there is no table yet: make adopt"):
        found(Table(""))


# -------------------------------------------------------------------------------------------------------- JSON


def test_json_lines_keep_their_kinds_and_a_key_may_come_late(tmp_path: Path) -> None:
    lines = [{"a": 1, "b": True}, {"a": 2.5}, {"c": "late", "b": None}]
    file = written(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert found(opened(file)) == {"a": [1, 2.5, None], "b": [True, None, None], "c": [None, None, "late"]}
    assert found(opened(file), ["c"]) == {"c": [None, None, "late"]}
    mixed = written(tmp_path / "mixed.jsonl", '{"a": 1, "b": null}\n{"a": "x"}\n{"a": true}\n')
    assert found(opened(mixed)) == {"a": ["1", "x", "true"], "b": [None, None, None]}


def test_a_json_array_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": 1}, {"a": 2.5, "b": "late"}]
    for name, text in {"rows.json": json.dumps(rows, indent=2), "line.json": "\ufeff " + json.dumps(rows)}.items():
        assert found(opened(written(tmp_path / name, text))) == {"a": [1, 2.5], "b": [None, "late"]}
    packed = tmp_path / "rows.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert found(opened(packed)) == {"a": [1, 2.5], "b": [None, "late"]}
    patched(monkeypatch, LONGEST_LIST=20)
    with pytest.raises(SourceError, match=r"rows.json is a JSON array of more than .* Write one object per line"):
        found(opened(tmp_path / "rows.json"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}, {"a"', "begins as a JSON array and is none .* Is it cut off?"),
        ('[{"a": 1}, 2]', "element 2 of the array in .* is no JSON object but a int"),
        pytest.param("[" * 100_000, "begins as a JSON array and is none", id="deep"),
    ],
)
def test_a_json_array_that_is_broken_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        found(opened(written(tmp_path / "rows.json", text)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"a": ', "line 2 of .*rows.jsonl is no JSON object"),
        ('[{"a": 1},', "line 2 of .*rows.jsonl is no JSON object"),
        ("[1]", "line 2 of .*rows.jsonl is no JSON object but a list"),
        pytest.param("[" * 100_000, "line 2 of .*rows.jsonl is no JSON object", id="deep"),
    ],
)
def test_a_line_that_is_broken_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = written(tmp_path / "rows.jsonl", '{"a": 1}\n' + line + "\n")
    with pytest.raises(SourceError, match=says):
        found(opened(file))


# ----------------------------------------------------------------------------------------------------- Parquet


def test_parquet_of_many_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": pa.array(["x", "y", "x"]).dictionary_encode(),
            "b": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")]),
            "c": pa.array([dt.date(2024, 1, 31), None, dt.date(2024, 2, 1)]),
            "d": pa.array(["long", "text", None], pa.large_string()),
            "e": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    batch = next(opened(tmp_path / "rows.parquet").batches())
    assert [str(batch.schema.field(name).type) for name in "ade"] == ["string"] * 3
    (frame,) = Table(str(tmp_path / "rows.parquet")).read([*"abcde"])
    assert frame["a"].tolist() == ["x", "y", "x"]
    assert frame["b"].tolist()[::2] == [1.5, 2.25]
    assert frame["c"][0] == pd.Timestamp("2024-01-31", tz="UTC")
    assert found(Table(str(tmp_path / "rows.parquet")), ["d"]) == {"d": ["long", "text", None]}


def test_nanoseconds_are_cut_off(tmp_path: Path) -> None:
    moment = pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))
    pq.write_table(pa.table({"at": moment}), tmp_path / "rows.parquet")
    (frame,) = Table(str(tmp_path / "rows.parquet")).read(["at"])
    assert frame["at"].tolist() == [pd.Timestamp(1_700_000_000, unit="s", tz="UTC")]


def test_a_column_that_holds_columns_is_passed_over_unless_it_is_wanted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [{"b": 1}], "c": [1]}), tmp_path / "rows.parquet")
    written(tmp_path / "rows.jsonl", '{"c": 1}\n{"a": {"b": 1}, "c": 2}\n')
    for name, what in (
        ("rows.parquet", "a is of type struct<b: int64>"),
        ("rows.jsonl", "line 2 of .*: a holds a dict"),
    ):
        table, said = Table(str(tmp_path / name)), list[str]()
        assert [batch.column_names for batch in table.batches(say=said.append)] == [["c"]]
        assert re.search(f"{what}: it is passed over", said[0])
        with pytest.raises(SourceError, match=f"{what}; give it columns of its own"):
            found(table, ["a", "c"])
        assert list(found(table, ["c"])) == ["c"]


def test_durations_and_times_of_day_are_seconds(tmp_path: Path) -> None:
    table = pa.table(
        {
            "lasted": pa.array([dt.timedelta(minutes=2), None]),
            "at": pa.array([dt.time(8, 30), dt.time(0, 0, 1)]),
            "short": pa.array([dt.time(1), None], pa.time32("s")),
            "half": pa.array([1.5, 2.0], pa.float32()).cast(pa.float16()),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    assert found(Table(str(tmp_path / "rows.parquet"))) == {
        "lasted": [120.0, None], "at": [30_600.0, 1.0], "short": [3600.0, None], "half": [1.5, 2.0],
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- Databases


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """The address of a database with two orders."""
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER, price REAL, note TEXT)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(1, 2.5, "a"), (2, None, "b")])
    connection.close()
    return f"sqlite:///{tmp_path}/shop.db"


def test_the_result_of_a_query_is_a_table(shop: str) -> None:
    table = readers.sniff(Table(shop, query="SELECT id, price AS score, note FROM orders ORDER BY id;"))
    assert found(table) == {"id": [1, 2], "score_": [2.5, None], "note": ["a", "b"]}
    assert found(table, ["note"]) == {"note": ["a", "b"]}
    assert table.extent() == (2, None)


def test_a_query_may_only_read(shop: str) -> None:
    with pytest.raises(SourceError, match=r"the query failed: .*readonly"):
        found(Table(shop, query="DELETE FROM orders"))
    with pytest.raises(SourceError, match="the query failed: no such table: nowhere"):
        found(Table(shop, query="SELECT * FROM nowhere"))


def test_a_database_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no database at"):
        found(Table(f"sqlite:///{tmp_path}/no.db", query="SELECT 1"))


@pytest.mark.parametrize(("scheme", "package"), [("duckdb", "duckdb"), ("postgresql", "psycopg")])
def test_a_driver_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    written(tmp_path / "a.db", "")
    with pytest.raises(SourceError, match=rf"reading {scheme} needs a driver that is not installed: `uv add {package}"):
        found(Table(f"{scheme}:///{tmp_path}/a.db", query="SELECT 1"))


def test_a_server_is_asked_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database in memory plays the server, and its driver."""
    asked = []

    class Connection:
        def __init__(self) -> None:
            self.inner = sqlite3.connect(":memory:")
            self.inner.create_function("hashtextextended", 2, lambda text, seed: len(text))

        def cursor(self, name: str = "") -> sqlite3.Cursor:
            return self.inner.cursor(Cursor)

        def close(self) -> None:
            self.inner.close()

    class Cursor(sqlite3.Cursor):
        def execute(self, query: str) -> sqlite3.Cursor:
            asked.append(query)
            return super().execute(query.replace("t::text", "CAST(t.a AS TEXT)"))

    class Driver:
        @staticmethod
        def connect(address: str, **options: object) -> Connection:
            if "down" in address:
                raise OSError("connection refused")
            return Connection()

    monkeypatch.setitem(sys.modules, "psycopg", Driver)
    table = Table("postgresql+psycopg://host/shop", query="SELECT 5 AS a;")
    assert found(table) == {"a": [5]}
    assert table.fingerprint() == table.fingerprint()
    assert table.fingerprint() != Table(table.location, query="SELECT 55 AS a").fingerprint()
    assert "FROM (SELECT 5 AS a) AS t" in asked[1]
    with pytest.raises(UnreachableError, match="the postgresql database does not open: connection refused"):
        found(Table("postgresql://down/shop", query="SELECT 1"))


@pytest.mark.parametrize(
    ("location", "query", "says"),
    [
        ("postgresql://me:hunter2@host/shop", "SELECT 1", "carries a password.*PGPASSWORD"),  # pragma: allowlist secret
        ("postgresql://host/shop?password=hunter2", "SELECT 1", "carries a password"),
        ("s3://key:hunter2@bucket/rows.csv", "", "a password.*AWS_SECRET_ACCESS"),  # pragma: allowlist secret
        ("https://example.org/rows.csv", "", "https:// cannot be read"),
        ("sqlite:///shop.db", " ", 'needs QUERY="SELECT ..."'),
        ("rows.csv", "SELECT 1", "QUERY goes with a database only"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(location: str, query: str, says: str) -> None:
    with pytest.raises(SourceError, match=says) as error:
        readers.check_location(location, query)
    assert "hunter2" not in str(error.value)


def test_an_address_that_can_be_used() -> None:
    for location, query in (("rows.csv", ""), ("s3://bucket/rows", ""), ("postgresql://me@host/shop", "SELECT 1")):
        readers.check_location(location, query)


# ------------------------------------------------------------------------------------------------- Fingerprints


def rewritten(file: Path) -> None:
    file.write_text(PLAIN.replace("2", "3"))


def renamed(file: Path) -> None:
    file.rename(file.with_name("other.csv"))


def joined(file: Path) -> None:
    written(file.with_name("more.csv"), PLAIN)


@pytest.mark.parametrize("change", [rewritten, renamed, joined])
def test_a_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file = written(tmp_path / "here" / "rows.csv", PLAIN)
    before = Table(str(file.parent)).fingerprint()
    shutil.copytree(file.parent, tmp_path / "there")
    assert Table(str(tmp_path / "there")).fingerprint() == before
    change(file)
    assert Table(str(file.parent)).fingerprint() != before


def test_a_fingerprint_of_a_query_changes_with_both(shop: str, tmp_path: Path) -> None:
    table = Table(shop, query="SELECT id FROM orders")
    known = {table.fingerprint(), Table(shop, query="SELECT note FROM orders").fingerprint()}
    assert table.fingerprint() in known
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("DELETE FROM orders WHERE id = 1")
    connection.close()
    assert len(known | {table.fingerprint()}) == 3


# -------------------------------------------------------------------------------------------------- What is read


def test_values_are_read_as_their_styles_say(tmp_path: Path) -> None:
    file = written(
        tmp_path / "rows.csv",
        "price;day;at;name\n1.234,50;31.12.2024;2024-07-01T12:00:00;NA\n-;-;2024-01-01T12:00:00Z; b \nfree;soon;noon;-\n",
    )
    styles = {"price": "1.234,5", "day": "%d.%m.%Y"}
    table = Table(str(file), separator=";", styles=styles, zone="Europe/Berlin", rows="row")
    (frame,) = table.read(["row", "price", "day", "at", "name"], "at")
    assert frame["row"].tolist() == [1, 2, 3]
    assert frame["price"].tolist()[::2] == ["1234.50", "free"]  # what cannot be read stays, for validation to judge
    assert pd.Timestamp(frame["day"][0]) == pd.Timestamp("2024-12-30T23:00:00Z")
    assert frame["day"][2] == "soon"
    moments = [pd.Timestamp(text) for text in frame["at"][:2]]
    assert moments == [pd.Timestamp("2024-07-01T10:00:00Z"), pd.Timestamp("2024-01-01T12:00:00Z")]
    assert frame["at"][2] == "noon"
    assert frame["name"].tolist()[1:] == ["b", "-"]
    assert frame[["price", "day"]].iloc[1].isna().all()
    assert pd.isna(frame["name"][0])


def test_a_file_of_a_folder_may_have_another_separator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "a.csv", PLAIN)
    written(tmp_path / "b.csv", PLAIN.replace(",", ";"))
    table = opened(tmp_path)
    assert sum(batch.num_rows for batch in table.batches()) == 2 * len(ROWS["name"])
    assert "b.csv separates values by semicolons and the source by commas" in capsys.readouterr().err


def test_a_file_of_one_other_column_is_not_said_to_have_another_separator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(str(written(tmp_path / "rows.csv", "nmae\na\nb\n")), separator=";")
    assert [batch.column_names for batch in table.batches(["name", "number"])] == [["nmae"]]
    assert capsys.readouterr().err == ""


def test_the_newest_row_is_found_behind_files_without_a_time(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "x,at\n1,soon\n")
    written(tmp_path / "b.csv", "x,at\n2,2024-01-02\n3,2024-01-01\n")
    assert Table(str(tmp_path)).extent("at") == (3, pd.Timestamp("2024-01-02", tz="UTC"))


def test_only_rows_between_two_moments_and_those_without_one_are_given(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=10, tz="UTC")
    start, end = days[3], days[6]
    lines = "".join(f"{number},{day:%Y-%m-%d}\n" for number, day in enumerate(days))
    for unread in ("", "10,soon\n"):
        table = Table(str(written(tmp_path / "rows.csv", f"x,at\n{lines}{unread}")), rows="row")
        rows = pd.concat(table.read(["row", "x", "at"], "at", start, end))
        places = [4, 5, 6, *([11] if unread else [])]  # in the source, not in the window
        assert rows["row"].tolist() == places
        assert table.extent("at") == (len(days) + bool(unread), days[-1])
    assert list(table.read(["x"], "at", end, end)) != []  # a table without its time has no window


def test_another_place_is_read_in_the_same_way(tmp_path: Path) -> None:
    table = Table("first.csv", separator=";", rows="row")
    assert table.at("") is table
    other = table.at(str(written(tmp_path / "rows.csv", "a;b\n1;2\n")))
    assert found(other) == {"a": ["1"], "b": ["2"]}
    assert other.rows == "row"
