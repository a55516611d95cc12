"""Formulas, against what others compute."""

import numpy as np
import pytest

from copier_mlops.monitoring.drift_statistics import adjusted, psi


def test_formulas() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.5])
    assert adjusted(p) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])  # as in R: p.adjust(p, "BH")
    assert adjusted(np.empty(0)).shape == (0,)
    then, now = np.array([500.0, 500]), np.array([600.0, 400])
    assert psi(then, now) == pytest.approx(0.1 * np.log(0.6 / 0.5) - 0.1 * np.log(0.4 / 0.5), rel=0.01)
