# SPDX-License-Identifier: Apache-2.0
"""TensorRT on a GPU: a refitted plan, an own one and one from the cache give the same pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import pytest

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import RenderEngine
from styleavatar_core.engine.cache import EngineCache, cache_folder
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.tensorrt.backend import open_tensorrt
from tests.gpu.pictures import assert_same, batch_of, truth_of

Bundles = tuple[AvatarBundle, AvatarBundle]


@pytest.fixture(autouse=True)
def installed() -> None:
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed")


def opened(bundle: AvatarBundle, precision: str, *, has_own_plan: bool) -> RenderEngine:
    """Opens a plan without the gate."""
    return open_tensorrt(
        OpeningAvatar(FrozenParts(bundle), EngineCache(), 4, precision, has_own_plan)
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_refit_gives_what_a_plan_of_its_own_gives(bundles: Bundles, precision: str) -> None:
    opened(bundles[1], precision, has_own_plan=False).close()  # builds what is shared
    for bundle in bundles:
        for has_own_plan in (False, True):
            engine = opened(bundle, precision, has_own_plan=has_own_plan)
            inputs = batch_of(engine, 3)
            truth = truth_of(bundle, inputs)
            assert_same(engine.render(inputs), truth, precision)
            engine.warm_up()
            assert_same(engine.render(inputs), truth, precision)
            engine.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_two_avatars_share_a_plan_and_pass_the_gate(bundles: Bundles, precision: str) -> None:
    engines = [open_engine(bundle, "tensorrt", precision=precision) for bundle in bundles]
    plans = list(cache_folder().glob(f"*tensorrt*-{precision}-*.engine"))
    assert len(plans) == 1
    again = open_engine(bundles[0], "tensorrt", precision=precision)
    assert list(cache_folder().glob(f"*tensorrt*-{precision}-*.engine")) == plans
    inputs = batch_of(engines[0], 2)
    for engine, bundle in zip([*engines, again], _turns(bundles), strict=True):
        assert engine.info.precision == precision
        assert "tensorrt" in engine.info.backend
        engine.warm_up()
        assert_same(engine.render(inputs), truth_of(bundle, inputs), precision)


def test_eight_bits_pass_or_say_why_not(bundles: Bundles) -> None:
    engine = open_engine(bundles[0], "tensorrt", precision="int8")
    assert "int8 gives" in engine.info.note
    inputs = batch_of(engine, 1)
    assert engine.render(inputs).image.std() > 1


def _turns(bundles: Bundles) -> Sequence[AvatarBundle]:
    """Returns both, and the first again."""
    return (*bundles, bundles[0])
