"""An estimator as ONNX: the same answers in a tenth of the time, without the library that fitted it.

A conversion may succeed and be wrong, so one is used only where it agrees with the estimator, on rows that it knows and
on rows that nobody expects.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import ProjectError

OPSET = 21
TOLERANCE = 1e-5
"""Of the largest answer to a real row, or of the answer itself: single precision, added up in another order."""
ABSURD = 1e6
"""Times the largest answer to a real row; of answers further out it does not matter how far."""
CLASSES, FEATURES = "classes", "features"
UNKNOWN = "a value that nobody has ever seen"


class ConversionError(ProjectError):
    """The estimator has no counterpart in ONNX, or one that answers otherwise; its text says which."""


class OnnxModel:
    """A converted regressor; it computes on one thread, since a service has as many processes as it needs.

    Attributes:
        content: The model as it is written to a file.
        inputs: The names of the features, in the order of the graph.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.content = content
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()
        self._known = self._session.get_modelmeta().custom_metadata_map
        self.inputs = list(json.loads(self._known[FEATURES]))  # a graph has names of its own where ours have spaces
        pairs = list(zip(self.inputs, given, strict=True))
        self._texts = {name: one.name for name, one in pairs if one.type == "tensor(string)"}
        numbers = {name: one.name for name, one in pairs if one.type != "tensor(string)"}
        self._numbers, self._places = list(numbers), list(numbers.values())
        self._answer = self._session.get_outputs()[-1].name

    def run(self, features: pd.DataFrame) -> np.ndarray:
        """What the graph answers to some rows."""
        feed = {}
        if self._numbers:  # one block for all of them: a column at a time costs more than the model
            numbers = features.select_dtypes("number")  # looks nothing up, and copies little
            if list(numbers) != self._numbers:
                numbers = features[self._numbers]
            block = np.ascontiguousarray(numbers.to_numpy("float32").T)
            feed = {name: row.reshape(-1, 1) for name, row in zip(self._places, block, strict=True)}
        for name, place in self._texts.items():
            texts = features[name].to_numpy(object)
            feed[place] = np.where(pd.isna(texts), "", texts).astype(object).reshape(-1, 1)
        return np.asarray(self._session.run([self._answer], feed)[0])

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Answers of shape (rows,)."""
        return self.run(features).reshape(len(features))


class OnnxClassifier(OnnxModel):
    """A converted classifier.

    Attributes:
        classes_: The classes that it was fitted on, in the order of the columns of `predict_proba`.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.classes_ = np.array(json.loads(self._known[CLASSES]))

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Probabilities of shape (rows, classes)."""
        return self.run(features)


def from_bytes(content: bytes, classifies: bool) -> OnnxModel:
    """The model that `to_onnx` made."""
    return OnnxClassifier(content) if classifies else OnnxModel(content)


def to_onnx(model: Any, features: pd.DataFrame) -> OnnxModel:
    """Convert a fitted estimator.

    Args:
        model: An estimator or pipeline of scikit-learn, or of a library that registers its own converters.
        features: Some of its inputs, for their names and kinds.

    Raises:
        ConversionError: If a feature is neither number nor text, or a step of the estimator has no counterpart.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import TransformedTargetRegressor

    from copier_mlops.bundle import onnx_converters  # a service has neither of them

    kinds = []
    for name in map(str, features):
        kind = features[name].dtype
        if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind):
            kinds.append((name, FloatTensorType([None, 1])))
        elif pd.api.types.is_string_dtype(kind) or pd.api.types.is_object_dtype(kind):
            kinds.append((name, StringTensorType([None, 1])))
        else:
            raise ConversionError(f"the feature {name} is {kind}, neither number nor text")
    classifies = hasattr(model, "predict_proba")
    transforms = isinstance(model, TransformedTargetRegressor) and model.transformer is None
    within = model.regressor_ if transforms else model
    last = within[-1] if hasattr(within, "__getitem__") else within
    try:
        graph = convert_sklearn(
            within,
            name="model",  # else a new one each time
            initial_types=kinds,
            target_opset=OPSET,
            options={id(last): {"zipmap": False}} if classifies else None,
            custom_conversion_functions=onnx_converters.functions(),
            custom_shape_calculators=onnx_converters.shapes(),
        )
        if transforms:
            onnx_converters.undo(graph.graph, model.inverse_func)
        notes = {FEATURES: json.dumps([name for name, _ in kinds])}
        if classifies:
            notes[CLASSES] = json.dumps([float(name) for name in model.classes_])
        for key, value in notes.items():
            entry = graph.metadata_props.add()
            entry.key, entry.value = key, value
        # They come from a set, whose order changes with each process: the same model would be another release.
        domains = sorted(graph.opset_import, key=lambda one: str(one.domain))
        versions = [(one.domain, one.version) for one in domains]
        del graph.opset_import[:]
        for domain, number in versions:
            graph.opset_import.add(domain=domain, version=number)
        return from_bytes(graph.SerializeToString(), classifies)
    except Exception as error:  # a converter may raise anything, and its text may be as long as the model
        said = str(error).strip().partition("\n")[0][:200]
        raise ConversionError(f"no counterpart in ONNX ({type(error).__name__}: {said})") from error


def edges(features: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Rows that nobody expects, made of rows that there are: for each column values that are missing, the smallest and the
    largest, far outside, just beside one that was seen; and texts that were never seen.

    Returns:
        As many rows for each kind of edge as `features` has, with the same columns and kinds.
    """
    random = np.random.default_rng(seed)
    numbers = list(features.select_dtypes("number"))
    texts = [name for name in features if name not in numbers]
    kinds = []
    for change in ("missing", "ends", "far", "beside"):
        rows = features.copy()
        for name in numbers:
            values = features[name].to_numpy("float64")
            known = values[np.isfinite(values)]
            low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
            hit = random.random(len(rows)) < 0.3
            new = {
                "missing": np.full(len(rows), np.nan),
                "ends": np.where(random.random(len(rows)) < 0.5, low, high),
                "far": np.where(random.random(len(rows)) < 0.5, low - 1e6, high + 1e6),
                "beside": np.nextafter(values.astype("float32"), np.float32(random.choice([-np.inf, np.inf]))),
            }[change]
            rows[name] = pd.Series(np.where(hit, new, values), index=rows.index).astype(features[name].dtype)
        for name in texts:
            if change in ("missing", "far"):
                hit = random.random(len(rows)) < 0.3
                rows[name] = rows[name].mask(hit, None if change == "missing" else UNKNOWN)
        kinds.append(rows)
    return pd.concat(kinds, ignore_index=True)


def largest_difference(one: Callable[[], np.ndarray], other: Callable[[], np.ndarray], real: int) -> float:
    """How far two ways to answer the same rows are apart.

    Args:
        one, other: Give the answers, of shape (rows,) or (rows, classes).
        real: How many of the rows are real; they come first. The others may be answered with numbers that no real row gets, beside
            which any difference would be small.

    Returns:
        The largest difference, as a share of the largest answer to a real row, or of the answer itself where that is larger; infinite
        where one of them is no number.
    """
    with np.errstate(over="ignore"):  # the exponential of what is far outside
        left, right = one(), other()
    scale = float(np.max(np.abs(left[:real]), initial=0.0)) or 1.0
    left, right = (np.clip(answers, -ABSURD * scale, ABSURD * scale) for answers in (left, right))
    difference = np.max(np.abs(left - right) / np.maximum(np.abs(left), scale), initial=0.0)
    return float(difference) if np.isfinite(difference) else float("inf")
