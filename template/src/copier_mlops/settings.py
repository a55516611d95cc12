"""Where things are, outside and inside: the only reader of the environment and of `.env`. What to learn: params.yaml."""

import contextlib
import getpass
import os
import shutil
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from copier_mlops import ProjectError, _env_file, _exit_codes
from copier_mlops._environment import for_child, without_file_only
from copier_mlops._errors import print_error

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Telemetry of the tools is off; the same names in `.env` with another value switch it on."""

MANNERS = {
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),  # two folds are fitted at a time
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nine processes beside the page, for jobs that nothing here asks for
    "MLFLOW_UV_AUTO_DETECT": "false",  # the environment of a model has its requirements, and not this project's lock
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the flow retries a whole step; the default keeps a person waiting for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # the default gives up on a busy machine
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command itself says what happens; the run's page has it all
}
"""How the tools behave in a terminal; `.env` may say otherwise."""


ENV_FILE = ".env"

EMPTY_IS_UNSET = ("AWS_", "MLFLOW_", "PG", "PREFECT_")
"""A runner gives an empty text for what nobody configured."""


def stage_shell() -> str:
    """Return the shell in which DVC runs the stages.

    DVC takes the login shell of the account. That of a service or a cron job may be `nologin`, that of a person csh or fish.
    """
    return shutil.which("bash") or "/bin/sh"


def site_cache(project: Path) -> str:
    """Return the folder of DVC's index of a project, and make it if the project has DVC.

    The index has pickles. DVC's default folder is /var/tmp/dvc, and DVC makes a missing folder writable for every user.
    """
    folder = (project / ".dvc/tmp/site").absolute()
    if (project / ".dvc").is_dir():
        with contextlib.suppress(OSError):  # DVC reports why it cannot write there
            (folder / "repo").mkdir(parents=True, exist_ok=True)
    return str(folder)


def shows_progress() -> bool:
    """Return whether progress bars are shown: on a terminal, and not in CI."""
    return sys.stderr.isatty() and not os.environ.get("CI")


class SettingsError(ProjectError):
    """A setting has an invalid value; the text has its name, its value and what is valid."""

    exit_code = _exit_codes.USAGE


def _reason(kind: type[BaseSettings], fault: "ErrorDetails") -> str:
    """Return why a setting is not valid, without its value if the setting is a secret."""
    name = str(fault["loc"][0])
    field = kind.model_fields.get(name)
    value = "" if field is None or field.annotation is SecretStr else f" is {str(fault['input'])[:80]!r}"
    return f"{name.upper()}{value}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


class _EnvFile(PydanticBaseSettingsSource):
    """Values of `.env`, by the names of fields; an empty one is not set."""

    def get_field_value(self, field: "FieldInfo", field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: all fields come at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values."""
        values = {name.lower(): value for name, value in _env_file.read(Path(ENV_FILE)).items()}
        return {name: values[name] for name in self.settings_cls.model_fields if values.get(name)}


