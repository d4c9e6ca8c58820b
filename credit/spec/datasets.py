"""The data sets, their sizes and what of them is used."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from credit.spec.base import ByName, Count, Fraction, Incompatible, Spec


@dataclass(frozen=True, kw_only=True)
class Images(Spec):
    """Options common to all image data sets."""

    train_images: ClassVar[int]
    test_images: ClassVar[int]
    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]

    train_samples: Count | None = None
    """Use this many training images, a subset that depends on the data set alone; null: all."""
    test_samples: Count | None = None
    """Likewise for the test images."""
    validation_fraction: Fraction = 0.0
    """Share of the chosen training images that is held out as the validation split."""
    augment: Literal["none"] = "none"
    normalize: Literal["standard", "unit"] = "standard"
    """standard: per channel, minus the data set's mean, over its deviation; unit: values in [0, 1]."""

    def __post_init__(self) -> None:
        for name, available in (("train_samples", self.train_images), ("test_samples", self.test_images)):
            wanted = getattr(self, name)
            if wanted is not None and wanted > available:
                raise Incompatible(f"/{name}", f"{wanted} is more than the {available} images there are")
        train = self.train_samples or self.train_images
        if self.validation_fraction and not 0 < round(train * self.validation_fraction) < train:
            raise Incompatible("/validation_fraction", f"leaves one of the splits of {train} images empty")


@dataclass(frozen=True, kw_only=True)
class FashionMNISTMini(Images):
    """A stratified subset of Fashion-MNIST that comes with CreditLab (MIT licence, Zalando SE)."""

    train_images, test_images, shape, classes = 8_000, 2_000, (1, 28, 28), 10
    name: Literal["fashion-mnist-mini"] = "fashion-mnist-mini"


@dataclass(frozen=True, kw_only=True)
class MNIST(Images):
    """Handwritten digits, 28×28 grey (LeCun, Bottou, Bengio and Haffner 1998)."""

    train_images, test_images, shape, classes = 60_000, 10_000, (1, 28, 28), 10
    name: Literal["mnist"] = "mnist"


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(Images):
    """Articles of clothing, 28×28 grey (Xiao, Rasul and Vollgraf 2017)."""

    train_images, test_images, shape, classes = 60_000, 10_000, (1, 28, 28), 10
    name: Literal["fashion-mnist"] = "fashion-mnist"


@dataclass(frozen=True, kw_only=True)
class CIFAR10(Images):
    """Photographs of ten kinds of objects, 32×32 RGB (Krizhevsky 2009)."""

    train_images, test_images, shape, classes = 50_000, 10_000, (3, 32, 32), 10
    name: Literal["cifar10"] = "cifar10"


Dataset = Annotated[FashionMNISTMini | MNIST | FashionMNIST | CIFAR10, ByName()]
