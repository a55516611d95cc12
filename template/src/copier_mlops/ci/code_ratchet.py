"""What a change lowers in comparison with its base: tests, suppressed checks, settings of the tools, the gates."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from copier_mlops.ci.base import ANSWERS, TRAILER, Base, Finding, read
from copier_mlops.ci.settings_ratchet import lowered_data_checks, lowered_settings, other_sources, shadowing_modules

GATES = {
    "Makefile",
    ".pre-commit-config.yaml",
    *(f"make/{name}.mk" for name in ("alerts", "batch", "bundle", "deploy", "environment", "hybrid", "log", "monitor")),
    *(f"make/{name}.mk" for name in ("online", "replay", "stream")),
}
"""Files of the template that decide whether a change passes."""
RUNTIME = "src/copier_mlops/"
"""The folder of the runtime: all checks are in it."""
TARGETS = ("check", "check-lock", "standards", "test", "test-model", "review", "notebook", "audit", "comment", "pass")
STEERING = (
    r"\.?SHELL(?:FLAGS)?|BIN|UV|APP|PACKAGE|ONLY|BASE|PATH|(?:GNU)?MAKEFLAGS|MAKEFILES|BASH_ENV"
    r"|(?:PYTHON|PYTEST_|COVERAGE_|MYPY|RUFF_)\w*"
)
"""Variables of a makefile that change what a gate runs."""
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


# --------------------------------------------------------------------------------------------- The gates themselves


def changed_gates(base: Base) -> Iterator[Finding]:
    """Find gates that were edited here; an update of the template brings theirs."""
    for path in (one for one in base.changed if one in GATES or one.startswith(RUNTIME)):
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
