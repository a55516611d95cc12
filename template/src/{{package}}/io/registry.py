"""MLflow: the history of runs, the registered versions, and who moved which alias when and why."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from .. import NAME, ProjectError, UnreachableError
from ..core.contract import REASON, Contract
from ..io import bundle
from ..settings import Settings

POINTER = Path("champion.json")
CHAMPION, CHALLENGER = "champion", "challenger"
REQUIREMENTS = ("numpy", "pandas", "scikit-learn", "cloudpickle", "pyarrow", "optuna", "pyyaml", "pydantic")
MOVE = "move."
FILES = "mlartifacts"
CREATED = "moved.created"

_TYPES = {
    "string": DataType.string,
    "integer": DataType.double,  # a missing whole number is only possible as a float
    "number": DataType.double,
    "boolean": DataType.boolean,
    "timestamp": DataType.datetime,
}

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
"""Where MLflow's database keeps absolute places of files, by table and column."""


class RegistryError(ProjectError):
    """What is asked of the registry makes no sense."""


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        number: 1, 2, 3 ...
        run_id: The MLflow run that it came from.
        lineage: What it was made from.
        status: champion, challenger or archived.
        created: When it was registered.
    """

    number: int
    run_id: str
    lineage: str
    status: str
    created: dt.datetime


@dataclass(frozen=True)
class Move:
    """One change of the champion: which way, from which version to which, who, when, why."""

    action: str
    before: int | None
    after: int
    who: str
    when: str
    why: str


@dataclass(frozen=True)
class Record:
    """All that is kept of a run of the stages.

    Attributes:
        lineage: Names the run; recording the same lineage again changes nothing.
        passed: Whether it passed the gate.
        params, metrics, tags: As MLflow has them.
        files: Where each file or folder goes in the run's artifacts, by its path here.
        model: The folder of the bundle.
        contract: Types of the model's inputs.
        example: A few rows to answer.
    """

    lineage: str
    passed: bool
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: Mapping[Path, str]
    model: Path
    contract: Contract
    example: pd.DataFrame


class Scorer(PythonModel):
    """What `mlflow models serve` and `mlflow.pyfunc.load_model` run: the bundle, with its contract in front."""

    def load_context(self, context: Any) -> None:
        self.bundle = bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Answer rows: the columns of `Bundle.answer`."""
        answers: pd.DataFrame = self.bundle.answer(model_input.reset_index(drop=True))
        return answers


def database(uri: str) -> Path | None:
    """The file of a `sqlite:` address; None for any other."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute() if uri.startswith("sqlite:///") else None


def settle_in(uri: str) -> None:
    """Make a database that was moved or copied with its folder name the files that came along, before MLflow opens it.

    MLflow keeps absolute places. Each is changed to the same place beside the database as it lies now, unless a file is only
    where it was; all in one transaction. A copy is thereby a project of its own: it neither reads nor writes the files of
    the folder that it was copied from. Where no file came along and the old ones are there, nothing is changed.

    Raises:
        sqlite3.Error: If the database cannot be written to.
    """
    file = database(uri)
    if file is None or not file.is_file():
        return
    with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as base:
        old = _former_folder(base)
        if old is None or _folder(f"{old}/{FILES}").resolve() == (file.parent / FILES).resolve():
            return
        base.execute("BEGIN IMMEDIATE")
        new = _new_places(base, old, file.parent)
        for table, column, before, after in new:
            base.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (after, before))  # noqa: S608 - _PLACES
        base.execute("COMMIT")
    if new:
        was = "is a copy of" if _folder(old).exists() else "was moved from"
        said = f"this project {was} {_folder(old)}: its registry names the files in {file.parent} now"
        print(said, file=sys.stderr, flush=True)


def _folder(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path) if uri.startswith("file:") else uri)


def _former_folder(base: sqlite3.Connection) -> str | None:
    """The folder that the files of this project's runs lay beside the database in, as MLflow writes it."""
    try:
        found = base.execute("SELECT artifact_location FROM experiments WHERE name = ?", (NAME,)).fetchone()
    except sqlite3.DatabaseError:  # not MLflow's, or not yet: that is for MLflow to say
        return None
    place = str(found[0]) if found else ""
    return place.removesuffix(f"/{FILES}") if place.startswith("file:") and place.endswith(f"/{FILES}") else None


