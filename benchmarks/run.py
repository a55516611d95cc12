"""Measure the figures of docs/benchmarks.md.

    python benchmarks/run.py                   all of them; the rows repeated 30 times take their time
    python benchmarks/run.py --only again      one group, or the group of one figure; may be given several times
    python benchmarks/run.py --short           all but the long ones
    python benchmarks/run.py --list            what there is

Needs Copier in the interpreter that runs this, git, make, and uv as `make setup` does. Results are saved after each
group, so that a run that is cut off has not been for nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from figures import GROUPS, MEANING
from lab import ROOT, Lab
from rows import Row, load, merge, page, save

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"


def chosen(only: list[str], short: bool) -> list[str]:
    """The groups to measure.

    Raises:
        SystemExit: If a name is neither a group nor a figure.
    """
    if not only:
        return [name for name, group in GROUPS.items() if not (short and group.long)]
    groups = []
    for asked in only:
        found = [name for name, group in GROUPS.items() if asked == name or asked in group.meaning]
        if not found:
            sys.exit(f"error: there is no figure {asked}; there are {', '.join(dict.fromkeys([*GROUPS, *MEANING]))}")
        groups += found
    return list(dict.fromkeys(groups))


def keep(rows: list[Row], results: Path, text: Path) -> None:
    """Merge rows into the results and write the page anew."""
    together = merge(load(results), rows, list(MEANING))
    save(together, results)
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(page(together, MEANING), encoding="utf-8")


def say(row: Row) -> None:
    spread = f" ({row.spread[0]:g} to {row.spread[1]:g})" if row.spread else ""
    verdict = {True: "met", False: "MISSED", None: "no bar"}[row.met]
    print(f"  {row.name}: {row.value:g} {row.unit}{spread}; {verdict} {row.bar}; {row.note}", flush=True)


def stopped(*_: object) -> None:
    """End as by Ctrl-C when asked to, so that what was started is ended, too."""
    print("stopped by a signal", file=sys.stderr, flush=True)
    sys.exit(143)


def main() -> int:
    """Exit code 0 if all was measured, whether or not a bar is met; 1 if a figure could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the projects in .cache/bench/")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    asked = parser.parse_args()
    if asked.list:
        for name, group in GROUPS.items():
            print(name)
            for figure, meaning in group.meaning.items():
                print(f"  {figure}: {meaning}")
        return 0
    groups = chosen(asked.only, asked.short)
    signal.signal(signal.SIGTERM, stopped)
    lab = Lab(ROOT / ".cache" / "bench" / str(os.getpid()))
    failed = []
    try:
        for name in groups:
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            try:
                rows = GROUPS[name].measure(lab)
            except Exception:  # one figure that cannot be measured leaves the others
                traceback.print_exc()
                failed.append(name)
                continue
            for row in rows:
                say(row)
            keep(rows, asked.results, asked.page)
    finally:
        if not asked.keep:
            shutil.rmtree(lab.folder, ignore_errors=True)
    if failed:
        print(f"error: could not be measured: {', '.join(failed)}; the reasons stand above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
