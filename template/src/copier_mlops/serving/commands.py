"""Commands of serving: bundles, the online service, batch and stream predictions, the prediction log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copier_mlops import ProjectError, _exit_codes, _interruption, project
from copier_mlops._command_line import SERVE, AsJson, Version, applied_settings, commands, print_json

if TYPE_CHECKING:
    from copier_mlops.bundle.bundle import Bundle
    from copier_mlops.settings import Settings

app = commands()

Input = Annotated[str, typer.Argument(help="A file, folder or glob of rows, here or at s3://.")]
Output = Annotated[str, typer.Argument(help="Folder that gets a row per row.")]


# ------------------------------------------------------------------------------------------------------ Bundles


@app.command(rich_help_panel=SERVE)
def bundle(
    version: Version = None,
    output: Annotated[Path | None, typer.Option(help="Folder, replaced as a whole; by default BUNDLE_DIR.")] = None,
) -> None:
    """Export a version, the champion by default, as a signed bundle."""
    settings = applied_settings()
    _export(settings, version, output or settings.bundle_dir, challenger=False)


@app.command("shadow-bundle", rich_help_panel=SERVE)
def shadow_bundle(
    version: Version = None,
    output: Annotated[Path, typer.Option(help="Folder, replaced as a whole.")] = Path("dist/shadow"),
) -> None:
    """Export the challenger, or a version of your choice, for shadow traffic."""
    _export(applied_settings(), version, output, challenger=True)


def _export(settings: Settings, version: int | None, folder: Path, challenger: bool) -> None:
    _interruption.without_time_limit()
    from copier_mlops.registry.database import CHALLENGER, CHAMPION
    from copier_mlops.serving.make_bundle import export

    done = export(settings, version, folder, CHALLENGER if challenger else CHAMPION)
    print(f"version {done.version} as {done.runtime}: {done.why}")
    signed = "signed" if done.signed else "not signed: for development; `make key` makes a key"
    print(f"{folder}, {done.digest[:12]}, {signed}")


@app.command("signing-keys", rich_help_panel=SERVE)
def signing_keys() -> None:
    """Create the keys that sign and verify bundles; writes .env."""
    settings = applied_settings()
    from copier_mlops.serving.make_bundle import key

    print(f".env has SIGNING_KEY now, which signs bundles and stays secret. Services need VERIFY_KEY={key(settings)}")


# ------------------------------------------------------------------------------------------------------- Online


@app.command(rich_help_panel=SERVE)
def serve() -> None:
    """Serve the bundle of BUNDLE_DIR over HTTP, until stopped; settings: .env.example."""
    words = [
        sys.executable,
        "-m",
        f"{project.package()}.service",
    ]  # as the image does, without what the command imports
    os.execv(words[0], words)


@app.command(rich_help_panel=SERVE)
def explain(
    prediction_id: Annotated[
        str, typer.Argument(metavar="PREDICTION_ID", help="The prediction_id of a response.")
    ] = "",
) -> None:
    """Show the contribution of each input to a logged prediction."""
    if not prediction_id:
        raise ProjectError("say which prediction: make explain ID=<the prediction_id of an answer>")
    from copier_mlops.data import deployment_logs
    from copier_mlops.serving import explanations
    from copier_mlops.serving.bundle_loader import answering
    from copier_mlops.settings import Settings

    settings = Settings()
    logs = deployment_logs.logs(settings)
    try:
        explainer = explanations.Explainer(answering(settings), settings, logs)
        print(explanations.table(explainer.explain_logged(prediction_id)))
    except explanations.NoSuchPredictionError as error:
        searched = ", ".join(map(str, logs or [settings.prediction_log]))
        raise ProjectError(f"{error} Searched: {searched}") from error


@app.command(rich_help_panel=SERVE)
def precompute(rows: Input = "") -> None:
    """Predict rows ahead, for the online service to look up."""
    _interruption.without_time_limit()
    if not rows:
        raise ProjectError("name the rows: make precompute INPUT=rows.parquet")
    from copier_mlops.serving.precompute import precompute
    from copier_mlops.settings import Settings

    settings = Settings()
    count, refused = precompute(settings, rows)
    without = f", {refused:,} break the contract and have none" if refused else ""
    print(f"{count:,} answers in {settings.precomputed}, for {settings.precomputed_hours:g} hours{without}")


# ------------------------------------------------------------------------------------------------------- Stream


@app.command("serve-stream", rich_help_panel=SERVE)
def serve_stream() -> None:
    """Predict the messages of the broker of STREAM_URL, until stopped."""
    _interruption.without_time_limit()
    from copier_mlops.serving import stream
    from copier_mlops.settings import Settings

    stream.serve(Settings())


# -------------------------------------------------------------------------------------------------------- Batch


@app.command("batch-predict", rich_help_panel=SERVE)
def batch_predict(
    rows: Input = "",
    output: Output = "",
    version: Annotated[str, typer.Option(help="Number of a registered version; by default the champion.")] = "",
    bundle: Annotated[str, typer.Option(help="Folder of a bundle, in place of a registered version.")] = "",
) -> None:
    """Predict a table of any size; a run that was stopped resumes."""
    if not rows or not output:
        raise ProjectError("name the table and where its answers go: make score INPUT=rows.parquet OUTPUT=answers")
    from copier_mlops.serving import batch
    from copier_mlops.settings import Settings

    if bundle:
        os.environ["BUNDLE_DIR"] = bundle
    settings = Settings()
    folder, loaded = _given_bundle(settings) if bundle else _registered_bundle(version)
    with _interruption.at_once(lambda: "stopped; finished parts are kept. Run the same command again to resume."):
        done = batch.score(loaded, rows, output, settings, folder)
    print(batch.told(done, output))


def _given_bundle(settings: Settings) -> tuple[Path, Bundle]:
    """Return the folder BUNDLE_DIR, and its bundle; outside development the signature has to be valid."""
    from copier_mlops.serving.bundle_loader import answering

    return settings.bundle_dir, answering(settings)


def _registered_bundle(version: str) -> tuple[Path, Bundle]:
    """Return the bundle of a registered version, which another process makes: this one needs neither registry nor credentials."""
    words = [sys.executable, "-m", "copier_mlops", "batch-bundle", *([version] if version else []), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    made = json.loads(done.stdout)
    from copier_mlops.bundle import serving_bundle

    return Path(made["folder"]), serving_bundle.load_made_here(Path(made["folder"]), made["digest"])


@app.command("batch-bundle", hidden=True)
def batch_bundle(version: Annotated[str, typer.Argument()] = "", as_json: AsJson = False) -> None:
    """Make the bundle of a registered version for batch predictions, once; print its folder and digest."""
    if version and not version.isdecimal():
        raise ProjectError(f"VERSION is the number of a version, not {version}; `make history` lists them.")
    settings = applied_settings()
    from copier_mlops.serving.batch_bundle import answering

    folder, digest = answering(settings, int(version) if version else None)
    if as_json:
        print_json({"folder": str(folder), "digest": digest})
    else:
        print(folder, digest)


@app.command("schedule-batch", rich_help_panel=SERVE)
def schedule_batch(
    rows: Input = "",
    output: Output = "",
    version: Version = None,
    cron: Annotated[
        str, typer.Option(help='When, in UTC: "0 4 * * *" is each day at four. Without it: once, now.')
    ] = "",
) -> None:
    """Predict a table on a schedule, until stopped.

    Needs PREFECT_API_URL.
    """
    _interruption.without_time_limit()
    settings = applied_settings()  # Prefect reads it from the environment when it is imported
    from copier_mlops.serving import batch_deployment

    batch_deployment.serve(settings, rows, output, version, cron)


# ---------------------------------------------------------------------------------------------------------- Log


@app.command("compact-log", rich_help_panel=SERVE)
def compact_log() -> None:
    """Convert the prediction logs of this host to Parquet, and apply LOG_KEEP_DAYS."""
    _interruption.without_time_limit()
    from copier_mlops.serving import compact_log as logs
    from copier_mlops.settings import Settings

    if not logs.compact(Settings()):
        raise typer.Exit(_exit_codes.ERROR)
