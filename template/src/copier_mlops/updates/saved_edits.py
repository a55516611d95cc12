"""Report the edits that an update saved as patches because it could not merge them.

`python -m copier_mlops.updates.saved_edits` is a part of `make check`: an update is not done while one of them is left.
"""

from __future__ import annotations

import sys
from pathlib import Path

SAVED = Path(".update")
"""The folder of a project with the edits that an update could not merge."""


def saved_edits(project: Path) -> dict[str, str]:
    """Return the path of each patch, with its first line: which file was edited, and why it was not merged."""
    return {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        for path in sorted((project / SAVED).rglob("*.patch"))
    }


def main() -> int:
    """Return 0 if no edit is left, 1 otherwise."""
    left = saved_edits(Path.cwd())
    for path, reason in left.items():
        print(f"error: {path}: {reason}", file=sys.stderr)
    if left:
        print("Put each edit where it belongs now, delete its patch with `git rm` and commit.", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
