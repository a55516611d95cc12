"""A project as its owner lives with it: the whole job on all the data, then from version to version."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, Render, make_small, own_tests_passed


def test_demo_says_where_to_look(demo: Project) -> None:
    said = (demo.folder.parent.parent / "demo.log").read_text()
    for words in (
        "336,776 rows",
        "quarantined",
        "auc",
        "baseline",
        "passed the gate",
        "1, champion",
        "seconds",
        "make ui",
    ):
        assert words in said, f"{words!r} is not in what make demo says:\n{said[-3000:]}"
    assert not re.search(r"Traceback|Warning|%\|", said), said
    for name in (
        "mlflow.db",
        "champion.json",
        "dvc.lock",
        "run.yaml",
        "uv.lock",
        "reports/report.html",
        "data/set_aside",
    ):
        assert (demo / name).exists(), name


def test_demo_learns_something(demo: Project) -> None:
    facts = json.loads((demo / "reports/facts.json").read_text())
    assert facts["data"]["rows"] == 336_776
    found = facts["metrics"]["auc"]
    assert found["low"] < found["value"] < found["high"]
    assert found["low"] > facts["baseline"]["auc"] + 0.1
    assert {line["slice"] for line in facts["slices"]} == {"carrier", "origin", "month"}
    pointer = json.loads((demo / "champion.json").read_text())
    assert pointer["version"] == 1
    assert pointer["metrics"]["auc"] == pytest.approx(found["value"])


def test_demo_is_a_repository_of_its_own(demo: Project) -> None:
    top = demo.command("git", "rev-parse", "--show-toplevel").stdout.strip()
    assert Path(top).resolve() == demo.folder.resolve()
    outer = demo.command("git", "-C", "..", "status", "--porcelain").stdout
    assert "demo/" not in outer


def test_nothing_runs_twice(demo: Project) -> None:
    said = demo.make("run")
    assert "nothing has changed" in said
    assert "train ..." not in said
    assert "nothing has changed" in demo.make("pipeline")
    assert demo.registry("len(r.versions())") == "1"


def test_what_conducts_a_run_loads_none_of_what_works_in_it(trained: Project) -> None:
    """It begins as often as anybody looks for something new. A parser (lark) would take half of its time."""
    loaded = trained.python("import sys, copier_mlops.lifecycle.flow_steps; print(*sys.modules)").split()
    assert "prefect" in loaded
    assert not {"lark", "sklearn", "scipy", "mlflow", "matplotlib", "duckdb", "optuna"} & set(loaded)


@pytest.mark.long
def test_own_checks_and_tests_pass(demo: Project) -> None:
    """Of a project that was run; of one as it is rendered: test_workflows.py."""
    demo.make("check")
    own_tests_passed(demo.make("test"))


def test_help_lists_every_target(demo: Project) -> None:
    said = demo.make("help-all")
    makefile = (demo / "Makefile").read_text()
    phony = re.search(r"\.PHONY: (.*?)\n\n", makefile, re.S)
    assert phony
    for target in phony[1].replace("\\", " ").split():
        assert re.search(rf"^ +make {target} +\S", said, re.M), target


def test_predict_on_real_rows(demo: Project, tmp_path: Path) -> None:
    demo.python(
        "import pandas as pd; from pathlib import Path\n"
        "rows = pd.read_parquet(sorted(Path('data/raw').rglob('*.parquet'))[-2]).head(500)\n"
        f"rows.drop(columns='late').to_csv('{tmp_path}/rows.csv', index=False)\n"
        f"rows.to_parquet('{tmp_path}/rows.parquet')\n"
    )
    for ending in ("csv", "parquet"):
        said = demo.make("predict", f"INPUT={tmp_path}/rows.{ending}", f"OUTPUT={tmp_path}/answers.csv")
        assert "version 1 answered 500 rows" in said
        (tmp_path / "answers.csv").rename(tmp_path / f"from_{ending}.csv")
    assert (tmp_path / "from_csv.csv").read_bytes() == (tmp_path / "from_parquet.csv").read_bytes()


def test_same_inputs_same_metrics(fork: Project) -> None:
    """To 1e-9: the search is seeded by trial, the fit by params.yaml."""
    before = json.loads((fork / "reports/metrics.json").read_text())
    shutil.rmtree(fork / ".cache")
    shutil.rmtree(fork / "data/features")
    done = fork.command(".venv/bin/dvc", "repro", "--force", "--no-run-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    after = json.loads((fork / "reports/metrics.json").read_text())
    assert after == pytest.approx(before, abs=1e-9, rel=0)


def test_a_new_month_reaches_the_next_run(fork: Project, flights: Callable[[Path, list[int]], Path]) -> None:
    before = json.loads((fork / "reports/facts.json").read_text())
    flights(Path(fork.environment["SOURCE_URI"]), [5])
    fork.make("run")
    after = json.loads((fork / "reports/facts.json").read_text())
    assert after["window"]["test_start"].startswith("2013-05")
    assert after["rows"]["train"] > before["rows"]["train"] * 1.1
    assert (fork / "data/raw/month=2013-05").exists()
    assert after["source"] != before["source"]


def test_from_version_to_version(fork: Project) -> None:
    """Edit the features, train, promote, go back: the old answers to the byte, and who did what when and why."""
    rows = fork / "rows.csv"
    fork.python(
        "import pandas as pd; from pathlib import Path\n"
        f"pd.read_parquet(sorted(Path('data/raw').rglob('*.parquet'))[-1]).head(300).to_csv('{rows}', index=False)"
    )
    fork.make("predict", f"INPUT={rows}", "OUTPUT=one.csv")
    fork.replace("src/PACKAGE/features.py", '"weekday": departure.day_of_week', '"weekday": -departure.day_of_year')
    said = fork.make("run")
    assert "2, challenger" in said and "over champion" in said
    fork.make("predict", f"INPUT={rows}", "OUTPUT=still_one.csv")
    assert (fork / "still_one.csv").read_bytes() == (fork / "one.csv").read_bytes()

    assert "version 2 is the champion" in fork.make("promote", "WHY=it reads the season", ACTOR="Grace")
    fork.make("predict", f"INPUT={rows}", "OUTPUT=two.csv")
    assert (fork / "two.csv").read_bytes() != (fork / "one.csv").read_bytes()
    assert json.loads((fork / "champion.json").read_text())["version"] == 2

    assert "version 1 is the champion" in fork.make("rollback", "WHY=it was the weather", ACTOR="Joan")
    fork.make("predict", f"INPUT={rows}", "OUTPUT=one_again.csv")
    assert (fork / "one_again.csv").read_bytes() == (fork / "one.csv").read_bytes()
    assert json.loads((fork / "champion.json").read_text())["version"] == 1

    history = fork.make("history")
    for words in ("Ada", "Grace", "Joan", "it reads the season", "it was the weather", "rollback", "archived"):
        assert words in history, history
    assert "nothing to go back to" in fork.make("rollback", fails=True)
    assert json.loads((fork / "champion.json").read_text())["version"] == 1

    compared = fork.make("compare", "A=1", "B=2")
    assert "auc" in compared and "content of data/features" in compared and "content of data/raw" not in compared
    assert "there is no version 9" in fork.make("compare", "A=1", "B=9", fails=True)


def test_reproduce(trained: Project) -> None:
    """From what was kept with the version, in an environment of its own."""
    said = trained.make("reproduce", "VERSION=1")
    assert "version 1 is reproduced" in said
    assert "there is no version 77" in trained.make("reproduce", "VERSION=77", fails=True)


def test_reproduce_refuses_a_lineage_that_was_changed(fork: Project) -> None:
    """The run records the digest of each file; a changed file is named, and nothing is executed."""
    (kept,) = (fork / "mlartifacts").glob("*/artifacts/lineage/metrics.json")
    kept.write_text(kept.read_text().replace("0.", "0.1", 1))
    printed = fork.make("reproduce", "VERSION=1", fails=True)
    assert "version 1 is not rebuilt" in printed and "lineage/metrics.json" in printed


def test_a_model_that_fails_the_gate(fork: Project) -> None:
    """It is kept and tagged, and never registered."""
    fork.set_params(gate={"at_least": {"auc": 0.99}})
    said = fork.make("run", fails=True)
    assert "did not pass the gate" in said and "gate.at_least.auc" in said and "missed by" in said
    assert fork.registry("len(r.versions()), r.holder('challenger')") == "(1, None)"
    assert fork.registry("[run.data.tags['verdict'] for run in r.runs()]") == "['passed', 'failed']"
    assert "rejected" in fork.make("history")
    assert json.loads((fork / "champion.json").read_text())["version"] == 1


def test_worse_than_the_champion(fork: Project) -> None:
    """The champion answers the same rows through its bundle, and a model that loses to it is refused."""
    fork.set_params(gate={"worse_than_champion": 0.001, "at_least": {}})
    guess = "__import__('sklearn.dummy').dummy.DummyClassifier()"
    fork.replace(
        "src/PACKAGE/model.py", "    codes = OrdinalEncoder", f"    return {guess}\n    codes = OrdinalEncoder"
    )
    said = fork.make("run", fails=True)
    assert "gate.worse_than_champion" in said and "gain in auc over the champion is -" in said


def test_promotion_by_itself(fork: Project) -> None:
    fork.set_params(promotion={"automatic": True}, seed=8)
    assert "2, champion" in fork.make("run")


def test_another_library_drops_into_the_model(fork: Project) -> None:
    """Any estimator with fit and predict: here one that model.py itself defines, which has to travel in the bundle."""
    path = fork / f"src/{fork.package}/model.py"
    path.write_text(
        "import numpy as np\nfrom sklearn.base import BaseEstimator\n\n"
        "FIRST_GUESS = {'scale': 1.0}\n\n\ndef search_space(trial):\n"
        "    return {'scale': trial.suggest_float('scale', 0.5, 2.0)}\n\n\n"
        "class Hours(BaseEstimator):\n    def __init__(self, scale=1.0):\n        self.scale = scale\n\n"
        "    def fit(self, X, y):\n        self.rates_ = {h: y[(X['departure_hour'] == h).to_numpy()].mean() for h in range(24)}\n"
        "        return self\n\n    def predict(self, X):\n"
        "        return np.clip([self.scale * np.nan_to_num(self.rates_[h]) for h in X['departure_hour']], 0, 1)\n\n\n"
        "def build_model(problem, params, seed):\n    return Hours(**params)\n"
    )
    assert "2, challenger" in fork.make("run")
    path.write_text(path.read_text().replace("Hours", "Days"))  # today's code has no such class any more
    fork.python(
        "import pandas as pd; from pathlib import Path\n"
        "pd.read_parquet(sorted(Path('data/raw').rglob('*.parquet'))[-1]).head(30).to_csv('rows.csv', index=False)"
    )
    assert re.search(r"version 2 answered \d+ rows, set 0 aside", fork.make("predict", "INPUT=rows.csv", "VERSION=2"))


def test_a_commit_is_checked(fork: Project) -> None:
    """`make setup` installs the hook: it formats the changed files, and refuses the commit until they are added again."""
    commit = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@localhost", "commit", "--quiet", "--message", "mine"]
    (fork / "src" / fork.package / "mine.py").write_text("x=1\n")
    fork.command("git", "add", "--all")
    refused = fork.command(*commit)
    assert refused.returncode != 0 and "files were modified by this hook" in refused.stdout + refused.stderr
    fork.command("git", "add", "--all")
    done = fork.command(*commit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_stages_and_targets_of_ones_own(fork: Project) -> None:
    """The places for the user's own, beside ours."""
    (fork / "local.mk").write_text("hello: ## of my own\n\t@echo hello from local.mk\n")
    assert "hello from local.mk" in fork.make("hello") and "of my own" in fork.make("help")
    (fork / "pipelines/count").mkdir(parents=True)
    (fork / "pipelines/count/dvc.yaml").write_text(
        "stages:\n  count:\n    wdir: ../..\n    cmd: wc -c reports/metrics.json > reports/count.txt\n"
        "    deps: [reports/metrics.json]\n    outs: [reports/count.txt]\n"
    )
    assert "count" in fork.make("pipeline")
    assert (fork / "reports/count.txt").exists()


@pytest.mark.long  # runs of a regression in make test: test_adopt.py
def test_regression(render: Render, trained: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The other problem, from render to champion, with its own checks and tests; a first push of it, with all of these, is
    executed in test_workflows.py."""
    folder = tmp_path_factory.mktemp("regression") / "project"
    shutil.copytree(render(problem="regression", licence="MIT"), folder)
    project = Project(folder, **{**trained.environment, "PYTHONPATH": str(folder / "src")})
    project.make("setup")
    project.make("check")
    assert re.search(r"\d+ passed", project.make("test", SOURCE_URI="", PREFECT_API_URL=""))
    make_small(project)
    said = project.make("run")
    assert "mae" in said and "1, champion" in said
    facts = json.loads((project / "reports/facts.json").read_text())
    assert facts["metrics"]["mae"]["value"] < facts["baseline"]["mae"]
