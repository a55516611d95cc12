"""Commands of the stages: each alone, as dvc.yaml calls them, and all of them with DVC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from copier_mlops import _interruption
from copier_mlops._command_line import STAGES, TRAIN, applied_settings, commands, without_secrets

app = commands()


@app.command(rich_help_panel=TRAIN)
def pipeline() -> None:
    """Run the stages whose inputs changed, without registry."""
    settings = applied_settings()
    from copier_mlops.pipeline.run_config import resolve_run
    from copier_mlops.versioning import dvc

    with dvc.only_run(), _interruption.at_once(dvc.kept):
        resolve_run(settings)
        seconds = dvc.repro(settings)
    if seconds:
        print("done: " + ", ".join(f"{stage} {taken:.1f} s" for stage, taken in seconds.items()))
    else:
        print("nothing has changed since the last run")


@app.command(rich_help_panel=TRAIN)
def pull() -> None:
    """Fetch the data that dvc.lock names."""
    settings = applied_settings()
    from copier_mlops.versioning import dvc

    dvc.pull(settings)
    print("data is here")


@app.command(rich_help_panel=TRAIN)
def push() -> None:
    """Copy data versions to the remote store, snapshots to origin."""
    settings = applied_settings()
    from copier_mlops.versioning import dvc, snapshot

    dvc.push(settings)
    snapshot.push_versions()
    print("data is there")


# ------------------------------------------------------------------------------------------------------- Stages


@contextlib.contextmanager
def _stage() -> Iterator[None]:
    from copier_mlops.versioning.dvc import only_stage

    with only_stage():
        yield


@app.command(rich_help_panel=STAGES)
def resolve() -> None:
    """Resolve the rules of params.yaml for this run; writes run.yaml.

    Does nothing below a command that has resolved them.
    """
    settings = applied_settings()
    if settings.run_resolved:
        return
    from copier_mlops.pipeline.run_config import resolve_run

    with _stage():
        resolve_run(settings)


@app.command(rich_help_panel=STAGES)
def ingest() -> None:
    """Read the source; writes data/raw."""
    settings = applied_settings()
    from copier_mlops.pipeline.ingest import ingest

    with _stage():
        ingest(settings)


@app.command(rich_help_panel=STAGES)
def validate() -> None:
    """Check data/raw against the contract; writes data/validated."""
    applied_settings()
    from copier_mlops.pipeline.validate import validate

    with _stage():
        validate()


@app.command(rich_help_panel=STAGES)
def features() -> None:
    """Compute the inputs of the model; writes data/features."""
    applied_settings()
    from copier_mlops.pipeline.features import features

    with _stage():
        features()


@app.command(rich_help_panel=STAGES)
def train() -> None:
    """Search hyperparameters and fit the model; writes models/bundle."""
    without_secrets()
    from copier_mlops.pipeline.train import train

    with _stage():
        train()


@app.command(rich_help_panel=STAGES)
def evaluate() -> None:
    """Compute metrics, plots, report and model card; writes reports."""
    without_secrets()
    from copier_mlops.pipeline.evaluate import evaluate
    from copier_mlops.settings import Paths
    from copier_mlops.versioning import dvc

    with _stage():
        dvc.check_output(Paths.BUNDLE)
        evaluate()
