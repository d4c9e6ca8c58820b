"""Every request of the API that is one call, described once for the client that waits and for the one that does not."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

JSON = dict[str, Any]
Answer = TypeVar("Answer")
"""What a call that is answered gives: JSON, or the promise of it."""
Nothing = TypeVar("Nothing")
"""The same for calls whose answer is empty."""
Filter = str | Sequence[str] | None

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
STREAM_SECONDS = 60.0
"""A stream that is alive says so every 15 seconds."""
UPLOAD_SECONDS = 600.0
"""The answer comes when the data set has been checked."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})
LONGEST_WAIT = 60.0
"""Seconds that one request may wait for a change; longer waits are several requests."""
ONCE = "Idempotency-Key"


@dataclass(frozen=True)
class Call:
    """One request, as often as it is sent."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = ANSWER_SECONDS
    form: Mapping[str, str] | None = None
    files: Sequence[Path] = ()

    @property
    def repeatable(self) -> bool:
        """Whether being done twice is the same as being done once."""
        return self.method in {"GET", "DELETE"} or ONCE in self.headers

    @contextmanager
    def options(self) -> Iterator[dict[str, Any]]:
        """The arguments for httpx, the files open."""
        with ExitStack() as stack:
            files = [("file", (path.name, stack.enter_context(path.open("rb")))) for path in self.files]
            yield {
                "params": self.params,
                "json": self.body,
                "headers": self.headers,
                "timeout": httpx.Timeout(self.timeout, connect=CONNECT_SECONDS),
                "data": self.form,
                "files": files or None,
            }


def at(*parts: str) -> str:
    """The path of a resource; a name with a slash in it is one part all the same."""
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


def get(*parts: str, **params: Any) -> Call:
    return Call("GET", at(*parts), params=given(**params))


def post(*parts: str, body: Any = None) -> Call:
    return Call("POST", at(*parts), body=body)


def once(*parts: str, body: Any = None) -> Call:
    """A POST that the service does once, however often it comes."""
    return Call("POST", at(*parts), body=body, headers={ONCE: str(uuid.uuid4())})


def patch(*parts: str, body: Any, etag: str) -> Call:
    return Call("PATCH", at(*parts), body=body, headers={"If-Match": etag})


def delete(*parts: str) -> Call:
    return Call("DELETE", at(*parts))


def following(job_id: str) -> Call:
    """The stream of a job's log."""
    return replace(get("jobs", job_id, "events"), timeout=STREAM_SECONDS)


def watching(job_ids: Sequence[str]) -> Call:
    """The stream of many jobs' logs."""
    return replace(get("events", job=[*job_ids]), timeout=STREAM_SECONDS)


def given(**params: Any) -> JSON:
    return {name: value for name, value in params.items() if value is not None}


