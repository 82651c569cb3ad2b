# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.cli.main import build_app
from styleavatar_core.engine.base import joined
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.export import onnx as export
from styleavatar_core.export.parity import Parity, random_input
from styleavatar_core.provenance.consent import ConsentRecord
from tests.fakes.nano_bundle import write_nano_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano_bundle(tmp_path_factory.mktemp("bundle") / "avatar")


def test_exported_file_runs_without_our_code(bundle_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "folder" / "avatar.onnx"
    parity = export.export_onnx(bundle_path, output)
    assert parity.image_error <= 1
    onnx.checker.check_model(str(output), full_check=True)
    properties = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    bundle = read_bundle(bundle_path)
    assert ConsentRecord.model_validate_json(properties["consent"]) == bundle.manifest.consent
    assert (properties["synthetic"], properties["bundle_digest"]) == ("true", bundle.digest)
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    image, mask = session.run(
        ["image", "mask"],
        {
            "texture_rendering": np.zeros((1, 128, 128, 3), np.uint8),
            "uv_rendering": np.zeros((1, 128, 128, 2), np.float32),
            "face_mask": np.zeros((1, 128, 128), np.uint8),
        },
    )
    assert image.shape == (1, 128, 128, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (1, 128, 128)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_graph_of_several_samples_gives_each_its_picture(
    bundle_path: Path, tmp_path: Path, batch_size: int
) -> None:
    output = tmp_path / "avatar.onnx"
    command = ["export", str(bundle_path), "--output", str(output), "--batch", str(batch_size)]
    result = CliRunner().invoke(build_app(), command)
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert [node.shape[0] for node in session.get_inputs()] == [batch_size] * 3
    engine, alone = (
        OnnxEngine(output, thread_count=1),
        TorchEngine(load_frozen(read_bundle(bundle_path))),
    )
    inputs = joined([random_input(engine, seed=seed) for seed in range(3)])  # not a multiple
    image = engine.render(inputs).image
    assert len(image) == 3
    for index in range(3):
        expected = alone.render(inputs.part(index)).image[0]
        assert np.abs(image[index].astype(int) - expected).max() <= 1


def test_a_batch_that_nobody_exports_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one of 1, 2, 4, 8 samples, got 3"):
        export.export_onnx(bundle_path, tmp_path / "avatar.onnx", batch_size=3)


def test_file_that_differs_from_torch_is_refused(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "compare_engines", lambda *_, **__: Parity(9, 0.5, 0))
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "avatar.onnx").write_bytes(b"an earlier one")
    with pytest.raises(AssetError, match="differs from torch by 9"):
        export.export_onnx(bundle_path, folder / "avatar.onnx")
    assert [path.name for path in folder.iterdir()] == ["avatar.onnx"]
    assert (folder / "avatar.onnx").read_bytes() == b"an earlier one"
