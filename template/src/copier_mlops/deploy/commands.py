"""Commands of deployment: images, blue-green releases on this host and over SSH, and moves of champion and release together."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from copier_mlops import ProjectError, _exit_codes, _interruption
from copier_mlops._command_line import (
    CI,
    DECIDE,
    DEPLOY,
    AsJson,
    Reason,
    Version,
    applied_settings,
    commands,
    fail,
    pass_on,
    print_json,
    uv,
)
from copier_mlops._errors import print_error

if TYPE_CHECKING:
    from copier_mlops.deploy.blue_green import Host

app = commands()

BY_HAND = "by hand"

# Options that the Makefile and workflows give as variables. Code that also runs on a bare host reads them from the environment.
Environment = Annotated[str, typer.Option("--env", envvar="ENV", help="Environment: dev, staging or prod.")]
NumberText = Annotated[
    str, typer.Option("--version", envvar="VERSION", help="Number of a registered version; by default the champion.")
]
Image = Annotated[str, typer.Option(envvar="IMAGE", help="Image by digest, in place of a version: NAME@sha256:...")]
ReasonText = Annotated[str, typer.Option("--reason", envvar="WHY", help="Reason for the audit log.")]
Engine = Annotated[str, typer.Option(envvar="ENGINE", help="containers or process.")]
Steps = Annotated[str, typer.Option(envvar="STEPS", help='Percentages of the canary steps: "10 50 100".')]
Replicas = Annotated[str, typer.Option(envvar="REPLICAS", help="Number of replicas.")]
Force = Annotated[bool, typer.Option("--force", envvar="FORCE", help="Start a release that is live already again.")]


@contextmanager
def _deployment() -> Iterator[None]:
    """Let a deployment end in order after SIGINT or SIGTERM, and report what its tools raise."""
    from urllib.error import URLError

    from copier_mlops.deploy.blue_green import DeployError

    _interruption.without_time_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pass_on(UV=uv())
    try:
        yield
    except ProjectError:
        raise
    except (URLError, ValueError) as error:
        raise DeployError(str(error)) from error


# ------------------------------------------------------------------------------------------------------- Images


@app.command(rich_help_panel=DEPLOY)
def image(
    version: NumberText = "",
    base: Annotated[str, typer.Option(envvar="BASE", help="Base image, best by digest.")] = "",
) -> None:
    """Build an image of the service: its code, its packages and one bundle."""
    with _deployment():
        from copier_mlops.deploy import image as images
        from copier_mlops.deploy.host import version_number

        pass_on(BASE=base)
        release = images.build(version_number({"VERSION": version}))
        packages = f"packages are in {images.SBOM}"
        print(f"{release.image}: version {release.version}, bundle {release.digest[:12]}; {packages}")


@app.command("push-image", rich_help_panel=DEPLOY)
def push_image(
    registry: Annotated[str, typer.Option(envvar="REGISTRY", help="Registry of images: ghcr.io/ada.")] = "",
) -> None:
    """Push the image to a registry; print its name by digest."""
    with _deployment():
        from copier_mlops.deploy import image as images
        from copier_mlops.deploy.host import settings

        there = registry or settings().get("REGISTRY", "")
        if not there:
            fail("REGISTRY does not say where to, e.g. make push-image REGISTRY=ghcr.io/ada")
        pushed = images.push(there)
        images.output("image", pushed)
        images.output("name", pushed.partition("@")[0])
        images.output("digest", pushed.partition("@")[2])
        print(pushed)


@app.command("sign-image", rich_help_panel=DEPLOY)
def sign_image() -> None:
    """Sign the pushed image with SIGNING_KEY; writes dist/image.sig."""
    with _deployment():
        from copier_mlops.deploy import image as images
        from copier_mlops.deploy.host import settings

        private = settings().get("SIGNING_KEY")
        if not private:
            print("note: SIGNING_KEY is not set, so the image is not signed; `make key` makes one")
            return
        images.output("signature", images.sign(private))
        print(f"{images.SIGNATURE}: the image is signed")


# ----------------------------------------------------------------------------------------------------- This host


@app.command(rich_help_panel=DEPLOY)
def deploy(
    environment: Environment = "dev",
    version: NumberText = "",
    image: Image = "",
    reason: ReasonText = "",
    engine: Engine = "",
    steps: Steps = "",
    replicas: Replicas = "",
    force: Force = False,
) -> None:
    """Deploy a version blue-green with a canary.

    The previous release stays live if it fails.
    Exit code 75 if another deployment to the same environment is in progress.
    """
    pass_on(ENGINE=engine, STEPS=steps, REPLICAS=replicas, FORCE="1" if force else "")
    _act("deploy", ENV=environment, VERSION=version, IMAGE=image, WHY=reason)


@app.command("rollback-deploy", rich_help_panel=DEPLOY)
def rollback_deploy(
    environment: Environment = "dev", version: NumberText = "", reason: ReasonText = "", engine: Engine = ""
) -> None:
    """Redeploy the previous release, or that of a version; the registry stays."""
    pass_on(ENGINE=engine)
    _act("rollback", ENV=environment, VERSION=version, WHY=reason)


@app.command(rich_help_panel=DEPLOY)
def undeploy(environment: Environment = "dev", reason: ReasonText = "", engine: Engine = "") -> None:
    """Stop all releases of an environment."""
    pass_on(ENGINE=engine)
    _act("end", ENV=environment, WHY=reason)


@app.command(rich_help_panel=DEPLOY)
def smoke(environment: Environment = "dev") -> None:
    """Send the example rows to the live release."""
    _act("smoke", ENV=environment)


def _act(what: str, **given: str) -> None:
    with _deployment():
        from copier_mlops.deploy import blue_green

        blue_green.act(what, given)


@app.command("deploy-status", rich_help_panel=DEPLOY)
def deploy_status(
    environment: Annotated[str, typer.Option("--env", help="Environment; by default all of them.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the deployed versions on this host."""
    with _deployment():
        from copier_mlops.deploy.blue_green import ENVIRONMENTS, Host

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # its reader may have read enough
        failed, states = False, []
        for name in [environment] if environment else ENVIRONMENTS:
            try:
                host = Host(name)
                if as_json:
                    states.append(_state(host))
                else:
                    print(host, flush=True)
            except ProjectError as error:
                print_error(error)
                failed = True
        if as_json:
            print_json(states)
        if failed:
            raise typer.Exit(_exit_codes.ERROR)


