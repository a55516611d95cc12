"""monitor: one look at production now. Metrics, drift, a verdict, and what it proposes; nothing is done.

The same log, labels, source and looks before, at the same moment, give the same reports/monitor/monitor.json.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops._audit_log import Audit
from copier_mlops.bundle import bundle, bundle_files, serving_bundle
from copier_mlops.data import deployment_logs, log_reader, tables
from copier_mlops.evaluation.metrics import METRICS, Interval
from copier_mlops.monitoring import candidates, drift, label_join, log_frames, performance, report_html, verdict
from copier_mlops.monitoring import label_store as feeds
from copier_mlops.monitoring import report_builder as builder
from copier_mlops.monitoring import report_summary as summary
from copier_mlops.monitoring.challenger import Contest
from copier_mlops.monitoring.log_aggregator import Period, Seen
from copier_mlops.monitoring.report import Report, moment
from copier_mlops.monitoring.report_builder import DAY
from copier_mlops.params import RUN, Monitoring, Params, load_params, load_run
from copier_mlops.pipeline.run_config import readable_source
from copier_mlops.settings import Paths, Settings

LOT = 20_000  # entries of the log that are frames at a time


def period(
    params: Params, now: dt.datetime, since: dt.datetime | None, until: dt.datetime | None, replay: bool = False
) -> Period:
    """What a look is about.

    Raises:
        ProjectError: If it begins after it ends, or ends after now.
    """
    rules = params.monitoring
    until = until or now
    since = since or until - rules.window_days * DAY
    if not since < until <= now:
        raise ProjectError(
            f"a look goes from --since to --until, which is not after --now; {since:%Y-%m-%dT%H:%MZ}, {until:%Y-%m-%dT%H:%MZ} and "
            f"{now:%Y-%m-%dT%H:%MZ} are not in that order."
        )
    first = min(since, until - rules.performance_days * DAY)
    return Period(
        now=now,
        since=since,
        until=until,
        first=first,
        tolerance=dt.timedelta(minutes=rules.clock_tolerance_minutes),
        replay=replay,
    )


def look(
    settings: Settings,
    now: dt.datetime,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    replay: bool = False,
) -> Report:
    """Look at production, and write reports/monitor.

    Args:
        settings: Where the bundle, the log and the labels are.
        now: When, with a time zone.
        since, until: The window; by default `monitoring.window_days` up to now.
        replay: Whether `now` is another time than that of the clock.

    Returns:
        The report, which monitor.json has.

    Raises:
        ProjectError: If there is no bundle, params.yaml cannot be used, or a report cannot be written. What is wrong with the log, the
            labels or the source stands in the report.
    """
    params = load_params()
    when, (loaded, lineage) = period(params, now, since, until, replay), _champion(settings)
    pointer, validated = _json(Paths.POINTER), _json(Paths.VALIDATION)
    model = builder.about_model(
        loaded.manifest, lineage, pointer, digest=loaded.digest, version=loaded.version, now=now
    )
    learnt = model["learnt_until"] or model["trained_at"]
    rival, unknown = candidates.challenger_of(settings, loaded, learnt)
    history = Audit(Paths.LOOKS)
    before = [line for line in history.entries() if (moment(line["at"]) or now) < now]
    rules = params.monitoring
    former = candidates.former(settings, loaded, learnt) if _is_new(loaded.version, before, now, rules) else None
    seen, joined, fed, troubles = _read(settings, loaded, params, when=when, rival=rival, former=former)
    fought = candidates.judge(rival, loaded, joined.rows, seen.beside(), params) if rival else None
    judged = performance.judge(
        joined.rows,
        loaded.contract,
        problem=loaded.manifest["problem"],
        metric=loaded.manifest["metric"],
        version=loaded.version,
        expected=_expected(lineage, loaded.manifest["problem"]),
        names=params.evaluation.slices,
        times=params.evaluation.bootstrap,
        seed=params.seed,
        enough=params.monitoring.min_labelled,
        former=seen.before(loaded.version),
    )
    mine = seen.versions.get(loaded.version)
    beside = candidates.before(former, loaded, joined.rows, mine.first, params) if former and mine else None
    judged = dataclasses.replace(judged, before=beside or judged.before)
    found = _compared(seen, loaded, joined, params.monitoring.level)
    newest, notes = _newest(settings)
    notes += unknown + ([fought.says] if fought and not fought.better else [])
    for more in (
        builder.troubles_of_log(seen, when, params.monitoring.silent_hours),
        builder.troubles_of_labels(joined, fed, when),
    ):
        troubles += more[0]
        notes += more[1]
    facts = _facts(
        seen,
        version=loaded.version,
        judged=judged,
        found=found,
        params=params,
        when=when,
        trained=_trained(before, pointer, now),
        troubles=troubles,
        fought=fought,
    )
    limits = verdict.Rules(rules.drifted_columns, rules.cool_down_hours, rules.new_version_days)
    report = builder.report_of(
        {
            "at": now,
            "project": project.name(),
            **model,
            "window": {
                "since": when.since, "until": when.until, "labels_since": when.first,
                "rows": facts.rows, "answers": seen.answers, "enough": facts.enough,
            },
            "verdict": verdict.judge(facts, limits).as_json(),
            "performance": builder.about_performance(judged, seen, found),
            "challenger": fought.as_json() if fought else None,
            "drift": builder.about_drift(found, seen),
            "labels": builder.about_labels(joined, fed, seen),
            "log": builder.about_log(seen, when),
            "traffic": builder.about_traffic(seen),
            "newest": newest,
            "data": {name: validated.get(name) for name in ("rows", "set_aside", "reasons")},
            "troubles": troubles,
            "notes": notes,
        }
    )  # fmt: skip
    tables.write_json(report.as_json(), Paths.LOOK)
    tables.write_text(report_html.page(project.title(), report, report_html.plots(report, before)), Paths.LOOK_PAGE)
    history.add(now, **summary.as_line(report))
    return report


# ------------------------------------------------------------------------------------------------------- Reading


def _champion(settings: Settings) -> tuple[bundle.Bundle, dict[str, Any]]:
    """The bundle that answers, and where it comes from."""
    folder = settings.bundle_dir
    if not (folder / bundle_files.CHECKSUMS).is_file():
        raise ProjectError(
            f"there is no bundle in {folder}, so nothing answers that could be looked at. `make bundle` makes that of the champion; "
            "BUNDLE_DIR names another folder."
        )
    return serving_bundle.load_isolated(folder, settings.verify_key), _json(folder / "lineage.json")


def _json(file: Path) -> dict[str, Any]:
    """What a file says that may be missing, or be another's."""
    try:
        return dict(tables.read_json(file))
    except (ProjectError, ValueError, TypeError):
        return {}


