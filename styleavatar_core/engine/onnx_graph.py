# SPDX-License-Identifier: Apache-2.0
"""Writes the frozen generator as an ONNX graph: static shapes, bytes in and out, batch 1."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from uuid import uuid4

import torch

from styleavatar_core.engine.freeze import FrozenGenerator

_OPSET = 17
INPUT_NAMES = ("texture_rendering", "uv_rendering", "face_mask")
OUTPUT_NAMES = ("image", "mask")


def write_onnx(generator: FrozenGenerator, path: Path) -> Path:
    """Exports a frozen generator; the file appears under its name only when it is complete.

    Args:
        generator: The frozen generator, on the CPU.
        path: File to write.

    Returns:
        ``path``.
    """
    config = generator.config
    size, uv_size = config.rendering_size_px, config.uv_size
    sample = (
        torch.zeros(1, size, size, 3, dtype=torch.uint8),
        torch.zeros(1, uv_size, uv_size, 2),
        torch.zeros(1, uv_size, uv_size, dtype=torch.uint8),
    )
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The window is a constant, and the tracing exporter is deprecated but needs no other
        # packages: neither is news to anyone.
        warnings.simplefilter("ignore")
        generator(*sample)  # makes the cached kernels, so that the trace takes them as constants
        torch.onnx.export(
            generator,
            sample,
            buffer,  # type: ignore[arg-type]
            input_names=list(INPUT_NAMES),
            output_names=list(OUTPUT_NAMES),
            opset_version=_OPSET,
            dynamo=False,
            do_constant_folding=True,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    incoming.write_bytes(buffer.getvalue())
    return incoming.replace(path)
