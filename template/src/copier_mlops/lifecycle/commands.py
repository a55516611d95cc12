"""Commands of the model's lifecycle: train, inspect, promote, reproduce, predict a file, erase a subject."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from copier_mlops import ProjectError, UnreachableError, _exit_codes, _interruption, project
from copier_mlops._command_line import (
    CI,
    DECIDE,
    SERVE,
    TABLE,
    TRAIN,
    AsJson,
    Reason,
    Version,
    applied_settings,
    commands,
    fail,
    print_json,
    print_table,
    tool,
    warn,
)

if TYPE_CHECKING:
    from copier_mlops.settings import Settings

app = commands()

VersionNumber = Annotated[int, typer.Argument(help="Number of a registered version.")]


# --------------------------------------------------------------------------------------------------------- Runs


@app.command(rich_help_panel=TRAIN)
def run() -> None:
    """Train on what is new, evaluate, register, push.

    Exit code 4 if the model misses the gate. DVC runs the stages whose inputs changed, inside a Prefect flow; MLflow records the result.
    """
    begun = time.perf_counter()
    settings = applied_settings()
    server = settings.prefect_api_url or "a temporary one"
    from copier_mlops.params import load_params
    from copier_mlops.versioning import dvc

    load_params()  # a typo, or another run, is reported before a server is started for it
    with dvc.only_run(), _interruption.at_once(dvc.kept):
        print("reading the source", flush=True)
        with _stages_ahead(settings):
            print(f"Prefect server: {server}", flush=True)
            report = _flow(settings, server)
    from copier_mlops.lifecycle import run_summary

    run_summary.show(report, time.perf_counter() - begun, settings.prefect_api_url)
    if not report.outcome.passed:
        raise typer.Exit(_exit_codes.LIMIT_MISSED)


@contextlib.contextmanager
def _stages_ahead(settings: Settings) -> Iterator[None]:
    """Begin the stages while Prefect is imported and its server starts; the flow waits for them.

    The flow tries again if a source does not respond. Any other error, such as a missing table, ends the command before
    a server is started.
    """
    from copier_mlops.pipeline.run_config import resolve_run
    from copier_mlops.versioning import dvc

    try:
        resolve_run(settings)
    except UnreachableError:
        yield
        return
    except ProjectError as error:
        if settings.notify_urls.get_secret_value():
            from copier_mlops.lifecycle.flow_steps import notify

            notify(settings, "training failed", f"{type(error).__name__}: {error}")
        raise
    with dvc.ahead(settings):
        yield


def _flow(settings: Settings, server: str) -> Any:
    import httpx
    from prefect.exceptions import PrefectException

    from copier_mlops.lifecycle.flow_steps import server_ends_with_us

    train = project.module("flow").train

    try:
        with server_ends_with_us(settings):
            return train()
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "API" not in str(error):
            raise
        raise UnreachableError(
            f"Prefect's server ({server}) does not answer: {str(error).strip() or type(error).__name__}. Look whether "
            "PREFECT_API_URL is right and the server runs; `make pipeline` runs the stages without it."
        ) from error


@app.command(rich_help_panel=TRAIN)
def schedule() -> None:
    """Train on the schedule of prefect.yaml, until stopped.

    Needs PREFECT_API_URL.
    """
    settings = applied_settings()
    if not settings.prefect_api_url:
        fail(
            "a schedule needs a server: `prefect server start`, then PREFECT_API_URL=http://127.0.0.1:4200/api in .env."
        )
    register = (
        ["work-pool", "create", "--type", "process", "--overwrite", project.name()],
        ["--no-prompt", "deploy", "--all"],
    )
    for words in register:
        if subprocess.run([tool("prefect"), *words], check=False).returncode:
            fail(f"`prefect {' '.join(words)}` failed; what it said stands above. Is PREFECT_API_URL right?")
    os.execv(tool("prefect"), ["prefect", "worker", "start", "--pool", project.name()])


@app.command("model-check", rich_help_panel=CI)
def model_check() -> None:
    """Train on few rows and check the limits; writes reports/review.md.

    Exit code 4 if a limit is missed.
    """
    settings = applied_settings()
    from copier_mlops.lifecycle.model_check import review
    from copier_mlops.versioning import dvc

    with dvc.only_run(), _interruption.at_once(dvc.kept):
        done = review(settings)
    warn(done.note)
    print("reports/review.md: " + ("passed" if done.passed else "did not pass"))
    for reason in done.reasons:
        typer.echo(f"  {reason}", err=True)
    print("dvc.lock and run.yaml are those of the review now; `make pipeline` makes the others again, from the cache")
    if not done.passed:
        raise typer.Exit(_exit_codes.LIMIT_MISSED)


@app.command("ci-train", rich_help_panel=CI)
def ci_train() -> None:
    """Fetch the data, train, push; for an empty checkout.

    Without stores that other machines reach, it names what is missing and trains nothing.
    """
    settings = applied_settings()
    from copier_mlops.settings import Paths
    from copier_mlops.versioning import dvc

    missing = settings.not_shared(dvc.configure_remote(settings))
    if missing:
        warn(
            f"not configured, so nothing was trained: {' and '.join(missing)}. A runner keeps neither files nor a registry; "
            "name both in the repository's settings (Actions, variables), their keys as secrets, as .env.example says."
        )
        return
    if Paths.LOCK.exists():
        try:
            dvc.pull(settings)
        except UnreachableError as error:
            warn(f"the data of the last run is not fetched, it is made again: {error}")
    code = _exit_codes.DONE
    try:
        run()
    except typer.Exit as left:
        code = left.exit_code
    _summary(settings)
    if code:
        raise typer.Exit(code)


def _summary(settings: Settings) -> None:
    """Add the verdict to the page of the job."""
    from copier_mlops.pipeline.run_config import recall

    outcome = recall(settings)
    if settings.github_step_summary and outcome is not None:
        with Path(settings.github_step_summary).open("a", encoding="utf-8") as page:
            page.write(outcome.markdown + "\n")


# ----------------------------------------------------------------------------------------------------- Versions


@app.command(rich_help_panel=DECIDE)
def history(as_json: AsJson = False) -> None:
    """List versions, verdicts and champion moves."""
    settings = applied_settings()
    from copier_mlops.lifecycle.history import history

    runs, moves = history(settings)
    if as_json:
        print_json({"runs": runs, "moves": moves})
        return
    if not runs:
        print("nothing was recorded yet; `make run` makes the first version")
        return
    print_table("Runs", runs)
    print_table("Moves of the champion", moves)


@app.command(rich_help_panel=DECIDE)
def compare(a: VersionNumber, b: VersionNumber, as_json: AsJson = False) -> None:
    """Compare two versions: metrics, columns, inputs, parameters, data."""
    settings = applied_settings()
    from copier_mlops.lifecycle.compare import compare

    tables = compare(settings, a, b)
    if as_json:
        print_json(tables)
        return
    for title, rows in tables.items():
        print_table(f"{title}" if rows else f"{title}: no difference", rows)


@app.command(rich_help_panel=DECIDE)
def promote(version: Version = None, reason: Reason = "") -> None:
    """Make the challenger, or a version of your choice, the champion."""
    promote_version(applied_settings(), version, reason)


def promote_version(settings: Settings, version: int | None, reason: str) -> int:
    """Make a version the champion, the challenger by default; return its number."""
    from copier_mlops.lifecycle import registration
    from copier_mlops.versioning import dvc

    with dvc.only_run():
        champion = registration.promote(settings, version, reason)
    print(f"version {champion.number} is the champion; champion.json says so, commit it")
    return champion.number


def roll_back_champion(settings: Settings, reason: str, delivered: bool = False) -> int:
    """Make the previous champion the champion again; return its number.

    Args:
        settings: the registry.
        reason: reason for the record.
        delivered: whether to do it only while the champion is the version in champion.json.
    """
    from copier_mlops.lifecycle import registration
    from copier_mlops.versioning import dvc

    with dvc.only_run():
        champion = registration.rollback(settings, reason, delivered)
    print(f"version {champion.number} is the champion; champion.json says so, commit it")
    return champion.number


@app.command("verify-champion", rich_help_panel=DECIDE)
def verify_champion() -> None:
    """Check that the champion predicts its example rows as before."""
    settings = applied_settings()
    from copier_mlops.lifecycle.registration import verify

    version = verify(settings)
    print(
        f"version {version.number} answers as it did" if version else "there is no champion yet; `make run` trains one"
    )


@app.command(rich_help_panel=DECIDE)
def reproduce(version: VersionNumber) -> None:
    """Rebuild a version from its lineage and compare.

    Exit code 5 if a metric differs.
    """
    settings = applied_settings()
    from copier_mlops.lifecycle import reproduce as rebuild
    from copier_mlops.versioning import dvc

    with dvc.only_run():
        agrees, lines = rebuild.reproduce(settings, version)
    print_table(f"Version {version}, rebuilt", lines)
    if agrees:
        print(f"version {version} is reproduced")
        return
    differing = ", ".join(rebuild.differing_outputs(settings, version)) or "no output, only the metrics"
    print(f"version {version} is not reproduced; other content in: {differing}. Both are in .cache/reproduce.")
    raise typer.Exit(_exit_codes.NOT_REPRODUCED)


# --------------------------------------------------------------------------------------------------------- Rows


@app.command(rich_help_panel=SERVE)
def predict(
    source: Annotated[Path, typer.Argument(help="A .parquet or .csv file with the columns of the contract.")],
    output: Annotated[Path, typer.Option(help="File that gets a row per row.")] = Path("predictions.csv"),
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Predict the rows of a file, with the champion by default."""
    settings = applied_settings()
    from copier_mlops.lifecycle.predict import predict

    number, predicted, quarantined = predict(settings, source, output, version)
    if as_json:
        print_json({"version": number, "predicted": predicted, "quarantined": quarantined, "output": str(output)})
        return
    print(f"version {number} answered {predicted:,} rows, set {quarantined:,} aside (see the column reason): {output}")


