"""The challenger on the answers of production: who is compared on what, who is proposed, and that a worse one never becomes champion."""

import dataclasses
import datetime as dt
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, bundle_files, serving_bundle
from copier_mlops.bundle.isolated import Isolated
from copier_mlops.contract.contract import mask
from copier_mlops.data import tables
from copier_mlops.evaluation.metrics import PROPER
from copier_mlops.lifecycle import registration
from copier_mlops.monitoring import candidates
from copier_mlops.monitoring.import_labels import label
from copier_mlops.monitoring.report_builder import learnt_until
from copier_mlops.registry.database import CHALLENGER, CHAMPION, Version
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.serving.make_bundle import export
from copier_mlops.settings import Paths, Settings

from ..conftest import Enter, Poison, change, mlops
from .test_monitor import _log, answered, look
from .test_monitor import actions as proposed

NOW = dt.datetime.now(dt.UTC) + dt.timedelta(days=20)  # what was answered until then no model has seen


@pytest.fixture(scope="session")
def _lately(_registered: Path, _enter: Enter, rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose champion has answered since it was trained, and of whose answers all have a label."""
    with pytest.MonkeyPatch.context() as patch:
        folder = _enter(_registered, tmp_path_factory.mktemp("lately"), patch)
        export(Settings(), 1, Path("dist/bundle"))
        _log(answered(rows, 1, NOW))
        rows[[CONTRACT.id, CONTRACT.target]].to_csv("outcomes.csv", index=False)
        label(Settings(), "outcomes.csv")
        change(folder, monitoring={"min_rows": 50, "min_labelled": 50})
    return folder


@pytest.fixture
def lately(_lately: Path, _enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return _enter(_lately, tmp_path, monkeypatch)


@pytest.fixture
def unseen(rows: pd.DataFrame, lately: Path) -> int:
    """How many rows neither has learnt from."""
    until = learnt_until(serving_bundle.load(Path("dist/bundle")).manifest)
    return int((rows[CONTRACT.time] >= until).sum()) if CONTRACT.time else len(rows)


Score = Callable[[bundle.Bundle, pd.DataFrame], np.ndarray]


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Score], None]:
    """Let the challenger answer otherwise. The bundles of a registry have no number of their own."""

    def make(score: Score) -> None:
        class Another(Isolated):
            def score(self, rows: pd.DataFrame) -> np.ndarray:
                return score(self, rows)

        def load(registry: Registry, version: Version) -> Isolated:
            return Another(**vars(before(registry, version)))

        before = Registry.load
        monkeypatch.setattr(Registry, "load", load)
        monkeypatch.setattr(bundle, "verify", lambda one: 0.0)

    return make


@pytest.fixture
def truth(rows: pd.DataFrame) -> Score:
    """Who knows what will be."""
    key = Settings().mask_key.get_secret_value()
    ids = mask(rows.drop(columns=CONTRACT.target), CONTRACT, key)[CONTRACT.id]
    known = dict(zip(ids.astype("str"), CONTRACT.labels(rows[CONTRACT.target]), strict=True))

    def score(one: bundle.Bundle, asked: pd.DataFrame) -> np.ndarray:
        y = np.array([known[name] for name in asked[CONTRACT.id].astype("str")])
        if one.manifest["problem"] == "regression":
            return y
        if len(CONTRACT.classes) > 2:
            return 0.1 + 0.7 * np.eye(len(CONTRACT.classes))[y.astype(int)]
        return 0.1 + 0.8 * y

    return score


@pytest.fixture
def wrong(truth: Score) -> Score:
    """Who says the contrary."""

    def score(one: bundle.Bundle, asked: pd.DataFrame) -> np.ndarray:
        y = truth(one, asked)
        if one.manifest["problem"] == "regression":
            return y + 1000 * np.where(np.arange(len(y)) % 2, 1.0, -1.0)
        return np.roll(y, 1, axis=1) if y.ndim == 2 else 1 - y

    return score


def holders() -> tuple[int | None, int | None]:
    found = [Registry(Settings()).holder(alias) for alias in (CHAMPION, CHALLENGER)]
    champion, challenger = (one.number if one else None for one in found)
    return champion, challenger


# ------------------------------------------------------------------------------------------------------- A look


def test_a_look_holds_the_challenger_against_the_champion(lately: Path, unseen: int) -> None:
    report = look(Settings(), NOW)
    found = report["challenger"]
    assert report == tables.read_json(Paths.LOOK)
    assert (found["version"], found["rows"], found["shadowed"]) == (2, unseen, 0)
    assert unseen > 50 and found["better"] is not None
    assert found["metric"] == PROPER[report["problem"]]
    assert found["low"] <= found["gain"] <= found["high"]
    assert ("promote" in proposed(report)) is found["better"]
    assert (found["says"] in report["notes"]) is not found["better"]
    assert "Is the challenger better?" in Paths.LOOK_PAGE.read_text()
    again = look(Settings(), NOW)
    assert again["challenger"] == found


def test_a_better_one_is_proposed(lately: Path, becomes: Callable[[Score], None], truth: Score) -> None:
    becomes(truth)
    report = look(Settings(), NOW)
    assert report["challenger"]["better"] is True and report["challenger"]["low"] > 0
    assert proposed(report)[0] == "promote"
    assert "Promoting version 2 is proposed" in report["verdict"]["says"]
    assert candidates.proposed(Settings()) == 2
    change(lately, monitoring={"promote_margin": 1e6})
    report = look(Settings(), NOW)
    assert report["challenger"]["better"] is False and "promote" not in proposed(report)


def test_a_worse_one_never_becomes_champion(
    lately: Path,
    becomes: Callable[[Score], None],
    wrong: Score,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    becomes(wrong)
    report = look(Settings(), NOW)
    assert report["challenger"]["better"] is False and report["challenger"]["high"] < 0
    assert "promote" not in proposed(report)
    monkeypatch.setattr(os, "execv", lambda *given: pytest.fail("it would be promoted"))
    assert mlops("promote-proposed", "--reason", "an alert that somebody made up") == 1
    assert "proposes no promotion" in capsys.readouterr().err
    assert holders() == (1, 2)


def test_few_labels_promote_nobody(lately: Path, becomes: Callable[[Score], None], truth: Score) -> None:
    becomes(truth)
    change(lately, monitoring={"min_labelled": 5000})
    report = look(Settings(), NOW)
    assert report["challenger"]["better"] is None and "promote" not in proposed(report)
    assert "too few for a verdict" in " ".join(report["notes"])
    shutil.rmtree("labels")
    report = look(Settings(), NOW)
    assert report["challenger"]["rows"] == 0 and "no labelled answer yet" in report["challenger"]["says"]


def test_answers_in_the_shadow_are_used_and_counted_nowhere_else(lately: Path, rows: pd.DataFrame, unseen: int) -> None:
    before = look(Settings(), NOW)
    export(Settings(), 2, Path("dist/shadow"))
    loaded = serving_bundle.load(Path("dist/shadow"))
    entries = answered(rows, 1, NOW)
    asked = pd.DataFrame([one["inputs"] for one in entries])
    answers = loaded.answers(asked).to_dict("records")
    both = zip(entries, answers, strict=True)
    _log([{**one, "way": "shadow", "version": 2, "answer": answer} for one, answer in both])
    after = look(Settings(), NOW)
    assert after["challenger"]["shadowed"] == after["challenger"]["rows"] == unseen
    assert after["challenger"]["challenger"] == pytest.approx(before["challenger"]["challenger"], rel=1e-3)
    assert "had answered in the shadow" in after["challenger"]["says"]
    assert after["log"] == {**before["log"], "shadow": len(rows)}
    for name in ("window", "performance", "drift", "labels", "traffic"):
        assert after[name] == before[name]


# ------------------------------------------------------------------------------------------------------ No contest


def test_without_a_challenger_there_is_none(lately: Path) -> None:
    registration.promote(Settings(), 2, "a test")
    export(Settings(), 2, Path("dist/bundle"))
    report = look(Settings(), NOW)
    assert report["challenger"] is None and report["version"] == 2
    assert "challenger" not in " ".join(report["notes"])


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///nowhere.db"])
def test_a_registry_that_is_away_is_a_note(uri: str, lately: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    report = look(Settings(), NOW)
    assert report["challenger"] is None and Paths.LOOK.exists()
    assert "nobody knows whether there is a challenger" in " ".join(report["notes"])
    assert not Path("nowhere.db").exists()


def test_what_answers_has_to_be_the_champion(lately: Path) -> None:
    export(Settings(), 2, Path("dist/bundle"))
    found = look(Settings(), NOW)["challenger"]
    assert (found["better"], found["rows"]) == (None, 0)
    assert "version 2 answers, and version 1 is the champion" in found["says"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (bundle_files.StaleBundleError("it answers differently"), "it answers differently"),
        (OSError("no disk"), "no disk"),
    ],
)
def test_a_bundle_that_does_not_answer(
    error: Exception, says: str, lately: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(one: bundle.Bundle) -> float:
        raise error

    monkeypatch.setattr(bundle, "verify", verify)
    report = look(Settings(), NOW)
    assert says in str(report["challenger"]) + str(report["notes"])
    assert "promote" not in proposed(report)


def test_one_that_fails_on_what_was_asked(lately: Path, becomes: Callable[[Score], None]) -> None:
    def fails(one: bundle.Bundle, rows: pd.DataFrame) -> np.ndarray:
        raise ValueError("a value of somebody")

    becomes(fails)
    report = look(Settings(), NOW)
    assert report["challenger"]["better"] is None
    assert report["challenger"]["says"].endswith("does not answer what was asked (ValueError)")


def test_another_question_or_another_contract(lately: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = serving_bundle.load(Path("dist/bundle"))
    known = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    columns = tuple(
        dataclasses.replace(column, nullable=not column.nullable) if column.name == CONTRACT.features()[0] else column
        for column in champion.contract.columns
    )
    others = {
        "another question": {"manifest": {**champion.manifest, "problem": "other"}},
        "its contract is another": {"contract": dataclasses.replace(champion.contract, columns=columns)},
        "nobody knows what version 1 has learnt from": {},
    }
    for says, other in others.items():
        found, notes = candidates.challenger_of(
            Settings(), dataclasses.replace(champion, **other), known if other else None
        )
        assert found is not None and found.loaded is None and not notes
        assert says in found.why
    found, _ = candidates.challenger_of(Settings(), champion, known)
    assert found is not None and found.loaded is not None and found.since is not None and found.since >= known


# -------------------------------------------------------------------------------------------- The version before


@pytest.fixture
def newly(lately: Path, rows: pd.DataFrame, truth: Score) -> Path:
    """Version 2 has taken over from version 1, which never erred: the times were easy then."""
    until = learnt_until(serving_bundle.load(Path("dist/bundle")).manifest)
    new = (rows[CONTRACT.time] >= until).to_numpy(bool) if CONTRACT.time else np.arange(len(rows)) % 2 == 1
    old, shared = rows[~new], serving_bundle.load(Path("dist/bundle"))
    entries = answered(old, 1, NOW - dt.timedelta(12))
    right = truth(shared, pd.DataFrame([one["inputs"] for one in entries])).reshape(len(entries), -1)
    easy = pd.DataFrame(right, columns=CONTRACT.answers).to_dict("records")
    shutil.rmtree("predictions")
    registration.promote(Settings(), 2, "a test")
    export(Settings(), 2, Path("dist/bundle"))
    _log([{**one, "answer": {**one["answer"], **answer}} for one, answer in zip(entries, easy, strict=True)])
    _log(answered(rows[new], 2, NOW))
    return lately


def test_worse_times_send_nobody_back(
    newly: Path, becomes: Callable[[Score], None], unseen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = serving_bundle.load(Path("dist/bundle"))
    becomes(lambda one, asked: same.score(asked))
    report = look(Settings(), NOW)
    before = report["performance"]["before"]
    assert before["version"] == 1 and before["worse"] is False, before
    assert f"on the same {unseen:,} labelled answers" in before["says"]
    assert "roll_back" not in proposed(report)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
    report = look(Settings(), NOW)  # each on its own answers is all that is left
    assert report["performance"]["before"]["worse"] is True and "roll_back" in proposed(report)


def test_after_some_weeks_nothing_is_kept_to_go_back(newly: Path) -> None:
    look(Settings(), NOW)
    later = look(Settings(), NOW + dt.timedelta(days=22))
    before = later["performance"]["before"]
    assert before is None or "on the same" not in before["says"]


def test_who_would_have_done_better_comes_back(newly: Path, becomes: Callable[[Score], None], truth: Score) -> None:
    becomes(truth)
    report = look(Settings(), NOW)
    before = report["performance"]["before"]
    assert before["worse"] is True and before["gain"]["high"] < 0
    assert proposed(report)[0] == "roll_back"
    assert "worse by" in report["verdict"]["actions"][0]["reasons"][0]
    change(newly, monitoring={"min_labelled": 5000})
    report = look(Settings(), NOW)
    assert report["performance"]["before"]["worse"] is None and "roll_back" not in proposed(report)


def test_one_before_that_cannot_be_asked_is_taken_at_its_answers(newly: Path, becomes: Callable[[Score], None]) -> None:
    def fails(one: bundle.Bundle, rows: pd.DataFrame) -> np.ndarray:
        raise ValueError("a value of somebody")

    becomes(fails)
    before = look(Settings(), NOW)["performance"]["before"]
    assert before["version"] == 1 and "on the same" not in before["says"]


# ------------------------------------------------------------------------------------------------------- Promotion


def test_only_what_the_report_proposes_now_is_promoted(
    lately: Path, becomes: Callable[[Score], None], truth: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProjectError, match="is missing or cannot be read"):
        candidates.proposed(Settings())
    becomes(truth)
    report = look(Settings(), NOW)
    done: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda program, words: done.append(words[3:]))
    assert mlops("promote-proposed", "--reason", "PromotionProposed: number 1 of 1") == 0
    assert done == [["promote-deploy", "--version=2", "--reason=PromotionProposed: number 1 of 1"]]
    back = {"action": "roll_back", "reasons": ["a test"]}
    for other in ({"challenger": None}, {"verdict": {"actions": []}},
                  {"verdict": {"actions": [*report["verdict"]["actions"], back]}}):  # fmt: skip
        tables.write_json({**report, **other}, Paths.LOOK)
        with pytest.raises(ProjectError, match="proposes no promotion"):
            candidates.proposed(Settings())
    for text in ("[]", "{}", "{"):
        Paths.LOOK.write_text(text)
        with pytest.raises(ProjectError):
            candidates.proposed(Settings())
    tables.write_json(report, Paths.LOOK)
    registration.promote(Settings(), 2, "somebody was faster")
    with pytest.raises(ProjectError, match="by now the registry has 2 and None"):
        candidates.proposed(Settings())
    assert len(done) == 1


def test_a_replaced_challenger_is_not_loaded(lately: Path, poison: Poison) -> None:
    mark = poison(2)
    found = look(Settings(), NOW)
    assert "is not the recorded one" in found["challenger"]["says"]
    assert not mark.exists()
