"""What the user's own code imports, and release 2 does not have.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from layout_2 import RUNTIME


def problems(
    own: Mapping[str, str], package: str, runtime: Path, old: Path, fixtures: Path, names: Collection[str]
) -> list[str]:
    """Return one line for each name that is missing, with the file that uses it.

    Args:
        own: texts of the user's files by path, with the new names.
        package: the project's package.
        runtime: the folder that has the runtime.
        old: the project as the previous release renders it.
        fixtures: the runtime's module with the fixtures of tests.
        names: paths that release 2 renders.
    """
    found = []
    gone = {one for file in (old / "tests").rglob("*.py") for one in _fixtures(file.read_text(encoding="utf-8"))}
    there = set(_fixtures(fixtures.read_text(encoding="utf-8"))) if fixtures.is_file() else set()
    there |= {one for path, text in own.items() if path.endswith("conftest.py") for one in _fixtures(text)}
    modules = {path for path in names if path.startswith("src/")} | set(own)
    for path, text in own.items():
        tree = _parsed(path, text)
        if tree is None:
            found.append(f"{path}: Python cannot parse it, so its imports are as they were")
            continue
        missing = [*_imports(tree, package, runtime, modules), *_helpers(tree, path)]
        if path.startswith("tests/"):
            lost = gone - there - set(_fixtures(text))
            missing += [
                f"the fixture {name} of the platform's tests is gone" for name in _arguments(tree) if name in lost
            ]
        found += [f"{path}: {reason}" for reason in dict.fromkeys(missing)]
    twice = [Path(path).name for path in own if path.startswith("tests/")]
    for name in sorted({name for name in twice if name.startswith("test_") and twice.count(name) > 1}):
        found.append(f"tests/: several files are called {name}, and tests/ is no package any more; rename one")
    return found


def _parsed(path: str, text: str) -> ast.Module | None:
    try:
        if path.endswith(".ipynb"):
            cells = [one for one in json.loads(text)["cells"] if one["cell_type"] == "code"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
            text = re.sub(r"^(\s*)[%!].*", r"\1pass", text, flags=re.M)
        return ast.parse(text)
    except (SyntaxError, ValueError, KeyError, TypeError):
        return None


def _imports(tree: ast.Module, package: str, runtime: Path, modules: Collection[str]) -> Iterator[str]:
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == RUNTIME and _file(runtime, alias.name) is None:
                    yield f"{alias.name} is no module of 2.0"
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        base = node.module or ""
        top = base.split(".")[0]
        if top == RUNTIME:
            yield from _of_runtime(node, base, runtime, aliases)
        elif top == package and base != package:
            path = f"src/{base.replace('.', '/')}"
            inside = (f"{path}.py", f"{path}/")
            if not any(one == inside[0] or one.startswith(inside[1]) for one in modules):
                yield f"{base} is gone"
        elif base == package:
            for alias in node.names:
                path = f"src/{package}/{alias.name}"
                if not any(one == f"{path}.py" or one.startswith(f"{path}/") for one in modules):
                    yield f"{package}.{alias.name} is gone"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            module = aliases[node.value.id]
            file = _file(runtime, module)
            if file is not None and node.attr not in _defined(file) and _file(runtime, f"{module}.{node.attr}") is None:
                yield f"{module} has no {node.attr}"


def _of_runtime(node: ast.ImportFrom, base: str, runtime: Path, aliases: dict[str, str]) -> Iterator[str]:
    file = _file(runtime, base)
    if file is None:
        yield f"{base} is no module of 2.0"
        return
    for alias in node.names:
        if _file(runtime, f"{base}.{alias.name}") is not None:
            aliases[alias.asname or alias.name] = f"{base}.{alias.name}"
        elif alias.name != "*" and alias.name not in _defined(file):
            yield f"{base} has no {alias.name}"


def _helpers(tree: ast.Module, path: str) -> Iterator[str]:
    """Imports of the platform's test helpers."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not path.startswith("tests/"):
            continue
        base = node.module or ""
        if base.split(".")[0] == "tests" or node.level:
            yield f"it imports {'.' * node.level}{base}, and tests/ is no package any more: import the module by its name"
        elif base == "sample" and path.count("/") > 1:
            yield "it imports tests/sample.py from a folder below: use the fixture `sample`"


def _file(runtime: Path, module: str) -> Path | None:
    """The file of a module; None without one."""
    path = runtime.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _defined(file: Path) -> set[str]:
    """The names that a module has."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def _fixtures(text: str) -> Iterator[str]:
    """The names of the fixtures that a module of tests defines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(one) for one in node.decorator_list):
            yield node.name


def _arguments(tree: ast.Module) -> Iterator[str]:
    """The arguments of tests and of their fixtures."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (
            node.name.startswith("test") or any("fixture" in ast.unparse(one) for one in node.decorator_list)
        ):
            yield from (argument.arg for argument in node.args.args)
