"""What the API answers, field by field: the models behind ``response_model`` and the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.times import Moment
from lab.states import State


class Answer(BaseModel):
    """Base of all answers; fields beyond the documented ones are passed on, clients ignore what they do not know."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Progress(Answer):
    epoch: float
    epochs: int
    step: int
    steps: int | None
    fraction: float
    eta_seconds: float | None


class Failure(Answer):
    code: str
    message: str


class Twin(Answer):
    method: str
    job_id: str


class Job(Answer):
    """A training job."""

    id: str
    object: Literal["job"]
    name: str | None
    status: State
    status_reason: str | None
    spec: dict[str, Any]
    """Fully resolved: every default written out, the seed always present."""
    progress: Progress
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Failure | None
    twins: list[Twin]
    study_id: str | None
    labels: dict[str, str]
    links: dict[str, str]


class JobPage(Answer):
    """A page of jobs, newest first."""

    object: Literal["list"]
    data: list[Job]
    has_more: bool
    next: str | None
    """Value of ``after`` for the next page."""


class Warned(Answer):
    pointer: str
    """RFC 6901, as a URI fragment, of the field to change."""
    code: Literal["memory", "runtime", "alone"]
    detail: str


class Estimate(Answer):
    """What a job would be and cost, named as in ``cost`` of its results; nothing is stored."""

    object: Literal["estimate"]
    spec: dict[str, Any]
    parameters: int
    flops_per_step: int
    """Of matrix products and convolutions, a multiply-add as two."""
    peak_memory_bytes: int
    """Parameters, state of method and optimizer, and the most that a step holds; within a factor of two."""
    saved_activation_bytes: int
    """Activations held for a backward pass; within a factor of two."""
    estimated_seconds: float
    """Of the training steps, without evaluations and probes."""
    estimated_from: Literal["analytic", "measured"]
    """measured: finished jobs of this service, of the same method and kind of model, correct the arithmetic;
    analytic: arithmetic for one core of a server processor, which may be off by the difference to this machine."""
    warnings: list[Warned]
    """Limits that the job may exceed (what certainly does is refused), and what is asked for in vain."""


class Event(Answer):
    job_id: str
    seq: int
    type: str
    level: str
    at: datetime
    attempt: int | None
    message: str
    data: dict[str, Any] | None
    key_id: str | None


class EventPage(Answer):
    """The log of a job, oldest first."""

    object: Literal["list"]
    data: list[Event]
    has_more: bool
    next: int | None
    """Value of ``after_seq`` for the next page."""


class Series(Answer):
    name: str
    layer: str | None
    total_points: int
    downsampled: bool
    points: list[tuple[int, float, float | None]]
    """``[step, epoch, value]``; an undefined value is null."""


class Metrics(Answer):
    series: list[Series]


class Probe(Answer):
    samples: int
    split: str
    sha256: str


class Alignment(Answer):
    """A metric as a matrix, layer × step."""

    metric: str
    definition: str
    unit: str
    probe: Probe | None
    layers: list[str]
    steps: list[int]
    epochs: list[float]
    values: list[list[float | None]]
    std: list[list[float | None]] | None
    total_points: int
    downsampled: bool


class Results(Answer):
    """What is known so far; final once the job has ended."""

    job_id: str
    status: State
    method: str
    test: dict[str, Any] | None
    train: dict[str, Any] | None
    alignment: dict[str, Any] | None
    cost: dict[str, Any] | None
    pairing: dict[str, Any] | None
    diagnoses: list[dict[str, Any]] | None
    environment: dict[str, Any] | None


class Artifact(Answer):
    name: str
    size: int
    sha256: str
    media_type: str
    attempt: int
    created_at: datetime
    expires_at: datetime | None
    """Until when the file is kept; null: as long as the job."""
    expired: bool
    """The file is not kept any more: a download answers 410."""
    url: str


class ArtifactList(Answer):
    object: Literal["list"]
    data: list[Artifact]
    has_more: bool
    next: str | None


class Citation(Answer):
    authors: str
    title: str
    year: int
    venue: str
    url: str


