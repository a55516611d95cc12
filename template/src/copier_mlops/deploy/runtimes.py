"""Where replicas run: in containers, by Compose with docker or podman; or as processes of this machine, without an engine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier_mlops._files import private_folder
from copier_mlops.deploy.host import (
    EngineError,
    account,
    begin,
    compose,
    crashed,
    docker,
    end,
    last_lines,
    run,
    running,
)
from copier_mlops.deploy.proxy import SERVERS, SOCKET, Slot

DEPLOY = Path("deploy")
BUNDLE = Path("dist/bundle")
LOG = "predictions"  # of what is answered, in the folder of an environment
NOBODY = "10001:10001"  # as whom an image runs that is told nothing else
INSTALL_HAPROXY = "Install it (apt-get, dnf or brew install haproxy), or deploy containers: leave ENGINE out"


@dataclass(frozen=True)
class Release:
    """Code and one bundle, as they answer.

    Attributes:
        version: The number of the registered version.
        digest: SHA-256 of the bundle's checksums.
        image: The reference of the image, or the folder that stands for it.
    """

    version: int
    digest: str
    image: str

    def __str__(self) -> str:
        return f"version {self.version} ({self.image})"


class Containers:
    """Replicas are containers, each with a Compose project of its own, so that starting one touches no other.

    Args:
        name: Of the project.
        environment: dev, staging or prod.
        settings: Of this environment, and the host's secrets.
        folder: Of what is deployed here.
    """

    name = "containers"
    proxied = True
    reloads = False  # a container sees haproxy.cfg as it was when the container was made

    def __init__(self, name: str, environment: str, settings: Mapping[str, str], folder: Path) -> None:
        self.project = f"{name}-{environment}"
        self.folder = folder
        self.docker = docker()
        self.compose = compose(self.docker)
        self.settings = {**settings, "ENVIRONMENT": environment, "PROJECT": self.project}
        self.files = [DEPLOY / "compose.yaml", DEPLOY / "compose.override.yaml"]
        if settings.get("SHADOW_DIR"):  # of the host; Compose would take it as lying in deploy/
            self.settings["SHADOW_DIR"] = str(Path(settings["SHADOW_DIR"]).absolute())
            self.files.insert(1, DEPLOY / "compose.shadow.yaml")

    def __str__(self) -> str:
        return f"containers ({self.docker[0]}, {' '.join(self.compose)})"

    def _compose(self, name: str, *words: str, **more: str) -> None:
        named = [word for file in self.files if file.exists() for word in ("-f", str(file))]
        run([*self.compose, *named, "-p", f"{self.project}-{name}", *words], {**self.settings, **more})

    def _present(self) -> dict[str, bool]:
        """The containers of this environment, by what they are, and whether they run."""
        words = [*self.docker, "ps", "--all", "--filter", f"name={self.project}-", "--format", "{{.Names}} {{.State}}"]
        found = dict(line.split()[:2] for line in run(words).stdout.splitlines())
        prefix = f"{self.project}-"
        return {name.removeprefix(prefix): state.lower() in ("running", "up") for name, state in found.items()}

    def start(self, release: Release, slot: Slot) -> None:
        """Start a replica in a place that is free."""
        more = {"IMAGE": release.image, "PORT": str(slot.port), "NUMBER": str(slot.number), **self._writing()}
        self._compose(slot.name, "up", "--detach", slot.colour, **more)

    def _writing(self) -> dict[str, str]:
        """Where replicas write down what they answer, and as whom: `make monitor`, `make forget` and `make compact-log` of this folder
        have to read and write it, too."""
        folder, whose = (self.folder / LOG).absolute(), account(self.docker)
        private_folder(folder)
        if os.geteuid() == 0:  # who may read it all, and a service has to be nobody
            whose = NOBODY
            os.chown(folder, *map(int, NOBODY.split(":")))
        return {"RUN_AS": whose, "PREDICTIONS": str(folder)}

    def stop(self, slot: Slot) -> None:
        """End a replica; it finishes what it was asked."""
        self._remove(slot.name)

    def _remove(self, name: str) -> None:
        """End a container, and take its network away; `compose down` would end all that the file names."""
        if name in self._present():
            run([*self.docker, "stop", "-t", "30", f"{self.project}-{name}"])
            run([*self.docker, "rm", "--force", f"{self.project}-{name}"])
            run([*self.docker, "network", "rm", f"{self.project}-{name}_default"], fails=True)

    def alive(self, name: str) -> bool:
        """Whether a replica runs, or the proxy."""
        return self._present().get(name, False)

    def ended(self, name: str) -> bool:
        """Return whether a container that is to start has ended, or restarts again and again."""
        return bool(crashed(self.docker, f"{self.project}-{name}"))

    def there(self) -> set[str]:
        """What runs, and what is left of what ran."""
        return set(self._present())

    def log(self, name: str) -> str:
        """Return the last lines of a replica's or the proxy's log."""
        return last_lines(self.docker, f"{self.project}-{name}")

    def read(self, release: Release, slot: Slot, name: str) -> Any:
        """A JSON file of the bundle that a replica answers from."""
        return json.loads(
            run([*self.docker, "exec", f"{self.project}-{slot.name}", "cat", f"/app/bundle/{name}"]).stdout
        )

    def reload(self) -> None:
        """Restart the proxy."""
        self.serve()

    def serve(self) -> None:
        """Start the proxy, in place of one that does not respond."""
        self.quit()
        more = {"PROXY_USER": account(self.docker), "RUN_FOLDER": str(self.folder.absolute())}
        self._compose("proxy", "up", "--detach", "proxy", **more)

    def quit(self) -> None:
        """End the proxy."""
        self._remove("proxy")

    def has(self, release: Release) -> bool:
        """Whether the image is on this host."""
        return run([*self.docker, "image", "inspect", release.image], fails=True).returncode == 0

    def drop(self, release: Release) -> None:
        """Take an image off this host, if nothing else uses it."""
        run([*self.docker, "rmi", release.image], fails=True)


class Processes:
    """Replicas are processes of this machine, started from folders that stand for images.

    Attributes:
        proxied: Whether requests pass through HAProxy. In dev a machine without it, or PROXY=none, has no proxy: then callers use
            the port of the replica, which changes with each deployment.
    """

    name = "processes"
    reloads = True

    def __init__(self, name: str, environment: str, settings: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.haproxy = haproxy()
        direct = self.haproxy is None or settings.get("PROXY") == "none"
        self.proxied = not (environment == "dev" and direct)

    def __str__(self) -> str:
        how = "behind HAProxy" if self.proxied else "without a proxy (HAProxy is not installed, or PROXY=none)"
        return f"processes of this machine, {how}"

    def _begin(self, name: str, words: list[str], place: Path, more: Mapping[str, str]) -> None:
        """Start a process with the settings of its environment and the host's, and not with those of whoever deploys."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "SSL_CERT_FILE") if key in os.environ}
        begin(self.folder, name, words, {**kept, **more}, place)

    def start(self, release: Release, slot: Slot) -> None:
        folder = Path(release.image).absolute()
        modules = [f"{file.parent.name}.service" for file in sorted(folder.glob("src/*/service.py"))]
        # An image of release 1 has the whole service in the project's package.
        modules += [f"{file.parents[1].name}.serving.online" for file in sorted(folder.glob("src/*/serving/online.py"))]
        if not modules:
            raise EngineError(
                f"{release.image} is missing or incomplete. make deploy VERSION={release.version} FORCE=1 makes it again"
            )
        if taken(slot.port):
            raise EngineError(
                f"port {slot.port} of {slot.name} is in use by another process (`lsof -i :{slot.port}` or `ss -ltnp` shows which). "
                f"End that process, or set PORTS in deploy/{self.folder.name}.env to other ports"
            )
        private_folder(self.folder / LOG)
        (self.folder / f"{slot.name}.log").unlink(missing_ok=True)
        settings = {
            "OMP_NUM_THREADS": "1",
            **self.settings,
            "PYTHONPATH": str(folder / "src"),
            "PYTHONUNBUFFERED": "1",
            "BUNDLE_DIR": str(folder / "bundle"),
            "PREDICTION_LOG": str(self.folder.absolute() / LOG),
            "SERVICE_HOST": "127.0.0.1",
            "SERVICE_PORT": str(slot.port),
        }
        if settings.get("SHADOW_DIR"):  # of the project, and not of the folder that the replica works in
            settings["SHADOW_DIR"] = str(Path(settings["SHADOW_DIR"]).absolute())
        self._begin(slot.name, [sys.executable, "-m", modules[0]], folder, settings)

    def stop(self, slot: Slot) -> None:
        end(self.folder, slot.name, 35)

    def alive(self, name: str) -> bool:
        return bool(running(self.folder, name))

    def ended(self, name: str) -> bool:
        """Whether a replica that was just started has ended."""
        return not self.alive(name)

    def there(self) -> set[str]:
        return {file.stem for file in self.folder.glob("*.pid")}

    def log(self, name: str) -> str:
        file = self.folder / f"{name}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-15:]) if file.exists() else ""

    def read(self, release: Release, slot: Slot, name: str) -> Any:
        return json.loads((Path(release.image) / "bundle" / name).read_text(encoding="utf-8"))

    def reload(self) -> None:
        """Let the proxy read its configuration; its previous worker finishes the open requests."""
        master = running(self.folder, "proxy")
        if master:
            os.kill(master, signal.SIGUSR2)
        else:
            self.serve()

    def serve(self) -> None:
        """Start the proxy, in place of one that does not respond.

        Raises:
            EngineError: If HAProxy is not installed.
        """
        if self.haproxy is None:
            raise EngineError(f"HAProxy is not installed, and outside dev ENGINE=process needs it. {INSTALL_HAPROXY}")
        words = [self.haproxy, "-W", "-db", "-f", str((DEPLOY / "haproxy.cfg").absolute()), "-f", SERVERS]
        end(self.folder, "proxy", 35)
        more = {"LISTEN": self.settings["LISTEN"], "SOCKET": SOCKET}
        self._begin("proxy", words, self.folder, more)

    def quit(self) -> None:
        end(self.folder, "proxy", 65)

    def has(self, release: Release) -> bool:
        return Path(release.image).is_dir()

    def drop(self, release: Release) -> None:
        shutil.rmtree(release.image, ignore_errors=True)


def taken(port: int) -> bool:
    """Return whether a process listens on a port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def haproxy() -> str | None:
    """Return the path of HAProxy, or None; Debian has it in a folder that is not in the PATH of every account."""
    return shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


Engine = Containers | Processes


def choose(wanted: str, name: str, environment: str, settings: Mapping[str, str], folder: Path) -> Engine:
    """The engine of that name.

    Raises:
        EngineError: If it is not there, or the name is none.
    """
    if wanted in ("process", "processes"):
        return Processes(name, environment, settings, folder)
    if wanted not in ("container", "containers"):
        raise EngineError(f"ENGINE is {wanted}; it may be containers or process")
    return Containers(name, environment, settings, folder)
