"""What follows the stages: record, judge, register, promote; and looking back. Called by the flow and by the commands."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from copier_mlops import ProjectError, project
from copier_mlops.bundle import bundle, bundle_files, isolated
from copier_mlops.contract.units import together_in_resamples
from copier_mlops.contract.validation import check_rows
from copier_mlops.data import tables
from copier_mlops.evaluation import gate
from copier_mlops.evaluation.gate import Outcome
from copier_mlops.evaluation.metrics import METRICS, Interval, paired_gain, value_of
from copier_mlops.lifecycle.reproduce import machine
from copier_mlops.params import PARAMS, RUN, Run, load_run
from copier_mlops.pipeline import split
from copier_mlops.pipeline.run_config import lineage, remember
from copier_mlops.registry.database import CHALLENGER, CHAMPION, Version, recorded
from copier_mlops.registry.mlflow_registry import LINEAGE_FILES, NOTE, Data, Record, Registry, Trial, file_digests
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import snapshot

TRIAL_FACTS = ("number", "state", "value", "folds")
"""Keys of a line of trials.json that are no hyperparameters."""


@dataclass(frozen=True)
class Compared:
    """The champion's predictions for the test rows, beside those of a run.

    Attributes:
        version: number of the champion.
        rows: number of test rows that the champion's contract accepts; both models are compared on these.
        gain: gain of the run over the champion in the metric of the gate.
        metrics: metrics of the champion on these rows.
    """

    version: int
    rows: int
    gain: Interval
    metrics: Mapping[str, float | None]

    def as_json(self) -> dict[str, Any]:
        """Return what the report shows: version, rows and metrics."""
        return {name: value for name, value in asdict(self).items() if name != "gain"}


def judge(registry: Registry, run: Run, facts: Mapping[str, Any], name: str) -> tuple[gate.Verdict, Compared | None]:
    """Hold the run against its limits and, where there is one, against the champion on the same rows."""
    champion = registry.holder(CHAMPION)
    over = None
    if champion is not None and champion.lineage != name:
        over = against(registry, champion, run)
    limits = run.gate
    verdict = gate.judge(
        limits.metric,
        {key: value_of(interval) for key, interval in facts["metrics"].items()},
        over_baseline=value_of(facts["over_baseline"]),
        over_champion=over.gain if over else None,
        at_least=limits.at_least,
        at_most=limits.at_most,
        better_than_baseline=limits.better_than_baseline,
        worse_than_champion=limits.worse_than_champion,
        effects=facts["effects"],
    )
    return verdict, over


def against(registry: Registry, champion: Version, run: Run) -> Compared | None:
    """Compare this run's model with the champion, both answering the test rows through their bundles.

    None if the champion's contract no longer fits the rows, or it does not answer with newer packages; then it is said, and the
    other limits decide.
    """
    scored = tables.read(Paths.SCORED)
    rows = split.test(run)
    old = _answering(registry, champion)
    if old is None:
        print(
            f"the champion (version {champion.number}) does not answer as it did with these packages; it is not compared"
        )
        return None
    if not _same_question(old, run):
        print(f"the champion (version {champion.number}) answers another question; it is not compared")
        return None
    wanted = [column.name for column in old.contract.without_target()]
    missing = [name for name in wanted if name not in rows]
    if missing:
        print(
            f"the champion (version {champion.number}) needs {', '.join(missing)}, no longer there; it is not compared"
        )
        return None
    checked = check_rows(rows[wanted], old.contract, labelled=False)
    kept = checked.good.index.to_numpy()
    if len(kept) == 0:
        print(f"the champion (version {champion.number}) takes none of the test rows; it is not compared")
        return None
    y = project.contract().labels(scored[project.contract().target])[kept]
    mine = scored[project.contract().answers].to_numpy("float64")[kept]
    mine = mine if len(project.contract().answers) > 1 else mine[:, 0]
    theirs = old.score(checked.good)
    gain = paired_gain(
        run.problem,
        run.gate.metric,
        y=y,
        candidate=mine,
        other=theirs,
        times=run.evaluation.bootstrap,
        seed=run.seed,
        units=together_in_resamples(rows.loc[kept], project.contract(), run.seed),
    )
    values = {name: measure(y, theirs, np.ones(len(y))) for name, measure in METRICS[run.problem].items()}
    known = {name: None if np.isnan(value) else value for name, value in values.items()}
    return Compared(champion.number, len(kept), gain, known)


def _answering(registry: Registry, champion: Version) -> bundle.Bundle | None:
    """The champion's bundle; None if newer packages keep it from answering as it did.

    Raises:
        BundleError: If it is damaged.
    """
    try:
        loaded = registry.load(champion)
        bundle.verify(loaded)
    except bundle_files.StaleBundleError:
        return None
    return loaded


def _same_question(old: bundle.Bundle, run: Run) -> bool:
    asked = (old.manifest["problem"], old.manifest["target"], old.contract.classes)
    return asked == (run.problem, project.contract().target, project.contract().classes)


class Registration:
    """What becomes of a run after its stages, step by step. Each step does what an earlier attempt left undone, and nothing twice.

    Attributes:
        settings: Where the registry is, and who acts.
        verdict: What the gate says as JSON; None before `gate`.
        version: The registered version; None before `register`, or if the run did not pass the gate.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.run, self.facts, self.name = load_run(), tables.read_json(Paths.FACTS), lineage()
        self.registry = Registry(settings)
        self.registry.settle()
        self.verdict: dict[str, Any] | None = None
        self.version: Version | None = None
        self._judged: tuple[gate.Verdict, Compared | None] | None = None
        self._over: dict[str, Any] | None = None
        self._summary = ""
        self._run_id = self.registry.find(self.name) or ""

    def gate(self) -> None:
        """Hold the model against its limits and the champion, or take the verdict of an earlier attempt."""
        if self._run_id:
            logged = self.registry.run(self._run_id)
            self.verdict = json.loads(self.registry.text(logged, "checks"))
            self._over = json.loads(self.registry.text(logged, "over_champion"))
            self._summary = self.registry.text(logged, "summary")
            return
        verdict, over = self._judged = judge(self.registry, self.run, self.facts, self.name)
        self.verdict = verdict.as_json()
        self._over = over.gain.as_json() if over else None
        from copier_mlops.evaluation.verdict_text import summary  # imports Matplotlib, which takes a second

        self._summary = summary(self.facts, verdict, f"run {self.name}", over.as_json() if over else None)

    def log(self) -> None:
        """Log the run in MLflow: parameters, metrics, lineage, bundle, report."""
        if not self._run_id:
            assert self._judged is not None, "the gate comes first: its verdict is logged with the run"
            verdict, over = self._judged
            record = as_record(self.run, self.facts, verdict, over=over, markdown=self._summary, name=self.name)
            self._run_id = self.registry.log(record)

    def register(self) -> None:
        """Register the model as a version, if it passed the gate."""
        if self.verdict is not None and self.verdict["passed"]:
            self.version = self.registry.register(self._run_id, self.name)

    def promote(self) -> None:
        """Name the version challenger; champion, if it is the first or params.yaml says so."""
        if self.version is not None:
            _place(self.registry, self.version, self.run, self.settings)

    def outcome(self) -> Outcome:
        """Write the report with the verdict and return what the run came to, which the next run recalls."""
        assert self.verdict is not None
        number = self.version.number if self.version else None
        status = self.registry.version(number).status if number is not None else "rejected"
        champion = self.registry.holder(CHAMPION)
        held = champion.number if champion else None
        outcome = Outcome(
            lineage=self.name,
            verdict=self.verdict,
            version=number,
            status=status,
            champion=held,
            over_champion=self._over,
            markdown=self._summary,
        )
        if status == "archived" and champion is not None:  # rolled back, or another version took its place since then
            write_page(self.registry, champion.run_id)
        elif write_page(self.registry, self._run_id):
            self.registry.attach(self._run_id, Paths.PAGE)
        remember(self.settings, outcome)
        return outcome


