# SPDX-License-Identifier: Apache-2.0
"""The pictures that engines are judged by: torch in fp32 on the CPU, computed once per avatar."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np
import torch

from styleavatar_core.cores import usable_core_count
from styleavatar_core.engine.base import RenderInput, RenderOutput, feed_of, joined
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.typical_inputs import judged_inputs
from styleavatar_core.errors import AssetError

_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Reference:
    """What an avatar's pictures are.

    Attributes:
        inputs: Conditioning, as the avatar meets it in use; a batch.
        outputs: The pictures, as many.
    """

    inputs: RenderInput
    outputs: RenderOutput


def reference_of(frozen: FrozenParts, cache: EngineCache, thread_count: int) -> Reference:
    """Returns an avatar's reference; from the cache, where it is kept with its engines.

    Args:
        frozen: What was made of the avatar.
        cache: Where derived engines are kept.
        thread_count: Threads for computing it; half of the cores if they are more.
    """
    key = CacheKey(frozen.bundle.digest, "reference", f"{torch.__version__}-{_FRAMES}")

    def build() -> bytes:
        inputs = joined(judged_inputs(frozen.bundle, frozen.info, _FRAMES))
        count = max(thread_count, usable_core_count() // 2)
        return _to_bytes(render_reference(*frozen.either(), inputs, thread_count=count))

    return cache.open(key, build, _from_bytes)


@torch.inference_mode()
def render_reference(
    generator: FrozenGenerator,
    lookup: FaceLookup | None,
    inputs: RenderInput,
    *,
    thread_count: int = 1,
) -> Reference:
    """Renders inputs one by one with plain torch operators: nothing replaced, captured or rounded.

    Args:
        generator: Of the avatar; fp32, on the CPU.
        lookup: Samples the face, for a generator that takes it sampled.
        inputs: A batch.
        thread_count: Threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count)
    pictures = []
    try:
        for index in range(len(inputs.face_mask)):
            feed = feed_of(inputs.part(index), lookup)
            pictures.append(generator(*map(torch.from_numpy, feed.values())))
    finally:
        torch.set_num_threads(before)
    image, mask = (torch.cat(parts).numpy() for parts in zip(*pictures, strict=True))
    return Reference(inputs, RenderOutput(image, mask))


def _to_bytes(reference: Reference) -> bytes:
    """Writes a reference."""
    inputs, outputs = reference.inputs, reference.outputs
    file = io.BytesIO()
    np.savez(
        file,
        texture_rendering=inputs.texture_rendering,
        uv_rendering=inputs.uv_rendering,
        face_mask=inputs.face_mask,
        image=outputs.image,
        mask=outputs.mask,
    )
    return file.getvalue()


def _from_bytes(contents: bytes) -> Reference:
    """Reads a reference.

    Raises:
        AssetError: It is none.
    """
    try:
        with np.load(io.BytesIO(contents)) as arrays:
            return Reference(
                RenderInput(
                    arrays["texture_rendering"], arrays["uv_rendering"], arrays["face_mask"]
                ),
                RenderOutput(arrays["image"], arrays["mask"]),
            )
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise AssetError(f"the avatar's reference pictures cannot be read: {error}") from error
