# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from styleavatar_core.errors import AssetError
from styleavatar_core.export import onnx as export
from styleavatar_core.export.parity import Parity
from tests.fakes.nano_bundle import write_nano_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano_bundle(tmp_path_factory.mktemp("bundle") / "avatar")


def test_exported_file_runs_without_our_code(bundle_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "folder" / "avatar.onnx"
    parity = export.export_onnx(bundle_path, output)
    assert parity.image_error <= 1
    onnx.checker.check_model(str(output), full_check=True)
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


def test_file_that_differs_from_torch_is_refused(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "compare_engines", lambda *_: Parity(9, 0.5, 0))
    with pytest.raises(AssetError, match="differs from torch by 9"):
        export.export_onnx(bundle_path, tmp_path / "avatar.onnx")
