"""Checks of model.py and of the trained model."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from copier_mlops.testing.fixtures import Check, Trained

CLOSE = 1e-5
"""Predictions in other company: a model of single precision adds up in another order."""
MILLISECONDS = 2.0
"""For a row among a thousand; a service that answers one at a time has its own limit."""
ROWS_OF_A_SLICE = 100
"""Slices with fewer rows tell nothing."""


def model_checks() -> list[Check]:
    """Return the checks of model.py and of the trained model: they take a Trained."""
    return [
        check_first_guess_is_in_the_search_space,
        check_ten_rows_are_overfitted,
        check_training_is_deterministic,
        check_saved_and_loaded_it_is_the_same,
        check_predictions_do_not_depend_on_other_rows,
        check_ids_change_no_prediction,
        check_new_categories_are_predicted,
        check_effects_of_the_contract,
        check_no_slice_is_worse_than_the_baseline,
        check_latency,
    ]


def check_first_guess_is_in_the_search_space(trained: Trained) -> None:
    """The search can start with each set of FIRST_GUESS."""
    import optuna

    from copier_mlops import project
    from copier_mlops.pipeline import search

    model = project.model()
    for guess in search.guesses(model.FIRST_GUESS):
        study = optuna.create_study()
        study.enqueue_trial(dict(guess))
        assert model.search_space(study.ask()) == pytest.approx(guess), "FIRST_GUESS lies outside of search_space"


def check_ten_rows_are_overfitted(trained: Trained) -> None:
    """A model that does not learn ten rows by heart has lost its inputs or its labels on the way."""
    import numpy as np

    from copier_mlops import project
    from copier_mlops.bundle import bundle
    from copier_mlops.evaluation import metrics
    from copier_mlops.pipeline import search

    labels = np.unique(trained.truth)
    few = [np.flatnonzero(trained.truth == label)[0] for label in labels[:10]] if len(labels) <= 10 else []
    spread = np.linspace(0, len(trained.truth) - 1, 10).astype(int)
    chosen = np.unique([*few, *spread])[: max(10, len(few))]
    inputs = search.without_gaps(trained.inputs.iloc[chosen].reset_index(drop=True))
    kinds = inputs.drop_duplicates().index.to_numpy()
    inputs, truth = inputs.iloc[kinds], trained.truth[chosen][kinds]
    often = np.repeat(np.arange(len(truth)), 1000)  # as many as a tree wants in a leaf
    guess = search.guesses(project.model().FIRST_GUESS)[0]
    score = bundle.score(trained.fit(inputs.iloc[often], truth[often], guess), inputs, len(trained.contract.classes))
    if trained.run.problem == "regression":
        assert metrics.r2(truth, score, np.ones(len(truth))) > 0.9
    elif score.ndim == 2:
        assert (score.argmax(axis=1) == truth).all()
    else:
        assert score[truth == 1].min() > score[truth == 0].max()


def check_training_is_deterministic(trained: Trained) -> None:
    """The same rows and the same seed give the same model, to the bit."""
    from copier_mlops.bundle import bundle
    from copier_mlops.pipeline import search

    rows, classes = search.without_gaps(trained.inputs), len(trained.contract.classes)
    one, two = (bundle.score(trained.fit(rows, trained.truth), rows, classes) for _ in range(2))
    assert (one == two).all(), "two fits differ: build_model has to pass the seed on"


def check_saved_and_loaded_it_is_the_same(trained: Trained) -> None:
    """The bundle gives the same predictions after it was saved, moved and loaded."""
    from copier_mlops.bundle import bundle

    with tempfile.TemporaryDirectory() as scratch:
        examples = trained.rows.tail(5).reset_index(drop=True)
        bundle.save(Path(scratch, "bundle"), trained.bundle.model, trained.bundle.manifest, examples)
        moved = Path(shutil.move(Path(scratch, "bundle"), Path(scratch, "elsewhere")))
        assert (bundle.load(moved).score(trained.rows) == trained.bundle.score(trained.rows)).all()


def check_predictions_do_not_depend_on_other_rows(trained: Trained) -> None:
    """A row is predicted alike alone, among others and in another order."""
    import numpy as np

    whole = trained.bundle.score(trained.rows)
    turned = trained.bundle.score(trained.rows.iloc[::-1])[::-1]
    assert turned == pytest.approx(whole, rel=CLOSE, abs=CLOSE)
    alone = np.concatenate([trained.bundle.score(trained.rows.iloc[[row]]) for row in range(5)])
    assert alone == pytest.approx(whole[:5], rel=CLOSE, abs=CLOSE)


def check_ids_change_no_prediction(trained: Trained) -> None:
    """Ids and ignored columns change no prediction."""
    before = trained.bundle.score(trained.rows)
    ignored = [column.name for column in trained.contract.columns if column.role in ("id", "ignored")]
    shuffled = trained.rows.copy()
    shuffled[ignored] = trained.rows[ignored].iloc[::-1].to_numpy()
    assert trained.bundle.score(shuffled) == pytest.approx(before, rel=CLOSE, abs=CLOSE)


def check_new_categories_are_predicted(trained: Trained) -> None:
    """A category that training did not see gets a finite prediction; categories and texts get the same."""
    import numpy as np
    import pandas as pd

    from copier_mlops.bundle import bundle

    classes, inputs = len(trained.contract.classes), trained.inputs
    texts = [str(name) for name in inputs if not pd.api.types.is_numeric_dtype(inputs[name].dtype)]
    unknown = inputs.copy()
    for name in texts:
        unknown[name] = "never seen"
    assert np.isfinite(bundle.score(trained.bundle.model, unknown, classes)).all()
    as_texts, as_categories = (inputs.astype(dict.fromkeys(texts, kind)) for kind in ("object", "category"))
    one, two = (bundle.score(trained.bundle.model, some, classes) for some in (as_texts, as_categories))
    assert one == pytest.approx(two, rel=CLOSE, abs=CLOSE)


def check_effects_of_the_contract(trained: Trained) -> None:
    """More of a column moves the prediction the way that `effect` in schema.py says."""
    from copier_mlops.evaluation import metrics

    found = metrics.effects(trained.bundle.score, trained.rows, trained.contract.effects)
    known = found.dropna(subset="change")
    against = known[known["change"] * known["declared"].map({"raises": 1, "lowers": -1}) < 0]
    assert against.empty, against.to_string()


def check_no_slice_is_worse_than_the_baseline(trained: Trained) -> None:
    """No slice of some size is predicted worse than by the baseline, with the certainty of its interval."""
    import numpy as np

    from copier_mlops.evaluation import metrics
    from copier_mlops.pipeline import evaluate

    score = trained.bundle.score(trained.rows)
    guess = np.broadcast_to(np.array(trained.bundle.manifest["baseline"]), score.shape)
    metric, problem = trained.run.gate.metric, trained.run.problem
    worse: dict[str, object] = {}
    for name, group in evaluate.groups(trained.rows, trained.run.evaluation.slices).items():
        for label, places in group.groupby(group.astype("str")).groups.items():
            at = places.to_numpy()
            if len(at) >= ROWS_OF_A_SLICE:
                gain = metrics.paired_gain(
                    problem,
                    metric,
                    y=trained.y[at],
                    candidate=score[at],
                    other=guess[at],
                    times=100,
                    seed=trained.run.seed,
                )
                worse |= {f"{name} {label}": gain} if gain.high < 0 else {}
    assert not worse, worse


def check_latency(trained: Trained) -> None:
    """A thousand rows take at most MILLISECONDS each, in the fastest of five runs."""
    import numpy as np

    thousand = trained.rows.iloc[np.arange(1000) % len(trained.rows)].reset_index(drop=True)
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        trained.bundle.score(thousand)
        taken.append(time.perf_counter() - begun)
    assert min(taken) < MILLISECONDS, f"{min(taken) * 1000:.0f} ms for 1,000 rows"
