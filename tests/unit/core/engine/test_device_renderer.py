# SPDX-License-Identifier: Apache-2.0
"""Vertices in, pictures out on one device: what a GPU does for each frame, here on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.engine import avatar_renderer
from styleavatar_core.engine.avatar_renderer import AvatarRenderer, RenderedFrame
from styleavatar_core.engine.base import RenderEngine, joined
from styleavatar_core.engine.cuda.stream import Result, Work
from styleavatar_core.engine.cuda.transfers import Transfers
from styleavatar_core.engine.device_renderer import DeviceConditioning, DeviceRenderer, _without_rim
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.gate import judge
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.reference import Reference
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.typical_inputs import _without_rim as host_without_rim
from styleavatar_core.engine.typical_inputs import to_render_input
from styleavatar_core.errors import InvalidInputError, RenderError
from styleavatar_core.evaluation.moves import shift_head
from styleavatar_core.export.parity import random_input
from styleavatar_core.types import FaceParameters
from tests.fakes.host_stream import HostStream
from tests.unit.core.engine.test_avatar_renderer import face, write_narrow_bundle
from tests.unit.core.engine.test_cuda_graph import HostWatch

FACES = [face(), face(yaw=0.4), face(yaw=-0.3)]


@pytest.fixture
def engine(bundle: AvatarBundle) -> TorchEngine:
    """The generator as a GPU gets it: it samples the face itself."""
    return TorchEngine(load_frozen(bundle), stream=HostStream())


@pytest.fixture(scope="module")
def narrow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_bundle(tmp_path_factory.mktemp("narrow") / "avatar")


def conditioning(bundle: AvatarBundle, engine: RenderEngine) -> ConditioningRenderer:
    manifest = bundle.manifest
    size = engine.info.rendering_size_px
    return ConditioningRenderer(manifest.face_model(), manifest.face_identity, size)


def assert_host_agrees(
    bundle: AvatarBundle,
    engine: RenderEngine,
    renderer: DeviceRenderer,
    faces: list[FaceParameters],
) -> None:
    """Compares with what the engine makes of the host's conditioning."""
    images, masks = map(np.stack, zip(*renderer.begin(renderer.prepare(faces))(), strict=True))
    host = conditioning(bundle, engine)
    seen = [to_render_input(host.render(one), engine.info, bundle.manifest) for one in faces]
    wanted = engine.render(joined(seen))
    assert images.shape == wanted.image.shape
    assert np.abs(images.astype(int) - wanted.image).max() <= 1
    assert np.abs(masks.astype(int) - wanted.mask).max() <= 1
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("gains_by_batches", [False, True])
def test_pictures_are_those_of_the_hosts_conditioning(
    bundle: AvatarBundle, engine: TorchEngine, gains_by_batches: bool
) -> None:
    engine.gains_by_batches = gains_by_batches
    renderer = DeviceRenderer(engine, bundle.manifest, conditioning(bundle, engine))
    assert_host_agrees(bundle, engine, renderer, FACES)
    assert_host_agrees(bundle, engine, renderer, FACES[::-1])


def test_nothing_is_captured_in_a_live_frame(bundle: AvatarBundle, engine: TorchEngine) -> None:
    renderer = DeviceRenderer(engine, bundle.manifest, conditioning(bundle, engine))
    renderer.warm_up(3)
    stream = engine.stream
    assert isinstance(stream, HostStream)
    assert stream.capture_count == 6  # drawing and networks, for one, two and four
    stream.replay_count = 0
    assert_host_agrees(bundle, engine, renderer, FACES)
    assert_host_agrees(bundle, engine, renderer, FACES[:2])
    assert stream.capture_count == 6
    assert stream.replay_count == 2 * 2 + 2  # of the device's way, and of what it is compared with
    renderer.close()
    engine.close()


