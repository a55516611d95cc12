"""What must not be repeated: secrets and the paths of one machine. Their places are told, their values are not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .reading import Repository

SECRET_NAME = re.compile(
    r"(?:passw(?:or)?d|passwd|pwd|secret|token|api_?key|access_?key|private_?key|account_?key|credential|client_?secret|sas_?key)s?$",
    re.I,
)
SECRET_LINE = re.compile(
    r"""(?ix) (?<![a-z]) [\w.-]*(?:passw(?:or)?d|passwd|pwd|secret|token|api_?key|access_?key|private_?key|credential)\w*
    ["']? \s* (?:[:=](?!=)|,(?=\s*["'])) \s* (?P<quote>["']?) (?P<value>[^\s"'#,;)}\]]{4,}) (?P=quote)"""
)
SECRET_VALUE = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]*://[^\s/:@\"']*:(?P<password>[^\s/@\"']+)@)|(?P<key>AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{15,}|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}|hf_[A-Za-z0-9]{20,}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
NOT_SECRET = re.compile(
    r"^(?:os\.|getpass|input\(|None$|null$|true$|false$|str$|\$\{?|<|\{|your|changeme|xxx|\*{3}|(?:config|settings|env|self|args)[.\[(]|getenv)",
    re.I,
)
ABSOLUTE = re.compile(
    r"(?<![\w.:/<~])(?P<path>(?:/(?:home|Users|mnt|media|data|opt|srv|tmp|var|content|kaggle|dbfs|root|scratch|Volumes|usr/local|nfs|workspace)"
    r"(?:/[^\s\"'`,;:)\]}]+)+)|~/[^\s\"'`,;:)\]}]+|\b[A-Za-z]:[\\/][^\s\"'`,;)\]}]+|\\\\\\\\[\w.-]+\\[^\s\"'`,;)\]}]+)"
)
LONG = re.compile(r"\b(?=[A-Za-z0-9+/_=-]*\d)[A-Za-z0-9+/_=-]{32,}")


@dataclass
class Hidden:
    """What was found.

    Attributes:
        secrets: By place, what it looks like.
        paths: Places.
        values: What is taken out of every quote.
    """

    secrets: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    values: set[str] = field(default_factory=set)


def hide(repository: Repository) -> Hidden:
    """Where secrets and absolute paths stand; their values are kept to be taken out of every line that is quoted."""
    found = Hidden()
    for source in repository.sources:
        for number, line in enumerate(source.lines, start=1):
            _line(line, source.place(number), found, code=not line.lstrip().startswith(("%", "!")))
        for node in source.nodes:
            for name, value in _given(node):
                if SECRET_NAME.search(name) and _telling(value):
                    _secret(found, source.place(getattr(node, "lineno", 1)), value, f"`{name}`")
    for file, text in repository.texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            _line(line, f"{file}, line {number}", found)
    return found


def _given(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Names and the texts that are given to them."""
    pairs: list[tuple[ast.AST | None, ast.AST | None]] = []
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign):
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values, strict=True))
    elif isinstance(node, ast.keyword):
        pairs = [(ast.Name(node.arg or ""), node.value)]
    for target, value in pairs:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield _name(target.slice if isinstance(target, ast.Subscript) else target), value.value


def _name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _telling(value: str) -> bool:
    return len(value) >= 4 and not NOT_SECRET.match(value)


def _line(line: str, where: str, found: Hidden, code: bool = False) -> None:
    """What one line gives away. In code a value stands in quotes; what has none there is a name."""
    line = line[:4_000]
    for told in SECRET_VALUE.finditer(line):
        if told["url"] and _telling(told["password"]):
            _secret(found, where, told["password"], "an address with a password")
        elif told["key"]:
            _secret(found, where, told["key"], "what looks like a key")
    for told in SECRET_LINE.finditer(line):
        if (told["quote"] or not code) and _telling(told["value"]) and "(" not in told["value"]:
            _secret(found, where, told["value"], "a password or a key")
    for told in ABSOLUTE.finditer(line):
        found.values.add(told["path"])
        if where not in found.paths:
            found.paths.append(where)


def _secret(found: Hidden, where: str, value: str, what: str) -> None:
    found.secrets.setdefault(where, what)
    found.values |= {line for line in value.splitlines() if len(line) >= 4}


def quoted(line: str, hidden: set[str]) -> str:
    """A line of the old code as it may be shown: no secret, no path of somebody's machine, nothing that ends the quote."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", line).strip()
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, "...")
    text = LONG.sub("...", SECRET_VALUE.sub("...", text))
    text = ABSOLUTE.sub("...", text)
    text = text if len(text) <= 100 else text[:97] + "..."
    ticks = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (ticks + 1)
    space = " " if ticks else ""
    return f"{fence}{space}{text or ' '}{space}{fence}"
