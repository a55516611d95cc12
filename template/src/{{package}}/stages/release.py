"""What follows the stages: record, judge, register, promote; and looking back. Called by the flow and by the commands."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from .. import ProjectError
from ..core import gate
from ..core.contract import check_rows
from ..core.gate import Outcome
from ..core.metrics import Interval, paired_gain
from ..core.schema import CONTRACT
from ..io import bundle, git, isolated, tables
from ..io.database import CHALLENGER, CHAMPION, Version
from ..io.registry import LINEAGE_FILES, Record, Registry, file_digests
from ..params import PARAMS, RUN, Run, load_run
from ..settings import Paths, Settings
from ..stages import split
from ..stages.reproduce import machine
from ..stages.resolve import lineage, remember


def judge(registry: Registry, run: Run, facts: Mapping[str, Any], name: str) -> tuple[gate.Verdict, Interval | None]:
    """Hold the run against its limits and, where there is one, against the champion on the same rows."""
    champion = registry.holder(CHAMPION)
    over = None
    if champion is not None and champion.lineage != name:
        over = against(registry, champion, run)
    limits = run.gate
    verdict = gate.judge(
        limits.metric,
        {key: np.nan if value["value"] is None else value["value"] for key, value in facts["metrics"].items()},
        facts["over_baseline"]["value"],
        over,
        limits.at_least,
        limits.at_most,
        limits.better_than_baseline,
        limits.worse_than_champion,
        facts["effects"],
    )
    return verdict, over


def against(registry: Registry, champion: Version, run: Run) -> Interval | None:
    """The gain of this run's model over the champion, both answering the test rows through their bundles.

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
    y = CONTRACT.labels(scored[CONTRACT.target])[kept]
    mine = scored[CONTRACT.answers].to_numpy("float64")[kept]
    mine = mine if len(CONTRACT.answers) > 1 else mine[:, 0]
    return paired_gain(
        run.problem, run.gate.metric, y, mine, old.score(checked.good), run.evaluation.bootstrap, run.seed
    )


def _answering(registry: Registry, champion: Version) -> bundle.Bundle | None:
    """The champion's bundle; None if newer packages keep it from answering as it did.

    Raises:
        BundleError: If it is damaged.
    """
    try:
        loaded = registry.load(champion)
        bundle.verify(loaded)
    except bundle.StaleBundleError:
        return None
    return loaded


def _same_question(old: bundle.Bundle, run: Run) -> bool:
    asked = (old.manifest["problem"], old.manifest["target"], old.contract.classes)
    return asked == (run.problem, CONTRACT.target, CONTRACT.classes)


def record(settings: Settings) -> Outcome:
    """Log the run, judge it, register it if it passes, and name it challenger or, the first, champion.

    Doing it again for the same lineage changes nothing, wherever an earlier attempt was cut off.
    """
    run, facts, name = load_run(), tables.read_json(Paths.FACTS), lineage()
    registry = Registry(settings)
    registry.settle()
    done = registry.find(name)
    if done:
        logged = registry.run(done)
        verdict_json = json.loads(registry.text(logged, "checks"))
        over_json = json.loads(registry.text(logged, "over_champion"))
        markdown = registry.text(logged, "summary")
        run_id = done
    else:
        verdict, over = judge(registry, run, facts, name)
        verdict_json = verdict.as_json()
        over_json = over.as_json() if over else None
        from ..core.report import summary  # imports Matplotlib, which takes a second

        markdown = summary(facts, verdict, f"run {name}")
        run_id = registry.log(as_record(run, facts, verdict, over_json, markdown, name))
    if not verdict_json["passed"]:
        number, status = None, "rejected"
    else:
        version = registry.register(run_id, name)
        _place(registry, version, run, settings)
        number, status = version.number, registry.version(version.number).status
    champion = registry.holder(CHAMPION)
    outcome = Outcome(name, verdict_json, number, status, champion.number if champion else None, over_json, markdown)
    remember(settings, outcome)
    return outcome


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
    over: Mapping[str, float | None] | None,
    markdown: str,
    name: str,
) -> Record:
    commit = git.snapshot(name, f"Work tree of run {name}")
    archive = Path(".cache") / f"source-{name}.tar.gz"
    git.archive(commit, archive)
    loaded = isolated.load(Paths.BUNDLE)
    expected = pd.DataFrame(loaded.expected["rows"], columns=loaded.expected["columns"])
    lineage_files = {
        path: "lineage" for path in (Paths.LOCK, Paths.ENVIRONMENT, RUN, PARAMS, Paths.METRICS) if path.exists()
    }
    tags = {
        "checks": json.dumps(verdict.as_json()),
        "over_champion": json.dumps(over),
        "summary": markdown,
        "note": markdown,
        "snapshot": commit,
        "mlflow.source.git.commit": git.head() or commit,
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
            Paths.PLOTS: "plots",
            Paths.PAGE: "",
            Paths.CARD: "",
            Paths.FACTS: "",
        },
        model=Paths.BUNDLE,
        contract=loaded.contract,
        example=check_rows(expected, bundle.for_examples(loaded.contract), labelled=False).good,
    )


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
    version = registry.version(number) if number else registry.holder(CHALLENGER)
    if version is None:
        raise ProjectError(
            "there is no challenger to promote. `make run` trains one, `make history` shows all versions."
        )
    registry.promote(version, settings.who, why or "by hand")
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
    return registry.rollback(settings.who, why or "by hand")


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


def compare(settings: Settings, a: int, b: int) -> dict[str, list[dict[str, Any]]]:
    """Two versions side by side: metrics, parameters that differ, and how their data differ."""
    registry = Registry(settings)
    one, other = (registry.run(registry.version(number).run_id) for number in (a, b))
    data = [_data(registry, run.info.run_id) for run in (one, other)]
    sides = (f"version {a}", f"version {b}")

    def beside(left: Mapping[str, Any], right: Mapping[str, Any], only_different: bool) -> list[dict[str, Any]]:
        return [
            {"": key, sides[0]: left.get(key), sides[1]: right.get(key)}
            for key in dict.fromkeys([*left, *right])
            if not only_different or left.get(key) != right.get(key)
        ]

    return {
        "metrics": beside(one.data.metrics, other.data.metrics, False),
        "parameters": beside(one.data.params, other.data.params, True),
        "data": beside(data[0], data[1], True),
    }


def _data(registry: Registry, run_id: str) -> dict[str, Any]:
    """What describes a run's data: counts, window, and the content's hash and size by output."""
    with tempfile.TemporaryDirectory() as scratch:
        facts = json.loads(registry.fetch(run_id, "facts.json", Path(scratch)).read_text())
        lock = yaml.safe_load(registry.fetch(run_id, "lineage/dvc.lock", Path(scratch)).read_text())
    described = {**_flat({"rows": facts["rows"], "window": facts["window"]}), "source": facts["source"]}
    described |= {
        f"rows {key.replace('_', ' ')}": facts["data"][key] for key in ("rows", "good", "set_aside", "unlabelled")
    }
    described |= {f"set aside, {reason}": rows for reason, rows in facts["data"]["reasons"].items()}
    for stage in lock["stages"].values():
        for out in stage.get("outs", []):
            if out["path"].startswith("data/"):
                described[f"{out['path']} (hash, bytes)"] = f"{out['md5'][:12]}, {out['size']:,}"
    return described
