"""The previous release as a project renders it, and the files that this release has.

Standard library only, Python 3.10; Copier is a child process.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
ANSWERS = ".copier-answers.yml"
OUTER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # of a git hook around this process


@lru_cache
def rendered(commit: str, answers: str) -> Path:
    """Render a release of the template with some answers; the folder is deleted when this process ends."""
    scratch = Path(tempfile.mkdtemp(prefix="migrate-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    words = ["git", "archive", "--format=tar", commit]
    environment = {key: value for key, value in os.environ.items() if key not in OUTER}
    archive = subprocess.run(words, cwd=TEMPLATE, env=environment, capture_output=True, check=False)
    if archive.returncode:
        raise OSError(
            f"the release {commit}, which the project follows, is not in the template's history: "
            f"{archive.stderr.decode(errors='replace').strip()}. Fetch all tags of the template, then run the update again."
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        if hasattr(tarfile, "data_filter"):
            files.extraction_filter = tarfile.data_filter
        files.extractall(scratch / "template")
    data = scratch / "answers.yml"
    data.write_text(answers, encoding="utf-8")
    words = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--data-file", str(data)]
    copied = subprocess.run(
        [*words, str(scratch / "template"), str(scratch / "project")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if copied.returncode:
        raise OSError(
            f"the release {commit} does not render with the answers of {ANSWERS}: {copied.stderr.strip()[-2000:]}. "
            f"`git log -p {ANSWERS}` shows what they were."
        )
    return scratch / "project"


def template_names(package: str) -> set[str]:
    """Return the paths that this release renders with any answers."""
    found = set()
    for path in (TEMPLATE / "template").rglob("*"):
        name = path.relative_to(TEMPLATE / "template").as_posix()
        name = re.sub(r"\{%.*?%\}", "", name).removesuffix(".jinja")
        found.add(name.replace("{{package}}", package))
    return found
