"""An error is printed once, and its code returned."""

import pytest

from copier_mlops._errors import print_error


def test_an_error_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_error(ValueError("no disk")) == 1 and print_error("later", 75) == 75
    assert capsys.readouterr().err == "error: no disk\nerror: later\n"
