"""Commands of the MLflow registry."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from copier_mlops import ProjectError, _exit_codes
from copier_mlops._command_line import DECIDE, applied_settings, commands, fail, tool, warn

if TYPE_CHECKING:
    from copier_mlops.settings import Settings

app = commands()


@app.command(rich_help_panel=DECIDE)
def ui(port: Annotated[int, typer.Option(help="Port on the loopback address.")] = 5000) -> None:
    """Serve the MLflow page of the runs, until stopped."""
    settings = applied_settings()
    uri = settings.mlflow_tracking_uri
    if "://" in uri and not uri.startswith("sqlite:"):
        print(f"MLflow's page of this project: {_page(uri, _experiment(settings))}")
        return
    from copier_mlops.registry.database import experiment_of, settle_in

    settle_in(uri)
    _check_free(port)
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    print(f"MLflow on port {port}: {_page(f'http://127.0.0.1:{port}', experiment_of(uri))}", flush=True)
    os.execv(tool("mlflow"), ["mlflow", "server", "--backend-store-uri", uri, *options])


def _page(address: str, experiment: str | None) -> str:
    """Return the page of an experiment's runs; without an experiment that of MLflow."""
    runs = f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return address.rstrip("/") + (runs if experiment else "")


def _experiment(settings: Settings) -> str | None:
    from copier_mlops.registry.mlflow_registry import Registry

    try:
        return Registry(settings).experiment
    except ProjectError as error:
        warn(str(error))
        return None


def _check_free(port: int) -> None:
    """End the command if another program listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            fail(
                f"MLflow's page cannot be served on port {port} ({getattr(error, 'strerror', None) or error}). "
                f"Choose another one: make ui PORT={port + 1}"
            )


@app.command("move-registry", rich_help_panel=DECIDE)
def move_registry(
    uri: Annotated[str, typer.Argument(help="http://127.0.0.1:5000, or another sqlite:/// file.")],
) -> None:
    """Copy the registry to another store, and use that."""
    if not uri:
        fail("name the store to move to: make move-registry URI=http://127.0.0.1:5000", _exit_codes.USAGE)
    settings = applied_settings()
    from copier_mlops.registry import store_migration
    from copier_mlops.versioning import dvc

    with dvc.only_run():
        done = store_migration.move(settings, uri)
    print(
        f"there, and compared: {done.runs} runs, {done.trials} trials, {done.models} models, {done.versions} versions, "
        f"{done.files:,} files, the moves of the champion"
    )
    print(f"MLFLOW_TRACKING_URI in .env is {uri} now; champion.json names the runs there, commit it")
    if not done.holds:
        print("note: MLFLOW_TRACKING_URI is also set in the environment, which wins over .env: set it anew there")
    if done.left:
        print(f"note: not of this project, and not copied: {', '.join(done.left)}")
    print(
        f"the store before, {settings.mlflow_tracking_uri}, is as it was. To go back, write its address into .env, then: "
        "make history"
    )
