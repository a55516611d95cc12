"""Variables of `.env` and `deploy/*.env` are what Docker Compose takes them for."""

from pathlib import Path

import pytest

from copier_mlops import _env_file
from copier_mlops._env_file import EnvFileError, assignment, read
from copier_mlops.deploy import host
from copier_mlops.settings import Settings

LINES = {
    "A=text": "text",
    "A = some text ": "some text",
    "export A=text": "text",
    "A=": "",
    "A= # a comment": "",
    "A=text # a comment": "text",
    "A=text#not-a-comment": "text#not-a-comment",
    "A=it's": "it's",
    "A='text # as written ${HOME} \\n'": "text # as written ${HOME} \\n",
    "A='it\\'s' # a comment": "it's",
    'A="two\\nlines \\"quoted\\""': 'two\nlines "quoted"',
    "A='two\nlines'": "two\nlines",
    "B=b\nA=${B}/${C:-c}/${D}": "b/c/",
    'B=b\nA="${B} and \\${B}"': "b and ${B}",
    "A=10 50 100": "10 50 100",
    "A=a$b": "a$b",
}


@pytest.mark.parametrize(("text", "value"), LINES.items(), ids=LINES)
def test_each_reader_gives_the_same_value(tmp_path: Path, text: str, value: str) -> None:
    file = tmp_path / "dev.env"
    file.write_text(f"# A=0\n\nno variable\n{text}\nZ=last\n")
    assert read(file)["A"] == host.variables(file)["A"] == value
    assert read(file)["Z"] == "last" and "no variable" not in read(file)


def test_settings_and_deploy_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACTOR")
    monkeypatch.delenv("MASK_KEY")
    Path(".env").write_text('actor=\'Ada Lovelace\' # who\nMASK_KEY="a\\"b"\nRETRIES=\n')
    assert Settings().actor == "Ada Lovelace" == host.settings()["actor"]
    assert Settings().mask_key.get_secret_value() == 'a"b' == host.settings()["MASK_KEY"]
    assert Settings().retries == 2


@pytest.mark.parametrize("line", ["A='text", 'A="text', "A='text' more"])
def test_a_quote_that_does_not_end_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"B=1\n{line}\n")
    with pytest.raises(EnvFileError, match=r"line 2 of .*\.env cannot be read: the quoted value of A does not end"):
        read(tmp_path / ".env")


VALUES = [
    "plain",
    "",
    "some text",
    "it's",
    "a # b",
    "a\\",
    "it\\'s ${HOME}\\",
    'say "x"',
    "$HOME",
    "two\nlines",
    "a\\'b",
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_written_is_read(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"{assignment('A', value)}\nZ=last\n")
    assert read(tmp_path / ".env") == {"A": value, "Z": "last"}


def test_a_file_that_is_missing_has_no_variables(tmp_path: Path) -> None:
    assert read(tmp_path / ".env") == {}
    _env_file.set_value(tmp_path / ".env", "A", "x y")
    assert read(tmp_path / ".env") == {"A": "x y"}
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