def test_a_mesh_that_takes_more_room_is_drawn_whole(
    bundle: AvatarBundle, engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("styleavatar_core.raster.tensor_render._LIST_SHARE", 1)
    renderer = DeviceRenderer(engine, bundle.manifest, conditioning(bundle, engine))
    near = [replace(one, scale=1.2) for one in FACES]
    given = renderer.prepare(near[:1])[0]
    size = engine.info.rendering_size_px
    vertices, pose = (torch.from_numpy(part)[None] for part in given)
    room = DeviceConditioning(bundle.manifest, engine.info)(vertices, pose)[3]
    assert room[0] > room[1] == size**2
    assert_host_agrees(bundle, engine, renderer, near)


def test_warming_up_draws_nobody_and_leaves_pictures_as_they_are(
    bundle: AvatarBundle, engine: TorchEngine
) -> None:
    engine.gains_by_batches = True
    renderer = DeviceRenderer(engine, bundle.manifest, conditioning(bundle, engine))
    renderer.warm_up(3)
    assert_host_agrees(bundle, engine, renderer, FACES)


def test_parameters_of_another_face_model_are_refused(
    bundle: AvatarBundle, engine: TorchEngine
) -> None:
    renderer = DeviceRenderer(engine, bundle.manifest, conditioning(bundle, engine))
    with pytest.raises(InvalidInputError, match="faceverse"):
        renderer.prepare([face(model_id="faceverse-v4")])


def test_a_batch_that_fails_is_told_and_the_next_one_is_rendered(
    bundle: AvatarBundle, engine: TorchEngine
) -> None:
    renderer = DeviceRenderer(engine, bundle.manifest, conditioning(bundle, engine))
    prepared = renderer.prepare(FACES)
    (vertices, pose) = prepared[1]
    broken = [prepared[0], (vertices[:-5], pose), prepared[2]]
    with pytest.raises(RenderError, match="torch could not render these frames"):
        renderer.begin(broken)
    assert_host_agrees(bundle, engine, renderer, FACES)


def test_an_engine_is_judged_without_making_others_wait_for_its_kernels(
    bundle: AvatarBundle,
) -> None:
    class Stream(HostStream):
        """Notes whether others' frames wait while kernels are chosen and loaded."""

        is_launching = False

        def launch(self, work: Callable[[], Result]) -> Result:
            self.is_launching = True
            try:
                return work()
            finally:
                self.is_launching = False

        def warm_up(self, work: Work) -> None:
            others_wait.append(self.is_launching)
            work()

    others_wait: list[bool] = []
    engine = TorchEngine(load_frozen(bundle), stream=Stream())
    sample = random_input(engine)
    judge(engine, Reference(sample, TorchEngine(load_frozen(bundle)).render(sample)))
    assert others_wait == [False]


def test_an_engine_that_renders_on_the_host_says_so(bundle: AvatarBundle) -> None:
    model = onnx_model(load_frozen(bundle)).SerializeToString()
    with pytest.raises(RenderError, match="from the host"):
        OnnxEngine(model, thread_count=1).launch([])


def test_the_rim_is_taken_away_as_on_the_host() -> None:
    masks = np.random.default_rng(2).random((3, 17, 17)) < 0.9
    bytes_ = masks.astype(np.uint8)
    ours = _without_rim(torch.from_numpy(bytes_)).numpy()
    assert np.array_equal(ours, np.stack([host_without_rim(mask) for mask in bytes_]))
    assert 0 < ours.sum() < bytes_.sum()


def test_each_batch_underway_keeps_its_own_results() -> None:
    place = torch.zeros(2)  # as a captured graph's, overwritten by each frame

    def compute(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.add(given, 1.0, out=place),)

    transfers = Transfers(compute, HostStream())
    kept = []
    for start in (0.0, 10.0):  # what was taken before stays the caller's
        arrays = [np.full(2, start + index, np.float32) for index in range(3)]
        underway = [transfers.give([array]) for array in arrays]
        kept += [transfers.take(batch)[0] for batch in underway]
    assert [result.tolist() for result in kept] == [[n + 1] * 2 for n in (0, 1, 2, 10, 11, 12)]


def test_nothing_between_vertices_and_pictures_touches_the_host(bundle: AvatarBundle) -> None:
    frozen = load_frozen(bundle).to("meta")
    info = TorchEngine(frozen, device="meta").info
    module = DeviceConditioning(bundle.manifest, info).to("meta")
    count = len(bundle.manifest.face_model().mean_shape)
    given = torch.empty(2, count, 3, device="meta"), torch.empty(2, 13, device="meta")
    with torch.inference_mode():
        frozen(*module(*given)[:3])  # what is made once is made now
        with HostWatch() as watch:
            image, _ = frozen(*module(*given)[:3])
    assert image.shape == (2, 128, 128, 3)
    assert watch.seen == []


def on_device(
    monkeypatch: pytest.MonkeyPatch, path: Path, batch_limit: int
) -> tuple[AvatarRenderer, HostStream]:
    """Opens an avatar as on a GPU."""
    stream = HostStream()
    engine = TorchEngine(load_frozen(read_bundle(path)), stream=stream)
    monkeypatch.setattr(avatar_renderer, "open_engine", lambda *_, **__: engine)
    monkeypatch.setattr(avatar_renderer, "recall_batch_limit", lambda *_: batch_limit)
    renderer = AvatarRenderer(path)
    monkeypatch.undo()
    return renderer, stream


def assert_alike(ours: list[RenderedFrame], theirs: list[RenderedFrame]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 2
        assert np.abs(one.mask.astype(int) - other.mask).max() <= 2
        assert set(one.timings_ms) == set(other.timings_ms)


def test_an_avatar_whose_engine_is_on_a_device_is_drawn_there(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer, stream = on_device(monkeypatch, bundle.path, batch_limit=4)
    assert stream.capture_count == 6  # drawing and networks, for one, two and four
    stream.replay_count = 0
    there = renderer.render_batch(FACES)
    assert (stream.capture_count, stream.replay_count) == (6, 2)
    here = AvatarRenderer(bundle.path, backend="torch", thread_count=1).render_batch(FACES)
    assert_alike(there, here)
    assert np.abs(there[0].image.astype(int) - there[1].image).max() > 2
    renderer.close()


def test_moved_windows_take_no_graph_and_leave_the_others_theirs(
    narrow_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []
    move = FrozenGenerator.move_window
    monkeypatch.setattr(
        FrozenGenerator, "move_window", lambda frozen, at: (shown.append(at), move(frozen, at))[1]
    )
    renderer, stream = on_device(monkeypatch, narrow_path, batch_limit=4)
    assert (1, 0) in shown  # what a moved window needs was there before a live frame
    captured = stream.capture_count
    here = AvatarRenderer(narrow_path, backend="torch", thread_count=1)
    for shares in ([(0.25, -0.125), (0.0, 0.0), (-0.125, 0.0)], [(0.0, 0.0), (0.0, 0.0)]):
        stream.replay_count = 0
        heads = [shift_head(face(0.2), share) for share in shares]
        assert_alike(renderer.render_batch(heads), here.render_batch(heads))
        assert (stream.capture_count, stream.replay_count) == (captured, 2)
    renderer.close()
