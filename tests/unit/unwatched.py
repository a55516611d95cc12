"""Before Python 3.14 coverage is told of each line that runs, of libraries too, which takes about as long as their work does.

Here it looks away while a library works that calls nothing of this project. What is counted stays the same.
"""

import contextlib
import functools
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

IMPORTS = ("matplotlib.figure", "mlflow.pyfunc", "optuna", "pandas", "prefect.server.api.server", "sklearn.ensemble")
CALLS = {
    "matplotlib.figure.Figure": ("savefig", "subplots"),
    "mlflow.tracking.MlflowClient": (),
    "optuna.storages.RDBStorage": (),
    "shutil": ("copytree",),
    "sklearn.ensemble.HistGradientBoostingClassifier": ("fit", "predict", "predict_proba"),
    "sklearn.ensemble.HistGradientBoostingRegressor": ("fit", "predict"),
    "sklearn.preprocessing.OrdinalEncoder": ("fit", "transform"),
    "sklearn.tree.DecisionTreeClassifier": ("fit", "predict_proba"),
    "sklearn.tree.DecisionTreeRegressor": ("fit", "predict"),
    "yaml": ("safe_dump", "safe_load"),
}
"""By class or module the names of functions; none means all that are public."""


def libraries() -> None:
    """Look away while they are imported and while they do what takes long, if this thread is watched at all."""
    if not _watched():
        return
    with nothing():
        for name in IMPORTS:
            importlib.import_module(name)
    for path, names in CALLS.items():
        owner = pkgutil.resolve_name(path)
        public = [name for name, value in vars(owner).items() if isinstance(value, FunctionType) and name[0] != "_"]
        for name in names or ("__init__", *public):
            setattr(owner, name, _unwatched(getattr(owner, name)))


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """Neither this thread nor one that is begun meanwhile is watched."""
    tracer, theirs = sys.gettrace(), threading.gettrace()
    watched = _watched()
    if watched:
        tracer.stop()  # type: ignore[union-attr]
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(theirs)  # type: ignore[arg-type]
        if watched:
            tracer.start()  # type: ignore[union-attr]


def _watched() -> bool:
    return all(hasattr(sys.gettrace(), name) for name in ("start", "stop"))


def _unwatched(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        tracer: Any = sys.gettrace()
        if not _watched():
            return function(*arguments, **named)
        tracer.stop()
        try:
            return function(*arguments, **named)
        finally:
            tracer.start()

    return call
