"""A lowered limit and an edited champion.json are reported."""

import copy
import json

import pytest
import yaml

from copier_mlops.ci import model_limits

PARAMS = {
    "problem": "classification",
    "gate": {"metric": "auc", "at_least": {"auc": 0.6}, "at_most": {"brier": 0.3}, "better_than_baseline": 0.05},
    "validation": {"max_bad_share": 0.01},
    "evaluation": {"slices": ["month", "origin"]},
}
CHAMPION = {
    "model": "flights",
    "version": 3,
    "run_id": "a",
    "bundle": "b",
    "metrics": {"auc": 0.71, "brier": 0.2, "log_loss": None, "baseline_auc": 0.5, "answer_cost": 1.0, "rows_in": 10.0},
    "since": "2026-01-01",
}


def changed(**sections: object) -> str:
    content = copy.deepcopy(PARAMS)
    for name, value in sections.items():
        content[name] = {**content.get(name, {}), **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    return yaml.safe_dump(content)


def lowered(text: str) -> dict[str, str]:
    return dict(
        model_limits.lowered_limits(model_limits.effective(yaml.safe_dump(PARAMS)), model_limits.effective(text))
    )


@pytest.mark.parametrize(
    ("section", "value", "name"),
    [
        ("gate", {"at_least": {"auc": 0.5}}, "gate.at_least.auc"),
        ("gate", {"at_least": {}}, "gate.at_least.auc"),
        ("gate", {"at_most": {"brier": 0.9}}, "gate.at_most.brier"),
        ("gate", {"better_than_baseline": -1.0}, "gate.better_than_baseline"),
        ("gate", {"worse_than_champion": 0.5}, "gate.worse_than_champion"),
        ("gate", {"metric": "brier"}, "gate.metric"),
        ("validation", {"max_bad_share": 0.5}, "validation.max_bad_share"),
        ("validation", {"max_single_input_skill": 1.0}, "validation.max_single_input_skill"),
        ("validation", {"max_model_skill": 1.0}, "validation.max_model_skill"),
        ("evaluation", {"slices": ["month"]}, "evaluation.slices"),
        ("evaluation", {"bootstrap": 20}, "evaluation.bootstrap"),
        ("split", {"test_days": 1}, "split.test_days"),
        ("review", {"keeps": 0.0}, "review.keeps"),
        ("review", {"slower": 100.0}, "review.slower"),
        ("promotion", {"automatic": True}, "promotion.automatic"),
        ("monitoring", {"level": 0.0001}, "monitoring.level"),
    ],
)
def test_a_limit_that_is_lowered_is_named(section: str, value: dict[str, object], name: str) -> None:
    assert list(lowered(changed(**{section: value}))) == [name]


def test_a_limit_that_is_left_out_falls_back_to_its_default() -> None:
    content = {name: value for name, value in PARAMS.items() if name != "validation"}
    found = lowered(yaml.safe_dump(content))
    assert found == {"validation.max_bad_share": "validation.max_bad_share is 0.02; it was 0.01"}


def test_stricter_limits_are_no_finding() -> None:
    gate = {"at_least": {"auc": 0.7, "average_precision": 0.4}, "at_most": {"brier": 0.2}, "better_than_baseline": 0.1}
    more = {"slices": ["month", "origin", "carrier"]}
    assert not lowered(changed(gate=gate, evaluation=more, validation={"max_bad_share": 0.0}, seed=8))


def test_params_that_do_not_validate_are_compared_as_they_are() -> None:
    found = lowered(changed(gate={"at_least": {"auc": 0.5}}, validation={"typo": 1}))
    assert "gate.at_least.auc" in found
    assert model_limits.effective("a: [") == model_limits.effective("- 1") == model_limits.effective(None) == {}


def edited(tolerance: float = 0.005, **changes: object) -> list[str]:
    now = json.dumps({**CHAMPION, **changes})
    return [name for name, _ in model_limits.edited_champion(json.dumps(CHAMPION), now, tolerance)]


def test_a_champion_that_was_edited_by_hand_is_named() -> None:
    weaker = {**CHAMPION["metrics"], "auc": 0.55}  # type: ignore[dict-item]
    ((name, text),) = model_limits.edited_champion(
        json.dumps(CHAMPION), json.dumps({**CHAMPION, "metrics": weaker}), 0.005
    )
    assert name == "champion.json" and "edited by hand" in text and "auc 0.71 -> 0.55" in text
    assert edited(run_id="c") == ["champion.json"]
    assert edited(version=4, run_id="c", metrics=weaker) == ["champion.auc"]
    assert edited(version=4, run_id="c", metrics={}) == ["champion.auc", "champion.brier"]
    assert [name for name, _ in model_limits.edited_champion(json.dumps(CHAMPION), None, 0.0)] == ["champion.json"]
    assert [name for name, _ in model_limits.edited_champion(json.dumps(CHAMPION), "{", 0.0)] == ["champion.json"]


def test_a_promotion_is_no_finding() -> None:
    better = {**CHAMPION["metrics"], "auc": 0.73, "answer_cost": 9.0, "baseline_auc": 0.4}  # type: ignore[dict-item]
    assert edited(version=4, run_id="c", bundle="d", metrics=better) == []
    assert edited(since="2026-02-02") == []
    assert edited(more="a key of a newer release") == []
    assert not list(model_limits.edited_champion(None, json.dumps(CHAMPION), 0.0))
    nearly = {**CHAMPION["metrics"], "auc": 0.69}  # type: ignore[dict-item]
    assert edited(version=4, run_id="c", metrics=nearly) == []


def test_every_limit_of_the_gate_has_a_direction() -> None:
    """A limit that is added to params.py is compared as well."""
    known = model_limits.effective(yaml.safe_dump(PARAMS))
    named = model_limits.RAISES | model_limits.LOWERS | {*model_limits.CHOICES}
    sections = ("gate.", "validation.", "review.")
    asked = [key for key in known if key.startswith(sections) and key != "review.trials"]
    assert asked
    for key in asked:
        assert key in named or f"{key.rpartition('.')[0]}.*" in named, key
