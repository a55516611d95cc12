"""Before and after the stages: what the rules of params.yaml come to today, and what a finished run was made from."""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from copier_mlops import ProjectError, UnreachableError, project
from copier_mlops.contract.validation import FIRST_MOMENT
from copier_mlops.data import tables
from copier_mlops.evaluation.gate import Outcome
from copier_mlops.params import RUN, ParamsError, Run, Source, load_params, load_run, load_source, resolve, save_run
from copier_mlops.pipeline import code_digests
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc


def resolve_run(settings: Settings, small: bool = False, guess: Mapping[str, Any] | None = None) -> Run:
    """Ask the source whether it changed and write run.yaml.

    Args:
        settings: Where the source is.
        small: Take as little as a review does.
        guess: The hyperparameters that a review tries first.

    Raises:
        ProjectError: If the source cannot be read, or params.yaml not be used.
    """
    params = load_params()
    if dvc.complete_params(params.model_dump(mode="json")):
        params = load_params()
    with readable_source(settings):
        fingerprint = project.source().fingerprint(settings.source_uri)
        known = _known()
        if known is None or known.fingerprint != fingerprint:  # counting rows is dear, asking for a change is not
            rows, newest = project.source().extent(settings.source_uri)
            if rows == 0:
                raise ProjectError(
                    "the source has no rows at all. Look whether SOURCE_URI names the right place and source.py "
                    "fits what is there."
                )
            time = project.contract().time
            if time and pd.isna(newest):
                raise ProjectError(
                    f"none of {rows:,} rows at the source has a {time} that can be read as a time. Look whether source.py says "
                    "how it is written (`styles` of its Table), and whether SOURCE_URI names the right place."
                )
            moment = newest.to_pydatetime(warn=False) if time and newest is not None else None
            known = Source(fingerprint=fingerprint, rows=rows, newest=moment)
    rules = hashlib.sha256(repr(project.contract()).encode()).hexdigest()[:16]
    forgotten = hashlib.sha256(Paths.FORGOTTEN.read_bytes()).hexdigest()[:16] if Paths.FORGOTTEN.exists() else ""
    overrides = {}
    if small:
        every = params.window.days is None and known.rows > params.review.rows
        span = _span(settings, known.newest) if every and known.newest else None
        overrides = params.small(known.rows, guess or {}, span)
    run = resolve(params, known, overrides).model_copy(
        update={"contract": rules, "forgotten": forgotten, "code": code_digests.digests()}
    )
    save_run(run)
    return run


def _span(settings: Settings, moment: dt.datetime) -> int:
    """The days from the oldest row at the source to the newest, which is of `moment`; reads the time of every row."""
    oldest = newest = pd.Timestamp(moment)
    with readable_source(settings):
        for chunk in project.source().read(
            settings.source_uri, FIRST_MOMENT, newest + pd.Timedelta(seconds=1), [str(project.contract().time)]
        ):
            found = pd.to_datetime(chunk[project.contract().time], utc=True, errors="coerce").min()
            oldest = oldest if pd.isna(found) else min(oldest, found)
    return (newest.normalize() - oldest.normalize()).days + 1


@contextlib.contextmanager
def readable_source(settings: Settings) -> Iterator[None]:
    """Turn whatever a file, a driver or a network raises while the source is read into a ProjectError."""
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:
        where = settings.source_uri or "the default place"
        kind = UnreachableError if isinstance(error, ConnectionError | TimeoutError) else ProjectError
        raise kind(
            f"the source at {where} cannot be read ({type(error).__name__}: {str(error).strip()}). "
            "Look whether SOURCE_URI names the right place, the file is whole, and source.py fits what is there."
        ) from error


def _known() -> Source | None:
    """What the last run knew of the source; nothing, if its file is damaged: it is only a memory."""
    try:
        return load_source() if RUN.exists() else None
    except ParamsError:
        return None


def period() -> str:
    """Return the window in run.yaml for a name, such as `2024-01-01 to 2024-12-31`; empty where rows have no time."""
    try:
        resolved = load_run().resolved
    except ParamsError:
        return ""
    if resolved.end is None:
        return ""
    return f"{resolved.start:%Y-%m-%d} to {resolved.end:%Y-%m-%d}" if resolved.start else f"to {resolved.end:%Y-%m-%d}"


def lineage() -> str:
    """A name for everything that a run came from: data, environment, settings, code.

    Raises:
        ProjectError: If the stages have not run.
    """
    if not Paths.LOCK.exists():
        raise ProjectError("dvc.lock is missing: the stages have not run. `make pipeline` runs them.")
    digest = hashlib.sha256()
    # The runtime's code counts by its digests in run.yaml: a docstring that changes records nothing again.
    code = sorted(path for path in project.folder().rglob("*") if path.suffix in (".py", ".csv"))
    for file in [Paths.LOCK, Paths.ENVIRONMENT, RUN, Path("dvc.yaml"), *code]:
        if file.exists():
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    digest.update(load_run().model_dump_json().encode())  # limits of the gate too, which are no dependency of a stage
    return digest.hexdigest()[:16]


def remember(settings: Settings, outcome: Outcome) -> None:
    """Note that a lineage is fully recorded, so that the next run need not even ask the registry."""
    tables.write_json({"outcome": vars(outcome), "store": _store(settings)}, Paths.DONE)


def recall(settings: Settings) -> Outcome | None:
    """The outcome of this lineage, if it is recorded in this very registry and nobody moved the champion since."""
    if not Paths.DONE.exists():
        return None
    try:
        done = tables.read_json(Paths.DONE)
        outcome = Outcome(**done["outcome"])
    except (ProjectError, KeyError, TypeError):
        return None
    return outcome if outcome.lineage == lineage() and done["store"] == _store(settings) else None


def _store(settings: Settings) -> list[str]:
    """What tells a registry from another one, or from itself before a move, without asking it."""
    uri = settings.mlflow_tracking_uri
    database = Path(uri.removeprefix("sqlite:///"))
    identity = str(database.stat().st_ino) if uri.startswith("sqlite:") and database.exists() else "remote"
    pointer = Paths.POINTER.read_text() if Paths.POINTER.exists() else ""
    return [uri, identity, hashlib.sha256(pointer.encode()).hexdigest()]
