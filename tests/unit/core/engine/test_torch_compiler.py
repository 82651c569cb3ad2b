# SPDX-License-Identifier: Apache-2.0
"""Code of torch's compiler gives an avatar's pictures, is shared, and holds nothing of anybody."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine import backends, calibration, gate, selection
from styleavatar_core.engine.base import RenderEngine, RenderInput, joined
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cuda.compiled import CompiledModule
from styleavatar_core.engine.cuda.compiled import code_folder as code_folder_of
from styleavatar_core.engine.frozen import peaks
from styleavatar_core.engine.frozen.composition import FrozenSampler
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenToRGB
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.reference import Reference
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.verdicts import Verdict
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import FeatureMaps
from styleavatar_core.networks.composition import crop_windows
from styleavatar_core.networks.noise import Noise
from styleavatar_core.networks.portrait_generator import PortraitOutput
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS
from tests.fakes.host_stream import HostStream
from tests.fakes.tiny_bundle import tiny_config

pytestmark = pytest.mark.filterwarnings("default")  # compilers warn of what they call themselves

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))),
    reason="there is no C++ compiler",
)


class FewLayers(nn.Module):
    """Frozen layers of each kind, a map, noise and a window: all that a graph may have in it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = tiny_config()
        down, up = torch.randn(8, 3, 3, 3) / 5, torch.randn(4, 8, 3, 3) / 9
        self.down = FrozenConv(down, torch.randn(8), slope=0.2, down_taps=IMAGE_TAPS)
        self.sampler = FrozenSampler(torch.randn(1, 8, 16, 16))
        self.up = FrozenConv(up, torch.randn(4), slope=0.2, noise_strength=0.3, up_taps=(1.0, 1.0))
        self.to_rgb = FrozenToRGB(torch.randn(12, 4, 1, 1) / 4, torch.randn(12))

    def forward(
        self,
        style: torch.Tensor,
        rendering: torch.Tensor,
        uv: torch.Tensor,
        face_mask: torch.Tensor,
        face: FeatureMaps,
        background: FeatureMaps,
        window: torch.Tensor,
        noise: Noise,
    ) -> PortraitOutput:
        x = self.down(rendering) + background.feature
        x = x + (self.sampler(face.feature, uv) * face_mask)[..., ::2, ::2]
        x = crop_windows(F.pad(x, (4, 4, 4, 4)), window + 4, 32)
        mask = torch.sigmoid(x[:, :1])
        drawn = self.to_rgb(self.up(x, None, noise.foreground), style, None)
        return PortraitOutput(F.pixel_shuffle(drawn, 2)[..., ::2, ::2], mask)


def few_layers(seed: int) -> FrozenGenerator:
    torch.manual_seed(seed)
    face = FeatureMaps(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    background = FeatureMaps(torch.randn(1, 8, 32, 32), torch.zeros(1, 12, 1, 1))
    noise = Noise(torch.randn(1, 1, 64, 64), torch.zeros(1), torch.zeros(1))
    window = torch.zeros(1, 2, dtype=torch.int64)
    network: Any = FewLayers()
    # On a CPU fp16 keeps its layers as they are, which is what a GPU gets.
    return FrozenGenerator(network, face, background, window, noise).half().requires_grad_(False)


@pytest.fixture(scope="module")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
            patch.setenv(name, "1")  # as it was before, afterwards
        yield tmp_path_factory.mktemp("cache") / "code"


def compiled_engine(seed: int, folder: Path) -> TorchEngine:
    return TorchEngine(few_layers(seed), stream=HostStream(), code_folder=folder)


def batch_of(engine: TorchEngine, count: int) -> RenderInput:
    return joined([random_input(engine, seed=seed) for seed in range(count)])


def assert_uncompiled_pictures(engine: TorchEngine, seed: int, count: int) -> None:
    batch = batch_of(engine, count)
    output = engine.render(batch)
    expected = TorchEngine(few_layers(seed), stream=HostStream()).render(batch)
    assert expected.image.std() > 20
    for one, other in ((output.image, expected.image), (output.mask, expected.mask)):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= 2  # rounded less often


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@needs_compiler
@pytest.mark.timeout(1200)  # half a minute of a core, most of it the C++ compiler's
def test_compiled_code_gives_the_pictures_and_serves_other_avatars_too(code_folder: Path) -> None:
    first = compiled_engine(1, code_folder)
    assert_uncompiled_pictures(first, 1, count=2)
    assert first.is_compiled
    assert first.info.version.endswith(", compiled")
    made = files_in(code_folder)
    assert made
    second = compiled_engine(2, code_folder)
    assert_uncompiled_pictures(second, 2, count=2)
    assert second.is_compiled
    assert files_in(code_folder) == made
    batch = batch_of(first, 2)
    assert not np.array_equal(first.render(batch).image, second.render(batch).image)
    first.close()
    second.close()


@needs_compiler
def test_nothing_of_an_avatar_is_in_compiled_code(code_folder: Path) -> None:
    engine = compiled_engine(1, code_folder)
    engine.render(batch_of(engine, 2))
    contents = [path.read_bytes() for path in files_in(code_folder)]
    checked = 0
    for name, tensor in few_layers(1).state_dict().items():
        values = tensor.flatten()[:8]
        if len(values) < 8 or (values == values[0]).all() or name.endswith("fir"):
            continue  # nobody's: zeros, and filters that are the same for all
        checked += 1
        written = (values.numpy().tobytes(), str(values[0].item()).encode())
        assert not any(part in content for content in contents for part in written), name
    assert checked >= 7
    assert any(b"convolution" in content for content in contents)


@pytest.mark.parametrize("is_wrong", [False, True])
def test_what_cannot_be_compiled_or_is_wrong_is_rendered_without_with_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_wrong: bool,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "restored")

    def fail(compute: Any, **options: Any) -> Any:
        if is_wrong:
            return lambda *given: [255 - part for part in compute(*given)]
        raise RuntimeError("Cannot find a working\ntriton installation")

    monkeypatch.setattr(torch, "compile", fail)
    engine = compiled_engine(3, tmp_path)
    for count in (1, 2):
        assert_uncompiled_pictures(engine, 3, count)
    assert not engine.is_compiled
    assert "compiled" not in engine.info.version
    (warning,) = [record for record in caplog.records if "be compiled" in record.message]
    reason = "gives other pictures" if is_wrong else "Cannot find a working triton"
    assert reason in warning.why


