"""Where tests put what they make: a workspace for what later sessions can use, and a folder for each session."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKSPACE = "COPIER_MLOPS_WORKSPACE"
"""Variable that names the workspace. `.ci/run` sets it to a new folder; the default is .tools in this repository."""
SESSION = "COPIER_MLOPS_TESTS"
"""Variable that names the folder of a test session. It also marks every process that the session starts."""


def folder(name: str) -> Path:
    """Return a folder of the workspace, which later sessions can use too."""
    place = Path(os.environ.get(WORKSPACE) or ROOT / ".tools") / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def session() -> Path:
    """Return the folder of this test session."""
    return Path(os.environ[SESSION])
