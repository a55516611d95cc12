"""Digests of the runtime code that a stage executes, so that an edit of a docstring or a comment trains no model again.

A stage executes its own module and what it imports, directly or not, from the folders that compute. The digest is over the
syntax trees of these modules without docstrings. `run.yaml` carries the digests, and dvc.yaml names them as parameters.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import copier_mlops
from copier_mlops.data import tables

ROOT = Path(copier_mlops.__file__).parent
CACHE = Path(".cache/code_digests.json")
STAGES = {
    "ingest": "pipeline.ingest",
    "validate": "pipeline.validate",
    "features": "pipeline.features",
    "train": "pipeline.train",
    "evaluate": "pipeline.evaluate",
    "record": "lifecycle.registration",
}
"""The module of each stage, and of the step after them."""
COMPUTING = ("bundle", "contract", "data", "evaluation", "pipeline")
"""Folders whose modules decide what a stage computes. Settings, locks, progress bars and DVC do not."""
LEFT_OUT = ("pipeline.run_config", "pipeline.code_digests", "data.prediction_log", "data.deployment_logs")
"""Modules of these folders that no stage computes with."""


def digests() -> dict[str, str]:
    """Return the digest of the code of each stage: 16 hexadecimal digits."""
    raw = hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(ROOT.rglob("*.py")))).hexdigest()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged cache is made again
        kept = json.loads(CACHE.read_text(encoding="utf-8"))
        if kept["raw"] == raw and kept["stages"].keys() == STAGES.keys():
            return dict(kept["stages"])
    trees: dict[str, ast.Module] = {}
    found = {stage: _digest(sorted(modules(name, trees)), trees) for stage, name in STAGES.items()}
    tables.write_json({"raw": raw, "stages": found}, CACHE)
    return found


def modules(name: str, trees: dict[str, ast.Module] | None = None) -> set[str]:
    """Return a module and what it imports from the folders that compute, directly or not.

    Args:
        name: The module, relative to the runtime, such as `pipeline.train`.
        trees: Gets the syntax tree of each of them.
    """
    trees = {} if trees is None else trees
    found, waiting = set[str](), [name]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        if current not in trees:
            trees[current] = ast.parse(_file(current).read_bytes())
        names = _imports(trees[current])
        waiting += [one for one in names if one.partition(".")[0] in COMPUTING and one not in LEFT_OUT]
    return found


def _file(name: str) -> Path:
    path = ROOT / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of the runtime that are imported, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "copier_mlops":
            module = (node.module or "").partition(".")[2]
            names = [module, *(f"{module}.{one.name}" if module else one.name for one in node.names)]
            yield from (one for one in names if one and _file(one).is_file())


def _digest(names: list[str], trees: dict[str, ast.Module]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{code_of(trees[name])}\0".encode())
    return digest.hexdigest()[:16]


def code_of(node: ast.AST) -> str:
    """Return a syntax tree as text, without docstrings and places, and the same under each version of Python."""
    fields = []
    documented = (
        isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
    )
    for name, content in ast.iter_fields(node):
        value = content[1:] if documented and name == "body" else content
        if isinstance(value, ast.AST):
            fields.append(f"{name}={code_of(value)}")
        elif isinstance(value, list):  # an empty one may be a field that only newer versions have
            fields.append(
                f"{name}=[{','.join(code_of(one) if isinstance(one, ast.AST) else repr(one) for one in value)}]"
                if value
                else ""
            )
        elif value is not None or isinstance(node, ast.Constant):
            fields.append(f"{name}={value!r}")
    return f"{type(node).__name__}({','.join(filter(None, fields))})"
