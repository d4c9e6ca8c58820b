"""How long the training steps of a run take, by arithmetic: a rough figure, for a machine that nobody has measured yet.

    step = operations · OPERATION + FLOPs / RATE + activations moved / TRAFFIC + state moved / STATE_TRAFFIC
           + gradients / EXCHANGE, where several processes share a batch: FLOPs and activations are those of a share

The constants were fitted to the CPU time of 264 runs on one core of a server processor (torch 2.13, float32), all
methods on multilayer perceptrons, convolutional nets and Mixers, batches of 16 and 128; every one of them took between
half and twice the figure. Other machines differ by a factor that finished runs show (``lab.forecast``).
"""

from typing import NamedTuple

from credit import spec
from credit.estimate import Net, flops_per_step, layers, learned, parameters
from credit.memory import NUMBER, passing, peak_bytes
from credit.spec.plan import blocks

WITHIN_MIXING = 7
"""Operations of one mixing part; other parts are one each."""
OBJECTIVE: dict[type[spec.Spec], int] = {spec.FF: 14, spec.LocalLoss: 14}
"""Operations of a block's own objective, where it is more than a signal."""


class Machine(NamedTuple):
    """What a device does in a second."""

    operation: float
    """Seconds to start one, however small."""
    rate: float
    """FLOPs per second of products and convolutions, of one thread on a CPU."""
    traffic: float
    """Bytes of activations per second."""
    state_traffic: float
    """Bytes of parameters, moments and gradients per second."""
    draw: float
    """Seconds to draw a random number."""
    exchange: float
    """Bytes of gradients per second that processes agree on; 8 MB took two of them 10 ms on two busy cores."""


CPU = Machine(operation=6.5e-5, rate=8e10, traffic=2.9e9, state_traffic=4.6e9, draw=1e-8, exchange=8e8)
CUDA = Machine(operation=2e-5, rate=1e13, traffic=5e11, state_traffic=5e11, draw=1e-10, exchange=1e11)
"""Of a data-centre GPU by its data sheet; not measured."""


def steps(run: spec.Run) -> int:
    """Training steps of the whole run."""
    training, dataset = run.training, run.dataset
    samples = dataset.train_samples or dataset.train_images
    samples -= round(samples * dataset.validation_fraction)
    whole, rest = divmod(samples, training.batch_size)
    return training.epochs * (whole + (rest > 0 and not training.drop_last))


def seconds(run: spec.Run, machine: Machine = CPU) -> float:
    """Of all training steps, without evaluations and probes."""
    net = blocks(layers(run), run.method)
    threads = (run.training.threads or 1) if machine is CPU else 1
    devices = run.training.devices
    flops = flops_per_step(run) / threads / devices
    step = (
        _operations(run, net) * machine.operation
        + flops / machine.rate
        + _moved(run, net) / devices / machine.traffic
        + peak_bytes(run) / machine.state_traffic
        + _drawn(run, net) * machine.draw
        + (NUMBER * parameters(run) / machine.exchange if devices > 1 else 0)
    )
    return steps(run) * step


def _operations(run: spec.Run, net: Net) -> int:
    """Forward, and two more where a part is told; and those of each block's signal or objective."""
    told = net[-1:] if isinstance(run.method, spec.Shallow) else net
    forward, back = (
        sum(WITHIN_MIXING if isinstance(placed.part, spec.Mixing) else 1 for block in part for placed in block)
        for part in (net, told)
    )
    return forward + 2 * back + OBJECTIVE.get(type(run.method), 2) * len(net)


def _moved(run: spec.Run, net: Net) -> int:
    """Bytes that the activations of a step are read and written: thrice where a block is told, else once."""
    bytes_ = 0
    for k, block in enumerate(net):
        times = 1 if isinstance(run.method, spec.Shallow) and k < len(net) - 1 else 3
        bytes_ += times * sum(passing(placed.part, placed.shape) for placed in block)
    return NUMBER * run.training.batch_size * bytes_


def _drawn(run: spec.Run, net: Net) -> int:
    """Random numbers of a step: the magnitudes that ``brsf`` draws for every batch."""
    if not isinstance(run.method, spec.BRSF):
        return 0
    return sum(module.numbers for block in net for placed in block for module in learned([placed]))
