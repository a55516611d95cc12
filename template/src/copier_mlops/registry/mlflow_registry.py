"""MLflow: the history of runs, the registered versions, and who moved which alias when and why."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import logging
import re
import shutil
import sqlite3
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import requests
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

import copier_mlops
from copier_mlops import ProjectError, UnreachableError, project
from copier_mlops.bundle import bundle, bundle_files, isolated
from copier_mlops.bundle.isolated import Isolated
from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import REASON
from copier_mlops.evaluation.gate import run_name
from copier_mlops.registry.database import (
    CHALLENGER,
    CHAMPION,
    FILES,
    MOVE,
    PARENT,
    POINTER,
    RECORDED,
    TEXTS,
    Move,
    Records,
    RunRecord,
    Version,
    database,
    held,
    moves_of,
    parsed,
    recorded,
    settle_in,
    text_of,
    version_of,
    warn,
)
from copier_mlops.settings import Settings
from copier_mlops.versioning import snapshot

FACTS = "facts.json"
FROM_FACTS = ("target", "params", "slices", "columns")
"""Keys of champion.json that come from the facts of a run."""

REQUIREMENTS = ("numpy", "pandas", "scikit-learn", "cloudpickle", "pyarrow", "optuna", "pyyaml", "pydantic", "pydantic-settings",
                "requests")  # fmt: skip
"""Packages that the logged model imports, in an environment that MLflow makes for it; the project's own come on top."""

LONGEST = 4500
"""Characters of a tag. PostgreSQL refuses more than 5,000; longer texts are artifacts below TEXTS."""

LONGEST_SCHEMA = 60_000
"""Characters of a schema. MySQL refuses more than 65,535; a table of a thousand columns has no schema on MLflow's page."""

EXAMPLE = "serving_input_example.json"
"""Artifact of a run: a request body for `mlflow models serve`."""

LINEAGE_FILES = "lineage_files"
"""Tag of a run: the digests of its files, as JSON. Runs of 1.2 and earlier have none."""

EXPORTED = "exported."
"""Prefix of a version's tags. The rest of the name is the digest of a bundle that was made from the version."""

ACTIVE = "active"
MISSING = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
REJECTED = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    EXISTS,
    "RESOURCE_CONFLICT",
    "ENDPOINT_NOT_FOUND",
)
"""Codes of MLflow's errors."""

NOTE = "mlflow.note.content"
"""Tag of a run: the description that MLflow's page shows, in Markdown."""

_TYPES = {
    "string": DataType.string,
    "integer": DataType.double,  # a missing whole number is only possible as a float
    "number": DataType.double,
    "boolean": DataType.boolean,
    "timestamp": DataType.datetime,
}

KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""Tag of an experiment, and its value for which MLflow's page shows runs and not traces."""


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class RegistryError(ProjectError):
    """The registry cannot do what was requested; its text gives the cause and the fix."""


class MissingError(RegistryError):
    """MLflow does not have an object that the registry refers to: it was deleted or renamed there."""


@dataclass(frozen=True)
class Trial:
    """One trial of the search, which becomes a child run.

    Attributes:
        number: 1, 2, 3 ...
        state: `complete` or `pruned`.
        value: Metric of the gate; None if no fold gave one.
        params: Hyperparameters.
        times: Start and end in milliseconds; None if they are not known.
    """

    number: int
    state: str
    value: float | None
    params: Mapping[str, Any]
    times: tuple[int, int] | None = None


@dataclass(frozen=True)
class Data:
    """The version of the data of a training.

    Attributes:
        path: Folder, relative to the project.
        digest: Hash that DVC gives to the folder.
        profile: Facts for MLflow's page, such as the number of rows.
    """

    path: str
    digest: str
    profile: Mapping[str, Any]


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
        example: A few rows to predict.
        data: Version of the data; None if DVC does not know it.
        trials: Trials of the search.
        times: Start and end of the training in milliseconds; None if they are not known.
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
    data: Data | None = None
    trials: Sequence[Trial] = ()
    times: tuple[int, int] | None = None


