"""The menus as the API shows them: what ``credit.spec`` and ``credit.literature`` say, as JSON objects."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import cache
from typing import Any, get_args

from credit import spec
from credit.literature import METHODS
from credit.spec.plan import plan, unsuited
from lab import specs, tables
from lab.db import rfc3339

SHAPE, CLASSES = spec.FashionMNISTMini.shape, spec.FashionMNISTMini.classes


def forms(kind: type[spec.ModelSpec]) -> Iterator[spec.ModelSpec]:
    """A model of this kind with each nonlinearity that it can have."""
    chosen = "activation" in {field.name for field in fields(kind)}
    if kind is not spec.Custom and not chosen:
        yield kind()
        return
    for name in get_args(spec.Activation):
        layers = (spec.FlattenLayer(), spec.DenseLayer(units=1), spec.ActivationLayer(kind=name))
        yield kind(activation=name) if chosen else spec.Custom(layers=layers)  # type: ignore[call-arg]


def trains(method: type[spec.MethodSpec], model: type[spec.ModelSpec]) -> bool:
    """Whether the method can train the model in any of its forms."""
    return any(unsuited(form, plan(form, SHAPE, CLASSES), method()) is None for form in forms(model))


@cache
def method(name: str) -> dict[str, Any]:
    """A method as ``GET /v1/methods/{name}`` shows it."""
    kind = spec.menu(spec.Method)[name]
    assert issubclass(kind, spec.MethodSpec)
    return {
        "object": "method",
        "name": name,
        "summary": summary(kind),
        **asdict(METHODS[kind]),
        "needs": kind.needs,
        "families": kind.families,
        "activations": kind.activations,
        "plain": kind.plain,
        "losses": kind.losses,
        "models": [other for other, model in models().items() if trains(kind, model)],
        "options": specs.schema(kind),
    }


@cache
def model(name: str) -> dict[str, Any]:
    """A model as ``GET /v1/models`` shows it."""
    kind = models()[name]
    methods: dict[str, Any] = spec.menu(spec.Method)
    return {
        "object": "model",
        "name": name,
        "summary": summary(kind),
        "methods": [other for other, method in methods.items() if trains(method, kind)],
        "options": specs.schema(kind),
    }


@cache
def dataset(name: str) -> dict[str, Any]:
    """A data set as ``GET /v1/datasets/{name}`` shows it."""
    kind = spec.menu(spec.Dataset)[name]
    assert issubclass(kind, spec.Images)
    return {
        "object": "dataset",
        "id": None,
        "name": name,
        "title": kind.title,
        "summary": summary(kind),
        "licence": kind.licence,
        "citation": kind.citation and asdict(kind.citation),
        "bundled": kind.bundled,
        "shape": kind.shape,
        "classes": kind.classes,
        "class_names": None,
        "train_images": kind.train_images,
        "validation_images": kind.validation_images,
        "test_images": kind.test_images,
        "refusal": kind.refusal,
        "sha256": None,
        "format": None,
        "bytes": None,
        "created_at": None,
        "options": specs.schema(kind),
    }


def uploaded(row: tables.Dataset) -> dict[str, Any]:
    """A user's own data set, likewise."""
    kind = spec.Uploaded
    return {
        "object": "dataset",
        "id": row.id,
        "name": row.name,
        "title": row.name,
        "summary": row.description or summary(kind),
        "licence": kind.licence,
        "citation": kind.citation,
        "bundled": False,
        "shape": [row.channels, row.height, row.width],
        "classes": row.classes,
        "class_names": row.class_names,
        "train_images": row.train_images,
        "validation_images": 0,
        "test_images": row.test_images,
        "refusal": None,
        "sha256": row.sha256,
        "format": row.format,
        "bytes": row.bytes,
        "created_at": rfc3339(row.created_at),
        "options": specs.schema(kind),
    }


def models() -> dict[str, Any]:
    return spec.menu(spec.Model)


def summary(kind: type[spec.Spec]) -> str:
    """The class's docstring on one line."""
    return " ".join((kind.__doc__ or "").split())
