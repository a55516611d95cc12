"""What the old code knows: the table, its target, time and id, the estimator and its hyperparameters, packages, secrets."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .purposes import ANSWERS, INPUTS, MODELS, READ, USUAL, dotted
from .reading import Repository, Source

HEADER = 256 << 10  # bytes of a table that are read: its header, never its rows
ADOPTABLE = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
HERE = "<repository>"  # stands for the repository's own folder in a path that the code puts together
WHEN = re.compile(r"date|time|when|moment|timestamp|_(?:at|on|dt|ts)$|^(?:day|dt|ts)$", re.I)
ID = re.compile(r"(?:^|[_\s-])(?:id|uuid|guid|key|nr|no|number|code)$|Id$|ID$", re.I)


@dataclass(frozen=True)
class Found:
    """A value, and where it was found.

    Attributes:
        value: A name of a column, usually.
        source, line: The place.
        why: A word about how.
        strength: The larger, the surer.
    """

    value: str
    source: Source
    line: int
    why: str = ""
    strength: int = 1
    table: str = ""


@dataclass(frozen=True)
class Read:
    """A place where a table is read.

    Attributes:
        what: Its address as the code has it; empty where it is put together from what only a run knows.
        path: The file in the repository that it leads to, with slashes; empty if there is none.
        kind: `csv`, `parquet`, `sql` and so on, from the name of the function.
        query: Of SQL.
        header: The columns; none where they were not looked at.
        parse: Columns that are read as times; `index` the column that becomes the index.
    """

    source: Source
    line: int
    what: str
    path: str
    kind: str
    query: str = ""
    header: tuple[str, ...] = ()
    parse: tuple[str, ...] = ()
    index: str = ""

    @property
    def adoptable(self) -> bool:
        """Whether `make adopt` can read it where it is."""
        name = self.what.lower()
        for ending in (".gz", ".zst", ".bz2"):
            name = name.removesuffix(ending)
        if self.kind in ("sql", "sql_query", "sql_table"):
            return bool(self.query) and (bool(self.path) or name.startswith("postgresql://"))
        return self.kind in ("csv", "table", "parquet", "json", "ndjson") and (
            name.endswith(ADOPTABLE) and (bool(self.path) or name.startswith("s3://"))
        )


@dataclass(frozen=True)
class Estimator:
    """A call that makes an estimator.

    Attributes:
        name, module: RandomForestClassifier, sklearn.ensemble.
        params: The hyperparameters whose values are written down.
        computed: Names of those that are not.
        used: Whether it is what is fitted, searched or saved in the end.
    """

    name: str
    module: str
    source: Source
    line: int
    params: Mapping[str, Any]
    computed: tuple[str, ...] = ()
    used: int = 0


@dataclass
class Facts:
    """All that is known of a repository."""

    reads: list[Read] = field(default_factory=list)
    targets: list[Found] = field(default_factory=list)
    times: list[Found] = field(default_factory=list)
    ids: list[Found] = field(default_factory=list)
    estimators: list[Estimator] = field(default_factory=list)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    params: list[Found] = field(default_factory=list)
    metrics: list[Found] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    problem: str = ""
    why_problem: str = ""

    # ------------------------------------------------------------------------------------------------ Conclusions

    @property
    def table(self) -> Read | None:
        """The table that holds the target: the one that the target is taken from, else the one whose header has it."""
        if not self.reads:
            return None
        best = self.targets[0] if self.targets else None
        if best is not None:
            holds = [read for read in self.reads if column_of(best.value, read.header)]
            from_it = [read for read in self.reads if place(read) == best.table]
            for read in (*[one for one in from_it if one in holds], *holds, *from_it):
                return read
        known = [read for read in self.reads if read.path or read.query]
        return (known or self.reads)[0]

    @property
    def target(self) -> Found | None:
        return self.targets[0] if self.targets else None

    @property
    def estimator(self) -> Estimator | None:
        """The one that is used in the end; of several the last that is."""
        return max(enumerate(self.estimators), key=lambda pair: (pair[1].used, pair[0]))[1] if self.estimators else None

    def chosen(self, found: Sequence[Found]) -> Found | None:
        """The candidate for TIME or ID, where one stands out, and the table has it."""
        table = self.table
        header = table.header if table else ()
        target = self.target.value if self.target else ""
        there = [one for one in found if one.value != target and (not header or column_of(one.value, header))]
        if table and not header:  # a column of another table is none of this one's
            there = [one for one in there if one.table in ("", place(table))]
        names = list(dict.fromkeys(one.value for one in there))
        if not there:
            return None
        best = max(there, key=lambda one: one.strength)
        alone = len(names) == 1
        return best if best.strength >= (1 if alone else 2) else None


def place(read: Read) -> str:
    return f"{read.source.file}:{read.source.cell}:{read.line}"


def column_of(name: str, header: Sequence[str]) -> str:
    """The column that is meant: the same name, or one that differs only as clean-up code makes names differ."""
    if name in header:
        return name
    like = [one for one in header if _plain(one) == _plain(name)]
    return like[0] if len(like) == 1 else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# ------------------------------------------------------------------------------------------------------- Looking


class Looker:
    """Walks through the code of a repository in order and notes what it knows."""

    def __init__(self, repository: Repository, names: Mapping[str, Mapping[str, str]]) -> None:
        self.repository = repository
        self.names = names
        self.facts = Facts()
        self.values: dict[str, dict[str, Any]] = {}  # by file, what names are worth
        self.everywhere: dict[str, Any] = {}
        self.tables: dict[str, dict[str, list[str]]] = {}  # by file, the tables behind a name
        self.returned: dict[str, list[str]] = {}  # by function of the repository, the tables that it reads
        self.dumped: set[str] = set()
        self.votes: dict[str, list[Found]] = {"classification": [], "regression": []}

    def look(self) -> Facts:
        """Everything, in two rounds: a function may stand below its call, a constant in another file."""
        for source in self.repository.sources:
            self._constants(source)
        for _ in range(2):
            self.facts.reads = []
            for source in self.repository.sources:
                self._reads(source)
        for source in self.repository.sources:
            self._columns(source)
            self._models(source)
            self._imports(source)
        self._settle()
        return self.facts

    def _settle(self) -> None:
        facts = self.facts
        headers = [read.header for read in facts.reads if read.header]
        in_a_table = [one for one in facts.targets if any(column_of(one.value, header) for header in headers)]
        surest = in_a_table or facts.targets
        facts.targets = sorted(facts.targets, key=lambda one: (one not in surest, -one.strength))
        best = facts.estimator
        if best is not None:
            for problem, ending in (("classification", r"Classifier|SVC$|NB$|Logistic|Logit|Perceptron|Discriminant|ClassifierCV"),
                                    ("regression", r"Regressor$|SVR$|Ridge|Lasso|ElasticNet|LinearRegression|OLS")):  # fmt: skip
                if re.search(ending, best.name) and not (problem == "regression" and "Classifier" in best.name):
                    facts.problem, facts.why_problem = problem, f"{best.name}, {best.source.place(best.line)}"
                    return
        votes = {problem: len(found) for problem, found in self.votes.items()}
        if any(votes.values()):
            facts.problem = max(votes, key=lambda problem: votes[problem])
            first = self.votes[facts.problem][0]
            facts.why_problem = f"{first.value}, {first.source.place(first.line)}"

    # ----------------------------------------------------------------------------------------------------- Values

    def _constants(self, source: Source) -> None:
        """What names are worth, as far as it is written down: constants, settings in a dict or a class, defaults."""
        known = self.values.setdefault(source.file, {"__file__": f"{HERE}/{source.file}"})
        for node in source.nodes:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                value = self.value(node.value, source)
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if value is None and not isinstance(node.value, ast.Constant):
                    continue
                for target in targets:
                    if isinstance(target, ast.Name):
                        known.setdefault(target.id, value)
                        self.everywhere.setdefault(target.id, value)
                    elif isinstance(target, ast.Attribute):
                        known.setdefault(f".{target.attr}", value)
            elif isinstance(node, ast.ClassDef):
                for name, value in self._in_class(node, source).items():
                    self.everywhere.setdefault(f"{node.name}.{name}", value)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for name, value in self._defaults(node.args, source).items():
                    known.setdefault(name, value)
            elif isinstance(node, ast.Call) and dotted(node.func, {}).endswith(
                (".add_argument", "click.option", "click.argument")
            ):
                default = next((self.value(one.value, source) for one in node.keywords if one.arg == "default"), None)
                words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                if words and default is not None:
                    name = max(words, key=len).lstrip("-").replace("-", "_")
                    known.setdefault(f".{name}", default)
                    known.setdefault(name, default)

    def _in_class(self, node: ast.ClassDef, source: Source) -> dict[str, Any]:
        found = {}
        for one in node.body:
            if isinstance(one, ast.Assign | ast.AnnAssign) and one.value is not None:
                target = one.targets[0] if isinstance(one, ast.Assign) else one.target
                if isinstance(target, ast.Name):
                    found[target.id] = self.value(one.value, source)
        return found

    def _defaults(self, given: ast.arguments, source: Source) -> dict[str, Any]:
        names = [*given.posonlyargs, *given.args]
        pairs = [*zip(names[len(names) - len(given.defaults) :], given.defaults, strict=True)]
        pairs += [
            (name, value) for name, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value is not None
        ]
        found = {name.arg: self.value(value, source) for name, value in pairs}
        return {name: value for name, value in found.items() if value is not None}

    def value(self, node: ast.AST | None, source: Source, depth: int = 0) -> Any:
        """What an expression is worth, where it is written down; else nothing."""
        if node is None or depth > 20:
            return None

        def inner(one: ast.AST | None) -> Any:
            return self.value(one, source, depth + 1)

        known = self.values.get(source.file, {})
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return known.get(node.id, self.everywhere.get(node.id))
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [inner(one) for one in node.elts]
        if isinstance(node, ast.Dict):
            return {
                inner(key): inner(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = inner(node.operand)
            return -number if isinstance(number, int | float) else None
        if isinstance(node, ast.JoinedStr):
            parts = [inner(one.value if isinstance(one, ast.FormattedValue) else one) for one in node.values]
            return "".join(map(str, parts)) if all(part is not None for part in parts) else None
        if isinstance(node, ast.BinOp):
            return _joined(node.op, inner(node.left), inner(node.right))
        if isinstance(node, ast.Subscript):
            held, key = inner(node.value), inner(node.slice)
            return _item(held, key)
        if isinstance(node, ast.Attribute):
            if node.attr == "parent":
                held = inner(node.value)
                return posixpath.dirname(held) if isinstance(held, str) else None
            told = dotted(node, {})
            return self.everywhere.get(told, self.everywhere.get(told.split(".", 1)[-1], known.get(f".{node.attr}")))
        if isinstance(node, ast.Call):
            return self._called(node, source, depth)
        return None

    def _called(self, node: ast.Call, source: Source, depth: int) -> Any:
        """Paths that are put together, and dict(...)."""
        name = dotted(node.func, self.names.get(source.file, USUAL)).split(".")[-1]
        given = [self.value(one, source, depth + 1) for one in node.args]
        if name == "dict":
            return {one.arg: self.value(one.value, source, depth + 1) for one in node.keywords if one.arg}
        if (
            name in ("Path", "PurePath", "PosixPath", "join", "joinpath")
            and given
            and all(isinstance(one, str) for one in given)
        ):
            held = (
                self.value(node.func.value, source, depth + 1)
                if name == "joinpath" and isinstance(node.func, ast.Attribute)
                else None
            )
            return posixpath.join(*([held] if isinstance(held, str) else []), *given)
        if name == "dirname" and given and isinstance(given[0], str):
            return posixpath.dirname(given[0])
        if name in ("abspath", "realpath", "str", "expanduser", "fspath") and given:
            return given[0]
        if name in ("resolve", "absolute", "as_posix", "expanduser") and isinstance(node.func, ast.Attribute):
            return self.value(node.func.value, source, depth + 1)
        if name in ("cwd", "getcwd"):
            return ""
        if name in ("get", "getenv") and len(given) > 1:
            return given[1]
        if name in ("text", "URL") and given:
            return given[0]
        return None

    # ------------------------------------------------------------------------------------------------------ Tables

    def _reads(self, source: Source) -> None:
        known = self.tables.setdefault(source.file, {})
        for statement in _statements(source):
            found = []
            for node in _own_nodes(statement):
                if isinstance(node, ast.Call) and (read := self._read(node, source)) is not None:
                    self.facts.reads.append(read)
                    found.append(place(read))
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                within = [place(read) for read in self.facts.reads if read.source is source]
                self.returned.setdefault(statement.name, [])
                ours = [
                    one
                    for one in within
                    if statement.lineno <= int(one.rsplit(":", 1)[1]) <= (statement.end_lineno or 0)
                ]
                self.returned[statement.name] = list(
                    dict.fromkeys([*self.returned[statement.name], *ours, *self._behind(statement, source)])
                )
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Assign | ast.AnnAssign) and value is not None:
                behind = list(dict.fromkeys([*found, *self._behind(value, source)]))
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for target in targets:
                    for node in ast.walk(target):
                        if isinstance(node, ast.Name) and behind:
                            known[node.id] = list(dict.fromkeys([*behind, *([] if found else known.get(node.id, []))]))

    def _behind(self, node: ast.AST, source: Source) -> list[str]:
        """The tables behind an expression, the leftmost first."""
        known, found = self.tables.get(source.file, {}), []
        for one in sorted(
            (n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)),
            key=lambda n: (n.lineno, n.col_offset),
        ):
            name = one.id if isinstance(one, ast.Name) else one.attr
            found += known.get(name, []) if isinstance(one, ast.Name) else []
            found += self.returned.get(name, [])
        return list(dict.fromkeys(found))

    def _read(self, node: ast.Call, source: Source) -> Read | None:
        name = dotted(node.func, self.names.get(source.file, USUAL))
        told = re.search(READ, name)
        if not told:
            return None
        kind = name.split(".")[-1].split("_", 1)[1]
        words = {one.arg: one.value for one in node.keywords if one.arg}
        first = (
            node.args[0]
            if node.args
            else words.get("filepath_or_buffer") or words.get("path") or words.get("io") or words.get("source")
        )
        parse = self.value(words.get("parse_dates"), source)
        index = self.value(words.get("index_col"), source)
        times = tuple(one for one in parse if isinstance(one, str)) if isinstance(parse, list) else ()
        at = index if isinstance(index, str) else ""
        if kind.startswith("sql") or kind == "database":
            asked = self.value(first if first is not None else words.get("sql"), source)
            query = " ".join(asked.split()) if isinstance(asked, str) else ""
            query = f"SELECT * FROM {query}" if query and " " not in query else query
            over = self._address(node.args[1] if len(node.args) > 1 else words.get("con"), source)
            scheme, mark, rest = over.partition(":///")
            path = self._file(rest, source) if mark and scheme in ("sqlite", "duckdb") else ""
            return Read(source, node.lineno, over, path, kind, query, parse=times, index=at)
        asked = self.value(first, source)
        what = asked.replace("\\", "/") if isinstance(asked, str) else ""
        path = self._file(what, source)
        header = self._header(path)
        return Read(source, node.lineno, what, path, kind, "", header, times, at)

    def _address(self, node: ast.AST | None, source: Source) -> str:
        """The database behind a connection, without user's password."""
        seen: set[str] = set()
        while isinstance(node, ast.Name) and node.id not in seen:
            seen.add(node.id)
            value = self.value(node, source)
            if isinstance(value, str):
                return _without_password(value)
            node = self._made(node.id)
        if isinstance(node, ast.Call):
            name = dotted(node.func, self.names.get(source.file, USUAL))
            if name.endswith("sqlite3.connect") and node.args:
                path = self.value(node.args[0], source)
                return f"sqlite:///{path}" if isinstance(path, str) else ""
            if node.args:
                url = self.value(node.args[0], source)
                return _without_password(url) if isinstance(url, str) else self._address(node.args[0], source)
        value = self.value(node, source)
        return _without_password(value) if isinstance(value, str) else ""

    def _made(self, name: str) -> ast.AST | None:
        """What a name was last made of, anywhere."""
        for source in self.repository.sources:
            for node in source.nodes:
                if isinstance(node, ast.Assign) and any(
                    isinstance(one, ast.Name) and one.id == name for one in node.targets
                ):
                    return node.value
                if isinstance(node, ast.With):
                    for item in node.items:
                        if isinstance(item.optional_vars, ast.Name) and item.optional_vars.id == name:
                            return item.context_expr
        return None

    def _file(self, what: str, source: Source) -> str:
        """The file of the repository that a path of the code leads to, as the code is started from here or there."""
        root = self.repository.root
        if not what or "://" in what:
            return ""
        inside = what.removeprefix(f"{HERE}/") if what.startswith(HERE) else ""
        starts = ["", posixpath.dirname(source.file)]
        tries = [inside] if inside else [posixpath.normpath(posixpath.join(start, what)) for start in starts]
        if what.startswith("/"):
            tries = [os.path.relpath(what, root.resolve()).replace(os.sep, "/")]
        for one in tries:
            name = posixpath.normpath(one)
            if not name.startswith("../") and (name in self.repository.others or name in self.repository.unread):
                return name
        named = [name for name in self.repository.others if posixpath.basename(name) == posixpath.basename(what)]
        return named[0] if len(named) == 1 else ""

    def _header(self, path: str) -> tuple[str, ...]:
        """The columns of a table, from its first bytes; nothing for one that lies elsewhere or is not text."""
        if not path or path not in self.repository.others:
            return ()
        return header(self.repository.root / path)

    # ---------------------------------------------------------------------------------------- Target, time, id

    def _columns(self, source: Source) -> None:
        facts = self.facts
        for read in facts.reads:
            if read.source is source:
                facts.times += [Found(name, source, read.line, "parse_dates", 3, place(read)) for name in read.parse]
                if read.index:
                    facts.ids.append(Found(read.index, source, read.line, "index_col", 3, place(read)))
        for node in source.nodes:
            if isinstance(node, ast.Assign):
                self._answer(node, source)
            elif isinstance(node, ast.Call):
                self._role(node, source)

    def _answer(self, node: ast.Assign, source: Source) -> None:
        """The target: y = df["churned"], X = df.drop("churned", axis=1), TARGET = "churned"."""
        first = node.targets[0]
        names = [one.id for one in ast.walk(first) if isinstance(one, ast.Name)]
        answers = [name for name in names if name in ANSWERS]
        if len(names) == 1 and re.search(
            r"^(?:target|label|outcome)(?:_?(?:col|column|name|var|variable|feature))?$|^(?:y|response)_?col(?:umn)?$",
            names[0],
            re.I,
        ):
            value = self.value(node.value, source)
            if isinstance(value, str) and value:
                self._target(value, source, node, "", 3)
                return
        if answers and not isinstance(node.value, ast.Constant):
            self._from(_paired(node, answers[0]), source, node)
        elif names and names[0] in INPUTS:
            for call in _nodes_of(node.value):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "drop":
                    dropped = self._dropped(call, source)
                    for name in dropped:
                        if ID.search(name):
                            self.facts.ids.append(Found(name, source, node.lineno, "left out of the inputs", 2))
                    if len(dropped) == 1:
                        self._target(dropped[0], source, node, self._first_table(call, source), 2)

    def _from(self, value: ast.AST, source: Source, node: ast.Assign) -> None:
        """The column that an answer is made of."""
        if isinstance(value, ast.Call) and dotted(value.func, {}).split(".")[-1] == "train_test_split":
            return self._split(value, source, node)
        for one in sorted(_nodes_of(value), key=lambda n: (getattr(n, "lineno", 0), getattr(n, "col_offset", 0))):
            if isinstance(one, ast.Subscript):
                name = self._named(one, source)
                if name:
                    return self._target(name, source, node, self._first_table(one, source), 5)
                if _last_column(one):
                    return self._by_place(one, source, node)
            if (
                isinstance(one, ast.Call)
                and isinstance(one.func, ast.Attribute)
                and one.func.attr == "pop"
                and one.args
            ):
                name = self.value(one.args[0], source)
                if isinstance(name, str):
                    return self._target(name, source, node, self._first_table(one, source), 5)
        if isinstance(value, ast.Attribute) and value.attr not in (
            "values",
            "T",
            "target",
            "data",
            "columns",
            "y",
            "labels",
            "shape",
        ):
            self._target(value.attr, source, node, self._first_table(value, source), 3)
        return None

    def _split(self, call: ast.Call, source: Source, node: ast.Assign) -> None:
        """train_test_split(df[...], df["churned"]): the second."""
        if len(call.args) > 1:
            self._from(call.args[1], source, node)

    def _by_place(self, value: ast.Subscript, source: Source, node: ast.Assign) -> None:
        """df.iloc[:, -1]: the last column of the header."""
        table = self._first_table(value, source)
        for read in self.facts.reads:
            if place(read) == table and read.header:
                self._target(read.header[-1], source, node, table, 4)

    def _named(self, node: ast.Subscript, source: Source) -> str:
        inner: ast.AST = node.slice
        if isinstance(inner, ast.Tuple) and len(inner.elts) == 2:
            inner = inner.elts[1]
        value = self.value(inner, source)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str):
            return ""
        # A settings dict is looked into in the same way as a table.
        return "" if isinstance(self.value(node.value, source), dict) else value

    def _target(self, name: str, source: Source, node: ast.AST, table: str, strength: int) -> None:
        self.facts.targets.append(Found(name, source, getattr(node, "lineno", 1), "", strength, table))

    def _first_table(self, node: ast.AST, source: Source) -> str:
        return next(iter(self._behind(node, source)), "")

    def _dropped(self, call: ast.Call, source: Source) -> list[str]:
        words = {one.arg: one.value for one in call.keywords}
        given = self.value(words.get("columns") or words.get("labels") or (call.args[0] if call.args else None), source)
        given = [given] if isinstance(given, str) else given
        return [one for one in given if isinstance(one, str)] if isinstance(given, list) else []

    def _role(self, node: ast.Call, source: Source) -> None:
        """Times and ids, from the calls that only make sense for them; seeds and shares, for params.yaml."""
        name = dotted(node.func, self.names.get(source.file, USUAL)).split(".")[-1]
        facts, line = self.facts, node.lineno
        words = {one.arg: self.value(one.value, source) for one in node.keywords if one.arg}
        columns = [
            self._named(one, source) for given in node.args for one in ast.walk(given) if isinstance(one, ast.Subscript)
        ]
        given = (
            self.value(node.args[0], source) if node.args else words.get("by", words.get("subset", words.get("keys")))
        )
        plain = (
            [given]
            if isinstance(given, str)
            else [one for one in given if isinstance(one, str)]
            if isinstance(given, list)
            else []
        )
        if name == "to_datetime":
            facts.times += [Found(one, source, line, "to_datetime", 1) for one in columns if one]
        elif name == "sort_values" and plain:
            dated = {one.value for one in facts.times} | {one for one in plain if WHEN.search(one)}
            facts.times += [Found(one, source, line, "rows are sorted by it", 3) for one in plain[:1] if one in dated]
        elif name == "set_index" and len(plain) == 1:
            kind = facts.times if WHEN.search(plain[0]) else facts.ids
            kind.append(Found(plain[0], source, line, "set_index", 2))
        elif name == "drop_duplicates" and len(plain) == 1:
            facts.ids.append(Found(plain[0], source, line, "drop_duplicates", 3))
        elif name == "drop":
            facts.ids += [
                Found(one, source, line, "left out of the inputs", 2)
                for one in self._dropped(node, source)
                if ID.search(one)
            ]
        self._numbers(name, node, words, source)

    def _numbers(self, name: str, node: ast.Call, words: Mapping[str, Any], source: Source) -> None:
        """What params.yaml has a key for."""
        facts, line = self.facts, node.lineno

        def note(key: str, value: Any) -> None:
            if isinstance(value, int | float) and not isinstance(value, bool):
                facts.params.append(Found(f"{key}: {value}", source, line))

        if name == "train_test_split":
            share = words.get("test_size")
            if isinstance(share, float) and 0 < share < 1:
                note("split.test_share", share)
        if name in ("KFold", "StratifiedKFold", "TimeSeriesSplit", "GroupKFold"):
            note("split.folds", words.get("n_splits", self.value(node.args[0], source) if node.args else None))
        if name.endswith("SearchCV"):
            note("split.folds", words.get("cv"))
            note("search.trials", words.get("n_iter"))
        if name == "optimize":
            note("search.trials", words.get("n_trials"))
        seed = words.get("random_state")
        if isinstance(seed, int):
            note("seed", seed)
        metric = METRICS.get(name)
        if metric:
            facts.metrics.append(Found(metric, source, line, name))
            self.votes["regression" if metric in ("mae", "rmse", "r2") else "classification"].append(
                Found(name, source, line)
            )
        elif name in (
            "f1_score",
            "accuracy_score",
            "precision_score",
            "recall_score",
            "classification_report",
            "confusion_matrix",
        ):
            self.votes["classification"].append(Found(name, source, line))

    # ------------------------------------------------------------------------------------------------------ Models

    def _models(self, source: Source) -> None:
        known = self.names.get(source.file, USUAL)
        dumped = {
            one.id for node in source.nodes if isinstance(node, ast.Call) and node.args
            and re.search(r"(?:joblib|pickle|cloudpickle|dill)\.dump$|SearchCV$", dotted(node.func, known))
            for one in ast.walk(node.args[0]) if isinstance(one, ast.Name)
        }  # fmt: skip
        kept = {
            id(node): target.id for one in source.nodes if isinstance(one, ast.Assign)
            for target in one.targets if isinstance(target, ast.Name) for node in ast.walk(one.value) if isinstance(node, ast.Call)
        }  # fmt: skip
        fitted = {id(node.value) for node in source.nodes if isinstance(node, ast.Attribute) and node.attr == "fit"}
        for node in source.nodes:
            if not isinstance(node, ast.Call):
                continue
            full = dotted(node.func, known)
            name = full.split(".")[-1]
            if (
                re.search(r"(?:Grid|Randomized|Halving\w*|Bayes)Search(?:CV)?$", name)
                and len(node.args) + len(node.keywords) > 1
            ):
                self._grid(node, source)
            if re.fullmatch(MODELS, name) and name[0].isupper() and name != "Sequential" and not full.endswith("?"):
                params, computed = self._params(node, source)
                used = 2 if kept.get(id(node)) in dumped else 0
                used += 1 if id(node) in kept or id(node) in fitted else 0
                self.facts.estimators.append(
                    Estimator(name, full.rpartition(".")[0], source, node.lineno, params, computed, used)
                )
            elif full in ("lightgbm.train", "xgboost.train") and node.args:
                self._native(full.split(".")[0], node, source)

    def _params(self, node: ast.Call, source: Source) -> tuple[dict[str, Any], tuple[str, ...]]:
        params: dict[str, Any] = {}
        computed: list[str] = []
        for one in node.keywords:
            value = self.value(one.value, source)
            if one.arg is None:
                params.update(
                    {key: item for key, item in value.items() if isinstance(key, str)}
                    if isinstance(value, dict)
                    else {}
                )
                computed += [] if isinstance(value, dict) else [ast.unparse(one.value)]
            elif value is None and not (isinstance(one.value, ast.Constant)):
                computed.append(one.arg)
            else:
                params[one.arg] = value
        kept = {
            key: value
            for key, value in params.items()
            if key not in LEFT and isinstance(value, int | float | str | None)
        }
        return kept, tuple(name for name in computed if name not in LEFT)

    def _native(self, library: str, node: ast.Call, source: Source) -> None:
        """lightgbm.train(params, ...) as the estimator that does the same."""
        given = self.value(node.args[0], source)
        given = given if isinstance(given, dict) else {}
        objective = str(given.get("objective", given.get("application", "")))
        classes = any(word in objective for word in ("binary", "logistic", "multi", "softm"))
        name = {"lightgbm": "LGBM", "xgboost": "XGB"}[library] + ("Classifier" if classes else "Regressor")
        params = {NATIVE.get(key, key): value for key, value in given.items() if isinstance(key, str)}
        rounds = next((self.value(one.value, source) for one in node.keywords if one.arg == "num_boost_round"), None)
        if isinstance(rounds, int):
            params["n_estimators"] = rounds
        kept = {
            key: value
            for key, value in params.items()
            if key not in (*LEFT, "objective", "metric", "num_class") and isinstance(value, int | float | str)
        }
        self.facts.estimators.append(Estimator(name, library, source, node.lineno, kept, (), 1))

    def _grid(self, node: ast.Call, source: Source) -> None:
        words = {one.arg: one.value for one in node.keywords}
        given = words.get("param_grid") or words.get("param_distributions") or words.get("search_spaces")
        grid = self.value(given or (node.args[1] if len(node.args) > 1 else None), source)
        for one in grid if isinstance(grid, list) else [grid]:
            if isinstance(one, dict):
                for key, values in one.items():
                    if (
                        isinstance(key, str)
                        and isinstance(values, list)
                        and values
                        and all(isinstance(v, int | float | str | None) for v in values)
                    ):
                        self.facts.grid.setdefault(key.rsplit("__", 1)[-1], values)

    def _imports(self, source: Source) -> None:
        for node in source.nodes:
            if isinstance(node, ast.Import):
                self.facts.imports |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.facts.imports.add(node.module)


