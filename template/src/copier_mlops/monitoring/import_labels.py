"""label: a checked copy of labels that came into the project's folder of them, for the next look at production."""

from __future__ import annotations

from pathlib import Path

from copier_mlops import ProjectError, project
from copier_mlops.monitoring import label_store
from copier_mlops.settings import Settings


def label(settings: Settings, given: str) -> label_store.Kept:
    """Keep labels in the folder of LABELS_URI.

    Args:
        settings: Names the folder, and the key that personal ids are masked with.
        given: A file, a folder or a glob of them, here or at s3://.

    Raises:
        ProjectError: If they cannot be read or used, or LABELS_URI is no folder here.
    """
    if not given:
        raise ProjectError("name the file of labels: make label INPUT=outcomes.csv")
    folder = Path(settings.labels_uri)
    if "://" in settings.labels_uri or folder.is_file() or any(mark in settings.labels_uri for mark in "*?["):
        raise ProjectError(
            f"LABELS_URI is {settings.labels_uri}, which is no folder here: whoever writes there adds labels. Leave it out, and "
            "`make label` keeps them in labels/."
        )
    if folder.absolute() in (Path(given).absolute(), *Path(given).absolute().parents):
        raise ProjectError(f"{given} is in {folder} already, and is read from there.")
    return label_store.keep(given, folder, project.contract(), settings.mask_key.get_secret_value())
