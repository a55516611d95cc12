"""PROPOSAL.md: what to type first, what that rests on, and for each piece of the old code the room that it belongs in."""

from __future__ import annotations

import functools
import os
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .facts import ID, WHEN, Facts, Found, Read, column_of
from .hidden import Hidden, quoted
from .model import FIT_FOR, model_text, module_of
from .packages import OTHER_NAMES, SAME_NAMES, STANDARD, distribution, top
from .purposes import ROOMS, Part, Piece, needed
from .reading import DATA, MODELS, Repository, Source

SHOWN = 30  # lines of a list that may be long
TABLE = "table.parquet"  # what the old code writes where its table is of no kind that `make adopt` reads


@dataclass(frozen=True)
class Known:
    """All that the proposal is written from.

    Attributes:
        repository, facts, hidden, pieces: What was read.
        required: Packages that its lists name.
        into: The new project.
        package: Its package.
        provided: Packages that the platform brings, as indexes compare them.
        names: By file, what its short names stand for.
        licence: A sentence about the old licence, if somebody has to decide.
    """

    repository: Repository
    facts: Facts
    hidden: Hidden
    required: Mapping[str, str]
    pieces: Sequence[Piece]
    into: Path
    package: str
    provided: frozenset[str]
    names: Mapping[str, Mapping[str, str]]
    licence: str = ""

    @property
    def old(self) -> str:
        """The way from the new project to the old repository."""
        return os.path.relpath(self.repository.root.resolve(), self.into.resolve()).replace(os.sep, "/")

    @functools.cached_property
    def calls(self) -> dict[str, list[tuple[str, str]]]:
        """By the name of what is called, the names and the places of the pieces that do."""
        found: dict[str, list[tuple[str, str]]] = {}
        for piece in self.pieces:
            text = "\n".join(piece.source.lines[piece.first - 1 : piece.last])
            for name in dict.fromkeys(re.findall(r"\b(\w+)\s*\(", text)):
                found.setdefault(name, []).append((piece.name, piece.source.place(piece.first)))
        return found

    def quote(self, source: Source, line: int) -> str:
        lines = source.lines
        return quoted(lines[line - 1] if 0 < line <= len(lines) else "", self.hidden.values)


