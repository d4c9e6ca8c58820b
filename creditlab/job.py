"""One job, held: what is known of it, and what can be done with it. In a notebook it shows itself as a small table."""

import importlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from creditlab.calls import JSON
from creditlab.retries import ApiError, Unreachable

if TYPE_CHECKING:
    from creditlab.async_client import AsyncClient
    from creditlab.client import Client


class Known:
    """What was last heard of a job.

    Attributes:
        id: of the job.
        data: the job as the API showed it.
        measured: its results, once they were asked for.
    """

    def __init__(self, data: JSON) -> None:
        self.id: str = data["id"]
        self.data = data
        self.measured: JSON | None = None

    @property
    def status(self) -> str:
        return str(self.data["status"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    def _repr_html_(self) -> str:
        return table(self.data, self.measured)

    def _take(self, data: JSON) -> Self:
        self.data = data
        return self


class Job(Known):
    """A job of a ``Client``. What changes it returns the job itself, so that calls can be chained."""

    def __init__(self, client: "Client", data: JSON) -> None:
        super().__init__(data)
        self._client = client

    def refresh(self) -> Self:
        return self._take(self._client.get(self.id))

    def wait(self, timeout: float | None = None) -> Self:
        """Until it has ended. Raises TimeoutError after `timeout` seconds."""
        return self._take(self._client.wait(self.id, timeout))

    def cancel(self) -> Self:
        return self._take(self._client.cancel(self.id))

    def pause(self) -> Self:
        return self._take(self._client.pause(self.id))

    def resume(self) -> Self:
        return self._take(self._client.resume(self.id))

    def retry(self) -> Self:
        return self._take(self._client.retry(self.id))

    def delete(self) -> None:
        self._client.delete(self.id)

    def metrics(self, series: Sequence[str] = (), **window: int | None) -> Any:
        """Points as a pandas DataFrame, or as a list of dicts where there is no pandas.

        The columns are series, layer, step, epoch and value; `window` is from_step, to_step, max_points.
        """
        return frame(self._client.metrics(self.id, series, **window))

    def results(self) -> JSON:
        self.measured = self._client.results(self.id)
        return self.measured

    def alignment(self, metric: str = "delta_cosine", *, max_points: int | None = None) -> JSON:
        return self._client.alignment(self.id, metric, max_points=max_points)

    def events(self, after_seq: int = 0) -> Iterator[JSON]:
        return self._client.events(self.id, after_seq)

    def stream(self, after_seq: int = 0, *, live: bool = False) -> Iterator[JSON]:
        return self._client.stream(self.id, after_seq, live=live)

    def artifacts(self) -> JSON:
        return self._client.artifacts(self.id)

    def download(self, name: str, to: Path) -> Path:
        return self._client.download(self.id, name, to)

    def _repr_html_(self) -> str:
        """As it is now; as it was last heard of where the service does not tell or the client is closed."""
        with suppress(ApiError, Unreachable, RuntimeError):
            self.refresh().results()
        return super()._repr_html_()


class AsyncJob(Known):
    """A job of an ``AsyncClient``. A notebook shows it as it was last heard of: after `refresh` and `results`."""

    def __init__(self, client: "AsyncClient", data: JSON) -> None:
        super().__init__(data)
        self._client = client

    async def refresh(self) -> Self:
        return self._take(await self._client.get(self.id))

    async def wait(self, timeout: float | None = None) -> Self:  # noqa: ASYNC109  (the wait is the service's)
        return self._take(await self._client.wait(self.id, timeout))

    async def cancel(self) -> Self:
        return self._take(await self._client.cancel(self.id))

    async def pause(self) -> Self:
        return self._take(await self._client.pause(self.id))

    async def resume(self) -> Self:
        return self._take(await self._client.resume(self.id))

    async def retry(self) -> Self:
        return self._take(await self._client.retry(self.id))

    async def delete(self) -> None:
        await self._client.delete(self.id)

    async def metrics(self, series: Sequence[str] = (), **window: int | None) -> Any:
        return frame(await self._client.metrics(self.id, series, **window))

    async def results(self) -> JSON:
        self.measured = await self._client.results(self.id)
        return self.measured

    async def alignment(self, metric: str = "delta_cosine", *, max_points: int | None = None) -> JSON:
        return await self._client.alignment(self.id, metric, max_points=max_points)

    def events(self, after_seq: int = 0) -> AsyncIterator[JSON]:
        return self._client.events(self.id, after_seq)

    def stream(self, after_seq: int = 0, *, live: bool = False) -> AsyncIterator[JSON]:
        return self._client.stream(self.id, after_seq, live=live)

    async def artifacts(self) -> JSON:
        return await self._client.artifacts(self.id)

    async def download(self, name: str, to: Path) -> Path:
        return await self._client.download(self.id, name, to)


def frame(metrics: JSON) -> Any:
    """The points of all series one below the other: a pandas DataFrame, or a list of dicts where there is no pandas."""
    rows = [
        {"series": one["name"], "layer": one["layer"], "step": step, "epoch": epoch, "value": value}
        for one in metrics["series"]
        for step, epoch, value in one["points"]
    ]
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return rows
    return pandas.DataFrame(rows, columns=["series", "layer", "step", "epoch", "value"])


def table(job: JSON, results: JSON | None) -> str:
    """A job as HTML: where it is, and its accuracy beside that of its twins."""
    fraction = (job["progress"] or {}).get("fraction")
    rows = [("job", job["id"]), ("status", job["status"]), ("progress", percent(fraction, 0))]
    if results:
        rows.append((f"test accuracy, {results['method']}", percent((results["test"] or {}).get("accuracy"))))
        rows += [(twin["method"], percent(twin["test_accuracy"])) for twin in results["pairing"]["twins"]]
    cells = "".join(f"<tr><th>{escape(head)}</th><td>{escape(cell)}</td></tr>" for head, cell in rows)
    return f"<table>{cells}</table>"


def percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
