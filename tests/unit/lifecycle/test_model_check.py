"""A change is tried on little before it is merged: held against the limits and champion.json, and shown to people."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copier_mlops import ProjectError, UnreachableError
from copier_mlops.data import tables
from copier_mlops.lifecycle import model_check
from copier_mlops.params import load_params, load_run
from copier_mlops.pipeline import evaluate, features, ingest, train, validate
from copier_mlops.settings import Paths, Settings

from ..conftest import ROOT, change


@pytest.fixture(scope="module")
def stages_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Settings], None]:
    """The stages, in this process; as DVC does, what they made of the same settings before is put there again."""
    made: dict[str, Path] = {}

    def repro(settings: Settings) -> None:
        run = load_run()
        read = settings.source_uri + run.gate.metric + run.model_dump_json(exclude={"gate", "review"})
        if read not in made:
            ingest.ingest(settings)
            validate.validate()
            features.features()
            train.train()
            evaluate.evaluate()
            made[read] = tmp_path_factory.mktemp("made")
        places = [(Path(name), made[read] / name) for name in ("data", "models", "reports")]
        for here, there in places:
            if there.exists():
                shutil.rmtree(here)
                shutil.copytree(there, here)
            else:
                shutil.copytree(here, there)

    return repro


@pytest.fixture
def reviewed(
    project: Path, stages_run: Callable[[Settings], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], model_check.Review]:
    """Review the tiny project, with its stages in this process."""
    monkeypatch.setattr(model_check.dvc, "repro", stages_run)
    return lambda: model_check.review(Settings())


def point(metrics: dict[str, float], **more: Any) -> None:
    """Write a champion.json."""
    Paths.POINTER.write_text(json.dumps({"version": 3, "metrics": metrics, **more}))


def test_without_a_champion_the_limits_decide(
    reviewed: Callable[[], model_check.Review], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    found = reviewed()
    assert found.passed
    assert not found.note
    assert found.markdown == Paths.REVIEW.read_text() == (tmp_path / "summary").read_text()
    assert "no champion yet" in found.markdown
    assert load_run().search.trials == 1


def test_a_model_far_from_the_champion_does_not_pass(reviewed: Callable[[], model_check.Review], project: Path) -> None:
    metric = load_params().gate.metric
    perfect, nothing = (0.0, 1e9) if metric in ("mae", "rmse", "log_loss", "brier") else (1.0, -1e9)
    change(project, review={"keeps": 1.0})
    point({metric: perfect, f"baseline_{metric}": nothing, "answer_cost": 1e-9})
    found = reviewed()
    assert not found.passed
    assert [reason.rpartition("(")[2] for reason in found.reasons] == ["review.keeps)", "review.slower)"]


def test_a_model_like_the_champion_passes_and_the_page_compares(reviewed: Callable[[], model_check.Review]) -> None:
    first = reviewed()
    facts = tables.read_json(Paths.FACTS)
    metric = facts["metric"]
    value = facts["metrics"][metric]["value"]
    slices = [{**line, "value": 1e9 if facts["larger_is_better"] else -1e9} for line in facts["slices"]]
    point(
        {metric: value, f"baseline_{metric}": facts["baseline"][metric], "rows_in": 5, "rows_set_aside": 1},
        slices=slices,
        columns=[*facts["names"][1:], "gone"],
    )
    found = reviewed()
    assert found.passed == first.passed
    assert "version 3" in found.markdown and "`gone`" in found.markdown and f"`{facts['names'][0]}`" in found.markdown
    judged = [line for line in slices if line["high"] is not None]
    assert found.markdown.count("1,000,000,000") == min(len(judged), 10)


def test_a_champion_of_another_question_is_not_compared(reviewed: Callable[[], model_check.Review]) -> None:
    metric = load_params().gate.metric
    point({metric: 1e9, f"baseline_{metric}": 0.0, "answer_cost": 1e-9}, target="another")
    found = reviewed()
    assert found.passed
    assert "no champion yet" in found.markdown


def test_the_champions_hyperparameters_are_tried_first(reviewed: Callable[[], model_check.Review]) -> None:
    """A search may have chosen a model that is ten times as large as the first guess; like is compared with like."""
    reviewed()
    first = dict(tables.read_json(Paths.FACTS)["params"])
    name, value = next((name, value) for name, value in first.items() if isinstance(value, float))
    other = {**first, name: value * 0.99}
    point({}, params=other)
    reviewed()
    assert tables.read_json(Paths.FACTS)["params"] == pytest.approx(other)
    point({}, params={"another": 1})
    reviewed()
    assert tables.read_json(Paths.FACTS)["params"] == pytest.approx(first)


def test_without_the_source_the_rows_of_the_tests_take_its_place(
    reviewed: Callable[[], model_check.Review], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages run, and limits that are meant for real rows are not looked at."""
    point({load_params().gate.metric: 1e9}, slices=[])
    change(project, gate={"better_than_baseline": 1e6})
    monkeypatch.setenv("SOURCE_URI", "/nowhere/rows.parquet")
    with pytest.raises(ProjectError, match="nowhere"):
        reviewed()
    shutil.copytree(ROOT / "tests", project / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    found = reviewed()
    assert found.passed
    assert "/nowhere/rows.parquet" in found.note and found.note in found.markdown


def test_a_source_that_does_not_answer_is_one_that_cannot_be_read(
    reviewed: Callable[[], model_check.Review], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object, **more: object) -> str:
        raise UnreachableError("away")

    monkeypatch.setattr(model_check, "resolve_run", away)
    with pytest.raises(UnreachableError, match="away"):
        reviewed()
