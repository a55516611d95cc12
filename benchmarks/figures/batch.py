"""Large tables: what the contract, the journal and the parts cost beside reading and predicting, and whether memory is flat."""

from __future__ import annotations

import json
import shutil
from statistics import median

from lab import INSIDE, PACKAGE, Lab, Project, call, environment
from rows import Row, limited

ROWS = 1_000_000
MANY = 20
REPETITIONS = 5
AT_LEAST = 0.85
AT_MOST = 1.25
MEANING = {
    "batch_over_bare_loop": "rows a second of `make score`, against those of a loop that reads the same Parquet file and predicts with the "
    "same bundle, and neither looks at the rows nor keeps the answers",
    "batch_memory": f"peak memory of `make score` on {MANY * ROWS:,} rows, against that on {ROWS:,}",
}


def seconds(project: Project, way: str, *words: str) -> float:
    said = project.script("batch_rows.py", way, PACKAGE, *words).output
    return float(said.splitlines()[-1])


def peak(project: Project, rows: str) -> int:
    """The largest that the process which answers becomes, in bytes."""
    report = project.folder / ".cache/tree.json"
    words = [project.python, "-m", f"{PACKAGE}.serving.batch", rows, "peak"]
    shutil.rmtree(project.folder / "peak", ignore_errors=True)
    env = environment(PYTHONPATH=str(project.folder / "src"))
    call([project.python, str(INSIDE / "tree.py"), str(report), *words], project.folder, env, 3600)
    return int(json.loads(report.read_text())["largest_bytes"])


def measure(lab: Lab) -> list[Row]:
    project = lab.serving("batch")
    project.script("batch_rows.py", "write", "one.parquet", str(ROWS))
    shares, rates = [], []
    for _ in range(REPETITIONS):
        alone = seconds(project, "alone", "one.parquet")
        shutil.rmtree(project.folder / "answers", ignore_errors=True)
        scored = seconds(project, "scored", "one.parquet", "answers")
        shares.append(alone / scored)
        rates.append(ROWS / scored)
    share, spread = median(shares), (round(min(shares), 4), round(max(shares), 4))
    note = f"{median(rates):,.0f} rows a second"
    rows = [Row("batch_over_bare_loop", round(share, 4), "", spread, f"{AT_LEAST:g} or more", share >= AT_LEAST, note)]
    once = peak(project, "one.parquet")
    project.script("batch_rows.py", "write", "many.parquet", str(MANY * ROWS))
    many = peak(project, "many.parquet")
    note = f"{many / 1e6:,.0f} MB, and {once / 1e6:,.0f} MB"
    rows.append(limited("batch_memory", many / once, "times", AT_MOST, note=note))
    lab.drop("batch")
    return rows
