"""Grafana's types of a dashboard, brought by npm, and what they have against one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

PACKAGES = {"@grafana/schema": "12.4.0", "typescript": "5.9.3"}
TYPES = Path(__file__).with_suffix(".ts")
SETTINGS = ("--noEmit", "--strict", "--skipLibCheck", "--pretty", "false", "--target", "es2022", "--module", "esnext",
            "--moduleResolution", "bundler")  # fmt: skip


def bring(tools: Path) -> Path | None:
    """The folder that has the packages, fetched where they are missing; None where there is no npm to fetch them with."""
    if not (shutil.which("node") and shutil.which("npm")):
        return None
    names = [f"{name}@{version}" for name, version in PACKAGES.items()]
    place = tools / "-".join(["grafana", *PACKAGES.values()])
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not (place / ".made").exists():
            # No script of a package runs, and nothing but these folders is written.
            words = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--prefix", place]
            environment = {**os.environ, "NPM_CONFIG_UPDATE_NOTIFIER": "false"}
            subprocess.run(["npm", "install", *words, *names], check=True, env=environment, capture_output=True)
            (place / ".made").touch()
    return place


def against(packages: Path, folder: Path, boards: dict[str, str]) -> dict[str, list[str]]:
    """What the types have against each of some dashboards.

    Args:
        packages: What `bring` brought.
        folder: An empty one, to work in.
        boards: The text of each, in JSON, by name.

    Returns:
        By name what TypeScript says, nothing of one that is as it should be.
    """
    (folder / "node_modules").symlink_to(packages / "node_modules")
    shutil.copy2(TYPES, folder / "grafana.ts")
    for name, text in boards.items():
        code = f'import type {{ Board }} from "./grafana";\nexport const board: Board = {text.strip()};\n'
        (folder / f"{name}.ts").write_text(code)
    words = ["node", "node_modules/typescript/bin/tsc", *SETTINGS, *(f"{name}.ts" for name in boards)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    found = re.findall(r"^(\S+)\.ts\((\d+),\d+\): (.*(?:\n .*)*)", done.stdout, re.M)
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    # A name that is not among the boards is a mistake in the types themselves.
    said: dict[str, list[str]] = {name: [] for name in boards}
    for name, line, text in found:
        said[name].append(f"line {int(line) - 1}: {text}")  # the first line of the file is not the dashboard's
    return said