class Method(Answer):
    """A credit-assignment method: where it comes from, what it needs, what it trains, and its options."""

    object: Literal["method"]
    name: str
    title: str
    summary: str
    equation: str
    """The teaching signal of hidden layer k, or the loss that it learns from."""
    flow: Literal["backward", "broadcast", "local", "forward", "none"]
    """How credit reaches a hidden layer; forward: by a second forward pass."""
    order: Literal["sequential", "parallel"]
    """In which order hidden layers can be told."""
    state: str | None
    """What the method keeps beside the net's own weights."""
    citations: list[Citation]
    needs: list[str]
    """global_score: the derivative of the loss at the output; labels; derivatives: autograd inside a block;
    weight_transport: transposed weights or their signs; backward_pass: a layer waits for the one above it;
    second_forward: a second forward pass."""
    families: list[str]
    """Kinds of models that it trains: dense, conv, mixer."""
    activations: list[str] | None
    """Nonlinearities that it works with; null: any."""
    plain: bool
    """It trains layers of one weight and a nonlinearity only, without norm and dropout."""
    losses: list[str]
    models: list[str]
    """Those that it trains, some perhaps with another nonlinearity than their default."""
    options: dict[str, Any]
    """JSON Schema of ``method`` in a job spec."""


class MethodList(Answer):
    object: Literal["list"]
    data: list[Method]
    has_more: bool
    next: str | None


class Model(Answer):
    object: Literal["model"]
    name: str
    summary: str
    methods: list[str]
    """Those that train it, some perhaps with another nonlinearity than its default."""
    options: dict[str, Any]
    """JSON Schema of ``model`` in a job spec."""


class ModelList(Answer):
    object: Literal["list"]
    data: list[Model]
    has_more: bool
    next: str | None


class Dataset(Answer):
    object: Literal["dataset"]
    id: str | None
    """Of one that a user has sent, as specs name it; null: it comes with CreditLab."""
    name: str
    title: str
    summary: str
    licence: str | None
    """Null where its authors state none."""
    citation: Citation | None
    bundled: bool
    """Comes with CreditLab; others are read from a folder or downloaded at first use."""
    shape: list[int]
    """Channels, height, width."""
    classes: int
    class_names: list[str] | None
    """In the order of their labels, where what was sent names them."""
    train_images: int
    validation_images: int
    """Of the official validation split; 0: it has none."""
    test_images: int
    refusal: str | None
    """Why nothing here can train on it; null where something can."""
    sha256: str | None
    """Of the decoded content of one that was sent."""
    format: str | None
    """In which it was sent."""
    bytes: int | None
    """That it takes on the service's disk."""
    created_at: datetime | None
    options: dict[str, Any]
    """JSON Schema of ``dataset`` in a job spec."""


class DatasetList(Answer):
    object: Literal["list"]
    data: list[Dataset]
    has_more: bool
    next: str | None


Scope = Literal["read", "write", "admin"]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3)]


class Key(Answer):
    """An API key, without its secret."""

    id: str
    object: Literal["key"]
    name: str
    project: str
    scopes: list[Scope]
    """Each holds those before it: read, write, admin."""
    last4: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""


class KeyMade(Key):
    key: str
    """The secret, shown this once."""


class KeyPage(Answer):
    """Keys of the project, newest first."""

    object: Literal["list"]
    data: list[Key]
    has_more: bool
    next: str | None


class Sent(BaseModel):
    """Base of the bodies that are sent; fields beyond the documented ones are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class KeyCreate(Sent):
    name: KeyName
    scopes: Scopes
    """What the key may do; admin: keys, too. The widest counts."""
    expires_at: Moment | None = None
    """RFC 3339, with its offset; null: never."""


class KeyChange(Sent):
    name: KeyName = Field(default_factory=str)
    scopes: Scopes = Field(default_factory=list)
    expires_at: Moment | None = Field(default_factory=lambda: None)


class Alive(Answer):
    status: Literal["alive"]


class Check(Answer):
    ok: bool
    detail: str


class Ready(Answer):
    status: Literal["ready"]
    checks: dict[str, Check]


class Fault(Answer):
    """One thing that is wrong: a place in the body, a query parameter or a header."""

    pointer: str | None = None
    """RFC 6901, as a URI fragment."""
    parameter: str | None = None
    header: str | None = None
    detail: str
    allowed: list[Any] | None = None


class Problem(Answer):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    errors: list[Fault] | None = None


class ProblemType(Answer):
    """What a kind of problem means."""

    type: str
    code: str
    meaning: str
