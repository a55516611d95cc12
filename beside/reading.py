"""What is in a repository, by reading alone: its code as text and as trees, and the names of what was not read."""

from __future__ import annotations

import ast
import functools
import io
import json
import os
import re
import stat
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGEST_CODE = 2 << 20  # bytes; a longer file of Python is data
LARGEST_NOTEBOOK = 100 << 20  # pictures are part of it
LARGEST_TEXT = 256 << 10  # of a file of settings
QUIET = frozenset(
    {"__pycache__", "node_modules", "site-packages", ".git", ".venv", ".idea", ".vscode", ".pytest_cache", ".mypy_cache", ".ruff_cache",
     ".ipynb_checkpoints", ".cache", ".dvc", ".tox", ".nox", ".eggs", ".hg", ".svn", ".tools", ".prefect"}
)  # fmt: skip
"""Folders of tools, which nobody needs to hear of."""
MADE = frozenset({"build", "dist", "mlruns", "wandb", "htmlcov", "lightning_logs"})
DATA = frozenset(
    {".csv", ".tsv", ".tab", ".gz", ".zst", ".bz2", ".zip", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".xlsx", ".xls", ".feather",
     ".arrow", ".hdf5", ".npy", ".npz", ".db", ".sqlite", ".sqlite3", ".duckdb", ".sas7bdat", ".dta", ".sav"}
)  # fmt: skip
MODELS = frozenset(
    {
        ".pkl",
        ".pickle",
        ".joblib",
        ".onnx",
        ".pt",
        ".pth",
        ".h5",
        ".keras",
        ".cbm",
        ".model",
        ".pmml",
        ".skops",
        ".ckpt",
        ".safetensors",
    }
)
SETTINGS = frozenset(
    {".env", ".yml", ".yaml", ".json", ".toml", ".cfg", ".ini", ".conf", ".sh", ".properties", ".txt", ".sql"}
)
FOREIGN = "is not Python"
MAGIC = re.compile(r"^\s*(?:[%!]|\?|.*[^\s#]\?\??\s*$)")


@dataclass(frozen=True)
class Source:
    """A text of code: a file of Python, or a cell of a notebook.

    Attributes:
        file: Its path in the repository, with slashes.
        cell: The place of the cell, counted from 1 over all cells; 0 for a file.
        text: The code.
        body: Its top-level statements; empty where it does not parse.
        fault: Why a person has to look: what does not parse, or is no Python.
    """

    file: str
    cell: int
    text: str
    body: tuple[ast.stmt, ...] = ()
    fault: str = ""

    @functools.cached_property
    def lines(self) -> list[str]:
        return self.text.removesuffix("\n").split("\n")  # as Python counts them

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """Everything in its trees."""
        return [node for statement in self.body for node in ast.walk(statement)]

    def place(self, line: int) -> str:
        """How a person finds a line."""
        return f"{self.file}, cell {self.cell}, line {line}" if self.cell else f"{self.file}, line {line}"


@dataclass
class Repository:
    """What was found.

    Attributes:
        root: The folder.
        sources: The code, files in order of their names, cells in their order.
        notes: By notebook, how many cells are text.
        others: Files that are no code, with their sizes in bytes.
        unread: What was not read, with the reason.
        texts: Files of settings, for secrets in them.
        asides: Sentences about files that were read, but not as they stand.
    """

    root: Path
    sources: list[Source] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    asides: list[str] = field(default_factory=list)

    def modules(self) -> set[str]:
        """The names under which the repository imports its own code."""
        parts = {part for source in self.sources if not source.cell for part in Path(source.file).parent.parts}
        return parts | {Path(source.file).stem for source in self.sources if not source.cell}


def read(root: Path) -> Repository:
    """Read a repository: no file of it is opened for writing, none is imported or run."""
    found = Repository(root)
    for path in _files(root, found):
        name = path.relative_to(root).as_posix()
        try:
            _take(path, name, found)
        except OSError as error:
            found.unread[name] = f"cannot be read ({error.strerror})"
    return found


def _files(root: Path, found: Repository) -> Iterator[Path]:
    """Regular files, in order. Links are named and not followed, so that nothing is read twice, or from elsewhere."""
    for folder, folders, files in os.walk(root, onerror=lambda error: _unread(error, found)):
        here = Path(folder)
        for name in sorted(folders):
            reason = _skipped(here / name, root)
            if reason:
                folders.remove(name)
                if reason != "-":
                    found.unread[(here / name).relative_to(root).as_posix() + "/"] = reason
        folders.sort()
        for name in sorted(files):
            path = here / name
            if path.is_symlink():
                found.unread[path.relative_to(root).as_posix()] = _link(path, root)
            elif stat.S_ISREG(path.lstat().st_mode):
                yield path
            else:  # a pipe would keep us waiting
                found.unread[path.relative_to(root).as_posix()] = "is no regular file"


def _unread(error: OSError, found: Repository) -> None:
    found.unread[Path(error.filename).relative_to(found.root).as_posix() + "/"] = f"cannot be read ({error.strerror})"


def _skipped(folder: Path, root: Path) -> str:
    """Why a folder is passed by; a dash where nobody needs to hear of it."""
    if folder.is_symlink():
        return _link(folder, root)
    name = folder.name
    if (
        name in QUIET
        or name.endswith(".egg-info")
        or (folder / "pyvenv.cfg").exists()
        or (folder / "conda-meta").exists()
    ):
        return "-"
    if name in MADE:
        return "is made by tools; nobody looked into it"
    if name.startswith(".") and name != ".github":
        return "is hidden; nobody looked into it"
    if (folder / ".git").exists():
        return "is a repository of its own: propose for it apart, with REPOSITORY=..."
    return ""


