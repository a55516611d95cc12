"""Commands of DVC and MLflow that a user knows from elsewhere, in a trained project, without our commands in between."""

from __future__ import annotations

import json
import re
import socket
import urllib.request

import pytest
import yaml
from conftest import Project, end, free_port, wait_for


def dvc(project: Project, *words: str) -> str:
    done = project.command(".venv/bin/dvc", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(said: str) -> list[str]:
    """The stages that DVC ran."""
    return re.findall(r"Running stage '(\w+)'", said)


def commit(project: Project, message: str) -> None:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
    for words in (["add", "--all"], [*who, "commit", "--quiet", "--no-verify", "--message", message]):
        done = project.command("git", *words)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dvc(fork: Project) -> None:
    """An experiment, an edit of params.yaml, and what DVC tells of both."""
    commit(fork, "trained")
    assert ran(dvc(fork, "repro")) == ["resolve"]
    assert json.loads(dvc(fork, "params", "diff", "--json")) == {}

    changes = ("--set-param", "search.trials=1", "--set-param", "seed=8")
    assert ran(dvc(fork, "exp", "run", "--name", "few", *changes)) == ["resolve", "train", "evaluate"]
    assert len(json.loads((fork / "reports/trials.json").read_text())) == 1
    changed = json.loads(dvc(fork, "params", "diff", "--json"))
    found = {name: (values["old"], values["new"]) for name, values in changed.pop("params.yaml").items()}
    assert (found, changed) == ({"search.trials": (2, 1), "seed": (7, 8)}, {}), (
        "nothing else differs, and no copy of it"
    )
    metrics = json.loads(dvc(fork, "metrics", "diff", "--json"))["reports/metrics.json"]
    now = json.loads((fork / "reports/metrics.json").read_text())
    assert {name: found["new"] for name, found in metrics.items()} == now

    (shown,) = json.loads(dvc(fork, "exp", "show", "--json"))[1]["experiments"]
    revision = shown["revs"][0]
    assert revision["name"] == "few"
    assert revision["data"]["params"]["params.yaml"]["data"]["search"]["trials"] == 1
    assert revision["data"]["metrics"]["reports/metrics.json"]["data"] == now
    assert set(revision["data"]["params"]["run.yaml"]["data"]) == {
        "source", "contract", "forgotten", "resolved", "defaults", "overrides"
    }  # fmt: skip

    fork.set_params(evaluation={"bootstrap": 25}, gate={"worse_than_champion": 0.4})
    said = dvc(fork, "status")
    assert "evaluation" in said and "train" not in said, "a limit of the gate trains nothing"
    assert ran(dvc(fork, "repro")) == ["resolve", "evaluate"]
    assert json.loads((fork / "reports/facts.json").read_text())["bootstrap"] == 25
    plots = json.loads(dvc(fork, "plots", "show", "--json"))
    drawn = {name for name, shown in plots["data"].items() if shown}
    assert drawn == {"ROC", "precision and recall", "calibration", "importance", "trials"}
    assert not plots.get("errors")

    assert "nothing has changed" in fork.make("pipeline")


def test_a_run_yaml_of_params_that_are_left_out(fork: Project) -> None:
    """An old params.yaml lacks keys that dvc.yaml names. DVC alone completes it, as `make run` does."""
    params = yaml.safe_load((fork / "params.yaml").read_text())
    del params["validation"]
    (fork / "params.yaml").write_text(yaml.safe_dump(params))
    said = dvc(fork, "repro", "validate")
    assert "params.yaml has validation.max_bad_share" in said and ran(said) == ["resolve"]
    assert yaml.safe_load((fork / "params.yaml").read_text())["validation"]["max_bad_share"] == 0.02


def test_mlflow_serves_and_loads_the_model(trained: Project) -> None:
    """`mlflow models serve` and `mlflow.pyfunc.load_model` give what the bundle gives, for rows as the project's tables have them."""
    name = trained.package.replace("_", "-")
    expected = json.loads(
        trained.python(
            "import json, mlflow, sys, tempfile\nfrom pathlib import Path\n"
            f"from copier_mlops.bundle import bundle; from copier_mlops.data import tables\nfrom copier_mlops.registry.mlflow_registry import EXAMPLE, Registry\n"
            f"from copier_mlops.settings import Settings\nsettings = Settings(); settings.apply(); registry = Registry(settings)\n"
            "rows = tables.read(sorted(Path('data/validated').rglob('*.parquet'))[-1]).head(50).drop(columns='late')\n"
            f"model = mlflow.pyfunc.load_model('models:/{name}@champion')\nassert str(rows['scheduled_departure'].dtype).endswith('UTC]')\n"
            "mine = bundle.load(Path('models/bundle'))\nassert model.metadata.signature is not None\n"
            f"logged = registry.client.get_model_version_by_alias('{name}', 'champion').source\n"
            "files = {path.name for path in Path(mlflow.artifacts.download_artifacts(logged)).iterdir()}\n"
            "assert 'requirements.txt' in files and 'uv.lock' not in files, files  # MLflow would install the project\n"
            "assert (model.predict(rows)['score'].to_numpy() == mine.score(rows)).all()\n"
            "naive = rows.assign(scheduled_departure=rows['scheduled_departure'].dt.tz_convert(None))\n"
            "assert (model.predict(naive)['score'].to_numpy() == mine.score(rows)).all()\n"
            "request = registry.fetch(registry.version(1).run_id, EXAMPLE, Path(tempfile.mkdtemp())).read_text()\n"
            "print(json.dumps({'request': request, 'scores': mine.expected['answers']}))"
        ).splitlines()[-1]
    )
    port = free_port()
    words = [
        "--model-uri",
        f"models:/{name}@champion",
        "--env-manager",
        "local",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = trained.start(".venv/bin/mlflow", "models", "serve", *words, MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            expected["request"].encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            predictions = json.load(answer)["predictions"]
    finally:
        end(process)
    assert [line["score"] for line in predictions] == pytest.approx(expected["scores"])
    assert {line["reason"] for line in predictions} == {""}


def test_the_page_of_mlflow_needs_a_free_port(trained: Project) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = trained.make("ui", f"PORT={port}", fails=True)
    assert f"error: MLflow's page cannot be served on port {port} (Address already in use)" in said
