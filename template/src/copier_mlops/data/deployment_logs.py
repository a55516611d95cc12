"""Where what answers on this host writes down its answers; `make deploy` says in .deploy/ what that is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from copier_mlops import ProjectError
from copier_mlops.settings import Settings

DEPLOYED, LOG = Path(".deploy"), "predictions"
FOREMOST = ("prod", "staging", "dev")


def logs(settings: Settings) -> list[Path]:
    """Every log of answers of this project on this host: PREDICTION_LOG, and that of each environment, also of one that has ended."""
    return _once([settings.prediction_log, *sorted(DEPLOYED.glob(f"*/{LOG}"))])


def watched(settings: Settings) -> list[Path]:
    """The logs that production writes: PREDICTION_LOG (batch, messages, `make serve`), and that of the foremost environment that answers
    here, prod before staging before dev; where all have ended, that of the foremost that did.

    Raises:
        ProjectError: If what is deployed cannot be read.
    """
    folders = [DEPLOYED / name for name in FOREMOST]
    live = [folder for folder in folders if _answers(folder / "state.json")]
    some = live or [folder for folder in folders if (folder / LOG).is_dir()]
    return _once([settings.prediction_log, *(folder / LOG for folder in some[:1])])


def _answers(state: Path) -> bool:
    try:
        return bool(json.loads(state.read_text(encoding="utf-8"))["live"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{state} is damaged ({error}). Remove the file, and run `make deploy ENV={state.parent.name}`, which writes it."
        ) from error


def _once(folders: Iterable[Path]) -> list[Path]:
    return list({folder.resolve(): folder for folder in folders}.values())
