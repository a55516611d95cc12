"""The registry in another store: all of it, once, and never in the place of somebody else's."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, ViewType

from copier_mlops import UnreachableError
from copier_mlops import project as own
from copier_mlops.registry import store_migration
from copier_mlops.registry.database import CHALLENGER, CHAMPION
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.registry.store_migration import MoveError
from copier_mlops.settings import Paths, Settings


def known(registry: Registry) -> dict[str, Any]:
    """What a registry says, without what is called otherwise in each store."""
    client = registry.client
    runs = client.search_runs([registry.experiment], "", ViewType.ALL)
    names = {run.info.run_id: str(run.info.run_name) for run in runs}
    return {
        "runs": sorted(
            (run.info.run_name, run.info.status, run.info.lifecycle_stage, run.info.start_time) for run in runs
        ),
        "parents": sorted(
            (names[run.info.run_id], names.get(run.data.tags.get("mlflow.parentRunId", ""), "")) for run in runs
        ),
        "data": sorted(one.dataset.digest for run in runs for one in run.inputs.dataset_inputs),
        "versions": [
            (one.number, one.lineage, one.status, one.created, names[one.run_id]) for one in registry.versions()
        ],
        "moves": registry.moves(),
        "aliases": client.get_registered_model(own.name()).aliases,
        "losses": [
            [one.value for one in client.get_metric_history(run.info.run_id, "loss")]
            for run in runs
            if run.info.run_name == "by hand"
        ],
    }


def oddities(registry: Registry) -> None:
    """A version that was deleted between two others and one at the end, a child, a deleted run."""
    client, first = registry.client, registry.version(1)
    child = client.create_run(registry.experiment, run_name="by hand", tags={"mlflow.parentRunId": first.run_id})
    steps = [Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 5)]
    client.log_batch(child.info.run_id, [*steps, Metric("odd", float("nan"), 5, 0)])
    gone = client.create_run(registry.experiment, run_name="gone")
    client.set_terminated(gone.info.run_id, "FAILED")
    client.delete_run(gone.info.run_id)
    source, tags = client.get_model_version(own.name(), "1").source, {"lineage": "again", "status": "archived"}
    for tag in ("deleted", "again", "deleted"):
        made = client.create_model_version(own.name(), source, first.run_id, tags={**tags, "lineage": tag})
        if tag == "deleted":
            client.delete_model_version(own.name(), made.version)


def test_all_of_it_arrives_once(registered: Path, tmp_path: Path) -> None:
    settings = Settings()
    before = Registry(settings)
    oddities(before)
    uri = f"sqlite:///{tmp_path}/another/mlflow.db"
    there = settings.model_copy(update={"mlflow_tracking_uri": uri})

    def killed(line: str) -> None:
        if "run 2 of" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_migration.move(settings, uri, killed)
    assert not Path(".env").exists()
    lines: list[str] = []
    done = store_migration.move(settings, uri, lines.append)
    assert (done.runs, done.trials, done.models, done.versions, done.left) == (4, 5, 3, 3, ())
    assert "run 1 of" not in "".join(lines)
    after = Registry(there)
    assert known(after) == known(before)
    assert [one.number for one in after.versions()] == [1, 2, 4]
    assert f"MLFLOW_TRACKING_URI={uri}" in Path(".env").read_text()
    assert not done.holds  # the tests name the store in the environment
    assert json.loads(Paths.POINTER.read_text())["run_id"] == after.version(1).run_id
    assert all(f"{tmp_path}/another/mlartifacts" in run.info.artifact_uri for run in after.runs())
    source = after.client.get_model_version(own.name(), "1").source
    made = after.client.create_model_version(own.name(), source, after.version(1).run_id)
    assert int(made.version) == 6, "5 was deleted, and is nobody else's number"

    # What somebody else registered there is not written over
    with pytest.raises(MoveError, match=r"holds version 6 of .* not from"):
        store_migration.move(settings, uri)
    after.client.delete_model_version(own.name(), "6")

    # What differs is told, and copied anew
    assert len(known(before)["data"]) == 3
    before.promote(before.version(2), "Ada", "better")
    before.client.set_tag(before.version(2).run_id, "verdict", "looked at")
    with pytest.raises(MoveError, match=r"differs .* in tags"):
        store_migration.move(settings, uri)
    store_migration.move(settings, uri)
    assert known(Registry(there)) == known(before)

    # The same store by another name
    (tmp_path / "link").symlink_to(tmp_path / "another")
    with pytest.raises(MoveError, match="by another name"):
        store_migration._Copy(after, Registry(there), print).check()
    assert after.holder(CHAMPION) == after.version(2)
    assert after.holder(CHALLENGER) is None


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("there", "no store that can be moved to"),
        ("mlruns", "no store that can be moved to"),
        ("http://ada:secret@127.0.0.1:9", "carries no user"),  # pragma: allowlist secret
        ("sqlite:///other.db", "git does not ignore it"),
    ],
)
def test_an_address_that_cannot_be_used(registered: Path, uri: str, says: str) -> None:
    with pytest.raises(MoveError, match=says):
        store_migration.move(Settings(), uri)


def test_the_store_in_use(registered: Path) -> None:
    with pytest.raises(MoveError, match="is the store in use"):
        store_migration.move(Settings(), Settings().mlflow_tracking_uri)


def test_a_store_that_does_not_answer(registered: Path) -> None:
    with pytest.raises(UnreachableError, match=r"nothing was moved, and URI may be wrong: MLflow at .*"):
        store_migration.move(Settings(), "http://127.0.0.1:9")
    assert not Path(".env").exists()


def test_a_store_that_stops_answering(registered: Path) -> None:
    expected = pytest.raises(UnreachableError, match=r"first\n  second\nhere is still in use")
    with expected, store_migration._going_on_later("here", "there"):
        raise OSError("first\n  second")
