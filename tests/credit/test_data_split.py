"""Subsets are nested and depend on the data set alone; batches are exact."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from credit import spec
from credit.data import Images
from credit.data.split import Split, Splits, split

CPU = torch.device("cpu")
TRAIN, TEST = 300, 90


@pytest.fixture(scope="module")
def images() -> Images:
    """MNIST-shaped images whose first pixels are their own number; labels are the number too, to be told apart."""
    generator = torch.Generator().manual_seed(0)

    def numbered(n: int) -> Tensor:
        x = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
        x[:, 0, 0, 0], x[:, 0, 0, 1] = torch.arange(n) % 256, torch.arange(n) // 256
        return x

    return Images.of(
        train_x=numbered(TRAIN), train_y=torch.arange(TRAIN), test_x=numbered(TEST), test_y=torch.arange(TEST)
    )


def members(part: Split) -> list[int]:
    """Numbers of the images in a split, which must agree with their labels."""
    numbers = (part.x[:, 0, 0, 0].long() + 256 * part.x[:, 0, 0, 1].long()).tolist()
    assert numbers == part.y.tolist()
    return numbers


def cut(images: Images, **options: Any) -> Splits:
    return split(images, spec.MNIST(**options), CPU)


def test_whole_sets_stay_as_they_are_without_a_copy(images: Images) -> None:
    splits = cut(images)
    assert members(splits.train) == list(range(TRAIN))
    assert members(splits.test) == list(range(TEST))
    assert splits.validation is None
    assert splits.train.x.data_ptr() == images.train_x.data_ptr()


def test_subsets_are_nested_in_file_order_and_not_the_first_images(images: Images) -> None:
    sizes = [1, 2, 50, 51, 200, 299, 300]
    chosen = [members(cut(images, train_samples=n).train) for n in sizes]
    tested = [members(cut(images, test_samples=n).test) for n in (1, 40, 90)]
    for subsets in (chosen, tested):
        for smaller, larger in pairwise(subsets):
            assert set(smaller) < set(larger)
        for subset in subsets:
            assert subset == sorted(set(subset))
    assert list(map(len, chosen)) == sizes
    assert chosen[2] != list(range(50))


def test_subsets_do_not_depend_on_the_global_generator(images: Images) -> None:
    torch.manual_seed(1)
    first = members(cut(images, train_samples=50).train)
    state = torch.manual_seed(2).get_state()
    assert members(cut(images, train_samples=50).train) == first
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("samples", "fraction"), [(None, 0.1), (200, 0.25), (7, 0.5), (300, 0.003)])
def test_validation_images_are_held_out_of_the_chosen_ones(
    images: Images, samples: int | None, fraction: float
) -> None:
    splits = cut(images, train_samples=samples, validation_fraction=fraction)
    assert splits.validation is not None
    train, validation = members(splits.train), members(splits.validation)
    assert sorted(train + validation) == members(cut(images, train_samples=samples).train)
    assert len(validation) == round((samples or TRAIN) * fraction)
    assert train == sorted(train)
    assert validation == sorted(validation)


@pytest.mark.parametrize(
    ("dataset", "mean", "std"),
    [
        (spec.FashionMNISTMini, (0.2860,), (0.3530,)),
        (spec.MNIST, (0.1307,), (0.3081,)),
        (spec.FashionMNIST, (0.2860,), (0.3530,)),
        (spec.CIFAR10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ],
)
def test_batches_are_normalised_per_channel_with_the_constants_of_the_data_set(
    dataset: type[spec.Images], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    every_value = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *dataset.shape).contiguous()
    labels = torch.arange(256)
    images = Images.of(train_x=every_value, train_y=labels, test_x=every_value, test_y=labels)
    x, y = split(images, dataset(), CPU).train.batch(labels)
    exact = (every_value.double() / 255 - torch.tensor(mean).double().view(-1, 1, 1)) / torch.tensor(std).double().view(
        -1, 1, 1
    )
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-6)
    assert torch.equal(y, labels)
    unit, _ = split(images, dataset(normalize="unit"), CPU).test.batch(labels)
    torch.testing.assert_close(unit.double(), every_value.double() / 255, rtol=0, atol=1e-7)
    assert unit.min() == 0
    assert unit.max() == 1


def test_a_batch_is_what_a_loop_over_its_samples_gives() -> None:
    x = torch.randint(0, 256, (20, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    part = Split(x, torch.arange(20) % 3, mean, std)
    index = torch.tensor([19, 0, 7, 7, 3])
    batch, labels = part.batch(index)
    assert len(part) == 20
    assert batch.shape == (5, 3, 6, 5)
    for row, sample in enumerate(index.tolist()):
        assert labels[row] == sample % 3
        for c in range(3):
            for pixel, value in zip(batch[row, c].flatten().tolist(), x[sample, c].flatten().tolist(), strict=True):
                assert math.isclose(pixel, (value / 255 - mean[c]) / std[c], rel_tol=1e-5, abs_tol=1e-6)


def test_batches_do_not_change_the_split() -> None:
    x = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    part = Split(x.clone(), torch.arange(8), (0.5,), (0.5,))
    first, _ = part.batch(torch.arange(8))
    kept = first.clone()
    second, _ = part.batch(torch.arange(8))
    second.zero_()
    assert torch.equal(part.x, x)
    assert torch.equal(first, kept)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_split_on_the_gpu_gives_the_same_batches_there(images: Images) -> None:
    gpu = split(images, spec.MNIST(train_samples=50), torch.device("cuda"))
    index = torch.tensor([3, 1, 4])
    x, y = gpu.train.batch(index.cuda())
    expected, labels = cut(images, train_samples=50).train.batch(index)
    assert x.is_cuda
    torch.testing.assert_close(x.cpu(), expected)
    assert torch.equal(y.cpu(), labels)
