"""The ground floor: the names that files of yours import, and that stay when everything behind them moves."""

from . import ProjectError
from .core.contract import Column, Contract


class SourceError(ProjectError):
    """The source of raw rows cannot be read."""


__all__ = ["Column", "Contract", "ProjectError", "SourceError"]
