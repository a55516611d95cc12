"""The pictures of the report."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from copier_mlops.evaluation.curves import curves
from copier_mlops.evaluation.metrics import calibration, flat

FEWEST_ROWS = 100  # of a slice that is ranked: an interval of fewer is too wide to mean anything
MOST_INPUTS = 15  # of the picture of the importance
INK, SOFT, MARK, GRID = "#1f2933", "#7b8794", "#0b6e99", "#e4e7eb"


def plots(
    problem: str,
    y: np.ndarray,
    score: np.ndarray,
    *,
    slices: pd.DataFrame,
    importance: pd.DataFrame,
    metric: str,
    trials: pd.DataFrame,
    classes: Sequence[str] = (),
    threshold: float | None = None,
    overall: float | None = None,
) -> dict[str, bytes]:
    """Return PNG files by name, without a time stamp inside: the same numbers give the same bytes.

    Args:
        y, score: truth and predictions, shapes (n,) and (n,) or, of many classes, (n, classes).
        slices, importance, trials: tables of `evaluation.metrics` and `pipeline.search`.
        classes: names of the classes, empty if they have none.
        threshold: threshold of a positive prediction that the curves mark, for two classes.
        overall: value of the metric on all test rows.
    """
    drawn = {
        "quality": _numbers(y, score) if problem == "regression" else _quality_of_classes(y, score, classes),
        "importance": _importance(importance, metric),
        "search": _search(trials, metric),
    }
    if problem == "classification" and (points := curves(problem, y, score))["roc"]:
        drawn["curves"] = _curves(points, float(y.mean()) if score.ndim == 1 else 1 / score.shape[1], threshold)
    if len(slices):
        drawn["slices"] = _slices(slices, metric, overall)
    return {name: as_png(figure) for name, figure in drawn.items()}


def blank(width: float = 8.0, height: float = 3.6, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with nothing in it yet, in the style of all of them, and its axes from left to right."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(colors=SOFT, labelsize=9)
        for side, spine in axis.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GRID)
    return figure, axes


def caption(axis: Axes, title: str, x: str = "", y: str = "") -> None:
    """Say what a plot shows, and what lies along it."""
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.set_xlabel(x, fontsize=9, color=SOFT)
    axis.set_ylabel(y, fontsize=9, color=SOFT)


def _quality_of_classes(y: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> Figure:
    figure, (left, right) = blank(columns=2, height=3.6 if score.ndim == 1 else max(3.6, 0.3 * score.shape[-1]))
    table = calibration(*flat(y, score))
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":", label="perfectly calibrated")
    left.plot(table["predicted"], table["observed"], color=MARK, marker="o", markersize=4, label="test rows, 10 bins")
    left.set_xlim(0, 1)
    left.set_ylim(0, 1)
    left.legend(frameon=False, fontsize=9)
    if score.ndim == 2:
        caption(left, "Calibration", "probability of the likeliest class", "share of correct predictions")
        _confusion(right, y, score, classes)
        return figure
    caption(left, "Calibration", "predicted probability", "observed share")
    bins = np.linspace(0, 1, 41).tolist()
    names = classes or ("no", "yes")
    right.hist(score[y == 0], bins, color=SOFT, alpha=0.7, label=names[0], density=True)
    right.hist(score[y == 1], bins, color=MARK, alpha=0.7, label=names[1], density=True)
    right.legend(frameon=False, fontsize=9, title="truth", title_fontsize=9)
    caption(right, "Predictions by outcome", "predicted probability", "density")
    return figure


def _curves(points: Mapping[str, Sequence[Mapping[str, float]]], share: float, threshold: float | None) -> Figure:
    figure, (left, right) = blank(columns=2)
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":", label="at random")
    right.axhline(share, color=SOFT, linewidth=1, linestyle=":", label="at random")
    for axis, name, x, y in ((left, "roc", "fpr", "tpr"), (right, "precision_recall", "recall", "precision")):
        table = pd.DataFrame(points[name])
        axis.plot(table[x], table[y], color=MARK, label="test rows")
        above = table[table["threshold"] >= threshold] if threshold is not None else table.iloc[:0]
        if len(above):
            axis.plot(*above[[x, y]].iloc[-1], "o", color=MARK, markersize=6, label=f"threshold {threshold:g}")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        axis.legend(frameon=False, fontsize=9, loc="lower right" if name == "roc" else "upper right")
    caption(left, "ROC curve", "false positive rate", "true positive rate (recall)")
    caption(right, "Precision and recall", "recall", "precision")
    return figure


def _confusion(axis: Axes, y: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a row for each true class; the darker a field, the larger its share of that class."""
    count = score.shape[1]
    cells = np.bincount(y.astype(int) * count + score.argmax(axis=1), minlength=count**2).reshape(count, count)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(count), classes, rotation=90 if count > 6 else 0)
    axis.set_yticks(range(count), classes)
    if count <= 12:
        for (row, column), value in np.ndenumerate(share):
            ink = "white" if value > 0.6 else INK
            axis.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color=ink)
    caption(axis, "Predictions by true class, share of each class", "predicted class", "true class")


