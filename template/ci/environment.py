"""The environment of child processes: the caller's, without what leads git, uv, pip or Python away from this project.

The template renders this file twice, here and into the package, because neither can import the other on every machine:
an image has no `ci`, and a host that deploys has no package. The Makefile unexports the same names; a test compares the
lists.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

GIT = (
    # What `git rev-parse --local-env-vars` lists: git sets these for hooks and aliases.
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
    # These change the meaning of a command's arguments or its output, or which addresses git fetches from.
    "GIT_ALLOW_PROTOCOL",
    "GIT_ATTR_NOSYSTEM",
    "GIT_ATTR_SOURCE",
    "GIT_AUTHOR_DATE",
    "GIT_COMMITTER_DATE",
    "GIT_DEFAULT_HASH",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_DIFF_OPTS",
    "GIT_EXTERNAL_DIFF",
    "GIT_GLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_QUARANTINE_PATH",
    "GIT_REFLOG_ACTION",
    "GIT_TEMPLATE_DIR",
)
"""Variables of git that point to another repository, or to other settings."""

PYTHON = (
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONEXECUTABLE",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONIOENCODING",
    "PYTHONOPTIMIZE",
    "PYTHONPLATLIBDIR",
    "PYTHONSAFEPATH",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONWARNINGS",
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "MYPYPATH",
    "PYTEST_ADDOPTS",
    "PYTEST_DEBUG",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
    "PYTEST_PLUGINS",
)
"""Variables that give Python other libraries, another start or another meaning. PYTHONPATH: see `source_path`."""

SHELL = (
    "BASH_ENV",
    "CDPATH",
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "GLOBIGNORE",
    "GREP_OPTIONS",
    "MAKEFILES",
    "POSIXLY_CORRECT",
    "TAR_OPTIONS",
)
"""Variables that change what a shell and its tools do or print."""

DVC = ("DVC_ROOT", "DVC_STAGE")
"""DVC sets these for the commands of a stage."""

MLFLOW = (
    "MLFLOW_ACTIVE_MODEL_ID",
    "MLFLOW_ENABLE_ASYNC_LOGGING",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_TRUNCATE_LONG_VALUES",
)
"""Variables that point MLflow to another project's registry, experiment or run. MLFLOW_TRACKING_URI names the store."""

DROPPED = frozenset((*GIT, *PYTHON, *SHELL, *DVC, *MLFLOW))

DROPPED_PATTERNS = ("COVERAGE_*", "DVC_EXP_*", "GIT_CONFIG_KEY_*", "GIT_CONFIG_VALUE_*")
"""The same for families of variables."""

FILE_ONLY = (
    "MLFLOW_WORKSPACE",
    "PREFECT_API_DATABASE_*",
    "PREFECT_HOME",
    "PREFECT_LOCAL_STORAGE_PATH",
    "PREFECT_MEMO_STORE_PATH",
    "PREFECT_PROFILE*",
    "PREFECT_RESULTS_LOCAL_STORAGE_PATH",
    "PREFECT_SERVER_*",
)
"""Variables that are used only if the project's `.env` sets them: in a shell they mostly belong to another project."""

UV_KEPT = (
    "UV_CACHE_DIR",
    "UV_CONCURRENT_BUILDS",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_INSTALLS",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_*_PASSWORD",
    "UV_INDEX_*_USERNAME",
    "UV_INDEX_URL",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_LINK_MODE",
    "UV_NATIVE_TLS",
    "UV_NO_CACHE",
    "UV_NO_PROGRESS",
    "UV_OFFLINE",
    "UV_PYTHON",
    "UV_PYTHON_INSTALL_DIR",
    "UV_PYTHON_PREFERENCE",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
    "UV_TOOL_BIN_DIR",
    "UV_TOOL_DIR",
)
"""Settings of uv for how packages are fetched. All others, and future ones, may change which packages and where."""

PIP_KEPT = (
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
)
"""The same for pip."""

MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "BASE")
"""What make passes to its commands; make in another folder does not get it."""

