# SPDX-License-Identifier: Apache-2.0
"""Which devices workers run on, and how full those devices are.

A worker sees no GPU but its own, so that everything in it may call that one the first.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from services.common.worker.options import WorkerOptions
from styleavatar_core.errors import InvalidInputError

logger = logging.getLogger(__name__)

CPU = "cpu"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"

# Index of a GPU, its used bytes, and the share of the time that it was busy of late; None of either
# that it does not tell, as the latter where it is divided (MIG).
DeviceLoad = tuple[int, int | None, float | None]


def device_options(options: WorkerOptions, names: str) -> list[WorkerOptions]:
    """Says how a worker is started on each device.

    Args:
        options: What is the same on all of them.
        names: Indices of GPUs, or ``cpu``, with commas between; empty leaves the choice to the
            machine: workers see all that it has.

    Returns:
        One for each device.

    Raises:
        InvalidInputError: A name is neither.
    """
    if not names:
        return [options]
    devices = []
    for name in (part.strip() for part in names.split(",")):
        if name != CPU and not name.isdecimal():
            raise InvalidInputError(
                f"devices must be indices of GPUs or '{CPU}', with commas between, got '{name}'",
                reason="BAD_SETTING",
            )
        visible = "" if name == CPU else name
        environment = {**options.environment, VISIBLE_VARIABLE: visible}
        devices.append(replace(options, environment=environment))
    return devices


def open_nvml() -> Any | None:
    """Returns NVIDIA's management library, if it and a driver are here."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # not installed, no driver, no permission: no metrics
        logger.info("no metrics of GPUs", extra={"reason": str(error)})
        return None
    return nvml


def device_loads(nvml: Any) -> Iterator[DeviceLoad]:
    """Yields how full each GPU is; those that do not answer are left out.

    Args:
        nvml: What ``open_nvml`` gave.
    """

    def ask(question: Callable[..., Any], *arguments: Any) -> Any | None:
        try:
            return question(*arguments)
        except nvml.NVMLError as error:
            logger.debug("a GPU does not tell", extra={"reason": str(error)})
            return None

    for index in range(ask(nvml.nvmlDeviceGetCount) or 0):
        handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            continue
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        yield (
            index,
            None if memory is None else int(memory.used),
            None if rates is None else rates.gpu / 100,
        )


def device_reader() -> Callable[[], Sequence[DeviceLoad]]:
    """Returns what reads the load of all GPUs; of none where they cannot be asked."""
    nvml = open_nvml()
    return lambda: list(device_loads(nvml)) if nvml else []
