"""Moving the registry: the whole history from one MLflow store to another, where each step may be done again."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import (
    LifecycleStage,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from copier_mlops import ProjectError, UnreachableError, project
from copier_mlops.registry.database import CREATED, FILES, PARENT, database
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.settings import Settings
from copier_mlops.versioning import snapshot

OURS = "moved."
FROM = f"{OURS}from"
GAP = f"{OURS}gap"
GIVEN = f"{OURS}given"
KEPT_BY_MLFLOW = "mlflow.modelVersions"  # a server writes it onto a model that is registered


class MoveError(ProjectError):
    """The registry cannot be moved there; the one in use goes on being used."""


@dataclass(frozen=True)
class Moved:
    """What stands in the new store.

    Attributes:
        runs, trials, models, versions, files: How many of each.
        holds: Whether the address in `.env` counts, since the environment names no other.
        left: Experiments and registered models of the old store that are not this project's.
    """

    runs: int
    trials: int
    models: int
    versions: int
    files: int
    holds: bool
    left: tuple[str, ...]


def move(settings: Settings, uri: str, say: Callable[[str], None] = print) -> Moved:
    """Copy all that the registry knows to the store at `uri`, compare, and use that one from then on.

    What is there from an attempt that was cut off is taken up, nothing is there twice. The old store is only read.

    Args:
        settings: Name the store in use.
        uri: `http://host:port`, or `sqlite:///` and a path.
        say: Is called with each line that a person wants to see.

    Raises:
        MoveError: If the address cannot be used, is the store in use, holds what is not from here, or if the copy differs.
        UnreachableError: If a store stops answering; the same again goes on from there.
    """
    _check_address(settings.mlflow_tracking_uri, uri)
    before = Registry(settings)
    before.settle()
    try:
        after = Registry(settings.model_copy(update={"mlflow_tracking_uri": uri}))
    except UnreachableError as error:
        raise UnreachableError(f"nothing was moved, and URI may be wrong: {error}") from error
    copy = _Copy(before, after, say)
    with _going_on_later(settings.mlflow_tracking_uri, uri):
        copy.check()
        copy.runs()
        copy.models()
        files = copy.compare()
        copy.versions()
        copy.compare_versions()
        left = copy.left()
        holds = settings.keep("MLFLOW_TRACKING_URI", uri)
    after.settle()  # champion.json names the runs there from now on; a kill before this is mended by the next command
    return Moved(
        runs=len(copy.run_ids) - copy.trials,
        trials=copy.trials,
        models=len(copy.model_ids),
        versions=len(before.versions()),
        files=files,
        holds=holds,
        left=left,
    )


def _check_address(now: str, uri: str) -> None:
    here, there = database(now), database(uri)
    if not there and not re.match(r"https?://[^/\s]", uri):
        raise MoveError(f"{uri} is no store that can be moved to: http://host:port, or sqlite:////shared/mlflow.db.")
    if "@" in uri or re.search(r"[\x00-\x1f'\"\\\\$]", uri):
        raise MoveError(
            "an address carries no user, password or quote. MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD stand in .env."
        )
    if uri.rstrip("/") == now.rstrip("/") or (here and there and here.resolve() == there.resolve()):
        raise MoveError(f"{uri} is the store in use.")
    home = Path.cwd().resolve()
    if there and home in there.resolve().parents:
        for path in (there, there.parent / FILES):
            if not snapshot.ignored(path.resolve().relative_to(home)):
                raise MoveError(f"{path} lies in this project and git does not ignore it: name a place outside of it.")


@contextlib.contextmanager
def _going_on_later(now: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise UnreachableError(
            f"the move stopped: {str(error).strip()}\n{now} is still in use, and complete. Run the same command again once "
            f"both stores respond: it copies what is not yet at {uri}."
        ) from error


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    """All results of a search that gives them page by page."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _all_runs(registry: Registry) -> list[Any]:
    """All runs, unfinished and deleted ones too, the oldest first; parents come before their children."""
    found = _pages(
        lambda page_token: registry.client.search_runs(
            [registry.experiment], "", ViewType.ALL, 500, ["attributes.start_time ASC"], page_token
        )
    )
    return sorted(found, key=lambda run: PARENT in run.data.tags)


