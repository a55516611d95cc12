"""What answers is trusted as the environment asks for it."""

from pathlib import Path

import pytest

from copier_mlops import ProjectError
from copier_mlops.bundle import signing
from copier_mlops.serving.bundle_loader import answering
from copier_mlops.serving.make_bundle import export
from copier_mlops.settings import Settings


def test_in_development_an_unsigned_bundle_answers_and_says_so(
    registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(Settings(), None, Path("dist/bundle"))
    assert answering(Settings()).version == 1
    assert "development alone" in capsys.readouterr().err


def test_elsewhere_a_signature_is_demanded(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = signing.new_pair()
    export(Settings(), None, Path("dist/bundle"))
    with pytest.raises(ProjectError, match="VERIFY_KEY does not say"):
        answering(Settings(service_environment="prod"))
    with pytest.raises(ProjectError, match="is not signed"):
        answering(Settings(service_environment="prod", verify_key=public))
    export(Settings(signing_key=private), None, Path("dist/bundle"))
    capsys.readouterr()
    assert answering(Settings(service_environment="prod", verify_key=public)).version == 1
    assert capsys.readouterr().err == ""
