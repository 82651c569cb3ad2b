# SPDX-License-Identifier: Apache-2.0
"""What is made of a bundle once, whichever engines are then opened with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import EngineInfo
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.frozen.freeze import FrozenGenerator, can_take_samples
from styleavatar_core.engine.frozen.loading import StaticMaps, load_frozen, load_maps, make_lookup
from styleavatar_core.networks.config import GeneratorConfig


class FrozenParts:
    """The frozen generator of a bundle in fp32 and on the CPU, made when it is first asked for.

    For a CPU the face is sampled on the host, before the graph, where the networks allow it.

    Args:
        bundle: The avatar.
    """

    def __init__(self, bundle: AvatarBundle) -> None:
        self.bundle = bundle

    @cached_property
    def generator(self) -> FrozenGenerator:
        """The generator that samples the face itself; not to be changed."""
        return load_frozen(self.bundle, lambda bundle: self._maps)

    @cached_property
    def host_generator(self) -> FrozenGenerator:
        """The generator that takes the face sampled if it can; not to be changed."""
        if not can_take_samples(self._config):
            return load_frozen(self.bundle)
        return load_frozen(self.bundle, lambda bundle: self._maps, samples_face=False)

    def take_host_generator(self) -> FrozenGenerator:
        """Gives ``host_generator`` to who changes or keeps it; whoever asks next gets another."""
        generator = self.host_generator
        del self.host_generator
        return generator

    def either(self) -> tuple[FrozenGenerator, FaceLookup | None]:
        """Returns a generator, the one that is here already, and what samples the face for it."""
        if "generator" in self.__dict__:
            return self.generator, None
        return self.host_generator, self.lookup

    @cached_property
    def lookup(self) -> FaceLookup | None:
        """What samples the face for ``host_generator``; None if it does so itself."""
        if not can_take_samples(self._config):
            return None  # its maps need not be read for it
        maps, check = self._maps
        lookup = make_lookup(maps.face)
        check()
        return lookup

    @property
    def info(self) -> EngineInfo:
        """Its sizes, as torch in fp32 has them."""
        config = self._config
        sizes = (config.image_size_px, config.rendering_size_px, config.uv_size)
        return EngineInfo("torch", "fp32", *sizes)

    @cached_property
    def _maps(self) -> tuple[StaticMaps, Callable[[], None]]:
        return load_maps(self.bundle)

    @cached_property
    def _config(self) -> GeneratorConfig:
        return GeneratorConfig.from_dict(self.bundle.manifest.generator)
