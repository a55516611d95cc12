"""Find the estimator of the old code and its hyperparameters, and write model.py with them."""

import ast
import itertools
import re
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .reading import Source
from .values import UNKNOWN, Code

MODEL = Path(__file__).with_name("model.py.tmpl")
MODULES = {
    "xgboost": r"^XGB", "lightgbm": r"^LGBM", "catboost": r"^CatBoost",
    "sklearn.ensemble": r"Forest|ExtraTrees|GradientBoosting|AdaBoost",
    "sklearn.linear_model": r"Logistic|Ridge|Lasso|Elastic|LinearR|SGD|Percep|Huber|Poisson|Gamma|Tweedie|ARD|Passive",
    "sklearn.svm": r"SV[CR]$", "sklearn.neighbors": r"Neighbors", "sklearn.tree": r"DecisionTree|ExtraTree[CR]",
    "sklearn.naive_bayes": r"NB$", "sklearn.neural_network": r"MLP", "sklearn.discriminant_analysis": r"Discriminant",
    "sklearn.gaussian_process": r"GaussianProcess[CR]",
}  # fmt: skip
NAME = re.compile(
    r"^(?:[A-Z]\w*(?:Classifier|Regressor|Regression|NB|[a-z]CV|Analysis)|\w*SV[CR]|\w*Ridge|Lasso|\w+Net|Perceptron)$"
)
REGRESSOR = re.compile(r"Regressor|SVR$|Ridge(?:CV)?$|Lasso|ElasticNet|(?:Linear|Poisson|Gamma|Huber)Regress")
SEEDLESS = re.compile(
    r"^(?:LinearRegression|\w+Neighbors\w+|\w+NB|(?:Nu)?SVR|HuberRegressor|BayesianRidge|ARDRegression|RidgeCV"
    r"|\w*Analysis|PoissonRegressor|GammaRegressor|TweedieRegressor)$"
)
NO_PROBABILITY = re.compile(r"^(?:(?:Nu|Linear)?SVC|(?:Ridge|SGD|PassiveAggressive)Classifier|Perceptron)$")
SEARCH = re.compile(r"(?:Grid|Randomized|Halving\w*|Bayes)Search(?:CV)?$")
PLATFORM = frozenset(
    {"random_state", "seed", "random_seed", "n_jobs", "nthread", "num_threads", "thread_count", "verbose", "silent",
     "verbosity", "warm_start", "early_stopping_rounds", "eval_metric", "use_label_encoder", "device", "task_type"}
)  # fmt: skip
"""Arguments that are not hyperparameters: the platform sets the seed, and a fit has no second set of rows."""
RENAMED = {"mse": "squared_error", "mae": "absolute_error", "ls": "squared_error", "lad": "absolute_error",
           "deviance": "log_loss", "log": "log_loss"}  # fmt: skip
REMOVED = re.compile(
    r"max_features=auto|algorithm=SAMME.*|penalty=l2|(?:normalize|probability|presort|min_impurity_split)=.*"
)
"""Values and arguments that scikit-learn renamed, removed, or uses by default."""


@dataclass(frozen=True, eq=False)
class Estimator:
    """A call that creates an estimator, with the values of hyperparameters in the code and in the grid of a search."""

    name: str
    module: str
    source: Source
    line: int
    params: Mapping[str, Any]
    computed: Sequence[str]
    grid: Mapping[str, list[Any]]
    rank: int  # larger if the model is searched or saved, fitted, or has a name

    @property
    def problem(self) -> str:
        """The kind of problem that it solves."""
        return "regression" if REGRESSOR.search(self.name) else "classification"


def find(code: Code) -> list[Estimator]:
    """Return the estimators, the one that the code uses in the end first; of equal ones the last."""
    files = itertools.groupby(code.repository.sources, key=lambda source: source.file)
    nodes = ([(node, source) for source in sources for node in source.nodes] for _, sources in files)
    return sorted([one for each in nodes for one in _of_file(each, code)], key=lambda one: one.rank)[::-1]


