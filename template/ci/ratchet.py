"""What a change lowers in comparison with its base: tests, suppressed checks, settings of the tools, the gates."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

from ci.base import ANSWERS, TRAILER, Base, Finding, read

GATES = {
    "Makefile",
    ".pre-commit-config.yaml",
    *(f"ci/{name}.py" for name in ("audit", "base", "comment", "environment", "gate", "limits", "lock", "notebooks")),
    *(f"ci/{name}.py" for name in ("ratchet", "standards", "tracked", "workflows")),
    *(f"make/{name}.mk" for name in ("alerts", "batch", "bundle", "deploy", "environment", "hybrid", "log", "monitor")),
    *(f"make/{name}.mk" for name in ("online", "replay", "stream")),
}
"""Files of the template that decide whether a change passes."""
TARGETS = ("check", "check-lock", "standards", "test", "test-model", "review", "notebook", "audit", "comment", "pass")
STEERING = (
    r"\.?SHELL(?:FLAGS)?|BIN|UV|APP|PACKAGE|ONLY|BASE|PATH|(?:GNU)?MAKEFLAGS|MAKEFILES|BASH_ENV"
    r"|(?:PYTHON|PYTEST_|COVERAGE_|MYPY|RUFF_)\w*"
)
"""Variables of a makefile that change what a gate runs."""
CONFIGURATION = {"pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", ".coveragerc", "mypy.ini", ".mypy.ini",
                 "ruff.toml", ".ruff.toml", "tox.ini", "setup.cfg", "zizmor.yml", ".secrets.baseline"}  # fmt: skip
"""Files that the tools prefer to pyproject.toml, or that switch checks off."""

SUPPRESSED = {
    "skip": "tests are skipped or expected to fail",
    "uncollected": "tests are not collected, or a hook of pytest changes their outcome",
    "early-return": "tests return before their end",
    "no-cover": "code is left out of the coverage",
    "noqa": "findings of the linter are suppressed",
    "type-ignore": "findings of the type checker are suppressed",
    "broad-suppress": "every kind of exception is suppressed",
    "caught-assertion": "failures of assertions are caught",
    "allowlist": "lines are declared not to be a secret",
    "zizmor-ignore": "findings in workflows are suppressed",
    "prints-environment": "the environment, with its secrets, is printed",
}
COMMENTS = {
    "no-cover": re.compile(r"pragma:?\s*no\s*(cover|branch)", re.I),
    "noqa": re.compile(r"\bnoqa\b|ruff:\s*(disable|ignore)|\bnosec\b", re.I),
    "type-ignore": re.compile(r"type:\s*ignore|mypy:\s*\w|pyright:", re.I),
    "allowlist": re.compile(r"pragma:\s*(allow|white)list[ -]?(nextline[ -]?)?secret", re.I),
}
LINES = {"allowlist": COMMENTS["allowlist"], "zizmor-ignore": re.compile(r"zizmor:\s*ignore", re.I)}
SKIPS = {"skip", "skipif", "skipIf", "skipUnless", "skipTest", "xfail", "importorskip", "SkipTest", "expectedFailure"}
HARMLESS_HOOKS = {"pytest_addoption", "pytest_plugins"}
EVERY = {"Exception", "BaseException"}
UNCOLLECTED = {"collect_ignore", "collect_ignore_glob", "__test__"}
PRINTS = {"print", "pprint", "pformat", "dumps", "dump", "write", "writelines", "write_text", "echo", "secho", "log"}
PRINTS |= {"debug", "info", "warning", "error", "critical", "exception"}

FROZEN = re.compile(r"^[^#\n]*\bfrozen[\"']?\s*:\s*[\"']?(?:true|yes|on)\b", re.M | re.I)
VERIFIED = re.compile(r"^\s*verify\s*=\s*true\b", re.M | re.I)
LOCK = "uv.lock"

Function = (ast.FunctionDef, ast.AsyncFunctionDef)


# ------------------------------------------------------------------------------------------------------- Tests


def is_test_file(path: str) -> bool:
    name = PurePosixPath(path).name
    return (
        path.startswith("tests/") and name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))
    )


def parsed(text: str | None) -> ast.Module:
    """Return the syntax tree of a file; an empty one where there is none, since other checks report that."""
    try:
        return ast.parse(text or "")
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def tests(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the tests that pytest collects from a file."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    bodies = [tree.body, *(node.body for node in classes)]
    return [node for body in bodies for node in body if isinstance(node, Function) and node.name.startswith("test_")]


def assertions(test: ast.AST) -> int:
    """Count what a test checks: assertions that can fail, and calls of helpers that check."""
    count = 0
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            count += not _always_true(node.test)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            count += called.startswith(("assert", "raises", "warns", "check", "fail", "expect"))
    return count


def _always_true(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any(_always_true(value) for value in test.values)
    return not any(isinstance(node, (ast.Name, ast.Call, ast.Attribute)) for node in ast.walk(test))


def lost_tests(base: Base) -> Iterator[Finding]:
    """Find tests that are only in the base, in whatever file, and tests that no longer check anything."""
    files = [path for path in base.changed if is_test_file(path)]
    sides: list[dict[str, list[int]]] = []
    for texts in ([base.read(path) for path in files], [read(path) for path in files]):
        side: dict[str, list[int]] = {}
        for text in texts:
            for test in tests(parsed(text)):
                side.setdefault(test.name, []).append(assertions(test))
        sides.append(side)
    before, now = sides
    for name in sorted(before):
        if len(now.get(name, [])) < len(before[name]):
            yield Finding("tests", name, f"the test {name} is gone", "Removes-test")
        elif sum(before[name]) and not sum(now[name]):
            yield Finding("tests", name, f"the test {name} no longer asserts anything")


# ------------------------------------------------------------------------------------------ Suppressed checks


def suppressed(path: str, text: str | None) -> Counter[str]:
    """Count the places of a file that switch a check off, by kind."""
    found: Counter[str] = Counter()
    if not text:
        return found
    if not path.endswith(".py"):
        return Counter({kind: count for kind, shape in LINES.items() if (count := len(shape.findall(text)))})
    for comment in _comments(text):
        found.update(kind for kind, shape in COMMENTS.items() if shape.search(comment))
    tree = parsed(text)
    for node in ast.walk(tree):
        found.update(_kinds(node))
    if path.startswith("tests/"):
        found["uncollected"] += sum(_changes_module(node) for node in ast.walk(tree))
    if is_test_file(path):
        found["early-return"] += sum(_early_returns(test) for test in tests(tree))
    return +found


def _comments(text: str) -> list[str]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return [line.partition("#")[2] for line in text.splitlines()]
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def _kinds(node: ast.AST) -> Iterator[str]:
    """Yield the kinds of suppressed checks of one node."""
    if isinstance(node, ast.Attribute) and node.attr in {*SKIPS, "_exit", "exit"}:
        owner = ast.unparse(node.value)
        if node.attr in SKIPS and (owner in ("pytest", "unittest", "self") or owner.rpartition(".")[2] == "mark"):
            yield "skip"
        if (owner, node.attr) in (("os", "_exit"), ("pytest", "exit")):
            yield "uncollected"
    elif isinstance(node, ast.ImportFrom):
        if node.module in ("pytest", "unittest"):
            yield from ("skip" for name in node.names if name.name in SKIPS)
        yield from ("uncollected" for name in node.names if name.name == "_exit" or _is_hook(name.asname or name.name))
    elif isinstance(node, Function) and _is_hook(node.name):
        yield "uncollected"
    elif isinstance(node, (ast.Try, ast.TryStar)) and _catches_assertions(node):
        yield "caught-assertion"
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.Delete)):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        named = [getattr(target, "id", getattr(target, "attr", "")) for target in targets]
        yield from (
            "uncollected" for name in named if name in UNCOLLECTED or name.startswith("test_") or _is_hook(name)
        )
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition(".")[2]
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        suppresses = {ast.unparse(one).rpartition(".")[2] for one in arguments} if called == "suppress" else set()
        if suppresses & EVERY:
            yield "broad-suppress"
        elif "AssertionError" in suppresses:
            yield "caught-assertion"
        if (called == "parametrize" and _no_values(node)) or (
            called == "getattr"
            and arguments
            and ast.unparse(arguments[0]) in ("pytest", "pytest.mark", "mark", "unittest")
        ):
            yield "skip"
        if called == "hookimpl" and any(keyword.arg == "specname" for keyword in node.keywords):
            yield "uncollected"
        if called in PRINTS and any(_whole_environment(one) for one in arguments):
            yield "prints-environment"
    elif isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node).endswith("no_type_check"):
        yield "type-ignore"


def _no_values(node: ast.Call) -> bool:
    """Return whether a parametrization has no values, so that pytest skips the test."""
    given = [keyword.value for keyword in node.keywords if keyword.arg == "argvalues"] or node.args[1:2]
    return any(
        (isinstance(one, (ast.List, ast.Tuple, ast.Set)) and not one.elts)
        or (isinstance(one, ast.Dict) and not one.keys)
        or (
            isinstance(one, ast.Call)
            and not one.args
            and ast.unparse(one.func) in ("list", "tuple", "set", "dict", "range")
        )
        for one in given
    )


def _changes_module(node: ast.AST) -> bool:
    """Return whether a node can remove tests from their module without naming them."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("globals", "sys._getframe", "delattr")


