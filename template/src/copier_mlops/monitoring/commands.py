"""Commands of monitoring."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import typer

from copier_mlops import ProjectError, _interruption
from copier_mlops._command_line import MONITOR, AsJson, applied_settings, commands, print_json

app = commands()

FORM = "as 2024-01-31 or 2024-01-31T09:30Z"


@app.command(rich_help_panel=MONITOR)
def monitor(
    since: Annotated[str, typer.Option(help=f"Begin of the window, {FORM}.")] = "",
    until: Annotated[str, typer.Option(help=f"End of the window, {FORM}.")] = "",
    now: Annotated[str, typer.Option(help=f"Time of the monitoring run, {FORM}; for backtests.")] = "",
    as_json: AsJson = False,
) -> None:
    """Compare production with the reference: metrics, drift, a verdict.

    Writes reports/monitor. It proposes actions and takes none.
    """
    _interruption.without_time_limit()
    settings = applied_settings()
    from copier_mlops.monitoring import monitor as monitoring
    from copier_mlops.monitoring import report_summary
    from copier_mlops.monitoring.report import moment
    from copier_mlops.settings import Paths

    times: dict[str, dt.datetime] = {}
    for name, text in {"since": since, "until": until, "now": now}.items():
        if text:
            time = moment(text)
            if time is None:
                raise ProjectError(f"--{name} is {text}, which is not a valid time such as 2024-01-31T09:30Z.")
            times[name] = time
    at = times.pop("now", None)
    report = monitoring.look(settings, at or dt.datetime.now(dt.UTC), **times, replay=at is not None)
    if as_json:
        print_json(report.as_json())
    else:
        print("\n".join([*report_summary.said(report), f"  {Paths.LOOK_PAGE}, {Paths.LOOK}"]))
    try:
        monitoring.keep(settings, report)
    except Exception as error:  # whatever a store's client raises: the report itself is written
        kind = "" if isinstance(error, ProjectError) else f"{type(error).__name__}: "
        print(f"  note: this look is not in MLflow: {kind}{error}", file=sys.stderr)


@app.command("import-labels", rich_help_panel=MONITOR)
def import_labels(
    labels: Annotated[str, typer.Argument(help="A file, folder or glob of labels, here or at s3://.")] = "",
) -> None:
    """Import labels for the next monitoring run."""
    _interruption.without_time_limit()
    settings = applied_settings()  # it has the keys of an object store
    from copier_mlops.monitoring import import_labels as labels_of
    from copier_mlops.monitoring import label_store

    print(label_store.told(labels_of.label(settings, labels)))