def _numbers(y: np.ndarray, score: np.ndarray) -> Figure:
    figure, (left, right) = blank(columns=2)
    low, high = np.quantile(np.concatenate([y, score]), [0.005, 0.995])
    left.plot([low, high], [low, high], color=SOFT, linewidth=1, linestyle=":")
    shown = slice(None, None, max(1, len(y) // 3000))
    left.scatter(score[shown], y[shown], s=4, alpha=0.25, color=MARK, linewidths=0)
    left.set_ylim(low, high)
    caption(left, "Outcome by prediction", "predicted value", "observed value")
    errors = score - y
    least, most = np.quantile(errors, [0.005, 0.995])
    right.hist(errors, np.linspace(least, most, 41).tolist(), color=MARK)
    caption(right, "Errors", "predicted minus observed", "test rows")
    return figure


def _importance(table: pd.DataFrame, metric: str) -> Figure:
    top = table.head(MOST_INPUTS).iloc[::-1]
    shown = f", the {len(top)} most important of {len(table)}" if len(top) < len(table) else ""
    figure, (axis,) = blank(height=0.6 + 0.26 * max(len(top), 3))
    axis.barh(top["input"], top["loss"], xerr=top["spread"], color=MARK, ecolor=SOFT, height=0.65)
    caption(axis, f"Inputs{shown}; lines: standard deviation", f"loss in {metric} when the input is shuffled", "input")
    return figure


def _slices(table: pd.DataFrame, metric: str, overall: float | None) -> Figure:
    shown = table[table["value"].notna()].tail(40).iloc[::-1]
    figure, (axis,) = blank(height=0.8 + 0.22 * max(len(shown), 3))
    place = np.arange(len(shown))
    reach = [
        (shown["value"] - shown["low"]).clip(lower=0).fillna(0),
        (shown["high"] - shown["value"]).clip(lower=0).fillna(0),
    ]
    axis.errorbar(shown["value"], place, xerr=reach, fmt="none", ecolor=SOFT, linewidth=1)
    for label, few, color in (("", False, MARK), (f"fewer than {FEWEST_ROWS} rows", True, SOFT)):
        some = ((shown["rows"] < FEWEST_ROWS) == few).to_numpy()
        if some.any():
            axis.plot(shown["value"][some], place[some], "o", color=color, markersize=4, label=label)
    if overall is not None:
        axis.axvline(overall, color=INK, linewidth=1, linestyle=":", label="all test rows")
    if axis.get_legend_handles_labels()[1]:
        figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=2)
    axis.set_yticks(place, [f"{line.slice} {line.group}  ({line.rows:,})" for line in shown.itertuples()])
    caption(axis, f"{metric} by slice, with 95 % intervals", metric, "slice (test rows)")
    return figure


def _search(trials: pd.DataFrame, metric: str) -> Figure:
    figure, (axis,) = blank(height=2.6)
    for state, label, mark, colour in (
        ("complete", "complete", "o", MARK),
        ("pruned", "pruned, fewer folds", "x", SOFT),
    ):
        some = trials[trials["state"] == state]
        axis.scatter(some["number"] + 1, some["value"], marker=mark, color=colour, label=label)
    axis.legend(frameon=False, fontsize=9)
    axis.set_xticks(trials["number"] + 1)
    caption(axis, f"{metric} of each trial", "trial", f"{metric}, mean of the folds")
    return figure


def as_png(figure: Figure) -> bytes:
    """The bytes of a PNG file, without a time stamp inside."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that no font here has is drawn as boxes
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
