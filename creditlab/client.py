"""The service from Python: a thin client over HTTP whose answers are the API's own JSON.

with Client("http://127.0.0.1:8000") as lab:
    job = lab.create({"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini", "controls": ["bp"]})
    for event in job.stream():
        print(event["message"])
    print(job.results()["test"]["accuracy"])

What is one request stands in ``calls``; here is how requests are sent, and what takes several.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from creditlab.calls import ENDED, JSON, LONGEST_WAIT, Call, Calls, Filter, following, get, watching
from creditlab.job import Job
from creditlab.retries import ApiError, Deadline, Retries, Tries, Unreachable, is_done, refusal, unreachable
from creditlab.sse import NOTHING_LEFT, Place
from creditlab.transfer import Landing, Pages

__all__ = ["ENDED", "JSON", "ApiError", "Client", "Retries", "Unreachable"]

T = TypeVar("T")


def connection(base_url: str, api_key: str | None) -> dict[str, Any]:
    """What httpx has to know of a service; a key that is not given is the one of CREDITLAB_API_KEY."""
    api_key = api_key or os.environ.get("CREDITLAB_API_KEY")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": base_url.rstrip("/"), "headers": headers}


class Client(Calls[JSON, None]):
    """One connection to a CreditLab service. Methods raise ApiError and Unreachable.

    What may be repeated is sent again after a lost connection and where the service asks for patience: reads and
    deletions, and submissions and commands, which carry an Idempotency-Key and so are done once.

    Args:
        base_url: of the service.
        api_key: where the service asks for one; without it, the one of CREDITLAB_API_KEY.
        retries: how often, and how patiently.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        retries: Retries = Retries(),  # noqa: B008  (it is frozen)
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self._http = httpx.Client(**connection(base_url, api_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def create(self, spec: Mapping[str, Any]) -> Job:
        """Queue a job, as `submit` does, and hold it."""
        return Job(self, self.submit(spec))

    def job(self, job_id: str) -> Job:
        """Hold a job that is there."""
        return Job(self, self.get(job_id))

    def list(self, *, limit: int | None = None, **filters: Filter) -> Iterator[JSON]:
        """Jobs, newest first, fetched page by page as they are asked for; `limit` ends the list early."""
        pages = Pages(limit)
        while pages.more:
            yield from pages.take(self.page(limit=pages.size, after=pages.after, **filters))

    def wait(self, job_id: str, timeout: float | None = None) -> JSON:
        """The job once it has ended. Raises TimeoutError after `timeout` seconds."""
        deadline = Deadline(timeout)
        while (job := self.get(job_id, wait=deadline.left(LONGEST_WAIT)))["status"] not in ENDED:
            deadline.check(job)
        return job

    # ---- what a job said ---------------------------------------------------------------------------------------------

    def events(self, job_id: str, after_seq: int = 0) -> Iterator[JSON]:
        """The numbered log of the job, from the event after `after_seq` on."""
        pages = Pages(after=after_seq)
        while pages.more:
            yield from pages.take(self._json(get("jobs", job_id, "events", after_seq=pages.after, limit=pages.size)))

    def stream(self, job_id: str, after_seq: int = 0, *, live: bool = False) -> Iterator[JSON]:
        """The log as it grows, each event once, until the job has ended; lost connections are made anew.

        With `live` also the values beside the log: ``{"type": "progress", …}`` and ``{"type": "metrics", …}``.
        """
        return self._stream(following(job_id), Place(str(after_seq), live))

    def stream_many(self, job_ids: Sequence[str], *, live: bool = False) -> Iterator[JSON]:
        """The logs of up to 100 jobs as one stream, until all of them have ended; an event names its ``job_id``."""
        return self._stream(watching(job_ids), Place(None, live))

    def record(self, job_id: str) -> JSON:
        """``{"results", "series", "spec", "status"}``: all that a report tells of a job."""
        job, results, metrics = self.get(job_id), self.results(job_id), self.metrics(job_id)
        return {"results": results, "series": metrics["series"], "spec": job["spec"], "status": job["status"]}

    def download(self, job_id: str, name: str, to: Path) -> Path:
        """Write one artifact to the file or into the folder `to`. Raises ValueError where it arrives damaged."""
        landing = Landing(name, to, self.artifacts(job_id))

        def land(answer: httpx.Response) -> Path:
            with landing:
                for chunk in answer.iter_bytes():
                    landing.write(chunk)
            return landing.finish()

        return self._send(get("jobs", job_id, "artifacts", name), land)

    # ---- HTTP --------------------------------------------------------------------------------------------------------

    def _json(self, call: Call) -> JSON:
        body: JSON = json.loads(self._send(call, httpx.Response.read))
        return body

    def _done(self, call: Call) -> None:
        tries = Tries(self.retries)
        try:
            self._send(call, httpx.Response.read, tries)
        except ApiError as error:
            if not is_done(error, tries):
                raise

    def _send(self, call: Call, take: Callable[[httpx.Response], T], tries: Tries | None = None) -> T:
        """What `take` makes of the good answer to a call, which is sent as often as it takes."""
        tries = tries or Tries(self.retries, repeatable=call.repeatable)
        while True:
            try:
                with self._answered(call) as answer:
                    return take(answer)
            except (ApiError, Unreachable) as failure:
                time.sleep(tries.pause(failure))

    def _stream(self, call: Call, place: Place) -> Iterator[JSON]:
        tries = Tries(self.retries)
        while not place.over:
            try:
                with self._answered(place.call(call)) as answer:
                    place.over = answer.status_code == NOTHING_LEFT
                    for chunk in answer.iter_bytes():
                        tries.reset()
                        yield from place.read(chunk)
                    place.check()
            except (ApiError, Unreachable) as failure:
                time.sleep(tries.pause(failure))

    @contextmanager
    def _answered(self, call: Call) -> Iterator[httpx.Response]:
        """The good answer to a call that is sent once, its body still to be read."""
        try:
            with call.options() as options, self._http.stream(call.method, call.path, **options) as answer:
                if answer.is_error:
                    answer.read()
                    raise refusal(answer)
                yield answer
        except httpx.TransportError as error:
            raise unreachable(self.base_url, error) from error