def _of_file(nodes: Sequence[tuple[ast.AST, Source]], code: Code) -> list[Estimator]:
    calls = [(node, source, code.name(node.func, source)) for node, source in nodes if isinstance(node, ast.Call)]
    fitted = {id(node.value) for node, _ in nodes if isinstance(node, ast.Attribute) and node.attr == "fit"}
    variables: dict[int, str] = {}  # by node of the value that is assigned
    for node, _ in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            variables |= dict.fromkeys(map(id, ast.walk(node.value)), node.targets[0].id)
    used: list[tuple[set[str | int], dict[str, list[Any]]]] = []  # names and calls in a search or dump, with the grid
    for call, source, name in calls:
        if call.args and re.search(rf"(?:joblib|pickle|cloudpickle|dill)\.dump$|{SEARCH.pattern}", name):
            names = {inner.id if isinstance(inner, ast.Name) else id(inner) for inner in ast.walk(call.args[0])}
            used.append((names, _grid(call, code, source) if SEARCH.search(name) else {}))
    estimators = []
    for call, source, qualified in calls:
        *modules, name = qualified.split(".")
        module = next((module for module, pattern in MODULES.items() if re.search(pattern, name)), "")
        if module and NAME.search(name) and (not modules or modules[0] == module.split(".")[0]):
            own = [grid for names, grid in used if id(call) in names or variables.get(id(call)) in names]
            grid = {key: values for each in own for key, values in each.items()}
            rank = 2 * bool(own) + (id(call) in variables or id(call) in fitted)
            params, computed = _params(call, code, source)
            estimators.append(Estimator(name, module, source, call.lineno, params, computed, grid, rank))
    return estimators


def _params(call: ast.Call, code: Code, source: Source) -> tuple[dict[str, Any], list[str]]:
    params: dict[str, Any] = {}
    for keyword in call.keywords:
        value = code.value(keyword.value, source)
        params |= {keyword.arg: value} if keyword.arg else value if isinstance(value, dict) else {"**": UNKNOWN}
    names = [str(name) for name in params if name not in PLATFORM and (name == "**" or str(name).isidentifier())]
    known = {name: params[name] for name in names if _is_plain(params[name])}
    return known, [name for name in names if name not in known]


def _is_plain(value: Any) -> bool:
    """Return whether a value can be a hyperparameter: a finite number, a word, true, false or None; not a path."""
    if isinstance(value, int | float):
        return abs(value) < 10**15
    return value is None or (isinstance(value, str) and bool(re.fullmatch(r"[\w.+-]{1,30}", value)))


def _grid(call: ast.Call, code: Code, source: Source) -> dict[str, list[Any]]:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    names = [name for name in ("param_grid", "param_distributions", "search_spaces") if name in given]
    value = code.value(given[names[0]] if names else call.args[1] if len(call.args) > 1 else None, source)
    grid: dict[str, list[Any]] = {}
    for part in value if isinstance(value, list) else [value]:
        for key, values in part.items() if isinstance(part, dict) else ():
            name = str(key).rsplit("__", 1)[-1]
            is_grid = isinstance(values, list) and all(map(_is_plain, values))
            if is_grid and name.isidentifier() and name not in PLATFORM:
                grid[name] = [*grid.get(name, []), *(value for value in values if value not in grid.get(name, []))]
    return grid


def model_text(estimator: Estimator) -> str:
    """Return model.py with the estimator. Every hyperparameter and every tried value is from the old code."""
    name = estimator.name
    params = {key: values[0] for key, value in estimator.params.items() if (values := _current(key, [value]))}
    tried: dict[str, list[Any]] = {"family": [name]}
    for key, values in estimator.grid.items():
        choices = _current(key, [*([params.pop(key)] if key in params else []), *values])
        tried |= {key: choices} if choices else {}
    fixed = [f"{key}={value!r}" for key, value in params.items()]
    fixed += [] if SEEDLESS.search(name) else ["random_state=seed"]
    created, imports = f"{name}({', '.join(['**given', *fixed])})", f"from {estimator.module} import {name}"
    if NO_PROBABILITY.search(name):
        created = f"CalibratedClassifierCV({created}, ensemble=False)"
        imports += "\nfrom sklearn.calibration import CalibratedClassifierCV"
    guess = ", ".join(f"{key!r}: {values[0]!r}" for key, values in tried.items())
    space = ", ".join(f"{key!r}: trial.suggest_categorical({key!r}, {values!r})" for key, values in tried.items())
    template = string.Template(MODEL.read_text(encoding="utf-8"))
    text = template.substitute(guess=guess, space=space, imports=imports, created=created)
    for words in (["check", "--select", "I", "--fix"], ["format"]):  # `make check` of a project reads code in Markdown
        ruff = [str(Path(sys.executable).with_name("ruff")), *words, "--quiet", "--isolated", "--line-length=120", "-"]
        try:
            text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return text
    return text


def _current(key: str, values: Sequence[Any]) -> list[Any]:
    """Return values by their current names in scikit-learn, without the removed ones and each of them once."""
    kept = [value for value in values if not REMOVED.fullmatch(f"{key}={value}")]
    names = [RENAMED.get(value, value) if key in ("criterion", "loss") else value for value in kept]
    return [value for place, value in enumerate(names) if value not in names[:place]]
