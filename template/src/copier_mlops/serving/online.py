"""The online service: rows come as JSON over HTTP, answers go back at once. `make serve` starts it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import json
import logging
import logging.config
import resource
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi_offline import FastAPIOffline

from copier_mlops import ProjectError
from copier_mlops._errors import print_error
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.data import prediction_log
from copier_mlops.data.prediction_log import PredictionLog
from copier_mlops.serving.auth import Access
from copier_mlops.serving.bundle_loader import answering
from copier_mlops.serving.explanations import Explainer, NoSuchPredictionError, NothingKnownError
from copier_mlops.serving.http_protocol import Protocol, close_idle
from copier_mlops.serving.metrics import Metrics
from copier_mlops.serving.openapi import described_by
from copier_mlops.serving.predict_endpoint import (
    QUEUE_SHARE,
    Answers,
    Predict,
    Receive,
    Reply,
    Scope,
    Send,
    Stopwatch,
    from_error,
    problem,
    read_body,
)
from copier_mlops.serving.request_batcher import Batcher
from copier_mlops.serving.request_parser import Asked, Reader
from copier_mlops.serving.workers import Workers
from copier_mlops.settings import Settings

PATHS = ("/predict", "/explain", "/model", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json")
LEAVING_SECONDS = 0.5  # between the signal and the last connection: whoever has one is told that it ends
EXPLAINING = 4  # that may wait for an explanation, which takes a fraction of a second each
FILES = 65_536  # open files at most, if the host allows as many; each connection is one
SWITCH_SECONDS = 0.0005  # between threads: with the default of 5 ms the thread that answers starves under load

log = logging.getLogger(__name__)


class Service:
    """What answers, and all around it.

    Raises:
        ProjectError: If the bundle is not to be trusted, nobody said who may ask, or a key is missing.
    """

    def __init__(self, settings: Settings, prediction_cache: bool = False) -> None:
        if settings.accept_asked_at and settings.service_environment != "dev":
            raise ProjectError(
                f"ACCEPT_ASKED_AT lets callers say when they asked, which is for replays, and SERVICE_ENVIRONMENT is "
                f"{settings.service_environment}. Remove it from the settings."
            )
        self.access = Access(settings)
        self.bundle = answering(settings)
        self.papers = _papers(self.bundle)
        self.explainer = Explainer(self.bundle, settings)
        reader = Reader(self.bundle.contract, settings.max_rows, settings.mask_key.get_secret_value())
        self.kept = PredictionLog(settings.prediction_log, settings.log_flush_seconds)
        ahead = _ahead(self.bundle, settings) if prediction_cache else None
        self.shadow = _shadow(self.bundle, reader, settings)
        self.metrics = Metrics(self.bundle, PATHS, lambda: self.batcher.rows, lambda: self.kept.dropped)
        answers = Answers(self.bundle, reader, self.kept, ahead, self.shadow, self.metrics.unseen)
        self.batcher = Batcher(
            answers,
            settings.max_rows,
            settings.max_waiting_rows,
            self.metrics.batch,
            QUEUE_SHARE * settings.answer_seconds,
        )
        self.leaving = False
        if ahead is not None:
            self.metrics.counted("hybrid_hits", "Rows whose answer was computed ahead.", lambda: ahead.hits)
            self.metrics.counted("hybrid_misses", "Rows that were put to the model.", lambda: ahead.misses)
        if self.shadow is not None:
            self._count(self.shadow)
        self.predict = Predict(
            reader,
            self.batcher,
            self.access,
            self.metrics,
            settings,
            lambda: self.leaving,
            None if ahead is None else answers.known,
            _smoke_test(self.bundle, reader),
        )
        self.settings = settings
        self._explainers = Workers(
            "explanations", 1, EXPLAINING, "explanations take a while, and others wait; repeat the request in a moment"
        )

    def _count(self, shadow: Any) -> None:
        self.metrics.measured("predict_shadow_up", "Whether another model is asked beside.", lambda: float(shadow.up))
        self.metrics.counted("predict_shadow_rows", "Rows that it answered.", lambda: shadow.rows)
        self.metrics.counted("predict_shadow_dropped", "Rows that it had no time for.", lambda: shadow.dropped)
        self.metrics.counted("predict_shadow_failures", "Rows that it could not answer.", lambda: shadow.failures)

    async def explain(self, request: Request) -> Reply:
        """Explain a row or a logged prediction, one at a time and in a thread."""
        try:
            async with asyncio.timeout(self.settings.answer_seconds):
                body = await read_body(request.headers.raw, request.receive, self.settings.max_body_bytes)
                found = await self._explainers.run(self.explainer.explain, body)
        except TimeoutError:
            return problem(504, f"there was no answer within {self.settings.answer_seconds:g} seconds")
        except NothingKnownError as error:
            return problem(409, str(error))
        except NoSuchPredictionError as error:
            return problem(404, str(error))
        except prediction_log.LogError as error:  # it names folders of this host
            log.error("the prediction log cannot be read: %s", error)
            return problem(503, "the prediction log cannot be read; the service's log says why")
        except ProjectError as error:
            return from_error(error)
        except Exception as error:
            log.exception("a row was not explained")
            return problem(
                500, f"the model could not answer this ({type(error).__name__}); the service's log says where"
            )
        return 200, msgspec.json.encode(found), []

    def close(self) -> None:
        """Write what was answered."""
        self._explainers.close()
        self.predict.close()
        self.batcher.close()
        self.kept.close()
        if self.shadow is not None:
            self.shadow.close()


def _ahead(bundle: Bundle, settings: Settings) -> Any:
    """What knows answers that were computed ahead."""
    from copier_mlops.serving.prediction_cache import Precomputed

    return Precomputed(settings.precomputed, bundle.digest, settings.precomputed_hours)


def _shadow(bundle: Bundle, reader: Reader, settings: Settings) -> Any:
    """What another model answers beside, in a project that is watched and where SHADOW_DIR names one."""
    if settings.shadow_dir is None:
        return None
    from copier_mlops.serving.shadow import Shadow

    return Shadow(settings, bundle, reader)


def _smoke_test(bundle: Bundle, reader: Reader) -> Callable[[Asked], bool]:
    """Return whether a request consists of example rows of the bundle, whatever their ids.

    Only those can be smoke tests, which monitoring leaves out: a caller cannot hide any other traffic from it.
    """
    rows = [dict(zip(bundle.expected["columns"], row, strict=True)) for row in bundle.expected["rows"]]
    for row in rows:
        row.pop(bundle.contract.id, None)
    examples = set()
    for row in rows:
        with contextlib.suppress(ProjectError):  # of an older contract; then nothing is a smoke test
            examples.add(reader.values(reader.read(msgspec.json.encode(row)).rows[0]))
    return lambda asked: all(reader.values(row) in examples for row in asked.rows)


def _papers(bundle: Bundle) -> dict[str, Any]:
    """What is known of the model, for people and for what deploys it."""
    known = json.loads(bundle.papers.get("lineage.json", "{}"))
    return {
        "version": bundle.version,
        "digest": bundle.digest,
        "metrics": known.pop("metrics", {}),
        "lineage": known,
        "manifest": dict(bundle.manifest),
        "card": bundle.papers.get("card.md", ""),
    }


def create_app(title: str, *, prediction_cache: bool = False) -> FastAPI:
    """Load the bundle and make the application around it.

    Args:
        title: The name on the page of the API.
        prediction_cache: Whether predictions that were computed ahead are served from the file of `make precompute`.

    Returns:
        The application with all routes but `/predict`, which `serve` answers without FastAPI on its way. Add your own routes to it.

    Raises:
        ProjectError: If the bundle is not to be trusted, nobody said who may ask, or a key is missing.
    """
    return application(Service(Settings.of_command(), prediction_cache), title)


def application(service: Service, title: str) -> FastAPI:
    """Make the application of a service; `app.state.service` is the service."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPIOffline(title=title, version=str(service.bundle.version), lifespan=lifespan, redoc_url=None)

    async def allowed(request: Request) -> None:
        await service.access.check(request.headers.raw)

    @app.exception_handler(ProjectError)
    async def said(request: Request, error: ProjectError) -> Response:
        return _response(from_error(error))

    @app.get("/health/live", summary="Whether the process runs; needs no key")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", summary="Whether it takes requests; needs no key")
    async def ready(response: Response) -> dict[str, str]:
        if service.leaving:
            response.status_code = 503
            return {"status": "leaving"}
        return {"status": "ready", "version": str(service.bundle.version)}

    @app.get("/metrics", summary="For Prometheus; needs no key", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/model", summary="Which model answers, and where it comes from", dependencies=[Depends(allowed)])
    async def model() -> Response:
        return Response(msgspec.json.encode(service.papers), media_type="application/json")

    @app.post("/explain", summary="What the inputs contributed to an answer", dependencies=[Depends(allowed)])
    async def explain(request: Request) -> Response:
        return _response(await service.explain(request))

    page = app.openapi
    app.openapi = lambda: app.openapi_schema or described_by(service.bundle, page(), service.access.open)  # type: ignore[method-assign]
    app.state.service = service
    return app


def _response(reply: Reply) -> Response:
    status, body, headers = reply
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status, named, media_type=None if "content-type" in named else "application/json")


