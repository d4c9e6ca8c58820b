"""The service from Python: a thin client over HTTP whose answers are the API's own JSON.

with Client("http://127.0.0.1:8000") as lab:
    job = lab.submit({"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini", "controls": ["bp"]})
    lab.wait(job["id"])
    print(lab.results(job["id"])["test"]["accuracy"])
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

JSON = dict[str, Any]

ENDED = frozenset({"succeeded", "failed", "cancelled"})
LONGEST_WAIT = 60.0
"""Seconds that one request may wait for a change; longer waits are several requests."""
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
"""The answer comes when the data set has been checked."""


class ApiError(Exception):
    """The service answered with a problem (RFC 9457).

    Attributes:
        problem: the whole answer: ``status``, ``code``, ``title``, ``detail``, ``errors`` and what else it holds.
    """

    def __init__(self, problem: JSON) -> None:
        self.problem = problem
        self.status: int = problem["status"]
        self.code: str = problem.get("code", "")
        said = filter(None, (problem.get("title"), problem.get("detail")))
        super().__init__(": ".join(said) or f"status {self.status}")


class Unreachable(Exception):  # noqa: N818  (the state of the service, as its user would say it)
    """No service answers at the base URL."""


class Client:
    """One connection to a CreditLab service. Methods raise ApiError and Unreachable.

    Args:
        base_url: of the service.
        api_key: where the service asks for one; without it, the one of CREDITLAB_API_KEY.
    """

    def __init__(self, base_url: str = "http://127.0.0.1:8000", api_key: str | None = None) -> None:
        api_key = api_key or os.environ.get("CREDITLAB_API_KEY")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def submit(self, spec: Mapping[str, Any]) -> JSON:
        """Queue a job and, beside it, its controls."""
        return self._json("POST", "/v1/jobs", json=spec)

    def get(self, job_id: str, *, wait: float | None = None) -> JSON:
        """The job as it is; with `wait`, at its next change of status or after so many seconds (at most 60)."""
        params, timeout = {}, TIMEOUT
        if wait is not None:
            params["wait"] = f"{wait:g}"
            timeout = httpx.Timeout(wait + 30.0, connect=5.0)
        return self._json("GET", f"/v1/jobs/{job_id}", params=params, timeout=timeout)

    def page(self, *, limit: int = 20, after: str | None = None, **filters: str | Sequence[str] | None) -> JSON:
        """One page of the list of jobs, newest first; `after` is the ``next`` of the page before.

        Filters are those of the API: status, method, model, dataset, label ("key:value"), created_after.
        """
        return self._json("GET", "/v1/jobs", params=_given(limit=limit, after=after, **filters))

    def list(self, *, limit: int | None = None, **filters: str | Sequence[str] | None) -> Iterator[JSON]:
        """Jobs, newest first, fetched page by page as they are asked for; `limit` ends the list early."""
        left, after = limit, None
        while left is None or left > 0:
            page = self.page(limit=min(left or 100, 100), after=after, **filters)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["next"]
            left = None if left is None else left - len(page["data"])

    def wait(self, job_id: str, timeout: float | None = None) -> JSON:
        """The job once it has ended. Raises TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONGEST_WAIT if deadline is None else max(0.0, min(LONGEST_WAIT, deadline - time.monotonic()))
            job = self.get(job_id, wait=left)
            if job["status"] in ENDED:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{job_id} is {job['status']} after {timeout:g} s")

    def cancel(self, job_id: str) -> JSON:
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> JSON:
        """Have the job store its state and rest."""
        return self._json("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> JSON:
        """Queue a paused job; it goes on where it was."""
        return self._json("POST", f"/v1/jobs/{job_id}/resume")

    def retry(self, job_id: str) -> JSON:
        """Queue a failed or cancelled job once more, from its last checkpoint."""
        return self._json("POST", f"/v1/jobs/{job_id}/retry")

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with everything it has left."""
        with self._answered("DELETE", f"/v1/jobs/{job_id}"):
            pass

    # ---- what a job said ---------------------------------------------------------------------------------------------

    def metrics(
        self,
        job_id: str,
        series: Sequence[str] = (),
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> JSON:
        """Points [step, epoch, value] of the named series (of all, where none is named)."""
        params = _given(series=",".join(series) or None, from_step=from_step, to_step=to_step, max_points=max_points)
        return self._json("GET", f"/v1/jobs/{job_id}/metrics", params=params)

    def alignment(self, job_id: str, metric: str = "delta_cosine", *, max_points: int | None = None) -> JSON:
        """Layer × step matrix of one alignment metric."""
        return self._json("GET", f"/v1/jobs/{job_id}/alignment", params=_given(metric=metric, max_points=max_points))

    def results(self, job_id: str) -> JSON:
        """What is known so far; final once the job has ended."""
        return self._json("GET", f"/v1/jobs/{job_id}/results")

    def events(self, job_id: str, after_seq: int = 0) -> Iterator[JSON]:
        """The numbered log of the job, from the event after `after_seq` on."""
        while True:
            page = self._json("GET", f"/v1/jobs/{job_id}/events", params={"after_seq": after_seq})
            for event in page["data"]:
                after_seq = event["seq"]
                yield event
            if not page["has_more"]:
                return

    def artifacts(self, job_id: str) -> JSON:
        """Name, size and sha256 of every file of the job."""
        return self._json("GET", f"/v1/jobs/{job_id}/artifacts")

    def record(self, job_id: str) -> JSON:
        """``{"results", "series", "spec", "status"}``: all that a report tells of a job."""
        job, results, metrics = self.get(job_id), self.results(job_id), self.metrics(job_id)
        return {"results": results, "series": metrics["series"], "spec": job["spec"], "status": job["status"]}

    def download(self, job_id: str, name: str, to: Path) -> Path:
        """Write one artifact to the file or into the folder `to`. Raises ValueError where it arrives damaged."""
        target = to / name if to.is_dir() else to
        stated = {artifact["name"]: artifact["sha256"] for artifact in self.artifacts(job_id)["data"]}
        digest = hashlib.sha256()
        partial = target.with_name(target.name + ".part")
        with self._answered("GET", f"/v1/jobs/{job_id}/artifacts/{name}") as answer, partial.open("wb") as file:
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != stated.get(name):
            partial.unlink()
            raise ValueError(f"{name} arrived damaged: its sha256 is not the one of the job's list")
        return partial.replace(target)

    # ---- the menu ----------------------------------------------------------------------------------------------------

    def methods(self) -> JSON:
        return self._json("GET", "/v1/methods")

    def method(self, name: str) -> JSON:
        """One method with the JSON Schema of its options."""
        return self._json("GET", f"/v1/methods/{name}")

    def models(self) -> JSON:
        return self._json("GET", "/v1/models")

    def datasets(self) -> JSON:
        return self._json("GET", "/v1/datasets")

    def dataset(self, name: str) -> JSON:
        """One data set, by its name or id."""
        return self._json("GET", f"/v1/datasets/{name}")

    def upload_dataset(self, *paths: str | Path, name: str, description: str | None = None) -> JSON:
        """Send a data set: one file, or the four of an idx set, streamed; specs name it by the ``id`` of the answer."""
        with ExitStack() as stack:
            files = [("file", (Path(path).name, stack.enter_context(Path(path).open("rb")))) for path in paths]
            data = _given(name=name, description=description)
            return self._json("POST", "/v1/datasets", files=files, data=data, timeout=UPLOAD_TIMEOUT)

    def delete_dataset(self, name: str) -> None:
        """Delete a data set that was sent, by its name or id."""
        with self._answered("DELETE", f"/v1/datasets/{name}"):
            pass

    # ---- the service -------------------------------------------------------------------------------------------------

    def workers(self) -> JSON:
        """The workers, each with its slots and the jobs in them."""
        return self._json("GET", "/v1/workers")

    def queue(self, *, job: str | None = None, limit: int = 20, after: str | None = None) -> JSON:
        """A page of the jobs that wait, the next one first, with position and reason; or the entry of one job."""
        return self._json("GET", "/v1/queue", params=_given(job=job, limit=limit, after=after))

    # ---- HTTP --------------------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **options: Any) -> JSON:
        with self._answered(method, path, **options) as answer:
            body: JSON = json.loads(answer.read())
        return body

    @contextmanager
    def _answered(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """The good answer to a request, its body still to be read."""
        try:
            with self._http.stream(method, path, **options) as answer:
                if answer.is_error:
                    answer.read()
                    raise ApiError(_problem(answer))
                yield answer
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"no CreditLab service answers at {self.base_url} ({reason})") from error


def _problem(answer: httpx.Response) -> JSON:
    """The problem of an answer; made from its status where something else than the service answered."""
    made: JSON = {"status": answer.status_code, "title": answer.reason_phrase, "code": ""}
    if "json" not in answer.headers.get("Content-Type", ""):
        return made
    try:
        told = answer.json()
    except ValueError:
        return made
    return {**made, **told} if isinstance(told, dict) else made


def _given(**params: Any) -> JSON:
    return {name: value for name, value in params.items() if value is not None}
