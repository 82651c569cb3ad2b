# SPDX-License-Identifier: Apache-2.0
"""What can be told before a video is tracked, for minutes: typing errors above all."""

from __future__ import annotations

from pathlib import Path

from styleavatar_core.errors import AssetError
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.parallel import require_even_shares
from styleavatar_core.training.record.checkpoint import checkpoint_in
from styleavatar_core.training.start import require_same_face_model, require_same_preset


def check_before_preparing(
    folder: Path,
    generator_config: GeneratorConfig,
    config: TrainConfig,
    *,
    perceptual_weights: Path | None = None,
    matting_weights: Path | None = None,
    start: Path | None = None,
    face_model: str = "",
) -> None:
    """Looks for what a training will need.

    Args:
        folder: Work folder; a training in it needs neither its ``start`` nor matting any more.
        generator_config: The preset.
        config: How to train.
        perceptual_weights: VGG19 weights, if there are any.
        matting_weights: Robust Video Matting, if there is one.
        start: What to start from, if anything.
        face_model: Id of the face model to track with; the built-in one if empty.

    Raises:
        InvalidInputError: The ranks cannot share the batch evenly, or ``start`` is of another
            preset or face model.
        AssetError: There is no such file.
        NotFoundError: There is nothing to start from.
    """
    require_even_shares(config.batch_size)
    is_begun = checkpoint_in(folder).exists()
    given = {"VGG19 weights": perceptual_weights}
    if not is_begun:  # else the masks are there, and it has started
        given["Robust Video Matting"] = matting_weights
        if start is not None:
            require_same_preset(start, generator_config)
            require_same_face_model(start, face_model or BUILTIN_MODEL_ID)
    for name, path in given.items():
        if path is not None and not path.is_file():
            raise AssetError(f"there is no file {path}, given for {name}; correct or leave it out")
