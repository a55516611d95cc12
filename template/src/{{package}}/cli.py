"""The commands: one per stage, as dvc.yaml calls them, and those of the Makefile."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.table import Table

from . import NAME, ProjectError, UnreachableError, faults, interruption
from .environment import restart_for_model
from .settings import Settings, SettingsError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Why = Annotated[str, typer.Option(help="The reason, kept with the move.")]


def main() -> None:
    """Run a command; what the reader can mend ends as one message and exit code 1."""
    try:
        settings = Settings()
        if sys.argv[1:2] in (["train"], ["evaluate"]):  # they load a model, and need no secret
            restart_for_model(settings.environment())
        else:
            settings.apply()
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # Typer returns the code instead of the exception
            raise KeyboardInterrupt
    except SettingsError as error:
        fail(str(error), 2)
    except ProjectError as error:
        _fail_in_own_file(error, str(error))
        fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        fail(interruption.STOPPED, INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # of the command line: typer keeps the class to itself
            fail(f"{error.format_message()}; `make` lists how each command is called.", 2)
        _fail_in_own_file(error, f"{type(error).__name__}: {error}")
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _fail_in_own_file(error: Exception, cause: str) -> None:
    """End with the line of the user's file that failed and its cause; return if no such file is involved."""
    line = faults.own_line(error)
    if line:
        print(line, file=sys.stderr)
        fail(f"{cause}\n{faults.keep(error)}")


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error and end."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", envvar="QUIET", help="Print errors and JSON only.")] = False,
) -> None:
    """A table in, a champion model out."""
    if quiet:
        # The file itself, not sys.stdout: tools that a command starts inherit it. JSON goes to a copy of the previous one.
        _json_to.append(os.fdopen(os.dup(1), "w"))
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)


_json_to: list[TextIO] = []


def _print_json(value: Any) -> None:
    text = json.dumps(_finite(value), indent=2, default=str, allow_nan=False)
    print(text, file=_json_to[-1] if _json_to else sys.stdout, flush=True)


