"""How good answers are is estimated while their labels are not there, and close to what the labels say later."""

import numpy as np
import pytest
from sklearn import metrics as theirs

from copier_mlops import Column, Contract
from copier_mlops.bundle.reference import reference
from copier_mlops.monitoring.drift import Window, compare

from .test_drift import CONTRACT, ROWS, TYPICAL, draw, look, profile


def test_performance_is_estimated_before_labels_are_there() -> None:
    """Rows that are harder to tell: the estimate follows, though it sees no label."""
    rows = draw(60_000, 9)
    hard = rows[np.random.default_rng(0).random(len(rows)) < np.exp(-8 * (rows["score"] - 0.45) ** 2)]
    found = look(profile(), hard).estimated
    assert found is not None
    estimated = found.set_index("metric")
    y, score = hard["y"], hard["score"]
    true = {"brier": theirs.brier_score_loss(y, score), "auc": theirs.roc_auc_score(y, score)}
    true["accuracy"] = theirs.accuracy_score(y, score >= 0.5)
    for name, value in true.items():
        assert estimated["now"][name] == pytest.approx(value, abs=0.015)
        assert abs(estimated["now"][name] - estimated["then"][name]) > estimated["margin"][name] > 0


def test_performance_of_many_classes_and_of_a_number() -> None:
    classes = Contract((*CONTRACT.columns[:3], Column("y", "string", role="target", allowed=("a", "b", "c"))))
    random, rows = np.random.default_rng(0), TYPICAL
    score = random.dirichlet([1, 0.7, 0.5], ROWS)
    y = (score.cumsum(axis=1) < random.random((ROWS, 1))).sum(axis=1).astype("float64")
    known = reference(rows, score, classes, y)
    window = Window(known)
    later = np.flatnonzero(score.max(axis=1) < 0.8)
    window.update(rows.iloc[later], score[later], y[later])
    found = compare(known, window)
    assert found.estimated is not None
    estimated = found.estimated.set_index("metric")["now"]
    assert estimated["auc"] == pytest.approx(theirs.roc_auc_score(y[later], score[later], multi_class="ovr"), abs=0.015)
    assert estimated["brier"] == pytest.approx(
        ((score - np.eye(3)[y.astype(int)]) ** 2)[later].sum(axis=1).mean(), abs=0.015
    )
    assert estimated["accuracy"] == pytest.approx((score.argmax(axis=1) == y)[later].mean(), abs=0.015)
    assert found.table["name"].tolist() == ["normal", "score a", "score b", "score c", "y"]

    amounts = Contract((*CONTRACT.columns[:3], Column("y", "number", role="target")))
    known = reference(rows, rows["normal"].to_numpy(), amounts, 3 * rows["normal"].to_numpy())
    found = look(known, rows.assign(score=rows["normal"] + 0.3, y=3 * rows["normal"] + 1))
    assert found.estimated is None
    assert "when its label is" in found.estimated_why
    assert set(found.table.loc[found.table["drifted"], "what"]) == {"answer", "label"}