LOOPBACK = "127.0.0.1,localhost,::1"
"""Hosts that no proxy reaches: servers of this machine, which MLflow, Prefect and the service start here."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

GIT_NEUTRAL = {
    "clone.defaultRemoteName": "origin",
    "clone.rejectShallow": "false",
    "color.ui": "false",
    "commit.cleanup": "whitespace",
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.fsmonitor": "false",
    "core.quotePath": "false",
    "core.safecrlf": "false",
    "diff.ignoreSubmodules": "none",
    "diff.mnemonicPrefix": "false",
    "diff.noprefix": "false",
    "diff.relative": "false",
    "diff.renames": "true",
    "diff.submodule": "short",
    "fetch.pruneTags": "false",
    "fetch.recurseSubmodules": "false",
    "init.defaultBranch": "main",
    "log.follow": "false",
    "log.showSignature": "false",
    "merge.conflictStyle": "merge",
    "protocol.file.allow": "user",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "safe.bareRepository": "all",
    "status.renames": "true",
    "status.showUntrackedFiles": "normal",
    "submodule.recurse": "false",
    "tag.gpgSign": "false",
    "trailer.separators": ":",
    "user.useConfigOnly": "false",
}
"""Git's defaults for settings that change what a command stores or prints.

Identity, addresses and credentials stay the user's.
"""

git_settings: dict[str, str] = {}
"""More settings for each git that this process starts, such as a header with a token; no other process gets them."""


def for_child(given: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, str]:
    """Return the environment for a child process.

    Args:
        given: the environment to start from; by default this process's own.
        folder: the project that the child works in; by default the current folder.
    """
    given = os.environ if given is None else given
    kept = {name: value for name, value in given.items() if not _dropped(name)}
    path = source_path(kept.pop("PYTHONPATH", ""), folder or Path())
    if path:
        kept["PYTHONPATH"] = path
    kept.setdefault("PYTHONUTF8", "1")
    return kept | _without_proxy(kept) if _proxied(kept) else kept


def for_make(given: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, str]:
    """Return the environment for make in another folder: `for_child`, without what this project's make passed on."""
    return {name: value for name, value in for_child(given, folder).items() if name not in MAKE}


