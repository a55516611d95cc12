"""GitHub's runner on this machine: act, brought by Go, with local actions in the place of those that it would download."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import clean_environment
from filelock import FileLock

TOOLS = {
    "act": "github.com/nektos/act@v0.2.87",
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
}
ACTIONS = Path(__file__).parent / "runner"
USES = re.compile(r"uses: ([\w-]+)/([\w-]+)@([0-9a-f]{40}) # (v[\d.]+)")


@dataclass(frozen=True)
class Ran:
    """What became of a workflow.

    Attributes:
        passed: Whether act ended well.
        output: All that was said.
        artifacts: The folder that stands for GitHub's store.
        jobs: By name whether the job succeeded; one that was skipped is not there.
    """

    passed: bool
    output: str
    artifacts: Path
    jobs: dict[str, bool]


def bring(tools: Path, name: str = "act") -> Path | None:
    """Return a tool's path, or None. It is built in the version that the tests need; without Go any version is used."""
    place = tools / f"{name}-{TOOLS[name].rpartition('@')[2]}"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):
        if not (place / name).exists() and shutil.which("go"):
            environment = {**os.environ, "GOBIN": str(place)}
            subprocess.run(["go", "install", TOOLS[name]], check=True, env=environment, capture_output=True)
    found = place / name if (place / name).exists() else shutil.which(name)
    return Path(found) if found else None


def uses(folder: Path) -> set[tuple[str, str, str]]:
    """Every action that the workflows of a folder name: owner/name, commit, version."""
    texts = [path.read_text() for path in (folder / ".github").rglob("*.yml*")]
    return {(f"{one[0]}/{one[1]}", one[2], one[3]) for text in texts for one in USES.findall(text)}


def push(project: Path, place: Path, message: str = "first") -> Path:
    """The project as a hosted runner finds it: a fresh clone of what was committed, with a remote of GitHub's kind."""
    if not (project / ".git").exists():
        _git(project, "init", "--quiet", "--initial-branch", "main")
    _git(project, "add", "--all")
    _git(project, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message)
    _git(place.parent, "clone", "--quiet", str(project), str(place))
    _git(place, "remote", "set-url", "origin", "https://github.com/ada/flights.git")
    return place


def _git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def run(
    act: Path,
    clone: Path,
    event: str,
    payload: dict[str, Any] | None = None,
    job: str = "",
    workflow: str = "ci.yml",
    variables: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    **environment: str,
) -> Ran:
    """Run a workflow in a clone, with an empty home; packages come from uv's cache, as a runner's cache would give them."""
    outside = clone.parent / f"{clone.name}-runner"
    home, artifacts = outside / "home", outside / "artifacts"
    for folder in (home, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    (outside / "event.json").write_text(json.dumps(payload or {}))
    words = [str(act), event, "--workflows", str(clone / ".github/workflows" / workflow), "--eventpath", str(outside / "event.json"),
             "--platform", "ubuntu-24.04=-self-hosted", "--container-daemon-socket", "-", "--no-cache-server", "--pull=false",
             "--env", f"ARTIFACTS={artifacts}", "--secret", "GITHUB_TOKEN=made-on-the-spot"]  # fmt: skip
    for name, commit, _ in uses(clone):
        words += ["--local-repository", f"{name}@{commit}={ACTIONS / name.split('/')[1]}"]
    for name, value in environment.items():
        words += ["--env", f"{name}={value}"]
    for option, given in (("--var", variables), ("--secret", secrets)):
        for name, value in (given or {}).items():
            words += [option, f"{name}={value}"]
    words += ["--job", job] if job else []
    cache = os.environ.get("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser()))
    done = subprocess.run(
        words,
        cwd=clone,
        env=clean_environment(HOME=str(home), UV_CACHE_DIR=cache, DO_NOT_TRACK="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    output = done.stdout + done.stderr
    (outside / "log").write_text(output)  # to be read where an assertion shows its end alone
    jobs = {
        match[0].strip(): match[1] == "succeeded"
        for match in re.findall(r"\[[^/\]]+/([^\]]+)\].*Job (succeeded|failed)", output)
    }
    return Ran(done.returncode == 0, output, artifacts, jobs)
