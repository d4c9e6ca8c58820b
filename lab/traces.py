"""OpenTelemetry traces, from a request to the training that it asked for; off unless an endpoint is given.

Only then is the SDK imported. It must not hurt what it watches: spans wait in a bounded queue, a thread sends them in
batches, and what cannot be sent is dropped.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lab.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context

PATH = "/v1/traces"
SEND_SECONDS = 3.0
"""For a batch, all tries together; and for what is left when the process ends."""
COMPLAIN_SECONDS = 60.0

log = logging.getLogger(__name__)


class Tracing:
    """How spans leave this process. Raises ImportError where the packages for it are not there."""

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self.complaints = logging.getLogger("opentelemetry")
        self.complaints.propagate, self.complaints.handlers = False, [Seldom()]
        resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.exporter = OTLPSpanExporter(address(endpoint), timeout=SEND_SECONDS)
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("creditlab")

    def stop(self) -> None:
        """Send what is left, if that is quick."""
        last = Thread(target=self.provider.force_flush, daemon=True)
        last.start()
        last.join(SEND_SECONDS)
        self.complaints.handlers = [logging.NullHandler()]
        self.exporter.shutdown()  # first: the provider would wait half a minute for an endpoint that is down
        self.provider.shutdown()


_tracing: Tracing | None = None


def configure(settings: Settings, service: str) -> None:
    """Trace this process, if the settings name an endpoint; once, and not before a fork.

    Args:
        settings: of the service.
        service: name of this part of it; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win over it.
    """
    global _tracing  # noqa: PLW0603  (of the process, as its log is)
    if settings.traces_endpoint is None:
        return
    try:
        _tracing = Tracing(settings.traces_endpoint, service)
    except ImportError as error:
        log.warning("no traces: CREDITLAB_TRACES_ENDPOINT needs pip install 'creditlab[otel]' (%s)", error)


def stop() -> None:
    """No spans from here on; those that are there are sent, if that is quick."""
    global _tracing  # noqa: PLW0603
    if _tracing is not None:
        _tracing.stop()
    _tracing = None


def address(endpoint: str) -> str:
    """Where to send spans: the endpoint as OTLP/HTTP's tools take it, a base address, or the whole one."""
    return endpoint if urlsplit(endpoint).path.endswith(PATH) else endpoint.rstrip("/") + PATH


class Seldom(logging.Handler):
    """Passes on what OpenTelemetry complains of, one complaint a minute: an endpoint may be down for long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.due = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + COMPLAIN_SECONDS
            log.warning("traces: %s", record.getMessage())


class Span:
    """A stretch of time in a trace; where tracing is off, nothing.

    Args:
        name: of what is done, one of few.
        parent: the span that it is part of, or a ``traceparent`` (W3C) from elsewhere; none: a trace of its own.
        began: nanoseconds since 1970; now by default.
        serves: whether it answers a request.
        about: attributes; those that are None are left out.
    """

    def __init__(
        self,
        name: str,
        parent: "Span | str | None" = None,
        *,
        began: int | None = None,
        serves: bool = False,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.real: Any = None
        if _tracing is not None:
            from opentelemetry.trace import SpanKind  # noqa: PLC0415

            kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
            self.real = _tracing.tracer.start_span(name, context_of(parent), kind, known(about), start_time=began)

    @property
    def trace_id(self) -> str | None:
        """As log lines have it."""
        return f"{self.real.get_span_context().trace_id:032x}" if self.real else None

    def rename(self, name: str) -> None:
        if self.real:
            self.real.update_name(name)

    def end(self, *, failed: bool = False, about: dict[str, Any] | None = None) -> None:
        if self.real:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415

            self.real.set_attributes(known(about))
            if failed:
                self.real.set_status(StatusCode.ERROR)
            self.real.end()

    @contextmanager
    def current(self) -> Iterator[None]:
        """What is submitted in this block belongs to this span; it does not end with the block."""
        if self.real is None:
            yield
            return
        from opentelemetry.trace import use_span  # noqa: PLC0415

        with use_span(self.real, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield


def known(about: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (about or {}).items() if value is not None}


def context_of(parent: Span | str | None) -> "Context":
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace import set_span_in_context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    if isinstance(parent, Span):
        return set_span_in_context(parent.real, Context())
    return TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, Context())


def traceparent() -> str | None:
    """The current span, as others can go on from it (W3C Trace Context); None where there is none."""
    if _tracing is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