def _all_models(registry: Registry) -> list[Any]:
    return list(
        _pages(lambda page_token: registry.client.search_logged_models([registry.experiment], page_token=page_token))
    )


def _all_versions(registry: Registry) -> dict[int, Any]:
    search = registry.client.search_model_versions
    found = _pages(lambda page_token: search(f"name = '{project.name()}'", max_results=500, page_token=page_token))
    return {int(one.version): one for one in found}


def _without_ours(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(OURS) and key != KEPT_BY_MLFLOW}


class _Copy:
    """One history in two stores: what is in the first, and what that is called in the second."""

    def __init__(self, before: Registry, after: Registry, say: Callable[[str], None]) -> None:
        self.before, self.after, self.say = before, after, say
        self.run_ids: dict[str, str] = {}
        self.model_ids: dict[str, str] = {}
        self.trials = 0

    # ------------------------------------------------------------------------------------------ May it be done?

    def check(self) -> None:
        """Refuse a store that is the one in use by another name, or holds what did not come from here."""
        here, there = (one.client.get_experiment(one.experiment) for one in (self.before, self.after))
        if (here.experiment_id, here.creation_time) == (there.experiment_id, there.creation_time):
            raise MoveError(f"{self.after.uri} is the store in use, by another name, or a copy of it.")
        if there.lifecycle_stage == LifecycleStage.DELETED:
            raise MoveError(
                f"the experiment {project.name()} was deleted at {self.after.uri}. Restore it there, or choose another store."
            )
        if not database(self.after.uri) and there.artifact_location.startswith(("/", "file:")):
            raise MoveError(
                f"{self.after.uri} wants files in a folder of its own machine ({there.artifact_location}). Start it with "
                "--artifacts-destination, so that it takes them itself, and with a fresh store."
            )
        known = {run.info.run_id for run in _all_runs(self.before)}
        strange = [run for run in _all_runs(self.after) if run.data.tags.get(FROM) not in known]
        lineages = {number: one.tags.get("lineage") for number, one in _all_versions(self.before).items()}
        others = [
            str(number)
            for number, one in sorted(_all_versions(self.after).items())
            if GAP not in one.tags and (number not in lineages or one.tags.get("lineage") != lineages[number])
        ]
        if strange or others:
            what = (
                f"version {', '.join(others)} of {project.name()}"
                if others
                else f"{len(strange)} runs of {project.name()}"
            )
            raise MoveError(
                f"{self.after.uri} holds {what}, which is not from {self.before.uri}. Histories cannot be mixed: choose a "
                "store that does not know this model's name."
            )

    # ------------------------------------------------------------------------------------------------- Copying

    def runs(self) -> None:
        """Copy what is not yet there. A run gets its end last: one that has none there was cut off and is done again."""
        there = {run.data.tags[FROM]: run for run in _all_runs(self.after) if FROM in run.data.tags}
        runs = _all_runs(self.before)
        self.trials = sum(PARENT in run.data.tags for run in runs)
        for number, run in enumerate(runs, start=1):
            twin = there.get(run.info.run_id)
            if twin is None:
                tags = {**self._run_tags(run), FROM: run.info.run_id}
                twin = self.after.client.create_run(
                    self.after.experiment, run.info.start_time, tags=tags, run_name=run.info.run_name
                )
            self.run_ids[run.info.run_id] = twin.info.run_id
            if twin.info.lifecycle_stage == LifecycleStage.DELETED:
                continue
            if twin.info.run_name != run.info.run_name:  # a version got another alias since an attempt that was cut off
                self.after.client.update_run(twin.info.run_id, name=run.info.run_name)
            if RunStatus.is_terminated(_status(twin)):
                continue
            self._fill(run, twin.info.run_id)
            if PARENT not in run.data.tags:
                self.say(f"  run {number} of {len(runs) - self.trials}: {run.info.run_name}, {run.info.status.lower()}")
            sys.stdout.flush()  # a log shows it as it goes
        experiment = self.before.client.get_experiment(self.before.experiment)
        for key, value in experiment.tags.items():
            self.after.client.set_experiment_tag(self.after.experiment, key, value)

    def _run_tags(self, run: Any) -> dict[str, str]:
        tags = _without_ours(run.data.tags)
        return {key: self.run_ids.get(value, value) for key, value in tags.items()}  # a parent is named by its id

    def _fill(self, run: Any, twin: str) -> None:
        client, old = self.after.client, run.info.run_id
        client.log_batch(
            twin,
            metrics=[Metric(one.key, one.value, one.timestamp, one.step) for one in self._metrics(self.before, run)],
            params=[Param(key, value) for key, value in run.data.params.items()],
            tags=[RunTag(key, value) for key, value in self._run_tags(run).items()],
        )
        if run.inputs and run.inputs.dataset_inputs:
            client.log_inputs(twin, run.inputs.dataset_inputs)
        with self._files(self.before, old) as folder:
            if any(folder.iterdir()):
                client.log_artifacts(twin, str(folder))
        if RunStatus.is_terminated(_status(run)):
            client.set_terminated(twin, run.info.status, run.info.end_time)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            client.delete_run(twin)

    def models(self) -> None:
        """Copy the models of the runs. A model is finished last, as a run is."""
        client = self.after.client
        there = {one.tags[FROM]: one for one in _all_models(self.after) if FROM in one.tags}
        for model in _all_models(self.before):
            twin = there.get(model.model_id)
            if twin is None:
                twin = client.create_logged_model(
                    self.after.experiment,
                    model.name,
                    self.run_ids.get(model.source_run_id, model.source_run_id),
                    tags={**_without_ours(model.tags), FROM: model.model_id},
                    params=model.params,
                    model_type=model.model_type,
                )
            self.model_ids[model.model_id] = twin.model_id
            if twin.status == LoggedModelStatus.PENDING:
                self._fill_model(model, twin)

    def _fill_model(self, model: Any, twin: Any) -> None:
        client = self.after.client
        for metric in model.metrics or []:
            again = Metric(metric.key, metric.value, metric.timestamp, metric.step, twin.model_id)
            client.log_batch(self.run_ids[metric.run_id], [again])
        with self._model_files(self.before, model) as folder:
            if any(folder.iterdir()):
                client.log_model_artifacts(twin.model_id, str(folder))
        if model.source_run_id in self.run_ids:
            run = client.get_run(self.run_ids[model.source_run_id])
            known = {one.model_id for one in run.outputs.model_outputs} if run.outputs else set()
            if twin.model_id not in known:
                client.log_outputs(run.info.run_id, [LoggedModelOutput(twin.model_id, 0)])
        if model.status != LoggedModelStatus.PENDING:
            client.finalize_logged_model(twin.model_id, model.status)

    def versions(self) -> None:
        """Register the same numbers; one that was deleted is made and deleted, so that no number gets another meaning."""
        client = self.after.client
        before, there = _all_versions(self.before), _all_versions(self.after)
        model = next(iter(self.before.client.search_registered_models(f"name = '{project.name()}'")), None)
        if model is None:
            return
        found = list(client.search_registered_models(f"name = '{project.name()}'"))
        given = (
            found[0].tags
            if found
            else client.create_registered_model(project.name(), description=model.description).tags
        )
        last = self._last(before, model.tags)
        for number in range(max([int(given.get(GIVEN, 0)), *there]) + 1, last + 1):
            self._register(before.get(number), number)
        client.set_registered_model_tag(
            project.name(), GIVEN, str(last)
        )  # before any is deleted: none of these is made again
        for number, twin in _all_versions(self.after).items():
            if GAP in twin.tags:
                client.delete_model_version(project.name(), str(number))
                continue
            for key, value in before[number].tags.items():  # they may have changed since an attempt that was cut off
                if twin.tags.get(key) != value:
                    client.set_model_version_tag(project.name(), str(number), key, value)
        for alias in {**client.get_registered_model(project.name()).aliases, **model.aliases}:
            if alias in model.aliases:
                client.set_registered_model_alias(project.name(), alias, str(model.aliases[alias]))
            else:
                client.delete_registered_model_alias(project.name(), alias)
        if found and found[0].description != model.description:
            client.update_registered_model(project.name(), model.description)
        for key, value in _without_ours(model.tags).items():  # the moves of the champion are among them
            client.set_registered_model_tag(project.name(), key, value)

    def _last(self, versions: dict[int, Any], tags: dict[str, str]) -> int:
        """The highest number that was ever given, as far as the store can tell."""
        moved = [int(tags.get(GIVEN, 0)), *(move.after for move in self.before.moves())]
        file = database(self.before.uri)
        if file:  # its rows of deleted versions stay
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as base:
                found = base.execute(
                    "SELECT max(version) FROM model_versions WHERE name = ?", (project.name(),)
                ).fetchone()
                moved.append(int(found[0] or 0))
        return max([*versions, *moved], default=0)

    def _register(self, one: Any, number: int) -> None:
        if one is None:
            some = next(iter(self.run_ids.values()))
            made = self.after.client.create_model_version(
                project.name(), f"runs:/{some}/model", some, tags={GAP: "deleted"}
            )
        else:
            source = self._renamed(one.source)
            model = source.removeprefix("models:/")
            made = self.after.client.create_model_version(
                project.name(),
                source,
                self.run_ids.get(one.run_id, one.run_id),
                tags={**one.tags, CREATED: one.tags.get(CREATED, str(one.creation_timestamp))},
                description=one.description,
                model_id=model if model in self.model_ids.values() else None,  # a server insists on it
            )
        if int(made.version) != number:
            raise MoveError(
                f"{self.after.uri} gave version {number} the number {made.version}: somebody else registers there, or "
                f"versions of {project.name()} were deleted there. Choose a store that does not know this model's name."
            )

    def _renamed(self, source: str) -> str:
        """`models:/m-1...` or `runs:/1.../model`, as it is called there."""
        for old, new in {**self.run_ids, **self.model_ids}.items():
            source = source.replace(old, new)
        return source

    # ---------------------------------------------------------------------------------------------------- Files

    @contextlib.contextmanager
    def _files(self, registry: Registry, run_id: str) -> Iterator[Path]:
        """A run's files in a folder of their own, as they are to be there."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = scratch
            if registry.client.list_artifacts(run_id):
                folder = mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=scratch, tracking_uri=registry.uri)
            self._rename_in(Path(folder), "")
            yield Path(folder)

    @contextlib.contextmanager
    def _model_files(self, registry: Registry, model: Any) -> Iterator[Path]:
        """The same of a model."""
        with tempfile.TemporaryDirectory() as scratch:
            folder, place = scratch, model.artifact_location
            if registry.client.list_logged_model_artifacts(model.model_id):
                folder = mlflow.artifacts.download_artifacts(place, dst_path=scratch, tracking_uri=registry.uri)
            twin = self.model_ids.get(model.model_id)
            self._rename_in(Path(folder), self.after.client.get_logged_model(twin).artifact_location if twin else "")
            yield Path(folder)

    def _rename_in(self, folder: Path, location: str) -> None:
        """MLmodel names the run, the model and their place; nothing else that MLflow writes does. Byte code stays behind."""
        for compiled in list(folder.rglob("__pycache__")):  # where a model was loaded, and only until the next time
            shutil.rmtree(compiled)
        for file in folder.rglob("MLmodel"):
            text = self._renamed(file.read_text(encoding="utf-8"))
            if location:
                text = re.sub(r"^artifact_path: .*$", lambda _: f"artifact_path: {location}", text, flags=re.M)
            file.write_text(text, encoding="utf-8")

    # ------------------------------------------------------------------------------------------------ Comparing

    def compare(self) -> int:
        """Hold runs and models of both stores against each other: all that is known of them, and sums of all files.

        Returns:
            How many files there are.

        Raises:
            MoveError: If something differs; the next attempt copies it anew.
        """
        client = self.after.client
        runs = {run.info.run_id: run for run in _all_runs(self.after)}
        models = {one.model_id: one for one in _all_models(self.after)}
        files = 0
        for run in _all_runs(self.before):
            twin = runs[self.run_ids[run.info.run_id]]
            here, there = self._run(self.before, run), self._run(self.after, twin)
            if here != there:
                client.update_run(twin.info.run_id, status="RUNNING")
                self._differs(f"run {run.info.run_name}", here, there)
            files += len(here["files"])
        for model in _all_models(self.before):
            twin = models[self.model_ids[model.model_id]]
            here, there = self._model(self.before, model), self._model(self.after, twin)
            if here != there:
                if not _all_versions(self.after):
                    client.delete_logged_model(twin.model_id)
                self._differs(f"model {model.model_id}", here, there)
            files += len(here["files"])
        return files

    def compare_versions(self) -> None:
        """Hold the versions, their names and the moves of both stores against each other.

        Raises:
            MoveError: If something differs.
        """
        here, there = self._registered(self.before), self._registered(self.after)
        if here != there:
            self._differs(f"the registered model {project.name()}", here, there)

    def _differs(self, what: str, here: dict[str, Any], there: dict[str, Any]) -> None:
        names = ", ".join(key for key in here if here[key] != there[key])
        raise MoveError(
            f"{what} differs between {self.before.uri} and {self.after.uri}, in {names}; the first is still in use. Do the same "
            "again while nobody trains; if it stays, choose a fresh store."
        )

    def _metrics(self, registry: Registry, run: Any) -> list[Any]:
        keys = run.data.metrics
        return [one for key in keys for one in registry.client.get_metric_history(run.info.run_id, key)]

    def _run(self, registry: Registry, run: Any) -> dict[str, Any]:
        """All that is to be the same of a run, with the names of the store after."""
        with self._files(registry, run.info.run_id) as folder:
            sums = _sums(folder)
        info = run.info
        return {
            "name": info.run_name,
            "status": info.status,
            "times": (info.start_time, info.end_time),
            "deleted": info.lifecycle_stage,
            "parameters": run.data.params,
            "metrics": sorted((m.key, m.step, m.timestamp, repr(m.value)) for m in self._metrics(registry, run)),
            "tags": self._run_tags(run),
            "inputs": sorted(
                (one.dataset.name, one.dataset.digest, one.dataset.source, *((tag.key, tag.value) for tag in one.tags))
                for one in (run.inputs.dataset_inputs if run.inputs else ())
            ),
            "files": sums,
        }

    def _model(self, registry: Registry, model: Any) -> dict[str, Any]:
        with self._model_files(registry, model) as folder:
            sums = _sums(folder)
        return {
            "name": (model.name, model.model_type or ""),
            "run": self.run_ids.get(model.source_run_id, model.source_run_id),
            "status": model.status,
            "parameters": model.params,
            "metrics": sorted((m.key, m.step, m.timestamp, repr(m.value)) for m in model.metrics or []),
            "tags": _without_ours(model.tags),
            "files": sums,
        }

    def _registered(self, registry: Registry) -> dict[str, Any]:
        versions = _all_versions(registry)
        if not versions:
            return {}
        model = registry.client.get_registered_model(project.name())
        return {
            "versions": {
                number: (self.run_ids.get(one.run_id, one.run_id), self._renamed(one.source), one.description or "")
                for number, one in versions.items()
            },
            "tags of versions": {number: _without_ours(one.tags) for number, one in versions.items()},
            "times": {number: one.tags.get(CREATED, str(one.creation_timestamp)) for number, one in versions.items()},
            "aliases": {alias: str(number) for alias, number in model.aliases.items()},
            "moves": _without_ours(model.tags),
            "description": model.description or "",
        }

    def left(self) -> tuple[str, ...]:
        """What else the old file holds; of a server, that is none of our business."""
        if not database(self.before.uri):
            return ()
        client = self.before.client
        experiments = [one for one in client.search_experiments() if one.name not in (project.name(), "Default")]
        models = [one for one in client.search_registered_models() if one.name != project.name()]
        return (*(f"experiment {one.name}" for one in experiments), *(f"model {one.name}" for one in models))


def _status(run: Any) -> Any:
    return RunStatus.from_string(run.info.status)


def _sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its path."""
    sums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
