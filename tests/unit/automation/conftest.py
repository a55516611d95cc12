"""Actions send notices and start flows, as training does."""

from ..lifecycle.conftest import Heard, heard

__all__ = ["Heard", "heard"]
