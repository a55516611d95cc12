"""Commands of automation: the monitoring stack of this host, the alert webhook, and the actions that it starts."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import typer

from copier_mlops import InProgressError, ProjectError, UnreachableError, _exit_codes, _interruption
from copier_mlops._command_line import MONITOR, applied_settings, commands, fail

app = commands()


@app.command("monitoring-up", rich_help_panel=MONITOR)
def monitoring_up() -> None:
    """Start MLflow, Prefect, Prometheus, Alertmanager, Grafana and the alert webhook.

    ENGINE=process uses installed programs in place of containers; ONLY="prometheus alertmanager" starts a part.
    """
    from copier_mlops.automation import monitoring_stack

    with _stack() as settings:
        monitoring_stack.up(settings)


@app.command("monitoring-down", rich_help_panel=MONITOR)
def monitoring_down() -> None:
    """Stop what `mlops monitoring-up` started; what it wrote stays in .monitoring."""
    from copier_mlops.automation import monitoring_stack

    with _stack() as settings:
        monitoring_stack.down(settings)


@contextmanager
def _stack() -> Iterator[Mapping[str, str]]:
    """Hold the stack for one command at a time, and yield the settings of this host."""
    from xmlrpc.client import Error

    from copier_mlops import _locks
    from copier_mlops.automation.monitoring_stack import PLACE
    from copier_mlops.deploy import host

    _interruption.without_time_limit()
    PLACE.mkdir(exist_ok=True)
    try:
        with _locks.locked(PLACE / "lock", wait=False):
            yield host.settings()
    except _locks.HeldError:
        raise InProgressError("`make up` or `make down` is at it already") from None
    except (Error, ValueError) as error:
        raise ProjectError(str(error)) from error


@app.command("check-monitoring", rich_help_panel=MONITOR)
def check_monitoring() -> None:
    """Check policy, alert rules, their tests and alert routes, with promtool and amtool."""
    if not (shutil.which("promtool") and shutil.which("amtool")):
        fail(
            "promtool or amtool is not installed; they come with Prometheus and Alertmanager (apt-get install prometheus "
            "prometheus-alertmanager; prometheus.io/download)"
        )
    from copier_mlops.automation import monitoring_checks

    monitoring_checks.check()


@app.command("alert-webhook", hidden=True)
def alert_webhook() -> None:
    """Receive alerts and start the actions of monitoring/policy.yaml, until stopped."""
    _interruption.without_time_limit()
    from copier_mlops.automation import alert_webhook as webhook

    if not webhook.serve():
        raise typer.Exit(_exit_codes.ERROR)


# ----------------------------------------------------------------------------------- Actions of the alert webhook


@contextmanager
def _try_later() -> Iterator[None]:
    """End with the exit code for another attempt if a server does not respond."""
    try:
        yield
    except UnreachableError as error:
        fail(str(error), _exit_codes.TRY_LATER)


@app.command("request-training", hidden=True)
def request_training(key: Annotated[str, typer.Option(help="The same key requests one run, however often.")]) -> None:
    """Request a run of the deployment that trains, and do not wait for it."""
    settings = applied_settings()
    from copier_mlops.automation.actions import retrain

    with _try_later():
        print(retrain(settings, key))


@app.command("promote-proposed", hidden=True)
def promote_proposed(reason: Annotated[str, typer.Option(help="Reason for the record.")]) -> None:
    """Promote and deploy the challenger, if the monitoring report still proposes it."""
    settings = applied_settings()
    from copier_mlops.monitoring.candidates import proposed

    with _try_later():
        version = proposed(settings)
    words = [sys.executable, "-m", "copier_mlops", "promote-deploy", f"--version={version}", f"--reason={reason}"]
    os.execv(words[0], words)


@app.command(hidden=True)
def notify() -> None:
    """Send the text of standard input to NOTIFY_URLS; its first line is the title."""
    settings = applied_settings()
    from copier_mlops.automation.actions import tell

    with _try_later():
        print(tell(settings, sys.stdin.read()))
