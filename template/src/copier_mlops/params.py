"""What to learn: params.yaml as one frozen model, and run.yaml, which has what is resolved when a run begins."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from copier_mlops import ProjectError

PARAMS = Path("params.yaml")
RUN = Path("run.yaml")

Model = TypeVar("Model", bound=BaseModel)

CLASSIFICATION = ("auc", "average_precision", "brier", "log_loss", "calibration_error")
REGRESSION = ("mae", "rmse", "r2", "bias")


class ParamsError(ProjectError):
    """params.yaml cannot be used; the text names the key and the line's remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Window(_Section):
    """Which rows: `days` back from `until`, a date (exclusive) or the newest row at the source; without `days` all rows before it."""

    days: int | None = Field(default=None, ge=1)
    until: Literal["newest"] | dt.date = "newest"


class Split(_Section):
    """Which rows judge the model: the newest `test_days`, or a `test_share` of each class, drawn by the id.

    The other rows are cross-validated in `folds`: each trained on its past, or drawn as well where a share judges.
    """

    test_days: int | None = Field(default=None, ge=1)
    test_share: float | None = Field(default=None, gt=0, lt=1)
    folds: int = Field(default=3, ge=1, le=20)

    @model_validator(mode="wrap")
    @classmethod
    def _days_by_default(cls, given: Any, make: Callable[[Any], Split]) -> Split:
        if isinstance(given, Mapping) and given.get("test_days") is None and given.get("test_share") is None:
            split = make({**given, "test_days": 31})
            split.model_fields_set.discard("test_days")  # params.yaml does not have it
            return split
        return make(given)

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        if self.test_days is not None and self.test_share is not None:
            raise ValueError("split: test_days and test_share exclude each other; keep one")
        if self.test_share is not None and self.folds < 2:
            raise ValueError("split.folds: drawn rows need 2 folds or more")
        return self


class Validation(_Section):
    """`max_bad_share` of rows may break the contract; one input alone may be no better than `max_single_input_skill`, and the model no
    better than `max_model_skill` on the test rows, in AUC or R2."""

    max_bad_share: float = Field(default=0.02, ge=0, le=1)
    max_single_input_skill: float = Field(default=0.7, gt=0, le=1)
    max_model_skill: float = Field(default=0.999, gt=0, le=1)


class Search(_Section):
    """`trials` sets of hyperparameters, compared on at most `max_rows` rows, spread over all before the test. The first is
    the `guess`, where one is given, else FIRST_GUESS of model.py.
    """

    trials: int = Field(default=5, ge=1)
    guess: dict[str, Any] = {}
    max_rows: int = Field(default=100_000, ge=100)


class Evaluation(_Section):
    """`slices` to report apart (columns of the contract, or `month`), and `bootstrap` resamples for an interval.

    `threshold` is the lowest probability of the positive class that the report and the model card count as a positive
    prediction. It affects these two only: the service predicts the likelier class.
    """

    slices: tuple[str, ...] = ()
    bootstrap: int = Field(default=200, ge=20, le=10_000)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    importance_rows: int = Field(default=4_000, ge=100)


class Gate(_Section):
    """The limits that a model has to keep. `metric` decides between models."""

    metric: str
    at_least: dict[str, float] = {}
    at_most: dict[str, float] = {}
    better_than_baseline: float = Field(default=0.0)
    worse_than_champion: float = Field(default=0.0, ge=0)


class Review(_Section):
    """What a change is tried on before it is merged, and how it may compare with champion.json.

    The window is cut to as many days as hold about so many `rows`, the search to so many `trials`; of the champion's gain
    over its baseline the share `keeps` has to be left; answering a row may take `slower` times as long.
    """

    rows: int = Field(default=100_000, ge=100)
    trials: int = Field(default=1, ge=1)
    keeps: float = Field(default=0.75, le=1)
    slower: float = Field(default=4.0, gt=1)


class Promotion(_Section):
    """`automatic`: whether a challenger that passes the gate becomes champion by itself."""

    automatic: bool = False


class Monitoring(_Section):
    """What `make monitor` looks at, and when it proposes something.

    The answers of the last `window_days` are compared with the training, if they are `min_rows` or more; so that a look at which
    nothing has drifted says otherwise with a probability of `level`. Labels come late: those of answers of the last
    `performance_days` are judged, if they are `min_labelled` or more. `drifted_columns` that have drifted are a reason to train again,
    at most once in `cool_down_hours`; a version that answers for less than `new_version_days` may be rolled back. A challenger is better
    than the champion if the interval of its gain, on the same labelled answers and as sure as `promote_confidence`, lies above
    `promote_margin`, in `promote_metric`: the Brier score or the mean absolute error, if none is named. A log whose newest answer is older than `silent_hours` is told. Clocks may differ by
    `clock_tolerance_minutes`.
    """

    window_days: float = Field(default=7, gt=0)
    performance_days: float = Field(default=28, gt=0)
    min_rows: int = Field(default=500, ge=2)
    min_labelled: int = Field(default=200, ge=2)
    level: float = Field(default=0.01, gt=0, lt=1)
    drifted_columns: int = Field(default=3, ge=1)
    cool_down_hours: float = Field(default=28 * 24, ge=0)
    new_version_days: float = Field(default=21, ge=0)
    promote_metric: str | None = None
    promote_confidence: float = Field(default=0.95, ge=0.5, lt=1)
    promote_margin: float = Field(default=0.0, allow_inf_nan=False)
    silent_hours: float = Field(default=48, gt=0)
    clock_tolerance_minutes: float = Field(default=5, ge=0)