def write(known: Known) -> str:
    """The whole text."""
    parts = [
        _opening(known),
        *_commands(known),
        *_packages(known),
        *_model(known),
        *_params(known),
        *_look_out(known),
        *_pieces(known),
        *_others(known),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _opening(known: Known) -> str:
    looks = sum(bool(piece.source.fault) or piece.purposes[0] in ("", "-") for piece in known.pieces)
    look = f", {looks} of them to look at yourself" if looks else ""
    return (
        f"# Proposal: {_name(known.repository.root.resolve().name)} becomes {_name(known.into.name)}\n\n"
        f"Made by reading `{_safe(known.old)}`; nothing in it was run or changed. It has {len(known.pieces)} pieces of code{look}. This file is "
        "yours: tick off what has its place, delete it when all has.\n"
    )


def _name(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f`*<>\[\]]", lambda told: "\\" + told[0] if told[0] > " " else " ", text)


# ------------------------------------------------------------------------------------------------------ Commands


def _commands(known: Known) -> list[str]:
    facts, read = known.facts, known.facts.table
    header = read.header if read else ()
    target = facts.target
    name = (column_of(target.value, header) or target.value) if target else ""
    data, said = _data(known)
    words, why = [*data, f"TARGET={_word(name) if name else '...'}"], [said, _target_said(known, read, target, name)]
    for role, found in (("TIME", facts.times), ("ID", facts.ids)):
        chosen = facts.chosen(found)
        if chosen:
            words.append(f"{role}={_word(column_of(chosen.value, header) or chosen.value)}")
        why.append(_role_said(known, role, chosen, found))
    if facts.problem == "regression":
        words.append("PROBLEM=regression")
    told = f"{facts.problem}, because of {facts.why_problem}." if facts.problem else ""
    why.append(f"**PROBLEM**: {told or 'nothing tells; `make adopt` sees it from the values of the target.'}")
    add = _sorted_packages(known)["add"]
    lines = ["    make setup", f"    make adopt {' '.join(words)}"]
    lines += [f"    uv add {' '.join(add)}"] if add else []
    said = "" if name and data != [f"DATA={TABLE}"] else "The second line waits for you: see what is missing below."
    return [
        "## Type this first, in this folder", "", *lines, "    make run", "", *([said, ""] if said else []), *(f"- {one}" for one in why), "",
    ]  # fmt: skip


def _data(known: Known) -> tuple[list[str], str]:
    """DATA and QUERY, and why; where there is no such table yet, the name of one that the old code is to write."""
    read, target = known.facts.table, known.facts.target
    missing = bool(read and read.header and target and not column_of(target.value, read.header))
    if read is None or not read.adoptable or missing:
        return [f"DATA={TABLE}"], _no_table(known, read, target, missing)
    scheme = read.what.partition(":///")[0] + ":///" if read.query and read.path else ""
    place = f"{scheme}{known.old}/{read.path}" if read.path else read.what
    words = [f"DATA={_word(place)}", *([f"QUERY={_word(read.query)}"] if read.query else [])]
    return words, f"**DATA**: {_because(known, read.source, read.line)}{_header_said(read)}"


def _word(text: str) -> str:
    """A word for the shell and for make."""
    return shlex.quote(re.sub(r"[\x00-\x1f\x7f]", " ", text).replace("$", "$$"))


def _because(known: Known, source: Source, line: int) -> str:
    return f"{source.place(line)}: {known.quote(source, line)}"


def _header_said(read: Read) -> str:
    if read.header:
        return f"; its header has {len(read.header)} columns, its rows were not read."
    return "; what is in it was not looked at."


def _no_table(known: Known, read: Read | None, target: Found | None, missing: bool) -> str:
    tail = f'Let the old code write it once: `.to_parquet("{TABLE}")`'
    if read is None:
        others = [
            name for name in known.repository.others if name.lower().endswith((".csv", ".tsv", ".parquet", ".jsonl"))
        ]
        seen = f" The repository holds {', '.join(f'`{name}`' for name in others[:5])}." if others else ""
        return f"**DATA**: no line reads a table.{seen} Name a file, `s3://`, or a database: `docs/how-to.md` of the template lists the kinds."
    at = _because(known, read.source, read.line)
    if missing and target is not None:
        return (
            f"**DATA**: `{_safe(target.value)}` is no column of the table that is read ({at}); the old code computes it. {tail} where the "
            f"column is there, before rows are split ({target.source.place(target.line)}). Later put that computation into `read` of `io/source.py`, "
            "so that new rows come with it."
        )
    if read.what.startswith(("/", "~")) or re.match(r"[A-Za-z]:/", read.what):
        return (
            f"**DATA**: a path outside the repository, {read.source.place(read.line)}; name it in place of `{TABLE}`."
        )
    if read.kind.startswith("sql"):
        return f'**DATA**: a query ({at}). `DATA=postgresql://user@host/base QUERY="SELECT ..."` reads it, the password from `.env`; `sqlite:///` and `duckdb:///` too.'
    if read.kind in ("csv", "parquet", "table", "json", "ndjson") and not read.path:
        where = (
            "its path is put together while the code runs"
            if not read.what
            else "no file of that name is in the repository"
        )
        return f"**DATA**: {at}: {where}; name it in place of `{TABLE}`."
    return f"**DATA**: {at}: `make adopt` does not read this kind. {tail} after that line."


def _target_said(known: Known, read: Read | None, target: Found | None, name: str) -> str:
    if target is None:
        header = (
            f" The columns are {', '.join(f'`{_safe(one)}`' for one in read.header[:40])}."
            if read and read.header
            else ""
        )
        return f"**TARGET**: no line takes a target from the inputs; name the column that is to be predicted.{header}"
    said = f"**TARGET**: {_because(known, target.source, target.line)}"
    if read and read.header and column_of(target.value, read.header):
        said += f"; the table calls it `{_safe(name)}`" if name != target.value else "; the table has that column"
    others = list(dict.fromkeys(one.value for one in known.facts.targets if one.value != target.value))
    return f"{said}.{f' Other candidates: {_listed(others)}.' if others else ''}"


def _role_said(known: Known, role: str, chosen: Found | None, found: Sequence[Found]) -> str:
    header = known.facts.table.header if known.facts.table else ()
    like = [one for one in header if (ID if role == "ID" else WHEN).search(one)]
    names = list(dict.fromkeys([*(one.value for one in found), *like]))
    meant = {
        "TIME": "orders the rows: it has to be known when the answer is needed",
        "ID": "names a row: no value twice",
    }[role]
    if chosen:
        others = [name for name in names if not column_of(name, [chosen.value])]
        extra = f" Other candidates: {_listed(others)}." if others else ""
        return f"**{role}**: {_because(known, chosen.source, chosen.line)} ({chosen.why}). It {meant}.{extra}"
    return f"**{role}**: left out; {f'candidates are {_listed(names)}' if names else 'no line names one'}. It {meant}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{_safe(name)}`" for name in names[:8]) + (" and more" if len(names) > 8 else "")


def _safe(text: str) -> str:
    return re.sub(r"[`\x00-\x1f]", " ", text)


# ------------------------------------------------------------------------------------------------------ Packages


def _wanted(known: Known) -> dict[str, list[str]]:
    """What is imported and is neither Python's, nor the repository's own, nor the platform's: by package its imports."""
    own = known.repository.modules()
    found: dict[str, list[str]] = {}
    for name in sorted(known.facts.imports):
        first = top(name)
        if first in STANDARD or first in own or not first:
            continue
        package = _package(first)
        if package not in known.provided:
            found.setdefault(package, []).append(first)
    return found


def _package(name: str) -> str:
    if name in OTHER_NAMES:
        return distribution(OTHER_NAMES[name])
    return distribution(name.split(".")[0] if not name.startswith("google.") else name.replace(".", "-"))


def _uses(known: Known) -> dict[str, set[str]]:
    """By package the purposes of the lines that speak of it; none for one that is imported and not used."""
    spoken: dict[str, set[str]] = {}
    for piece in known.pieces:
        names = known.names.get(piece.source.file, {})
        for part in piece.parts:
            for word in _words(piece.source, part):
                spoken.setdefault(top(names.get(word, "")), set()).add(part.purpose)
    return {
        package: {purpose for module in modules for purpose in spoken.get(module, set())}
        for package, modules in _wanted(known).items()
    }


def _words(source: Source, part: Part) -> set[str]:
    """The words of some lines, without those of imports."""
    lines = source.lines[part.first - 1 : part.last]
    return set(re.findall(r"\w+", "\n".join(re.sub(r"^\s*(?:import|from)\s[^;]*", "", line) for line in lines)))


def _sorted_packages(known: Known) -> dict[str, list[str]]:
    """Packages to add, those that serve, those that the platform replaces, those that are not used, those that nobody knows."""
    kinds: dict[str, list[str]] = {"add": [], "serve": [], "gone": [], "idle": [], "unknown": []}
    wanted = _wanted(known)
    best = known.facts.estimator
    pasted = module_of(best.name) if best else ""  # core/model.py imports it
    for package, purposes in sorted(_uses(known).items()):
        told = package in known.required or any(name in OTHER_NAMES or name in SAME_NAMES for name in wanted[package])
        moving = {purpose for purpose in purposes if needed(purpose)}
        kind = (
            "add"
            if package == pasted
            else "idle"
            if not purposes
            else "gone"
            if not moving
            else "serve"
            if moving == {"serves"}
            else "add"
            if told
            else "unknown"
        )
        kinds[kind].append(package)
    return kinds


def _packages(known: Known) -> list[str]:
    kinds = _sorted_packages(known)
    imported = {_package(top(name)) for name in known.facts.imports}
    listed = sorted(name for name in known.required if name not in imported and name not in known.provided)
    said = []
    if kinds["add"]:
        said.append(
            "`uv add` takes today's versions, not those of the old lists: what fits together is the platform's known-good set."
        )
    if kinds["serve"]:
        said.append(f"Only for what answers requests: {_listed(kinds['serve'])}. `uv add` it with that code.")
    if kinds["gone"]:
        said.append(f"No longer needed, since the platform does what it was used for: {_listed(kinds['gone'])}.")
    if kinds["idle"]:
        said.append(f"Imported and not used: {_listed(kinds['idle'])}.")
    if kinds["unknown"]:
        said.append(
            f"Imported, and in no list of packages: {_listed(kinds['unknown'])}. A package of that name may be somebody else's: look before you install it."
        )
    if listed:
        said.append(f"Listed and imported nowhere: {_listed(listed)}. Leave them out until something asks for them.")
    return ["## Packages", "", *(f"- {one}" for one in said), ""] if said else []


# --------------------------------------------------------------------------------------------------------- Model


def _model(known: Known) -> list[str]:
    best = known.facts.estimator
    if best is None:
        libraries = sorted(
            {top(name) for name in known.facts.imports} & {"torch", "tensorflow", "keras", "statsmodels", "prophet"}
        )
        none = f"No estimator with `fit` and `predict` was found. What {' and '.join(libraries)} does goes into a class that has both, and `build_model` in `core/model.py` returns that."
        return ["## The model", "", none, ""] if libraries else []
    others = [f"{one.name} ({one.source.place(one.line)})" for one in known.facts.estimators if one is not best]
    said = ["## The model", "", f"{_because(known, best.source, best.line)}"]
    if others:
        said.append(f"Tried as well: {'; '.join(others[:8])}{' and more' if len(others) > 8 else ''}.")
    if not FIT_FOR.search(best.name) or not module_of(best.name):
        return [
            *said,
            "",
            "It does not fit and predict as scikit-learn's do: wrap it in a class that does, and let `build_model` in `core/model.py` return that.",
            "",
        ]
    if best.computed:
        said.append(f"Computed, so look there: {_listed(best.computed)}.")
    said += [
        "`make adopt` writes a `core/model.py` of boosting and a linear model. To begin with yours instead, paste this over it, after `make adopt`:"
    ]
    return [*said, "", "```python", model_text(best, known.facts.grid).rstrip(), "```", ""]


# -------------------------------------------------------------------------------------------------------- Params


def _params(known: Known) -> list[str]:
    facts = known.facts
    seen: dict[str, Found] = {}
    for one in facts.params:
        seen.setdefault(one.value.split(":")[0], one)
    metric = next(
        (one for one in facts.metrics if (one.value in ("mae", "rmse", "r2")) == (facts.problem == "regression")), None
    )
    if metric:
        seen["gate.metric"] = Found(f"gate.metric: {metric.value}", metric.source, metric.line)
    if not seen:
        return []
    said = [f"- `{one.value}` ({one.source.place(one.line)})" for one in seen.values()]
    note = "`split.test_share` is for tables without TIME; with it the newest days judge (`split.test_days`)."
    return [
        "## What the code says in words of params.yaml",
        "",
        *said,
        *(["", note] if "split.test_share" in seen else []),
        "",
    ]


# ------------------------------------------------------------------------------------------------------ Look out


def _look_out(known: Known) -> list[str]:
    hidden, repository = known.hidden, known.repository
    said = []
    if hidden.secrets:
        said.append(
            "**Secrets** stand in the old code, and in its history. Take them back at their issuer; new ones go into `.env`. Their values are not repeated here:"
        )
        said += _some([f"  - {where}: {_safe(what)}" for where, what in hidden.secrets.items()])
    if hidden.paths:
        said.append("**Paths of one machine** (name the place in `.env` or in `make adopt` instead):")
        said += _some([f"  - {where}" for where in hidden.paths])
    if repository.unread:
        said.append("**Not read**:")
        said += _some([f"  - `{_safe(name)}` {reason}" for name, reason in repository.unread.items()])
    said += repository.asides
    said += [known.licence] if known.licence else []
    return ["## Look out", "", *(one if one.startswith("  ") else f"- {one}" for one in said), ""] if said else []


def _some(lines: Sequence[str]) -> list[str]:
    return [*lines[:SHOWN], *([f"  - and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]


# -------------------------------------------------------------------------------------------------------- Pieces


def _pieces(known: Known) -> list[str]:
    said = ["## Where the code belongs", "", *_legend(known)]
    if any(piece.source.cell for piece in known.pieces):
        said += ["Cells are counted from 1, those of text too.", ""]
    for file in dict.fromkeys([*(piece.source.file for piece in known.pieces), *known.repository.notes]):
        pieces = [piece for piece in known.pieces if piece.source.file == file]
        said += [f"### {_name(file)}", ""]
        notes = known.repository.notes.get(file, 0)
        if notes:
            cells = f"{notes} cells are" if notes > 1 else "1 cell is"
            said += [
                f"{cells} text: what explains the data or the aim belongs in `README.md`, the rest in `notebooks/`.",
                "",
            ]
        said += [line for piece in pieces for line in _piece(known, piece)]
        said.append("")
    return said


def _legend(known: Known) -> list[str]:
    """How each kind of code that occurs goes into its room, said once."""
    there = {part.purpose for piece in known.pieces for part in piece.parts}
    rows = [f"| {what} | {room} | {how} |" for purpose, (what, room, how) in ROOMS.items() if purpose in there and how]
    if not rows:
        return []
    return [
        f"Rooms without a folder stand in `src/{known.package}/`. What starts with \"not needed\" stays behind: the module that it names does it.", "",
        "| code that | belongs in | how |", "|---|---|---|", *rows, "",
    ]  # fmt: skip


def _piece(known: Known, piece: Piece) -> list[str]:
    """A box to tick, and where a piece does several things, a line for each."""
    source, purposes = piece.source, piece.purposes
    called = f" `{piece.name}`" if piece.name else ""
    where = f"cell {source.cell}" if source.cell else _lines(piece.first, piece.last)
    if source.fault:
        said = [
            f"- [ ] **{where}**{called} look yourself: {_safe(source.fault)}; {known.quote(source, _telling_line(source))}"
        ]
        return [*said, *(_part(known, source, part) for part in piece.parts if part.purpose not in ("", "-"))]
    if not source.text.strip() and source.cell:
        return [f"- [ ] **{where}** is empty: not needed"]
    if len(purposes) == 1:
        part = next(one for one in piece.parts if one.purpose == purposes[0])
        return [f"- [ ] **{where}**{called} {_sentence(known, source, part)}"]
    return [
        f"- [ ] **{where}**{called} does several things; take it apart:",
        *(_part(known, source, part) for part in piece.parts),
    ]


def _telling_line(source: Source) -> int:
    told = re.search(r"line (\d+)$", source.fault)
    if told:
        return int(told[1])
    for number, line in enumerate(source.lines, start=1):
        if re.match(r"\s*[%!?]|\s*print\s+[^(\s=]", line):
            return number
    return next((number for number, line in enumerate(source.lines, start=1) if line.strip()), 1)


def _part(known: Known, source: Source, part: Part) -> str:
    inside = f" in `{part.name}`" if part.name and source.cell else ""
    return f"  - {_lines(part.first, part.last)}{inside}: {_sentence(known, source, part)}"


def _sentence(known: Known, source: Source, part: Part) -> str:
    what, room, _ = ROOMS[part.purpose]
    line = known.quote(source, part.line)
    if part.purpose == "runs in order" and part.calls:
        what = f"calls {', '.join(f'`{name}`' for name in part.calls[:4])}"
    if part.purpose == "helps":
        users = [where for name, where in known.calls.get(part.name, []) if name != part.name][:3]
        room = (
            f"the room of what calls it: {', '.join(users)}"
            if users
            else "nothing here calls it: leave it until something does"
        )
    return f"{what} → {room}; {line}"


def _lines(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first}-{last}"


# -------------------------------------------------------------------------------------------------------- Others


def _others(known: Known) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for name in known.repository.others:
        kinds.setdefault(_home(name), []).append(name)
    said = []
    for home, names in sorted(kinds.items()):
        shown = ", ".join(f"`{_safe(name)}`" for name in names[:6]) + (
            f" and {len(names) - 6} more" if len(names) > 6 else ""
        )
        said.append(f"- {shown}: {home}")
    return ["## What is no code", "", *said, ""] if said else []


def _home(name: str) -> str:
    """Where a file that is no code goes."""
    base, suffix = posixpath.basename(name).lower(), posixpath.splitext(name)[1].lower()
    if base.startswith((".env", "secrets")):
        return "`.env`, which git ignores; never into git"
    if base.startswith(
        (
            "requirements",
            "environment",
            "pipfile",
            "poetry.lock",
            "uv.lock",
            "conda",
            "setup.cfg",
            "setup.py",
            "pyproject",
        )
    ):
        return "not needed: `uv add` writes what you need to `pyproject.toml`, `uv.lock` keeps the versions"
    if base.startswith("readme"):
        return "`README.md`: what the model is for, and who answers for it"
    if base.startswith(("licen", "copying", "notice")):
        return "the licence stays with the code that you take over: put it beside `README.md`"
    if name.startswith(".github/") or base.startswith(
        (".gitlab-ci", "jenkinsfile", "azure-pipelines", ".travis", "bitbucket")
    ):
        return "not needed where it tests and trains: `.github/workflows/` does it; anything else is another workflow beside"
    if base in ("dvc.yaml", "mlproject", "makefile", "justfile", "tasks.py") or suffix == ".sh":
        return "targets of your own: `local.mk`; stages of your own: `pipelines/<name>/dvc.yaml`"
    if base.startswith(("dockerfile", "docker-compose", "compose")):
        return "keep it for what serves; training needs no image"
    if suffix == ".sql":
        return '`make adopt DATA=postgresql://... QUERY="..."`, or `io/source.py`'
    if suffix in MODELS:
        return "a model that nobody can rebuild is no champion: train again with `make run`; keep the file in the old repository"
    if suffix in DATA:
        return "data: it stays where it is and is read from there; DVC keeps what was read"
    if suffix in (".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf", ".properties"):
        return "`params.yaml` for what to learn, `.env` for where things are"
    if suffix in (".md", ".rst", ".txt", ".pdf", ".docx"):
        return "`README.md`, or a folder `docs/` of your own"
    if suffix in (".png", ".jpg", ".jpeg", ".svg", ".gif", ".html"):
        return "not needed: `reports/` is made anew by each run"
    if suffix in (".r", ".rmd", ".jl", ".scala", ".java", ".js", ".ts", ".cpp", ".c"):
        return "another language: look yourself; what makes the table can be a target in `local.mk`"
    return "look yourself"