class Calls(ABC, Generic[Answer, Nothing]):
    """The calls of both clients."""

    @abstractmethod
    def _json(self, call: Call) -> Answer: ...

    @abstractmethod
    def _done(self, call: Call) -> Nothing: ...

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def submit(self, spec: Mapping[str, Any]) -> Answer:
        """Queue a job and, beside it, its controls."""
        return self._json(once("jobs", body=spec))

    def estimate(self, spec: Mapping[str, Any]) -> Answer:
        """What a job would cost, and its resolved spec; nothing is stored."""
        return self._json(replace(once("jobs", body=spec), params={"dry_run": "true"}))

    def get(self, job_id: str, *, wait: float | None = None) -> Answer:
        """The job as it is; with `wait`, at its next change of status or after so many seconds (at most 60)."""
        if wait is None:
            return self._json(get("jobs", job_id))
        return self._json(replace(get("jobs", job_id, wait=f"{wait:g}"), timeout=wait + ANSWER_SECONDS))

    def page(self, *, limit: int = 20, after: str | None = None, **filters: Filter) -> Answer:
        """One page of the list of jobs, newest first; `after` is the ``next`` of the page before.

        Filters are those of the API: status, method, model, dataset, label ("key:value"), created_after.
        """
        return self._json(get("jobs", limit=limit, after=after, **filters))

    def cancel(self, job_id: str) -> Answer:
        return self._json(once("jobs", job_id, "cancel"))

    def pause(self, job_id: str) -> Answer:
        """Have the job store its state and rest."""
        return self._json(once("jobs", job_id, "pause"))

    def resume(self, job_id: str) -> Answer:
        """Queue a paused job; it goes on where it was."""
        return self._json(once("jobs", job_id, "resume"))

    def retry(self, job_id: str) -> Answer:
        """Queue a failed or cancelled job once more, from its last checkpoint."""
        return self._json(once("jobs", job_id, "retry"))

    def delete(self, job_id: str) -> Nothing:
        """Delete a job that has ended, with everything it has left."""
        return self._done(delete("jobs", job_id))

    # ---- what a job said ---------------------------------------------------------------------------------------------

    def metrics(
        self,
        job_id: str,
        series: Sequence[str] = (),
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> Answer:
        """Points [step, epoch, value] of the named series (of all, where none is named)."""
        window = {"from_step": from_step, "to_step": to_step, "max_points": max_points}
        return self._json(get("jobs", job_id, "metrics", series=",".join(series) or None, **window))

    def alignment(self, job_id: str, metric: str = "delta_cosine", *, max_points: int | None = None) -> Answer:
        """Layer × step matrix of one alignment metric."""
        return self._json(get("jobs", job_id, "alignment", metric=metric, max_points=max_points))

    def results(self, job_id: str) -> Answer:
        """What is known so far; final once the job has ended."""
        return self._json(get("jobs", job_id, "results"))

    def artifacts(self, job_id: str) -> Answer:
        """Name, size and sha256 of every file of the job."""
        return self._json(get("jobs", job_id, "artifacts"))

    # ---- the menu ----------------------------------------------------------------------------------------------------

    def methods(self) -> Answer:
        return self._json(get("methods"))

    def method(self, name: str) -> Answer:
        """One method with the JSON Schema of its options."""
        return self._json(get("methods", name))

    def models(self) -> Answer:
        return self._json(get("models"))

    def datasets(self) -> Answer:
        return self._json(get("datasets"))

    def dataset(self, name: str) -> Answer:
        """One data set, by its name or id."""
        return self._json(get("datasets", name))

    def upload_dataset(self, *paths: str | Path, name: str, description: str | None = None) -> Answer:
        """Send a data set: one file, or the four of an idx set, streamed; specs name it by the ``id`` of the answer."""
        form, files = given(name=name, description=description), [Path(path) for path in paths]
        return self._json(Call("POST", at("datasets"), form=form, files=files, timeout=UPLOAD_SECONDS))

    def delete_dataset(self, name: str) -> Nothing:
        """Delete a data set that was sent, by its name or id."""
        return self._done(delete("datasets", name))

    # ---- the service -------------------------------------------------------------------------------------------------

    def workers(self) -> Answer:
        """The workers, each with its slots and the jobs in them."""
        return self._json(get("workers"))

    def queue(self, *, job: str | None = None, limit: int = 20, after: str | None = None) -> Answer:
        """A page of the jobs that wait, the next one first, with position and reason; or the entry of one job."""
        return self._json(get("queue", job=job, limit=limit, after=after))

    # ---- keys, for admins of a project -------------------------------------------------------------------------------

    def keys(self, *, limit: int = 20, after: str | None = None) -> Answer:
        """A page of the project's keys, newest first, without their secrets."""
        return self._json(get("keys", limit=limit, after=after))

    def key(self, key_id: str) -> Answer:
        return self._json(get("keys", key_id))

    def create_key(self, name: str, scopes: Sequence[str] = ("write",), *, expires_at: str | None = None) -> Answer:
        """Make a key; its secret, ``key``, is in this answer alone."""
        return self._json(post("keys", body={"name": name, "scopes": [*scopes], "expires_at": expires_at}))

    def change_key(self, key_id: str, *, etag: str = "*", **changes: Any) -> Answer:
        """Change name, scopes or expires_at of a key; `etag` is that of the version that was read, "*": any."""
        return self._json(patch("keys", key_id, body=changes, etag=etag))

    def revoke_key(self, key_id: str) -> Nothing:
        """The key opens nothing any more."""
        return self._done(delete("keys", key_id))

    # ---- webhooks ----------------------------------------------------------------------------------------------------

    def webhooks(self) -> Answer:
        """All webhooks, newest first."""
        return self._json(get("webhooks"))

    def webhook(self, webhook_id: str) -> Answer:
        return self._json(get("webhooks", webhook_id))

    def create_webhook(
        self,
        url: str,
        types: Sequence[str] | None = None,
        *,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Answer:
        """Have a URL told of events of these types (of all by default); its ``secret`` is in this answer alone."""
        wishes = given(url=url, types=types and [*types], description=description, enabled=enabled)
        return self._json(post("webhooks", body=wishes))

    def change_webhook(self, webhook_id: str, *, etag: str = "*", **changes: Any) -> Answer:
        """Change url, types, description or enabled; `etag` is that of the version that was read, "*": any."""
        return self._json(patch("webhooks", webhook_id, body=changes, etag=etag))

    def delete_webhook(self, webhook_id: str) -> Nothing:
        """Delete a webhook with its log."""
        return self._done(delete("webhooks", webhook_id))

    def rotate_webhook(self, webhook_id: str) -> Answer:
        """A new ``secret``; for a day messages carry a signature by the one before, too."""
        return self._json(post("webhooks", webhook_id, "rotate"))

    def test_webhook(self, webhook_id: str) -> Answer:
        """Send a message of type ``webhook.test``; its delivery is in the log."""
        return self._json(post("webhooks", webhook_id, "test"))

    def deliveries(self, webhook_id: str, *, limit: int = 20, after: str | None = None) -> Answer:
        """A page of what was sent, newest first."""
        return self._json(get("webhooks", webhook_id, "deliveries", limit=limit, after=after))

    def redeliver(self, webhook_id: str, delivery_id: str) -> Answer:
        """Send a message once more, under the id that it had."""
        return self._json(post("webhooks", webhook_id, "deliveries", delivery_id, "redeliver"))