class Params(_Section):
    """The whole of params.yaml."""

    problem: Literal["classification", "regression"]
    seed: int = Field(default=7, ge=0)
    window: Window = Window()
    split: Split = Split()
    validation: Validation = Validation()
    search: Search = Search()
    evaluation: Evaluation = Evaluation()
    gate: Gate
    promotion: Promotion = Promotion()
    review: Review = Review()
    monitoring: Monitoring = Field(default=Monitoring(), exclude=True)  # no part of a run: a limit moves no lineage

    def small(self, rows: int, guess: Mapping[str, Any], span: int | None = None) -> dict[str, dict[str, Any]]:
        """Return the overrides of a review: a short window, few trials, the champion's hyperparameters as the first guess.

        The test rows stay the same.

        Args:
            rows: Number of rows at the source.
            guess: Hyperparameters of the champion.
            span: Days from the oldest row to the newest, for a window without `days`; None takes all rows.
        """
        most = self.window.days or span
        days = most and min(most, max(int(most * self.review.rows / max(rows, 1)), 2 * (self.split.test_days or 0), 1))
        trials = min(self.search.trials, self.review.trials)
        return {"window": {"days": days}, "search": {"trials": trials, "guess": dict(guess)}}

    def overridden(self, overrides: Mapping[str, Mapping[str, Any]]) -> Params:
        """Return these settings with other values for some keys of some sections."""
        sections = {name: getattr(self, name).model_copy(update=dict(keys)) for name, keys in overrides.items()}
        return self.model_copy(update=sections)

    def defaults(self) -> dict[str, Any]:
        """Return the value of each key that params.yaml leaves out, by section."""
        content, left_out = self.model_dump(mode="json"), {}
        for name, value in content.items():
            section = getattr(self, name)
            if isinstance(section, _Section):
                left_out[name] = {key: value[key] for key in value if key not in section.model_fields_set}
            elif name not in self.model_fields_set:
                left_out[name] = value
        return left_out

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        known = CLASSIFICATION if self.problem == "classification" else REGRESSION
        named = [("gate", name) for name in (self.gate.metric, *self.gate.at_least, *self.gate.at_most)]
        named += [("monitoring", name) for name in (self.monitoring.promote_metric,) if name is not None]
        for section, name in named:
            if name not in known:
                raise ValueError(f"{section}: {name} is no metric of a {self.problem}; there are {', '.join(known)}")
        if self.window.days is not None and (self.split.test_days or 0) >= self.window.days:
            raise ValueError("split.test_days must be fewer than window.days, or nothing is left to train on")
        return self


class Source(_Section):
    """What the source held when the run began; `newest` is empty where rows have no time."""

    fingerprint: str
    rows: int
    newest: dt.datetime | None


class Resolved(_Section):
    """The rules of the window as moments: rows with start <= time < end, those from test_start on are the test.

    All empty where rows have no time; start is empty where the window has no first day, test_start where a share of the rows is
    the test.
    """

    start: dt.datetime | None
    test_start: dt.datetime | None
    end: dt.datetime | None


class Run(Params):
    """One run: params.yaml with its defaults, and what run.yaml adds.

    Attributes:
        source: The source when the run began.
        resolved: The window as moments.
        contract: Digest of the contract.
        forgotten: Digest of the list of erased data subjects.
        code: Digest of the runtime code of each stage.
        overrides: Values that replace those of params.yaml, by section; a review has some.
        left_out: Default values of the keys that params.yaml leaves out, by section.
    """

    source: Source
    resolved: Resolved
    contract: str = ""
    forgotten: str = ""
    code: dict[str, str] = {}
    overrides: dict[str, dict[str, Any]] = Field(default={}, exclude=True)
    left_out: dict[str, Any] = Field(default={}, exclude=True)