def _finite(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which JSON has no words for."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ------------------------------------------------------------------------------------------------------- Stages


@contextlib.contextmanager
def _stage() -> Iterator[None]:
    from .io.dvc import only_stage

    with only_stage():
        yield


@app.command()
def resolve() -> None:
    """Stage: from the rules of params.yaml and the source to run.yaml. Commands that have done so skip it."""
    settings = Settings()
    if settings.run_resolved:
        return
    from .stages.resolve import resolve_run

    with _stage():
        resolve_run(settings)


@app.command()
def ingest() -> None:
    """Stage: from the source to data/raw."""
    from .stages.ingest import ingest

    with _stage():
        ingest(Settings())


@app.command()
def validate() -> None:
    """Stage: hold data/raw against the contract."""
    from .stages.validate import validate

    with _stage():
        validate()


@app.command()
def features() -> None:
    """Stage: compute data/features."""
    from .stages.features import features

    with _stage():
        features()


@app.command()
def train() -> None:
    """Stage: search, fit, write models/bundle."""
    from .stages.train import train

    with _stage():
        train()


@app.command()
def evaluate() -> None:
    """Stage: metrics, plots, report and model card."""
    from .io import dvc
    from .settings import Paths
    from .stages.evaluate import evaluate

    with _stage():
        dvc.check_output(Paths.BUNDLE)
        evaluate()


# ------------------------------------------------------------------------------------------------ Your own table


@app.command()
def adopt(
    data: Annotated[str, typer.Argument(help="A file, folder or glob, s3:// or a SQL address.")],
    target: Annotated[str, typer.Option(help="The column to predict.")] = "",
    time: Annotated[str, typer.Option(help="The column that orders rows.")] = "",
    identifier: Annotated[str, typer.Option("--id", help="The column that names a row.")] = "",
    group: Annotated[
        str, typer.Option(help="The column that names the subject, where subjects have several rows.")
    ] = "",
    query: Annotated[str, typer.Option(help="The SELECT of a SQL address.")] = "",
    problem: Annotated[str, typer.Option(help="classification or regression, where the target leaves it open.")] = "",
    header: Annotated[
        str, typer.Option(help="yes or no: whether the first line of a CSV file names the columns.")
    ] = "",
    drop: Annotated[str, typer.Option(help="Columns to leave out, separated by commas.")] = "",
    keep: Annotated[str, typer.Option(help="Columns that are known before the target is, separated by commas.")] = "",
    force: Annotated[bool, typer.Option(help="Write over files that somebody changed.")] = False,
) -> None:
    """Make this project one of your own table. Exit code 3 if files would be overwritten that somebody changed.

    The environment variable STYLE_<column> says how a column is written: "%d.%m.%Y", "1.234,5", "seconds".
    """
    from .stages.adopt import ChangedFilesError, Options, adopt

    if not data or not target:
        fail(
            "name the table and what to predict: make adopt DATA=../customers.csv TARGET=churned [TIME=...] [ID=...]", 2
        )
    try:
        if header not in ("", "yes", "no"):
            fail(f"HEADER={header}: there are yes and no.", 2)
        left, known = (tuple(filter(None, map(str.strip, given.split(",")))) for given in (drop, keep))
        options = Options(Settings.column_styles(), {"yes": True, "no": False}.get(header), left, known, group)
        done = adopt(Settings(), data, target, time, identifier, query, problem, force, options=options)
    except ChangedFilesError as error:
        fail(str(error), 3)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("column", "taken as", "why", "look at"):
        table.add_column(name, overflow="fold")
    for one in done.plan.decisions:
        role = one.role if one.role in ("left out", "feature") else f"the {one.role}"
        table.add_row(
            one.name, " ".join(filter(None, [role.replace("feature", "input,"), one.kind])), one.why, one.doubt
        )
    _console().print(table)
    for warning in done.plan.warnings:
        print(f"note: {warning}")
    for note in done.notes:
        print(note)
    print(f"\n{done.plan.rows:,} rows, a {done.plan.problem}. Written: {', '.join(done.written)}")
    print("Read them, then: make run")


@app.command()
def forget(subject: Annotated[str, typer.Argument(help="The value of the id, as the source has it.")]) -> None:
    """Take a subject's rows out of every store of this project."""
    from .core.schema import CONTRACT
    from .stages.forget import forget

    done = forget(Settings(), subject)
    if not (done.rows or done.files or done.answers or done.waiting):
        several = f" KEY is no {CONTRACT.group}: give the {CONTRACT.id} of each of its rows." if CONTRACT.group else ""
        _warn(f"no row here has this {CONTRACT.id}. Is it written as in the source?{several}")
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


# --------------------------------------------------------------------------------------------------------- Runs


@app.command()
def pipeline() -> None:
    """Run the stages that have something to do: DVC alone, no server, no registry."""
    from .io import dvc
    from .stages.resolve import resolve_run

    settings = Settings()
    with dvc.only_run(), interruption.at_once(dvc.kept):
        resolve_run(settings)
        seconds = dvc.repro(settings)
    if seconds:
        print("done: " + ", ".join(f"{stage} {taken:.1f} s" for stage, taken in seconds.items()))
    else:
        print("nothing has changed since the last run")


@app.command()
def review() -> None:
    """Try a change on little: stages, limits, champion.json, reports/review.md. Exit code 4 if a limit is missed."""
    from .io import dvc
    from .stages.review import review

    with dvc.only_run(), interruption.at_once(dvc.kept):
        done = review(Settings())
    _warn(done.note)
    print("reports/review.md: " + ("passed" if done.passed else "did not pass"))
    for reason in done.reasons:
        print(f"  {reason}", file=sys.stderr)
    print("dvc.lock and run.yaml are those of the review now; `make pipeline` makes the others again, from the cache")
    if not done.passed:
        raise typer.Exit(4)


@app.command()
def retrain() -> None:
    """Train where nothing is at hand: fetch, run, push. Says what is missing where there is no store that others see."""
    from .io import dvc
    from .settings import Paths

    settings = Settings()
    missing = settings.not_shared(dvc.configure_remote(settings))
    if missing:
        _warn(
            f"not configured, so nothing was trained: {' and '.join(missing)}. A runner keeps neither files nor a registry; "
            "name both in the repository's settings (Actions, variables), their keys as secrets, as .env.example says."
        )
        return
    if Paths.LOCK.exists():
        try:
            dvc.pull(settings)
        except UnreachableError as error:
            _warn(f"the data of the last run is not fetched, it is made again: {error}")
    code = 0
    try:
        run()
    except typer.Exit as left:
        code = left.exit_code
    _summary(settings)
    if code:
        raise typer.Exit(code)


def _summary(settings: Settings) -> None:
    """The verdict on the page of a job."""
    from .stages.resolve import recall

    outcome = recall(settings)
    if settings.github_step_summary and outcome is not None:
        with Path(settings.github_step_summary).open("a", encoding="utf-8") as page:
            page.write(outcome.markdown + "\n")


def _warn(text: str) -> None:
    """A note that nobody overlooks, on a runner of GitHub neither."""
    if text:
        print(f"::warning::{text}" if Settings().github_step_summary else f"note: {text}", flush=True)


@app.command()
def run() -> None:
    """Everything: stages, gate, registry, push. Exit code 4 if the model does not pass the gate."""
    begun = time.perf_counter()
    settings = Settings()
    where = settings.prefect_api_url or "a temporary one"
    from .io import dvc
    from .params import load_params

    load_params()  # a typo, or another run, is told before a server is started for it
    with dvc.only_run(), interruption.at_once(dvc.kept):
        print("reading the source", flush=True)
        with _stages_ahead(settings):
            print(f"Prefect server: {where}", flush=True)
            report = _flow(settings, where)
    _show(report, time.perf_counter() - begun)
    if not report.outcome.passed:
        raise typer.Exit(4)


@contextlib.contextmanager
def _stages_ahead(settings: Settings) -> Iterator[None]:
    """Begin the stages while Prefect is imported and its server starts; the flow waits for them.

    The flow tries again if a source does not respond. Any other error, such as a missing table, ends the command before
    a server is started.
    """
    from .io import dvc
    from .stages.resolve import resolve_run

    try:
        resolve_run(settings)
    except UnreachableError:
        yield
        return
    except ProjectError as error:
        if settings.notify_urls.get_secret_value():
            from .flows.train import notify

            notify(settings, "training failed", f"{type(error).__name__}: {error}")
        raise
    with dvc.ahead(settings):
        yield


def _flow(settings: Settings, where: str) -> Any:
    import httpx
    from prefect.exceptions import PrefectException

    from .flows.train import server_ends_with_us, train

    try:
        with server_ends_with_us(settings):
            return train()
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "API" not in str(error):
            raise
        raise UnreachableError(
            f"Prefect's server ({where}) does not answer: {str(error).strip() or type(error).__name__}. Look whether "
            "PREFECT_API_URL is right and the server runs; `make pipeline` runs the stages without it."
        ) from error


def _show(report: Any, seconds: float) -> None:
    from .core.report import number

    facts, outcome = report.facts, report.outcome
    found = facts["metrics"][facts["metric"]]
    table = Table(title=None, show_header=False, box=None, padding=(0, 2))
    data = facts["data"]
    table.add_row("rows in", number(data["rows"]))
    table.add_row("quarantined", f"{number(data['set_aside'])} (and {number(data['unlabelled'])} without a label yet)")
    table.add_row(
        facts["metric"],
        f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])}), "
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
        table.add_row("champion", f"{outcome.champion}{_way_up(outcome)}")
    steps = ", ".join(f"{name} {taken:.1f}" for name, taken in report.seconds.items())
    table.add_row("seconds", f"{seconds:.1f} in all: {steps}" + ("" if report.fresh else "; nothing has changed"))
    table.add_row("report", "reports/report.html (`make report` shows where)")
    table.add_row("MLflow", "`make ui` serves its page")
    table.add_row("Prefect", _where_it_ran(report.flow_run))
    print()
    _console().print(table)