def _link(path: Path, root: Path) -> str:
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # it leads to itself
        return "is a link that leads nowhere"
    if not path.exists():
        return "is a link that leads nowhere"
    return (
        "is a link within the repository, to what is read there"
        if inside
        else "is a link that leads out of the repository"
    )


def _take(path: Path, name: str, found: Repository) -> None:
    size, kind = path.stat().st_size, path.suffix.lower()
    if kind == ".py" or (not kind and _is_script(path)):
        if size > LARGEST_CODE:
            found.sources.append(
                Source(name, 0, "", fault=f"{size >> 20} MB are data rather than code; nobody read it")
            )
        else:
            found.sources.append(python(name, path.read_bytes(), found.asides))
    elif kind == ".ipynb":
        if size > LARGEST_NOTEBOOK:
            found.unread[name] = f"a notebook of {size >> 20} MB; clear its outputs and propose again"
            return
        try:
            sources, notes = notebook(name, path.read_bytes())
        except ValueError as error:
            found.unread[name] = f"cannot be read as a notebook: {error}"
            return
        found.sources += sources
        found.notes[name] = notes
    else:
        found.others[name] = size
        if (kind in SETTINGS or path.name.startswith(".env")) and size <= LARGEST_TEXT:
            found.texts[name] = path.read_bytes().decode("utf-8", errors="replace")


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return b"python" in file.readline(80) if file.read(2) == b"#!" else False


def python(name: str, data: bytes, asides: list[str]) -> Source:
    """A file of Python, decoded as Python would."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        text = data.decode("cp1252", errors="replace")
        asides.append(f"{name} is not UTF-8 and does not say what it is; it was read as cp1252 (Western Europe).")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    body, fault = _parsed(text)
    return Source(name, 0, text, body, fault)


def _parsed(text: str, cell: bool = False) -> tuple[tuple[ast.stmt, ...], str]:
    """The statements, or why there are none."""
    flags = ast.PyCF_ONLY_AST | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if cell else 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd backslash is not our business
            return tuple(compile(text, "<old>", "exec", flags=flags, dont_inherit=True).body), ""
    except SyntaxError as error:
        old = re.search(r"^\s*(?:print\s+[^\s(=]|exec\s+[\"'])|except\s+\w+\s*,\s*\w+\s*:", text, re.M)
        why = (
            "it is Python 2; propose again once it runs on Python 3"
            if old
            else error.msg + (f", line {error.lineno}" if error.lineno else "")
        )
        return (), f"does not parse: {why}"
    except (ValueError, RecursionError, MemoryError) as error:
        return (), f"does not parse: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def notebook(name: str, data: bytes) -> tuple[list[Source], int]:
    """The code cells of a notebook, and the number of the others.

    Raises:
        ValueError: If it is none; the text says how.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON{f', line {error.lineno}' if hasattr(error, 'lineno') else ''}") from error
    cells = _cells(content)
    python = _language(content)
    found = []
    for place, cell in enumerate(cells, start=1):
        if not isinstance(cell, Mapping) or cell.get("cell_type") != "code":
            continue
        given = cell.get("source", cell.get("input", ""))
        text = "".join(map(str, given)) if isinstance(given, list) else str(given)
        text = text.replace("\r\n", "\n")
        found.append(_cell(name, place, text) if python else Source(name, place, text, fault=FOREIGN))
    return found, len(cells) - len(found)


def _cells(content: Any) -> list[Any]:
    if not isinstance(content, Mapping):
        raise ValueError("it has no cells")
    sheets = content.get("worksheets")  # as notebooks were before 2015
    if isinstance(sheets, list) and sheets and isinstance(sheets[0], Mapping):
        content = {"cells": [cell for sheet in sheets for cell in sheet.get("cells", [])]}
    if not isinstance(content.get("cells"), list):
        raise ValueError("it has no cells")
    return list(content["cells"])


def _language(content: Any) -> bool:
    about = content.get("metadata")
    kernel = about.get("kernelspec", {}) if isinstance(about, Mapping) else {}
    return str(kernel.get("language") or "python").lower() == "python" if isinstance(kernel, Mapping) else True


def _cell(name: str, place: int, text: str) -> Source:
    """A cell; what is magic in it is said, and the lines around are read all the same."""
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("%%"):
        timed = re.match(r"%%(time|timeit|capture|prun)\b", first)
        rest = re.sub(r"^(\s*)%%[^\n]*", r"\1", text, count=1) if timed else ""
        return Source(name, place, text, _parsed(rest, cell=True)[0], f"begins with {first.split()[0]}")
    body, fault = _parsed(text, cell=True)
    if not fault:
        return Source(name, place, text, body)
    magic = [line for line in text.split("\n") if MAGIC.match(line)]
    if not magic:
        return Source(name, place, text, fault=fault)
    # A line keeps its number and its indent, so that what is left of the cell is found again.
    rest = "\n".join(re.sub(r"\S.*", "pass", line) if MAGIC.match(line) else line for line in text.split("\n"))
    count = f"{len(magic)} lines are" if len(magic) > 1 else "a line is"
    return Source(name, place, text, _parsed(rest, cell=True)[0], f"{count} for the notebook, not for Python")
