"""The environment of child processes holds nothing that leads git, uv or Python away from this project."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from copier_mlops import _environment, _environment_names
from copier_mlops.settings import Settings

from .fixture_project import ROOT

KEPT = {
    "PATH": "/bin",
    "AWS_ACCESS_KEY_ID": "mine",
    "GIT_COMMIT": "what Jenkins sets",
    "GIT_SSH_COMMAND": "ssh -i key",
    "GIT_AUTHOR_NAME": "Ada",
    "UV_CACHE_DIR": "/cache",
    "UV_INDEX_INTERNAL_PASSWORD": "hunter2",  # pragma: allowlist secret
    "PIP_INDEX_URL": "https://packages.example/simple",
}
HOSTILE = (
    *("COVERAGE_FILE", "COVERAGE_PROCESS_START", "COVERAGE_RCFILE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "TAR_OPTIONS"),
    *("DVC_EXP_NAME", "GIT_CONFIG_KEY_0", "PIP_USER", "UV_FROZEN", "UV_INDEX_STRATEGY", "UV_NO_DEV", "UV_OF_NEXT_YEAR"),
)
FILE_ONLY = (
    "MLFLOW_WORKSPACE",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_HOME",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
)


def test_variables_of_the_caller_do_not_reach_a_child() -> None:
    hostile = dict.fromkeys((*_environment_names.DROPPED, *HOSTILE), "x")
    assert _environment.for_child({**KEPT, **hostile}) == {**KEPT, "PYTHONUTF8": "1"}


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_variables_of_the_caller_do_not_reach_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"include {ROOT}/make/environment.mk\nall:\n\t@env\n")
    (tmp_path / "more.mk").touch()
    caller = {**dict.fromkeys((*HOSTILE, *FILE_ONLY), "x"), "MAKEFILES": "more.mk"}
    caller |= {name: value for name, value in KEPT.items() if name != "PATH"}
    words, env = ["make", "--no-print-directory"], {**os.environ, **caller}
    printed = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert not {*HOSTILE, *FILE_ONLY, "MAKEFILES"} & names
    assert KEPT.keys() <= names


def test_the_servers_of_another_project_come_from_the_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILE_ONLY:
        monkeypatch.setenv(name, "of another project")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    found = Settings().environment()
    assert "of another project" not in found.values()
    assert found["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    (tmp_path / ".env").write_text("".join(f"{name}=ours\n" for name in FILE_ONLY))
    found = Settings().environment()
    assert {found[name] for name in FILE_ONLY} == {"ours"}


def test_what_git_calls_local_is_dropped() -> None:
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True).stdout
    assert set(listed.split()) <= _environment_names.DROPPED


def test_git_clones_a_folder_where_the_caller_allows_only_other_protocols(tmp_path: Path) -> None:
    caller = {"GIT_ALLOW_PROTOCOL": "https", "GIT_PROTOCOL_FROM_USER": "0"}
    env = _environment.for_git({**os.environ, **caller})
    for words in (["init", "--quiet", "source"], ["clone", "--quiet", "--local", "source", "copy"]):
        subprocess.run(["git", *words], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "copy/.git").is_dir()


def test_make_drops_the_same_variables() -> None:
    text = (ROOT / "make/environment.mk").read_text().replace("\\\n", " ")
    dropped = {name for line in re.findall(r"^unexport ([A-Z_ ]+)$", text, re.M) for name in line.split()}
    assert dropped == _environment_names.DROPPED
    for name in ("DROPPED_PATTERNS", "FILE_ONLY", "UV_KEPT", "PIP_KEPT"):
        listed = re.search(rf"^{name} := (.*)$", text, re.M)
        assert listed is not None
        assert listed[1].replace("%", "*").split() == list(getattr(_environment, name))
    assert f"LOOPBACK := {_environment_names.LOOPBACK}\n" in text


def test_only_the_source_of_this_project_stays_in_the_python_path(tmp_path: Path) -> None:
    own = str(tmp_path / "src")
    given = {"PYTHONPATH": os.pathsep.join(["/opt/ros/python", own, ""])}
    assert _environment.for_child(given, tmp_path)["PYTHONPATH"] == own
    assert "PYTHONPATH" not in _environment.for_child(given, tmp_path / "other")
    assert "PYTHONPATH" not in _environment.for_child({"PYTHONPATH": ""}, tmp_path)


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({"http_proxy": "http://proxy:3128"}, _environment_names.LOOPBACK),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "intranet"}, f"{_environment_names.LOOPBACK},intranet"),
        ({"ALL_PROXY": "socks5://proxy:1080", "no_proxy": "a", "NO_PROXY": "b"}, f"{_environment_names.LOOPBACK},a"),
        ({"http_proxy": "http://proxy:3128", "NO_PROXY": "*"}, "*"),
        (
            {"http_proxy": "http://proxy:3128", "NO_PROXY": f"x,{_environment_names.LOOPBACK}"},
            f"x,{_environment_names.LOOPBACK}",
        ),
        ({"http_proxy": "", "NO_PROXY": "intranet"}, "intranet"),
    ],
)
def test_no_proxy_reaches_this_machine(given: dict[str, str], hosts: str) -> None:
    child = _environment.for_child(given)
    assert child["NO_PROXY"] == hosts
    assert child.get("no_proxy", hosts) == hosts


def test_proxies_that_no_python_library_understands_are_left_out() -> None:
    given = {"all_proxy": "socks://proxy:1080/", "http_proxy": "socks4://proxy:1080", "https_proxy": "proxy:3128"}
    child = _environment.for_child(given)
    assert child["all_proxy"] == "socks5://proxy:1080/"
    assert not child["http_proxy"]
    assert child["https_proxy"] == "proxy:3128"


def test_make_elsewhere_does_not_get_the_flags_of_this_one() -> None:
    assert _environment.for_make({**KEPT, "MAKEFLAGS": "n", "BASE": "HEAD"}) == {**KEPT, "PYTHONUTF8": "1"}


def test_git_gets_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_environment.git_settings, "http.extraheader", "token")
    child = _environment.for_git({"GIT_CONFIG_COUNT": "9", "GIT_CONFIG_KEY_8": "a.b"}, settings={"core.bare": "false"})
    settings = {
        child[f"GIT_CONFIG_KEY_{n}"]: child[f"GIT_CONFIG_VALUE_{n}"] for n in range(int(child["GIT_CONFIG_COUNT"]))
    }
    hooks = {"core.hooksPath": os.devnull}
    assert settings == {**_environment_names.GIT_NEUTRAL, **hooks, "http.extraheader": "token", "core.bare": "false"}
    with_hooks = _environment.for_git({}, hooks=True)
    assert int(with_hooks["GIT_CONFIG_COUNT"]) == int(child["GIT_CONFIG_COUNT"]) - 2
    assert "core.hooksPath" not in with_hooks.values()


def test_settings_clean_this_process_and_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("UV_FROZEN=1\nHTTP_PROXY=http://proxy:3128\n")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    Settings().apply()
    assert not {"GIT_DIR", "PYTHONPATH", "UV_FROZEN"} & os.environ.keys()
    assert os.environ["no_proxy"] == _environment_names.LOOPBACK
