"""Find the target, the time and the id of the rows."""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .reading import Source
from .tables import Read, Tables, column_of

TARGET_NAME = re.compile(
    r"^(?:target|label|outcome)(?:_?(?:col|column|name|var|variable|feature))?$|^(?:y|response)_?col(?:umn)?$", re.I
)
ANSWERS = re.compile(r"^(?:y|target|label|outcome)s?(?:_?(?:train|test|val|valid|all|full|true|raw|data))?$", re.I)
INPUTS = re.compile(r"^(?:x|features|inputs|predictors)(?:_?(?:train|test|all|full|raw|data))?$", re.I)
TIME_NAME = re.compile(r"date|time|when|moment|timestamp|_(?:at|on|dt|ts)$|^(?:day|dt|ts)$", re.I)
ID_NAME = re.compile(r"(?:^|[_\s-])(?:id|uuid|guid|key|nr|no|number|code)$|Id$|ID$", re.I)
MAX_CANDIDATES = 100  # of each role: a repository can have thousands of lines that name one
NOT_COLUMNS = frozenset({"values", "T", "target", "data", "columns", "y", "labels", "shape"})


@dataclass(frozen=True, eq=False)
class Evidence:
    """A column as the code calls it (`value`) and as the table does. A larger `strength`: a more specific line."""

    value: str
    source: Source
    line: int
    strength: int
    reason: str = ""
    read: Read | None = None
    column: str = ""


