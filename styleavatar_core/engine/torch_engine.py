# SPDX-License-Identifier: Apache-2.0
"""The frozen generator in torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from styleavatar_core.engine.base import (
    HOME,
    EngineInfo,
    RenderEngine,
    RenderInput,
    RenderOutput,
    feed_of,
)
from styleavatar_core.engine.cpu.layers import missing_bytes, with_less_work, works_in_strips
from styleavatar_core.engine.cpu.strips import torch_alone
from styleavatar_core.engine.cuda.compiled import CompiledModule
from styleavatar_core.engine.cuda.graph import CapturedModule, compute_exactly, padded_count
from styleavatar_core.engine.cuda.stream import CudaStream, gpu_name
from styleavatar_core.engine.cuda.transfers import Transfers
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.frozen.freeze import FrozenGenerator


class TorchEngine(RenderEngine):
    """Runs the frozen generator, eagerly or compiled.

    On a CPU the process keeps the memory that it frees; on a GPU frames are captured graphs.

    Args:
        generator: The frozen generator; it is changed: on a CPU some of its layers are replaced,
            and it moves to a GPU.
        device: Where it runs.
        stream: Where frames are launched on a GPU; one of its own if None.
        thread_count: Threads on a CPU; as many as torch likes if None.
        lookup: Samples the face, for a generator that was frozen without doing it.
        code_folder: Where compiled code is kept that computes it on a GPU; None does without.
    """

    runtime = "torch"
    moves_windows = True

    def __init__(
        self,
        generator: FrozenGenerator,
        *,
        device: str = "cpu",
        stream: CudaStream | None = None,
        thread_count: int | None = None,
        lookup: FaceLookup | None = None,
        code_folder: Path | None = None,
    ) -> None:
        config = generator.config
        is_half = generator.face_feature.dtype == torch.float16
        precision = "fp16" if is_half else "fp32"
        sizes = (config.image_size_px, config.rendering_size_px, config.uv_size)
        is_cuda = torch.device(device).type == "cuda"
        version = f"{torch.__version__} on {gpu_name()}" if is_cuda else str(torch.__version__)
        super().__init__(EngineInfo("torch", precision, *sizes, version))
        self._thread_count, self._lookup = thread_count, lookup
        self.stream = stream or (CudaStream(device) if is_cuda else None)
        self.gains_by_batches = self.stream is not None
        if device == "cpu" and not is_half:
            with torch_alone(thread_count):
                generator = with_less_work(generator)
        moved = generator.to(device)
        self._generator = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._threads = torch_alone if works_in_strips(generator) else _threads
        self._compiled: CompiledModule | None = None
        self._captured: CapturedModule | None = None
        if self.stream is not None:
            if not is_half:
                compute_exactly()
            if code_folder is not None:
                self._compiled = CompiledModule(self._generator, code_folder)
            inputs = self._generator.input_types().values()
            self._captured = CapturedModule(self._generator, inputs, self.stream, self._compiled)
            self._transfers = Transfers(self._start, self.stream)

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code renders, as far as it was asked to."""
        return self._compiled is not None and self._compiled.is_compiled

    @property
    def info(self) -> EngineInfo:
        """What it is; its version says whether it is compiled."""
        info = self._info
        return replace(info, version=f"{info.version}, compiled") if self.is_compiled else info

    @property
    def coming_bytes(self) -> int:
        """Memory of kernels that are not transformed yet."""
        return missing_bytes(self._generator)

    def warm_up(self, batch_limit: int = 1) -> None:
        """Renders once; on a GPU captures what batches need, so that no live frame waits for it."""
        if self._captured is not None:
            self._generator.move_window(HOME)  # that of the graphs
            self._captured.prepare(batch_limit)
        super().warm_up()

    def _render(self, inputs: RenderInput) -> RenderOutput:
        self._generator.move_window(inputs.window)
        if self._captured is not None:
            count = len(inputs.face_mask)
            feed = feed_of(inputs.part(0, padded_count(count)), self._lookup)
            image, mask = self._transfers.take(self._transfers.give(list(feed.values())))
            return RenderOutput(image[:count], mask[:count])
        feed = feed_of(inputs, self._lookup)
        with torch.inference_mode(), self._threads(self._thread_count):
            image, mask = self._generator(*map(torch.from_numpy, feed.values()))
        return RenderOutput(image.contiguous().numpy(), mask.contiguous().numpy())

    def launch(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Starts rendering what is on its device already, with the window in the middle."""
        if self._captured is None:
            return super().launch(inputs)
        self._generator.move_window(HOME)
        return self._captured.launch(inputs)

    def _start(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Launches a batch of the host's: kernel by kernel for a window that no graph has."""
        if self._captured is None or self._generator.offset != HOME:
            image, mask = self._generator(*given)
            return image, mask
        return self._captured.launch(given)

    def close(self) -> None:
        """Frees the weights."""
        del self._generator
        self._compiled = None
        if self._captured is not None and self.stream is not None:
            self._captured.close()
            del self._captured, self._transfers
            self.stream.close()


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Lets torch use a number of threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
