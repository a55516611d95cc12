"""The last words of a command that fails."""

from __future__ import annotations

import sys


def print_error(error: object, code: int = 1) -> int:
    """Print an error to standard error.

    Args:
        error: Exception or text: what failed, the cause and the fix.
        code: Exit code of the process.

    Returns:
        The exit code.
    """
    print(f"error: {error}", file=sys.stderr, flush=True)
    return code