def _state(host: Host) -> dict[str, Any]:
    """Return the state of an environment as JSON has it."""
    live = host.live
    return {
        "environment": host.environment,
        "live": None if live is None else {**asdict(live), "address": f"http://{host.public}"},
        "rollback_targets": [asdict(one) for one in host.history if live is None or one != live.release],
    }


@app.command("add-replica", hidden=True)
def add_replica(
    maximum: Annotated[int, typer.Argument(help="Number of replicas that there may be afterwards.")],
    environment: Annotated[str, typer.Option("--env", help="Environment; by default the one that is live.")] = "",
    reason: Reason = "",
) -> None:
    """Add one replica to the live release."""
    with _deployment():
        from copier_mlops.deploy import scale

        print(scale.add(maximum, environment, reason))


# ----------------------------------------------------------------------------------- Champion and release together


@app.command(rich_help_panel=DECIDE)
def rollback(
    reason: Reason = "",
    delivered: Annotated[
        bool, typer.Option("--delivered", help="Only while the champion is the version in champion.json.")
    ] = False,
    registry_only: Annotated[
        bool, typer.Option("--registry-only", help="Leave deployed releases as they are.")
    ] = False,
) -> None:
    """Make the previous champion the champion again, in the registry and where it is deployed.

    Releases of the version that it leaves go back on this host, and on DEPLOY_HOST if it is set.
    """
    from copier_mlops.lifecycle.commands import roll_back_champion

    if registry_only or not _deploys():
        roll_back_champion(applied_settings(), reason, delivered)
        return
    left = _champion()
    given = dict(os.environ)  # the settings of a release are those of the caller, not those of the tools
    champion = roll_back_champion(applied_settings(), reason, delivered)
    if left is None:
        return
    with _deployment(), _environment(given):
        from copier_mlops.deploy import blue_green, image, ssh
        from copier_mlops.deploy.host import settings
        from copier_mlops.deploy.runtimes import BUNDLE

        blue_green.follow(left, champion, reason or BY_HAND)
        if settings().get("DEPLOY_HOST"):
            ssh.act("follow", {**given, "LEFT": str(left), "VERSION": str(champion), "WHY": reason})
        if BUNDLE.exists():
            image.bundle(champion)  # what is monitored and what is served by hand go back, too