def _read(
    settings: Settings,
    loaded: bundle.Bundle,
    params: Params,
    *,
    when: Period,
    rival: candidates.Rival | None,
    former: candidates.Rival | None,
) -> tuple[Seen, label_join.Joined, builder.Fed, list[str]]:
    """Take all labels, then the whole log, a lot at a time."""
    contract = bundle.for_examples(loaded.contract)  # an id may have been made up, and then follows no rule
    first, until, now = (pd.Timestamp(one) for one in (when.first, when.until, when.now))
    late = label_join.Labels(contract, first, until, now, when.tolerance)
    feed = feeds.Feed(settings.labels_uri, loaded.contract, settings.mask_key.get_secret_value())
    for frame in feed:
        late.add(frame)
    challenger = rival.version if rival and rival.loaded else None
    seen = Seen.begin(late, loaded.reference, params.seed, challenger, bool(former and former.loaded))
    troubles: list[str] = []
    entries, latest = log_reader.entries(*deployment_logs.watched(settings)), when.now + when.tolerance
    lots = _lots(entries, troubles)
    for some in _in_order(lots, when.now) if when.replay else lots:
        lot = log_frames.read(some, contract, slices=params.evaluation.slices, first=when.first, latest=latest)
        seen.counts["entries"] += len(some) - lot.shadowed - lot.smoked
        seen.take(lot, loaded.version, contract.answers, when)
    seen.counts["damaged"] = entries.damaged
    return seen, late.joined(), builder.Fed(feed.there, feed.files, feed.troubles), troubles


