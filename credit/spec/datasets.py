"""The data sets: their sizes, sources and licences, and what of them is used."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from credit.spec.base import ByName, Count, Fraction, Incompatible, Spec

Side = Annotated[int, Ge(1), Le(1024)]


@dataclass(frozen=True)
class Citation:
    """What to cite."""

    authors: str
    title: str
    year: int
    venue: str
    url: str


LECUN = Citation(
    "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner",
    "Gradient-based learning applied to document recognition",
    1998,
    "Proceedings of the IEEE 86(11), 2278–2324",
    "https://doi.org/10.1109/5.726791",
)
XIAO = Citation(
    "H. Xiao, K. Rasul, R. Vollgraf",
    "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    2017,
    "arXiv",
    "https://arxiv.org/abs/1708.07747",
)
KRIZHEVSKY = Citation(
    "A. Krizhevsky",
    "Learning multiple layers of features from tiny images",
    2009,
    "University of Toronto",
    "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
)
LE = Citation(
    "Y. Le, X. S. Yang",
    "Tiny ImageNet visual recognition challenge",
    2015,
    "CS 231N, Stanford University",
    "http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf",
)
YANG = Citation(
    "J. Yang, R. Shi, D. Wei, Z. Liu, L. Zhao, B. Ke, H. Pfister, B. Ni",
    "MedMNIST v2 - a large-scale lightweight benchmark for 2D and 3D biomedical image classification",
    2023,
    "Scientific Data 10, 41",
    "https://doi.org/10.1038/s41597-022-01721-8",
)


@dataclass(frozen=True, kw_only=True)
class Images(Spec):
    """Options common to all image data sets."""

    title: ClassVar[str]
    licence: ClassVar[str | None]
    """None where its authors state none."""
    citation: ClassVar[Citation | None]
    """None of a user's own."""
    bundled: ClassVar[bool] = False
    """Comes with CreditLab."""
    refusal: ClassVar[str | None] = None
    """Why nothing here can train on it; None where something can."""

    train_images: ClassVar[int]
    """Of the official set. A subset in its layout may take its place where the set is read from single pictures."""
    validation_images: ClassVar[int] = 0
    """Of the official validation split; 0: it has none."""
    test_images: ClassVar[int]
    shape: ClassVar[tuple[int, int, int]]
    """Channels, height, width."""
    classes: ClassVar[int]

    train_samples: Count | None = None
    """Use this many training images, a subset that depends on the data set alone; null: all."""
    test_samples: Count | None = None
    """Likewise for the test images."""
    validation_fraction: Fraction = 0.0
    """Share of the chosen training images that is held out as the validation split."""
    augment: Literal["none", "flip_crop"] = "none"
    """flip_crop: every training image is mirrored left to right half of the time, then cropped at random from itself
    with a border of 4 zeros. Means nothing good where mirrored images mean something else, as digits do."""
    normalize: Literal["standard", "unit"] = "standard"
    """standard: per channel, minus the data set's mean, over its deviation; unit: values in [0, 1]."""

    def __post_init__(self) -> None:
        if self.refusal:
            raise Incompatible("/name", self.refusal)
        for name, available in (("train_samples", self.train_images), ("test_samples", self.test_images)):
            wanted = getattr(self, name)
            if wanted is not None and wanted > available:
                raise Incompatible(f"/{name}", f"{wanted} is more than the {available} images there are")
        if self.validation_fraction and self.validation_images:
            raise Incompatible("/validation_fraction", "the data set has a validation split of its own; set 0")
        train = self.train_samples or self.train_images
        if self.validation_fraction and not 0 < round(train * self.validation_fraction) < train:
            raise Incompatible("/validation_fraction", f"leaves one of the splits of {train} images empty")


@dataclass(frozen=True, kw_only=True)
class FashionMNISTMini(Images):
    """A stratified subset of Fashion-MNIST that comes with CreditLab (MIT licence, Zalando SE)."""

    title, licence, citation, bundled = "Fashion-MNIST, a stratified subset", "MIT", XIAO, True
    train_images, test_images, shape, classes = 8_000, 2_000, (1, 28, 28), 10
    name: Literal["fashion-mnist-mini"] = "fashion-mnist-mini"


