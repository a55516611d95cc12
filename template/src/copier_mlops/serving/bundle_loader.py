"""What every way to ask begins with: the bundle that answers, trusted as the environment asks for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, serving_bundle
from copier_mlops.settings import Settings


def answering(settings: Settings, folder: Path | None = None) -> bundle.Bundle:
    """Load the bundle of a service and ask it its example rows.

    Args:
        settings: Where it is, and who has to have signed it.
        folder: Where another is.

    Raises:
        ProjectError: If it is damaged, not signed by VERIFY_KEY, answers otherwise than when it was made, or if nobody said,
            outside development, which key has to have signed it.
    """
    if not settings.verify_key and settings.service_environment != "dev":
        raise ProjectError(
            f"SERVICE_ENVIRONMENT is {settings.service_environment}, where a bundle has to be signed, and VERIFY_KEY does not say by "
            "whom. Set it to the public key that `make key` printed."
        )
    folder = folder or settings.bundle_dir
    loaded = serving_bundle.load(folder, settings.verify_key)
    if not settings.verify_key:
        print(
            f"note: nobody asks who signed {folder}, since VERIFY_KEY is not set; fit for development alone",
            file=sys.stderr,
            flush=True,
        )
    bundle.verify(loaded)
    return loaded


def records(answers: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What `Bundle.answers` said as JSON has it, a mapping for each row; of `unseen` only where there is something."""
    names = list(answers.columns)
    for values in zip(*[answers[name].tolist() for name in names], strict=True):
        said = dict(zip(names, values, strict=True))
        if said.get(bundle.UNSEEN, said) is None:
            del said[bundle.UNSEEN]
        yield said
