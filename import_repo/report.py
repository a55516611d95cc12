"""Write IMPORT.md: the commands to a first champion, the line of code behind each value, and where the files go."""

import fnmatch
import os
import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .columns import ID_NAME, TIME_NAME, Facts
from .estimators import Estimator, model_text
from .reading import Repository, Source
from .redaction import Redaction
from .tables import Tables, column_of

GUIDE = Path(__file__).parent.parent / "docs/adopting-a-repository.md"
MAX_ROWS = 200  # of one table
SAME_KIND = 5  # files of one suffix in one folder, from which they share a row
WRITE = 'Let the old code write the table once, with `.to_parquet("table.parquet")`, and name that file.'


@dataclass
class Report:
    """The text of IMPORT.md. `provided` are the packages of the project, `note` a sentence about the license."""

    old: Repository
    hidden: Redaction
    tables: Tables
    facts: Facts
    models: Sequence[Estimator]
    provided: Set[str]
    into: Path
    note: str

    def __post_init__(self) -> None:
        self.table, self.code = self.facts.table, self.hidden.code
        self.columns = self.table.columns if self.table else ()
        self.root = os.path.relpath(self.old.root.resolve(), self.into.resolve()).replace(os.sep, "/")
        evidence = (*self.facts.targets, *self.facts.times, *self.facts.ids)
        self.shown = {name for one in evidence for name in (one.value, one.column)}
        self.shown |= {
            name for one in self.tables.renames for name in (*one.names, *one.names.values(), *one.positions)
        }
        self.shown |= {name for read in self.tables.reads for name in (*read.columns, read.address)}
        self.shown |= {str(value) for model in self.models for value in model.params.values()}
        libraries = {model.module for model in self.models[:1] if "." not in model.module}
        self.needed = sorted(libraries - self.provided)

    def text(self) -> str:
        """Return the whole text."""
        intro = f"Written from the files in {self.code(self.root)}, none of which was executed or changed."
        parts = [f"# Import of {self.code(self.old.root.name)}", "", f"{intro} Delete this file after the import.", ""]
        for section in (self._commands, self._renames, self._model, self._packages, self._warnings, self._files):
            parts += section()
        return "\n".join(parts).rstrip() + "\n"

    def _line(self, source: Source, line: int) -> str:
        text = source.lines[line - 1] if 0 < line <= len(source.lines) else ""
        return f"{self.hidden.clean(source.location(line))}: {self.hidden.quote(text, self.shown)}"

    def _word(self, text: str) -> str:
        """Return a word for the shell and for make."""
        return shlex.quote(self.hidden.clean(text).replace("$", "$$"))

    def _others(self, names: Iterable[str], label: str = "Other candidates") -> str:
        codes = [self.code(name) for name in dict.fromkeys(names)]
        return f" {label}: {', '.join(codes[:12])}{' and more' if len(codes) > 12 else ''}." if codes else ""

    def _commands(self) -> list[str]:
        data, reason = self._data()
        target, model = next(iter(self.facts.targets), None), next(iter(self.models), None)
        words, rows = [*data, f"TARGET={self._word(target.column) if target else '...'}"], [("DATA", reason)]
        if target:
            renamed = f" The table calls it {self.code(target.column)}." if target.column != target.value else ""
            others = [other.column for other in self.facts.targets if other.column != target.column]
            rows.append(("TARGET", self._line(target.source, target.line) + renamed + self._others(others)))
        else:
            rows.append(("TARGET", "No line takes a target." + self._others(self.columns, "Columns")))
        for role, candidates, pattern in (("TIME", self.facts.times, TIME_NAME), ("ID", self.facts.ids, ID_NAME)):
            chosen = self.facts.chosen(candidates)
            names = [candidate.column for candidate in candidates] + list(filter(pattern.search, self.columns))
            evidence = f"{self._line(chosen.source, chosen.line)} ({chosen.reason})." if chosen else "Not set."
            rows.append((role, evidence + self._others(name for name in names if not chosen or name != chosen.column)))
            words += [f"{role}={self._word(chosen.column)}"] if chosen else []
        words += ["PROBLEM=regression"] if model and model.problem == "regression" else []
        kind = f"{model.problem}: {self._line(model.source, model.line)}" if model else "The values of TARGET show it."
        lines = ["make setup", f"make adopt {' '.join(words)}", *map("uv add {}".format, self.needed), "make run"]
        gaps = ["Replace each `...` before you run the second command.", ""] if "=..." in lines[1] else []
        head = ["## Commands", "", "```sh", *lines, "```", "", *gaps]
        return [*head, *self._table(("argument", "evidence"), [*rows, ("PROBLEM", kind)])]

    def _data(self) -> tuple[list[str], str]:
        """Return DATA and HEADER, and the evidence; `...` where the code does not have the place of the table."""
        table, target = self.table, next(iter(self.facts.targets), None)
        if table is None:
            files = [name for name in self.old.others if re.search(r"\.(?:csv|tsv|parquet|jsonl)$", name, re.I)]
            return ["DATA=..."], "No line reads a table." + self._others(files, "Files")
        line = self._line(table.source, table.line)
        where = f"{self.root}/{table.path}" if table.path else table.address
        if self.columns and target and not column_of(target.column, self.columns):
            return ["DATA=..."], f"{line} reads no column {self.code(target.column)}: it is computed. {WRITE}"
        if table.kind.startswith(("sql", "database")):
            return [
                "DATA=...",
                "QUERY=...",
            ], f"{line} For example `postgresql://user@host/base`, its password in `.env`."
        if table.adoptable and self.hidden.clean(table.path or where) == (table.path or where):
            seen = f"{len(self.columns)} columns in the header, rows not read" if self.columns else "header not read"
            return [
                f"DATA={shlex.quote(where.replace('$', '$$'))}",
                *([] if table.has_header else ["HEADER=no"]),
            ], f"{line}; {seen}"
        if table.path or table.kind not in ("csv", "parquet", "table", "json", "ndjson"):
            return ["DATA=..."], f"{line} `make adopt` does not read this kind of file. {WRITE}"
        cause = "The table is not in the repository." if table.address else "The path is computed when the code runs."
        return ["DATA=..."], f"{line} {cause} Name the place of the table."

    def _renames(self) -> list[str]:
        rows = []
        for rename in self.tables.renames:
            columns = self.columns if self.table in rename.reads or not rename.reads else ()
            positions = zip(columns, rename.positions, strict=True) if len(columns) == len(rename.positions) else ()
            for old, new in [*((old, new) for new, old in rename.names.items()), *positions]:
                rows += [(self.code(old), self.code(new), rename.source.location(rename.line))] if old != new else []
        note = "The project uses the names of the table. To keep yours, rename them in `read` of `source.py`."
        head = ("table", "old code", "line")
        return ["## Renamed columns", "", note, "", *self._table(head, rows)] if rows else []

    def _model(self) -> list[str]:
        if not self.models:
            return []
        model, *others = self.models
        rows = [(self.code(name), self.code(repr(value))) for name, value in model.params.items()]
        rows += [(self.code(name), "computed when the code runs") for name in model.computed]
        rows += [(self.code(name), f"tried: {', '.join(map(repr, values))}") for name, values in model.grid.items()]
        places = [f"{other.name}, {other.source.location(other.line)}" for other in others]
        line = self._line(model.source, model.line) + self._others(places, "Also in the code")
        body = ["## Estimator", "", line, ""]
        body += self._table(("hyperparameter", "value"), rows) if rows else []
        note = "To use it, replace `model.py` after `make adopt`. If no value is tried, set `search.trials: 1`."
        text = "\n".join(map(self.hidden.clean, model_text(model).rstrip().split("\n")))
        return [*body, note, "", "```python", text, "```", ""]

    def _packages(self) -> list[str]:
        listed = packages.listed(self.old)
        imported = packages.imported(self.old, listed)
        groups = {
            "`uv add` for the first champion": set(self.needed),
            "part of the project": (imported | listed) & self.provided,
            "imported: `uv add` with the code that needs it": imported & listed,
            "imported, in no list of the old code: check the publisher before `uv add`": imported,
            "listed and not imported: not needed": listed,
        }
        rows, reported = [], set[str]()
        for use, names in groups.items():
            rows += [(use, ", ".join(map(self.code, sorted(names - reported))))] if names - reported else []
            reported |= names
        return ["## Packages", "", *self._table(("use", "packages"), rows)] if rows else []

    def _warnings(self) -> list[str]:
        secrets = self.hidden.secrets.items()
        rows = [(place, f"{kind}: revoke it, and put the new one into `.env`") for place, kind in secrets]
        rows += [(place, "a path of one machine: `.env`, or `make adopt`") for place in self.hidden.paths]
        rows += [(self.code(name), f"not read: {reason}") for name, reason in self.old.unread.items()]
        problems = [source for source in self.old.sources if source.problem]
        rows += [(source.location(1), f"not analyzed: {source.problem}") for source in problems]
        rows += [("license", self.note)] if self.note else []
        return ["## Warnings", "", *self._table(("where", "what"), rows)] if rows else []

    def _files(self) -> list[str]:
        """Return the tables of the guide and of the files."""
        guide = GUIDE.read_text(encoding="utf-8")
        code, homes = (re.findall(rf"^\| {head} \|.*?(?=\n\n)", guide, re.M | re.S)[0] for head in ("code", "file"))
        patterns = [(re.findall(r"`([^`]+)`", row.split("|")[1]), row.split("|")[2]) for row in homes.split("\n")]

        def home(name: str) -> str:
            names = (name.lower(), posixpath.basename(name.lower()))
            texts = [text for keys, text in patterns if any(fnmatch.filter(names, key) for key in keys)]
            return texts[0].strip() if texts else "your decision"

        sizes: dict[str, list[int]] = {}
        groups: dict[str, list[str]] = {}
        for source in self.old.sources:
            sizes.setdefault(source.file, []).append(len(source.lines))
        for name in self.old.others:
            pattern = posixpath.join(posixpath.dirname(name), f"*{posixpath.splitext(name)[1]}")
            groups.setdefault(pattern, []).append(name)
        rows = [(name, f"{sum(lines)} lines of code in {len(lines)} cells") for name, lines in sizes.items()]
        for pattern, names in groups.items():
            rows += [(name, f"{self.old.others[name]:,} bytes") for name in names if len(names) < SAME_KIND]
            total = sum(self.old.others[name] for name in names)
            rows += [(pattern, f"{len(names):,} files, {total:,} bytes")] if len(names) >= SAME_KIND else []
        cells = [(self.code(name), size.replace(" in 1 cells", ""), home(name)) for name, size in sorted(rows)]
        files = self._table(("file", "size", "goes to"), cells)
        return ["## What goes where", "", code, "", "## Files", "", *files]

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        """Return a table of Markdown, whose cells can contain a `|`."""
        cells = [[self.hidden.clean(cell).replace("|", "\\|") for cell in row] for row in rows[:MAX_ROWS]]
        more = [f"{len(rows) - MAX_ROWS:,} more rows are not shown.", ""] if len(rows) > MAX_ROWS else []
        return [*(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)), "", *more]
