"""A project moves: to another folder, and its registry to a server. Nothing is lost, and a copy is on its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, end, fork_of, free_port, mlflow_server, once


def everything(folder: Path) -> dict[str, str]:
    """The sum of each file, but for byte code that loading a model leaves."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def places(project: Project) -> set[str]:
    """Every place that the registry's database names."""
    with sqlite3.connect(project / "mlflow.db") as base:
        query = (
            "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs UNION "
            "SELECT artifact_location FROM logged_models UNION SELECT storage_location FROM model_versions"
        )
        return {place.removeprefix("file://") for (place,) in base.execute(query)}


def rows_of(project: Project) -> None:
    project.python(
        "import pandas as pd; from pathlib import Path\n"
        "pd.read_parquet(sorted(Path('data/raw').rglob('*.parquet'))[-1]).head(9).to_csv('rows.csv', index=False)"
    )


@pytest.fixture(scope="module")
def promoted(trained: Project) -> Project:
    """A project whose second version is the champion, and that was not run since; to copy."""

    def make(folder: Path) -> None:
        project = fork_of(trained, folder)
        project.set_params(seed=21)
        assert "2, challenger" in project.make("run")
        project.make("promote", "WHY=better")
        rows_of(project)

    folder = once("promoted/project", make)
    return Project(folder, **{**trained.environment, "SOURCE_URI": str(folder.parent / "source")})


@pytest.fixture
def second(promoted: Project, tmp_path: Path) -> Project:
    return fork_of(promoted, tmp_path / "project")


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)], ids=["short", "whole"])
def test_a_moved_folder_works(second: Project, tmp_path: Path, whole: bool) -> None:
    """With an environment of its own, moved twice: every command goes on, the old folders are gone, nothing trains anew."""
    (second / ".venv").unlink()
    home = Project(second.folder, **{key: value for key, value in second.environment.items() if key != "PYTHONPATH"})
    home.make("setup")
    home.make("run")  # the environment's lock is the same, and so is the lineage
    before = home.make("history")
    home.make("predict", "INPUT=rows.csv")
    answers = (home / "predictions.csv").read_bytes()

    there = Project(tmp_path / "another place/project", **home.environment)
    there.folder.parent.mkdir()
    home.folder.rename(there.folder)
    said = there.make("history", fails=True, UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "nothing"))
    assert "made again here" in said and (there / ".venv/.ready").exists(), "what cannot be made again is kept"
    said = there.make("history")
    assert "made again here" in said and f"was moved from {home.folder}" in said
    assert before in said
    assert there.make("history") == before
    assert f"{there.folder}/.venv/bin/python" in (there / ".git/hooks/pre-commit").read_text()
    shutil.rmtree(there / ".cache/bundles")
    there.make("predict", "INPUT=rows.csv")
    assert (there / "predictions.csv").read_bytes() == answers
    assert "nothing has changed" in there.make("run")
    assert "version 1 is the champion" in there.make("rollback")
    assert not home.folder.exists()

    # Again, and killed while the environment was being made again
    last = Project(tmp_path / "last", **home.environment)
    there.folder.rename(last.folder)
    (last / ".venv").rename(last / ".cache/venv")
    (last / ".venv/bin").mkdir(parents=True)
    if whole:
        assert "version 1 is reproduced" in last.make("reproduce", "VERSION=1")
        last.set_params(seed=22)
        assert "3, challenger" in last.make("run")
    else:
        assert "train ..." not in last.make("run")
    assert not (last / ".cache/venv").exists()
    assert not there.folder.exists() and not home.folder.exists()


def test_a_copied_folder_is_on_its_own(second: Project, tmp_path: Path) -> None:
    """Neither reads nor writes a copy what is its model's."""
    before = everything(second / "mlartifacts")
    second.make("history")
    copy = fork_of(second, tmp_path / "copy/project")
    said = copy.make("rollback")
    assert f"is a copy of {second.folder}" in said and "version 1 is the champion" in said
    copy.set_params(seed=23)
    assert "3, challenger" in copy.make("run")
    assert everything(second / "mlartifacts") == before
    assert all(Path(place).is_relative_to(copy.folder) for place in places(copy))
    assert all(Path(place).is_relative_to(second.folder) for place in places(second))


