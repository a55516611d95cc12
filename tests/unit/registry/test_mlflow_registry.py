"""The registry's own doings; what is recorded of a run stands in lifecycle/test_registration.py."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest
import requests
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST
from sample_project import schema
from sklearn.linear_model import LogisticRegression

from copier_mlops import Column, Contract, ProjectError, UnreachableError
from copier_mlops import project as own
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.contract.contract import to_csv
from copier_mlops.contract.synthetic import made_up
from copier_mlops.contract.validation import check_rows
from copier_mlops.data import tables
from copier_mlops.evaluation.gate import run_name
from copier_mlops.lifecycle import registration
from copier_mlops.lifecycle.history import history
from copier_mlops.pipeline import run_config
from copier_mlops.registry import database as database_module
from copier_mlops.registry import mlflow_registry as module
from copier_mlops.registry.database import CHALLENGER, CHAMPION, settle_in
from copier_mlops.registry.mlflow_registry import MissingError, Registry, RegistryError, Scorer
from copier_mlops.settings import Paths, Settings

from ..conftest import CLOSE, change, spoiled


def test_versions_runs_and_aliases(registered: Path) -> None:
    registry = Registry(Settings())
    assert [(version.number, version.status) for version in registry.versions()] == [(1, CHAMPION), (2, CHALLENGER)]
    assert registry.holder(CHAMPION) == registry.version(1)
    assert registry.holder(CHALLENGER) == registry.version(2)
    assert registry.holder("nobody") is None
    assert [run.data.tags["verdict"] for run in registry.runs()] == ["passed", "passed", "failed"]
    with pytest.raises(RegistryError, match=r"there is no version 3; there are 1, 2"):
        registry.version(3)


def test_an_empty_registry(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAME", "another-model")
    registry = Registry(Settings())
    assert (registry.versions(), registry.moves(), registry.runs()) == ([], [], [])
    assert registry.holder(CHAMPION) is None
    assert registry.former() is None
    registry.settle()
    with pytest.raises(RegistryError, match="there are none yet"):
        registry.version(1)


def test_what_another_process_created_in_between_is_used(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Registry(Settings())
    asked: list[str] = []
    look = MlflowClient.get_experiment_by_name

    def too_early(client: MlflowClient, name: str) -> object:
        asked.append(name)
        return look(client, name) if len(asked) > 1 else None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", too_early)
    registry = Registry(Settings())
    assert (registry.experiment, asked) == (known.experiment, [own.name(), own.name()])
    monkeypatch.setattr(registry, "versions", list)
    monkeypatch.setattr(registry, "version", lambda number: number)
    assert registry.register(known.version(1).run_id, "another") == 3  # the registered model exists, too


def test_a_run_is_logged_with_all_that_is_needed_to_make_it_again(registered: Path, tmp_path: Path) -> None:
    registry = Registry(Settings())
    version = registry.version(1)
    kept = registry.fetch(version.run_id, "lineage", tmp_path / "kept")
    found = {path.name for path in kept.iterdir()}
    assert found >= {"dvc.lock", "run.yaml", "params.yaml", "metrics.json", f"source-{version.lineage}.tar.gz"}
    run = registry.run(version.run_id)
    assert run.data.metrics == pytest.approx({**run.data.metrics, **tables.read_json(kept / "metrics.json")})
    assert run.data.tags["bundle"] == bundle_files.digest(registry.bundle(version))
    assert "## run" in run.data.tags["mlflow.note.content"]
    request = json.loads(registry.fetch(version.run_id, module.EXAMPLE, tmp_path / "kept").read_text())
    names = [column.name for column in schema.CONTRACT.without_target()]
    assert request["dataframe_split"]["columns"] == names and request["dataframe_split"]["data"]


def test_mlflows_page_shows_what_a_run_came_to(registered: Path) -> None:
    registry = Registry(Settings())
    facts, runs = tables.read_json(Paths.FACTS), registry.runs()
    metric = facts["metric"]
    values = [run_name(metric, run.data.metrics[metric], "") for run in runs]
    words = [f"v1 {values[0]} champion", f"v2 {values[1]} challenger", f"{values[2]} rejected"]
    assert [run.info.run_name for run in runs] == [text.replace("  ", " ") for text in words]
    assert registry.client.get_experiment(registry.experiment).tags[module.KIND] == module.TRAINING
    card = Paths.CARD.read_text().splitlines()[0]
    version, model = (
        registry.client.get_model_version(own.name(), "1"),
        registry.client.get_registered_model(own.name()),
    )
    for text in (runs[0].data.tags[module.NOTE], version.description, model.description):
        assert card in text and "passed the gate" in text
    sentence = "by tester, previous champion: none. Reason: the first model that passed the gate"
    assert version.tags[CHAMPION].endswith(sentence) and model.tags[CHAMPION] == f"version 1, {version.tags[CHAMPION]}"
    registry.promote(registry.version(2), "Ada", "better")
    assert [run.info.run_name.split()[-1] for run in registry.runs()] == ["archived", "champion", "rejected"]
    assert re.search(r"^version 2, promoted .* UTC by Ada, previous champion: version 1. Reason: better$",
                     registry.client.get_registered_model(own.name()).tags[CHAMPION])  # fmt: skip


def test_a_run_has_the_times_of_its_training_the_data_and_the_trials(registered: Path) -> None:
    registry = Registry(Settings())
    first, second = registry.runs()[:2]
    for run in (first, second):
        recorded = int(run.data.tags["recorded"])
        assert run.info.start_time < run.info.end_time <= recorded
        (given,) = run.inputs.dataset_inputs
        lock = yaml.safe_load(registry.fetch(run.info.run_id, "lineage/dvc.lock", Path("lock")).read_text())
        hashes = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", ())}
        assert (given.dataset.name, given.dataset.digest) == ("data/validated", hashes["data/validated"])
        assert json.loads(given.dataset.profile)["num_rows"] > 0
    trials = tables.read_json(Paths.TRIALS)
    children = registry.client.search_runs([registry.experiment], f"tags.`mlflow.parentRunId` = '{second.info.run_id}'")
    assert len(children) == len(trials) == 1
    (metric,) = children[0].data.metrics
    assert children[0].info.run_name == f"trial 1 {run_name(metric, trials[0]['value'], 'complete')}"
    assert children[0].data.metrics[metric] == pytest.approx(trials[0]["value"])
    assert children[0].data.params.keys() == trials[0].keys() - {"number", "state", "value", "folds"}
    assert second.info.start_time <= children[0].info.start_time < children[0].info.end_time <= second.info.end_time
    assert {"complete"} == {child.data.tags["state"] for child in children}


def test_trials_are_no_runs_of_the_project(registered: Path) -> None:
    """Neither in the registry, nor in `make history`, which reads the database itself."""
    registry = Registry(Settings())
    every = registry.client.search_runs([registry.experiment])
    assert len(every) == 3 + 2 + 1 + 1
    assert len(registry.runs()) == len(registry.records().runs) == 3
    direct = database_module.read(Settings().mlflow_tracking_uri)
    assert direct is not None and direct.runs == registry.records().runs
    assert len(history(Settings())[0]) == 3


def test_a_run_of_an_earlier_release_is_read(registered: Path) -> None:
    """It has neither trials, inputs nor the time of its recording, and is called by its lineage."""
    registry = Registry(Settings())
    gone = registry.runs()[0].info.run_id
    registry.client.delete_tag(gone, "recorded")
    registry.client.delete_registered_model_tag(own.name(), CHAMPION)
    assert [run["version"] for run in history(Settings())[0]] == [1, 2, None]
    registry.settle()
    assert registry.client.get_registered_model(own.name()).tags[CHAMPION].startswith("version 1, promoted")


def test_what_was_begun_by_a_killed_run_is_begun_again(registered: Path) -> None:
    registry = Registry(Settings())
    killed = registry.client.create_run(registry.experiment, tags={"lineage": "killed"}).info.run_id
    registry.client.create_run(registry.experiment, tags={"mlflow.parentRunId": killed})
    assert registry.find("killed") is None
    assert len(registry.runs()) == 3
    registry._delete(killed)
    assert len(registry.client.search_runs([registry.experiment])) == 3 + 2 + 1 + 1


def test_the_packages_of_the_project_are_required_by_the_logged_model(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "requires", lambda name: ["rich[all]>=1; python_version > '3'", "not-installed-here"])
    pinned = [text.partition("==")[0] for text in module._requirements()]
    assert pinned == [*module.REQUIREMENTS, "rich"]


def test_the_logged_model_takes_the_projects_own_rows(registered: Path) -> None:
    """With times in UTC, times without a zone, and as texts: MLflow leaves types to the contract."""
    registry = Registry(Settings())
    rows = tables.read(sorted(Paths.VALIDATED.rglob("*.parquet"))[-1]).drop(columns=schema.CONTRACT.target).head(5)
    model = mlflow.pyfunc.load_model(registry.client.get_model_version(own.name(), "2").source)
    expected = bundle.load(registry.bundle(registry.version(2))).answer(rows)
    assert (expected["reason"] == "").all()
    times = list(rows.select_dtypes("datetimetz"))
    naive = rows.assign(**{name: rows[name].dt.tz_convert(None) for name in times})
    texts = rows.assign(**{name: rows[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for name in times})
    for given in (rows, naive, texts):
        pd.testing.assert_frame_equal(model.predict(given), expected)
    assert model.unwrap_python_model().bundle.model is not None  # the estimator, after its digest was checked


def test_mlflows_own_server_would_answer_as_the_bundle(project: Path, rows: pd.DataFrame) -> None:
    scorer = Scorer()
    context = SimpleNamespace(artifacts={"bundle": str(Paths.BUNDLE)}, model_config={"bundle": "0" * 64})
    with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
        scorer.load_context(context)
    for recorded in (None, {}, {"bundle": bundle_files.digest(Paths.BUNDLE)}):  # 1.2 and earlier recorded none
        context.model_config = recorded
        scorer.load_context(context)
    some = rows.drop(columns=schema.CONTRACT.target).head(5)
    loaded = bundle.load(Paths.BUNDLE)
    whole = loaded.answer(some)
    assert whole["score"].notna().all()
    broken, reason = spoiled(some, [2])
    answers = scorer.predict(None, broken)
    assert list(answers) == list(whole)
    assert answers["score"].drop(index=2).to_numpy() == pytest.approx(whole["score"].drop(index=2).to_numpy(), **CLOSE)
    assert pd.isna(answers["score"][2])
    assert reason in answers["reason"][2]
    assert (answers["reason"].drop(index=2) == "").all()


def test_a_contract_of_every_kind_is_logged(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("string", "integer", "number", "boolean", "timestamp")
    inputs = [Column(f"{kind} {nullable}", kind, nullable=nullable) for kind in kinds for nullable in (False, True)]
    every = Contract((Column("id", "string", "id"), *inputs, Column("y", "string", "target", allowed=("a", "b", "c"))))
    code = tmp_path / "core"
    code.mkdir()
    (code / "contract.csv").write_text(to_csv(every))
    (code / "schema.py").write_text(
        "from pathlib import Path\n\nfrom copier_mlops import read_contract\n\n"
        'CONTRACT = read_contract(Path(__file__).with_name("contract.csv"))\n'
    )
    (code / "features.py").write_text("def build_features(rows):\n    return rows[['number False']]\n")
    monkeypatch.setattr(bundle.project, "folder", lambda: code)
    rows = check_rows(made_up(every, 100, seed=1), every).good
    model = LogisticRegression().fit(rows[["number False"]], every.labels(rows["y"]))
    gaps = rows.drop(columns="y").head(6)
    for column in inputs:
        if column.nullable:
            gaps[column.name] = gaps[column.name].where(gaps.index != 1)
    bundle.save(tmp_path / "bundle", model, {}, gaps)
    saved = tmp_path / "bundle"
    tags = {"bundle": bundle_files.digest(saved)}
    record = module.Record("every", True, {}, {}, tags, {saved: "bundle"}, saved, every, gaps)
    registry = Registry(Settings())
    version = registry.register(registry.log(record), "every")
    assert bundle.load(registry.bundle(version)).contract == every


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://127.0.0.1:9", "is not responding"),
        ("sqlite:////proc/no/such/folder/mlflow.db", "failed: .*No such file"),
    ],
)
def test_a_registry_that_does_not_answer_may_answer_later(uri: str, says: str) -> None:
    with pytest.raises(UnreachableError, match=f"MLflow at {re.escape(uri)} {says}"):
        Registry(Settings(mlflow_tracking_uri=uri))


def failed(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (failed(MlflowException("first\nsecond"), requests.ConnectionError("refused")), UnreachableError, "is not responding: first\n  second"),
        (failed(MlflowException("late"), requests.Timeout()), UnreachableError, "is not responding: late"),
        (ConnectionResetError("reset"), UnreachableError, "is not responding: reset"),
        (OSError(28, "No space left on device"), UnreachableError, "failed: [Errno 28] No space left on device"),
        (sqlite3.OperationalError("database is locked"), UnreachableError, "failed: database is locked"),
        (MlflowException("500"), UnreachableError, "failed: 500"),
        (MlflowException("no run", RESOURCE_DOES_NOT_EXIST), MissingError, "does not have this object: no run"),
        (MlflowException("who are you", PERMISSION_DENIED), RegistryError, "rejects these credentials: who are you"),
        (MlflowException("a: " + "b" * 900, INVALID_PARAMETER_VALUE), RegistryError, "rejects the request: a: " + "b" * 900),
    ],
)  # fmt: skip
def test_an_error_of_mlflow_keeps_its_text_and_is_called_what_it_is(
    error: Exception, kind: type[ProjectError], says: str
) -> None:
    found = module.explained(error, "http://ada:s3cret@registry")
    assert type(found) is kind
    assert says in str(found) and "http://***@registry" in str(found) and "s3cret" not in str(found)
    assert ("not responding" in str(found)) is ("not responding" in says)


def test_the_registry_of_another_project_in_the_environment_is_not_used(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{other}")
    registry = Registry(Settings())
    assert [version.number for version in registry.versions()] == [1, 2]
    assert registry.holder(CHAMPION) == registry.version(1)
    assert not other.exists()


# ------------------------------------------------------------------------------- What was deleted or renamed in MLflow


def test_without_its_champion_the_registry_goes_on(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(Settings())
    registry.client.delete_model_version(own.name(), "1")
    history(Settings())
    assert "version 1, the champion, was deleted" in capsys.readouterr().err
    assert registration.verify(Settings()) is None
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("tester", "")
    assert registration.promote(Settings(), 2, "").number == 2
    assert registry.holder(CHAMPION) == registry.version(2)
    capsys.readouterr()
    history(Settings())
    assert "deleted" not in capsys.readouterr().err
    assert registry.former() is None  # version 1 is no way back


def test_each_rollback_goes_back_further_when_a_version_was_deleted(registered: Path) -> None:
    registry = Registry(Settings())
    run_id = registry.version(1).run_id
    for lineage in ("third", "fourth"):
        registry.register(run_id, lineage)
    for number in (2, 3, 4):
        registry.promote(registry.version(number), "tester", "")
    registry.client.delete_model_version(own.name(), "3")
    assert [registry.rollback("tester", "").number for _ in range(2)] == [2, 1]
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("tester", "")
    assert registry.holder(CHAMPION) == registry.version(1)


@pytest.mark.parametrize(
    ("moves", "there", "former"),
    [
        ("1 2 3 4 -2", (1, 2, 4), 1),
        ("1 2 3 4 -2 -2", (1, 2, 4), 1),  # as 1.2 recorded a second rollback
        ("1 2 3 4 -2 5", (1, 2, 4, 5), 2),
        ("1 2 3 2", (1, 2), 1),  # the champion is no previous champion
        ("1 2 1 3 -1", (1, 2, 3), 2),
        ("1 2 -7", (1, 2, 7), None),  # a rollback to a version that no move names
        ("-7", (7,), None),
    ],
)
def test_the_version_of_the_next_rollback(
    registered: Path, monkeypatch: pytest.MonkeyPatch, moves: str, there: tuple[int, ...], former: int | None
) -> None:
    actions = ["rollback" if move.startswith("-") else "promote" for move in moves.split()]
    made = [
        SimpleNamespace(action=action, after=abs(int(move)))
        for action, move in zip(actions, moves.split(), strict=True)
    ]
    registry = Registry(Settings())
    monkeypatch.setattr(registry, "moves", lambda: made)
    monkeypatch.setattr(registry, "versions", lambda: [SimpleNamespace(number=number) for number in there])
    assert registry.former() == former


def test_a_rollback_to_the_champion_is_refused(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(Settings())
    monkeypatch.setattr(registry, "former", lambda: 1)
    with pytest.raises(RegistryError, match="version 1 is the champion already"):
        registry.rollback("tester", "")
    assert len(registry.moves()) == 1


def test_champion_json_takes_no_limits_from_changed_facts(
    registered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, pointer = Registry(Settings()), Path("champion.json")
    registry.settle()
    run_id, recorded = registry.version(1).run_id, pointer.read_text()
    assert json.loads(recorded)["params"]
    kept = Path(".cache/facts") / f"{run_id}.json"
    kept.write_text('{"params": {"weak": 1}}')
    registry.settle()  # fetches the file again
    assert pointer.read_text() == recorded and "weak" not in kept.read_text()
    fetch = Registry.fetch

    def changed(registry: Registry, run_id: str, artifact: str, target: Path) -> Path:
        file = fetch(registry, run_id, artifact, target)
        if artifact == module.FACTS:
            file.write_text('{"params": {"weak": 1}}')
        return file

    monkeypatch.setattr(Registry, "fetch", changed)
    kept.unlink()
    registry.settle()
    assert pointer.read_text() == recorded
    assert "takes no limits from facts.json of version 1" in capsys.readouterr().err
    pointer.unlink()
    registry.settle()
    assert "params" not in json.loads(pointer.read_text())
    registry.client.delete_tag(run_id, "lineage_files")  # a version of an earlier release
    registry.settle()
    assert json.loads(pointer.read_text())["params"] == {"weak": 1}


def test_a_run_after_the_champion_was_deleted_makes_a_champion(registered: Path) -> None:
    registry = Registry(Settings())
    registry.client.delete_model_version(own.name(), "1")
    change(registered, seed=8, search={"trials": 1}, gate={"better_than_baseline": -1e5})
    run_config.resolve_run(Settings())
    outcome = registration.record(Settings())
    assert (outcome.version, outcome.status, registry.version(3).status) == (3, CHAMPION, CHAMPION)


def test_without_its_run_a_version_is_named_and_others_go_on(
    registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(Settings())
    history(Settings())
    gone, pointer = registry.version(1), Path("champion.json").read_text()
    registry.client.delete_run(gone.run_id)
    history(Settings())
    assert "version 1 is not listed: its run" in capsys.readouterr().err
    registry.client._tracking_client.store._hard_delete_run(gone.run_id)
    runs, _ = history(Settings())
    assert [run["version"] for run in runs] == [2, None]
    assert "was deleted in MLflow" in capsys.readouterr().err
    assert Path("champion.json").read_text() == pointer
    with pytest.raises(MissingError, match=r"run .* from which version 1 comes, was deleted .* make promote VERSION=n"):
        registration.verify(Settings())
    assert registry.register(registry.version(2).run_id, gone.lineage).number == 3  # the same training, recorded again
    assert registration.promote(Settings(), 2, "").number == 2
    history(Settings())
    assert json.loads(Path("champion.json").read_text())["version"] == 2


def test_a_deleted_experiment_is_restored_by_the_next_run(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(Settings())
    registry.client.delete_experiment(registry.experiment)
    history(Settings())
    assert "mlflow experiments restore --experiment-id" in capsys.readouterr().err
    change(registered, gate={"better_than_baseline": -1e5})
    run_config.resolve_run(Settings())
    assert registration.record(Settings()).version == 3
    assert len(registry.runs()) == 4


def test_a_renamed_model_is_named_and_a_run_starts_again(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(Settings())
    history(Settings())
    registry.client.rename_registered_model(own.name(), "renamed")
    runs, moves = history(Settings())
    assert len(runs) == 3 and moves == []
    assert f"no registered model {own.name()}, of which champion.json names version 1" in capsys.readouterr().err
    outcome = registration.record(Settings())
    assert outcome.version is None or outcome.version == 1


def test_long_texts_are_artifacts(registered: Path) -> None:
    """PostgreSQL refuses tags of more than 5,000 characters."""
    registry = Registry(Settings())
    long = {"summary": "ä\n" * 4000, "note": "b" * 9000, "checks": '{"checks": []}'}
    description = "line\n" * 2000
    run = registry.run(registry.version(1).run_id)
    tags = {**long, module.NOTE: description, "bundle": run.data.tags["bundle"]}
    loaded = bundle.load(Paths.BUNDLE)
    example = pd.DataFrame(**bundle.expected_rows(loaded.expected))
    typed = check_rows(example, bundle.for_examples(loaded.contract), labelled=False).good
    record = module.Record(
        "long", True, {"p": "x" * 9000}, {}, tags, {Paths.BUNDLE: "bundle"}, Paths.BUNDLE, loaded.contract, typed
    )
    run = registry.run(registry.log(record))
    assert {name: registry.text(run, name) for name in long} == long
    assert run.data.tags[module.NOTE].endswith("line\n\nThe artifact `model_card.md` of the run has all of it.")
    assert max(map(len, [*run.data.tags.values(), *run.data.params.values()])) <= 5000
    with pytest.raises(MissingError, match="has no tag `other`"):
        registry.text(run, "other")
    registry.promote(registry.version(2), "tester", '"' * 6000)
    tags = registry.client.get_registered_model(own.name()).tags
    assert max(map(len, tags.values())) <= 5000
    move = registry.moves()[-1]
    artifact = re.search(r"artifact (\S+)\)", move.why)
    assert artifact
    folder = Path("text")
    assert registry.fetch(registry.version(2).run_id, artifact[1], folder).read_text() == '"' * 6000


# --------------------------------------------------------------------------------------- A folder that was moved

Store = Callable[[str], Path]


@pytest.fixture
def copied(registered: Path, tmp_path: Path) -> Store:
    """Copy the registry's database to a folder, and its files if they are wanted."""

    def copy(name: str, files: bool = True) -> Path:
        database = database_module.database(Settings().mlflow_tracking_uri)
        assert database
        folder = tmp_path / name
        folder.mkdir()
        with sqlite3.connect(database) as one, sqlite3.connect(folder / "mlflow.db") as other:
            one.backup(other)
        if files:
            shutil.copytree(database.parent / database_module.FILES, folder / database_module.FILES)
        return folder

    return copy