def record(settings: Settings) -> Outcome:
    """Take all steps of `Registration`.

    Doing it again for the same lineage changes nothing, wherever an earlier attempt was cut off.
    """
    registration = Registration(settings)
    registration.gate()
    registration.log()
    registration.register()
    registration.promote()
    return registration.outcome()


def write_page(registry: Registry, run_id: str) -> bool:
    """Write reports/report.html of a recorded run, with its version and verdict, from what the run recorded.

    Returns:
        Whether it was written. If it cannot be, the reason is printed: a promotion or a rollback does not depend on a page.
    """
    from copier_mlops.evaluation import report  # imports Matplotlib, which takes a second

    try:
        run = registry.run(run_id)
        tags, version = run.data.tags, next((one for one in registry.versions() if one.run_id == run_id), None)
        with tempfile.TemporaryDirectory() as scratch:
            facts = json.loads(registry.fetch(run_id, Paths.FACTS.name, Path(scratch)).read_text(encoding="utf-8"))
            plots = registry.fetch(run_id, Paths.PLOTS.name, Path(scratch))
            pictures = {file.stem: file.read_bytes() for file in sorted(plots.glob("*.png"))}
        release = report.Release(
            version=version.number if version else None,
            status=_status(registry, version),
            recorded=dt.datetime.fromtimestamp(recorded(tags, run.info.start_time) / 1000, dt.UTC),
            lineage=tags.get("lineage", ""),
            commit=tags.get("mlflow.source.git.commit", ""),
            snapshot=tags.get("snapshot", ""),
            verdict=json.loads(registry.text(run, "checks")),
            champion=json.loads(tags.get("over_champion_on", "null")) or {},
        )
        tables.write_text(report.page(project.title(), facts, pictures, release), Paths.PAGE)
    except (ProjectError, OSError, ValueError, KeyError, TypeError) as error:
        print(
            f"warning: {Paths.PAGE} is not the report of run {run_id}: {type(error).__name__}: {error}. MLflow has what the run "
            "recorded: make ui"
        )
        return False
    return True