def _where_it_ran(flow_run: str) -> str:
    """Return the page of a flow run, or how to keep a server that has one."""
    address = Settings().prefect_api_url
    if address:
        return f"{address.rstrip('/').removesuffix('/api')}/runs/flow-run/{flow_run}"
    return (
        "a temporary server, ended with this run. To keep one: `prefect server start`, then "
        "PREFECT_API_URL=http://127.0.0.1:4200/api in .env"
    )


def _way_up(outcome: Any) -> str:
    """How a version becomes champion: one that is no challenger, such as after a rollback, has to be named."""
    if outcome.version is None:
        return ""
    if outcome.status == "challenger":
        return "; `make promote` puts the challenger in its place"
    return f"; `make promote VERSION={outcome.version} WHY=...` puts version {outcome.version} in its place"


def _console() -> Console:
    """Wide enough off a terminal that no line of a log is cut."""
    return Console() if sys.stdout.isatty() else Console(width=160)


@app.command()
def pull() -> None:
    """Fetch the data that dvc.lock names."""
    from .io import dvc

    dvc.pull(Settings())
    print("data is here")


@app.command()
def push() -> None:
    """Copy the data's versions, and the snapshots, to where others find them."""
    from .io import dvc, git

    dvc.push(Settings())
    git.push_versions()
    print("data is there")


