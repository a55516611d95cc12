"""Before a change is merged: the stages on little, held against the limits and against champion.json; a page for people."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from copier_mlops import ProjectError, project
from copier_mlops.bundle import bundle, isolated
from copier_mlops.data import tables
from copier_mlops.evaluation import gate, verdict_text
from copier_mlops.evaluation.metrics import value_of
from copier_mlops.params import Run, load_run
from copier_mlops.pipeline import search, split
from copier_mlops.pipeline.run_config import resolve_run
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc

MADE_UP = (
    "The source cannot be read from here, so the rows are those of the tests: the stages ran, and limits that are meant for "
    "real rows were not looked at. "
)


@dataclass(frozen=True)
class Review:
    """What came out.

    Attributes:
        passed: Whether every limit that was looked at is kept.
        markdown: The page.
        reasons: The limits that are not.
        note: What was not looked at, and why; empty otherwise.
    """

    passed: bool
    markdown: str
    reasons: tuple[str, ...]
    note: str


def review(settings: Settings) -> Review:
    """Run the stages on little, judge, and write reports/review.md.

    Where the source cannot be read, as on a runner without access to it, the tests' own rows take its place.

    Raises:
        ProjectError: If a stage fails.
    """
    note = ""
    champion = _champion()
    guess = _known_hyperparameters(champion)
    try:
        resolve_run(settings, small=True, guess=guess)
    except ProjectError as error:
        settings = _on_rows_of_the_tests(settings, error)
        note = f"{MADE_UP}({error}) "
        resolve_run(settings, small=True, guess=guess)
    dvc.repro(settings)
    run, facts = load_run(), tables.read_json(Paths.FACTS)
    verdict = judge(run, facts, None if note else champion, made_up=bool(note))
    text = verdict_text.review(facts, verdict, champion, f"> {note}\n\n" if note else "")
    tables.write_text(text, Paths.REVIEW)
    if settings.github_step_summary:
        with Path(settings.github_step_summary).open("a", encoding="utf-8") as page:
            page.write(text)
    return Review(verdict.passed, text, tuple(verdict.reasons), note)


def _champion() -> dict[str, Any] | None:
    """What champion.json says; None where there is none, or it answers another question, as after another table came."""
    found: dict[str, Any] = tables.read_json(Paths.POINTER) if Paths.POINTER.exists() else {}
    return found if found and found.get("target", project.contract().target) == project.contract().target else None


def _known_hyperparameters(champion: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those of the champion, so that like is compared with like; none where today's model has others."""
    found = dict((champion or {}).get("params", {}))
    return found if any(set(found) == set(guess) for guess in search.guesses(project.model().FIRST_GUESS)) else {}


def judge(run: Run, facts: Mapping[str, Any], champion: Mapping[str, Any] | None, made_up: bool) -> gate.Verdict:
    """The gate without a registry: every limit of params.yaml, and champion.json in the champion's place."""
    limits, metric = run.gate, run.gate.metric
    metrics = {name: value_of(interval) for name, interval in facts["metrics"].items()}
    verdict = gate.judge(
        metric,
        metrics,
        over_baseline=value_of(facts["over_baseline"]),
        over_champion=None,
        at_least={} if made_up else limits.at_least,
        at_most={} if made_up else limits.at_most,
        better_than_baseline=-np.inf if made_up else limits.better_than_baseline,
        worse_than_champion=0.0,
        effects=facts["effects"],
    )
    if champion is None:
        return verdict
    rows = split.test(run).drop(columns=project.contract().target).head(1000)
    cost = float(isolated.load(Paths.BUNDLE).call(bundle.cost, rows))
    more = gate.against_pointer(
        metric,
        metrics[metric],
        baseline=facts["baseline"][metric],
        known=champion["metrics"],
        keeps=run.review.keeps,
        cost=cost,
        slower=run.review.slower,
    )
    return gate.Verdict((*verdict.checks, *more.checks))


def _on_rows_of_the_tests(settings: Settings, error: ProjectError) -> Settings:
    """Settings whose source is what tests/sample.py writes.

    Raises:
        ProjectError: The one that was met, if there is no such file, or it fails too.
    """
    place = Path(".cache/rows-of-the-tests").absolute()
    if not Path("tests/sample.py").exists():
        raise error
    place.mkdir(parents=True, exist_ok=True)
    code = "import sys; from pathlib import Path; from tests import sample; print(sample.write(Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise error
    uri = done.stdout.strip().splitlines()[-1]
    return settings.model_copy(update={"source_uri": uri})
