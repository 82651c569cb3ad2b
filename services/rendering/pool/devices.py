# SPDX-License-Identifier: Apache-2.0
"""Which devices workers run on, and how full those devices are.

A worker sees no GPU but its own, so that everything in it may call that one the first.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.common.worker.options import WorkerOptions
from styleavatar_core.errors import InvalidInputError

logger = logging.getLogger(__name__)

CPU = "cpu"
# More would take more memory than they are worth: each is a process with torch and its avatars.
MOST_CPU_WORKERS = 8
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
# What the avatars of a worker may take together: of a GPU's memory this share, for all its workers;
# the rest is CUDA's, and for what a frame takes while it is computed.
CPU_ENGINE_BYTES, GPU_ENGINE_SHARE = 2_000_000_000, 0.7

# Index of a GPU, its used bytes, and the share of the time that it was busy of late; None of either
# that it does not tell, as the latter where it is divided (MIG).
DeviceLoad = tuple[int, int | None, float | None]


@dataclass(frozen=True, slots=True)
class DeviceWorkers:
    """The workers of one device.

    Attributes:
        options: How each is started.
        count: How many there are.
    """

    options: WorkerOptions
    count: int


def device_names(
    setting: str, gpus: Sequence[int], environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Returns the devices that a setting names, or else all that this machine shows.

    Args:
        setting: Names with commas between, or empty.
        gpus: Indices of the machine's GPUs.
        environment: Where ``CUDA_VISIBLE_DEVICES`` may say which of them are ours.

    Raises:
        InvalidInputError: A name is none of a device.
    """
    if not setting:
        visible = environment.get(VISIBLE_VARIABLE, ",".join(map(str, gpus)))
        return [name.strip() for name in visible.split(",") if is_gpu(name.strip())] or [CPU]
    names = [name.strip() for name in setting.split(",")]
    for name in names:
        if name != CPU and not is_gpu(name):
            raise InvalidInputError(
                f"devices must be indices of GPUs, their UUIDs, or '{CPU}', with commas between, "
                f"got '{name}'",
                reason="BAD_SETTING",
            )
    return names


def is_gpu(name: str) -> bool:
    """Whether a device's name is an index or a UUID of a GPU, or of a part of one."""
    return name.isdecimal() or name.startswith(("GPU-", "MIG-"))


def device_workers(
    options: WorkerOptions,
    names: Sequence[str],
    core_count: int,
    workers_per_device: int | None = None,
    threads_per_worker: int | None = None,
) -> list[DeviceWorkers]:
    """Says how many workers each device has, and how they are started.

    A GPU has one. The CPU has one for each core, up to eight: the threads of one engine wait for
    each other and for whoever else needs their cores, engines of one thread wait for nobody.

    Args:
        options: What is the same on all devices.
        names: As ``device_names`` returns them.
        core_count: Cores that all workers share.
        workers_per_device: So many on each instead.
        threads_per_worker: So many threads for each engine, instead of a fair share of the cores.
    """
    cpu_count = min(core_count, MOST_CPU_WORKERS)
    counts = [workers_per_device or (cpu_count if name == CPU else 1) for name in names]
    threads = threads_per_worker or max(1, core_count // sum(counts))
    devices = []
    for name, count in zip(names, counts, strict=True):
        environment = {**options.environment, VISIBLE_VARIABLE: "" if name == CPU else name}
        told = {**options.options, "thread_count": threads}
        started = replace(options, options=told, environment=environment)
        devices.append(DeviceWorkers(started, count))
    return devices


def engine_bytes(nvml: Any | None, names: Sequence[str], workers_per_device: int | None) -> int:
    """Returns what the avatars of a worker may take, where nobody says it.

    Args:
        nvml: What ``open_nvml`` gave.
        names: Of the devices, as ``device_names`` returns them; the smallest decides.
        workers_per_device: How many each has; None for one on a GPU.
    """
    sizes = [_memory_bytes(nvml, name) for name in names if nvml and is_gpu(name)]
    known = [size for size in sizes if size is not None]
    if not known or CPU in names:
        return CPU_ENGINE_BYTES
    return round(GPU_ENGINE_SHARE * min(known) / (workers_per_device or 1))


def _memory_bytes(nvml: Any, name: str) -> int | None:
    """Returns the memory of a GPU, or of a part of one; None if it does not tell."""
    try:
        handle = (
            nvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdecimal()
            else nvml.nvmlDeviceGetHandleByUUID(name)
        )
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError as error:
        logger.info("a GPU does not tell its memory", extra={"reason": str(error)})
        return None


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


def device_reader(nvml: Any | None) -> Callable[[], Sequence[DeviceLoad]]:
    """Returns what reads the load of all GPUs; of none where they cannot be asked.

    Args:
        nvml: What ``open_nvml`` gave.
    """
    return lambda: list(device_loads(nvml)) if nvml else []
