# SPDX-License-Identifier: Apache-2.0
"""What all engines have in common, on one whose pictures are known."""

import numpy as np

from styleavatar_core.engine.base import RenderInput
from styleavatar_core.engine.onnx.sample_engine import SampleEngine

SHAPES = {"texture_rendering": (1, 4, 4, 3), "uv_rendering": (1, 2, 2, 2), "image": (1, 4, 4, 3)}


class OnePlaceEngine(SampleEngine):
    """Gives back the texture rendering, always in the same place, as OpenVINO does."""

    runtime = "nothing"

    def __init__(self) -> None:
        super().__init__("openvino", SHAPES, "fp32")
        self.image = np.zeros((1, 4, 4, 3), np.uint8)
        self.mask = np.zeros((1, 4, 4), np.uint8)

    def _run(self, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        self.image[:] = feed["texture_rendering"]
        self.mask[:] = feed["texture_rendering"][..., 0]
        return self.image, self.mask

    def close(self) -> None:
        pass


def test_each_of_a_batch_has_its_own_picture_though_all_are_made_in_one_place() -> None:
    levels = np.arange(3, dtype=np.uint8)[:, None, None, None]
    texture = np.broadcast_to(levels, (3, 4, 4, 3))
    engine = OnePlaceEngine()
    inputs = RenderInput(texture, np.zeros((3, 2, 2, 2), np.float32), np.ones((3, 2, 2), np.uint8))
    output = engine.render(inputs)
    assert np.array_equal(output.image, texture)
    assert np.array_equal(output.mask, texture[..., 0])
    assert not np.shares_memory(engine.render(inputs).image, engine.image)
