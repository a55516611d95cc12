"""bundle: a registered version as a folder for services, in a form that is fast and executes nothing when it is loaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import ProjectError
from ..core import convert
from ..core.contract import check_rows
from ..io import bundle
from ..io.registry import CHAMPION, Registry, Version
from ..params import load_run
from ..settings import Paths, Settings
from ..stages import split

ROWS = 2_000  # real rows that a conversion has to agree on
RUNTIMES = {bundle.ONNX: "onnx", bundle.SKOPS: "skops", bundle.PICKLE: "pickle"}


@dataclass(frozen=True)
class Exported:
    """A bundle that was made.

    Attributes:
        version: Of which version.
        runtime: `onnx`, `skops` or `pickle`.
        why: What speaks for that form, in words.
        digest: Its name.
        signed: Whether it is signed.
    """

    version: int
    runtime: str
    why: str
    digest: str
    signed: bool


def export(settings: Settings, number: int | None, folder: Path) -> Exported:
    """Write the bundle of a version, the champion by default.

    Raises:
        ProjectError: If there is no such version, or it does not answer as it did when it was made.
    """
    registry = Registry(settings)
    registry.settle()
    version = registry.version(number) if number else registry.holder(CHAMPION)
    if version is None:
        raise ProjectError("there is no champion yet. `make run` trains one.")
    source = registry.bundle(version)
    loaded = bundle.load(source)
    bundle.verify(loaded)
    name, content, why = choose(loaded, rows_to_agree_on(loaded))
    private = settings.signing_key.get_secret_value()
    manifest = {**loaded.manifest, "version": version.number, "runtime": RUNTIMES[name], "why": why}
    bundle.export(source, folder, (name, content), _papers(registry, version, source), manifest, private)
    return Exported(version.number, RUNTIMES[name], why, bundle.digest(folder), bool(private))


def choose(loaded: bundle.Bundle, rows: pd.DataFrame) -> tuple[str, bytes, str]:
    """The form of a model for services: ONNX where it answers alike, else scikit-learn's own values, else as it was pickled.

    Args:
        loaded: The bundle of the training.
        rows: Rows that keep its contract, at least one.

    Returns:
        The name of the file, its content, and what speaks for it.
    """
    features = loaded.build_features(rows)
    whole = pd.concat([features, convert.edges(features)], ignore_index=True)
    classes = len(loaded.contract.classes)
    try:
        converted = convert.to_onnx(loaded.model, features)
        difference = convert.largest_difference(
            lambda: bundle.score(loaded.model, whole, classes), lambda: bundle.score(converted, whole, classes)
        )
        said = f"ONNX differs from the estimator by {difference:.1e} at most, on {len(whole):,} rows, {len(features):,} of them real"
        if difference <= convert.TOLERANCE:
            return bundle.ONNX, converted.content, said
    except convert.ConversionError as error:
        said = str(error)
    content = _skops(loaded.model)
    if content is not None:
        return bundle.SKOPS, content, f"{said}; skops keeps it without code"
    import cloudpickle

    return bundle.PICKLE, cloudpickle.dumps(loaded.model), f"{said}; it has classes of its own, so it stays a pickle"


def _skops(model: Any) -> bytes | None:
    """The model as skops writes it; None if it cannot be read again without trusting code of others."""
    import skops.io

    try:
        content: bytes = skops.io.dumps(model)
        bundle.from_skops(content)
    except Exception:  # a type that skops does not know raises whatever it raises
        return None
    return content


def rows_to_agree_on(loaded: bundle.Bundle) -> pd.DataFrame:
    """Real rows where the data is here, and those that the bundle brings along.

    Returns:
        Rows that keep the bundle's contract, at least one.
    """
    contract = loaded.contract
    wanted = [column.name for column in contract.without_target()]
    brought = loaded.reference.get("background") or {
        "columns": loaded.expected["columns"],
        "data": loaded.expected["rows"],
    }
    found = [pd.DataFrame(brought["data"], columns=brought["columns"])]
    try:
        real = split.test(load_run())
    except (ProjectError, OSError):  # a machine that only makes bundles has no data
        real = pd.DataFrame(columns=wanted)
    if set(wanted) <= set(real) and len(real):
        found.append(real[wanted].sample(min(len(real), ROWS), random_state=0))
    typed = [check_rows(rows, bundle.for_examples(contract), labelled=False, repeats=True).good for rows in found]
    return pd.concat([rows for rows in typed if len(rows)], ignore_index=True)


def _papers(registry: Registry, version: Version, source: Path) -> dict[str, str]:
    """What goes along for people: where the version comes from, and its model card."""
    run = registry.run(version.run_id)
    lineage: Mapping[str, Any] = {
        "version": version.number,
        "run": version.run_id,
        "lineage": version.lineage,
        "trained_bundle": bundle.digest(source),
        "data": run.data.tags.get("data", ""),
        "commit": run.data.tags.get("mlflow.source.git.commit", ""),
        "snapshot": run.data.tags.get("snapshot", ""),
        "metrics": dict(run.data.metrics),
    }
    with tempfile.TemporaryDirectory() as scratch:
        card = registry.fetch(version.run_id, Paths.CARD.name, Path(scratch)).read_text(encoding="utf-8")
    return {"lineage.json": json.dumps(lineage, indent=2, sort_keys=True) + "\n", "card.md": card}
