"""contest: other versions beside the champion on the answers of production, and a promotion where the monitor proposes it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.evaluation.metrics import PROPER
from copier_mlops.monitoring import challenger, performance, verdict
from copier_mlops.monitoring.challenger import Contest, Rules
from copier_mlops.monitoring.report import Report
from copier_mlops.monitoring.report_builder import learnt_until
from copier_mlops.monitoring.report_reader import read_report
from copier_mlops.params import Params
from copier_mlops.settings import Paths, Settings

if TYPE_CHECKING:
    from copier_mlops.registry.database import Version
    from copier_mlops.registry.mlflow_registry import Registry


@dataclass(frozen=True)
class Rival:
    """Who is held against the champion: the challenger, or the champion before.

    Attributes:
        version: Its number.
        learnt_until: The end of what it learnt from; None where rows have no time.
        since: From when on neither it nor the champion has seen anything; None if that is not known.
        loaded: Its bundle; None where the two cannot be compared.
        why: Why they cannot.
    """

    version: int
    learnt_until: dt.datetime | None = None
    since: dt.datetime | None = None
    loaded: bundle.Bundle | None = None
    why: str = ""


def challenger_of(
    settings: Settings, champion: bundle.Bundle, known: dt.datetime | None
) -> tuple[Rival | None, list[str]]:
    """The challenger of the registry, if there is one.

    Args:
        settings: Which registry.
        champion: The bundle that answers.
        known: The end of what it learnt from, or when it was trained.

    Returns:
        The challenger, and notes: a registry that is away stops no look.
    """
    try:
        registry, holder = _opened(settings)
        from copier_mlops.registry.database import CHALLENGER

        version = registry.holder(CHALLENGER)
        if version is None:
            return None, []
        number = version.number
        if holder is None or holder.number != champion.version:
            now = f"version {holder.number} is the champion" if holder else "there is no champion"
            why = f"version {number} is not compared: version {champion.version} answers, and {now}; make bundle brings its own"
            return Rival(number, why=why), []
        return _rival(registry, version, champion, known), []
    except Exception as error:  # whatever a store's client raises: the look itself has to be written
        kind = "" if isinstance(error, ProjectError) else f"{type(error).__name__}: "
        return None, [f"nobody knows whether there is a challenger: {kind}{error}"]


def former(settings: Settings, champion: bundle.Bundle, known: dt.datetime | None) -> Rival | None:
    """The version that a rollback would bring back; none where nobody knows, of which `challenger_of` tells.

    Args:
        settings: Which registry.
        champion: The bundle that answers.
        known: The end of what it learnt from, or when it was trained.
    """
    try:
        registry, holder = _opened(settings)
        number = registry.former()
        if number is None or holder is None or holder.number != champion.version:
            return None
        return _rival(registry, registry.version(number), champion, known)
    except Exception:  # whatever a store's client raises: the look itself has to be written
        return None


def _opened(settings: Settings) -> tuple[Registry, Version | None]:
    """The registry, and the champion there.

    Raises:
        ProjectError: If there is none: looking must not make one.
    """
    from copier_mlops.registry.database import CHAMPION, database
    from copier_mlops.registry.mlflow_registry import Registry  # brings MLflow, which only this needs

    file = database(settings.mlflow_tracking_uri)
    if file is not None and not file.is_file():
        raise ProjectError(f"there is no registry at {file}")
    registry = Registry(settings)
    return registry, registry.holder(CHAMPION)


def _rival(registry: Registry, version: Version, champion: bundle.Bundle, known: dt.datetime | None) -> Rival:
    number = version.number
    try:
        loaded = registry.load(version)
        bundle.verify(loaded)
    except bundle_files.BundleError as error:
        return Rival(number, why=f"version {number} is not compared: {error}")
    until = learnt_until(loaded.manifest)
    since = max(known, until or version.created) if known else None
    why = _incomparable(number, loaded, champion, since)
    return Rival(number, until, since, None if why else loaded, why)


def _incomparable(number: int, loaded: bundle.Bundle, champion: bundle.Bundle, since: dt.datetime | None) -> str:
    """Why the two cannot be compared, in words; empty if they can."""
    asked = [(one.manifest["problem"], one.contract.target, one.contract.classes) for one in (loaded, champion)]
    if asked[0] != asked[1]:
        return f"version {number} is not compared: it answers another question than version {champion.version}"
    if loaded.contract != champion.contract:
        return (
            f"version {number} is not compared: its contract is another than that of version {champion.version}, so it cannot be asked "
            "what that was asked"
        )
    if since is None:
        return f"version {number} is not compared: nobody knows what version {champion.version} has learnt from"
    return ""


def judge(one: Rival, champion: bundle.Bundle, joined: pd.DataFrame, shadows: pd.DataFrame, params: Params) -> Contest:
    """Compare the two on what was answered and has a label.

    Args:
        one: The challenger.
        champion: The bundle that answers.
        joined: Answers with their truth and what was asked (`core.contest.with_inputs`).
        shadows: What the challenger answered in the shadow.
        params: When it is better.
    """
    limits, problem = params.monitoring, champion.manifest["problem"]
    metric = (limits.promote_metric if params.problem == problem else None) or PROPER[problem]
    nothing = Contest(
        version=one.version, learnt_until=one.learnt_until, metric=metric, margin=limits.promote_margin, says=one.why
    )
    if one.loaded is None or one.since is None:
        return nothing
    contract = bundle.for_examples(champion.contract)
    rows = challenger.unseen(joined, contract, one.since)
    try:
        both = challenger.answer(rows, shadows, contract, champion.score, one.loaded.score)
    except Exception as error:  # whatever code of then raises; in its words there may be values of a row
        says = f"version {one.version} is not compared: it or version {champion.version} does not answer what was asked"
        return dataclasses.replace(nothing, says=f"{says} ({type(error).__name__})")
    rules = Rules(
        problem=problem, metric=metric, enough=limits.min_labelled, confidence=limits.promote_confidence, margin=limits.promote_margin, times=params.evaluation.bootstrap,
        seed=params.seed,
    )  # fmt: skip
    return challenger.judge(
        both, rules, versions=(champion.version, one.version), learnt_until=one.learnt_until, since=one.since
    )


def before(
    one: Rival, champion: bundle.Bundle, joined: pd.DataFrame, began: dt.datetime, params: Params
) -> performance.Before | None:
    """Hold the version that answers against the one that a rollback would bring back, both on what was asked since it answers.

    On the same rows, since times change: a version that took over in worse times would be sent back for them. And not on rows of
    before, on which it may have been chosen.

    Args:
        one: The version before.
        champion: The bundle that answers.
        joined: Answers with their truth and what was asked (`core.contest.with_inputs`).
        began: When the champion answered first.
        params: How many labels a verdict needs, and by which metric.

    Returns:
        None where the two cannot be compared like that.
    """
    if one.loaded is None or one.since is None or joined.empty:
        return None
    problem, limits, contract = champion.manifest["problem"], params.monitoring, bundle.for_examples(champion.contract)
    rows = challenger.unseen(joined[(joined["at"] >= began).to_numpy(dtype=bool)], contract, one.since)
    if len(rows) < 2:
        return None
    try:
        both = challenger.answer(rows, pd.DataFrame(), contract, one.loaded.score, champion.score)
    except Exception:  # it may be of another time, with code of then
        return None
    metric = (limits.promote_metric if params.problem == problem else None) or PROPER[problem]
    rules = Rules(
        problem=problem,
        metric=metric,
        enough=limits.min_labelled,
        confidence=performance.LEVEL,
        margin=0.0,
        times=params.evaluation.bootstrap,
        seed=params.seed,
    )
    found = challenger.judge(
        both, rules, versions=(one.version, champion.version), learnt_until=one.learnt_until, since=one.since
    )
    return performance.Before(
        version=one.version,
        gain=found.gain,
        worse=None if found.better is None else found.gain.high < 0,
        says=found.says,
    )


# ------------------------------------------------------------------------------------------------------- Promotion


def proposed(settings: Settings) -> int:
    """Which version the monitor proposes to promote, as its report says now: no alert is taken at its word.

    Raises:
        ProjectError: If it proposes none, or the registry has moved on since the report was written.
    """
    report = _report()
    one = report.challenger
    named = [line.action for line in report.verdict.actions]
    if verdict.PROMOTE not in named or verdict.ROLL_BACK in named or one is None or one.better is not True:
        raise ProjectError(f"{Paths.LOOK} proposes no promotion, so nothing is promoted. `make monitor` looks anew.")
    from copier_mlops.registry.database import CHALLENGER, CHAMPION
    from copier_mlops.registry.mlflow_registry import Registry

    registry = Registry(settings)
    there = [holder.number if holder else None for holder in map(registry.holder, (CHAMPION, CHALLENGER))]
    version = one.version
    if there != [report.version, version] or version is None:
        raise ProjectError(
            f"{Paths.LOOK} compares champion {report.version} with challenger {version}, and by now the registry has "
            f"{there[0]} and {there[1]}. `make monitor` looks anew."
        )
    return version


def _report() -> Report:
    try:
        return read_report(Paths.LOOK)
    except (OSError, ValueError, RecursionError) as error:
        raise ProjectError(f"{Paths.LOOK} is missing or cannot be read. `make monitor` writes it.") from error