class Front:
    """Gives `/predict` its own way, and counts the others."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/predict":
            await self.service.predict(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch, status, seconds = Stopwatch(scope, receive), 500, None
        if scope["method"] == "HEAD":  # the server leaves out the body
            scope = {**scope, "method": "GET"}

        async def sent(message: Any) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], watch.seconds()
            await send(message)

        self.service.metrics.in_flight += 1
        try:
            await self.app(scope, watch.receive, sent)
        finally:
            self.service.metrics.in_flight -= 1
            self.service.metrics.answered(scope["path"], status, watch.seconds() if seconds is None else seconds)


# ------------------------------------------------------------------------------------------------------ Process


class Server(uvicorn.Server):
    """Takes leave before it goes: at the first signal it is no longer ready and ends connections with their next answer; half a
    second later it takes no more, finishes what it took, and writes its log."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            log.info(
                "ready",
                extra={"port": self.servers[0].sockets[0].getsockname()[1], "version": self._service.bundle.version},
            )

    async def on_tick(self, counter: int) -> bool:
        """Run every tenth of a second; once a second, close connections whose client stalls."""
        if counter % 10 == 0:
            close_idle(self.server_state.connections, self._service.settings.header_timeout_seconds)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.leaving or self._loop is None:
            self.should_exit = True
            return
        self._service.leaving = True
        self._loop.call_soon_threadsafe(self._leave, signal.Signals(sig).name)

    def _leave(self, name: str) -> None:
        log.info("leaving", extra={"signal": name})
        assert self._loop is not None
        self._loop.call_later(LEAVING_SECONDS, setattr, self, "should_exit", True)


