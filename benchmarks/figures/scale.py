"""Whether time and memory keep up when there are ten and thirty times as many rows."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from lab import INSIDE, PACKAGE, Lab, Watched
from rows import Row, limited

from .steps import steps

TIMES = (10, 30)
MEANING = {
    f"scale_{times}x_{what}": text.format(times=times)
    for times in TIMES
    for what, text in {
        "time": "seconds of a fresh `make run` per row on the year {times} times over, against the year once",
        "memory": "peak memory of `make run` on the year {times} times over, all processes together",
    }.items()
}
HOURS = 2.0  # after which a run is given up


@dataclass(frozen=True)
class Run:
    """A run on the repeated year."""

    watched: Watched
    rows: int


def run(lab: Lab, times: int) -> Run:
    """A fresh `make run` on the year repeated; the year once goes the same way, so that only the rows differ."""
    project = lab.project("scale")
    io = project.folder / "src" / PACKAGE / "io"
    shutil.copyfile(io / "source.py", io / "source_once.py")
    shutil.copyfile(INSIDE / "repeated_source.py", io / "source.py")
    (io / "repeat.txt").write_text(f"{times}\n")
    watched = project.watched("run", timeout=HOURS * 3600)
    rows = next(line.split()[-1] for line in watched.output.splitlines() if line.split()[:2] == ["rows", "in"])
    print(f"  {times} times: {watched.seconds:.0f} s, {watched.peak_bytes / 1e9:.2f} GB; {memory_by_command(watched)}")
    print(f"  {steps(watched.output)}", flush=True)
    return Run(watched, int(rows.replace(",", "")))


def memory_by_command(watched: Watched, count: int = 4) -> str:
    """The commands that took most."""
    most = list(watched.by_command.items())[:count]
    return ", ".join(f"{name} {taken / 1e9:.2f} GB" for name, taken in most)


def measure(lab: Lab) -> list[Row]:
    rows = []
    once = run(lab, 1)
    for times in TIMES:
        many = run(lab, times)
        per_row = (many.watched.seconds / many.rows) / (once.watched.seconds / once.rows)
        time_note = (
            f"{many.rows:,} rows in {many.watched.seconds:.0f} s, {once.rows:,} rows in {once.watched.seconds:.0f} s; "
            f"steps: {steps(many.watched.output)}"
        )
        rows.append(limited(f"scale_{times}x_time", per_row, "times", 1.0, note=time_note))
        note = f"largest process {many.watched.largest_bytes / 1e9:.2f} GB; {memory_by_command(many.watched)}"
        rows.append(limited(f"scale_{times}x_memory", many.watched.peak_bytes / 1e9, "GB", 6.0, note=note))
    lab.drop("scale")
    return rows