@app.command("promote-deploy", rich_help_panel=DECIDE)
def promote_deploy(version: Version = None, reason: Reason = "") -> None:
    """Promote the challenger, or a version of your choice, and deploy it.

    It is deployed wherever the previous champion is live on this host. Where that fails, the registry and the releases go back.
    """
    from copier_mlops.lifecycle.commands import promote_version

    given = dict(os.environ)
    left = _champion() if _deploys() else None
    settings = applied_settings()
    champion = promote_version(settings, version, reason)
    if left is None:
        return
    try:
        with _deployment(), _environment(given):
            from copier_mlops.deploy import blue_green

            blue_green.lead(left, champion, reason or BY_HAND)
    except ProjectError as error:
        print_error(error)
        with _environment(given):
            rollback("it did not go live", delivered=False, registry_only=False)
        from copier_mlops.serving.make_bundle import export

        export(settings, None, settings.bundle_dir)
        raise typer.Exit(_exit_codes.ERROR) from error


def _deploys() -> bool:
    """Return whether this project has files of a deployment."""
    from copier_mlops.deploy.runtimes import DEPLOY

    return DEPLOY.is_dir()


def _champion() -> int | None:
    """Return the version in champion.json; None without one."""
    from copier_mlops.deploy import image

    number = image.champion().get("version")
    return None if number is None else int(number)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Give this process other variables, until the block ends."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---------------------------------------------------------------------------------------------------------- CD


@app.command("cd-config", rich_help_panel=CI)
def cd_config() -> None:
    """Print what cd.yml can deliver from this repository."""
    with _deployment():
        from copier_mlops.deploy import image
        from copier_mlops.deploy.host import settings

        image.delivery(settings())


@app.command("deploy-remote", rich_help_panel=CI)
def deploy_remote(
    environment: Environment = "dev",
    image: Image = "",
    reason: ReasonText = "",
    steps: Steps = "",
    replicas: Replicas = "",
    force: Force = False,
) -> None:
    """Deploy an image to DEPLOY_HOST over SSH; SIGNATURE has its signature."""
    pass_on(STEPS=steps, REPLICAS=replicas, FORCE="1" if force else "")
    _remote("deploy", ENV=environment, IMAGE=image, WHY=reason)


@app.command("smoke-remote", rich_help_panel=CI)
def smoke_remote(environment: Environment = "dev") -> None:
    """Send the example rows to the live release of DEPLOY_HOST."""
    _remote("smoke", ENV=environment)


@app.command("rollback-remote", rich_help_panel=CI)
def rollback_remote(environment: Environment = "dev", version: NumberText = "", reason: ReasonText = "") -> None:
    """Roll back the release on DEPLOY_HOST."""
    _remote("rollback", ENV=environment, VERSION=version, WHY=reason)


def _remote(what: str, **given: str) -> None:
    """Run a command on DEPLOY_HOST; without one print that nothing is configured."""
    with _deployment():
        from copier_mlops.deploy import ssh
        from copier_mlops.deploy.host import settings

        if not settings().get("DEPLOY_HOST"):
            text = "not configured: DEPLOY_HOST names no machine, so nothing is deployed"
            print(f"::notice::{text}" if os.environ.get("GITHUB_ACTIONS") else text)
            return
        options = {name: value for name, value in given.items() if value}
        ssh.act(what, {"ACTOR": os.environ.get("GITHUB_ACTOR", ""), **os.environ, **options})


@app.command("rollback-registry", rich_help_panel=CI)
def rollback_registry() -> None:
    """Roll back the registry after a failed production release."""
    from copier_mlops.deploy import registry_rollback

    def registry(reason: str) -> None:
        from copier_mlops.lifecycle.commands import roll_back_champion

        roll_back_champion(applied_settings(), reason, delivered=True)

    if not registry_rollback.roll_back(registry):
        raise typer.Exit(_exit_codes.ERROR)
