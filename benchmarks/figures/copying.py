"""What Copier itself takes, and what this template adds to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median

from lab import Lab, copier, git
from rows import Row, repeated

PAIRS = 7
MEANING = {"copier_copy": "`copier copy` of this template against that of a template with one file and no questions"}


def empty_template(folder: Path) -> Path:
    """A template with one file and no questions, in a git repository like this one."""
    folder.mkdir()
    (folder / "file.txt").write_text("text\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "One file")
    return folder


def measure(lab: Lab) -> list[Row]:
    templates = {"this": lab.template, "empty": empty_template(lab.folder / "empty-template")}
    seconds: dict[str, list[float]] = {name: [] for name in templates}

    def copy(name: str) -> float:
        target = lab.folder / "copy"
        taken = copier(templates[name], target).seconds
        shutil.rmtree(target)
        return taken

    for name in templates:  # bytecode and the disk's cache
        copy(name)
    for pair in range(PAIRS):
        for name in list(templates) if pair % 2 else list(templates)[::-1]:
            seconds[name].append(copy(name))
    ratios = [one / other for one, other in zip(seconds["this"], seconds["empty"], strict=True)]
    this, empty = (median(seconds[name]) for name in templates)
    note = f"{PAIRS} pairs of whole processes by turns; {this:.2f} s, {empty:.2f} s"
    return [repeated("copier_copy", ratios, "times", 2, note)]