# ------------------------------------------------------------------------------------------------ The registry


ODDITIES = """
import json
from mlflow.entities import Metric
run = r.version(1).run_id
child = r.client.create_run(r.experiment, run_name="by hand", tags={"mlflow.parentRunId": run, "colour": "blue"}).info.run_id
r.client.log_batch(child, [Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 5)] + [Metric("odd", float("nan"), 5, 0)])
r.client.log_text(child, "some words", "notes/words.txt")
gone = r.client.create_run(r.experiment, run_name="deleted").info.run_id
r.client.set_terminated(gone, "FAILED")
r.client.delete_run(gone)
three = r.client.create_model_version("NAME", r.client.get_model_version("NAME", "1").source, run).version
r.client.delete_model_version("NAME", three)
r.client.update_model_version("NAME", "1", "the first of all")
r.client.set_registered_model_alias("NAME", "favourite", "1")
"""
KNOWN = """
import mlflow, json
from mlflow.entities import ViewType
runs = r.client.search_runs([r.experiment], "", ViewType.ALL)
name = {run.info.run_id: run.info.run_name for run in runs}
tags = lambda all: {k: name.get(v, v) for k, v in all.items() if not k.startswith("moved.") and k != "mlflow.modelVersions"}
model = r.client.get_registered_model("NAME")
print(json.dumps({
    "runs": sorted([run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.info.lifecycle_stage,
        run.data.params, tags(run.data.tags),
        {k: [[m.step, m.timestamp, str(m.value)] for m in r.client.get_metric_history(run.info.run_id, k)] for k in run.data.metrics},
        sorted(file.path for file in r.client.list_artifacts(run.info.run_id))] for run in runs),
    "versions": sorted([int(v.version), name[v.run_id], v.description or "", tags(v.tags), r.version(int(v.version)).created.timestamp()]
        for v in r.client.search_model_versions("name = 'NAME'")),
    "aliases": {k: int(v) for k, v in model.aliases.items()}, "moves": tags(model.tags),
    "models": sorted([name[m.source_run_id], m.name, str(m.status), m.params, len(m.metrics), tags(m.tags)]
        for m in r.client.search_logged_models([r.experiment])),
}, sort_keys=True))
"""
LOAD = """
import json, mlflow
from mlflow.pyfunc.scoring_server import infer_and_parse_data
rows = mlflow.pyfunc.load_model("models:/NAME/1")
request = mlflow.artifacts.load_text(f"runs:/{r.version(1).run_id}/serving_input_example.json")
example = infer_and_parse_data(json.loads(request), rows.metadata.get_input_schema())
print(rows.metadata.run_id == r.version(1).run_id, len(rows.predict(example)))
"""


def ask(project: Project, code: str) -> str:
    """Run code over `r`, the registry that the project uses."""
    return project.python(
        f"from copier_mlops.settings import Settings; s = Settings(); s.apply()\n"
        f"from copier_mlops.registry.mlflow_registry import Registry; r = Registry(s)\n{code}".replace(
            "NAME", project.package.replace("_", "-")
        )
    )


@pytest.fixture
def server(trained: Project, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "server").mkdir()
    address, process = mlflow_server(trained, tmp_path / "server")
    yield address
    end(process)