def for_git(
    given: Mapping[str, str] | None = None, hooks: bool = False, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment for git, so that the user's configuration changes neither stored objects nor output.

    Args:
        given: the environment to start from; by default this process's own.
        hooks: whether the user's hooks run, as for a push.
        settings: more settings of git, by name.
    """
    wanted = {**GIT_NEUTRAL, **({} if hooks else {"core.hooksPath": os.devnull}), **git_settings, **(settings or {})}
    numbered = {"GIT_CONFIG_COUNT": str(len(wanted))}
    for number, (name, value) in enumerate(wanted.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    # Messages in English: some become a part of an error's text, which would otherwise mix two languages.
    return {**for_child(given), "LC_ALL": "C.UTF-8", "LANGUAGE": "", "GIT_PAGER": "cat", **numbered}


MODEL_KEPT = frozenset(
    (
        # The user, the terminal and the locale
        "COLUMNS",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LC_ADDRESS",
        "LC_ALL",
        "LC_COLLATE",
        "LC_CTYPE",
        "LC_IDENTIFICATION",
        "LC_MEASUREMENT",
        "LC_MESSAGES",
        "LC_MONETARY",
        "LC_NAME",
        "LC_NUMERIC",
        "LC_PAPER",
        "LC_TELEPHONE",
        "LC_TIME",
        "LOGNAME",
        "NO_COLOR",
        "PATH",
        "PWD",
        "SHELL",
        "TEMP",
        "TERM",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        # Python and its libraries
        "DYLD_FALLBACK_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LD_LIBRARY_PATH",
        "LOKY_MAX_CPU_COUNT",
        "PYTHON_CPU_COUNT",
        "PYTHONFAULTHANDLER",
        "PYTHONHASHSEED",
        "PYTHONMALLOC",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "PYTHONPYCACHEPREFIX",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
        # Threads and devices
        "BLIS_NUM_THREADS",
        "CUBLAS_WORKSPACE_CONFIG",
        "CUDA_DEVICE_ORDER",
        "CUDA_HOME",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_PATH",
        "CUDA_VISIBLE_DEVICES",
        "GOMP_CPU_AFFINITY",
        "GOMP_SPINCOUNT",
        "GOTO_NUM_THREADS",
        "KMP_AFFINITY",
        "KMP_BLOCKTIME",
        "KMP_DUPLICATE_LIB_OK",
        "KMP_INIT_AT_FORK",
        "KMP_SETTINGS",
        "MKL_CBWR",
        "MKL_DEBUG_CPU_TYPE",
        "MKL_DYNAMIC",
        "MKL_ENABLE_INSTRUCTIONS",
        "MKL_INTERFACE_LAYER",
        "MKL_NUM_THREADS",
        "MKL_SERVICE_FORCE_INTEL",
        "MKL_THREADING_LAYER",
        "NUMEXPR_MAX_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_TF32_OVERRIDE",
        "NVIDIA_VISIBLE_DEVICES",
        "OMP_DYNAMIC",
        "OMP_MAX_ACTIVE_LEVELS",
        "OMP_NESTED",
        "OMP_NUM_THREADS",
        "OMP_PLACES",
        "OMP_PROC_BIND",
        "OMP_SCHEDULE",
        "OMP_STACKSIZE",
        "OMP_THREAD_LIMIT",
        "OMP_WAIT_POLICY",
        "OPENBLAS_CORETYPE",
        "OPENBLAS_MAIN_FREE",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        # Windows, where Python does not start without some of them
        "APPDATA",
        "COMSPEC",
        "LOCALAPPDATA",
        "NUMBER_OF_PROCESSORS",
        "PATHEXT",
        "PROGRAMDATA",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "USERPROFILE",
        "WINDIR",
    )
)
"""Variables that a process with a model gets. Exact names: a prefix of a library is that of passwords, too.

MODEL_ENVIRONMENT names others.
"""

PASSWORD = re.compile(r"://[^/\s@]*@")


def for_model(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process that loads a model: no secrets, since a model is code.

    MODEL_ENVIRONMENT names further variables, for a model that reads settings of its own.

    Args:
        given: the environment to start from; by default this process's own.
    """
    kept = for_child(given)
    chosen = kept.get("MODEL_ENVIRONMENT", "").split()
    return {
        name: value
        for name, value in kept.items()
        if name in chosen or (name in MODEL_KEPT and not PASSWORD.search(value))
    }


def restart_for_model(given: Mapping[str, str]) -> None:
    """Replace this process by the same command with that environment, unless it has that environment.

    Deleting the variables here is not enough: the kernel keeps what a process was started with.
    """
    wanted = for_model(given)
    if wanted != dict(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def source_path(python_path: str, folder: Path) -> str:
    """Return the part of a PYTHONPATH that is the project's own source; other entries shadow the installed packages."""
    own = (folder / "src").resolve()
    return next((part for part in python_path.split(os.pathsep) if part and (folder / part).resolve() == own), "")


def without_file_only(given: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's variables without those that only `.env` may set."""
    return {name: value for name, value in given.items() if not _matches(name, FILE_ONLY)}


def _dropped(name: str) -> bool:
    if name.startswith("UV_"):
        return not _matches(name, UV_KEPT)
    if name.startswith("PIP_"):
        return name not in PIP_KEPT
    return name in DROPPED or _matches(name, DROPPED_PATTERNS)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _proxied(given: Mapping[str, str]) -> bool:
    return any(name.lower() in PROXIES and value for name, value in given.items())


def _without_proxy(given: Mapping[str, str]) -> dict[str, str]:
    """Return proxy settings that Python's HTTP clients understand; they exclude the hosts of this machine."""
    changed = {}
    for name, value in given.items():
        if name.lower() in PROXIES and value:
            scheme, separator, rest = value.partition("://")
            if separator and scheme.lower() == "socks":  # as desktops write it
                changed[name] = f"socks5://{rest}"
            elif separator and scheme.lower() not in PROXY_SCHEMES:
                changed[name] = ""
    hosts = given.get("no_proxy") or given.get("NO_PROXY") or ""  # the order of Python's own library
    if hosts.strip() != "*" and LOOPBACK not in hosts:
        hosts = f"{LOOPBACK},{hosts}".rstrip(",")
    return {**changed, "NO_PROXY": hosts, "no_proxy": hosts}