@needs_compiler
def test_a_process_compiles_for_more_avatars_than_torch_would_for_one_function(
    code_folder: Path,
) -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.share = nn.Parameter(torch.rand(3), requires_grad=False)

        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor]:
            return ((values * self.share * 255).to(torch.uint8),)

    for _ in range(torch._dynamo.config.recompile_limit + 1):
        module = Module()
        compiled = CompiledModule(module, code_folder)
        with torch.inference_mode():
            values = torch.rand(1, 3)
            assert torch.equal(compiled(values)[0], module(values)[0])
        assert compiled.is_compiled


def test_compiled_code_goes_when_it_takes_too_much_and_nothing_with_it(tmp_path: Path) -> None:
    small = EngineCache(tmp_path, limit_bytes=4 * 100_000)
    other = tmp_path / "entry.engine"
    other.write_bytes(b"engine")
    code = code_folder_of(small) / "ab" / "kernel.py"
    code.parent.mkdir(parents=True)
    for size_bytes, is_kept in ((80_000, True), (100_001, False)):
        code.write_bytes(bytes(size_bytes))
        assert code_folder_of(small) == code.parent.parent
        assert code.exists() == is_kept
    assert other.exists()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, as far as our code can see, whose compiler changes nothing."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "restored")
    monkeypatch.setattr(torch, "compile", lambda compute, **options: compute)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(peaks, "fast_device", lambda: "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))

    def open_on_host(
        generator: FrozenGenerator, *, device: str, stream: None, code_folder: Path | None
    ) -> TorchEngine:
        assert (device, stream) == ("cuda", None)
        return TorchEngine(generator, stream=HostStream(), code_folder=code_folder)

    monkeypatch.setattr(backends, "TorchEngine", open_on_host)


def frames_take(monkeypatch: pytest.MonkeyPatch, plain_s: float, compiled_s: float) -> list[bool]:
    """Says what frames take, and returns where it is written whose were measured."""
    measured: list[bool] = []

    def measure(engine: TorchEngine) -> float:
        measured.append(engine.is_compiled)
        return compiled_s if engine.is_compiled else plain_s

    monkeypatch.setattr(calibration, "measure_frame_s", measure)
    return measured


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("compiled_s", [0.005, 0.02])
def test_an_avatar_is_opened_in_the_form_that_is_faster_and_is_judged_in_it(
    bundle: AvatarBundle, cache: Path, monkeypatch: pytest.MonkeyPatch, compiled_s: float
) -> None:
    measured = frames_take(monkeypatch, 0.01, compiled_s)
    engine = selection.open_engine(bundle)
    assert isinstance(engine, TorchEngine)
    assert engine.is_compiled == (compiled_s < 0.01)
    assert engine.info.note.startswith("fp16 gives")
    assert "at least the 45 dB" in engine.info.note
    again = backends.get_backend("torch").open(
        OpeningAvatar(FrozenParts(bundle), EngineCache(), 1, "fp16")
    )
    assert again.info == replace(engine.info, note="")
    assert measured == [False, True]  # once
    assert '"compiled/nano/torch' in (cache / "calibration.json").read_text()
    if engine.is_compiled:
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache / "code")


@pytest.mark.usefixtures("gpu")
def test_where_the_gate_refuses_compiled_pictures_the_same_precision_does_without(
    bundle: AvatarBundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames_take(monkeypatch, 0.01, 0.005)
    judge = gate.judge

    def refuse(engine: RenderEngine, reference: Reference) -> Verdict:
        verdict = judge(engine, reference)
        return Verdict("fp16", 20.0) if "compiled" in engine.info.version else verdict

    monkeypatch.setattr(gate, "judge", refuse)
    engine = selection.open_engine(bundle)
    assert engine.info.precision == "fp16"
    assert "compiled" not in engine.info.version
    assert engine.info.note.startswith("fp16 gives 20.0 dB against fp32, less than")
    engine.close()
