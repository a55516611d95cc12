"""Evaluate expressions of the old code as far as their values are written in it. Nothing is executed."""

import ast
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .reading import Repository, Source

MAX_SIZE = 2_000  # characters or items; more is data
MAX_DEPTH = 20
ROOT = "<repository>"  # stands for the folder of the repository in a path that the code derives from __file__
ALIASES = {"pd": "pandas", "np": "numpy", "pl": "polars", "xgb": "xgboost", "lgb": "lightgbm"}
SAME = ("abspath", "realpath", "str", "expanduser", "fspath", "text", "URL", "list", "dict")  # calls that keep a value
UNKNOWN: Any = object()
"""The value of an expression that only an execution could evaluate."""


@dataclass(frozen=True)
class Binding:
    """An assignment: its position, the expression (None: unknown), and the item of it, for `a, b = 1, 2`."""

    source: Source
    line: int
    expression: ast.AST | None
    key: int | None = None


class Code:
    """Names and their assignments in all files of a repository. `imports` has what the names of a file stand for."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.imports: dict[str, dict[str, str]] = {}
        self._scopes: dict[int, int] = {}  # by node, the function around it; 0 outside of functions
        self._functions: dict[int, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self._bindings: dict[tuple[str, int, str], list[Binding]] = {}
        self._constants: dict[str, dict[str, Binding]] = {}  # by name and file
        self._attributes: dict[str, list[tuple[str, Binding]]] = {}  # by name, with the class
        self._calls: dict[str, list[tuple[Source, ast.Call]]] = {}
        self._memory: dict[int, Any] = {}
        for source in repository.sources:
            names = self.imports.setdefault(source.file, dict(ALIASES))
            for node in source.nodes:
                names.update(_imported(node))
            for statement in source.body:
                self._index(statement, source)

    def name(self, node: ast.AST, source: Source) -> str:
        """Return the qualified name of an expression: `pd.read_csv` as `pandas.read_csv`, calls as `()`."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute | ast.Call | ast.Subscript) and len(parts) < MAX_DEPTH:
            parts.append(f".{node.attr}" if isinstance(node, ast.Attribute) else "()")
            node = node.func if isinstance(node, ast.Call) else node.value
        start = self.imports[source.file].get(node.id, node.id) if isinstance(node, ast.Name) else "?"
        return start + "".join(reversed(parts))

    def _index(self, statement: ast.stmt, source: Source) -> None:
        """Record the assignments, functions and calls of a statement in their order."""
        pending: list[tuple[ast.AST, int, str]] = [(statement, 0, "")]
        while pending:
            node, scope, owner = pending.pop()
            self._scopes[id(node)] = scope
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    scope, self._functions[id(node)] = id(node), node
                    for argument, default in parameters(node.args):
                        at = Binding(source, node.lineno, default)
                        self._bindings.setdefault((source.file, scope, argument), []).append(at)
                case ast.ClassDef():
                    owner = node.name
                case ast.Call():
                    self._calls.setdefault(self.name(node.func, source).rsplit(".", 1)[-1], []).append((source, node))
                    self._option(node, source)
                case ast.Assign():
                    for target in node.targets:
                        self._assign(target, Binding(source, node.lineno, node.value), scope, owner)
                case ast.AnnAssign() | ast.NamedExpr() if node.value:
                    self._assign(node.target, Binding(source, node.lineno, node.value), scope, owner)
                case ast.AugAssign() | ast.For() | ast.comprehension():  # whose variable is used before this line
                    line = getattr(node, "lineno", 0)
                    self._assign(node.target, Binding(source, line, None), scope, owner)
            pending += [(child, scope, owner) for child in list(ast.iter_child_nodes(node))[::-1]]

    def _assign(self, target: ast.AST, binding: Binding, scope: int, owner: str) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for number, element in enumerate(target.elts if binding.key is None else []):
                self._assign(element, replace(binding, key=number), scope, owner)
        elif isinstance(target, ast.Attribute) or (isinstance(target, ast.Name) and owner and not scope):
            name = target.attr if isinstance(target, ast.Attribute) else target.id
            self._attributes.setdefault(name, []).append((owner, binding))
        elif isinstance(target, ast.Name):
            self._bindings.setdefault((binding.source.file, scope, target.id), []).append(binding)
            if not scope:
                self._constants.setdefault(target.id, {})[binding.source.file] = binding

    def _option(self, call: ast.Call, source: Source) -> None:
        """Record the default of an option of the command line, which the code reads as an attribute."""
        default = next((keyword.value for keyword in call.keywords if keyword.arg == "default"), None)
        flags = [flag.value for flag in call.args if isinstance(flag, ast.Constant) and isinstance(flag.value, str)]
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument" and flags and default:
            name = max(flags, key=len).lstrip("-").replace("-", "_")
            self._attributes.setdefault(name, []).append(("", Binding(source, call.lineno, default)))

    def value(self, node: ast.AST | None, source: Source, depth: int = 0) -> Any:
        """Return the value of an expression, UNKNOWN if it is not written in the code."""
        if node is None or depth > MAX_DEPTH:
            return UNKNOWN
        if id(node) not in self._memory:
            self._memory[id(node)] = UNKNOWN  # ends a cycle of names
            value = self._evaluate(node, source, depth + 1)
            self._memory[id(node)] = value if _is_small(value) else UNKNOWN
        return self._memory[id(node)]

    def text(self, node: ast.AST | None, source: Source) -> str:
        """Return the value of an expression if it is a text, else an empty text."""
        value = self.value(node, source)
        return value if isinstance(value, str) else ""

    def texts(self, node: ast.AST | None, source: Source) -> list[str]:
        """Return the value of an expression as a list if it is a text or a list of texts."""
        value = self.value(node, source)
        values = value if isinstance(value, list) else [value]
        return values if all(isinstance(text, str) for text in values) else []

    def binding(self, node: ast.Name, source: Source) -> tuple[Binding | None, int]:
        """Return the assignment that a name has its value from, and the function that it is local to."""
        use, scope = (source.cell, node.lineno), self._scopes.get(id(node), 0)
        while True:
            bindings = self._bindings.get((source.file, scope, node.id))
            if bindings:
                earlier = [at for at in bindings if (at.source.cell, at.line) < use]
                return (earlier or bindings)[-1], scope
            if not scope:
                return None, 0
            scope = self._scopes.get(scope, 0)

    def _evaluate(self, node: ast.AST, source: Source, depth: int) -> Any:
        def inner(child: ast.AST | None) -> Any:
            return self.value(child, source, depth)

        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                binding, scope = self.binding(node, source)
                if binding and binding.expression is None and scope:
                    return self._passed(scope, node.id, depth)
                return self._agreed([binding], depth) if binding else self._global(node.id, source, depth)
            case ast.List() | ast.Tuple() | ast.Set():
                return [inner(element) for element in node.elts]
            case ast.Dict():
                pairs = [(inner(key), inner(value)) for key, value in zip(node.keys, node.values, strict=True) if key]
                return {key: value for key, value in pairs if isinstance(key, str | int)}
            case ast.UnaryOp(op=ast.USub()):
                number = inner(node.operand)
                return -number if isinstance(number, int | float) else UNKNOWN
            case ast.JoinedStr():
                parts = [inner(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
                return "".join(map(str, parts)) if all(isinstance(part, str | int) for part in parts) else UNKNOWN
            case ast.BinOp(op=ast.Add() | ast.Div()):
                left, right = inner(node.left), inner(node.right)
                if isinstance(left, list) and isinstance(right, list):
                    return left + right
                is_path, is_text = isinstance(node.op, ast.Div), isinstance(left, str) and isinstance(right, str)
                return (posixpath.join(left, right) if is_path else left + right) if is_text else UNKNOWN
            case ast.Subscript():
                return _item(inner(node.value), inner(node.slice))
            case ast.Attribute(attr="parent"):
                path = inner(node.value)
                return posixpath.dirname(path) if isinstance(path, str) else UNKNOWN
            case ast.Attribute():
                return self._member(node, source, depth)
            case ast.Call():
                return self._call(node, source, depth)
        return UNKNOWN

    def _agreed(self, bindings: list[Binding], depth: int) -> Any:
        """Return the value that all of some assignments have, else UNKNOWN."""
        values = [self.value(binding.expression, binding.source, depth) for binding in bindings]
        items = zip(values, bindings, strict=True)
        values = [value if binding.key is None else _item(value, binding.key) for value, binding in items]
        return values[0] if values and all(repr(value) == repr(values[0]) for value in values) else UNKNOWN

    def _global(self, name: str, source: Source, depth: int) -> Any:
        """Return the value of a name of another file: an imported one, or a constant that is the same in all files."""
        if name == "__file__":
            return f"{ROOT}/{source.file}"
        *modules, name = self.imports[source.file].get(name, name).split(".")
        if modules:
            return self._of_module(name, modules[-1], depth)
        return self._agreed(list(self._constants.get(name, {}).values()), depth) if name.isupper() else UNKNOWN

    def _of_module(self, name: str, module: str, depth: int) -> Any:
        constants = self._constants.get(name, {}).items()
        return self._agreed([at for file, at in constants if f"/{file}".endswith(f"/{module}.py")], depth)

    def _passed(self, scope: int, name: str, depth: int) -> Any:
        """Return the value of a parameter without a default, if all calls of the function pass the same."""
        function = self._functions[scope]
        names = [argument for argument, _ in parameters(function.args)]
        place = names.index(name) - (names[0] in ("self", "cls")) if name in names else -1
        passed = []
        for source, call in self._calls.get(function.name, []):
            named = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
            positional = call.args[place] if 0 <= place < len(call.args) else None
            passed.append(Binding(source, call.lineno, named or positional))
        return self._agreed(passed, depth)

    def _member(self, node: ast.Attribute, source: Source, depth: int) -> Any:
        """Return the value of an attribute: of the class, else of any object in this file, else of a module."""
        owner = self.name(node.value, source).rsplit(".", 1)[-1]
        entries = self._attributes.get(node.attr, [])
        bindings = [binding for name, binding in entries if name == owner]
        bindings = bindings or [binding for _, binding in entries if binding.source.file == source.file]
        return self._agreed(bindings, depth) if bindings else self._of_module(node.attr, owner, depth)

    def _call(self, node: ast.Call, source: Source, depth: int) -> Any:
        """Evaluate calls that build paths and dicts, and defaults of environment variables."""
        name = self.name(node.func, source).rsplit(".", 1)[-1]
        given = [self.value(argument, source, depth) for argument in node.args]
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        is_path = bool(given) and all(isinstance(part, str) for part in given)
        match name:
            case "dict" if not given:
                return {item.arg: self.value(item.value, source, depth) for item in node.keywords if item.arg}
            case "zip" if len(given) == 2 and all(isinstance(side, list) for side in given):
                return {key: value for key, value in zip(*given, strict=False) if isinstance(key, str)}
            case "Path" | "PurePath" | "join" | "joinpath" if is_path:
                folder = self.value(receiver, source, depth) if name == "joinpath" else ""
                return posixpath.join(folder, *given) if isinstance(folder, str) else UNKNOWN
            case "dirname" if is_path:
                return posixpath.dirname(given[0])
            case "resolve" | "absolute" | "as_posix" | "expanduser" if not given:
                return self.value(receiver, source, depth)
            case "get" | "getenv" if given:
                value = _item(self.value(receiver, source, depth), given[0])
                return given[1] if value is UNKNOWN and len(given) > 1 else value
            case "cwd" | "getcwd":
                return ""
        return given[0] if name in SAME and given else UNKNOWN


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that an import defines, with what they stand for."""
    for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
        module = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
        name = alias.name if module or alias.asname else alias.name.split(".")[0]
        yield alias.asname or name, f"{module}{name}".lstrip(".")


def parameters(arguments: ast.arguments) -> list[tuple[str, ast.AST | None]]:
    """Return the names of parameters with their defaults."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    names = [argument.arg for argument in (*positional, *arguments.kwonlyargs)]
    return list(zip(names, defaults, strict=True))


def _item(container: Any, key: Any) -> Any:
    if isinstance(container, dict) and isinstance(key, str | int):
        return container.get(key, UNKNOWN)
    is_place = isinstance(container, list) and isinstance(key, int) and -len(container) <= key < len(container)
    return container[key] if is_place else UNKNOWN


def _is_small(value: Any) -> bool:
    """Return whether a value is no data. Python refuses to print a number of too many digits."""
    try:
        is_long = isinstance(value, str | list | dict) and len(value) > MAX_SIZE
        return not is_long and len(repr(value)) < 10 * MAX_SIZE
    except ValueError:
        return False
