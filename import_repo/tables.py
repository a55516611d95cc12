"""Find the tables that the old code reads, their columns, and the renames of these columns."""

import ast
import csv
import gzip
import io
import os
import posixpath
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .reading import Source
from .values import ROOT, Code

MAX_HEADER_BYTES = 256 << 10  # of a table only the header is read
READER = re.compile(
    r"(?:^|\.)(?:read|scan)_(csv|table|parquet|excel|json|ndjson|sql|sql_query|sql_table|feather|pickle|hdf|orc|stata"
    r"|spss|sas|fwf|html|xml|gbq|ipc|avro|database|delta|clipboard)$"
)
ADOPTABLE = re.compile(r"\.(?:csv|tsv|tab|txt|jsonl|ndjson|json|parquet|pq)(?:\.(?:gz|zst|bz2))?$", re.I)
PATH_KEYWORDS = ("filepath_or_buffer", "path", "io", "source")


@dataclass(frozen=True, eq=False)
class Read:
    """A call that reads a table: its address in the code, its path in the repository, and its columns.

    What is unknown is empty. Columns without a header have the names of `make adopt`. `times`, `index`: in the call.
    """

    source: Source
    line: int
    kind: str
    address: str = ""
    path: str = ""
    columns: tuple[str, ...] = ()
    has_header: bool = True
    times: tuple[str, ...] = ()
    index: str = ""

    @property
    def adoptable(self) -> bool:
        """Whether `make adopt` can read the table where it is."""
        is_file = self.kind in ("csv", "table", "parquet", "json", "ndjson") and ADOPTABLE.search(self.address)
        return bool(is_file) and (bool(self.path) or self.address.startswith("s3://"))


@dataclass(frozen=True, eq=False)
class Rename:
    """New names of columns: a mapping from new to previous ones, or the list of all names of a table.

    It applies to the tables in `reads`, or to every table if these are unknown.
    """

    source: Source
    line: int
    names: Mapping[str, str]
    positions: Sequence[str] = ()
    reads: Sequence[Read] = ()

    def previous(self, name: str, read: Read | None) -> str:
        """Return the previous name of a column of a table: the same if this does not rename it."""
        if self.reads and read and read not in self.reads:
            return name
        if name in self.positions and read and len(read.columns) == len(self.positions):
            return read.columns[self.positions.index(name)]
        return self.names.get(name, name)


