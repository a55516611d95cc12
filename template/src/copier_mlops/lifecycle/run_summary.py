"""The table that `mlops run` prints when it has ended."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from copier_mlops._command_line import console
from copier_mlops.evaluation.formatting import number


def show(report: Any, seconds: float, prefect_api_url: str) -> None:
    """Print what a run came to.

    Args:
        report: the return value of the flow.
        seconds: duration of the whole command.
        prefect_api_url: address of the Prefect server; empty for a temporary one.
    """
    facts, outcome = report.facts, report.outcome
    metric = facts["metrics"][facts["metric"]]
    table = Table(title=None, show_header=False, box=None, padding=(0, 2))
    data = facts["data"]
    table.add_row("rows in", number(data["rows"]))
    table.add_row("quarantined", f"{number(data['set_aside'])} (and {number(data['unlabelled'])} without a label yet)")
    table.add_row(
        facts["metric"],
        f"{number(metric['value'])} ({number(metric['low'])} to {number(metric['high'])}), "
        f"baseline {number(facts['baseline'][facts['metric']])}",
    )
    table.add_row("search", facts["search"]["says"])
    if outcome.over_champion:
        over = outcome.over_champion
        gain, low, high = ("n/a" if over[key] is None else f"{over[key]:+.4f}" for key in ("value", "low", "high"))
        table.add_row("over champion", f"{gain} ({low} to {high}), same rows")
    table.add_row("verdict", "passed the gate" if outcome.passed else "did not pass the gate")
    for check in outcome.verdict["checks"]:
        if not check["passed"]:
            table.add_row("", check["says"])
    version = f"{outcome.version}, {outcome.status}" if outcome.version else "none: kept in MLflow, not registered"
    table.add_row("version", version)
    if outcome.champion and outcome.champion != outcome.version:
        table.add_row("champion", f"{outcome.champion}{_promotion(outcome)}")
    steps = ", ".join(f"{name} {taken:.1f}" for name, taken in report.seconds.items())
    table.add_row("seconds", f"{seconds:.1f} in all: {steps}" + ("" if report.fresh else "; nothing has changed"))
    table.add_row("report", "reports/report.html (`make report` shows where)")
    table.add_row("MLflow", "`make ui` serves its page")
    table.add_row("Prefect", _flow_run(prefect_api_url, report.flow_run))
    print()
    console().print(table)


def _flow_run(address: str, flow_run: str) -> str:
    """Return the page of a flow run, or how to keep a server that has one."""
    if address:
        return f"{address.rstrip('/').removesuffix('/api')}/runs/flow-run/{flow_run}"
    return (
        "a temporary server, ended with this run. To keep one: `prefect server start`, then "
        "PREFECT_API_URL=http://127.0.0.1:4200/api in .env"
    )


def _promotion(outcome: Any) -> str:
    """Return how a version becomes champion: one that is no challenger, such as after a rollback, has to be named."""
    if outcome.version is None:
        return ""
    if outcome.status == "challenger":
        return "; `make promote` puts the challenger in its place"
    return f"; `make promote VERSION={outcome.version} WHY=...` puts version {outcome.version} in its place"
