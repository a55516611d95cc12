"""train: search, fit on all rows before the test, write the bundle."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops._progress import progress
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.bundle.reference import reference
from copier_mlops.contract.contract import Contract
from copier_mlops.data import tables
from copier_mlops.evaluation.metrics import baseline
from copier_mlops.params import Run, load_run
from copier_mlops.pipeline import search, season, split
from copier_mlops.pipeline.split import window
from copier_mlops.settings import Paths

EXAMPLES = 8  # rows that the bundle keeps with their answers
REFERENCE_ROWS = 100_000  # rows that its profile is made of
RECENT = pd.Timedelta(weeks=8)  # from which they are
SEASON = pd.Timedelta(weeks=4)  # or before and after the day a year ago, where there are two years
SEASON_ROWS = 30_000  # of the whole training window, for its range and its seasons
BACKGROUND = 64  # rows that an explanation compares with
PACKAGES = ("numpy", "pandas", "scikit-learn", "cloudpickle", "pyarrow")


def train() -> None:
    """Write models/bundle and reports/trials.json.

    Raises:
        ProjectError: If there is too little to learn from, or one input alone gives the answer.
    """
    begun = time.time()
    run = load_run()
    inputs, y, units = split.training_in_units(run)
    _check_learnable(inputs, y, run)

    def fit(params: Mapping[str, Any], some: pd.DataFrame, truth: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
        fitted = project.model().build_model(run.problem, params, run.seed).fit(search.without_gaps(some), truth)
        return lambda rows: bundle.score(fitted, rows, len(project.contract().classes))

    spread = np.unique(np.linspace(0, len(y) - 1, min(len(y), run.search.max_rows)).astype(int))
    study = open_study(_key(run), run)
    try:
        pairs = list(
            search.drawn_folds(run.problem, y[spread], run.split.folds, run.seed, units[spread])
            if units is not None
            else search.folds(len(spread), run.split.folds)
        )
        if run.problem == "classification":
            there, pairs = len(pairs), search.with_classes(pairs, y[spread])
            if len(pairs) < there:
                print(
                    f"{there - len(pairs)} of {there} folds have one class only and are left out of the search",
                    flush=True,
                )
        with progress("search", "trials", run.search.trials, of_stage=True) as advance:
            advance(len(study.trials))
            trials = search.search(
                study, fit=fit, space=project.model().search_space, first_guess=run.search.guess or project.model().FIRST_GUESS, features=inputs.iloc[spread], y=y[spread],
                problem=run.problem, metric=run.gate.metric, pairs=pairs, trials=run.search.trials, seed=run.seed, after_trial=lambda: advance(1),
            )  # fmt: skip
    except ValueError as error:
        raise ProjectError(f"the search could not be run: {error}.") from error
    tables.write_json(trials.to_dict("records"), Paths.TRIALS)
    chosen = search.choose(study, len(search.guesses(run.search.guess or project.model().FIRST_GUESS)))
    brought = _said(chosen, run.gate.metric)
    print(f"search: {brought}", flush=True)
    print(f"fitting trial {chosen.number + 1} on {len(y):,} rows", flush=True)
    best = chosen.params
    with progress("final fit", "models", 1, of_stage=True) as advance:  # shows how long it takes; nothing else is known
        final = project.model().build_model(run.problem, best, run.seed).fit(search.without_gaps(inputs), y)
        advance(1)
    rows = _some_of(*_season(run), run.seed).drop(columns=project.contract().target)
    if rows.empty:  # a window may end long after its newest row
        rows = tables.read(tables.parts(Paths.VALIDATED)[-1][1][-1]).drop(columns=project.contract().target)
    manifest = _manifest(run, best, inputs, y, final)
    manifest["search"] = {
        "says": brought, "trial": chosen.number + 1, "searched": chosen.searched, "gain": chosen.gain,
        "error": None if np.isnan(chosen.error) else chosen.error, "used": chosen.used,
    }  # fmt: skip
    bundle.save(Paths.BUNDLE, final, manifest, _nobodys(rows, EXAMPLES, run.seed), _reference(final, rows, run))
    _note_times(begun, study)


def _note_times(begun: float, study: optuna.Study) -> None:
    """Note when this training took place. It is no output: outputs of the same training are the same bytes."""
    moments = [(trial.datetime_start, trial.datetime_complete) for trial in study.trials]
    trials = [[start.timestamp(), end.timestamp()] if start and end else None for start, end in moments]
    began = min([begun, *(times[0] for times in trials if times)])  # trials of a training that was killed
    content = {"bundle": bundle_files.digest(Paths.BUNDLE), "start": began, "end": time.time(), "trials": trials}
    tables.write_json(content, Paths.TIMES)


def _said(chosen: search.Choice, metric: str) -> str:
    """What the search brought, in a sentence."""
    if not chosen.searched:
        return "none, the first guess is used"
    trials = f"{chosen.searched} trial{'s' if chosen.searched > 1 else ''} after the first guess"
    if chosen.gain <= 0:
        return f"none of {trials} was better, the first guess is used"
    error = "" if np.isnan(chosen.error) else f" (standard error over the folds {chosen.error:.4f})"
    used = f"trial {chosen.number + 1} is used" if chosen.used else "so the first guess is used"
    return f"{trials} gained {chosen.gain:.4f} in {metric}{error}, {used}"


def _check_learnable(inputs: pd.DataFrame, y: np.ndarray, run: Run) -> None:
    if len(np.unique(y[:1_000_000])) < 2:
        raise ProjectError(
            f"{project.contract().target} has one value in all {len(y):,} training rows; there is nothing to learn."
        )
    skill = search.single_input_skill(run.problem, inputs, y, run.seed)
    leaks = skill[skill > run.validation.max_single_input_skill]
    if len(leaks):
        named = ", ".join(f"{name} ({value:.2f})" for name, value in leaks.items())
        raise ProjectError(
            f"one input alone nearly gives the answer: {named}, of 1.0; the limit is "
            f"{run.validation.max_single_input_skill:g} (validation.max_single_input_skill). Such an input was most likely "
            "recorded after the moment of prediction: leave it out in features.py. If it really is known in time, "
            "raise the limit."
        )


def open_study(key: str, run: Run) -> optuna.Study:
    """The study of exactly these rows, settings and code, with the finished trials that it has.

    It is no output of the stage, or DVC would delete it before a run that takes up a killed one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Paths.STUDIES.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{Paths.STUDIES}")

    def study_of_key() -> optuna.Study:
        return optuna.create_study(
            study_name=key,
            storage=storage,
            load_if_exists=True,
            direction=search.direction(run.gate.metric),
            pruner=search.pruner(run.split.folds),
        )

    study = study_of_key()
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    kept = [trial for trial in study.trials if trial.state in finished]
    if len(kept) < len(study.trials):  # a trial that was killed would keep its number and shift the others
        optuna.delete_study(study_name=key, storage=storage)
        study = study_of_key()
        try:
            study.add_trials(kept)
        except ValueError:  # a first guess outside the search space, which Optuna tries but does not take back
            kept = []
    if kept:
        print(f"taking up a search with {len(kept)} finished trials", flush=True)
    return study