@dataclass(frozen=True, kw_only=True)
class MNIST(Images):
    """Handwritten digits, 28×28 grey (LeCun, Bottou, Bengio and Haffner 1998)."""

    title, licence, citation = "MNIST handwritten digits", "CC BY-SA 3.0", LECUN
    train_images, test_images, shape, classes = 60_000, 10_000, (1, 28, 28), 10
    name: Literal["mnist"] = "mnist"


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(Images):
    """Articles of clothing, 28×28 grey (Xiao, Rasul and Vollgraf 2017)."""

    title, licence, citation = "Fashion-MNIST", "MIT", XIAO
    train_images, test_images, shape, classes = 60_000, 10_000, (1, 28, 28), 10
    name: Literal["fashion-mnist"] = "fashion-mnist"


@dataclass(frozen=True, kw_only=True)
class CIFAR10(Images):
    """Photographs of ten kinds of objects, 32×32 RGB (Krizhevsky 2009)."""

    title, licence, citation = "CIFAR-10", None, KRIZHEVSKY
    train_images, test_images, shape, classes = 50_000, 10_000, (3, 32, 32), 10
    name: Literal["cifar10"] = "cifar10"


@dataclass(frozen=True, kw_only=True)
class CIFAR100(Images):
    """Photographs of a hundred kinds of objects (the fine labels), 32×32 RGB (Krizhevsky 2009)."""

    title, licence, citation = "CIFAR-100", None, KRIZHEVSKY
    train_images, test_images, shape, classes = 50_000, 10_000, (3, 32, 32), 100
    name: Literal["cifar100"] = "cifar100"


@dataclass(frozen=True, kw_only=True)
class TinyImageNet(Images):
    """Photographs of 200 kinds of objects, 64×64 RGB (Le and Yang 2015).

    The official validation split is the test split here, as the official test split has no labels. A subset in the
    official layout may be placed instead of the whole.
    """

    title, licence, citation = "Tiny ImageNet", "ImageNet terms: non-commercial research and education only", LE
    train_images, test_images, shape, classes = 100_000, 10_000, (3, 64, 64), 200
    name: Literal["tiny-imagenet"] = "tiny-imagenet"


@dataclass(frozen=True, kw_only=True)
class MedMNIST(Images):
    """Common to the two-dimensional sets of MedMNIST, which bring a validation split each."""

    licence, citation = "CC BY 4.0", YANG


@dataclass(frozen=True, kw_only=True)
class PathMNIST(MedMNIST):
    """Nine kinds of tissue on slides of colon cancer, 28×28 RGB (MedMNIST v2)."""

    title, shape, classes = "PathMNIST", (3, 28, 28), 9
    train_images, validation_images, test_images = 89_996, 10_004, 7_180
    name: Literal["pathmnist"] = "pathmnist"


@dataclass(frozen=True, kw_only=True)
class ChestMNIST(MedMNIST):
    """Refused: X-rays of the chest, each with any of 14 findings, 28×28 grey (MedMNIST v2)."""

    refusal = "chestmnist has 14 labels that do not exclude each other; only sets of one class per image can be trained"
    title, shape, classes = "ChestMNIST", (1, 28, 28), 14
    train_images, validation_images, test_images = 78_468, 11_219, 22_433
    name: Literal["chestmnist"] = "chestmnist"


@dataclass(frozen=True, kw_only=True)
class DermaMNIST(MedMNIST):
    """Seven kinds of pigmented skin lesions under the dermatoscope, 28×28 RGB (MedMNIST v2)."""

    licence = "CC BY-NC 4.0"
    title, shape, classes = "DermaMNIST", (3, 28, 28), 7
    train_images, validation_images, test_images = 7_007, 1_003, 2_005
    name: Literal["dermamnist"] = "dermamnist"


@dataclass(frozen=True, kw_only=True)
class OCTMNIST(MedMNIST):
    """Tomographies of the retina: three diseases and none, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "OCTMNIST", (1, 28, 28), 4
    train_images, validation_images, test_images = 97_477, 10_832, 1_000
    name: Literal["octmnist"] = "octmnist"


@dataclass(frozen=True, kw_only=True)
class PneumoniaMNIST(MedMNIST):
    """X-rays of children's chests: pneumonia or none, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "PneumoniaMNIST", (1, 28, 28), 2
    train_images, validation_images, test_images = 4_708, 524, 624
    name: Literal["pneumoniamnist"] = "pneumoniamnist"


