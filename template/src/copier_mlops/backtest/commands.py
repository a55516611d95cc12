"""The command of the backtest."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from copier_mlops import ProjectError, _exit_codes, _interruption
from copier_mlops._command_line import MONITOR, applied_settings, commands, fail

app = commands()


@app.command(rich_help_panel=MONITOR)
def backtest(
    start: Annotated[
        str, typer.Option("--from", help="First day, as 2024-07-01; by default the second half of the rows.")
    ] = "",
    until: Annotated[str, typer.Option(help="Day after the last one.")] = "",
    fault: Annotated[str, typer.Option(help="Fault to inject; an unknown one lists the forms.")] = "",
    monitor_every_days: Annotated[int, typer.Option(help="Days between two monitoring runs.")] = 7,
    label_delay_days: Annotated[float, typer.Option(help="Days until a label is known.")] = 7,
    strategies: Annotated[str, typer.Option(help="Strategies to compare, separated by commas; by default all.")] = "",
) -> None:
    """Replay past months as production: never retrained, retrained each month, retrained by the monitor.

    It works on copies of this project in .replay and writes reports/replay.
    """
    _interruption.without_time_limit()
    settings = applied_settings()
    began = time.perf_counter()
    from copier_mlops.backtest import driver
    from copier_mlops.backtest.report import LIVES, NAMES
    from copier_mlops.backtest.sandbox import HOME, PAGE, REPORT, leave

    signal.signal(signal.SIGTERM, leave)  # the strategies are ended, too
    given = strategies or ",".join(LIVES)
    chosen = tuple(life for life in LIVES if life in given.replace(",", " ").split())
    if not chosen:
        raise ProjectError(f"LIVES is {given}; there are {', '.join(LIVES)}.")
    if monitor_every_days < 1 or label_delay_days < 0:
        raise ProjectError("LOOK_DAYS is at least 1, and LABEL_DAYS at least 0.")
    try:
        report = driver.replay(
            settings,
            start=start,
            until=until,
            fault=fault,
            look_days=monitor_every_days,
            label_days=label_delay_days,
            chosen=chosen,
            began=began,
        )
    except KeyboardInterrupt:
        fail(f"stopped; what was done so far is in {HOME}", _exit_codes.INTERRUPTED)
    for life in chosen:
        values = ", ".join(f"{name} {value:.4f}" for name, value in report["found"]["values"][life].items())
        print(f"  {NAMES[life]:<20} {values}, {len(report['lives'][life]['trainings'])} trainings")
    print(f"{report['says']}\n  {PAGE}, {REPORT}, after {report['seconds']:.0f} s")
