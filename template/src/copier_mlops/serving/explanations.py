"""Why this answer: the contributions of a row's inputs, for the service and for `make explain`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.bundle.bundle import Bundle, for_examples
from copier_mlops.bundle.shapley import WALKS, contributions
from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import check_rows
from copier_mlops.data import log_reader
from copier_mlops.serving.request_parser import NotJsonError, Reader
from copier_mlops.settings import Settings


class NothingKnownError(ProjectError):
    """The bundle has no rows to compare with."""


class NoSuchPredictionError(ProjectError):
    """The log does not have a prediction of that name."""


class Explainer:
    """Explains answers of one bundle.

    Args:
        bundle: What answers.
        settings: Where the prediction log is, and what personal values are masked with.
        logs: Where it is looked for, if not in that alone.
    """

    def __init__(self, bundle: Bundle, settings: Settings, logs: Sequence[Path] = ()) -> None:
        self._bundle, self._folders = bundle, logs or [settings.prediction_log]
        self._reader = Reader(bundle.contract, 1, settings.mask_key.get_secret_value())
        self._logged = Reader(_without_masks(bundle.contract), 1)
        self._background: pd.DataFrame | None = None

    def explain(self, body: bytes) -> dict[str, Any]:
        """Explain the answer to a row, or to the logged one that `{"prediction_id": ...}` names.

        Returns:
            JSON-ready: id, score, prediction where classes have names, version, baseline (the mean score of the background rows in
            the bundle), and for each input its value and its contribution, the largest first. They add up to the score minus the
            baseline.

        Raises:
            NotJsonError, RefusedError: If the body is no row of the contract.
            NothingKnownError: If the bundle has no rows to compare with.
            NoSuchPredictionError: If the log does not have that prediction.
        """
        named = _named(body)
        if named is not None and "prediction_id" not in self._bundle.contract.names:
            return self.explain_logged(named)
        asked = self._reader.read(body)
        if asked.many:
            raise NotJsonError("one row is explained at a time: send an object")
        return {"id": asked.ids[0], **self._explained(self._reader.frame([asked]))}

    def explain_logged(self, prediction: str) -> dict[str, Any]:
        """The same, of a row that was answered before; by the bundle that answers now, which may be of another version."""
        named = re.fullmatch(r"[0-9A-Za-z-]{20,40}", prediction)  # nothing else is worth reading the log for
        found = (log_reader.find(folder, prediction) for folder in self._folders) if named else iter(())
        entry = next((one for one in found if one is not None), None)
        if entry is None:
            raise NoSuchPredictionError(
                f"the prediction log has no prediction {prediction[:40]}. A prediction is in the log within a second; "
                "compacted days are read by `make explain ID=` only."
            )
        asked = self._logged.read(msgspec.json.encode(entry["inputs"]))
        explained = self._explained(self._reader.frame([asked]))
        said = {
            "id": entry["id"],
            "prediction_id": prediction,
            "answered_by": entry["version"],
            "answered": entry["answer"],
        }
        return {**said, **explained}

    def _explained(self, row: pd.DataFrame) -> dict[str, Any]:
        known = self._known()
        answers = self._bundle.answers(row)
        place = int(self._bundle.score(row).argmax(axis=1)[0]) if len(self._bundle.contract.answers) > 1 else None

        def score(rows: pd.DataFrame) -> np.ndarray:
            found = self._bundle.score(rows)
            return found if place is None else found[:, place]

        contract = self._bundle.contract
        inputs = [*contract.features(), *([contract.time] if contract.time else [])]
        table = contributions(score, row, known, inputs)
        return {
            **{name: str(answers[name].iloc[0]) for name in answers if name == "prediction"},
            "score": float(answers["score"].iloc[0]),
            "version": self._bundle.version,
            "baseline": float(score(known).mean()),
            "contributions": [
                {"input": name, "value": _plain(value), "contribution": float(part)}
                for name, value, part in table.itertuples(index=False)
            ],
        }

    def _known(self) -> pd.DataFrame:
        """Rows of the training that stand for `nothing known`."""
        if self._background is None:
            brought = self._bundle.reference.get("background")
            rows = pd.DataFrame(brought["data"], columns=brought["columns"]) if brought else pd.DataFrame()
            if rows.empty:
                raise NothingKnownError(
                    "the bundle that answers has no rows to compare with, so nothing can be said of contributions. "
                    "A version that is trained with this release has them: make run, then make bundle."
                )
            contract = for_examples(self._bundle.contract)
            self._background = check_rows(rows, contract, labelled=False, repeats=True).good.head(WALKS)
        return self._background


def _named(body: bytes) -> str | None:
    """The prediction that a body names; None if it is a row."""
    try:
        return msgspec.json.decode(body, type=_Named).prediction_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    prediction_id: str


def _without_masks(contract: Contract) -> Contract:
    """What is in the log has pseudonyms already."""
    return Contract(tuple(dataclasses.replace(column, personal=False) for column in contract.columns))


def _plain(value: Any) -> Any:
    """A value of a frame as JSON has it."""
    if value is None or value != value:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def table(found: Mapping[str, Any]) -> str:
    """What was found, for people."""
    rows = [(one["input"], str(one["value"]), f"{one['contribution']:+.4f}") for one in found["contributions"]]
    widths = [max(map(len, column)) for column in zip(("input", "value", "contribution"), *rows, strict=True)]
    lines = [f"{name:<{widths[0]}}  {value:>{widths[1]}}  {part:>{widths[2]}}" for name, value, part in rows]
    said = f" ({found['prediction']})" if "prediction" in found else ""
    head = f"{found['id']}: {found['score']:.4f}{said}, mean of the background {found['baseline']:.4f}; version {found['version']}"
    if found.get("answered_by", found["version"]) != found["version"]:
        head += f", predicted by version {found['answered_by']}"
    return "\n".join(
        [head, "", f"{'input':<{widths[0]}}  {'value':>{widths[1]}}  {'contribution':>{widths[2]}}", *lines]
    )
