"""What the menus do not say: where a method comes from and what it needs, under which licence a data set is."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args

from credit import spec
from lab import specs


@dataclass(frozen=True)
class Citation:
    authors: str
    title: str
    year: int
    venue: str
    url: str


@dataclass(frozen=True)
class MethodFacts:
    title: str
    equation: str
    """The teaching signal of hidden layer k."""
    flow: str
    """How credit reaches a block: ``backward``, ``broadcast`` or ``local``; ``none`` where hidden blocks get none."""
    order: str
    """In which order hidden layers can be told: ``sequential`` or ``parallel``."""
    state: str | None
    """What the method keeps beside the net's own weights."""
    needs: tuple[str, ...]
    citations: tuple[Citation, ...]


@dataclass(frozen=True)
class DatasetFacts:
    title: str
    licence: str | None
    """None where its authors state none."""
    bundled: bool
    citation: Citation


RUMELHART = Citation(
    "D. E. Rumelhart, G. E. Hinton, R. J. Williams",
    "Learning representations by back-propagating errors",
    1986,
    "Nature 323, 533–536",
    "https://doi.org/10.1038/323533a0",
)
LILLICRAP = Citation(
    "T. P. Lillicrap, D. Cownden, D. B. Tweed, C. J. Akerman",
    "Random synaptic feedback weights support error backpropagation for deep learning",
    2016,
    "Nature Communications 7, 13276",
    "https://arxiv.org/abs/1411.0247",
)
NOKLAND = Citation(
    "A. Nøkland",
    "Direct feedback alignment provides learning in deep neural networks",
    2016,
    "NeurIPS 2016",
    "https://arxiv.org/abs/1609.01596",
)
LAUNAY = Citation(
    "J. Launay, I. Poli, F. Krzakala",
    "Principled training of neural networks with direct feedback alignment",
    2019,
    "arXiv",
    "https://arxiv.org/abs/1906.04554",
)
LAUNAY_2020 = Citation(
    "J. Launay, I. Poli, F. Boniface, F. Krzakala",
    "Direct feedback alignment scales to modern deep learning tasks and architectures",
    2020,
    "NeurIPS 2020",
    "https://arxiv.org/abs/2006.12878",
)
XIAO = Citation(
    "H. Xiao, K. Rasul, R. Vollgraf",
    "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    2017,
    "arXiv",
    "https://arxiv.org/abs/1708.07747",
)
LECUN = Citation(
    "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner",
    "Gradient-based learning applied to document recognition",
    1998,
    "Proceedings of the IEEE 86(11), 2278–2324",
    "https://doi.org/10.1109/5.726791",
)
KRIZHEVSKY = Citation(
    "A. Krizhevsky",
    "Learning multiple layers of features from tiny images",
    2009,
    "University of Toronto",
    "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
)

METHODS: dict[type[spec.Spec], MethodFacts] = {
    spec.BP: MethodFacts(
        title="Backpropagation",
        equation="δ_k = (δ_{k+1} W_{k+1}) ⊙ f′_k(a_k)",
        flow="backward",
        order="sequential",
        state=None,
        needs=("one graph through the whole net", "the transposed forward weights"),
        citations=(RUMELHART,),
    ),
    spec.Shallow: MethodFacts(
        title="Frozen hidden layers",
        equation="δ_k = 0 for k < L",
        flow="none",
        order="parallel",
        state=None,
        needs=("the output layer alone",),
        citations=(LAUNAY_2020,),
    ),
    spec.FA: MethodFacts(
        title="Feedback alignment",
        equation="δ_k = (δ_{k+1} B_{k+1}) ⊙ f′_k(a_k)",
        flow="backward",
        order="sequential",
        state="one fixed random B_{k+1} per weight, of the shape of W_{k+1}",
        needs=("one graph through the whole net",),
        citations=(LILLICRAP,),
    ),
    spec.DFA: MethodFacts(
        title="Direct feedback alignment",
        equation="δ_k = (s B_k) ⊙ f′_k(a_k)",
        flow="broadcast",
        order="parallel",
        state="one fixed random B_k (classes × width) per hidden layer, or slices of a single one",
        needs=("the score s of the output", "a graph inside each block"),
        citations=(NOKLAND, LAUNAY),
    ),
}

DATASETS: dict[type[spec.Images], DatasetFacts] = {
    spec.FashionMNISTMini: DatasetFacts("Fashion-MNIST, a stratified subset", "MIT", True, XIAO),
    spec.MNIST: DatasetFacts("MNIST handwritten digits", "CC BY-SA 3.0", False, LECUN),
    spec.FashionMNIST: DatasetFacts("Fashion-MNIST", "MIT", False, XIAO),
    spec.CIFAR10: DatasetFacts("CIFAR-10", None, False, KRIZHEVSKY),
}


def trains(method: Any, **other: Any) -> bool:
    """Whether the menu lets ``method`` train with this model or loss; everything else as it comes."""
    parts = {"model": spec.MLP(), "dataset": spec.FashionMNISTMini()} | other
    try:
        spec.Run(method=method(), **parts)
    except spec.Incompatible:
        return False
    return True


@cache
def method(name: str) -> dict[str, Any]:
    """A method as ``GET /v1/methods/{name}`` shows it."""
    kind = spec.menu(spec.Method)[name]
    models = spec.menu(spec.Model)
    return {
        "object": "method",
        "name": name,
        "summary": kind.__doc__,
        **members(METHODS[kind]),
        "models": [model for model, of in models.items() if trains(kind, model=of())],
        "losses": [loss for loss in get_args(spec.Loss) if trains(kind, loss=loss)],
        "options": specs.schema(kind),
    }


@cache
def model(name: str) -> dict[str, Any]:
    """A model as ``GET /v1/models`` shows it."""
    kind = spec.menu(spec.Model)[name]
    return {"object": "model", "name": name, "summary": kind.__doc__, "options": specs.schema(kind)}


@cache
def dataset(name: str) -> dict[str, Any]:
    """A data set as ``GET /v1/datasets/{name}`` shows it."""
    kind = spec.menu(spec.Dataset)[name]
    assert issubclass(kind, spec.Images)
    return {
        "object": "dataset",
        "name": name,
        "summary": kind.__doc__,
        **members(DATASETS[kind]),
        "shape": list(kind.shape),
        "classes": kind.classes,
        "train_images": kind.train_images,
        "test_images": kind.test_images,
        "options": specs.schema(kind),
    }


def members(facts: Any) -> dict[str, Any]:
    """The fields of a record of facts, citations as JSON objects."""
    return {member.name: plain(getattr(facts, member.name)) for member in fields(facts)}


def plain(value: Any) -> Any:
    if isinstance(value, Citation):
        return members(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value
