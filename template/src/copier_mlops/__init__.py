"""A table in, a champion model out: data versions, tracked and gated training, serving, monitoring, delivery.

This is the runtime of projects that copier-mlops generates, the same in each project of a release. The project's own code is in
`schema.py`, `source.py`, `features.py` and `model.py` of its package; `copier_mlops.project` finds it.

The names below are what files of a project import. They are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from copier_mlops import _exit_codes

if TYPE_CHECKING:
    from copier_mlops.contract.contract import Column, Contract, read_contract
    from copier_mlops.data.readers import SourceError, Table
    from copier_mlops.lifecycle.notebook import load_champion, load_features, load_rows, predict

__version__ = "2.0.0"

__all__ = [
    "Column",
    "Contract",
    "InProgressError",
    "ProjectError",
    "SourceError",
    "Table",
    "UnreachableError",
    "load_champion",
    "load_features",
    "load_rows",
    "predict",
    "read_contract",
]

_MODULES = {
    **dict.fromkeys(("Column", "Contract", "read_contract"), "contract.contract"),
    **dict.fromkeys(("SourceError", "Table"), "data.readers"),
    **dict.fromkeys(("load_champion", "load_features", "load_rows", "predict"), "lifecycle.notebook"),
}


class ProjectError(Exception):
    """An error that the reader can fix. Its text has the failure, the place and the fix; no traceback is shown.

    Attributes:
        exit_code: exit code of a command that ends with this error.
    """

    exit_code = _exit_codes.ERROR


class UnreachableError(ProjectError):
    """A server did not respond; the same may work a little later."""


class InProgressError(ProjectError):
    """Another run or deployment of the same kind is in progress; the same works when it has ended."""

    exit_code = _exit_codes.TRY_LATER


def __getattr__(name: str) -> Any:
    """Load a name on first use: a service has a contract and no pyarrow."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