def _status(registry: Registry, version: Version | None) -> str:
    """Return what became of a version, in words."""
    if version is None:
        return "rejected by the gate"
    moves = registry.moves()
    if version.status == CHAMPION and moves and moves[-1].after == version.number:
        move = moves[-1]
        since = dt.datetime.fromisoformat(move.when).astimezone(dt.UTC)
        return f"champion since {since:%Y-%m-%d %H:%M} UTC, by {move.who} ({move.why})"
    return f"{version.status} on {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, when this page was written"


def _place(registry: Registry, version: Version, run: Run, settings: Settings) -> None:
    """Champion if it is the first, else challenger, unless it has been one of them before."""
    moved = {number for move in registry.moves() for number in (move.before, move.after)}
    newest = max(one.number for one in registry.versions())
    if version.number in moved or version.number < newest:
        return
    champion = registry.holder(CHAMPION)
    if champion is None:
        registry.promote(version, settings.who, "the first model that passed the gate")
        return
    old = _answering(registry, champion)
    if old is None:
        registry.promote(
            version, settings.who, "the champion before does not answer with the packages that are installed"
        )
        return
    if not _same_question(old, run):
        registry.promote(version, settings.who, "the first model that answers this question")
        return
    registry.challenge(version)
    if run.promotion.automatic:
        registry.promote(version, settings.who, "promotion.automatic: it passed the gate")


def as_record(
    run: Run,
    facts: Mapping[str, Any],
    verdict: gate.Verdict,
    *,
    over: Compared | None,
    markdown: str,
    name: str,
) -> Record:
    commit = snapshot.snapshot(name, f"Work tree of run {name}")
    archive = Path(".cache") / f"source-{name}.tar.gz"
    snapshot.archive(commit, archive)
    loaded = isolated.load(Paths.BUNDLE)
    expected = pd.DataFrame(loaded.expected["rows"], columns=loaded.expected["columns"])
    lineage_files = {
        path: "lineage" for path in (Paths.LOCK, Paths.ENVIRONMENT, RUN, PARAMS, Paths.METRICS) if path.exists()
    }
    times = _times(loaded.digest)
    tags = {
        "checks": json.dumps(verdict.as_json()),
        "over_champion": json.dumps(over.gain.as_json() if over else None),
        "over_champion_on": json.dumps(over.as_json() if over else None),
        "summary": markdown,
        NOTE: f"{markdown}\n{Paths.CARD.read_text(encoding='utf-8')}",
        "snapshot": commit,
        "mlflow.source.git.commit": snapshot.head() or commit,
        "bundle": loaded.digest,
        LINEAGE_FILES: json.dumps(file_digests([*lineage_files, archive, Paths.CARD, Paths.FACTS])),
        "data": run.source.fingerprint,
        "machine": machine(),
    }
    return Record(
        lineage=name,
        passed=verdict.passed,
        params={
            **{f"model.{key}": value for key, value in facts["params"].items()},
            **_flat(run.model_dump(mode="json")),
        },
        metrics={
            **{key: value["value"] for key, value in facts["metrics"].items() if value["value"] is not None},
            **{f"baseline_{key}": value for key, value in facts["baseline"].items()},
            "answer_cost": loaded.call(bundle.cost, split.test(run).head(1000)),
            "rows_in": facts["data"]["rows"],
            "rows_set_aside": facts["data"]["set_aside"],
        },
        tags=tags,
        files={
            **lineage_files,
            archive: "lineage",
            Paths.BUNDLE: "bundle",
            Paths.PLOTS: Paths.PLOTS.name,
            Paths.CARD: "",
            Paths.FACTS: "",
        },
        model=Paths.BUNDLE,
        contract=loaded.contract,
        example=check_rows(expected, bundle.for_examples(loaded.contract), labelled=False).good,
        data=_data_version(facts),
        trials=_trials(facts["trials"], times.get("trials", [])),
        times=_milliseconds([times["start"], times["end"]]) if times else None,
    )


