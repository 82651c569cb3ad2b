# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the published code becomes an avatar bundle that gives the same image.

Only tensors and plain values are read from the file: no code in it is ever run. What the published
code keeps elsewhere is filled in and named as such: it knows no identity, no window and no range
of parameters, and its noise is drawn anew by every process, so ours is as good as any.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from styleavatar_core.avatar.bundle import write_bundle
from styleavatar_core.avatar.manifest import AvatarManifest, AvatarMethods, AvatarSource
from styleavatar_core.avatar.statistics import ParameterStatistics, PlaceByRotation, Spread
from styleavatar_core.data.picture import encode_jpeg
from styleavatar_core.data.portrait import WINDOW_FACE_HEIGHTS
from styleavatar_core.engine.base import blank_input
from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError, NotFoundError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.library import find_face_model
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.networks import (
    FeatureMaps,
    GeneratorConfig,
    PortraitGenerator,
    get_preset,
    position_code,
)
from styleavatar_core.networks.weights import (
    PUBLISHED_MAPS,
    convert_published_generator,
    convert_published_maps,
)
from styleavatar_core.provenance.consent import ConsentRecord, make_consent
from styleavatar_core.types import CropBox

STYLE_TIME = 0.5  # the published code renders every frame with this time
DEFAULT_FACE_MODEL = "faceverse-v3"
_COEFFICIENT_COUNTS = (150, 52, 251)  # identity, expression, texture of FaceVerse v2 and v3
_WHOLE_FRAME = CropBox(0.0, 0.0, 1.0)
_NO_LIMIT = 1e3  # beyond what any face does; JSON knows no infinity
_UNRECORDED = (
    "No statement of consent was recorded: this avatar was imported from a checkpoint of the "
    "published code. Whoever uses it must hold the consent of the person shown."
)

Network = Literal["g_ema", "i_g"]
Tensors = dict[str, torch.Tensor]


