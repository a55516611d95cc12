"""What it takes to follow the template: one project with nothing new, and a fleet with a new release."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from statistics import median

from lab import ROOT, Lab, call, copier, git
from rows import Row, limited, repeated

PAIRS = 5
PROJECTS = 20
MEANING = {
    "copier_update": "`copier update` with nothing new against a `copier copy` of the same template",
    "fleet_time": f"`make fleet-update`: {PROJECTS} projects to a new release, each merged, locked and held to `make check`",
}


def project(template: Path, folder: Path, lock: Path | None = None) -> Path:
    """A project as a repository with one commit."""
    copier(template, folder)
    if lock is not None:
        shutil.copy2(lock, folder / "uv.lock")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def released(lab: Lab) -> Path:
    """The template with a release for today's state."""
    template = lab.folder / "released"
    git(lab.folder, "clone", "--quiet", str(lab.template), str(template))
    git(template, "tag", "v98.0.0")
    return template


def measure(lab: Lab) -> list[Row]:
    template = released(lab)
    one = project(template, lab.folder / "one")
    seconds: dict[str, list[float]] = {"copy": [], "update": []}
    for pair in range(PAIRS + 1):
        taken = copier(template, lab.folder / "copy").seconds
        shutil.rmtree(lab.folder / "copy")
        words = [sys.executable, "-m", "copier", "update", "--quiet", "--defaults"]
        updated = call(words, cwd=one).seconds
        if pair:  # the first one warms bytecode and the disk's cache
            seconds["copy"].append(taken)
            seconds["update"].append(updated)
    ratios = [update / copy for update, copy in zip(seconds["update"], seconds["copy"], strict=True)]
    note = (
        f"{PAIRS} pairs of whole processes by turns; {median(seconds['update']):.2f} s, {median(seconds['copy']):.2f} s"
    )
    return [repeated("copier_update", ratios, "times", 2, note), fleet(lab, template)]


def fleet(lab: Lab, template: Path) -> Row:
    """Twenty projects, each with a line of its owner's, and a release that changes four files."""
    first = project(template, lab.folder / "fleet-0")
    call(["uv", "lock", "--quiet"], cwd=first)
    folders = [
        project(template, lab.folder / f"fleet-{number}", first / "uv.lock") for number in range(1, PROJECTS + 1)
    ]
    for number, folder in enumerate(folders):
        (folder / "local.mk").write_text(f"mine-{number}: ## ours\n\t@echo {number}\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "mine")
    for name, old, new in (
        ("template/Makefile.jinja", "## run the tests with", "## run all tests with"),
        ("template/.github/workflows/train.yml", "timeout-minutes: 180", "timeout-minutes: 170"),
        ("template/pyproject.toml.jinja", '"rich>=14"', '"rich>=14.0"'),
    ):
        text = (template / name).read_text()
        (template / name).write_text(text.replace(old, new, 1))
    git(template, "commit", "--quiet", "--all", "--message", "next")
    git(template, "tag", "v99.0.0")
    listed = lab.folder / "projects.txt"
    listed.write_text("\n".join(map(str, folders)) + "\n")
    done = call(
        [sys.executable, str(ROOT / "ci/fleet.py"), "update", str(listed), "--json"], cwd=lab.folder, timeout=1800
    )
    rows = json.loads(done.output[done.output.index("[\n") : done.output.rindex("]") + 1])
    well = sum(row["well"] for row in rows)
    each = sorted(float(row["seconds"]) for row in rows)
    if well != PROJECTS:
        raise RuntimeError(f"{PROJECTS - well} of {PROJECTS} did not go well: {[row['result'] for row in rows]}")
    return limited(
        "fleet_time",
        done.seconds,
        "s",
        240,
        None,
        f"{well} of {PROJECTS} went well; {each[0]:.0f} to {each[-1]:.0f} s each",
    )
