# SPDX-License-Identifier: Apache-2.0
"""From a bundle on disk to a frozen generator in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.avatar.bundle_files import Tensors
from styleavatar_core.engine.cpu.strips import torch_alone
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.frozen.freeze import FrozenGenerator, freeze
from styleavatar_core.errors import AssetError
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.mapping import position_code
from styleavatar_core.networks.noise import fixed_noise
from styleavatar_core.networks.portrait_generator import PortraitGenerator
from styleavatar_core.ops.haar import inverse_haar_transform


@dataclass(frozen=True, slots=True)
class StaticMaps:
    """The static maps of a bundle.

    Attributes:
        face: In UV space, batch 1.
        background: Of the canvas, batch 1.
    """

    face: FeatureMaps
    background: FeatureMaps


class _Unfilled(TorchFunctionMode):
    """Makes tensors without drawing what is in them: a bundle's weights take their places."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Computes; what would fill a tensor only makes it."""
        if func in (torch.randn, torch.zeros):
            func = torch.empty
        elif func is torch.full:
            func, args = torch.empty, args[:1]
        return func(*args, **(kwargs or {}))


def load_maps(bundle: AvatarBundle) -> tuple[StaticMaps, Callable[[], None]]:
    """Reads a bundle's static maps.

    Returns:
        The maps, and what waits for their comparison with their sha256: it raises ``AssetError``,
        and must have returned before anything made of them is used.

    Raises:
        AssetError: They are not there.
    """
    arrays, check = bundle.unverified_features()()
    maps = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        parts = [
            FeatureMaps(maps[f"{part}.feature"], maps[f"{part}.rgb_pack"])
            for part in ("face", "background")
        ]
    except KeyError as error:
        check()  # says more, if that is why
        raise AssetError(
            f"{bundle.path.name} lacks the static map {error}; create the avatar again"
        ) from error
    return StaticMaps(*parts), check


def make_lookup(face: FeatureMaps) -> FaceLookup:
    """Returns what samples a face on the host, for networks that take it sampled.

    Args:
        face: Static maps in UV space, batch 1.
    """
    parts = (face.feature, inverse_haar_transform(face.rgb_pack))
    return FaceLookup(*(part[0].permute(1, 2, 0).numpy() for part in parts))


def load_frozen(
    bundle: AvatarBundle,
    read_maps: Callable[[AvatarBundle], tuple[StaticMaps, Callable[[], None]]] = load_maps,
    *,
    samples_face: bool = True,
) -> FrozenGenerator:
    """Builds a bundle's generator and freezes it.

    Args:
        bundle: The bundle.
        read_maps: Gives its static maps as :func:`load_maps` does.
        samples_face: As of :func:`styleavatar_core.engine.frozen.freeze.freeze`.

    Returns:
        The frozen generator, on the CPU.

    Raises:
        AssetError: Weights and configuration do not fit together.
    """
    config = GeneratorConfig.from_dict(bundle.manifest.generator)
    reading = bundle.unverified_generator()  # beside what follows
    with torch.device("meta"), _Unfilled():
        generator = PortraitGenerator(config)
    maps, check_maps = read_maps(bundle)
    noise = fixed_noise(config)
    weights, check = reading()
    try:
        _load_weights(generator, weights, bundle)
        style_time = torch.tensor([bundle.manifest.style_time])
        style = position_code(style_time, config.style.style_dim, config.position_octaves)
        with torch_alone(None):  # the comparison has the other core, and this gains little by two
            return freeze(
                generator,
                style,
                maps.face,
                maps.background,
                noise=noise,
                is_used_up=True,
                samples_face=samples_face,
            )
    finally:
        check_maps()  # what is damaged may be why the rest failed
        check()


def _load_weights(generator: PortraitGenerator, weights: Tensors, bundle: AvatarBundle) -> None:
    """Puts a bundle's weights into its network."""
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    try:
        generator.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise AssetError(
            f"the weights in {bundle.path.name} do not fit its preset '{generator.config.name}'; "
            f"create the avatar again ({str(error).splitlines()[0]})"
        ) from error
