"""The project that the unit tests run in: the template's own files with all options, its package is `sample_project`.

It is made once for each state of the template's files. It has no environment and no copy of the runtime: the tests import the
runtime from template/src.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from filelock import FileLock

REPOSITORY = Path(__file__).parents[2]
RUNTIME = REPOSITORY / "template/src/copier_mlops"
CACHE = Path(os.environ.get("COPIER_MLOPS_WORKSPACE") or REPOSITORY / ".cache") / "unit"
ANSWERS = {
    "project_name": "Sample project",
    "serving": "[online, batch, streaming, hybrid]",
    "deploy": "compose",
    "monitoring": "true",
}


def made() -> Path:
    """Return the folder of the project, made if the template's files have changed since the last time."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    files = sorted(
        path
        for place in ("copier.yml", "includes", "template")
        for path in ([REPOSITORY / place] if (REPOSITORY / place).is_file() else (REPOSITORY / place).rglob("*"))
        if path.is_file() and RUNTIME not in path.parents and "__pycache__" not in path.parts
    )
    files += sorted((RUNTIME / "adopt/templates").iterdir())
    digest = hashlib.sha256(repr(sorted(ANSWERS.items())).encode())
    for path in files:
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    folder = CACHE / digest.hexdigest()[:16] / "project"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):
        if not folder.exists():
            source, partial = CACHE / "template", CACHE / "partial"
            for old in (source, partial):
                shutil.rmtree(old, ignore_errors=True)
            source.mkdir()
            for name in ("includes", "template"):  # without git: Copier then takes the files as they are
                shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
            shutil.copyfile(REPOSITORY / "copier.yml", source / "copier.yml")
            data = [word for name, value in ANSWERS.items() for word in ("--data", f"{name}={value}")]
            copier = Path(sys.executable).with_name("copier")
            subprocess.run([copier, "copy", "--quiet", "--defaults", *data, source, partial], check=True)
            shutil.rmtree(partial / "src/copier_mlops")
            shutil.rmtree(source)
            folder.parent.mkdir(exist_ok=True)
            partial.rename(folder)
    return folder


def module(name: str, file: Path) -> ModuleType:
    """Import a file of the project under a name."""
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None
    assert specification.loader is not None
    found = importlib.util.module_from_spec(specification)
    sys.modules[name] = found
    specification.loader.exec_module(found)
    return found


ROOT = made()
sys.path.append(str(ROOT / "src"))
