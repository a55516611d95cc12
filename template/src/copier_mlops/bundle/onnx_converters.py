"""Counterparts in ONNX of steps that skl2onnx converts in part: a gap, a rare word or a logarithm is no reason to go without.

What a step learnt is read from its public attributes, whose meaning scikit-learn documents; what it does not have here is left to
skl2onnx. Texts that are missing are empty in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

ML = "ai.onnx.ml"
INVERSES: dict[Callable[..., Any], tuple[str, ...]] = {np.exp: ("Exp",), np.expm1: ("Exp", "Sub")}
"""The nodes that undo what was done to a target."""


def functions() -> dict[type, Callable[..., None]]:
    """What writes the nodes of a step, as `convert_sklearn` takes it."""
    return {OneHotEncoder: _one_hot, TargetEncoder: _means, SimpleImputer: _filled}


def shapes() -> dict[type, Callable[[Any], None]]:
    """What says how wide the answer of a step is."""
    return {OneHotEncoder: _as_wide, TargetEncoder: _as_wide, SimpleImputer: _as_wide}


def undo(graph: Any, inverse: Callable[..., Any]) -> None:
    """Append to a graph that answers a transformed target what gives the target itself.

    Raises:
        NotImplementedError: If the function is not one of `INVERSES`.
    """
    from onnx import helper

    if inverse not in INVERSES:
        raise NotImplementedError(f"the target is undone by {getattr(inverse, '__name__', inverse)}")
    answer = graph.output[0]
    before = f"{answer.name}_transformed"
    for node in graph.node:
        node.output[:] = [before if name == answer.name else name for name in node.output]
    steps = INVERSES[inverse]
    graph.initializer.append(helper.make_tensor("one", answer.type.tensor_type.elem_type, [1], [1.0]))
    for place, step in enumerate(steps):
        after = answer.name if step == steps[-1] else f"{before}_{place}"
        graph.node.append(helper.make_node(step, [before, "one"] if step == "Sub" else [before], [after], name=after))
        before = after


# --------------------------------------------------------------------------------------------------------- Steps


def _one_hot(scope: Any, operator: Any, container: Any) -> None:
    """OneHotEncoder whose rare categories share a column, which takes those that were never seen, too."""
    encoder = operator.raw_operator
    if encoder.drop is not None or encoder.handle_unknown == "error" or not _are_texts(operator.inputs):
        return _library(scope, operator, container, "one_hot_encoder", "convert_sklearn_one_hot_encoder")
    rare = getattr(encoder, "infrequent_categories_", [None] * len(encoder.categories_))
    blocks = []
    for word, known, seldom in zip(_each(scope, operator, container), encoder.categories_, rare, strict=True):
        few = {_text(one) for one in (() if seldom is None else seldom)}
        often = [one for one in map(_text, known) if one not in few]
        places = {one: place for place, one in enumerate(often)} | dict.fromkeys(few, len(often))
        unknown = len(often) if few and encoder.handle_unknown != "ignore" else -1
        more = {"values_int64s": list(places.values()), "default_int64": unknown}
        place = _looked_up(scope, container, word, list(places), **more)
        columns = _constant(scope, container, np.arange(len(often) + bool(few)).reshape(1, -1))
        blocks.append(_float(scope, container, _node(scope, container, "Equal", [place, columns])))
    return _together(operator, container, blocks)


def _means(scope: Any, operator: Any, container: Any) -> None:
    """TargetEncoder, of which a category may be missing."""
    encoder = operator.raw_operator
    if not _are_texts(operator.inputs):
        return _library(scope, operator, container, "target_encoder", "convert_sklearn_target_encoder")
    words, overall = list(_each(scope, operator, container)), np.atleast_1d(encoder.target_mean_)
    blocks = []
    for place, means in enumerate(encoder.encodings_):
        feature, which = divmod(place, len(overall))  # within a feature by class, where there are more than two
        keys = [_text(one) for one in encoder.categories_[feature]]
        more = {"values_floats": np.asarray(means, "float32"), "default_float": float(overall[which])}
        blocks.append(_looked_up(scope, container, words[feature], keys, **more))
    return _together(operator, container, blocks)


def _filled(scope: Any, operator: Any, container: Any) -> None:
    """SimpleImputer of texts, or of numbers where it also says which were missing."""
    imputer, texts = operator.raw_operator, _are_texts(operator.inputs)
    if not pd.isna(imputer.missing_values) or texts == imputer.add_indicator:
        return _library(scope, operator, container, "imputer_op", "convert_sklearn_imputer")
    given = _given(scope, operator, container)
    if texts:
        missing = _node(scope, container, "Equal", [given, _constant(scope, container, np.array([""]))])
        words = _constant(scope, container, np.array([imputer.statistics_], dtype=str))
        return _together(operator, container, [_node(scope, container, "Where", [missing, words, given])])
    statistics = np.asarray(imputer.statistics_, "float32")
    kept = np.flatnonzero(~np.isnan(statistics))  # a column without any value is left out by it
    attributes = {"imputed_value_floats": statistics[kept], "replaced_value_float": float("nan")}
    blocks = [_node(scope, container, "Imputer", [_some(scope, container, given, kept)], op_domain=ML, **attributes)]
    if len(imputer.indicator_.features_):
        gaps = _node(scope, container, "IsNaN", [_some(scope, container, given, imputer.indicator_.features_)])
        blocks.append(_float(scope, container, gaps))
    return _together(operator, container, blocks)


def _as_wide(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    step, filled = operator.raw_operator, type(operator.inputs[0].type)
    kind = filled if isinstance(step, SimpleImputer) else FloatTensorType
    operator.outputs[0].type = kind([None, len(step.get_feature_names_out())])


# --------------------------------------------------------------------------------------------------------- Nodes


def _library(scope: Any, operator: Any, container: Any, module: str, name: str) -> None:
    """What skl2onnx has for it."""
    from importlib import import_module

    getattr(import_module(f"skl2onnx.operator_converters.{module}"), name)(scope, operator, container)


def _text(category: Any) -> str:
    return "" if pd.isna(category) else str(category)


def _are_texts(inputs: Sequence[Any]) -> bool:
    from skl2onnx.common.data_types import StringTensorType

    return all(isinstance(one.type, StringTensorType) for one in inputs)


def _node(scope: Any, container: Any, kind: str, given: list[str], **attributes: Any) -> str:
    """Add a node; returns the name of what it gives."""
    name = str(scope.get_unique_variable_name(kind.lower()))
    container.add_node(kind, given, name, name=scope.get_unique_operator_name(kind), **attributes)
    return name


def _constant(scope: Any, container: Any, values: np.ndarray) -> str:
    from onnx import TensorProto

    name = str(scope.get_unique_variable_name("constant"))
    texts = values.dtype.kind == "U"
    flat = [one.encode() if texts else one for one in values.ravel().tolist()]
    container.add_initializer(name, TensorProto.STRING if texts else TensorProto.INT64, list(values.shape), flat)
    return name


def _given(scope: Any, operator: Any, container: Any) -> str:
    """All inputs beside each other, of shape (rows, columns)."""
    return _node(scope, container, "Concat", [one.full_name for one in operator.inputs], axis=1)


def _some(scope: Any, container: Any, given: str, places: np.ndarray) -> str:
    """Some columns."""
    return _node(scope, container, "Gather", [given, _constant(scope, container, np.asarray(places))], axis=1)


def _each(scope: Any, operator: Any, container: Any) -> Iterator[str]:
    """Each column on its own, of shape (rows, 1)."""
    given = _given(scope, operator, container)
    for place in range(len(operator.raw_operator.categories_)):
        yield _some(scope, container, given, np.array([place]))


def _looked_up(scope: Any, container: Any, words: str, keys: list[str], **values: Any) -> str:
    """What stands for each text."""
    return _node(scope, container, "LabelEncoder", [words], op_domain=ML, op_version=2, keys_strings=keys, **values)


def _float(scope: Any, container: Any, given: str) -> str:
    from onnx import TensorProto

    return _node(scope, container, "Cast", [given], to=TensorProto.FLOAT)


def _together(operator: Any, container: Any, blocks: list[str]) -> None:
    """Columns beside each other are the answer of the step."""
    container.add_node("Concat", blocks, operator.outputs[0].full_name, axis=1)