def _whole_environment(node: ast.AST) -> bool:
    """Whether an expression has the whole environment in it, and not one variable of it."""
    if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr in ("get", "pop")):
        return False
    if ast.unparse(node) in ("os.environ", "environ", "os.environb") if isinstance(node, ast.expr) else False:
        return True
    return any(_whole_environment(child) for child in ast.iter_child_nodes(node))


def _is_hook(name: str) -> bool:
    """Return whether pytest calls a function of this name, so that it can change which tests run or pass."""
    return name.startswith("pytest_") and name not in HARMLESS_HOOKS


def _catches_assertions(node: ast.Try | ast.TryStar) -> bool:
    """Return whether a handler hides failed assertions: it names them, or it catches everything around one."""
    asserts = any(isinstance(inner, ast.Assert) for statement in node.body for inner in ast.walk(statement))
    for handler in node.handlers:
        kinds: list[Any] = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        caught = {ast.unparse(kind).rpartition(".")[2] if kind else "BaseException" for kind in kinds}
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
        if not raises and ("AssertionError" in caught or (asserts and caught & EVERY)):
            return True
    return False


def _early_returns(test: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the returns of a test before its last statement; those of functions inside it are their own."""
    *early, last = test.body
    nodes: list[ast.AST] = [*early, *([] if isinstance(last, ast.Return) else [last])]
    count = 0
    while nodes:
        node = nodes.pop()
        count += isinstance(node, ast.Return)
        if not isinstance(node, (*Function, ast.Lambda, ast.ClassDef)):
            nodes.extend(ast.iter_child_nodes(node))
    return count


def more_suppressed(base: Base) -> Iterator[Finding]:
    """Find kinds of suppressed checks of which the work tree has more than the base."""
    before: Counter[str] = Counter()
    now: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for path in base.changed:
        was, here = suppressed(path, base.read(path)), suppressed(path, read(path))
        before.update(was)
        now.update(here)
        for kind in here - was:
            places.setdefault(kind, []).append(path)
    for kind, what in SUPPRESSED.items():
        if now[kind] > before[kind]:
            files = ", ".join(places.get(kind, []))
            more = now[kind] - before[kind]
            yield Finding(places[kind][0], kind, f"{what} in {more} more place{'s' * (more > 1)} than before: {files}")


# ----------------------------------------------------------------------------------------- Settings of the tools

FREE = (
    "line-length",
    "target-version",
    "markers",
    "filterwarnings",
    "skip_covered",
    "show_missing",
    "precision",
    "src",
)


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Return the leaves of nested tables by their dotted names."""
    if isinstance(value, Mapping):
        return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{prefix}.{name}").items()}
    return {prefix.removeprefix("."): value}


def loosened(before: str, now: str) -> Iterator[str]:
    """Yield one sentence for each setting of the tools in pyproject.toml that is less strict than it was."""
    sides = []
    for text in (before, now):
        tool = tomllib.loads(text).get("tool", {})
        sides.append(flat({name: tool.get(name, {}) for name in ("ruff", "mypy", "pytest", "coverage")}))
    was, here = sides
    for key in sorted({*was, *here}):
        one, other = was.get(key), here.get(key)
        if one == other or key.rpartition(".")[2] in FREE:
            continue
        if isinstance(one, list) or isinstance(other, list):
            yield from _other_list(key, _entries(one), _entries(other))
        elif not _stricter(key, one, other):
            yield f"tool.{key} is {_shown(other)}; it was {_shown(one)}"


def _shown(value: object) -> str:
    return "not set" if value is None else json.dumps(value, default=str)


def _entries(value: object) -> dict[str, Any]:
    return {json.dumps(one, sort_keys=True, default=str): one for one in (value if isinstance(value, list) else [])}


def _other_list(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Lists of what is checked may only grow, lists of exceptions may only shrink."""
    removed, added = [[was[one] for one in was if one not in other] for was, other in ((before, now), (now, before))]
    if key.rpartition(".")[2] in ("select", "extend-select", "packages", "files", "source", "testpaths"):
        if removed or key.endswith(("source", "testpaths")):
            yield f"tool.{key} lost {_shown(removed)}" if removed else f"tool.{key} changed: {_shown(added)}"
        return
    if key == "mypy.overrides":
        added = [one for one in added if set(one) - {"module", "ignore_missing_imports"}]
    if added:
        yield f"tool.{key} gained {_shown(added)}"


def _stricter(key: str, before: object, now: object) -> bool:
    name = key.rpartition(".")[2]
    if name == "fail_under" and isinstance(now, (int, float)):
        return now >= (before if isinstance(before, (int, float)) else 0)
    lenient = name.startswith(("ignore", "allow", "implicit", "follow", "no_"))
    return now is True and key.startswith(("mypy.", "coverage.run.branch")) and not lenient


def lowered_settings(base: Base) -> Iterator[Finding]:
    """Find settings of the linter, the type checker, pytest and the coverage that are less strict than at the base."""
    before, now = base.read("pyproject.toml"), read("pyproject.toml")
    if before and now and before != now:
        for text in loosened(before, now):
            yield Finding("pyproject.toml", text.split()[0], text)
    for path in base.changed:
        name, text = PurePosixPath(path).name, read(path)
        nested = name == "pyproject.toml" and path != name and text is not None and "[tool.ruff" in text
        if text is not None and (name in CONFIGURATION or nested):
            yield Finding(path, path, f"{path} takes precedence over the settings of pyproject.toml")
        if path.endswith(".pyi") and base.read(path) is None and read(path[:-1]) is not None:
            yield Finding(path, path, f"{path} hides {path[:-1]} from the type checker")


def shadowing_modules(base: Base) -> Iterator[Finding]:
    """Find new modules that Python imports instead of those that the gates need."""
    installed: set[str] | None = None
    for path in base.changed:
        *folders, name = path.removesuffix("/__init__.py").split("/")
        module = name.removesuffix(".py")
        if (
            not path.endswith(".py")
            or folders not in ([], ["ci"], ["src"])
            or read(path) is None
            or base.read(path) is not None
        ):
            continue
        if installed is None:
            installed = {*sys.stdlib_module_names, *metadata.packages_distributions()}
        if module in ("sitecustomize", "usercustomize") or (folders != ["src"] and module in installed):
            yield Finding(path, path, f"{path} replaces the module {module} in the gates, or runs before them")


def lowered_data_checks(base: Base) -> Iterator[Finding]:
    """Find stages that no longer run when their inputs change, and data that is no longer verified."""
    for path in base.changed:
        before, now = base.read(path) or "", read(path) or ""
        if PurePosixPath(path).name == "dvc.yaml" and _count(FROZEN, now) > _count(FROZEN, before):
            yield Finding(path, "frozen", f"{path} freezes a stage: it no longer runs when its inputs change")
        if path == ".dvc/config" and _count(VERIFIED, now) < _count(VERIFIED, before):
            yield Finding(path, "verify", f"{path} no longer verifies what the remote store returns")


def _count(shape: re.Pattern[str], text: str) -> int:
    return len(shape.findall(text))


def other_sources(base: Base) -> Iterator[Finding]:
    """Find packages in uv.lock from places that the lock of the base does not have."""
    before, now = base.read(LOCK), read(LOCK)
    if LOCK not in base.changed or not before or not now:
        return
    from ci.origin import OriginError  # both need more than the standard library
    from ci.propose import unexpected

    try:
        found = unexpected(before.encode(), now.encode())
    except (OriginError, ValueError, KeyError, TypeError) as error:
        found = [f"the lock cannot be read: {error}"]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield Finding(LOCK, LOCK, f"{LOCK} has packages from other places than before: {'; '.join(found[:3])}{more}")


# --------------------------------------------------------------------------------------------- The gates themselves


def changed_gates(base: Base) -> Iterator[Finding]:
    """Find gates that were edited here; an update of the template brings theirs."""
    for path in sorted(GATES & set(base.changed)):
        what = "is gone" if read(path) is None else "changed"
        yield Finding(path, path, f"{path} {what}: it decides whether a change passes")
    for path in base.changed:
        if path not in GATES and (path.endswith(".mk") or path in ("GNUmakefile", "makefile")):
            yield from _overridden(path, _recipes(base.read(path)), _recipes(read(path)))


def _overridden(path: str, before: Iterable[str], now: Iterable[str]) -> Iterator[Finding]:
    for line in sorted(set(now) - set(before)):
        yield Finding(path, path, f"{path} changes a gate of the Makefile: {line}")


def _recipes(text: str | None) -> list[str]:
    """Return the lines of a makefile that replace a gate, include a file or change how make treats failures."""
    gates = "|".join((*TARGETS, re.escape(".venv/.ready")))
    shape = rf"^ *(?:(?:[\w\-./]+ +)*(?:{gates})(?: +[\w\-./]+)*\s*&?::?(?!=).*|\.(?:IGNORE|SHELLFLAGS|ONESHELL)\b.*"
    shape += r"|(?:-|s)?include\b.*|.*\$[({]eval\b.*|(?:define|undefine) .*"
    # A target in a variable, such as $(NAME) or $(A)st, can be a gate; one with a slash, such as $(FOLDER)/x, is a file.
    shape += r"|[^\t#:=\n][^#:=\n]*(?<!\S)[\w.\-]*\$[({]\w+[)}][\w.\-]*(?![/\w.$(\-])[^#:=\n]*::?(?!=).*"
    shape += r"|(?<![\w$])[\w.\-]*\$[({]\w+[)}][\w.\-]*(?![/\w.$(\-])[^#:=\n]*::?(?!=).*"
    shape += rf"|(?:(?:export|override|private) +)*(?:{STEERING})\s*[:+?!]*=.*)$"
    joined = (text or "").replace("\\\n", " ")
    return [line.strip() for line in re.findall(shape, joined, re.M)]


def unknown_release(base: Base) -> Iterator[Finding]:
    """Find a release of the template in the answers that no update brought."""
    before, now, brought = base.releases()
    if before and before != now and now not in brought:
        text = (
            f"{ANSWERS} names the release {now or 'of no template'} instead of {before}, but no commit of `make update` brought it, so "
            f"its files count as changes of this project. If a commit contains the update, end its message with `{TRAILER}: {now}`"
        )
        yield Finding(ANSWERS, ANSWERS, text)


def unknown_template(base: Base) -> Iterator[Finding]:
    """Find another template in the answers that no update recorded: updates run its code."""
    before, now, brought = base.templates()
    if before and now and before != now and now not in brought:
        text = (
            f"{ANSWERS} names the template {now} instead of {before}, and updates run code of the template. `make update TEMPLATE={now}` "
            "records another address"
        )
        yield Finding(ANSWERS, ANSWERS, text)


def compared(base: Base) -> list[Finding]:
    """Return everything that a change lowers; what a commit of an update brought is not a change of the project."""
    found = [*lost_tests(base), *more_suppressed(base), *lowered_settings(base), *changed_gates(base)]
    found += [*shadowing_modules(base), *lowered_data_checks(base), *other_sources(base)]
    return [*unknown_release(base), *unknown_template(base), *found]
