"""The ground floor: the names that files of yours import, and that stay when everything behind them moves."""

from typing import TYPE_CHECKING, Any

from . import ProjectError
from .core.contract import Column, Contract, read_contract

if TYPE_CHECKING:
    from .io.readers import SourceError, Table

__all__ = ["Column", "Contract", "ProjectError", "SourceError", "Table", "read_contract"]


def __getattr__(name: str) -> Any:
    """What reads tables comes when it is asked for: a service has a contract and no pyarrow."""
    if name not in ("SourceError", "Table"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from .io import readers

    return getattr(readers, name)