class JsonLines(logging.Formatter):
    """A line of JSON for each event. An error is told by its kind and its place, not by its words, in which there may be values of
    a row."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in ("port", "version", "signal") if hasattr(record, name)}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at_lines"] = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames]
        return msgspec.json.encode(line).decode()


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"handlers": ["out"], "level": "INFO"},
    "loggers": {"uvicorn.access": {"level": "CRITICAL"}, "uvicorn.error": {"level": "ERROR"}},
}


def serve(create: Callable[[], FastAPI]) -> int:
    """Serve the application of a project until somebody sends SIGTERM.

    Args:
        create: Makes the application, as `create_app` of service.py does.

    Returns:
        The exit code.
    """
    settings = Settings.of_command()
    settings.alone()
    logging.config.dictConfig(LOGGING)
    with contextlib.suppress(ValueError, OSError):  # what the machine gives is enough for development
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, FILES) if most > 0 else FILES, most))
    try:
        app = create()
    except ProjectError as error:
        return print_error(error)
    service: Service = app.state.service
    config = uvicorn.Config(
        Front(app, service),
        host=settings.service_host,
        port=settings.service_port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_graceful_shutdown=int(settings.answer_seconds) + 5,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what is loaded stays: nobody has to look through it again and again
    Server(config, service).run()
    return 0
