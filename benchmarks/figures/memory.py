"""How much memory a machine needs for the sample."""

from __future__ import annotations

from lab import Lab
from rows import Row, repeated

REPETITIONS = 2
MEANING = {"peak_memory_pipeline": "peak memory of a fresh `make pipeline`, all its processes together"}


def measure(lab: Lab) -> list[Row]:
    project = lab.project("main")
    peaks, largest, by_command = [], 0, ""
    for _ in range(REPETITIONS):
        project.forget()
        seen = project.watched("pipeline")
        peaks.append(seen.peak_bytes / 1e9)
        largest = max(largest, seen.largest_bytes)
        by_command = ", ".join(f"{name} {taken / 1e9:.2f}" for name, taken in list(seen.by_command.items())[:6])
    note = f"largest process {largest / 1e9:.2f} GB; {by_command}"
    return [repeated("peak_memory_pipeline", peaks, "GB", 1.5, note)]