def places(folder: Path) -> list[Path]:
    """Where the files of this project are, as the database of a folder says."""
    query = " UNION ".join(f"SELECT {column} FROM {table}" for table, column in database_module._PLACES)
    with sqlite3.connect(folder / "mlflow.db") as base:
        found = [database_module._folder(place) for (place,) in base.execute(query)]
    return [place for place in found if database_module.FILES in place.parts]


def test_a_copy_and_a_moved_folder_name_their_own_files(copied: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first = copied("first place")
    settle_in(f"sqlite:///{first}/mlflow.db")
    assert "is a copy of" in capsys.readouterr().err
    assert len(places(first)) > 5
    assert all(first in place.parents for place in places(first))
    last = first.rename(first.parent / "last")
    settle_in(f"sqlite:///{last}/mlflow.db")
    assert f"was moved from {first}" in capsys.readouterr().err
    assert all(last in place.parents for place in places(last))
    settle_in(f"sqlite:///{last}/mlflow.db")
    assert capsys.readouterr().err == ""


def test_files_that_did_not_come_along_are_not_lost_sight_of(copied: Store, tmp_path: Path) -> None:
    folder = copied("alone", files=False)
    before = places(folder)
    settle_in(f"sqlite:///{folder}/mlflow.db")
    assert places(folder) == before
    some = copied("some")
    run = Registry(Settings()).version(1).run_id
    shutil.rmtree(some / database_module.FILES / run)  # this one is only where it was
    settle_in(f"sqlite:///{some}/mlflow.db")
    elsewhere = [place for place in places(some) if some not in place.parents]
    assert [run in place.parts for place in elsewhere] == [True]
    assert elsewhere[0].exists()


def test_a_database_without_its_files_goes_on_where_it_is(copied: Store, tmp_path: Path) -> None:
    folder = copied("here")
    settle_in(f"sqlite:///{folder}/mlflow.db")
    shutil.rmtree(folder / database_module.FILES)
    settle_in(f"sqlite:///{folder.rename(tmp_path / 'there')}/mlflow.db")
    found = places(tmp_path / "there")
    assert tmp_path / "there" / database_module.FILES in found  # where new files go
    assert any(folder in place.parents for place in found)  # the others may come back to where they were


def test_places_change_all_or_none(copied: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied("half")
    before = places(folder)
    change = database_module._new_places
    wrong = ("runs", "no_such_column", "a", "b")
    monkeypatch.setattr(database_module, "_new_places", lambda *arguments: [*change(*arguments), wrong])
    with pytest.raises(UnreachableError, match="no_such_column"):
        Registry(Settings(mlflow_tracking_uri=f"sqlite:///{folder}/mlflow.db"))
    assert places(folder) == before


def test_the_name_is_the_distributions() -> None:
    assert own.name().replace("-", "_") == "sample_project"
