"""The bundle: a folder with all that scoring needs, so that yesterday's model answers as it did yesterday.

model.pkl        the fitted estimator, together with the code of model.py; another form in a bundle for services
code/            schema.py and features.py as they were in training
manifest.json    what it was trained on and with
expected.json    a few rows and the answers that the model gave when it was made
reference.json   what the rows of the training and the answers to them looked like
checksums.txt    SHA-256 of every file above, as sha256sum writes them
signature        over checksums.txt, in a bundle for services
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import _files, project
from copier_mlops.bundle.bundle_code import code_of
from copier_mlops.bundle.bundle_files import (
    CHECKSUMS,
    BundleError,
    Contents,
    StaleBundleError,
    bundle_files,
    check_files,
    check_release,
    digest_of,
    facts_of,
    files_of,
    papers_of,
    write_checksums,
    write_json,
    write_manifest,
)
from copier_mlops.contract.contract import Column, Contract
from copier_mlops.contract.validation import REASON, check_rows, unseen, unseen_reasons

UNSEEN = "unseen"
"""What an answer says of values that the training had not: the names of their columns."""
PICKLE = "model.pkl"
TOLERANCE = 1e-6  # of the largest answer, at least of 1, between machines; on one machine answers are equal to the bit


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        manifest: What is written in manifest.json.
        contract: The contract that the model was trained under.
        build_features: The features code that it was trained with.
        model: The fitted estimator.
        expected: Rows (as CSV-like columns) and the answers to them.
        reference: What the rows of the training looked like; empty in a bundle of an earlier release.
        digest: SHA-256 of the checksums, and so of the whole bundle.
        papers: What people read of it, by the name of its file; of a bundle for services.
    """

    manifest: Mapping[str, Any]
    contract: Contract
    build_features: Callable[[pd.DataFrame], pd.DataFrame]
    model: Any
    expected: Mapping[str, Any]
    reference: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    papers: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The number of the registered version; 0 where the bundle was not made from one."""
        return int(self.manifest.get("version", 0))

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Answer rows that keep the contract.

        Returns:
            float64 array of shape (rows,): the probability of the class, or the predicted number; of shape (rows, classes)
            where there are more than two classes.
        """
        return score(self.model, self.build_features(rows), len(self.contract.classes))

    def answer(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Hold rows against the contract and answer those that keep it.

        Args:
            rows: As they came, with a target or without. The same id may be asked for twice.

        Returns:
            A row per row, with its index: the columns of `answers` but `unseen`, and `reason`: why there is no answer, or which
            values were not seen in training.

        Raises:
            ContractError: If a column is missing, unexpected or double.
        """
        checked = check_rows(rows, self.contract, labelled=False, repeats=True)
        answers = self.answers(checked.good).drop(columns=UNSEEN, errors="ignore").reindex(rows.index)
        answers[REASON] = ""
        if self.contract.pooled:
            answers.loc[checked.good.index, REASON] = unseen_reasons(checked.good, self.contract)
        answers.loc[checked.set_aside.index, REASON] = checked.set_aside[REASON]
        return answers

    def answers(self, good: pd.DataFrame) -> pd.DataFrame:
        """Answer rows that keep the contract: what all ways to ask come to.

        Args:
            good: Typed as `check_rows` types them.

        Returns:
            A row per row, with its index: `score`; where classes have names `prediction`, the likeliest of them, whose
            probability `score` then is if there are more than two, beside `score <class>` for each; and `unseen` where the contract
            pools values that the training had not: the columns of the row that have one, else None.
        """
        classes, found = self.contract.classes, self.score(good)
        answers: dict[str, np.ndarray] = {}
        if classes:
            likeliest = found.argmax(axis=1) if found.ndim == 2 else (found >= 0.5).astype(int)
            answers["prediction"] = np.array(classes)[likeliest]
        answers["score"] = found.max(axis=1) if found.ndim == 2 else found
        if found.ndim == 2:
            answers |= dict(zip(self.contract.answers, found.T, strict=True))
        if self.contract.pooled:
            answers[UNSEEN] = _unseen(good, self.contract)
        return pd.DataFrame(answers, index=good.index)


def _unseen(good: pd.DataFrame, contract: Contract) -> np.ndarray:
    """The names of the columns with an unseen value by row, None where there is none."""
    names = np.full(len(good), None, dtype=object)
    for name, broken in unseen(good, contract).items():
        for place in np.flatnonzero(broken):
            names[place] = [*(names[place] or []), name]
    return names


def score(model: Any, features: pd.DataFrame, classes: int = 0) -> np.ndarray:
    """The one way from features to answers, for a bundle and for cross-validation alike.

    Args:
        model: The fitted estimator.
        features: The inputs of some rows.
        classes: How many classes have names; a class that the model never saw has probability 0.

    Returns:
        float64 array of shape (rows,), or (rows, classes) where there are more than two.
    """
    width = classes if classes > 2 else 2
    if len(features) == 0:
        return np.empty((0, classes)) if classes > 2 else np.empty(0)
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(features), dtype="float64")
    found = np.asarray(model.predict_proba(features), dtype="float64")
    if found.shape[1] != width:
        seen = np.asarray(model.classes_).astype(int)
        whole = np.zeros((len(found), width))
        whole[:, seen] = found
        found = whole
    return found if classes > 2 else found[:, 1]


Read = Callable[[Contents], Any]
"""Reads the model of a bundle whose checksums hold."""
Load = Callable[[Path], Bundle]
"""Loads a bundle from a folder."""


def unpickled(files: Contents) -> Any:
    """The model of a training."""
    return pickle.loads(files[PICKLE])  # noqa: S301 (its checksum holds)


def save(
    folder: Path,
    model: Any,
    manifest: Mapping[str, Any],
    examples: pd.DataFrame,
    reference: Mapping[str, Any] | None = None,
) -> None:
    """Write a bundle and make sure that what was written answers the examples.

    Args:
        folder: Replaced as a whole.
        model: The fitted estimator.
        manifest: JSON-ready facts of the training; no time stamps, so that the same training writes the same bytes.
        examples: A few rows that keep the contract.
        reference: What the rows of the training looked like, JSON-ready.

    Raises:
        BundleError: If the written bundle cannot be loaded or answers otherwise; then nothing is left of it.
    """
    import cloudpickle  # a service has none

    code, module = project.folder(), project.module("model")
    with replacing(folder) as partial:
        (partial / "code").mkdir(parents=True)
        for name in ("schema.py", "features.py", "contract.csv"):  # the last one where columns are many
            if name != "contract.csv" or (code / name).exists():
                shutil.copyfile(code / name, partial / "code" / name)
        cloudpickle.register_pickle_by_value(module)  # a class in model.py travels, not a reference to it
        try:
            (partial / PICKLE).write_bytes(cloudpickle.dumps(model))
        finally:
            cloudpickle.unregister_pickle_by_value(module)
        write_manifest(partial, manifest)
        if reference is not None:
            write_json(partial / "reference.json", reference)
        contract, build_features = code_of(files_of(partial), partial)
        expect(partial, Bundle(manifest, contract, build_features, model, {}), examples)


@contextlib.contextmanager
def replacing(
    folder: Path,
    sealed: Callable[[Path], object] = lambda checksums: None,
    reload: Load | None = None,
) -> Iterator[Path]:
    """A folder to write into that takes the place of another when what was written loads and answers.

    Args:
        folder: Replaced as a whole.
        sealed: Called with the file of checksums once the written bundle loads and predicts.
        reload: Loads the written bundle; `load` by default.

    Raises:
        BundleError: If what was written cannot be loaded or answers otherwise; then nothing is left of it.
    """
    with _files.replacing_folder(folder) as partial:
        yield partial
        write_checksums(partial)
        verify((reload or load)(partial))
        sealed(partial / CHECKSUMS)


def expect(folder: Path, live: Bundle, examples: pd.DataFrame) -> None:
    """Write the predictions of a bundle for some rows."""
    rows = json.loads(examples.to_json(orient="split", date_format="iso", date_unit="us", index=False))
    expected = {"columns": rows["columns"], "rows": rows["data"], "answers": live.score(examples).tolist()}
    write_json(folder / "expected.json", expected)


def load(
    folder: Path,
    read: Read = unpickled,
    trusted: Callable[[Contents], object] = lambda files: None,
    digest: str = "",
) -> Bundle:
    """Check every file against the checksums, then load what was checked.

    Where another bundle takes the place of this one meanwhile, as a whole or file by file, one of them is loaded or none.

    Args:
        folder: Where the bundle is.
        read: Reads the model.
        trusted: Is called with the files before anything of them is believed, and raises where they are not to be.
        digest: The recorded digest of the bundle; an empty text accepts any bundle whose checksums are valid.

    Raises:
        BundleError: If a file is missing, changed or was added, the digest is not the recorded one, or a newer release made
            the bundle.
        StaleBundleError: If it cannot be loaded with the packages installed here.
    """
    files = bundle_files(folder)
    trusted(files)
    check_files(files, folder, digest)
    check_release(files, folder)
    try:
        contract, build_features = code_of(files, folder)
        model = read(files)
    except Exception as error:  # whatever old code or an old pickle may raise under today's packages
        raise StaleBundleError(
            f"the bundle in {folder} does not load with the packages installed here ({type(error).__name__}: {error}). "
            "Install the lock file that was logged with its version, or train again."
        ) from error
    manifest, expected, reference = facts_of(files)
    return Bundle(manifest, contract, build_features, model, expected, reference, digest_of(files), papers_of(files))


def expected_rows(expected: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": expected["rows"], "columns": expected["columns"]}


def verify(bundle: Bundle) -> float:
    """Ask the expected rows again.

    Returns:
        The largest absolute difference to the expected answers.

    Raises:
        StaleBundleError: If it is larger than TOLERANCE.
    """
    rows = pd.DataFrame(**expected_rows(bundle.expected))
    checked = check_rows(rows, for_examples(bundle.contract), labelled=False)
    if len(checked.set_aside):
        raise BundleError(f"the bundle refuses its own example rows: {checked.set_aside['reason'].iloc[0]}")
    answers = np.array(bundle.expected["answers"])
    difference = float(np.max(np.abs(bundle.score(checked.good) - answers), initial=0.0))
    if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(answers), initial=0.0))):
        raise StaleBundleError(
            f"the bundle answers its example rows differently by up to {difference:.3g} than when it was made. "
            "The packages that compute have changed; install the lock file of its version, or train again."
        )
    return difference


def cost(bundle: Bundle, rows: pd.DataFrame) -> float:
    """How long a thousand rows take to be answered, against sorting two hundred thousand numbers: a measure that two
    machines agree on better than on seconds.

    Args:
        bundle: What answers.
        rows: Rows that keep its contract, at least one.
    """
    thousand = rows.iloc[np.arange(1000) % len(rows)].reset_index(drop=True)
    numbers = np.random.default_rng(0).random(200_000)
    return _shortest(lambda: bundle.score(thousand)) / _shortest(lambda: np.sort(numbers))


def _shortest(act: Callable[[], Any], times: int = 7) -> float:
    """Seconds of the fastest of some runs: what another process takes is in the others.

    The processor's seconds, which a busy machine hardly changes, or a third of the clock's where these are more: then the
    answer waits for something.
    """
    computing, passing = [], []
    for _ in range(times):
        cpu, clock = time.process_time(), time.perf_counter()
        act()
        computing.append(time.process_time() - cpu)
        passing.append(time.perf_counter() - clock)
    return max(min(computing), min(passing) / 3)


def for_examples(contract: Contract) -> Contract:
    """The contract of the expected rows: their ids are made up, and follow no rule."""
    return Contract(
        tuple(
            Column(column.name, column.kind, role="id") if column.role == "id" else column
            for column in contract.columns
        )
    )
