"""A table in, a champion model out. Start reading at `core/`, then `stages/`."""

NAME = __name__.replace("_", "-")
"""Of the distribution, the registered model and the work pool."""


class ProjectError(Exception):
    """Something that the reader can mend. Its text says what is wrong, where, and what to do; no trace is shown."""


class UnreachableError(ProjectError):
    """Something outside did not answer; the same may work a little later."""
