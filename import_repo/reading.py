"""Read the files of a repository: code as syntax trees, settings as text, everything else by name and size."""

import ast
import functools
import io
import json
import os
import re
import stat
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_CODE_BYTES, MAX_NOTEBOOK_BYTES = 2 << 20, 100 << 20  # longer code is data; images are part of a notebook
MAX_TEXT_BYTES, MAX_TEXTS = 256 << 10, 2_000  # of files of settings, which are searched for secrets and packages
TOOL_FOLDERS = frozenset(
    {"__pycache__", "node_modules", "site-packages", ".git", ".venv", ".idea", ".vscode", ".pytest_cache",
     ".ruff_cache", ".mypy_cache", ".ipynb_checkpoints", ".cache", ".dvc", ".tox", ".nox", ".hg", ".svn", "htmlcov"}
)  # fmt: skip
TEXT = re.compile(r"\.(?:ya?ml|json|toml|cfg|ini|conf|sh|properties|txt|sql)$|(?:^|/)\.env[^/]*$", re.I)
OTHER_LANGUAGE = "is not Python"
MAGIC = re.compile(r"^\s*(?:[%!]|\?|[\w, ]+=\s*[%!]|[\w.]+\?\??\s*$)")
PYTHON_2 = re.compile(r"^\s*(?:print\s+[^\s(=]|exec\s+[\"'])|^\s*except\s+[\w.]+\s*,\s*\w+\s*:", re.M)


@dataclass(frozen=True, eq=False)
class Source:
    """A file of Python (`cell` is 0), or a code cell of a notebook (counted from 1), with its top-level statements."""

    file: str
    cell: int
    text: str
    body: tuple[ast.stmt, ...] = ()
    problem: str = ""

    @functools.cached_property
    def lines(self) -> list[str]:
        return self.text.removesuffix("\n").split("\n")

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        return [node for statement in self.body for node in ast.walk(statement)]

    def location(self, line: int) -> str:
        """Return the position of a line as a reader finds it."""
        return f"{self.file}, cell {self.cell}, line {line}" if self.cell else f"{self.file}, line {line}"


@dataclass
class Repository:
    """The content of a folder: code, sizes of other files, reasons of what was not read, texts of settings."""

    root: Path
    sources: list[Source] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read(root: Path) -> Repository:
    """Read a repository without executing, importing or writing anything in it. Links are not followed."""
    repository = Repository(root)

    def failed(error: OSError) -> None:
        folder = Path(error.filename).relative_to(root).as_posix()
        repository.unread[f"{folder}/"] = f"cannot be read ({error.strerror})"

    for folder, folders, names in os.walk(root, onerror=failed):
        reasons = {name: _skip_reason(Path(folder, name), root) for name in sorted(folders)}
        folders[:] = [name for name, reason in reasons.items() if reason is None]
        for name in sorted(names):
            path = Path(folder, name)
            try:
                reasons[name] = _link_reason(path, root) if path.is_symlink() else _add(path, root, repository)
            except OSError as error:
                reasons[name] = f"cannot be read ({error.strerror})"
        for name, reason in reasons.items():
            if reason:
                repository.unread[Path(folder, name).relative_to(root).as_posix() + "/" * (name not in names)] = reason
    return repository


def _skip_reason(folder: Path, root: Path) -> str | None:
    """Return why a folder is skipped; empty for folders of tools, None for a folder that is read."""
    name = folder.name
    if folder.is_symlink():
        return _link_reason(folder, root)
    if name in TOOL_FOLDERS or name.endswith(".egg-info") or (folder / "pyvenv.cfg").exists():
        return ""
    if name in ("build", "dist", "mlruns", "wandb") or (name.startswith(".") and name != ".github"):
        return "is hidden, or the output of a tool"
    is_repository = (folder / ".git").exists()
    return "is another repository: import it separately, with REPOSITORY=..." if is_repository else None


def _link_reason(path: Path, root: Path) -> str:
    try:
        is_inside = path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return "is a link to nothing"
    return f"is a link {'within' if is_inside else 'out of'} the repository"


def _add(path: Path, root: Path, repository: Repository) -> str:
    """Add a file; return the reason if it cannot be read."""
    name, status, suffix = path.relative_to(root).as_posix(), path.lstat(), path.suffix.lower()
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"  # opening a pipe would block
    if suffix == ".ipynb":
        if size > MAX_NOTEBOOK_BYTES:
            return f"has {size >> 20} MB; clear its outputs in a copy and import the copy"
        try:
            repository.sources += notebook(name, path.read_bytes())
        except ValueError as error:
            return f"cannot be read as a notebook: {error}"
    elif suffix == ".py":
        if size > MAX_CODE_BYTES:
            return f"has {size >> 20} MB, which is data"
        data = path.read_bytes()
        try:
            text = data.decode(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
        except (SyntaxError, ValueError, LookupError):
            text = data.decode("cp1252", errors="replace")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        repository.sources.append(Source(name, 0, text, *parse(text)))
    else:
        repository.others[name] = size
        if TEXT.search(name) and size <= MAX_TEXT_BYTES and len(repository.texts) < MAX_TEXTS:
            repository.texts[name] = path.read_bytes().decode("utf-8", errors="replace")
    return ""


def parse(text: str, cell: bool = False) -> tuple[tuple[ast.stmt, ...], str]:
    """Return the statements of a text, or the reason why it cannot be parsed."""
    flags = ast.PyCF_ONLY_AST | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if cell else 0)
    if len(text) > MAX_CODE_BYTES:
        return (), "has more than 2 MB, which is data"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings of the old code
            return tuple(compile(text, "<repository>", "exec", flags=flags, dont_inherit=True).body), ""
    except SyntaxError as error:
        line = f" in line {error.lineno}" if error.lineno else ""
        return (), "is Python 2" if PYTHON_2.search(text) else f"has a syntax error{line}"
    except (ValueError, RecursionError, MemoryError):
        return (), "cannot be parsed: null bytes, or nested too deeply"


def notebook(name: str, data: bytes) -> list[Source]:
    """Return the code cells of a notebook. Another file is a ValueError."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON in UTF-8") from error
    cells = content.get("cells") if isinstance(content, Mapping) else None
    if not isinstance(cells, list):
        raise ValueError("it has no cells")
    is_python, sources = _is_python(content.get("metadata")), []
    for number, cell in enumerate(cells, start=1):
        if isinstance(cell, Mapping) and cell.get("cell_type") == "code":
            given = cell.get("source", "")
            text = ("".join(map(str, given)) if isinstance(given, list) else str(given)).replace("\r\n", "\n")
            sources.append(Source(name, number, text, *(_cell(text) if is_python else ((), OTHER_LANGUAGE))))
    return sources


def _is_python(metadata: Any) -> bool:
    for section, key in (("kernelspec", "language"), ("language_info", "name")):
        about = metadata.get(section) if isinstance(metadata, Mapping) else None
        if isinstance(about, Mapping) and about.get(key):
            return str(about[key]).lower().startswith("python")
    return True


def _cell(text: str) -> tuple[tuple[ast.stmt, ...], str]:
    """Parse a cell. Lines of IPython are replaced by `pass`, so that the others keep their line numbers."""
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("%%") and not re.match(r"%%(?:time|timeit|capture|prun)\b", first):
        return (), "is a cell of IPython"
    body, problem = parse(text, cell=True)
    if problem:
        lines = [re.sub(r"\S.*", "pass", line) if MAGIC.match(line) else line for line in text.split("\n")]
        body, problem = parse("\n".join(lines), cell=True)
    return body, problem