class _RunFile(BaseModel):
    """run.yaml. That of release 1.2 and earlier also repeats params.yaml, which is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: Source
    resolved: Resolved
    contract: str = ""
    forgotten: str = ""
    code: dict[str, str] = {}
    overrides: dict[str, dict[str, Any]] = {}


def load_params(path: Path = PARAMS) -> Params:
    """Read params.yaml.

    Raises:
        ParamsError: If it is missing, no YAML, has an unknown key or an impossible value.
    """
    return _load(path, Params)


def load_run(path: Path = RUN, params: Path = PARAMS) -> Run:
    """Read params.yaml, and run.yaml with what the stage `resolve` made of it.

    Raises:
        ParamsError: If one of them is missing or was edited into something impossible.
    """
    resolution, given = _load(path, _RunFile), load_params(params)
    return Run(
        **given.overridden(resolution.overrides).model_dump(),
        **{name: getattr(resolution, name) for name in _RunFile.model_fields},
        left_out=given.defaults(),
    )


def load_source(path: Path = RUN) -> Source:
    """Read what run.yaml has of the source.

    Raises:
        ParamsError: If it is missing or was edited into something impossible.
    """
    return _load(path, _RunFile).source


def resolve(params: Params, source: Source, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Run:
    """Turn rules such as "the last 365 days" into moments.

    Args:
        params: The rules.
        source: The source as it is.
        overrides: Values that replace those of `params`, by section.

    Raises:
        ParamsError: If the window ends before the source's newest row by more than it is long, and so must be empty, asks for days
            where rows have no time, or begins before the year 1.
    """
    left_out, changed = params.defaults(), {name: dict(keys) for name, keys in (overrides or {}).items()}
    params = params.overridden(changed)

    def run(resolved: Resolved) -> Run:
        return Run(**params.model_dump(), source=source, resolved=resolved, overrides=changed, left_out=left_out)

    if source.newest is None:
        if params.split.test_share is None:
            raise ParamsError(
                f"{PARAMS}: the contract has no column with the role time, so there are no days to split by. "
                "Give split.test_share, e.g. 0.2, in place of split.test_days."
            )
        return run(Resolved(start=None, test_start=None, end=None))
    newest = source.newest.astimezone(dt.UTC)
    if params.window.until == "newest":
        latest = dt.datetime.max.replace(tzinfo=dt.UTC)  # a row of 9999-12-31 23:59:59 has no second after it
        last_second = newest >= latest.replace(microsecond=0)
        end = latest if last_second else newest.replace(microsecond=0) + dt.timedelta(seconds=1)
    else:
        end = dt.datetime.combine(params.window.until, dt.time(), dt.UTC)
    midnight = (end - dt.timedelta(seconds=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    drawn = params.split.test_share is not None
    days = params.window.days

    def back(key: str, count: int) -> dt.datetime:
        try:
            return midnight - dt.timedelta(days=count - 1)
        except OverflowError as error:
            raise ParamsError(
                f"{PARAMS}: {key} is {count}: so many days before {midnight:%Y-%m-%d} there was no year 1. Give fewer days."
            ) from error

    resolved = Resolved(
        start=None if days is None else back("window.days", days),
        test_start=None if drawn else back("split.test_days", params.split.test_days or 0),
        end=end,
    )
    if resolved.start and resolved.start > newest:
        raise ParamsError(f"{PARAMS}: window.until leaves no rows: the newest at the source is of {newest:%Y-%m-%d}.")
    return run(resolved)


def save_run(run: Run, path: Path = RUN) -> None:
    """Write run.yaml, unless it already says the same: DVC and git look at its text."""
    content = {
        **run.model_dump(mode="json", include={"source", "resolved", "contract", "forgotten", "code"}),
        "overrides": run.overrides,
        "defaults": run.left_out,
    }
    text = "# Written by the stage `resolve` from params.yaml and the source. Edit params.yaml.\n" + yaml.safe_dump(
        content, sort_keys=False
    )
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _load(path: Path, model: type[Model]) -> Model:
    if not path.exists():
        wanted = "`make pipeline` writes it" if path == RUN else "restore it with `git checkout params.yaml`"
        raise ParamsError(f"{path} is missing; {wanted}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ParamsError(f"{path} is no YAML: {error}. Compare it with `git diff {path}`.") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path} should be a list of `key: value` lines, not {type(content).__name__}.")
    if model is Params:
        _refuse_dates(content, path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [_explain(dict(problem), content, model) for problem in error.errors()]
        raise ParamsError(f"{path}: " + "; ".join(problems) + ".") from error


def _refuse_dates(content: Mapping[str, Any], path: Path, prefix: str = "") -> None:
    """DVC reads params.yaml as well, and ends at YAML's own kind of date with a message that nobody understands."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            _refuse_dates(value, path, f"{prefix}{key}.")
        elif isinstance(value, dt.date):
            raise ParamsError(f'{path}: put the date of {prefix}{key} into quotes: "{value:%Y-%m-%d}".')


def _explain(problem: dict[str, Any], content: dict[str, Any], model: type[BaseModel]) -> str:
    """One finding of pydantic in the words of the file."""
    place = [str(part) for part in problem["loc"]]
    where = ".".join(part for part in place if part not in ("date", "literal['newest']"))
    if problem["type"] == "extra_forbidden":
        known = list(model.model_fields)
        for part in place[:-1]:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                known = list(model.model_fields)
        close = difflib.get_close_matches(place[-1], known, n=1)
        return f"{where} is not known" + (f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}")
    if problem["type"] == "missing":
        return f"{where} is missing"
    if not where:
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"{where} is {problem['input']!r}: {str(problem['msg']).removeprefix('Value error, ')}"
