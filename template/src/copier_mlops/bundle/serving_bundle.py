"""The bundle of a service: that of a training in a form that is fast and executes nothing when it is loaded, signed.

model.onnx       where ONNX answers as the estimator does; else model.skops, where scikit-learn's own types will do; else model.pkl
card.md          the model card
lineage.json     where the version comes from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from copier_mlops.bundle import bundle, bundle_files, isolated, onnx_export, signing
from copier_mlops.contract.validation import check_rows

ONNX, SKOPS = "model.onnx", "model.skops"
TRUSTED = ("numpy.", "scipy.", "sklearn.")  # what model.skops may be made of; their code comes with their packages


def load(folder: Path, public: str = "") -> bundle.Bundle:
    """Check every file against the checksums, and these against their signature, then load.

    Args:
        folder: Where the bundle is.
        public: The key that has to have signed it; without one nobody asks.

    Raises:
        BundleError: If a file is missing, changed or was added.
        SignatureError: If the signature is missing or does not hold.
        StaleBundleError: If it cannot be loaded with the packages installed here.
    """

    def trusted(files: bundle_files.Contents) -> None:
        if public and bundle_files.CHECKSUMS in files:
            signing.verify(files[bundle_files.CHECKSUMS], files.get(bundle_files.SIGNATURE), public, folder)

    return bundle.load(folder, read_model, trusted)


def load_isolated(folder: Path, public: str = "") -> isolated.Isolated:
    """Check a bundle as `load` does, and load it in a process without secrets.

    Raises:
        BundleError: If a file is missing, changed or was added.
        SignatureError: If the signature is missing or not valid.
        StaleBundleError: If it cannot be loaded with the packages installed here.
    """
    files = bundle_files.contents(folder)
    if public:
        signing.verify(files[bundle_files.CHECKSUMS], files.get(bundle_files.SIGNATURE), public, folder)
    return isolated.load(folder, bundle_files.digest_of(files), read_model)


def load_made_here(folder: Path, digest: str) -> bundle.Bundle:
    """Load a bundle that `export` wrote on this machine, without a check of its signature.

    A pickle is loaded in a process without secrets. The other forms execute nothing, and predict faster in this process.

    Args:
        folder: the folder of the bundle.
        digest: the recorded digest of the bundle.

    Raises:
        BundleError: If its digest is not the recorded one; then nothing of it is executed.
    """
    if (folder / bundle.PICKLE).exists():
        return isolated.load(folder, digest, read_model)
    return bundle.load(folder, read_model, digest=digest)


def export(
    loaded: isolated.Isolated,
    source: Path,
    folder: Path,
    model: tuple[str, bytes],
    more: Mapping[str, str],
    manifest: Mapping[str, Any],
    private: str = "",
) -> None:
    """Write the bundle of a service from that of a training.

    This process signs, so it executes no code of either bundle.

    Args:
        loaded: The training's bundle, in the process that tries the written one, too.
        source: Its folder.
        folder: Replaced as a whole.
        model: The name of the model's file (`ONNX`, `SKOPS` or `PICKLE`), and its content.
        more: Files beside it, by name.
        manifest: Replaces that of the training.
        private: Signs it, if given.

    Raises:
        BundleError: If the written bundle cannot be loaded or answers otherwise; then nothing is left of it.
        SignatureError: If the key is not valid.
    """

    def sealed(checksums: Path) -> None:
        if private:
            signing.sign(checksums, private)

    def load_there(written: Path) -> bundle.Bundle:
        return isolated.load(written, read=read_model, process=loaded.process)

    with bundle.replacing(folder, sealed, load_there) as partial:
        files = bundle_files.contents(source, loaded.digest)
        (partial / "code").mkdir()
        for name in files:
            if name.startswith("code/") or name in ("expected.json", "reference.json"):
                (partial / name).write_bytes(files[name])
        (partial / model[0]).write_bytes(model[1])
        for name, text in more.items():
            (partial / name).write_text(text, encoding="utf-8")
        bundle_files.write_manifest(partial, manifest)
        bundle_files.write_checksums(partial)
        rows = pd.DataFrame(**bundle.expected_rows(loaded.expected))
        checked = check_rows(rows, bundle.for_examples(loaded.contract), labelled=False)
        bundle.expect(partial, load_there(partial), checked.good)


def read_model(files: bundle_files.Contents) -> Any:
    """The model in whichever form it is there."""
    if ONNX in files:
        return onnx_export.from_bytes(files[ONNX], json.loads(files["manifest.json"])["problem"] == "classification")
    if SKOPS in files:
        return from_skops(files[SKOPS])
    return bundle.unpickled(files)


def from_skops(content: bytes) -> Any:
    """An estimator of scikit-learn from a file that names types and values, and cannot make Python run anything else.

    Raises:
        BundleError: If it names a type of another library.
    """
    import skops.io

    named = skops.io.get_untrusted_types(data=content)
    foreign = [name for name in named if not name.startswith(TRUSTED)]
    if foreign:
        raise bundle_files.BundleError(
            f"the model is made of {', '.join(foreign)}, which a bundle without pickles does not take"
        )
    return skops.io.loads(content, trusted=named)


def choose(loaded: bundle.Bundle, rows: pd.DataFrame) -> tuple[str, bytes, str]:
    """The form of a model for services: ONNX if it predicts the same, else scikit-learn's own values, else the pickle.

    Args:
        loaded: The bundle of the training.
        rows: Rows that keep its contract, at least one.

    Returns:
        The name of the file, its content, and the reason for its form.
    """
    features = loaded.build_features(rows)
    whole = pd.concat([features, onnx_export.edges(features)], ignore_index=True)
    classes = len(loaded.contract.classes)
    try:
        converted = onnx_export.to_onnx(loaded.model, features)
        difference = onnx_export.largest_difference(
            lambda: bundle.score(loaded.model, whole, classes),
            lambda: bundle.score(converted, whole, classes),
            real=len(features),
        )
        said = f"ONNX differs from the estimator by {difference:.1e} at most, on {len(whole):,} rows, {len(features):,} of them real"
        if difference <= onnx_export.TOLERANCE:
            return ONNX, converted.content, said
    except onnx_export.ConversionError as error:
        said = str(error)
    content = _skops(loaded.model)
    if content is not None:
        return SKOPS, content, f"{said}; skops keeps it without code"
    import cloudpickle

    return bundle.PICKLE, cloudpickle.dumps(loaded.model), f"{said}; it has classes of its own, so it stays a pickle"


def _skops(model: Any) -> bytes | None:
    """The model as skops writes it; None if reading it would require trust in foreign code."""
    import skops.io

    try:
        content: bytes = skops.io.dumps(model)
        from_skops(content)
    except Exception:  # a type that skops does not know raises whatever it raises
        return None
    return content