class Scorer(PythonModel):
    """What `mlflow models serve` and `mlflow.pyfunc.load_model` run: the bundle, with its contract in front."""

    def load_context(self, context: Any) -> None:
        """Load the bundle, after its digest was compared with the one in the logged model; 1.2 and earlier log none."""
        recorded = str((context.model_config or {}).get("bundle", ""))
        self.bundle = bundle.load(Path(context.artifacts["bundle"]), digest=recorded)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Answer rows: the columns of `Bundle.answer`."""
        answers: pd.DataFrame = self.bundle.answer(model_input.reset_index(drop=True))
        return answers


def explained(error: Exception, uri: str) -> ProjectError:
    """Return the error of this project for one of MLflow's, with all of its text.

    Only a server or a database that does not respond is an UnreachableError. A request that MLflow rejects is not worth
    another attempt.
    """
    cause = textwrap.indent(str(error).strip() or type(error).__name__, "  ").strip()
    code = error.error_code if isinstance(error, MlflowException) else ""
    kind: type[ProjectError] = UnreachableError
    if _unanswered(error):
        said = f"MLflow at {uri} is not responding: {cause}\nStart it, or correct MLFLOW_TRACKING_URI. What was trained is kept."
    elif code == MISSING:
        kind = MissingError
        said = f"MLflow at {uri} does not have this object: {cause}\nIt was deleted or renamed there. `make history` shows what is left."
    elif code in DENIED:
        kind = RegistryError
        said = (
            f"MLflow at {uri} rejects these credentials: {cause}\nSet MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, in .env."
        )
    elif code in REJECTED:
        kind = RegistryError
        said = f"MLflow at {uri} rejects the request: {cause}"
    else:
        said = f"MLflow at {uri} failed: {cause}\nWhat was trained is kept. Remove the cause, then run the same command again."
    return kind(re.sub(r"://[^/\s@]*@", "://***@", said))


def _unanswered(error: BaseException | None) -> bool:
    """Whether a connection failed or timed out, somewhere among the causes of an error."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | requests.ConnectionError | requests.Timeout):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cut(text: str, artifact: str) -> str:
    """Return the beginning of a long text, and the place of the rest."""
    return f"{text[:500]}... (all of it: artifact {artifact})"


def _shortened(text: str) -> str:
    """Return a description that fits into a tag, cut at the end of a line."""
    if len(text) <= LONGEST:
        return text
    end = max(text.rfind("\n", 0, LONGEST - 100), 0) or LONGEST - 100
    return text[:end] + "\n\nThe artifact `model_card.md` of the run has all of it."


def _requirements() -> list[str]:
    """Return the installed versions of all packages that the model needs, those that the user added among them."""
    own = [found[0] for found in map(re.compile(r"[\w.-]+").match, project.dependencies()) if found]
    pinned = []
    for name in dict.fromkeys([*REQUIREMENTS, *own]):
        with contextlib.suppress(PackageNotFoundError):  # of another platform
            pinned.append(f"{name}=={installed(name)}")
    return pinned


def _title(params: Mapping[str, Any], metrics: Mapping[str, float], status: str, number: int | None = None) -> str:
    metric = str(params.get("gate.metric", ""))
    return run_name(metric, metrics.get(metric), status, number)


def _sentence(move: Move) -> str:
    """Return a move of the champion as text for MLflow's page."""
    action = "rolled back" if move.action == "rollback" else "promoted"
    previous = f"version {move.before}" if move.before else "none"
    when = dt.datetime.fromisoformat(move.when).astimezone(dt.UTC)
    return f"{action} {when:%Y-%m-%d %H:%M} UTC by {move.who}, previous champion: {previous}. Reason: {move.why}"