def _lots(entries: Iterator[dict[str, Any]], troubles: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Entries in lots; where the log cannot be read any further it ends, and that is told."""
    count, over = 0, False
    while not over:
        lot: list[dict[str, Any]] = []
        try:
            lot.extend(itertools.islice(entries, LOT))
            over = len(lot) < LOT
        except (ProjectError, OSError, ValueError) as error:  # also what pyarrow says of a damaged file
            over = True
            troubles.append(f"the log was read up to entry {count + len(lot):,}, and no further: {error}")
        count += len(lot)
        if lot:
            yield lot


def _in_order(lots: Iterator[list[dict[str, Any]]], now: dt.datetime) -> Iterator[list[dict[str, Any]]]:
    """The same entries, those of one moment by their ids: a replay asks many at one moment over several connections, and what is drawn
    of the rows must not depend on who was faster."""
    until, rest = now.isoformat(), list[dict[str, Any]]()
    for lot in lots:
        whole = sorted([*rest, *lot], key=lambda entry: (str(entry.get("at")), str(entry.get("id"))))
        last = max((str(entry.get("at")) for entry in whole if str(entry.get("at")) <= until), default="")
        rest = [entry for entry in whole if str(entry.get("at")) == last]  # there may be more of it
        yield [entry for entry in whole if str(entry.get("at")) != last]
    if rest:
        yield rest


def _newest(settings: Settings) -> tuple[dt.datetime | None, list[str]]:
    """The newest row at the source, and what keeps us from knowing it; rows are looked at only if the source has changed."""
    try:
        with readable_source(settings):
            known = load_run().source if RUN.exists() else None
            if known is not None and known.fingerprint == project.source().fingerprint(settings.source_uri):
                return known.newest, []
            newest: Any = project.source().extent(settings.source_uri)[1]
    except ProjectError as error:
        return None, [f"nobody knows how new the source is: {error}"]
    return None if newest is None or pd.isna(newest) else newest.to_pydatetime(warn=False), []


def _expected(lineage: Mapping[str, Any], problem: str) -> performance.Expected:
    """What the champion had on its test rows: with intervals and groups where the facts of its run are here, else the values alone
    that its bundle brings along."""
    kept = {name: value for name, value in lineage.get("metrics", {}).items() if name in METRICS[problem]}
    for file in (Paths.FACTS, Path(".cache/facts") / f"{lineage.get('run', '')}.json"):
        facts = _json(file)
        known = facts.get("metrics", {})
        if kept and all(known.get(name, {}).get("value") == value for name, value in kept.items()):
            lines = {(line["slice"], line["group"]): _interval(line) for line in facts.get("slices", ())}
            return performance.Expected({name: _interval(known[name]) for name in kept}, lines)
    return performance.Expected({name: Interval(value, np.nan, np.nan) for name, value in kept.items()})


def _interval(line: Mapping[str, Any]) -> Interval:
    return Interval(*(np.nan if line.get(name) is None else float(line[name]) for name in ("value", "low", "high")))


# ------------------------------------------------------------------------------------------------------- Judging


def _compared(seen: Seen, loaded: bundle.Bundle, joined: label_join.Joined, level: float) -> drift.Drift | None:
    """The window beside the training; None where there is nothing to compare with."""
    if seen.window is None:
        return None
    if seen.window.rows and len(joined.rows):
        mine = joined.rows.loc[(joined.rows["version"] == loaded.version).to_numpy(dtype=bool), "label"]
        seen.window.update(pd.DataFrame(), np.empty(0), mine.to_numpy("float64"))
    return drift.compare(loaded.reference, seen.window, level)


def _is_new(version: int, before: list[dict[str, Any]], now: dt.datetime, rules: Monitoring) -> bool:
    """Whether a version may still be rolled back: for that what was asked is kept with the answers, which takes memory."""
    seen = [moment(line["at"]) for line in before if line.get("version") == version]
    return now - min((at for at in seen if at is not None), default=now) <= rules.new_version_days * DAY


def _trained(before: list[dict[str, Any]], pointer: Mapping[str, Any], now: dt.datetime) -> dt.datetime | None:
    """When a look last proposed a training, or what a training made became champion."""
    proposed = [moment(line["at"]) for line in before if verdict.RETRAIN in line.get("actions", ())]
    known = [at for at in [*proposed, moment(pointer.get("since"))] if at is not None and at <= now]
    return max(known, default=None)


def _facts(
    seen: Seen,
    *,
    version: int,
    judged: performance.Performance,
    found: drift.Drift | None,
    params: Params,
    when: Period,
    trained: dt.datetime | None,
    troubles: list[str],
    fought: Contest | None,
) -> verdict.Facts:
    mine = seen.versions.get(version)
    rows = mine.inside if mine else 0
    return verdict.Facts(
        now=when.now,
        version=version,
        rows=rows,
        enough=found is not None and rows >= params.monitoring.min_rows,
        worse=judged.worse,
        performance=judged.says,
        compared=int(found.table["counted"].sum()) if found else 0,
        drifted=[str(name) for name in found.table.loc[found.table["drifted"], "name"]] if found else (),
        reference=builder.of_rows(builder.about_rows(seen.window.profile)) if seen.window else "",
        together=found.together.why if found and found.together.drifted else "",
        since=mine.first if mine else None,
        worse_than_before=judged.before.worse if judged.before else None,
        before=judged.before.says if judged.before else "",
        trained=trained,
        troubles=troubles,
        challenger=fought.version if fought else None,
        better=fought.better if fought else None,
        contest=fought.says if fought else "",
    )


# ------------------------------------------------------------------------------------------------------- Command


def keep(settings: Settings, report: Report) -> str:
    """Log a look in MLflow.

    Returns:
        The run's id.

    Raises:
        UnreachableError: If MLflow does not answer.
    """
    from copier_mlops.monitoring.monitor_runs import Looks  # brings MLflow, without which a look is as good

    judged, at = report.verdict, moment(report.at)
    assert at is not None
    tags = {"version": str(report.version), "status": judged.status, "mlflow.note.content": judged.says}
    tags["actions"] = " ".join(one.action for one in judged.actions)
    digest = hashlib.sha256(json.dumps(report.as_json(), sort_keys=True).encode()).hexdigest()
    return Looks(settings).keep(at, digest, summary.numbers(report), tags, [Paths.LOOK, Paths.LOOK_PAGE])