METRICS = {
    "roc_auc_score": "auc", "average_precision_score": "average_precision", "brier_score_loss": "brier", "log_loss": "log_loss",
    "mean_absolute_error": "mae", "mean_squared_error": "rmse", "root_mean_squared_error": "rmse", "r2_score": "r2",
}  # fmt: skip
"""By scikit-learn's name, that of params.yaml."""
LEFT = frozenset(
    {"random_state", "seed", "n_jobs", "nthread", "num_threads", "thread_count", "verbose", "verbosity", "silent", "warm_start",
     "early_stopping", "early_stopping_rounds", "eval_metric", "use_label_encoder", "callbacks", "device", "task_type"}
)  # fmt: skip
"""Arguments that are no hyperparameters: the platform gives the seed, a fit has no second set of rows to stop by."""
NATIVE = {"eta": "learning_rate", "num_boost_round": "n_estimators", "lambda": "reg_lambda", "alpha": "reg_alpha"}


def _paired(node: ast.Assign, name: str) -> ast.AST:
    """Of `X, y = a, b` the part that the name stands for."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, other in zip(target.elts, value.elts, strict=True):
            if isinstance(one, ast.Name) and one.id == name:
                return other
    return value


def _last_column(node: ast.Subscript) -> bool:
    held, inner = node.value, node.slice
    if not (
        isinstance(held, ast.Attribute)
        and held.attr in ("iloc", "values")
        and isinstance(inner, ast.Tuple)
        and len(inner.elts) == 2
    ):
        return False
    return ast.unparse(inner.elts[1]) in ("-1", "-1:")


def _joined(operator: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(operator, ast.Add) and isinstance(left, str) and isinstance(right, str):
        return left + right
    if isinstance(operator, ast.Div) and isinstance(left, str) and isinstance(right, str):
        return posixpath.join(left, right)
    if isinstance(operator, ast.Add) and isinstance(left, list) and isinstance(right, list):
        return left + right
    return None


def _item(held: Any, key: Any) -> Any:
    if isinstance(held, dict):
        return held.get(key) if isinstance(key, str | int) else None
    if isinstance(held, list) and isinstance(key, int) and -len(held) <= key < len(held):
        return held[key]
    return None


def _nodes_of(node: ast.AST) -> list[ast.AST]:
    return list(ast.walk(node))


def _statements(source: Source) -> list[ast.stmt]:
    found = [node for node in source.nodes if isinstance(node, ast.stmt)]
    # A function after what is in it, so that what it reads is known.
    return sorted(
        found,
        key=lambda one: (one.end_lineno or 0, -one.lineno) if isinstance(one, ast.FunctionDef) else (one.lineno, 0),
    )


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement without those of the statements in it."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.stmt | ast.excepthandler)]


def _without_password(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    who, at, where = rest.rpartition("@")
    scheme = {"postgres": "postgresql"}.get(scheme.split("+")[0], scheme.split("+")[0])
    return f"{scheme}://{who.split(':')[0]}{at}{where}"


def header(path: Path) -> tuple[str, ...]:
    """The names of a table's columns, from the first bytes of a text file; of other files none."""
    name = path.name.lower()
    try:
        if name.endswith(".gz"):
            name = name.removesuffix(".gz")
            with gzip.open(path) as packed:
                start = packed.read(HEADER)
        else:
            with path.open("rb") as file:
                start = file.read(HEADER)
    except (OSError, EOFError):
        return ()
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = start.decode("utf-8-sig" if error.start > len(start) - 4 else "cp1252", errors="replace")
    if name.endswith((".jsonl", ".ndjson")):
        return _keys(text)
    if not name.endswith((".csv", ".tsv", ".tab", ".txt")):
        return ()
    line = text.lstrip().split("\n", 1)[0]
    if "\0" in line or not line:
        return ()
    separator = max(",;\t|", key=line.count)
    return tuple(one.strip() for one in next(csv.reader(io.StringIO(text.lstrip()), delimiter=separator), []))


def _keys(text: str) -> tuple[str, ...]:
    try:
        first = json.loads(text.split("\n", 1)[0])
    except ValueError:
        return ()
    return tuple(map(str, first)) if isinstance(first, dict) else ()