def _holders(model: RegisteredModel | None, versions: Iterable[Version]) -> dict[str, Version]:
    return held({alias: int(number) for alias, number in (model.aliases if model else {}).items()}, versions)


class Registry:
    """The registry of this project's model.

    Args:
        settings: Names the store.

    Raises:
        UnreachableError: From every method, if MLflow does not respond, or fails.
        MissingError: From every method, if what it refers to was deleted in MLflow.
        RegistryError: From every method, if MLflow rejects the request.
    """

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.mlflow_tracking_uri
        self.deleted = False
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        with self._talking():
            settle_in(self.uri)
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)  # else MLFLOW_REGISTRY_URI, which may be that of another project
            self.client = MlflowClient(self.uri, self.uri)
            self.experiment = self._experiment()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError, sqlite3.Error) as error:
            raise explained(error, self.uri) from error

    def _experiment(self) -> str:
        found = self._get_or_create(project.name())
        if found.lifecycle_stage != ACTIVE:
            warn(
                f"the experiment {project.name()} was deleted in MLflow at {self.uri}, and its runs with it. `make run` restores both. "
                f"By hand: mlflow experiments restore --experiment-id {found.experiment_id}"
            )
            self.deleted = True
        elif KIND not in found.tags:
            with contextlib.suppress(MlflowException):  # a user who may only read
                self.client.set_experiment_tag(found.experiment_id, KIND, TRAINING)
        return str(found.experiment_id)

    def _get_or_create(self, name: str) -> Experiment:
        """Return the experiment of a name, deleted or not; created if MLflow has none."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return found
        file = database(self.uri)  # a server knows itself where files go
        place = (file.parent / FILES).as_uri() if file else None
        try:
            return self.client.get_experiment(self.client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != EXISTS:
                raise
            return self._get_or_create(name)  # another process or thread created it in between

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
        self._restore()
        known = self.find(record.lineage)
        if known:
            return known
        with self._talking():
            for broken in self.client.search_runs([self.experiment], f"tags.lineage = '{record.lineage}'"):
                self._delete(broken.info.run_id)  # begun by a run that was killed
            now = int(time.time() * 1000)
            started, ended = record.times or (now, None)
            tags = {**record.tags, "lineage": record.lineage, "verdict": "passed" if record.passed else "failed"}
            tags |= {NOTE: _shortened(record.tags.get(NOTE, "")), RECORDED: str(now)}
            name = _title(record.params, record.metrics, "passed" if record.passed else "rejected")
            run_id = self._create_run(self.experiment, tags, run_name=name, start_time=started)
            self.client.log_batch(
                run_id,
                metrics=[Metric(name, value, now, 0) for name, value in record.metrics.items() if value == value],
                params=[Param(name, str(value)[:LONGEST]) for name, value in record.params.items()],
            )
            for file, place in record.files.items():
                if file.is_dir():
                    self.client.log_artifacts(run_id, str(file), place)
                else:
                    self.client.log_artifact(run_id, str(file), place or None)
            if record.data:
                self._log_data(run_id, record.data, record.contract)
            for trial in record.trials:
                self._log_trial(run_id, trial, str(record.params.get("gate.metric", "value")), started)
            self._log_model(run_id, record)
            self.client.set_terminated(run_id, "FINISHED", ended)
        return run_id

    def _delete(self, run_id: str) -> None:
        """Delete a run with its trials."""
        for child in self.client.search_runs([self.experiment], f"tags.`{PARENT}` = '{run_id}'"):
            self.client.delete_run(child.info.run_id)
        self.client.delete_run(run_id)

    def _log_data(self, run_id: str, data: Data, contract: Contract) -> None:
        schema = Schema([ColSpec(_TYPES[column.kind], column.name) for column in contract.columns])
        described = json.dumps({"mlflow_colspec": schema.to_dict()})
        dataset = Dataset(
            name=data.path,
            digest=data.digest,
            source_type="local",
            source=json.dumps({"uri": data.path}),
            schema=described if len(described) <= LONGEST_SCHEMA else None,
            profile=json.dumps(data.profile),
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _log_trial(self, parent: str, trial: Trial, metric: str, now: int) -> None:
        """Log a trial in three requests; nothing here reads it again."""
        began, ended = trial.times or (now, now)
        value = {} if trial.value is None else {metric: trial.value}
        child = self.client.create_run(
            self.experiment,
            start_time=began,
            tags={PARENT: parent, "state": trial.state},
            run_name=f"trial {trial.number} {run_name(metric, trial.value, trial.state)}",
        ).info.run_id
        self.client.log_batch(
            child,
            metrics=[Metric(name, found, ended, 0) for name, found in value.items() if found == found],
            params=[Param(name, str(found)[:LONGEST]) for name, found in trial.params.items()],
        )
        self.client.set_terminated(child, "FINISHED", ended)

    def _create_run(self, experiment: str, tags: Mapping[str, str], **more: Any) -> str:
        """Create a run. Tags that are too long become artifacts, which `text` reads."""
        long = {name: text for name, text in tags.items() if len(text) > LONGEST}
        cut = {name: _cut(text, f"{TEXTS}/{name}.txt") for name, text in long.items()}
        run_id = str(self.client.create_run(experiment, tags={**tags, **cut}, **more).info.run_id)
        for name, text in long.items():
            self.client.log_text(run_id, text, f"{TEXTS}/{name}.txt")
        return run_id

    def _log_model(self, run_id: str, record: Record) -> None:
        columns = record.contract.without_target()
        outputs: list[ColSpec | TensorSpec] = []
        if record.contract.classes:
            outputs.append(ColSpec(DataType.string, "prediction"))
        outputs += [ColSpec(DataType.double, name) for name in dict.fromkeys(["score", *record.contract.answers])]
        outputs.append(ColSpec(DataType.string, REASON))
        # MLflow compares types before the contract does, and rejects times with a zone and whole numbers of a CSV file.
        unchecked = AnyType()  # type: ignore[no-untyped-call]
        inputs: list[ColSpec | TensorSpec] = [
            ColSpec(
                DataType.string if column.kind == "string" else unchecked, column.name, required=not column.nullable
            )
            for column in columns
        ]
        signature = ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))
        example = record.example.copy()
        for column in columns:  # 1.0 and 0.0 in our tables, and missing ones among them
            if column.kind == "boolean":
                example[column.name] = example[column.name].astype("object").map(bool, na_action="ignore")
        for name in example.select_dtypes("datetimetz"):
            example[name] = example[name].dt.tz_convert(None)
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*An input example was not provided", UserWarning)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=Scorer(),
                artifacts={"bundle": str(record.model)},
                code_paths=[str(Path(copier_mlops.__file__).parent)],
                pip_requirements=_requirements(),
                model_config={"bundle": record.tags["bundle"]},
                signature=signature,  # no `input_example`: MLflow would load the model in this process to try it
            )
        request = json.loads(example.to_json(orient="split", index=False, date_format="iso"))
        self.client.log_text(run_id, json.dumps({"dataframe_split": request}), EXAMPLE)

    def runs(self) -> list[Any]:
        """All finished runs without the trials of their searches, the oldest first."""
        found: list[Any] = []
        token: str | None = ""
        with self._talking():
            while token is not None:
                page = self.client.search_runs([self.experiment], max_results=1000, page_token=token or None)
                found, token = [*found, *page], page.token or None
        finished = [run for run in found if run.info.status == "FINISHED" and PARENT not in run.data.tags]
        return sorted(finished, key=lambda run: (recorded(run.data.tags, run.info.start_time), run.info.run_id))

    def records(self) -> Records:
        """Return all finished runs, versions and moves."""
        runs = [
            RunRecord(
                run.info.run_id,
                recorded(run.data.tags, run.info.start_time),
                run.data.metrics,
                run.data.params,
                {**run.data.tags, **({"checks": self.text(run, "checks")} if "checks" in run.data.tags else {})},
            )
            for run in self.runs()
        ]
        model = self._model()
        aliases = {alias: int(number) for alias, number in (model.aliases if model else {}).items()}
        return Records(runs, self.versions(), moves_of(model.tags if model else {}), aliases)

    def run(self, run_id: str) -> Any:
        """One run, with its data."""
        with self._talking():
            return self.client.get_run(run_id)

    def text(self, run: Any, tag: str) -> str:
        """Return the whole text of a run's tag, which is an artifact if it is long.

        Raises:
            MissingError: If the run has neither.
        """
        value = run.data.tags.get(tag)
        if value is None:
            raise MissingError(
                f"run {run.info.run_id} has no tag `{tag}`: it was deleted in MLflow at {self.uri}. `make run` records a new run."
            )
        artifact = f"{TEXTS}/{tag}.txt"
        if not value.endswith(_cut("", artifact)):
            return str(value)
        with tempfile.TemporaryDirectory() as scratch:
            return self.fetch(run.info.run_id, artifact, Path(scratch)).read_text(encoding="utf-8")

    def _restore(self) -> None:
        """Restore the experiment if it was deleted: MLflow takes no run for a deleted one, and no other of its name."""
        if self.deleted:
            with self._talking():
                self.client.restore_experiment(self.experiment)
            self.deleted = False

    def fetch(self, run_id: str, artifact: str, target: Path) -> Path:
        """Download an artifact of a run into a folder."""
        target.mkdir(parents=True, exist_ok=True)
        with self._talking():
            return Path(self.client.download_artifacts(run_id, artifact, str(target)))

    def attach(self, run_id: str, file: Path) -> None:
        """Add a file to the artifacts of a run, in place of one of the same name."""
        with self._talking():
            self.client.log_artifact(run_id, str(file))

    # ------------------------------------------------------------------------------------------ Versions

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        with self._talking():
            found = self.client.search_model_versions(f"name = '{project.name()}'", max_results=1000)
        made = [version_of(one.version, one.run_id, one.tags, one.creation_timestamp) for one in found]
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
            if one.lineage == lineage and (one.run_id == run_id or self._has_run(one)):
                return one
        run = self.run(run_id)
        with self._talking():
            try:
                self.client.create_registered_model(project.name())
            except MlflowException as error:
                if error.error_code != EXISTS:
                    raise
            models = self.client.search_logged_models([self.experiment], f"source_run_id = '{run_id}'")
            made = self.client.create_model_version(
                project.name(),
                source=models[0].model_uri if models else f"runs:/{run_id}/model",
                run_id=run_id,
                model_id=models[0].model_id if models else None,
                tags={"lineage": lineage, "status": "archived"},
                description=run.data.tags.get(NOTE),
            )
            name = _title(run.data.params, run.data.metrics, "archived", int(made.version))
            self.client.update_run(run_id, name=name)
        return self.version(int(made.version))

    def _name_run(self, version: Version, status: str) -> None:
        """Give the run of a version its name in MLflow's list."""
        with contextlib.suppress(MissingError):
            run = self.run(version.run_id)
            name = _title(run.data.params, run.data.metrics, status, version.number)
            if run.info.lifecycle_stage == ACTIVE and run.info.run_name != name:
                with self._talking():
                    self.client.update_run(version.run_id, name=name)

    def _has_run(self, version: Version) -> bool:
        """Whether the run of a version is in MLflow, and not deleted."""
        try:
            return bool(self.run(version.run_id).info.lifecycle_stage == ACTIVE)
        except MissingError:
            return False

    def holder(self, alias: str) -> Version | None:
        """The version that has an alias."""
        return _holders(self._model(), self.versions()).get(alias)

    def _model(self) -> RegisteredModel | None:
        """The registered model with its aliases and tags; None before the first version."""
        with self._talking():
            try:
                return self.client.get_registered_model(project.name())
            except MlflowException as error:
                if error.error_code != MISSING:
                    raise
                return None

    def challenge(self, version: Version) -> None:
        """Make a version the challenger."""
        with self._talking():
            self.client.set_registered_model_alias(project.name(), CHALLENGER, str(version.number))
        self.settle()

    def bundle(self, version: Version) -> Path:
        """Return the folder of the version's bundle, fetched once.

        Raises:
            BundleError: If its digest differs from the recorded one. The files are then neither loaded nor kept.
        """
        digest = self.digest(version)
        target = Path(".cache/bundles") / f"{version.number}-{version.run_id}"

        def check(fetched: Path) -> None:
            try:
                bundle_files.contents(fetched, digest)
            except bundle_files.BundleError as error:
                place = f"the artifact store (run {version.run_id})"
                raise bundle_files.BundleError(str(error).replace(str(fetched), place)) from error

        folder = self._fetched(version, "bundle", target, check)
        bundle_files.contents(folder, digest)
        return folder

    def load(self, version: Version) -> Isolated:
        """Load the version's bundle in a process without secrets.

        Raises:
            BundleError: If its digest differs from the recorded one; then nothing of it is loaded.
            StaleBundleError: If it does not load with the installed packages.
        """
        return isolated.load(self.bundle(version), self.digest(version))

    def digest(self, version: Version) -> str:
        """Return the digest that was recorded for the version's bundle when it was trained.

        The run's tag records it. champion.json records it, too, for the champion: in the work tree and in git's HEAD.

        Raises:
            BundleError: If no digest is recorded, or the records differ.
        """
        try:
            tag = str(self.run(version.run_id).data.tags.get("bundle", ""))
        except MissingError as error:
            raise MissingError(
                f"run {version.run_id}, from which version {version.number} comes, was deleted in MLflow at {self.uri}. Use "
                "another version: make promote VERSION=n (`make history` lists them), or make run"
            ) from error
        committed = parsed(snapshot.committed(POINTER))
        for place, known in (("the work tree", parsed(text_of(POINTER))), ("git's HEAD", committed)):
            digest = str(known.get("bundle", ""))
            if known.get("run_id") == version.run_id and digest and digest != tag:
                fix = f"Find out who changed the tag `bundle` of run {version.run_id}, and set it back to the digest in git."
                if tag and (committed.get("run_id"), committed.get("bundle")) == (version.run_id, tag):
                    fix = f"git's HEAD agrees with MLflow, so the file was changed: `git restore --source HEAD {POINTER}` brings it back."
                raise bundle_files.BundleError(
                    f"version {version.number} is not loaded: MLflow records the digest {tag or '(none)'} for its bundle, and "
                    f"{POINTER} in {place} records {digest}. {fix}"
                )
        if not tag:
            raise bundle_files.BundleError(
                f"version {version.number} is not loaded: its run {version.run_id} has no tag `bundle` with the digest of its "
                "bundle. Train again: make run."
            )
        return tag

    def record_export(self, version: Version, digest: str) -> None:
        """Record the digest of a bundle that was made from a version, so that a kept one can be compared with it."""
        made = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        with self._talking():
            self.client.set_model_version_tag(project.name(), str(version.number), EXPORTED + digest, made)

    def has_export(self, version: Version, digest: str) -> bool:
        """Return whether `record_export` recorded this digest for the version."""
        with self._talking():
            return EXPORTED + digest in self.client.get_model_version(project.name(), str(version.number)).tags

    def _fetched(
        self, version: Version, artifact: str, target: Path, check: Callable[[Path], object] = lambda fetched: None
    ) -> Path:
        """An artifact at its place here; what a finished run kept stays as it is, so it is fetched once, and whole."""
        if not target.exists():
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                self.fetch(version.run_id, artifact, partial)
                check(partial / artifact)
                (partial / artifact).rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return target

    # --------------------------------------------------------------------------------------------- Moves

    def moves(self) -> list[Move]:
        """Every change of the champion, the oldest first."""
        return self._moves(self._model())

    @staticmethod
    def _moves(model: RegisteredModel | None) -> list[Move]:
        tags = model.tags if model else {}
        return moves_of(tags)

    def former(self) -> int | None:
        """Return the previous champion that a rollback restores; None without one. Deleted versions are left out."""
        line: list[int] = []
        for move in self.moves():
            if move.action == "rollback":  # it skips versions that were deleted
                while line and line[-1] != move.after:
                    line.pop()
            if not line or move.action != "rollback":
                line.append(move.after)
        there = {version.number for version in self.versions()} - set(line[-1:])
        former = [number for number in line[:-1] if number in there]
        return former[-1] if former else None

    def promote(self, version: Version, who: str, why: str) -> None:
        """Make a version the champion.

        Raises:
            RegistryError: If it is the champion already.
            BundleError: If its bundle does not answer as it did; then nothing is moved.
        """
        self._move("promote", self.holder(CHAMPION), version, who, why)

    def rollback(self, who: str, why: str) -> Version:
        """Make the champion before this one champion again.

        Raises:
            RegistryError: If there is none, or it is the champion already.
            BundleError: If its bundle does not answer as it did; then nothing is moved.
        """
        now, former = self.holder(CHAMPION), self.former()
        if former is None:
            raise RegistryError(
                "there is nothing to go back to: no version was champion before. `make history` shows all."
            )
        version = self.version(former)
        self._move("rollback", now, version, who, why)
        return version

    def _move(self, action: str, before: Version | None, after: Version, who: str, why: str) -> None:
        if before is not None and before.number == after.number:
            raise RegistryError(f"version {after.number} is the champion already.")
        bundle.verify(self.load(after))
        number = len(self.moves()) + 1
        when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        artifact = f"{TEXTS}/move-{number:05d}.txt"
        with self._talking():
            if len(why) > LONGEST // 2:  # in JSON a character may take two
                self.client.log_text(after.run_id, why, artifact)
                why = _cut(why, artifact)
            move = Move(action, before.number if before else None, after.number, who, when, why)
            # The move is written first: what a kill leaves undone, `settle` does from it.
            self.client.set_registered_model_tag(project.name(), f"{MOVE}{number:05d}", json.dumps(vars(move)))
        self.settle()

    def settle(self) -> None:
        """Bring aliases, status tags and champion.json to what the last move says; changes nothing if all agree."""
        model, versions = self._model(), self.versions()  # asked once: each question is a journey to a server
        moves, holders = self._moves(model), _holders(model, versions)
        champion, challenger = holders.get(CHAMPION), holders.get(CHALLENGER)
        if model is None:
            self._miss_model()
        if moves and moves[-1].after not in {version.number for version in versions}:
            warn(
                f"version {moves[-1].after}, the champion, was deleted in MLflow at {self.uri}. Make another version champion: "
                "make promote VERSION=n (`make history` lists them), or make run"
            )
            champion = None
        elif moves:
            number = moves[-1].after
            with self._talking():
                if champion is None or champion.number != number:
                    self.client.set_registered_model_alias(project.name(), CHAMPION, str(number))
                    champion = next(version for version in versions if version.number == number)
                if challenger is not None and challenger.number == number:
                    self.client.delete_registered_model_alias(project.name(), CHALLENGER)
                    challenger = None
        for version in versions:
            status = "archived"
            if challenger is not None and version.number == challenger.number:
                status = CHALLENGER
            if champion is not None and version.number == champion.number:
                status = CHAMPION
            if version.status != status:
                self._name_run(version, status)
                with self._talking():
                    self.client.set_model_version_tag(project.name(), str(version.number), "status", status)
        if champion is not None and moves:
            self._describe(champion, moves[-1], model)
            self._point(champion, moves[-1])

    def _describe(self, champion: Version, move: Move, model: RegisteredModel | None) -> None:
        """Show the last move, and the model card of the champion, on MLflow's page of the registered model."""
        sentence = _sentence(move)
        tag = f"version {champion.number}, {sentence}"
        if model is None or model.tags.get(CHAMPION) == tag:
            return
        card = ""
        with contextlib.suppress(MissingError):
            card = str(self.run(champion.run_id).data.tags.get(NOTE, ""))
        with contextlib.suppress(MlflowException):  # a user who may only read; nothing here depends on it
            self.client.set_model_version_tag(project.name(), str(champion.number), CHAMPION, sentence)
            if card:
                self.client.update_registered_model(project.name(), card)
            self.client.set_registered_model_tag(project.name(), CHAMPION, tag)

    def _facts(self, version: Version, run: Any) -> dict[str, Any]:
        """Return what a model check compares, in addition to metrics; empty for a version that recorded none.

        If the file is not the recorded one, champion.json keeps its content, provided that it is of this run.
        """
        recorded = str(json.loads(run.data.tags.get(LINEAGE_FILES, "{}")).get(FACTS, ""))
        file = Path(".cache/facts") / f"{version.run_id}.json"
        try:
            if recorded and file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() != recorded:
                file.unlink()
            content = self._fetched(version, FACTS, file).read_bytes()
            if recorded and hashlib.sha256(content).hexdigest() != recorded:
                warn(
                    f"{POINTER} takes no limits from {FACTS} of version {version.number}: the file in the artifact store (run "
                    f"{version.run_id}) is not the recorded one. Find out who changed it, and restore it from a backup."
                )
                pointer = parsed(text_of(POINTER))
                same_run = pointer.get("run_id") == version.run_id
                return {name: pointer[name] for name in FROM_FACTS if same_run and name in pointer}
            facts = json.loads(content)
        except (ProjectError, OSError, ValueError):
            return {}
        slices = [{key: line[key] for key in ("slice", "group", "rows", "value")} for line in facts.get("slices", [])]
        known = {key: facts[key] for key in ("target", "params") if key in facts}
        return {**known, "slices": slices, "columns": facts.get("names", [])}

    def _miss_model(self) -> None:
        """Warn if the champion of champion.json was recorded in this MLflow, and the registered model is not there."""
        known = parsed(text_of(POINTER))
        with contextlib.suppress(MissingError):
            if known.get("run_id"):
                self.run(str(known["run_id"]))
                warn(
                    f"MLflow at {self.uri} has no registered model {project.name()}, of which {POINTER} names version "
                    f"{known.get('version')}: it was deleted or renamed there. Rename it back, or start again with version 1: make run"
                )

    def _point(self, champion: Version, move: Move) -> None:
        """Write champion.json for those who have no registry at hand: a pull request's CI, a fork, the delivery."""
        try:
            run, digest = self.run(champion.run_id), self.digest(champion)
        except (MissingError, bundle_files.BundleError) as error:  # the file has what was recorded, and keeps it
            warn(f"{POINTER} is not written: {error}")
            return
        content = {
            "model": project.name(),
            "version": champion.number,
            "lineage": champion.lineage,
            "run_id": champion.run_id,
            "snapshot": run.data.tags.get("snapshot", ""),
            "bundle": digest,
            "data": run.data.tags.get("data", ""),
            "metrics": dict(sorted(run.data.metrics.items())),
            **self._facts(champion, run),
            "since": move.when,
            "by": move.who,
            "why": move.why,
        }
        text = json.dumps(content, indent=2) + "\n"
        if not POINTER.exists() or POINTER.read_text() != text:
            partial = POINTER.with_suffix(".partial")
            partial.write_text(text)
            partial.replace(POINTER)
