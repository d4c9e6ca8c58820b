"""What the GPUs of this machine are doing, asked of NVIDIA's driver (NVML); where there is none, nothing is said."""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import pynvml

from lab.ticker import Ticker

READ_SECONDS = 5.0
STALE_SECONDS = 20.0
"""A driver that hangs takes the reading thread with it; what it said before that does not count for longer."""

log = logging.getLogger(__name__)


class Gpus(Ticker):
    """Reads them in a thread of its own, so that a driver that hangs does not stop the worker's heart."""

    duty = "reader of GPUs"

    def __init__(self) -> None:
        super().__init__(READ_SECONDS)
        self._known: tuple[float, list[dict[str, Any]]] = (float("-inf"), [])

    def start(self) -> None:
        """Read once, and go on in a thread; without a driver nothing is started."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            log.debug("no GPU is reported: %s", error)
            return
        self.tick()
        super().start()

    def tick(self) -> None:
        self._known = (time.monotonic(), read())

    def known(self) -> list[dict[str, Any]]:
        """What was read last, if that was lately."""
        read_at, gpus = self._known
        return gpus if time.monotonic() - read_at < STALE_SECONDS else []


def read() -> list[dict[str, Any]]:
    """All GPUs as ``GET /v1/workers`` shows them; a number that the driver or the device does not give is None."""
    try:
        return [gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("the GPUs cannot be read: %s", error)
        return []


def gpu(index: int) -> dict[str, Any]:
    """One of them. Raises pynvml.NVMLError where it cannot be found at all."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = given(pynvml.nvmlDeviceGetMemoryInfo, handle)
    use = given(pynvml.nvmlDeviceGetUtilizationRates, handle)
    milliwatts = given(pynvml.nvmlDeviceGetPowerUsage, handle)
    millijoules = given(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    return {
        "index": index,
        "uuid": given(pynvml.nvmlDeviceGetUUID, handle),
        "name": given(pynvml.nvmlDeviceGetName, handle),
        "memory_used_bytes": memory and memory.used,
        "memory_total_bytes": memory and memory.total,
        "utilization": use and use.gpu / 100,
        "temperature_celsius": given(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        "power_watts": None if milliwatts is None else milliwatts / 1000,
        "energy_joules": None if millijoules is None else millijoules / 1000,
    }


def given(ask: Callable[..., Any], *arguments: Any) -> Any:
    """An answer of the driver, or None where it has none: older ones lack functions, devices lack sensors."""
    with contextlib.suppress(pynvml.NVMLError):
        return ask(*arguments)
    return None
