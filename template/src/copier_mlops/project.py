"""The user's code: found by the package that pyproject.toml names, imported when it is first asked for.

The runtime is the same in each project, so it imports nothing of a project by name. `[tool.copier-mlops] package` in the
pyproject.toml of the working folder, or of the nearest folder above it, names the package. Its modules keep these protocols.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from copier_mlops import ProjectError

if TYPE_CHECKING:
    import pandas as pd

    from copier_mlops.contract.contract import Contract

PYPROJECT = Path("pyproject.toml")
MODULES = ("schema", "source", "features", "model")
"""The modules of the project that the runtime imports."""


class Schema(Protocol):
    """schema.py: the data contract."""

    CONTRACT: Contract


class Source(Protocol):
    """source.py: where raw rows come from."""

    def fingerprint(self, location: str) -> str:
        """Return a text that changes when rows do."""

    def extent(self, location: str) -> tuple[int, pd.Timestamp | None]:
        """Return the number of rows, and the time of the newest row or None."""

    def read(
        self, location: str, start: pd.Timestamp | None, end: pd.Timestamp | None, columns: list[str]
    ) -> Iterator[pd.DataFrame]:
        """Yield the `columns` of the rows with `start <= time < end`, a chunk at a time."""


class Features(Protocol):
    """features.py: from rows to the inputs of the model."""

    def build_features(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return a row of inputs for each row, with its index."""


class Model(Protocol):
    """model.py: the estimator, and what may be tried of it."""

    __file__: str
    FIRST_GUESS: Mapping[str, Any]

    def search_space(self, trial: Any) -> dict[str, Any]:
        """Suggest one set of hyperparameters to an Optuna trial."""

    def build_model(self, problem: str, params: Mapping[str, Any], seed: int) -> Any:
        """Return an estimator that is not fitted."""


def root(start: Path | None = None) -> Path | None:
    """Return the nearest folder from `start` upwards whose pyproject.toml names a package; None without one.

    Args:
        start: The working folder by default.
    """
    here = (start or Path()).absolute()
    for folder in (here, *here.parents):
        if (folder / PYPROJECT).is_file() and _named(folder / PYPROJECT):
            return folder
    return None


def package(start: Path | None = None) -> str:
    """Return the name of the project's package.

    Args:
        start: A folder of the project; the working folder by default.

    Raises:
        ProjectError: If no pyproject.toml here or above names it.
    """
    folder = root(start)
    if folder is None:
        raise ProjectError(
            f"{(start or Path()).absolute()} is not the folder of a project: neither here nor above is a {PYPROJECT} with "
            '[tool.copier-mlops] package = "...". Change to the folder of the project and run this again.'
        )
    return _named(folder / PYPROJECT)


def name() -> str:
    """Return the name of the distribution, the registered model and the work pool."""
    return package().replace("_", "-")


def title() -> str:
    """Return the name as a heading has it."""
    return package().replace("_", " ").capitalize()


def folder() -> Path:
    """Return the folder of the project's package, where its modules are."""
    package_name = package()
    return cast(Path, root()) / "src" / package_name


def module(name: str) -> ModuleType:
    """Import a module of the project's package.

    Raises:
        ProjectError: If the module is not there.
    """
    package_name = package()
    full = f"{package_name}.{name}"
    try:
        return import_module(full)
    except ModuleNotFoundError as error:
        if error.name == package_name:
            raise ProjectError(
                f"the package {package_name} is not installed in this environment. Run `make setup`."
            ) from error
        if error.name == full:
            raise ProjectError(
                f"src/{package_name}/{name}.py is missing. Restore it with `git checkout src/{package_name}/{name}.py`; "
                "`copier update` writes a new one."
            ) from error
        raise


def contract() -> Contract:
    """Return the data contract of schema.py."""
    return cast(Schema, module("schema")).CONTRACT


def source() -> Source:
    """Return source.py."""
    return cast(Source, module("source"))


def build_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what `build_features` of features.py returns: a row of inputs for each row, with its index."""
    return cast(Features, module("features")).build_features(rows)


def model() -> Model:
    """Return model.py."""
    return cast(Model, module("model"))


def dependencies() -> list[str]:
    """Return what pyproject.toml lists as the project's own dependencies."""
    folder = root()
    if folder is None:
        return []
    content = tomllib.loads((folder / PYPROJECT).read_text(encoding="utf-8"))
    return [str(one) for one in content.get("project", {}).get("dependencies", [])]


def _named(file: Path) -> str:
    """Return the package that a pyproject.toml names; an empty text without one."""
    return _read(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(file: Path, changed: int) -> str:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file} is not valid TOML: {error}. Compare it with `git diff {PYPROJECT}`.") from error
    tool = content.get("tool", {})
    return str(tool.get("copier-mlops", {}).get("package", "")) if isinstance(tool, dict) else ""
