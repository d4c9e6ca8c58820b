"""flip_crop is what a loop over samples gives, uniform, the same on every device and for every twin."""

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from credit import spec
from credit.data.augment import BORDER, flip_crop
from credit.events import Progress
from credit.setup import Setup, build
from credit.train import run


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def one_by_one(x: Tensor, source: Generator) -> Tensor:
    """The same draws, one sample after the other, by slices."""
    n, _, height, width = x.shape
    flipped_N = torch.randint(2, (n,), generator=source).tolist()
    top_N, left_N = torch.randint(2 * BORDER + 1, (2, n), generator=source).tolist()
    images = []
    for image, flipped, top, left in zip(x, flipped_N, top_N, left_N, strict=True):
        mirrored = image.flip(-1) if flipped else image
        bordered = functional.pad(mirrored, (BORDER,) * 4)
        images.append(bordered[:, top : top + height, left : left + width])
    return torch.stack(images)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (64, 3, 8, 11), (64, 1, 28, 28), (5, 2, 1, 3)])
def test_it_is_what_a_loop_over_samples_gives(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=generator(0))
    kept = x.clone()
    augmented = flip_crop(x, generator(1))
    assert torch.equal(augmented, one_by_one(x, generator(1)))
    assert torch.equal(x, kept)
    assert augmented.is_contiguous()
    assert torch.equal(augmented, flip_crop(x, generator(1)))
    if len(x) > 1:
        assert not torch.equal(augmented, flip_crop(x, generator(2)))


def test_half_are_mirrored_and_every_place_is_as_likely() -> None:
    """20,000 images whose pixels are their own numbers: what lies in the middle says where the crop came from."""
    n, size = 20_000, 9
    numbers = torch.arange(1.0, size * size + 1).view(1, 1, size, size).expand(n, -1, -1, -1)
    augmented = flip_crop(numbers, generator(0))
    middle = augmented[:, 0, size // 2, size // 2].long() - 1
    places = middle.bincount(minlength=size * size)
    assert len(places) == (2 * BORDER + 1) ** 2
    expected = n / len(places)
    chi_squared = float(((places - expected) ** 2 / expected).sum())
    assert chi_squared < 125  # 80 degrees of freedom: 0.999 of the draws lie below
    left, right = augmented[:, 0, size // 2, size // 2 - 1], augmented[:, 0, size // 2, size // 2]
    mirrored = (left > right)[left > 0]  # where left is not of the border
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.02


def test_the_border_is_zero_after_normalisation() -> None:
    augmented = flip_crop(torch.full((200, 3, 8, 8), 7.0), generator(0))
    assert set(augmented.unique().tolist()) == {0.0, 7.0}


def chosen(method: spec.Method, **dataset: object) -> spec.Run:
    return spec.Run(
        method=method,
        model=spec.MLP(hidden=(8,)),
        dataset=spec.FashionMNISTMini(train_samples=96, test_samples=50, **dataset),  # type: ignore[arg-type]
        training=spec.Training(epochs=2, batch_size=32, seed=5, threads=1, log_every=1, device="cpu"),
        alignment=spec.Alignment(every="never"),
    )


def batches(setup: Setup, first_step: int = 0) -> list[tuple[Tensor, Tensor]]:
    steps = range(first_step, 3)
    return [setup.batch(torch.arange(32 * step, 32 * step + 32), step) for step in steps]


def test_twins_and_resumed_runs_see_the_same_images_and_labels_are_left_alone(tmp_path: Path) -> None:
    method, twin = (build(chosen(kind, augment="flip_crop"), None, tmp_path) for kind in (spec.DFA(), spec.BP()))
    plain = build(chosen(spec.BP()), None, tmp_path)
    seen = batches(method)
    for (x, y), (other_x, other_y) in zip(seen, batches(twin), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
    for (x, y), (other_x, other_y) in zip(seen[1:], batches(twin, 1), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
    for step, ((x, y), (plain_x, plain_y)) in enumerate(zip(seen, batches(plain), strict=True)):
        exact = plain.splits.train.batch(torch.arange(32 * step, 32 * step + 32))[0]
        assert torch.equal(plain_x, exact)
        assert not torch.equal(x, plain_x)
        assert torch.equal(y, plain_y)
    index = torch.arange(50)
    assert torch.equal(method.splits.test.batch(index)[0], plain.splits.test.batch(index)[0])


def test_training_with_it_is_deterministic_and_another_than_without(tmp_path: Path) -> None:
    def losses(**dataset: object) -> list[float]:
        events = run(chosen(spec.BP(), **dataset), datasets=None, cache=tmp_path)
        return [loss for event in events if isinstance(event, Progress) for _, _, loss, _ in event.intervals]

    assert losses(augment="flip_crop") == losses(augment="flip_crop") != losses(augment="none")
    assert losses(augment="none") == losses()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_makes_the_same_images() -> None:
    x = torch.randn(64, 3, 32, 32, generator=generator(0))
    assert torch.equal(flip_crop(x.cuda(), generator(1)).cpu(), flip_crop(x, generator(1)))