@app.command(rich_help_panel=TABLE)
def forget(subject: Annotated[str, typer.Argument(help="Value of the id, as the source has it.")]) -> None:
    """Remove the rows of a data subject from every store of this project."""
    settings = applied_settings()
    from copier_mlops.lifecycle.erase import forget

    done = forget(settings, subject)
    if not (done.rows or done.files or done.answers or done.waiting):
        contract = project.contract()
        several = f" KEY is no {contract.group}: give the {contract.id} of each of its rows." if contract.group else ""
        warn(f"no row here has this {contract.id}. Is it written as in the source?{several}")
    print(f"removed: {done.rows:,} rows from the tables here, {done.files:,} files from the cache and the store")
    print("forgotten.txt keeps a keyed hash, so that the next run leaves the rows out; commit it with git")
    if done.versions:
        numbers = ", ".join(map(str, done.versions))
        print(f"versions {numbers} learnt from these rows and can no longer be reproduced. Train anew: make run")
    if done.answers or done.waiting:
        print(f"removed: {done.answers:,} entries from the log of what was answered")
    if done.waiting:
        print(f"{done.waiting:,} more stand in files that a service still writes: do the same again when it has ended")
    print("the source itself still holds what it holds, and so do answers kept elsewhere; remove the rows there, too")