def test_the_registry_moves_to_a_server(second: Project, server: str, tmp_path: Path) -> None:
    """Versions with a gap, a rollback, runs of every kind: killed on its way, done again, and the same answers there."""
    assert "version 1 is the champion" in second.make("rollback", "WHY=worse")
    ask(second, ODDITIES)
    second.set_params(seed=24)
    assert "4, challenger" in second.make("run")
    known, history, compared = ask(second, KNOWN), second.make("history"), second.make("compare", "A=1", "B=4")
    second.make("predict", "INPUT=rows.csv")
    answers = (second / "predictions.csv").read_bytes()
    before = everything(second / "mlartifacts") | {
        "base": hashlib.sha256((second / "mlflow.db").read_bytes()).hexdigest()
    }
    (second / ".env").write_text("# mine\nTIMEOUT_MINUTES=100\nMLFLOW_TRACKING_URI=sqlite:///mlflow.db\nACTOR=Ada")
    (second / ".env").chmod(0o600)

    moving = second.start(".venv/bin/mlops", "move-registry", server)
    assert moving.stdout
    said = ""
    while "run 2 of" not in said:
        line = moving.stdout.readline()
        assert line, said
        said += line
    os.killpg(moving.pid, signal.SIGKILL)
    moving.wait(10)
    assert second.make("history") == history and server not in (second / ".env").read_text()

    said = second.make("move-registry", f"URI={server}")
    assert "run 1 of" not in said and "3 models" in said and "3 versions" in said
    assert (
        second / ".env"
    ).read_text() == f"# mine\nTIMEOUT_MINUTES=100\nMLFLOW_TRACKING_URI={server}\nACTOR=Ada\n".rstrip()
    assert (second / ".env").stat().st_mode & 0o777 == 0o600
    assert json.loads(ask(second, KNOWN)) == json.loads(known)
    pointer = json.loads((second / "champion.json").read_text())
    assert ask(second, "print(r.version(1).run_id)") == pointer["run_id"] and pointer["version"] == 1
    assert before == everything(second / "mlartifacts") | {
        "base": hashlib.sha256((second / "mlflow.db").read_bytes()).hexdigest()
    }
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (second / name).rename(hidden / name)
    assert second.make("history") == history
    assert second.make("compare", "A=1", "B=4") == compared
    second.make("predict", "INPUT=rows.csv")
    assert (second / "predictions.csv").read_bytes() == answers
    assert ask(second, LOAD).splitlines()[-1].startswith("True ")
    assert "4, challenger" in second.make("run")
    assert "is the store in use" in second.make("move-registry", f"URI={server}/", fails=True)
    assert "version 4 is the champion" in second.make("promote")
    assert "version 1 is the champion" in second.make("rollback")
    assert "version 1 is reproduced" in second.make("reproduce", "VERSION=1")
    second.set_params(seed=25)
    assert "5, challenger" in second.make("run")

    # And back, to the file that was kept
    for name in ("mlflow.db", "mlartifacts"):
        (hidden / name).rename(second / name)
    second.replace(".env", server, "sqlite:///mlflow.db")
    assert second.make("history") == history
    said = second.make("move-registry", f"URI={server}", fails=True)
    assert "not from sqlite:///mlflow.db" in said, "the server has gone on since"


def test_a_registry_does_not_move_where_it_would_be_lost(fork: Project, server: str, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    before = everything(fork / "mlartifacts")
    for uri, says in (
        ("", "name the store"),
        (nowhere, "nothing was moved, and URI may be wrong"),
        ("sqlite:///mlflow.db", "is the store in use"),
        (f"sqlite:///{fork.folder}/mlflow.db", "is the store in use"),
        ("sqlite:///other.db", "git does not ignore it"),
        ("postgresql://ada@there/base", "no store that can be moved to"),
        ("http://ada:secret@127.0.0.1:9", "carries no user"),
    ):
        assert says in fork.make("move-registry", f"URI={uri}", fails=True), uri
    other = fork_of(fork, tmp_path / "other/project")
    other.set_params(seed=26)
    other.make("run", MLFLOW_TRACKING_URI=server)
    said = fork.make("move-registry", f"URI={server}", fails=True)
    assert "version 1 of" in said and "not from" in said
    assert not (fork / ".env").exists() and everything(fork / "mlartifacts") == before
