"""A table of one's own: how long until it is a project, and how good what comes out is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab import PACKAGE, Lab, Project
from rows import Row, limited, repeated

REPETITIONS = 3
TABLES = {
    "shop, 20,000 rows by time": ("shop", "again", {"TIME": "ordered", "ID": "id"}),
    "rent, 20,000 rows, long tail": ("rent", "price", {}),
    "breast_cancer of scikit-learn": ("breast_cancer", "target", {}),
    "digits of scikit-learn, ten classes": ("digits", "target", {}),
    "diabetes of scikit-learn, 442 rows": ("diabetes", "target", {}),
    "two categories that decide together": ("crossed", "y", {}),
    "3,000 shops in 20,000 rows": ("shops", "y", {}),
    "one positive in a hundred": ("rare", "y", {}),
    "200 columns, 2,000 rows": ("wide", "y", {}),
    "gaps that tell something": ("gaps", "y", {}),
    "a linear sum, 1,000 rows": ("linear", "y", {}),
    "counts with many zeros": ("counts", "y", {"PROBLEM": "regression"}),
    "hours and weekdays, by time": ("hourly", "y", {"TIME": "at"}),
    "a relation that changes, by time": ("drifting", "y", {"TIME": "at"}),
    "five named classes": ("classes", "y", {}),
}
MEANING = {
    "adopt_commands": "commands from a CSV to a champion, after `copier copy`; no file edited",
    "adopt_ten_million_time": "`make adopt` on a CSV of 10 million rows and 20 columns",
    "adopt_ten_million_memory": "its peak memory, all processes together",
    "adopt_and_run": "`make adopt` and `make run` on 50,000 rows and 20 columns, packages there",
    "adopt_quality": "largest loss against the best of three pipelines made by hand on the same split, on 15 tables, in "
    "percent of their metric, where the paired 95 % interval does not hold 0; negative: better on all",
}


def table(project: Project, kind: str, file: Path, rows: int = 20_000) -> Path:
    project.script("adopt_tables.py", kind, str(file), str(rows))
    return file


def measure(lab: Lab) -> list[Row]:
    project = lab.project("adopt")
    found: list[Row] = []
    small = table(project, "shop", lab.folder / "shop.csv", 50_000)
    times, said = [], ""
    words = {"TIME": "ordered", "ID": "id"}
    for _ in range(REPETITIONS):
        project.forget()
        adopted = project.make("adopt", DATA=str(small), TARGET="again", **words)
        run = project.make("run")
        assert "1, champion" in run.output
        times.append(adopted.seconds + run.seconds)
        said = f"adopt {adopted.seconds:.1f} s, run {run.seconds:.1f} s"
    found.append(limited("adopt_commands", 2, "commands", 3, note="make adopt, make run"))
    found.append(repeated("adopt_and_run", times, "s", 60, said))
    found += _quality(lab, project)
    big = table(project, "shop", lab.folder / "big.csv", 10_000_000)
    project.forget()
    seen = project.watched("adopt", DATA=str(big), TARGET="again", TIME=words["TIME"], ID=words["ID"])
    size = big.stat().st_size / 1e9
    big.unlink()
    found.append(limited("adopt_ten_million_time", seen.seconds, "s", 60, note=f"{size:.1f} GB of text"))
    found.append(limited("adopt_ten_million_memory", seen.peak_bytes / 1e9, "GB", 2.0))
    lab.drop("adopt")
    return found


def _quality(lab: Lab, project: Project) -> list[Row]:
    losses, notes = [], []
    for name, (kind, target, roles) in TABLES.items():
        project.forget()
        project.make("adopt", DATA=str(table(project, kind, lab.folder / f"{kind}.csv")), TARGET=target, **roles)
        project.make("pipeline")
        done = json.loads(project.script("by_hand.py", PACKAGE).output.splitlines()[-1])
        sure = done["high"] < 0
        loss = -100 * done["gain"] / abs(done["theirs"])
        losses.append(loss if sure or loss < 0 else min(loss, 1.0))
        notes.append(
            f"{name}: {done['metric']} {done['ours']:.4f}, by hand ({done['by']}) {done['theirs']:.4f}, "
            f"gain {done['gain']:+.4f} [{done['low']:+.4f}, {done['high']:+.4f}]"
        )
        print(f"  {notes[-1]}", flush=True)
    note = re.sub(r"\s+", " ", "; ".join(notes))
    return [limited("adopt_quality", max(losses), "%", 1.0, note=note)]
