"""replay: a time that is over as production, three times: never trained again, trained each month, trained by the loop.

All of it happens in `.replay/`, in copies of this project with registries of their own: nothing here is changed but
`reports/replay/`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from copier_mlops import ProjectError
from copier_mlops.backtest.report import CALENDAR, LOOP, NEVER
from copier_mlops.backtest.sandbox import FIRST, HOME, PLAN, asked, collect, prepare, settle
from copier_mlops.settings import QUIET, Settings
from copier_mlops.versioning.dvc import only_run

SECONDS_TO_END = 40.0  # in which a life ends what it started
HOST = {"ENV", "FORCE", "IMAGE", "LISTEN", "ONLY", "PORTS", "REPLICAS", "STEPS", "VERSION", "WHY"}  # of a deployment
LEADS_ELSEWHERE = ("ALERT", "PROMETHEUS_", "RECEIVER_", "DVC_", "MAKE", "MFLAGS", "MLFLOW_", "PREFECT_")


def environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return the environment of a copy of this project.

    It is that of this process without variables that lead the copy to the stores of this project; its runtime and its
    package are those in the copy.
    """
    ours = {name.upper() for name in Settings.model_fields} | HOST
    kept = settings.environment().items()
    return {
        **{name: value for name, value in kept if name not in ours and not name.startswith(LEADS_ELSEWHERE)},
        **QUIET,
        "PYTHONPATH": str((folder / "src").resolve()),
    }


# ---------------------------------------------------------------------------------------------------------- Lives


def begin(life: str, folder: Path, settings: Settings) -> subprocess.Popen[bytes]:
    """Start a life in its folder."""
    module = "copier_mlops.backtest.strategy"
    words = [sys.executable, "-m", module, str(PLAN.absolute()), life]
    return subprocess.Popen(words, cwd=folder, env=environment(settings, folder), stdin=subprocess.DEVNULL)


def live(chosen: Sequence[str], settings: Settings) -> dict[str, Path]:
    """Live all of it: the looped life beside the others, which ask nobody.

    Returns:
        The folder of each.

    Raises:
        ProjectError: If one of them fails.
    """
    first = HOME / FIRST
    folders = {life: first if life == NEVER else HOME / life for life in chosen}
    children = [begin(FIRST, first, settings)]
    try:
        _wait(children[-1])
        for folder in folders.values():
            if folder != first:
                shutil.copytree(first, folder, symlinks=True)
        looped = [begin(LOOP, folders[LOOP], settings)] if LOOP in folders else []
        children += looped
        for life in (NEVER, CALENDAR):
            if life in folders:
                children.append(begin(life, folders[life], settings))
                _wait(children[-1])
        for child in looped:
            _wait(child)
    finally:
        _end(children)
    return folders


def _wait(child: subprocess.Popen[bytes]) -> None:
    if child.wait():
        raise ProjectError(f"a life of the replay failed: why stands above, and what it did is in {HOME}.")


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def replay(
    settings: Settings,
    *,
    start: str,
    until: str,
    fault: str,
    look_days: int,
    label_days: float,
    chosen: Sequence[str],
    began: float,
) -> dict[str, Any]:
    """Replay past months with each strategy, and write the report.

    Args:
        settings: settings of this project.
        start: first day; empty for the second half of the rows.
        until: day after the last one; empty for the end of the rows.
        fault: fault to inject; empty for none.
        look_days: days between two monitoring runs.
        label_days: days until a label is known.
        chosen: strategies to compare.
        began: start of the command, as time.perf_counter() counts.

    Returns:
        The report.

    Raises:
        InProgressError: If another run is in progress in this folder.
        ProjectError: If the days or the fault are not valid, or a strategy fails.
    """
    with only_run():
        shutil.rmtree(HOME, ignore_errors=True)
        plan = prepare(settings, start, until, fault, look_days, label_days)
        PLAN.write_bytes(msgspec.json.encode(plan))
        print(f"{plan.start:%Y-%m-%d} to {plan.end:%Y-%m-%d}, {len(asked(plan)):,} rows", flush=True)
        settle(plan, settings)
        return collect(plan, live(chosen, settings), time.perf_counter() - began)
