"""The ground floor: the names that files of yours import, and that stay when everything behind them moves."""

from . import ProjectError
from .core.contract import Column, Contract, read_contract
from .io.readers import SourceError, Table

__all__ = ["Column", "Contract", "ProjectError", "SourceError", "Table", "read_contract"]