class Facts:
    """The roles of the columns: candidates with the names of `table`, the best target first."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._code = tables, tables.code
        self.targets: list[Evidence] = []
        self.times: list[Evidence] = []
        self.ids: list[Evidence] = []
        for read in tables.reads:
            self.times += [Evidence(name, read.source, read.line, 3, "parse_dates", read) for name in read.times]
            self.ids += [Evidence(read.index, read.source, read.line, 3, "index_col", read)] if read.index else []
        for source in self._code.repository.sources:
            for node in source.nodes:
                if isinstance(node, ast.Assign):
                    self._assignment(node, source)
                elif isinstance(node, ast.Call):
                    self._call(node, source)
        self.table = self._settle()
        self.times, self.ids = self._in_table(self.times), self._in_table(self.ids)

    @staticmethod
    def chosen(candidates: Sequence[Evidence]) -> Evidence | None:
        """Return the best candidate for TIME or ID, if it stands out."""
        best = max(candidates, key=lambda candidate: candidate.strength, default=None)
        alone = len({candidate.column for candidate in candidates}) == 1
        return best if best and (alone or best.strength > 1) else None

    def _settle(self) -> Read | None:
        """Choose the table, and give all candidates for the target the names that it has for them."""
        reads, counts = self._tables.reads, Counter(evidence.value for evidence in self.targets)
        self.targets.sort(key=lambda evidence: (-evidence.strength, -counts[evidence.value]))
        self.targets = self.targets[:MAX_CANDIDATES]
        pairs = (
            (one, read) for one in self.targets for read in ([one.read] if one.read else []) + reads[:MAX_CANDIDATES]
        )
        found = (pair for pair in pairs if column_of(self._named(*pair).column, pair[1].columns))
        best = next(found, None)
        tables = [*([best[1]] if best else []), *(one.read for one in self.targets[:1] if one.read)]
        table = next(iter([*tables, *(read for read in reads if read.path), *reads]), None)
        self.targets.sort(key=lambda evidence: not best or evidence is not best[0])
        self.targets = [self._named(evidence, table) for evidence in self.targets]
        return table

    def _named(self, evidence: Evidence, read: Read | None) -> Evidence:
        return replace(evidence, column=self._tables.original(evidence.value, read, evidence.source, evidence.line))

    def _in_table(self, candidates: Sequence[Evidence]) -> list[Evidence]:
        """Return the candidates that are columns of the table, or that can be if its columns are unknown."""
        columns, target = self.table.columns if self.table else (), self.targets[0].column if self.targets else ""
        named = [self._named(candidate, self.table) for candidate in candidates[:MAX_CANDIDATES]]
        near = (None, self.table)
        own = [one for one in named if (column_of(one.column, columns) if columns else one.read in near)]
        return [candidate for candidate in own if candidate.column != target]

    def _assignment(self, node: ast.Assign, source: Source) -> None:
        """Read `y = df["churned"]`, `X = df.drop("churned", axis=1)` and `TARGET = "churned"`."""
        pairs: list[tuple[ast.AST, ast.AST]] = [(target, node.value) for target in node.targets]
        for target, value in list(pairs):
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                pairs += zip(target.elts, value.elts, strict=True)
        for target, value in pairs:
            name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
            text = self._code.text(value, source)
            if text and TARGET_NAME.match(name):
                self.targets.append(Evidence(text, source, node.lineno, 3))
            elif ANSWERS.match(name):
                self._taken(value, source, node.lineno)
            for call in ast.walk(value) if INPUTS.match(name) else ():
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "drop":
                    dropped, read = self._dropped(call, source), self._first(call, source)
                    if len(dropped) == 1:
                        self.targets.append(Evidence(dropped[0], source, node.lineno, 2, "", read))

    def _taken(self, value: ast.AST, source: Source, line: int) -> None:
        """Add the column that the values of the target come from."""
        inner = [child for child in ast.walk(value) if isinstance(child, ast.Subscript | ast.Call)]
        for child in sorted(inner, key=lambda child: (child.lineno, child.col_offset)):
            read, names = self._first(child, source), []
            if isinstance(child, ast.Subscript):
                names = self._column(child, read, source)
            elif getattr(child.func, "attr", "") == "pop" and child.args:
                names = self._code.texts(child.args[0], source)
            if len(names) == 1:
                self.targets.append(Evidence(names[0], source, line, 5, "", read))
                return
        read = self._first(value, source)
        if isinstance(value, ast.Attribute) and value.attr not in NOT_COLUMNS and read:
            self.targets.append(Evidence(value.attr, source, line, 3, "", read))

    def _column(self, node: ast.Subscript, read: Read | None, source: Source) -> list[str]:
        """Return the columns that a subscript names, or the one at its position: `df.iloc[:, -1]`."""
        key = node.slice.elts[1] if isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2 else node.slice
        place = self._code.value(key.lower if isinstance(key, ast.Slice) and not key.upper else key, source)
        columns = read.columns if read and key is not node.slice else ()
        if isinstance(place, int) and -len(columns) <= place < len(columns):
            return [columns[place]]
        is_settings = isinstance(self._code.value(node.value, source), dict)
        return [] if is_settings else self._code.texts(key, source)

    def _first(self, node: ast.AST, source: Source) -> Read | None:
        return next(iter(self._tables.behind(node, source)), None)

    def _dropped(self, call: ast.Call, source: Source) -> list[str]:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        first = call.args[0] if call.args else None
        return self._code.texts(given.get("columns", given.get("labels", first)), source)

    def _call(self, node: ast.Call, source: Source) -> None:
        """Read what calls show: the target of a fit, times, ids."""
        name, line = self._code.name(node.func, source).rsplit(".", 1)[-1], node.lineno
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        first = node.args[0] if node.args else given.get("by", given.get("subset", given.get("keys")))
        names = self._code.texts(first, source)
        is_time = bool(names) and bool(TIME_NAME.search(names[0]))
        if name in ("fit", "train_test_split") and len(node.args) > 1:
            self._taken(node.args[1], source, line)
        elif name == "to_datetime" and isinstance(first, ast.Subscript):
            self.times += [Evidence(column, source, line, 1, name) for column in self._column(first, None, source)]
        elif name in ("sort_values", "set_index") and is_time:
            self.times.append(Evidence(names[0], source, line, 3 if name == "sort_values" else 2, name))
        elif name in ("drop_duplicates", "set_index") and len(names) == 1:
            self.ids.append(Evidence(names[0], source, line, 3 if name == "drop_duplicates" else 2, name))
        elif name == "drop":
            dropped = [column for column in self._dropped(node, source) if ID_NAME.search(column)]
            self.ids += [Evidence(column, source, line, 2, "not an input") for column in dropped]