class Tables:
    """The reads and the renames of a repository, in the order of the code."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.reads: list[Read] = []
        self.renames: list[Rename] = []
        self._by_call: dict[int, Read] = {}
        self._behind: dict[tuple[str, str], list[Read]] = {}  # by file and variable
        self._returned: dict[str, list[Read]] = {}  # by function
        self._basenames: dict[str, list[str]] = {}
        for path in code.repository.others:
            self._basenames.setdefault(posixpath.basename(path), []).append(path)
        for source in code.repository.sources:
            for node in source.nodes:
                if isinstance(node, ast.Call) and (match := READER.search(code.name(node.func, source))):
                    self._by_call[id(node)] = read = self._read(node, match[1], source)
                    self.reads.append(read)
        for source in code.repository.sources * 2 if self.reads else ():  # a function can be defined after its call
            self._follow(source)
        for source in code.repository.sources:
            for node in source.nodes:
                self._rename(node, source)

    def original(self, name: str, read: Read | None, source: Source, line: int) -> str:
        """Return the name of a column in its table, before the renames. Later ones in the same file are tried last."""
        columns, use = read.columns if read else (), (source.cell, line)
        earlier = [one for one in self.renames if one.source.file != source.file or (one.source.cell, one.line) <= use]
        for renames in (earlier, self.renames):
            previous = name
            for rename in reversed(renames):  # each once: two columns can swap their names
                previous = rename.previous(previous, read)
            if column_of(previous, columns) or not columns:
                break
        return column_of(previous, columns) or previous

    def behind(self, node: ast.AST, source: Source) -> list[Read]:
        """Return the tables behind an expression, the leftmost first."""
        reads: list[Read] = []
        nodes = [inner for inner in ast.walk(node) if isinstance(inner, ast.Name | ast.Attribute | ast.Call)]
        for inner in sorted(nodes, key=lambda inner: (inner.lineno, inner.col_offset)):
            if isinstance(inner, ast.Call):
                reads += [self._by_call[id(inner)]] if id(inner) in self._by_call else []
            else:
                name = inner.id if isinstance(inner, ast.Name) else inner.attr
                reads += self._behind.get((source.file, name), self._returned.get(name, []))
        return list(dict.fromkeys(reads))

    def _follow(self, source: Source) -> None:
        """Note which tables are behind the variables and the functions of a source."""
        for node in source.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                results = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value]
                reads = [read for result in results for read in self.behind(result, source)]
                self._returned[node.name] = list(dict.fromkeys([*self._returned.get(node.name, []), *reads]))
        assignments = [node for node in source.nodes if isinstance(node, ast.Assign)]
        for assignment in sorted(assignments, key=lambda assignment: assignment.lineno):
            reads = self.behind(assignment.value, source)
            for target in assignment.targets:
                for inner in ast.walk(target) if reads and not isinstance(target, ast.Subscript) else ():
                    if isinstance(inner, ast.Name | ast.Attribute):
                        self._behind[source.file, inner.id if isinstance(inner, ast.Name) else inner.attr] = reads

    def _read(self, node: ast.Call, kind: str, source: Source) -> Read:
        text, files = self.code.text, self.code.repository
        given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        first = node.args[0] if node.args else next((given[name] for name in PATH_KEYWORDS if name in given), None)
        times, index = tuple(self.code.texts(given.get("parse_dates"), source)), text(given.get("index_col"), source)
        read = Read(source, node.lineno, kind, times=times, index=index)
        if kind.startswith(("sql", "database")):
            return read
        address = text(first, source).replace("\\", "/")
        path, labels = self._file(address, source), self.code.texts(given.get("names"), source)
        columns = header(files.root / path) if path in files.others else ()
        row = self.code.value(given.get("header", given.get("has_header")), source)
        has_header = row is not None and row is not False and not (labels and "header" not in given and kind == "csv")
        if not has_header:
            columns = tuple(f"column_{number}" for number in range(1, len(columns or labels) + 1))
        read = replace(read, address=address, path=path, columns=columns, has_header=has_header)
        self.renames += [Rename(source, node.lineno, {}, labels, [read])] if labels else []
        return read

    def _file(self, address: str, source: Source) -> str:
        """Return the file of the repository that a path of the code leads to; empty if there is none."""
        files = self.code.repository
        if not address or "://" in address:
            return ""
        local = [address.removeprefix(f"{ROOT}/"), posixpath.join(posixpath.dirname(source.file), address)]
        absolute = [os.path.relpath(address, files.root.resolve()).replace(os.sep, "/")]
        for path in map(posixpath.normpath, absolute if address.startswith("/") else local):
            folders = [f"{path[:end]}/" for end, sign in enumerate(path) if sign == "/"]  # one can be a link
            if path in files.others or any(name in files.unread for name in (path, *folders)):
                return path
        same_name = self._basenames.get(posixpath.basename(address), [])
        return same_name[0] if len(same_name) == 1 else ""

    def _rename(self, node: ast.AST, source: Source) -> None:
        """Read `df.rename(columns={...})`, `df.columns = [...]`, `df.set_axis([...])` and `df["new"] = df["old"]`."""
        mapping: object = None
        positions: list[str] = []
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Attribute | ast.Subscript):
            table, line = target.value, node.lineno
            if isinstance(target, ast.Subscript) and isinstance(node.value, ast.Subscript):
                mapping = {self.code.text(node.value.slice, source): self.code.text(target.slice, source)}
            elif isinstance(target, ast.Attribute) and target.attr == "columns":
                positions = self.code.texts(node.value, source)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            table, line, method = node.func.value, node.lineno, node.func.attr
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            first = node.args[0] if node.args else given.get("mapper")
            if method == "rename":
                mapping = self.code.value(given.get("columns", first), source)
            elif method == "set_axis":
                positions = self.code.texts(given.get("labels", first), source)
        pairs = mapping.items() if isinstance(mapping, dict) else ()
        names = {new: old for old, new in pairs if isinstance(old, str) and isinstance(new, str) and old and new}
        if names or len(positions) > 1:
            self.renames.append(Rename(source, line, names, positions, self.behind(table, source)))


def column_of(name: str, columns: Sequence[str]) -> str:
    """Return the column with a name, or the only one whose name differs in case and signs alone; else empty."""
    plain, *others = ["".join(filter(str.isalnum, column.lower())) for column in (name, *columns)]
    like = [column for column, other in zip(columns, others, strict=True) if other == plain != ""]
    return name if name in columns else like[0] if len(like) == 1 else ""


def header(path: Path) -> tuple[str, ...]:
    """Return the names of the columns from the first bytes of a text file; nothing for other files."""
    name = path.name.lower()
    names: list[str] = []
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            start = file.read(MAX_HEADER_BYTES)
        text = start.decode("utf-8-sig", errors="replace")
        text = (start.decode("cp1252", errors="replace") if "\ufffd" in text[:-1] else text).lstrip()
        if re.search(r"\.(?:csv|tsv|tab|txt)(?:\.gz)?$", name) and "\0" not in text.split("\n", 1)[0]:
            delimiter = max(",;\t|", key=text.split("\n", 1)[0].count)
            names = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])
    except (OSError, EOFError, csv.Error, zlib.error):
        return ()
    return tuple(name.strip() for name in names)