@app.command()
def predict(
    source: Annotated[Path, typer.Argument(help="A .parquet or .csv file with the columns of the contract.")],
    output: Annotated[Path, typer.Option(help="Gets a row per row.")] = Path("predictions.csv"),
    version: Annotated[int | None, typer.Option(help="Another version than the champion.")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the rows of a file."""
    from .stages.predict import predict

    number, answered, refused = predict(Settings(), source, output, version)
    if as_json:
        _print_json({"version": number, "predicted": answered, "quarantined": refused, "output": str(output)})
        return
    print(f"version {number} answered {answered:,} rows, set {refused:,} aside (see the column reason): {output}")


@app.command()
def schedule() -> None:
    """Register the schedule of prefect.yaml and work it off, until stopped."""
    settings = Settings()
    if not settings.prefect_api_url:
        fail(
            "a schedule needs a server: `prefect server start`, then PREFECT_API_URL=http://127.0.0.1:4200/api in .env."
        )
    register = (["work-pool", "create", "--type", "process", "--overwrite", NAME], ["--no-prompt", "deploy", "--all"])
    for words in register:
        if subprocess.run([_tool("prefect"), *words], check=False).returncode:
            fail(f"`prefect {' '.join(words)}` failed; what it said stands above. Is PREFECT_API_URL right?")
    os.execv(_tool("prefect"), ["prefect", "worker", "start", "--pool", NAME])


@app.command()
def ui(port: int = 5000) -> None:
    """Serve MLflow's page of this project's runs, until stopped."""
    uri = Settings().mlflow_tracking_uri
    if "://" in uri and not uri.startswith("sqlite:"):
        print(f"MLflow's page of this project: {_page(uri, _experiment(Settings()))}")
        return
    from .io.database import experiment_of, settle_in

    settle_in(uri)
    _check_free(port)
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    print(f"MLflow on port {port}: {_page(f'http://127.0.0.1:{port}', experiment_of(uri))}", flush=True)
    os.execv(_tool("mlflow"), ["mlflow", "server", "--backend-store-uri", uri, *where])


def _page(address: str, experiment: str | None) -> str:
    """Return the page of an experiment's runs; without an experiment that of MLflow."""
    runs = f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return address.rstrip("/") + (runs if experiment else "")


def _experiment(settings: Settings) -> str | None:
    from .io.registry import Registry

    try:
        return Registry(settings).experiment
    except ProjectError as error:
        _warn(str(error))
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


def _tool(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


# ----------------------------------------------------------------------------------------------------- Versions


@app.command()
def promote(version: Annotated[int | None, typer.Option()] = None, why: Why = "") -> None:
    """Make the challenger, or a version of your choice, the champion."""
    _move(lambda release, settings: release.promote(settings, version, why))


@app.command()
def rollback(
    why: Why = "",
    delivered: Annotated[bool, typer.Option(help="Only while the champion is the version in champion.json.")] = False,
) -> None:
    """Make the champion before this one champion again."""
    _move(lambda release, settings: release.rollback(settings, why, delivered))


def _move(act: Callable[[Any, Settings], Any]) -> None:
    from .io import dvc
    from .stages import release

    with dvc.only_run():
        now = act(release, Settings())
    print(f"version {now.number} is the champion; champion.json says so, commit it")


@app.command()
def verify() -> None:
    """Ask the champion its example rows again."""
    from .stages.release import verify

    version = verify(Settings())
    print(
        f"version {version.number} answers as it did" if version else "there is no champion yet; `make run` trains one"
    )


@app.command()
def history(as_json: AsJson = False) -> None:
    """List versions, verdicts and champion moves."""
    from .stages.history import history

    runs, moves = history(Settings())
    if as_json:
        _print_json({"runs": runs, "moves": moves})
        return
    if not runs:
        print("nothing was recorded yet; `make run` makes the first version")
        return
    _print("Runs", runs)
    _print("Moves of the champion", moves)


@app.command()
def compare(a: int, b: int, as_json: AsJson = False) -> None:
    """Compare two versions: metrics, columns, inputs, parameters, data."""
    from .stages.compare import compare

    tables = compare(Settings(), a, b)
    if as_json:
        _print_json(tables)
        return
    for title, rows in tables.items():
        _print(f"{title}" if rows else f"{title}: no difference", rows)


@app.command()
def reproduce(version: int) -> None:
    """Rebuild a version from its lineage and compare; exit code 5 if a metric differs."""
    from .io import dvc
    from .stages import reproduce as again

    settings = Settings()
    with dvc.only_run():
        agrees, lines = again.reproduce(settings, version)
    _print(f"Version {version}, rebuilt", lines)
    if agrees:
        print(f"version {version} is reproduced")
        return
    differing = ", ".join(again.differing_outputs(settings, version)) or "no output, only the metrics"
    print(f"version {version} is not reproduced; other content in: {differing}. Both are in .cache/reproduce.")
    raise typer.Exit(5)


@app.command("move-registry")
def move_registry(
    uri: Annotated[str, typer.Argument(help="http://127.0.0.1:5000, or another sqlite:/// file.")],
) -> None:
    """Copy the registry's history to another store, compare, and use that one from then on."""
    from .io import dvc, moving

    if not uri:
        fail("name the store to move to: make move-registry URI=http://127.0.0.1:5000", 2)
    settings = Settings()
    with dvc.only_run():
        done = moving.move(settings, uri)
    print(
        f"there, and compared: {done.runs} runs, {done.trials} trials, {done.models} models, {done.versions} versions, {done.files:,} files, the moves of the champion"
    )
    print(f"MLFLOW_TRACKING_URI in .env is {uri} now; champion.json names the runs there, commit it")
    if not done.holds:
        print("note: MLFLOW_TRACKING_URI is also set in the environment, which wins over .env: set it anew there")
    if done.left:
        print(f"note: not of this project, and not copied: {', '.join(done.left)}")
    print(
        f"the store before, {settings.mlflow_tracking_uri}, is as it was. To go back, write its address into .env, then: make history"
    )


def _print(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = dict.fromkeys(name for row in rows for name in row)  # runs may have been judged by different metrics
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    _console().print(table)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