def _key(run: Run) -> str:
    """Names a study by all that its result depends on."""
    digest = hashlib.sha256(run.model_dump_json(include={"problem", "seed", "split", "search", "resolved"}).encode())
    digest.update(run.gate.metric.encode())
    code = [Path(module.__file__) for module in (project.model(), search) if module.__file__]
    for file in [*code, *(file for _, files in tables.parts(Paths.FEATURES) for file in files)]:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(",".join(version(package) for package in (*PACKAGES, "optuna")).encode())
    return digest.hexdigest()[:16]


def _manifest(run: Run, best: Mapping[str, Any], inputs: pd.DataFrame, y: np.ndarray, final: Any) -> dict[str, Any]:
    return {
        "problem": run.problem,
        "target": project.contract().target,
        "metric": run.gate.metric,
        "model": type(final[-1] if hasattr(final, "__getitem__") else final).__name__,
        "params": dict(best),
        "seed": run.seed,
        "inputs": list(inputs),
        "rows": len(y),
        "classes": list(project.contract().classes),
        "baseline": baseline(y, len(project.contract().classes)),
        "window": window(run),
        "source": run.source.fingerprint,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
    }


def _nobodys(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Rows that keep the contract and are nobody's: each value is drawn from another row of the reference, ids and groups are made
    up, so that whoever is forgotten is not remembered by a model."""
    random = np.random.default_rng(seed)
    drawn = {name: rows[name].iloc[random.integers(0, len(rows), count)].array for name in rows}
    for name in filter(None, (project.contract().id, project.contract().group)):
        text = project.contract()[name].kind == "string"
        drawn[name] = pd.array([f"example-{number}" if text else number for number in range(1, count + 1)])
    return pd.DataFrame(drawn)


def _reference(final: Any, rows: pd.DataFrame, run: Run) -> dict[str, Any]:
    """Return the profile of rows of this season and of predictions for rows that the model did not learn from, which production is
    compared with; how far weeks of the training differ; and rows that stand for "nothing known"."""

    def answer(some: pd.DataFrame) -> np.ndarray:
        inputs = search.without_gaps(
            project.build_features(some.drop(columns=project.contract().target, errors="ignore"))
        )
        return bundle.score(final, inputs, len(project.contract().classes))

    try:
        judged = split.test(run)
    except ProjectError:  # there are none: evaluate says so
        judged = rows.iloc[:0]
    judged = judged.iloc[np.sort(np.random.default_rng(run.seed).permutation(len(judged))[:REFERENCE_ROWS])]
    y = project.contract().labels(judged[project.contract().target]) if len(judged) else None
    background = json.loads(
        _nobodys(rows, BACKGROUND, run.seed + 1).to_json(orient="split", date_format="iso", date_unit="us")
    )
    profile = reference(rows, answer(judged), project.contract(), y, judged, run.seed)
    return {
        **profile,
        **_whole(answer, profile, run),
        "span": _span(rows),
        "background": {key: background[key] for key in ("columns", "data")},
    }


def _whole(answer: Callable[[pd.DataFrame], np.ndarray], profile: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return what the whole training window tells beside the reference: its range, its seasons, and which columns matter."""
    first, last = (pd.Timestamp(at) if at else None for at in (run.resolved.start, run.resolved.end))
    rows = _some_of(first, last, run.seed, SEASON_ROWS)
    rows = rows.astype(dict.fromkeys(rows.select_dtypes("category"), "str"))
    if rows.empty:
        return {}
    scores, y = answer(rows), project.contract().labels(rows[project.contract().target])
    names = list(profile["columns"])
    timeless = Contract(tuple(column for column in project.contract().columns if column.role != "time"))
    # Which columns follow the calendar is known from the reference, and takes long to find: so without a time.
    bins = reference(rows, scores, timeless, y, seed=run.seed)
    return {
        "training": {**season.training(rows, profile, project.contract()), "span": _span(rows)},
        "season": season.seasons(bins, rows, scores, y, project.contract()),
        "weights": season.sensitivity(answer, rows, names, run.seed),
    }


def _span(rows: pd.DataFrame) -> list[str] | None:
    """Return the first and the last day of rows; None where they have no time."""
    if project.contract().time is None or rows.empty:
        return None
    return [
        f"{moment:%Y-%m-%d}" for moment in (rows[project.contract().time].min(), rows[project.contract().time].max())
    ]


def _season(run: Run) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """From when to when rows are like those that come next: around this day a year ago where there are two years, else the last
    weeks; without an end where rows have no time."""
    if run.resolved.end is None:
        return None, None
    end = pd.Timestamp(run.resolved.end)
    months = [month for month, _ in tables.parts(Paths.VALIDATED) if month[:1].isdigit()]
    first = pd.Timestamp(months[0], tz="UTC") if months else end
    start = pd.Timestamp(run.resolved.start) if run.resolved.start else first
    oldest = max(start, first)
    if oldest <= end - pd.DateOffset(years=2):
        day = end - pd.DateOffset(years=1)
        return day - SEASON, day + SEASON
    return max(start, end - RECENT), end


def _some_of(
    start: pd.Timestamp | None, end: pd.Timestamp | None, seed: int, most: int = REFERENCE_ROWS
) -> pd.DataFrame:
    """Return at most so many validated rows of `start <= time < end`, drawn at random; a file at a time, so that no more than that and
    one file is in memory."""
    random = np.random.default_rng(seed)
    kept, lots = tables.read(tables.parts(Paths.VALIDATED)[-1][1][-1]).iloc[:0], np.empty(0)
    for month, files in tables.parts(Paths.VALIDATED):
        if start is not None and end is not None and not f"{start:%Y-%m}" <= month <= f"{end:%Y-%m}":
            continue
        for file in files:
            rows = tables.read(file)
            if start is not None and end is not None:
                rows = rows[
                    ((rows[project.contract().time] >= start) & (rows[project.contract().time] < end)).to_numpy()
                ]
            kept, lots = pd.concat([kept, rows], ignore_index=True), np.append(lots, random.random(len(rows)))
            chosen = np.sort(np.argsort(lots, kind="stable")[:most])
            kept, lots = kept.iloc[chosen], lots[chosen]
    return kept.reset_index(drop=True)
