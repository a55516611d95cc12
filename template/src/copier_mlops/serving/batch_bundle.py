"""answering: the bundle that a large table is answered with, a registered version in the form that is fastest."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle_files
from copier_mlops.registry.database import CHAMPION, Version
from copier_mlops.registry.mlflow_registry import Registry, RegistryError
from copier_mlops.serving.make_bundle import export
from copier_mlops.settings import Settings

MADE = Path(".cache/answering")


def answering(settings: Settings, number: int | None = None) -> tuple[Path, str]:
    """Return the bundle of a version, made once and kept; the champion's by default.

    The registry records the digest of what is made. A kept bundle with another digest is made again, whatever its files claim.

    Returns:
        Its folder and its digest.

    Raises:
        ProjectError: If there is no such version, or its predictions differ from those when it was trained.
    """
    registry = Registry(settings)
    version = registry.holder(CHAMPION) if number is None else registry.version(number)
    if version is None:
        raise ProjectError("there is no champion yet. `make run` trains one.")
    folder = MADE / f"{version.number}-{version.run_id}"
    digest = _kept(registry, version, folder)
    if not digest:
        digest = export(settings, version.number, folder).digest
        with contextlib.suppress(RegistryError):  # without permission to write, the next run makes the bundle again
            registry.record_export(version, digest)
    return folder, digest


def _kept(registry: Registry, version: Version, folder: Path) -> str:
    """Return the digest of a kept bundle; empty if it was made of another training bundle, or its digest is not recorded."""
    trained = registry.digest(version)
    try:
        files = bundle_files.contents(folder)
        made = json.loads(files["lineage.json"])
    except (bundle_files.BundleError, KeyError, ValueError):
        return ""
    digest = bundle_files.digest_of(files)
    return digest if made.get("trained_bundle") == trained and registry.has_export(version, digest) else ""
