# SPDX-License-Identifier: Apache-2.0
"""An avatar as one ONNX file that needs none of our code to run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from onnx import helper

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.onnx.graph import BATCH_SIZES, onnx_model
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.export.parity import Parity, compare_engines

# In steps of uint8: rounding may fall the other way, nothing else may differ.
_ERROR_LIMIT = 2


def export_onnx(bundle_path: Path | str, output: Path | str, *, batch_size: int = 1) -> Parity:
    """Exports an avatar and compares the file with torch on random inputs.

    The graph takes ``texture_rendering`` (B, R, R, 3) uint8, ``uv_rendering`` (B, U, U, 2) float32
    in [0, 1] and ``face_mask`` (B, U, U) uint8, and gives ``image`` (B, H, W, 3) uint8 RGB and
    ``mask`` (B, H, W) uint8. Its properties hold the avatar's consent record and say that what it
    draws is synthetic.

    Args:
        bundle_path: The bundle, directory or zip.
        output: File to write.
        batch_size: Samples B per call, one of ``BATCH_SIZES``.

    Returns:
        How far the two are apart.

    Raises:
        InvalidInputError: Graphs are not exported for so many samples.
        AssetError: The exported file gives another picture than torch.
    """
    if batch_size not in BATCH_SIZES:
        choices = ", ".join(map(str, BATCH_SIZES))
        raise InvalidInputError(f"the batch must be one of {choices} samples, got {batch_size}")
    output = Path(output)
    bundle = read_bundle(bundle_path)
    generator = load_frozen(bundle)
    properties = {
        "synthetic": "true",
        "consent": bundle.manifest.consent.model_dump_json(),
        "bundle_digest": bundle.digest,
    }
    model = onnx_model(generator, batch_size=batch_size)
    helper.set_model_props(model, properties)
    contents = model.SerializeToString()
    parity = compare_engines(TorchEngine(generator), OnnxEngine(contents), count=batch_size)
    if max(parity.image_error, parity.mask_error) > _ERROR_LIMIT:
        raise AssetError(
            f"{output.name} differs from torch by {parity.image_error} of 255; it was not written"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        whole = Path(folder) / output.name
        whole.write_bytes(contents)
        whole.replace(output)
    return parity
