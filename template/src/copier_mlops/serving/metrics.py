"""What Prometheus asks for: counted where it happens, with labels of which there are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from copier_mlops.bundle.bundle import Bundle

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
EXPECTED = (200, 422, 429, 500)
OTHER = "other"  # a path or field that the service does not know: whoever asks can make up any


class Metrics:
    """The metrics of one service.

    Args:
        bundle: What answers.
        paths: Those that are told apart.
        waiting: How many rows wait.
        dropped: How many entries the prediction log lost.
    """

    def __init__(
        self, bundle: Bundle, paths: Sequence[str], waiting: Callable[[], int], dropped: Callable[[], int]
    ) -> None:
        self.registry = CollectorRegistry()
        self._paths = frozenset(paths)
        self._fields = frozenset(column.name for column in bundle.contract.without_target())
        self._requests = Counter(
            "http_requests_total", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From the complete body of a request to its response.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = 0
        flying = Gauge("http_requests_in_flight", "Requests being answered.", registry=self.registry)
        flying.set_function(lambda: self.in_flight)
        self._rows = Counter("predict_rows_total", "Rows that were put to the model.", registry=self.registry)
        self._refused = Counter(
            "predict_refused_values_total", "Values that broke the contract.", ["field"], registry=self.registry
        )
        self._unseen = Counter(
            "predict_unseen_values_total",
            "Values that the training had not and that were taken for unknown ones.",
            ["field"],
            registry=self.registry,
        )
        self._batches = Histogram(
            "predict_batch_rows", "Rows that were answered together.", buckets=ROWS, registry=self.registry
        )
        queue = Gauge("predict_waiting_rows", "Rows that wait or are being answered.", registry=self.registry)
        queue.set_function(waiting)
        model = Gauge("model_info", "The model that answers.", ["version", "digest"], registry=self.registry)
        model.labels(str(bundle.version), bundle.digest).set(1)
        self.counted("prediction_log_dropped", "Entries that the prediction log lost.", dropped)
        ProcessCollector(registry=self.registry)
        self._of = lru_cache(maxsize=256)(lambda path, status: self._requests.labels(path, str(status)))
        # A rate counts the first only where there was a zero before.
        for status in EXPECTED if "/predict" in paths else ():
            self._of("/predict", status)
        for name in (*self._fields, OTHER):
            self._refused.labels(name)
        for column in bundle.contract.pooled:
            self._unseen.labels(column.name)
        self._lasting = {path: self._seconds.labels(path) for path in (*paths, OTHER)}

    def counted(self, name: str, what: str, count: Callable[[], int]) -> None:
        """Report what somebody else counts."""
        self.registry.register(_Counted(name, what, count))

    def measured(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Report what somebody else measures."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request, and how long it took if it was processed: a caller without a key changes no duration of /predict."""
        path = path if path in self._paths else OTHER
        self._of(path, status).inc()
        if path != "/predict" or 200 <= status < 300 or status >= 500:
            self._lasting[path].observe(seconds)

    def batch(self, rows: int) -> None:
        """Count rows that are answered together."""
        self._rows.inc(rows)
        self._batches.observe(rows)

    def refused(self, fields: Sequence[str]) -> None:
        """Count values that broke the contract, by their fields."""
        for name in fields:
            self._refused.labels(name if name in self._fields else OTHER).inc()

    def unseen(self, fields: Sequence[str]) -> None:
        """Count values that were pooled, by their fields."""
        for name in fields:
            self._unseen.labels(name).inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads it."""
        return generate_latest(self.registry)


class _Counted(Collector):
    """A counter that somebody else keeps."""

    def __init__(self, name: str, what: str, count: Callable[[], int]) -> None:
        self._name, self._what, self._count = name, what, count

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._what, value=self._count())
