"""The reader and the writer of `.env` and of `deploy/*.env`, with the quotes that Docker Compose has.

| line | value |
|---|---|
| `NAME=some text # comment` | `some text`; a `#` without a space before it belongs to the value |
| `NAME='some text'` | as written; `\\'` is a quote |
| `NAME="some text"` | with `\\n`, `\\t`, `\\r`, `\\"` and `\\\\` as in a shell |

`${NAME}` and `${NAME:-default}` outside single quotes are replaced by an earlier variable of the file or by one of the
environment; `$NAME` stays, since keys may have a dollar sign. The module needs nothing but Python: a deploy sends it to hosts without the project's packages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from copier_mlops import ProjectError, _files

_LINE = re.compile(r"[^\S\n]*(?:export[^\S\n]+)?(?P<name>[^\s=#'\"]+)[^\S\n]*=(?P<gap>[^\S\n]*)")
_SINGLE = re.compile(r"'((?:\\'|[^'])*)'")
_DOUBLE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_END = re.compile(r"[^\S\n]*(?:#[^\n]*)?(?=\n|\Z)")
_REST = re.compile(r"[^\n]*\n?")
_COMMENT = re.compile(r"\s+#.*")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_SPECIAL = re.compile(r"\\(?P<escaped>.)|\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}", re.DOTALL)


class EnvFileError(ProjectError):
    """A file of variables cannot be read; the text names its line."""


def read(file: Path, *, errors: str = "strict") -> dict[str, str]:
    """Return the variables of a file; none if there is no such file.

    Args:
        file: Path of the file.
        errors: How to handle bytes that are not UTF-8, as `bytes.decode` has it.

    Raises:
        EnvFileError: If the file is not UTF-8, or a quoted value does not end.
    """
    try:
        # Editors on Windows write a byte order mark before the first name.
        text = file.read_text(encoding="utf-8-sig", errors=errors)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise EnvFileError(
            f"{file} is not UTF-8 (line {line}: {error.reason}), so its settings cannot be read. Save it as UTF-8, "
            f"for example: iconv -f latin1 -t utf-8 {file} > {file}.new && mv {file}.new {file}"
        ) from error
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _LINE.match(text, position)
        if match is not None:
            value, position = _value(file, text, match, found)
            found[match["name"]] = value
        rest = _REST.match(text, position)
        assert rest is not None
        position = rest.end()
    return found


def _value(file: Path, text: str, line: re.Match[str], found: dict[str, str]) -> tuple[str, int]:
    """Return the value of a line, and where it ends."""
    start = line.end()
    if not text.startswith(("'", '"'), start):
        rest = _REST.match(text, start)
        assert rest is not None
        return _expanded(_COMMENT.sub("", line["gap"] + rest[0]).strip(), found), rest.end() - rest[0].endswith("\n")
    quoted = (_SINGLE if text[start] == "'" else _DOUBLE).match(text, start)
    end = _END.match(text, quoted.end()) if quoted else None
    if quoted is None or end is None:
        number = text.count("\n", 0, start) + 1
        raise EnvFileError(
            f"line {number} of {file} cannot be read: the quoted value of {line['name']} does not end where the line ends. "
            f"Close the quote; a quote inside is written as \\{text[start]}."
        )
    if text[start] == "'":
        return quoted[1].replace("\\'", "'"), end.end()
    return _expanded(quoted[1], found, escapes=True), end.end()


def _expanded(value: str, found: dict[str, str], *, escapes: bool = False) -> str:
    """Return a value with the values of its variables, and with what its escapes stand for."""

    def content(part: re.Match[str]) -> str:
        if part["escaped"]:
            return _ESCAPED.get(part["escaped"], part[0]) if escapes else part[0]
        return found.get(part["name"], os.environ.get(part["name"], "")) or part["default"] or ""

    return _SPECIAL.sub(content, value)


def assignment(name: str, value: str) -> str:
    """Return the line that sets a variable, such that `read` returns the value."""
    if not re.search(r"[\s#'\"\\$]", value):
        return f"{name}={value}"
    if not value.endswith("\\") and "\\'" not in value:
        escaped = value.replace("'", "\\'")
        return f"{name}='{escaped}'"
    escaped = re.sub(r'(["\\$])', r"\\\1", value)
    return f'{name}="{escaped}"'


def set_value(file: Path, name: str, value: str) -> None:
    """Set a variable of a file that only its owner may read: whole, or not at all.

    Raises:
        UnicodeDecodeError: If the file is not UTF-8.
    """
    target = file.resolve()  # a link to a file elsewhere stays one
    text = target.read_text(encoding="utf-8-sig") if target.exists() else ""
    line = assignment(name, value)
    text, count = re.subn(rf"^[^\S\n]*(export\s+)?{name}\s*=.*$", lambda _: line, text, flags=re.M)
    if not count:
        text += ("\n" if text and not text.endswith("\n") else "") + line + "\n"
    # Git ignores that folder, and the file may have secrets.
    _files.write_text(target, text, partial=file.parent / ".cache/env", mode=0o600)
