"""Errors in your own files: the file, the line and its text first, then the cause, then where the whole traceback is."""

import contextlib
import traceback
from pathlib import Path

from copier_mlops import project

TRACEBACK = Path(".cache/traceback.txt")


def own_line(error: BaseException) -> str:
    """Return the innermost line of a file of yours that an error passed through; empty if there is none.

    The cause of an error counts, too: the platform wraps what a source raises.
    """
    own = project.root()
    files = {str(file) for file in project.folder().rglob("*.py")} if own else set()
    current: BaseException | None = error
    found = ""
    while current is not None:
        if isinstance(current, SyntaxError) and current.filename in files:
            return _shown(current.filename, current.lineno or 0, "", (current.text or "").strip())
        for frame in traceback.extract_tb(current.__traceback__):
            if frame.filename in files:
                found = _shown(frame.filename, frame.lineno or 0, frame.name, frame.line or "")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def remedy(error: BaseException) -> str:
    """Return how to fix an error in a file of yours, as the end of its message; empty if that depends on your code."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f". Correct the name, or add the package: uv add {error.name.partition('.')[0]}"
    return ""


def _shown(file: str, line: int, function: str, text: str) -> str:
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    where = f", in {function}" if function and not function.startswith("<") else ""
    return f"{shown}:{line}{where}\n    {text}"


def keep(error: BaseException) -> str:
    """Write the whole traceback into a file; return the sentence that names it."""
    with contextlib.suppress(OSError):
        TRACEBACK.parent.mkdir(exist_ok=True)
        TRACEBACK.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return f"The whole traceback is in {TRACEBACK}."
    return ""
