"""CSV and TSV: encoding, separator, header, and batches of rows."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs

from copier_mlops.contract.parsing import MISSING, clean_names
from copier_mlops.data.readers.locations import BLOCK, HEAD, SourceError, first_line, opened

if TYPE_CHECKING:
    from copier_mlops.data.readers.locations import Say
    from copier_mlops.data.readers.table import Table

LOOKED_AT = 50  # rows that tell whether the first line is a header
ENCODINGS = ("cp1251", "koi8-r", "cp1250", "iso8859-2", "cp1253", "cp1254", "cp1257", "cp1255", "cp1256", "cp932", "euc-jp",
             "gb18030", "big5", "euc-kr", "cp874", "cp437", "cp850", "cp866", "mac-roman")  # fmt: skip
"""Encodings of text that is not UTF-8, other than cp1252; which one it is cannot be told from the bytes alone."""


def encoding_of(start: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if start.startswith(mark):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def file_encoding(table: Table, system: Any, path: str) -> str:
    """Return the encoding of one file: that of the table, unless the file itself shows UTF-8 or UTF-16.

    A file of rows to be scored may be written elsewhere than the source. Text of an 8-bit encoding that has letters beyond ASCII
    is practically never valid UTF-8.
    """
    with opened(system, path) as stream:
        start = stream.read(HEAD)
    found = encoding_of(start)
    return found if found != "cp1252" and not start.isascii() else table.encoding


def separator_of(text: str) -> str:
    """The mark that cuts most lines into the same number of fields, more than one."""
    if line := SEPARATOR_LINE.match(text):
        return line[1]
    text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    best, score = ",", 0.0
    for mark in (",", ";", "\t", "|"):
        try:
            widths = [
                len(row)
                for _, row in zip(range(2000), _lines(io.StringIO(text, newline=None), mark), strict=False)
                if row
            ]
        except csv.Error:
            continue
        same = sum(width == widths[0] for width in widths) / len(widths) if widths else 0.0
        found = same * (widths[0] > 1) + min(widths[0], 50) / 1000 if widths else 0.0
        if found > score:
            best, score = mark, found
    return best


MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEPARATOR_LINE = re.compile(r"\ufeff?sep=([,;|\t])[\r\n]+")
"""A line above the header that states the separator for Excel."""


def _lines(text: io.TextIOBase, separator: str) -> Any:
    """The rows of a CSV file; a value may be as long as elsewhere, not 131,072 characters alone."""
    csv.field_size_limit(max(BLOCK, csv.field_size_limit()))
    return csv.reader(text, delimiter=separator)


def dialect(table: Table, system: Any, path: str, columns: Collection[str]) -> Table:
    """Return the table with the encoding of one of its files, and the separator of the file, if it has another one.

    It has, if its header holds none of the columns by the separator of the table.
    """
    table = dataclasses.replace(table, encoding=file_encoding(table, system, path))
    header, names, _ = header_of(table, system, path)
    if not columns or len(header) > 1 or names[0] in columns:
        return table
    with opened(system, path) as stream:
        text = codecs.getincrementaldecoder(table.encoding)(errors="replace").decode(stream.read(HEAD)).lstrip("\ufeff")
    other = separator_of(text)
    if other == table.separator or other not in header[0]:
        return table
    print(
        f"note: {path} separates values by {MARKS[other]} and the source by {MARKS.get(table.separator, table.separator)}; "
        "it is read so",
        file=sys.stderr,
        flush=True,
    )
    return dataclasses.replace(table, separator=other)


def read_csv(table: Table, system: Any, path: str, columns: Sequence[str] | None, say: Say) -> Iterator[pa.Table]:
    table = dialect(table, system, path, columns or ())
    header, names, above = header_of(table, system, path)
    wanted = names if columns is None else [name for name in columns if name in names]
    count_only = wanted or names[:1]
    wrong: list[Any] = []

    def refuse(row: Any) -> str:
        wrong.append(row)
        return "error"

    try:
        reader = pyarrow.csv.open_csv(
            opened(system, path),
            read_options=pyarrow.csv.ReadOptions(
                block_size=BLOCK, column_names=names, encoding=table.encoding, skip_rows=above,
                skip_rows_after_names=int(table.header is not False),
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=table.separator, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(count_only, pa.string()), include_columns=count_only,
                strings_can_be_null=True, null_values=[""],
            ),
        )  # fmt: skip
        for batch in reader:
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, UnicodeError) as error:
        if wrong:
            raise SourceError(_uneven(table, system, path, len(header))) from error
        if "UTF8" in str(error) or isinstance(error, UnicodeError):
            raise EncodingError(
                f"{path} is not written in {table.encoding} throughout ({first_line(error)}). Save it as UTF-8, or name its encoding "
                "in source.py if it is the source: cp1252 for example."
            ) from error
        if "straddling" in str(error):
            with opened(system, path) as stream:
                text = stream.read(BLOCK)
            if len(text) < BLOCK:
                if b'"' not in text:  # a header whose line does not end, and nothing below it
                    return
                raise SourceError(f"{path} has a quote that is never closed. Close it, or remove it.") from error
            raise SourceError(
                f"{path} has a value or a row of more than {BLOCK >> 20} MiB; is a quote never closed?"
            ) from error
        if "Empty CSV" in str(error):
            return
        raise


class EncodingError(SourceError):
    """A text file has bytes that its encoding does not know."""


def header_of(table: Table, system: Any, path: str) -> tuple[list[str], list[str], int]:
    """Return the header as written, the names of the columns, and the number of lines above the header."""
    with opened(system, path) as stream:
        text = codecs.getincrementaldecoder(table.encoding)(errors="replace").decode(stream.read(HEAD)).lstrip("\ufeff")
    above = int(SEPARATOR_LINE.match(text) is not None)
    text = SEPARATOR_LINE.sub("", text, count=1)
    reader = _lines(io.StringIO(text, newline=None), table.separator)
    try:
        first = [row for _, row in zip(range(LOOKED_AT), filter(None, reader), strict=False)]
    except csv.Error as error:  # a value that does not end in what was read
        if reader.line_num <= 1:
            raise SourceError(f"line 1 of {path} cannot be read ({error}).") from error
        first = [next(_lines(io.StringIO(text, newline=None), table.separator))]
    if not first:
        raise SourceError(f"{path} is empty.")
    if table.header is False:
        return first[0], [f"column_{place}" for place in range(1, len(first[0]) + 1)], above
    if table.header is None and len(first[0]) > 1 and _is_data(first[0], first[1:]):
        raise SourceError(
            f"{path} seems to have no header: its first line is {', '.join(first[0][:4])} ... Put the names of the columns "
            "there. If it is a header, say HEADER=yes; HEADER=no calls the columns column_1, column_2, ..."
        )
    return first[0], clean_names(first[0]), above


def _is_data(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line is a row like those below: mostly numbers, and none where no number is below.

    Years are names, where the numbers below are no years: 2019, 2020, 2021.
    """
    numbers = [_is_number(name) for name in header]
    if sum(numbers) <= len(header) / 2:
        return False
    below = [[row[place] for row in rows if len(row) == len(header)] for place in range(len(header))]
    for place, is_number in enumerate(numbers):
        values = [value for value in below[place] if value.strip()]
        if (
            values
            and not is_number
            and header[place].strip() not in MISSING
            and sum(map(_is_number, values)) > len(values) / 2
        ):
            return False  # a word above numbers
    named = [name for name, is_number in zip(header, numbers, strict=True) if is_number]
    years = all(re.fullmatch(r"(19|20)\d\d", name.strip()) for name in named) and len(set(named)) == len(named)
    return not years or all(
        re.fullmatch(r"(19|20)\d\d", value.strip())
        for place, is_number in enumerate(numbers) if is_number for value in below[place] if value.strip()
    )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _uneven(table: Table, system: Any, path: str, width: int) -> str:
    """Which line has another number of fields; found by reading again, since the fast reader does not count lines."""
    with opened(system, path) as stream:
        text = io.TextIOWrapper(stream, encoding=table.encoding, errors="replace", newline=None)
        reader = _lines(text, table.separator)
        for row in reader:
            if reader.line_num == 1 and SEPARATOR_LINE.match(f"{table.separator.join(row)}\n"):
                continue
            if row and len(row) != width:
                if width == 1:
                    return (
                        f"line {reader.line_num} of {path} has {len(row)} fields, the header has 1. The header has to be the "
                        "first line: remove titles and comments above it."
                    )
                return (
                    f"line {reader.line_num} of {path} has {len(row)} fields, the header has {width}: "
                    f"{table.separator.join(row)[:80]} ... Mend the line; a value with {table.separator!r} in it stands in quotes."
                )
    return f"{path} has rows with another number of fields than its header."
