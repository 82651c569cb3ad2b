# SPDX-License-Identifier: Apache-2.0
"""An engine's work on a CUDA device: its own stream, fixed places, and graphs of what it launches.

All that asks for a device is here, so that the rest can be tested without one. Has not run on a GPU
yet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from styleavatar_core.errors import EngineUnavailableError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

Work = Callable[[], None]
Tensors = tuple[torch.Tensor, ...]

# One thread of the process launches frames or captures at a time: avatars are loaded beside
# rendering.
_LAUNCHING = threading.RLock()


def fast_device() -> str:
    """Returns where torch computes what is not an engine's."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_name() -> str:
    """Returns the architecture of the current GPU, such as ``sm90-NVIDIA H200``.

    Raises:
        EngineUnavailableError: There is none.
    """
    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            "the rendering backend 'tensorrt' needs a CUDA device, and none is visible here; "
            "choose auto"
        )
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}-{torch.cuda.get_device_name()}"


class CudaStream:
    """A stream beside those of other engines, so that none waits for another's frame, with a pool.

    Graphs of one stream run one after the other, and may therefore share what they compute in.
    torch has 32 streams, of which each of these takes two: from the seventeenth on they are shared.
    Open no two engines at once then, as a capture takes in all that its stream is given.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: str = "cuda") -> None:
        self.device = torch.device(device)
        self._stream = torch.cuda.Stream(self.device)
        self._way_back = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def handle(self) -> int:
        """The stream as the driver knows it."""
        return int(self._stream.cuda_stream)

    def on_host(self, like: torch.Tensor) -> torch.Tensor:
        """Returns pinned memory of the host for a tensor's values: copies are not waited for."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def follow(self) -> None:
        """Begins after what the caller has launched elsewhere: weights that move to the device."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def launch(self, work: Callable[[], Result]) -> Result:
        """Launches work on the stream, and does not wait for it."""
        with _LAUNCHING, torch.cuda.stream(self._stream):
            return work()

    def warm_up(self, work: Work) -> None:
        """Runs work on the stream beside what others launch, for it may take long."""
        with torch.cuda.stream(self._stream):
            work()

    def bring_back(self, sources: Tensors, results: Tensors) -> Work:
        """Launches copies to the host: behind what was launched, beside what will be.

        Returns:
            Waits for them.
        """
        with _LAUNCHING:
            self._way_back.wait_stream(self._stream)
            with torch.cuda.stream(self._way_back):
                for source, result in zip(sources, results, strict=True):
                    result.copy_(source, non_blocking=True)
                return self._way_back.record_event().synchronize

    def capture(self, work: Work) -> Work | None:
        """Returns what launches at once all that ``work`` does; None if that cannot be captured.

        Args:
            work: Has been run before, so that libraries have chosen their kernels.

        Raises:
            torch.OutOfMemoryError: The device has not enough memory for it.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer stream is left as it was even where a capture cannot be ended.
            # "thread_local": what other threads do with the device is not held against this one.
            with (
                _LAUNCHING,
                torch.cuda.stream(self._stream),
                torch.cuda.graph(
                    graph, self._pool, self._stream, capture_error_mode="thread_local"
                ),
            ):
                work()
        except torch.OutOfMemoryError:
            raise  # later there may be enough; without its graphs the avatar would stay slow
        except RuntimeError as error:
            logger.warning(
                "frames cannot be captured and are launched kernel by kernel, which is slower",
                extra={"why": str(error)},
            )
            return None
        return graph.replay

    def close(self) -> None:
        """Gives the memory of what was freed back to the device, for others to be measured by."""
        try:
            with _LAUNCHING:
                torch.cuda.empty_cache()
        except RuntimeError as error:  # torch until 2.12, for good, after a capture that failed
            logger.warning(
                "a closed engine's memory stays with torch, for the next ones",
                extra={"why": str(error)},
            )


class DeviceFrame:
    """Fixed places on a device for inputs and outputs, and one graph from the first to the others.

    Args:
        stream: Where it runs.
        inputs: The places of what is given.
        outputs: The places of what is computed.
        compute: Computes the outputs from the inputs; launches only.
    """

    def __init__(
        self, stream: CudaStream, inputs: Tensors, outputs: Tensors, compute: Work
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._stream, self._compute = stream, compute
        self._replay: Work | None = None

    def launch(self, given: Sequence[torch.Tensor]) -> Tensors:
        """Starts computing what is on the device already; called where the stream launches.

        Returns:
            The places of the outputs; the next call overwrites them.
        """
        for place, part in zip(self.inputs, given, strict=True):
            place.copy_(part, non_blocking=True)
        (self._replay or self._compute)()
        return self.outputs

    def capture(self) -> None:
        """Makes one launch of a frame; if that cannot be, frames stay as they are.

        It must have been launched before.
        """
        self._replay = self._stream.capture(self._compute)