def _times(digest: str) -> dict[str, Any]:
    """Return when a bundle was trained; empty if it was not trained here."""
    try:
        found: dict[str, Any] = tables.read_json(Paths.TIMES) if Paths.TIMES.exists() else {}
    except ProjectError:
        return {}
    return found if found.get("bundle") == digest else {}


def _milliseconds(times: Sequence[float] | None) -> tuple[int, int] | None:
    return (int(times[0] * 1000), int(times[1] * 1000)) if times else None


def _trials(lines: Sequence[Mapping[str, Any]], times: Sequence[Sequence[float] | None]) -> list[Trial]:
    known = dict(enumerate(times))
    return [
        Trial(
            number=line["number"] + 1,
            state=line["state"],
            value=line["value"],
            params={name: value for name, value in line.items() if name not in TRIAL_FACTS and value is not None},
            times=_milliseconds(known.get(line["number"])),
        )
        for line in lines
    ]


def _data_version(facts: Mapping[str, Any]) -> Data | None:
    """Return the version of the validated data as dvc.lock has it."""
    stages = yaml.safe_load(Paths.LOCK.read_text(encoding="utf-8"))["stages"].values()
    outs = {out["path"]: out.get("md5", "") for stage in stages for out in stage.get("outs", ())}
    digest = outs.get(Paths.VALIDATED.as_posix())
    profile = {"num_rows": facts["data"]["good"], "source": facts["source"], **facts["window"]}
    return Data(Paths.VALIDATED.as_posix(), digest, profile) if digest else None


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} as {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def promote(settings: Settings, number: int | None, why: str) -> Version:
    """Make the challenger, or the version of that number, the champion.

    Raises:
        ProjectError: If there is no challenger, or no such version.
    """
    registry = Registry(settings)
    registry.settle()
    version = registry.holder(CHALLENGER) if number is None else registry.version(number)
    if version is None:
        raise ProjectError(
            "there is no challenger to promote. `make run` trains one, `make history` shows all versions."
        )
    registry.promote(version, settings.who, why or "by hand")
    write_page(registry, version.run_id)
    return version


def rollback(settings: Settings, why: str, delivered: bool = False) -> Version:
    """Make the champion before this one champion again.

    Args:
        settings: Who does it, and where the registry is.
        why: The reason.
        delivered: Only while the champion is the version that champion.json names here, before the registry writes it anew.

    Raises:
        ProjectError: If there is none, or another is the champion by now.
    """
    there = tables.read_json(Paths.POINTER)["version"] if delivered else None
    registry = Registry(settings)
    registry.settle()
    champion = registry.holder(CHAMPION)
    if delivered and champion is not None and champion.number != there:
        raise ProjectError(
            f"version {champion.number} is the champion by now, and version {there} was delivered: nothing was moved. "
            "`make history` shows who did it."
        )
    version = registry.rollback(settings.who, why or "by hand")
    write_page(registry, version.run_id)
    return version


def verify(settings: Settings) -> Version | None:
    """The champion, once it has answered its example rows as it did when it was made; None if there is none.

    Raises:
        BundleError: If it is damaged, does not load, or answers otherwise.
    """
    registry = Registry(settings)
    registry.settle()
    champion = registry.holder(CHAMPION)
    if champion is not None:
        bundle.verify(registry.load(champion))
    return champion