@dataclass(frozen=True, kw_only=True)
class RetinaMNIST(MedMNIST):
    """Photographs of the retina: five grades of diabetic retinopathy, taken as classes, 28×28 RGB (MedMNIST v2)."""

    title, shape, classes = "RetinaMNIST", (3, 28, 28), 5
    train_images, validation_images, test_images = 1_080, 120, 400
    name: Literal["retinamnist"] = "retinamnist"


@dataclass(frozen=True, kw_only=True)
class BreastMNIST(MedMNIST):
    """Ultrasound pictures of the breast: malignant or not, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "BreastMNIST", (1, 28, 28), 2
    train_images, validation_images, test_images = 546, 78, 156
    name: Literal["breastmnist"] = "breastmnist"


@dataclass(frozen=True, kw_only=True)
class BloodMNIST(MedMNIST):
    """Eight kinds of blood cells under the microscope, 28×28 RGB (MedMNIST v2)."""

    title, shape, classes = "BloodMNIST", (3, 28, 28), 8
    train_images, validation_images, test_images = 11_959, 1_712, 3_421
    name: Literal["bloodmnist"] = "bloodmnist"


@dataclass(frozen=True, kw_only=True)
class TissueMNIST(MedMNIST):
    """Eight kinds of cells of the kidney's cortex under the microscope, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "TissueMNIST", (1, 28, 28), 8
    train_images, validation_images, test_images = 165_466, 23_640, 47_280
    name: Literal["tissuemnist"] = "tissuemnist"


@dataclass(frozen=True, kw_only=True)
class OrganAMNIST(MedMNIST):
    """Eleven organs in axial tomographies of the abdomen, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "OrganAMNIST", (1, 28, 28), 11
    train_images, validation_images, test_images = 34_561, 6_491, 17_778
    name: Literal["organamnist"] = "organamnist"


@dataclass(frozen=True, kw_only=True)
class OrganCMNIST(MedMNIST):
    """Eleven organs in coronal tomographies of the abdomen, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "OrganCMNIST", (1, 28, 28), 11
    train_images, validation_images, test_images = 12_975, 2_392, 8_216
    name: Literal["organcmnist"] = "organcmnist"


@dataclass(frozen=True, kw_only=True)
class OrganSMNIST(MedMNIST):
    """Eleven organs in sagittal tomographies of the abdomen, 28×28 grey (MedMNIST v2)."""

    title, shape, classes = "OrganSMNIST", (1, 28, 28), 11
    train_images, validation_images, test_images = 13_932, 2_452, 8_827
    name: Literal["organsmnist"] = "organsmnist"


@dataclass(frozen=True, kw_only=True)
class Uploaded(Images):
    """A data set that a user has sent, by its id; the service fills in what it is, so that the spec says it all."""

    prefix: ClassVar[str] = "ds_"
    title, licence, citation = "A data set of the user's own", None, None

    name: Annotated[str, MaxLen(64)]
    """Its id; a request may give the name that its user has given it."""
    sha256: Annotated[str, MinLen(64), MaxLen(64)]
    """Of its tensors, as in ``environment.dataset_sha256`` of the results."""
    shape: Annotated[tuple[Side, ...], MinLen(3), MaxLen(3)]  # type: ignore[misc,assignment]  # others: of a class
    """Channels, height, width."""
    classes: Annotated[int, Ge(2), Le(1000)]  # type: ignore[misc]
    train_images: Count  # type: ignore[misc]
    test_images: Count  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise Incompatible("/sha256", "a SHA-256 is 64 hexadecimal digits in lower case")
        super().__post_init__()


Dataset = Annotated[
    FashionMNISTMini
    | MNIST
    | FashionMNIST
    | CIFAR10
    | CIFAR100
    | TinyImageNet
    | PathMNIST
    | ChestMNIST
    | DermaMNIST
    | OCTMNIST
    | PneumoniaMNIST
    | RetinaMNIST
    | BreastMNIST
    | BloodMNIST
    | TissueMNIST
    | OrganAMNIST
    | OrganCMNIST
    | OrganSMNIST
    | Uploaded,
    ByName(),
]