class Settings(BaseSettings):
    """One value per outside thing, read once."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    source_uri: str = ""
    mask_key: SecretStr = SecretStr("")
    data_remote: str = ""
    data_remote_endpoint: str = ""
    mlflow_tracking_uri: str = "sqlite:///mlflow.db"
    prefect_api_url: str = ""
    notify_urls: SecretStr = SecretStr("")
    retries: int = Field(default=2, ge=0)
    retry_delay_seconds: float = Field(default=5, ge=0)
    timeout_minutes: float = Field(default=120, gt=0)
    push_data: bool = True
    actor: str = ""
    github_step_summary: str = ""
    run_resolved: bool = False

    service_environment: Literal["dev", "staging", "prod"] = "dev"
    bundle_dir: Path = Path("dist/bundle")
    shadow_dir: Path | None = None
    signing_key: SecretStr = SecretStr("")
    verify_key: str = ""
    api_keys: SecretStr = SecretStr("")
    oidc_issuer: str = ""
    oidc_audience: str = ""
    service_host: str = "127.0.0.1"
    allow_anonymous: bool = False
    service_port: int = Field(default=8000, ge=0, le=65535)
    max_body_bytes: int = Field(default=1 << 20, ge=1)
    max_rows: int = Field(default=1000, ge=1)
    max_waiting_rows: int = Field(default=4000, ge=1)
    answer_seconds: float = Field(default=5, gt=0)
    header_timeout_seconds: float = Field(default=10, gt=0)
    accept_asked_at: bool = False
    prediction_log: Path = Path("predictions")
    log_flush_seconds: float = Field(default=1, gt=0, le=3600)
    log_keep_days: int = Field(default=90, ge=1)
    log_batch_rows: int = Field(default=10_000, ge=0)
    labels_uri: str = "labels"
    scheduler_address: str = ""
    stream_url: SecretStr = SecretStr("")
    stream_in: str = "rows"
    stream_out: str = "answers"
    stream_aside: str = "set-aside"
    stream_redeliver_seconds: float = Field(default=30, gt=0)
    precomputed: Path = Path("dist/precomputed.db")
    precomputed_hours: float = Field(default=24, gt=0)

    def __init__(self, **values: Any) -> None:
        """Raises: EnvFileError: If .env cannot be read. SettingsError: If a setting has an invalid value."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            invalid = "; ".join(_reason(type(self), fault) for fault in error.errors())
            raise SettingsError(f"the settings in .env or the environment cannot be used: {invalid}.") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the strongest first: `.env` is read as deploy and Docker Compose read it."""
        return init_settings, env_settings, _EnvFile(settings_cls), file_secret_settings

    @classmethod
    def of_command(cls) -> Self:
        """Return the settings; if they cannot be used, print the reason and end the process with exit code 2."""
        try:
            return cls()
        except ProjectError as error:
            raise SystemExit(print_error(error, 2)) from error

    @cached_property
    def who(self) -> str:
        """Who acts, for the record of promotions: ACTOR, or the account's name."""
        if self.actor:
            return self.actor
        try:
            return getpass.getuser()
        except (OSError, KeyError):
            return "unknown"

    def not_shared(self, remote: str) -> list[str]:
        """What a runner would lose: the stores that only this machine sees, in words; `remote` is that of the data."""
        missing = []
        if "://" not in self.mlflow_tracking_uri or self.mlflow_tracking_uri.startswith(("sqlite:", "file:")):
            missing.append("MLFLOW_TRACKING_URI names no server")
        if "://" not in remote:
            missing.append("DATA_REMOTE names no store that others see, such as s3://bucket/path")
        return missing

    def environment(self) -> dict[str, str]:
        """Return the environment for the tools that this project starts: the caller's over `.env`, telemetry off.

        Variables that lead git, uv or Python away from this project are left out. A Prefect server, its database and
        MLflow's workspace are those of `.env`: a shell may have those of another project.
        """
        here = {
            "PREFECT_HOME": str(Path(".prefect").absolute()),
            "MLFLOW_TRACKING_URI": self.mlflow_tracking_uri,
        }
        file = {key: value for key, value in _env_file.read(Path(ENV_FILE)).items() if value}
        chosen = {"SOURCE_URI": self.source_uri} if self.source_uri else {}
        caller = without_file_only(os.environ)
        own = {"DVC_SITE_CACHE_DIR": site_cache(Path()), "SHELL": stage_shell()}
        return for_child({**QUIET, **MANNERS, **here, **file, **caller, **chosen, **own})

    @staticmethod
    def column_styles() -> dict[str, str]:
        """Return what the variables STYLE_<column> say, by column."""
        found = {name.removeprefix("STYLE_"): value for name, value in os.environ.items() if name.startswith("STYLE_")}
        return {name: value for name, value in found.items() if value}

    def keep(self, name: str, value: str) -> bool:
        """Write a setting into `.env`, which only its owner may read: whole, or not at all.

        Returns:
            Whether it holds; False if the environment says something else, which wins over the file.
        """
        file = Path(ENV_FILE)
        before = _env_file.read(file).get(name) or str(Settings.model_fields[name.lower()].default)
        _env_file.set_value(file, name, value)
        return bool(getattr(self, name.lower()) == before)

    def apply(self) -> None:
        """Give this process that environment, before it imports a tool that reads it."""
        wanted = self.environment()
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)
        for name in [name for name, value in os.environ.items() if not value and name.startswith(EMPTY_IS_UNSET)]:
            del os.environ[name]  # an empty address is no address, but the tools take it for one

    def alone(self) -> None:
        """Give this process the environment of a service: one thread computes, since there are as many processes as it takes."""
        os.environ.update({"OMP_NUM_THREADS": "1", **QUIET, **os.environ})


class Paths:
    """Where things are inside the project, relative to its folder; the outputs as dvc.yaml names them."""

    RAW = Path("data/raw")
    VALIDATED = Path("data/validated")
    SET_ASIDE = Path("data/set_aside")
    FEATURES = Path("data/features")
    SCORED = Path("data/scored/test.parquet")
    BUNDLE = Path("models/bundle")
    VALIDATION = Path("reports/validation.json")
    TRIALS = Path("reports/trials.json")
    METRICS = Path("reports/metrics.json")
    FACTS = Path("reports/facts.json")
    PLOTS = Path("reports/plots")
    CURVES = Path("reports/curves")
    PAGE = Path("reports/report.html")
    CARD = Path("reports/model_card.md")
    STUDIES = Path(".cache/search.db")
    TIMES = Path(".cache/training.json")
    DONE = Path(".cache/done.json")
    LOCK = Path("dvc.lock")
    ENVIRONMENT = Path("uv.lock")
    POINTER = Path("champion.json")
    ADOPTION = Path("adoption.json")
    FORGOTTEN = Path("forgotten.txt")
    REVIEW = Path("reports/review.md")
    LOOK = Path("reports/monitor/monitor.json")
    LOOK_PAGE = Path("reports/monitor/report.html")
    LOOKS = Path("reports/monitor/history.jsonl")