def import_official(
    checkpoint: Path,
    bundle_path: Path,
    *,
    network: Network = "g_ema",
    consent: ConsentRecord | None = None,
    face_model: str = DEFAULT_FACE_MODEL,
    config: GeneratorConfig | None = None,
) -> Path:
    """Writes the avatar of a published checkpoint as a bundle.

    Args:
        checkpoint: File that the published training wrote.
        bundle_path: Where the bundle goes, a directory or a name ending in ``.zip``.
        network: ``g_ema``, the averaged generator, or ``i_g``, the one of the last step.
        consent: Who agreed; without it the bundle says that nothing was recorded.
        face_model: Face model of the renderings that the checkpoint was trained with.
        config: Topology; the ``paper`` preset if not given.

    Returns:
        ``bundle_path``.

    Raises:
        NotFoundError: There is no such file.
        AssetError: It is no published checkpoint, of another configuration, or holds code.
    """
    config = config or get_preset("paper")
    parts = read_checkpoint(checkpoint)
    for name in (network, *PUBLISHED_MAPS):
        if name not in parts:
            has_last = name == "g_ema" and "i_g" in parts
            raise AssetError(
                f"{checkpoint.name} lacks '{name}'; a checkpoint of the published training holds "
                f"{', '.join((network, *PUBLISHED_MAPS))}"
                + ("; it has 'i_g', which --last imports" if has_last else "")
            )
    state = convert_published_generator(network, parts[network], config)
    maps = convert_published_maps(parts, config)
    return write_bundle(
        bundle_path,
        _manifest(checkpoint, config, network, consent, face_model),
        generator={name: tensor.numpy() for name, tensor in state.items()},
        features={name: tensor.numpy() for name, tensor in maps.items()},
        preview_jpeg=_preview(config, state, maps),
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's tensors and plain values without running anything in it.

    Args:
        path: Torch archive: a dict of networks, optimizers, maps and an ``argparse.Namespace``.

    Raises:
        NotFoundError: There is no such file.
        AssetError: It is no such archive, or names anything besides plain values.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no checkpoint at {path}")
    is_archive = zipfile.is_zipfile(path)  # older ones are not, and cannot be memory-mapped
    with safe_globals([argparse.Namespace]):
        try:
            foreign = get_unsafe_globals_in_checkpoint(path) if is_archive else []
            values = None
            if not foreign:
                values = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        except Exception as error:  # the reader's errors have no common base
            # Not what torch says: it advises to load the file in a way that could run code.
            raise AssetError(
                f"{path.name} cannot be read as a torch checkpoint of plain values: it is another "
                "kind of file, damaged, or holds what is never loaded here because it could run "
                "somebody's code"
            ) from error
    if foreign:
        raise AssetError(
            f"{path.name} holds more than tensors and plain values ({', '.join(foreign)}): "
            "loading it could run somebody's code, so it is refused",
            reason="CHECKPOINT_UNSAFE",
        )
    if not isinstance(values, Mapping):
        raise AssetError(f"{path.name} holds no dict of networks; is it a published checkpoint?")
    return dict(values)


def _manifest(
    checkpoint: Path,
    config: GeneratorConfig,
    network: Network,
    consent: ConsentRecord | None,
    face_model: str,
) -> AvatarManifest:
    """Says what is known of the avatar, and marks what is not."""
    model = _face_model(face_model)
    identity_count, expression_count, texture_count = _coefficient_counts(model)
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return AvatarManifest(
        preset=config.name,
        generator=config.to_dict(),
        style_time=STYLE_TIME,
        model_id=face_model,
        model_digest=model.digest if model else "",
        identity=[0.0] * identity_count,
        texture=[0.0] * texture_count,
        window=(_WHOLE_FRAME.center_x, _WHOLE_FRAME.center_y, _WHOLE_FRAME.half_size),
        statistics=_unlimited(face_model, model, expression_count).to_dict(),
        consent=consent or make_consent(_UNRECORDED, given_by="nobody"),
        source=AvatarSource(
            file_name=checkpoint.name,
            sha256=digest,
            width=config.image_size_px,
            height=config.image_size_px,
            fps=0.0,
            train_frame_count=0,
            held_out_frame_count=0,
        ),
        methods=AvatarMethods(landmarks="unknown", matting="unknown", perceptual_loss="unknown"),
        training={"imported": "checkpoint of the published code", "network": network},
    )


def _face_model(model_id: str) -> FaceModel | None:
    """Returns the face model if it is here."""
    try:
        return find_face_model(model_id)
    except AssetError:
        return None


def _coefficient_counts(model: FaceModel | None) -> tuple[int, int, int]:
    """Returns how many coefficients a face model has, as published if it is not here."""
    if model is None:
        return _COEFFICIENT_COUNTS
    bases = (model.identity_basis, model.expression_basis, model.texture_basis)
    identity_count, expression_count, texture_count = (basis.shape[-1] for basis in bases)
    return identity_count, expression_count, texture_count


def _unlimited(
    model_id: str, model: FaceModel | None, expression_count: int
) -> ParameterStatistics:
    """Returns statistics that clamp nothing: the checkpoint does not say what was trained.

    Means and deviations are those of a person who talks to the camera, as large in the picture as
    in windows of our own. The face at rest has all coefficients at 0, but for those that let its
    lips meet (``Retargeter``). Faces are drawn by them where there is no video.
    """
    shape = model or builtin_model()  # the one is as tall as the other
    face_height = float(np.ptp(shape.mean_shape[shape.landmark_indices, 1]))
    scale = 2.0 / (WINDOW_FACE_HEIGHTS * face_height)  # the side is two frame units
    # What is not known here is left to the model: the avatar is driven within its own limit.
    largest = min(model.expression_max, _NO_LIMIT) if model else _NO_LIMIT
    places = _spread(2, 0.0, 0.1, -_NO_LIMIT, _NO_LIMIT)
    return ParameterStatistics(
        model_id=model_id,
        window=_WHOLE_FRAME,
        rotation=_spread(3, 0.0, 0.15, -np.pi, np.pi),
        translation=places,
        scale=_spread(1, scale, 0.1 * scale, 0.0, _NO_LIMIT),
        expression=_spread(expression_count, 0.0, 0.2, 0.0, largest),
        eye_rotation=_spread(4, 0.0, 0.15, -np.pi, np.pi),
        place_by_rotation=PlaceByRotation.unknown(places),
        neutral_expression=np.zeros(expression_count, np.float32),
    )


def _spread(count: int, mean: float, std: float, least: float, largest: float) -> Spread:
    """Returns ``count`` parameters that are spread alike."""
    return Spread(*(np.full(count, value, np.float32) for value in (mean, std, least, largest)))


def _preview(config: GeneratorConfig, state: Tensors, maps: Tensors) -> bytes:
    """Renders the avatar's scene without a face, the only picture that needs no face model."""
    with torch.device("meta"):
        generator = PortraitGenerator(config)
    generator.load_state_dict(state, assign=True)
    frozen = freeze(
        generator,
        position_code(torch.tensor([STYLE_TIME]), config.style.style_dim, config.position_octaves),
        FeatureMaps(maps["face.feature"], maps["face.rgb_pack"]),
        FeatureMaps(maps["background.feature"], maps["background.rgb_pack"]),
    )
    engine = TorchEngine(frozen)
    return encode_jpeg(engine.render(blank_input(engine.info)).image[0])
