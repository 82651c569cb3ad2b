# SPDX-License-Identifier: Apache-2.0
"""What the published networks gave, at places of their outputs: made from a recording of them.

``python -m tests.fakes.published_values RECORDING`` compares our networks with the whole recording
and prints the largest errors; ``--write`` takes over its inputs and samples of its outputs into
``tests/data/published-values.npz``, which tests compare with. A recording is an npz file of a run
of the published code on tensors filled by rule; it is not part of this project.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from styleavatar_core.engine.frozen.composition import FrozenBackground
from styleavatar_core.networks import (
    Discriminator,
    FeatureGenerator,
    FeatureMaps,
    Noise,
    PortraitGenerator,
    get_preset,
)
from tests.fakes.published import fill, load_filled

VALUES_PATH = Path(__file__).parents[1] / "data" / "published-values.npz"
WINDOWS = ("center", "shifted")
CROP_PX, BORDER_PX = slice(448, 576), slice(0, 64)  # rows and columns that a recording has in fp32
_MIDDLE_OFFSET = 32  # of the published code, texels
_BORDER = (0, 1, 2, -3, -2, -1)

Arrays = dict[str, np.ndarray]


@torch.no_grad()
def portrait_outputs(given: Arrays, window: str) -> Arrays:
    """Runs the portrait generator of ``paper`` on a recording's inputs, in one of its windows."""
    generator = PortraitGenerator(get_preset("paper"))
    load_filled(generator, "g_ema")
    face, back = (
        FeatureMaps(
            fill(f"in.feature_{name}", (1, 256, 128, 128)),
            fill(f"in.skip_{name}", (1, 12, 128, 128)),
        )
        for name in ("face", "back")
    )
    # The published network takes what the window shows of the background, cut already.
    generator.background_cutter = FrozenBackground(back.feature, back.rgb_pack)  # type: ignore[assignment]
    noise = Noise(
        fill("in.noise_base", (1, 21, 256, 256)),
        fill("in.noise_face", (1, 21, 128, 128)),
        fill("in.noise_back", (1, 21, 128, 128)),
    )
    offset = given[f"{window}_window"] - _MIDDLE_OFFSET
    output = generator(
        torch.from_numpy(given["style"]),
        torch.from_numpy(given["render_u8"])[None] / 127.5 - 1.0,
        torch.from_numpy(given["uv_u8"][:2])[None] / 255.0,
        torch.from_numpy(given["mask_face"].reshape(1, 1, 128, 128)).float(),
        face,
        back,
        torch.from_numpy(offset[None]),
        noise=noise,
    )
    image = output.image[0].numpy()
    return {
        f"{window}_image_f16": image,
        f"{window}_image_crop": image[:, CROP_PX, CROP_PX],
        f"{window}_image_border": image[:, BORDER_PX, BORDER_PX],
        # The published mask is that of the background, in (-1, 1).
        f"{window}_mask": 1.0 - 2.0 * output.mask[0, 0].numpy(),
    }


@torch.no_grad()
def other_outputs(given: Arrays) -> Arrays:
    """Runs the face's feature generator and the discriminator on a recording's inputs."""
    static = FeatureGenerator(get_preset("paper").face)
    load_filled(static, "f_g")
    maps = static.eval()(torch.from_numpy(given["style"]))
    judge = Discriminator(get_preset("paper").discriminator)
    load_filled(judge, "d")
    images = fill("in.d", (2, 6, 1024, 1024), 0.5)
    return {
        "face_skip": maps.rgb_pack[0].numpy(),
        "face_feature_sub": maps.feature[0, ::16].numpy(),
        "discriminator_score": judge(images[:, :3], images[:, 3:]).numpy(),
    }


def samples(name: str, array: np.ndarray) -> np.ndarray:
    """Returns some values of an output: a grid over it, and rows and columns along its borders."""
    if array.ndim < 2 or name == "discriminator_score":
        return array
    step = array.shape[-1] // 10 - 1
    grid = array[..., ::step, ::step]
    rows, columns = array[..., _BORDER, ::step], array[..., ::step, _BORDER]
    return np.concatenate([part.reshape(-1) for part in (grid, rows, columns)])


def errors(given: Arrays, sampled: bool) -> dict[str, float]:
    """Returns the largest difference of each output from what was recorded.

    Args:
        given: A recording, or samples of one.
        sampled: Whether the outputs in ``given`` are samples.
    """
    outputs = other_outputs(given)
    for window in WINDOWS:
        outputs |= portrait_outputs(given, window)
    found = {name: samples(name, o) if sampled else o for name, o in outputs.items()}
    return {name: float(np.abs(value - given[name]).max()) for name, value in found.items()}


def write_values(recording: Arrays, path: Path) -> None:
    """Writes inputs and samples of outputs, as the recording has them."""
    inputs = ("render_u8", "uv_u8", "mask_face", "style", *(f"{w}_window" for w in WINDOWS))
    kept = {name: recording[name] for name in inputs}
    kept |= {n: samples(n, array) for n, array in recording.items() if n not in inputs}
    np.savez_compressed(path, **kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--write", action="store_true", help="take samples over for the tests")
    options = parser.parse_args()
    recorded = dict(np.load(options.recording))
    for output, error in errors(recorded, sampled=False).items():
        sys.stdout.write(f"{output:24} {error:.2e}\n")
    if options.write:
        write_values(recorded, VALUES_PATH)