def _new_places(base: sqlite3.Connection, old: str, home: Path) -> list[tuple[str, str, str, str]]:
    """What to change: table, column, from, to. None if no file came along; then new files go beside the database at most."""
    roots = {f"{old}/": f"{home.as_uri()}/", f"{_folder(old)}/": f"{home}/"}  # the default experiment has no file://
    found = []
    for table, column in _PLACES:
        if column in {line[1] for line in base.execute(f"PRAGMA table_info({table})")}:
            for (place,) in base.execute(f"SELECT DISTINCT {column} FROM {table}"):  # noqa: S608 - _PLACES
                root = next((root for root in roots if str(place).startswith(root)), None)
                if root:
                    found.append((table, column, place, roots[root] + place.removeprefix(root)))
    came = [one for one in found if one[0] != "experiments" and _folder(one[3]).exists()]
    if came:
        return [one for one in found if _folder(one[3]).exists() or not _folder(one[2]).exists()]
    return [one for one in found if one[0] == "experiments" and not _folder(one[2]).exists()]


class Registry:
    """The registry of this project's model.

    Args:
        settings: Names the store.

    Raises:
        UnreachableError: From every method, if MLflow does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.mlflow_tracking_uri
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        with self._talking():
            settle_in(self.uri)
            mlflow.set_tracking_uri(self.uri)
            self.client = MlflowClient(self.uri)
            self.experiment = self._experiment()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError, sqlite3.Error) as error:
            said = str(error).splitlines()[0][:200]
            raise UnreachableError(
                f"MLflow at {self.uri} does not do its part: {said}. What was trained is kept; "
                "look whether MLFLOW_TRACKING_URI is right and its server runs, then do the same again."
            ) from error

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(NAME)
        if found is not None:
            return str(found.experiment_id)
        file = database(self.uri)  # a server knows itself where files go
        place = (file.parent / FILES).as_uri() if file else None
        return str(self.client.create_experiment(NAME, artifact_location=place))

    # ---------------------------------------------------------------------------------------------- Runs

    def find(self, lineage: str) -> str | None:
        """The finished run of a lineage."""
        with self._talking():
            query = f"tags.lineage = '{lineage}' and attributes.status = 'FINISHED'"
            found = self.client.search_runs([self.experiment], query, max_results=1)
        return str(found[0].info.run_id) if found else None

    def log(self, record: Record) -> str:
        """Log a run unless its lineage has one.

        Returns:
            The run's id.
        """
        known = self.find(record.lineage)
        if known:
            return known
        with self._talking():
            for broken in self.client.search_runs([self.experiment], f"tags.lineage = '{record.lineage}'"):
                self.client.delete_run(broken.info.run_id)  # begun by a run that was killed
            tags = {**record.tags, "lineage": record.lineage, "verdict": "passed" if record.passed else "failed"}
            run_id = str(self.client.create_run(self.experiment, run_name=record.lineage, tags=tags).info.run_id)
            now = int(time.time() * 1000)
            self.client.log_batch(
                run_id,
                metrics=[Metric(name, value, now, 0) for name, value in record.metrics.items() if value == value],
                params=[Param(name, str(value)[:6000]) for name, value in record.params.items()],
                tags=[RunTag("mlflow.note.content", record.tags.get("note", ""))],
            )
            for file, place in record.files.items():
                if file.is_dir():
                    self.client.log_artifacts(run_id, str(file), place)
                else:
                    self.client.log_artifact(run_id, str(file), place or None)
            self._log_model(run_id, record)
            self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def _log_model(self, run_id: str, record: Record) -> None:
        columns = record.contract.without_target()
        outputs: list[ColSpec | TensorSpec] = []
        if record.contract.classes:
            outputs.append(ColSpec(DataType.string, "prediction"))
        outputs += [ColSpec(DataType.double, name) for name in dict.fromkeys(["score", *record.contract.answers])]
        outputs.append(ColSpec(DataType.string, REASON))
        signature = ModelSignature(
            inputs=Schema(
                [ColSpec(_TYPES[column.kind], column.name, required=not column.nullable) for column in columns]
            ),
            outputs=Schema(outputs),
        )
        example = record.example.copy()
        for column in columns:  # 1.0 and 0.0 in our tables, and missing ones among them
            if column.kind == "boolean":
                example[column.name] = example[column.name].astype("object").map(bool, na_action="ignore")
        for name in example.select_dtypes("datetimetz"):
            example[name] = example[name].dt.tz_convert(None)
        with mlflow.start_run(run_id=run_id):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=Scorer(),
                artifacts={"bundle": str(record.model)},
                code_paths=[str(Path(__file__).parent.parent)],
                pip_requirements=[f"{name}=={installed(name)}" for name in REQUIREMENTS],
                signature=signature,
                input_example=example,
            )

    def runs(self) -> list[Any]:
        """All finished runs, the oldest first."""
        with self._talking():
            found = self.client.search_runs([self.experiment], order_by=["attributes.start_time ASC"], max_results=1000)
        return [run for run in found if run.info.status == "FINISHED"]

    def run(self, run_id: str) -> Any:
        """One run, with its data."""
        with self._talking():
            return self.client.get_run(run_id)

    def fetch(self, run_id: str, artifact: str, target: Path) -> Path:
        """Download an artifact of a run into a folder."""
        target.mkdir(parents=True, exist_ok=True)
        with self._talking():
            return Path(self.client.download_artifacts(run_id, artifact, str(target)))

    # ------------------------------------------------------------------------------------------ Versions

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        with self._talking():
            found = self.client.search_model_versions(f"name = '{NAME}'", max_results=1000)
        made = [
            Version(
                int(one.version),
                str(one.run_id),
                one.tags.get("lineage", ""),
                one.tags.get("status", "archived"),
                dt.datetime.fromtimestamp(int(one.tags.get(CREATED, one.creation_timestamp)) / 1000, dt.UTC),
            )
            for one in found
        ]
        return sorted(made, key=lambda one: one.number)

    def version(self, number: int) -> Version:
        """One version.

        Raises:
            RegistryError: If there is no such version.
        """
        known = self.versions()
        for one in known:
            if one.number == number:
                return one
        there = ", ".join(str(one.number) for one in known) or "none yet; `make run` makes the first"
        raise RegistryError(f"there is no version {number}; there are {there}.")

    def register(self, run_id: str, lineage: str) -> Version:
        """Register a run's model unless its lineage is registered; without an alias."""
        for one in self.versions():
            if one.lineage == lineage:
                return one
        with self._talking():
            try:
                self.client.create_registered_model(NAME)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            models = self.client.search_logged_models([self.experiment], f"source_run_id = '{run_id}'")
            made = self.client.create_model_version(
                NAME,
                source=models[0].model_uri if models else f"runs:/{run_id}/model",
                run_id=run_id,
                model_id=models[0].model_id if models else None,
                tags={"lineage": lineage, "status": "archived"},
            )
        return self.version(int(made.version))

    def holder(self, alias: str) -> Version | None:
        """The version that has an alias."""
        return self._holders(self._model(), self.versions()).get(alias)

    def _model(self) -> RegisteredModel | None:
        """The registered model with its aliases and tags; None before the first version."""
        with self._talking():
            try:
                return self.client.get_registered_model(NAME)
            except MlflowException:
                self.client.search_registered_models(max_results=1)  # raises where it is MLflow that is missing
                return None

    @staticmethod
    def _holders(model: RegisteredModel | None, versions: Iterable[Version]) -> dict[str, Version]:
        numbers = {one.number: one for one in versions}
        aliases = {alias: int(number) for alias, number in (model.aliases if model else {}).items()}
        return {alias: numbers[number] for alias, number in aliases.items() if number in numbers}

    def challenge(self, version: Version) -> None:
        """Make a version the challenger."""
        with self._talking():
            self.client.set_registered_model_alias(NAME, CHALLENGER, str(version.number))
        self.settle()

    def bundle(self, version: Version) -> Path:
        """The version's bundle as a folder, fetched once and checked at every load."""
        return self._fetched(version, "bundle", Path(".cache/bundles") / f"{version.number}-{version.run_id}")

    def _fetched(self, version: Version, artifact: str, target: Path) -> Path:
        """An artifact at its place here; what a finished run kept stays as it is, so it is fetched once, and whole."""
        if not target.exists():
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            self.fetch(version.run_id, artifact, partial)
            (partial / artifact).rename(target)
            shutil.rmtree(partial)
        return target

    # --------------------------------------------------------------------------------------------- Moves

    def moves(self) -> list[Move]:
        """Every change of the champion, the oldest first."""
        return self._moves(self._model())

    @staticmethod
    def _moves(model: RegisteredModel | None) -> list[Move]:
        tags = model.tags if model else {}
        return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(MOVE)]

    def former(self) -> int | None:
        """The champion before this one, if rollbacks have left one."""
        line: list[int] = []
        for move in self.moves():
            if move.action == "rollback":
                line.pop()
            else:
                line.append(move.after)
        return line[-2] if len(line) > 1 else None

    def promote(self, version: Version, who: str, why: str) -> None:
        """Make a version the champion.

        Raises:
            RegistryError: If it is the champion already.
            BundleError: If its bundle does not answer as it did; then nothing is moved.
        """
        now = self.holder(CHAMPION)
        if now is not None and now.number == version.number:
            raise RegistryError(f"version {version.number} is the champion already.")
        self._move("promote", now, version, who, why)

    def rollback(self, who: str, why: str) -> Version:
        """Make the champion before this one champion again.

        Raises:
            RegistryError: If there is none.
            BundleError: If its bundle does not answer as it did; then nothing is moved.
        """
        now, former = self.holder(CHAMPION), self.former()
        if now is None or former is None:
            raise RegistryError(
                "there is nothing to go back to: no version was champion before. `make history` shows all."
            )
        version = self.version(former)
        self._move("rollback", now, version, who, why)
        return version

    def _move(self, action: str, before: Version | None, after: Version, who: str, why: str) -> None:
        bundle.verify(bundle.load(self.bundle(after)))
        number = len(self.moves()) + 1
        when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        move = Move(action, before.number if before else None, after.number, who, when, why)
        with self._talking():
            # The move is written first: what a kill leaves undone, `settle` does from it.
            self.client.set_registered_model_tag(NAME, f"{MOVE}{number:05d}", json.dumps(vars(move)))
        self.settle()

    def settle(self) -> None:
        """Bring aliases, status tags and champion.json to what the last move says; changes nothing if all agree."""
        model, versions = self._model(), self.versions()  # asked once: each question is a journey to a server
        moves, holders = self._moves(model), self._holders(model, versions)
        champion, challenger = holders.get(CHAMPION), holders.get(CHALLENGER)
        if moves:
            number = moves[-1].after
            with self._talking():
                if champion is None or champion.number != number:
                    self.client.set_registered_model_alias(NAME, CHAMPION, str(number))
                    champion = self.version(number)
                if challenger is not None and challenger.number == number:
                    self.client.delete_registered_model_alias(NAME, CHALLENGER)
                    challenger = None
        for version in versions:
            status = "archived"
            if challenger is not None and version.number == challenger.number:
                status = CHALLENGER
            if champion is not None and version.number == champion.number:
                status = CHAMPION
            if version.status != status:
                with self._talking():
                    self.client.set_model_version_tag(NAME, str(version.number), "status", status)
        if champion is not None and moves:
            self._point(champion, moves[-1])

    def _facts(self, version: Version) -> dict[str, Any]:
        """What a review compares beside metrics; nothing for a version that kept none."""
        try:
            file = self._fetched(version, "facts.json", Path(".cache/facts") / f"{version.run_id}.json")
            facts = json.loads(file.read_text(encoding="utf-8"))
        except (ProjectError, OSError, ValueError):
            return {}
        slices = [{key: line[key] for key in ("slice", "group", "rows", "value")} for line in facts.get("slices", [])]
        known = {key: facts[key] for key in ("target", "params") if key in facts}
        return {**known, "slices": slices, "columns": facts.get("names", [])}

    def _point(self, champion: Version, move: Move) -> None:
        """Write champion.json for those who have no registry at hand: a pull request's CI, a fork, the delivery."""
        run = self.run(champion.run_id)
        content = {
            "model": NAME,
            "version": champion.number,
            "lineage": champion.lineage,
            "run_id": champion.run_id,
            "snapshot": run.data.tags.get("snapshot", ""),
            "bundle": run.data.tags.get("bundle", ""),
            "data": run.data.tags.get("data", ""),
            "metrics": dict(sorted(run.data.metrics.items())),
            **self._facts(champion),
            "since": move.when,
            "by": move.who,
            "why": move.why,
        }
        text = json.dumps(content, indent=2) + "\n"
        if not POINTER.exists() or POINTER.read_text() != text:
            partial = POINTER.with_suffix(".partial")
            partial.write_text(text)
            partial.replace(POINTER)
