"""bundle: a registered version as a folder for services, in a form that is fast and executes nothing when it is loaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, bundle_files, isolated, serving_bundle, signing
from copier_mlops.bundle.serving_bundle import choose
from copier_mlops.contract.validation import check_rows
from copier_mlops.params import load_run
from copier_mlops.pipeline import split
from copier_mlops.registry.database import CHAMPION, Version
from copier_mlops.registry.mlflow_registry import LINEAGE_FILES, Registry, file_digests
from copier_mlops.settings import Paths, Settings

ROWS = 2_000  # real rows that a conversion has to agree on
RUNTIMES = {serving_bundle.ONNX: "onnx", serving_bundle.SKOPS: "skops", bundle.PICKLE: "pickle"}


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


def export(settings: Settings, number: int | None, folder: Path, alias: str = CHAMPION) -> Exported:
    """Write the bundle of a version, or of the one that has an alias.

    Raises:
        ProjectError: If there is no such version, or it does not answer as it did when it was made.
    """
    registry = Registry(settings)
    registry.settle()
    version = registry.holder(alias) if number is None else registry.version(number)
    if version is None:
        raise ProjectError(f"there is no {alias} yet. `make run` trains one.")
    source = registry.bundle(version)
    loaded = isolated.load(source, registry.digest(version))  # this process signs, so it executes nothing of a bundle
    bundle.verify(loaded)
    name, content, why = loaded.call(choose, rows_to_agree_on(loaded))
    private = settings.signing_key.get_secret_value()
    manifest = {**loaded.manifest, "version": version.number, "runtime": RUNTIMES[name], "why": why}
    serving_bundle.export(
        loaded, source, folder, (name, content), _papers(registry, version, source), manifest, private
    )
    return Exported(version.number, RUNTIMES[name], why, bundle_files.digest(folder), bool(private))


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
        "trained_bundle": bundle_files.digest(source),
        "data": run.data.tags.get("data", ""),
        "commit": run.data.tags.get("mlflow.source.git.commit", ""),
        "snapshot": run.data.tags.get("snapshot", ""),
        "trained_at": version.created.isoformat(),
        "metrics": dict(run.data.metrics),
    }
    with tempfile.TemporaryDirectory() as scratch:
        file = registry.fetch(version.run_id, Paths.CARD.name, Path(scratch))
        recorded = json.loads(run.data.tags.get(LINEAGE_FILES, "{}"))  # 1.2 and earlier recorded none
        if recorded and file_digests([file]) != {file.name: recorded.get(file.name)}:
            raise ProjectError(
                f"the model card of version {version.number} in the artifact store (run {version.run_id}) is not the "
                "recorded one, so it is not signed. Find out who changed it, and restore it from a backup."
            )
        card = file.read_text(encoding="utf-8")
    return {"lineage.json": json.dumps(lineage, indent=2, sort_keys=True) + "\n", "card.md": card}


def key(settings: Settings) -> str:
    """Write a new pair of keys into .env; the public one comes back.

    Raises:
        ProjectError: If there is a key already.
    """
    if settings.signing_key.get_secret_value():
        raise ProjectError(
            "SIGNING_KEY is there already. To take another one, remove it and VERIFY_KEY from .env first."
        )
    private, public = signing.new_pair()
    settings.keep("SIGNING_KEY", private)
    settings.keep("VERIFY_KEY", public)
    return public
