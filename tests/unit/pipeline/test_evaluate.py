"""Every figure of the report comes from the bundle's answers to the rows of the test."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sample_project import schema

from copier_mlops import Column, Contract, ProjectError
from copier_mlops.bundle import bundle
from copier_mlops.data import tables
from copier_mlops.evaluation import metrics
from copier_mlops.params import load_run
from copier_mlops.pipeline import evaluate as stage
from copier_mlops.pipeline import run_config, split
from copier_mlops.pipeline.evaluate import evaluate
from copier_mlops.settings import Paths, Settings

from ..conftest import change, rewrite

CONTRACT = schema.CONTRACT


def test_the_figures_are_those_of_the_answers(project: Path) -> None:
    run, facts, scored = load_run(), tables.read_json(Paths.FACTS), tables.read(Paths.SCORED)
    y, score = CONTRACT.labels(scored[CONTRACT.target]), answers(scored)
    assert facts["rows"]["test"] == len(scored) == len(split.test(run))
    mean = np.broadcast_to(np.array(bundle.load(Paths.BUNDLE).manifest["baseline"]), score.shape)
    for name, measure in metrics.METRICS[run.problem].items():
        value = measure(y, score, np.ones(len(y)))
        assert facts["metrics"][name]["value"] == tables.read_json(Paths.METRICS)[name] == pytest.approx(value)
        assert facts["baseline"][name] == pytest.approx(measure(y, mean, np.ones(len(y))), nan_ok=True)


def answers(scored: pd.DataFrame) -> np.ndarray:
    """As `Bundle.score` gives them."""
    found = scored[CONTRACT.answers].to_numpy("float64")
    return found if len(CONTRACT.answers) > 1 else found[:, 0]


def test_the_answers_are_those_of_the_bundle(project: Path) -> None:
    scored = tables.read(Paths.SCORED)
    files = [file for _, files in tables.parts(Paths.VALIDATED) for file in files]
    good = pd.concat([tables.read(file) for file in files]).drop(columns=CONTRACT.target)
    good = good.set_index(CONTRACT.id, drop=False)
    expected = bundle.load(Paths.BUNDLE).score(good.loc[scored[CONTRACT.id]])
    assert answers(scored) == pytest.approx(expected)


def test_rows_of_subjects_in_the_training_are_counted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [one for one in CONTRACT.columns if one.role == "feature" and one.kind in ("string", "integer")]
    if CONTRACT.group or not columns or load_run().resolved.test_start is None:
        pytest.skip("no column can be a group, or the split is drawn")
    name = columns[0].name
    changed = [Column(name, one.kind, "group", nullable=True) if one.name == name else one for one in CONTRACT.columns]
    monkeypatch.setattr("sample_project.schema.CONTRACT", Contract(tuple(changed)))
    facts = stage.evaluate()
    rows = facts["subjects"]
    assert rows["column"] == name and 0 < rows["known"] <= facts["rows"]["test"]
    parts = {line["group"]: line["rows"] for line in facts["slices"] if line["slice"] == f"{name} in training"}
    assert parts.get("yes", 0) == rows["known"] and sum(parts.values()) == facts["rows"]["test"]
    assert f"different {name} in the test" in Paths.CARD.read_text() and f"{name} in the test" in Paths.PAGE.read_text()


def test_people_find_pictures_a_page_and_a_card(project: Path) -> None:
    pictures = {"quality", "importance", "search", *(["slices"] if load_run().evaluation.slices else [])}
    pictures |= {"curves"} if load_run().problem == "classification" else set()
    assert {path.stem for path in Paths.PLOTS.iterdir()} == pictures
    assert Paths.PAGE.read_text().count("data:image/png;base64,") == len(pictures)
    assert CONTRACT.target in Paths.CARD.read_text()


def test_a_model_that_only_computes_the_target_is_stopped(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run()
    name = "auc" if run.problem == "classification" else "r2"
    value = tables.read_json(Paths.METRICS)[name]
    for limit, stops in ((value - 1e-6, True), (value + 1e-6, False)):
        below = run.validation.model_copy(update={"max_model_skill": limit})
        monkeypatch.setattr(stage, "load_run", lambda below=below: run.model_copy(update={"validation": below}))
        if stops and len(tables.read(Paths.SCORED)) >= stage.FEWEST_TO_JUDGE:
            with pytest.raises(
                ProjectError, match=rf"nearly perfect on the test rows: {name} .*validation.max_model_skill"
            ):
                evaluate()
        else:
            evaluate()
    monkeypatch.setattr(stage, "FEWEST_TO_JUDGE", len(tables.read(Paths.SCORED)) + 1)
    evaluate()


def test_the_threshold_of_params_moves_the_confusion_table_only(project: Path) -> None:
    if load_run().problem == "regression" or len(CONTRACT.answers) > 1:
        pytest.skip("a threshold needs two classes")
    before, scored = tables.read_json(Paths.FACTS), tables.read(Paths.SCORED)
    threshold = float(np.quantile(answers(scored), 0.3))
    change(project, evaluation={"threshold": threshold})
    run_config.resolve_run(Settings())
    facts = evaluate()
    assert (
        sum(facts["confusion"][f"{side}_positive"] for side in ("true", "false"))
        == (answers(scored) >= threshold).sum()
    )
    assert facts["metrics"] == before["metrics"]
    assert sum(facts["confusion"].values()) == len(scored)


def test_the_points_of_the_plots_that_dvc_yaml_names(project: Path) -> None:
    """DVC leaves out a plot without points; a missing file is an error."""
    curves = {"predicted_actual"} if load_run().problem == "regression" else {"roc", "precision_recall", "calibration"}
    shown = set()
    for plot in yaml.safe_load(Path("dvc.yaml").read_text())["plots"]:
        ((_, drawn),) = plot.items()
        ((file, y),) = drawn["y"].items()
        points = tables.read_json(Path(file))
        assert not points or {drawn["x"], y} <= points[0].keys()
        shown |= {Path(file).stem} if points else set()
    assert shown == {*curves, "importance", "trials"}


def test_a_slice_that_is_no_column_is_named(project: Path) -> None:
    change(project, evaluation={"slices": [CONTRACT.id, "no such planet"]})
    run_config.resolve_run(Settings())
    known = re.escape(f"names no such planet; there are month and {CONTRACT.names[0]}")
    with pytest.raises(ProjectError, match=known):
        evaluate()


def test_rows_without_a_time_have_no_months(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timeless = tuple(column for column in CONTRACT.columns if column.role != "time")
    monkeypatch.setattr("sample_project.schema.CONTRACT", Contract(timeless))
    with pytest.raises(ProjectError, match="names month, but the contract has no time"):
        stage.groups(tables.read(Paths.SCORED), ("month",))


def test_without_rows_that_judge_there_is_no_test(project: Path) -> None:
    run = load_run()

    def learnt_from(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame[CONTRACT.time] < run.resolved.test_start] if CONTRACT.time else frame.head(0)

    rewrite(Paths.VALIDATED, learnt_from)
    with pytest.raises(ProjectError, match=re.escape(f"there are no rows in {split.says(run)}")):
        evaluate()
