# SPDX-License-Identifier: Apache-2.0
"""Face models are found by their id, and only the file that was meant is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from styleavatar_core.errors import AssetError, ConflictError
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID, EARLIER_MODEL_ID, builtin_model
from styleavatar_core.face3d.library import (
    add_face_model,
    choose_face_model,
    find_face_model,
    models_folder,
)


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEAVATAR_DATA", str(tmp_path))
    return tmp_path


def test_without_a_choice_it_is_the_built_in_one() -> None:
    model = builtin_model()
    assert find_face_model() is choose_face_model("") is find_face_model(BUILTIN_MODEL_ID) is model
    assert len(model.digest) == 64
    assert find_face_model(BUILTIN_MODEL_ID, model.digest) is model


def test_an_added_model_is_found_and_read_once(data_folder: Path) -> None:
    added = add_face_model(replace(builtin_model(), model_id="mine"))
    assert models_folder() == data_folder / "models"
    assert [path.name for path in models_folder().iterdir()] == ["mine.safetensors"]
    assert find_face_model("mine") is added
    assert find_face_model("mine", added.digest) is added
    assert add_face_model(replace(builtin_model(), model_id="mine")).digest == added.digest


def test_a_file_that_is_chosen_is_found_by_its_id_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.safetensors"
    replace(builtin_model(), model_id="theirs").save(path)
    assert choose_face_model(str(path)) is find_face_model("theirs")
    path.unlink()
    assert find_face_model("theirs").model_id == "theirs"


def test_two_models_of_one_id_are_not_mixed_up() -> None:
    model = replace(builtin_model(), model_id="mine")
    digest = add_face_model(model).digest
    other = replace(model, mean_shape=model.mean_shape * 2)
    with pytest.raises(ConflictError, match=r"mine\.safetensors"):
        add_face_model(other)
    (models_folder() / "mine.safetensors").unlink()
    assert add_face_model(other).digest != digest
    with pytest.raises(AssetError, match="another file") as caught:
        find_face_model("mine", digest)
    assert caught.value.reason == "FACE_MODEL_DIFFERS"
    with pytest.raises(AssetError, match="another file"):
        find_face_model(BUILTIN_MODEL_ID, digest)


@pytest.mark.parametrize("model_id", ["", "../mine", "a/b", "Mine", ".mine", "x" * 65])
def test_a_model_whose_id_could_not_be_found_again_is_refused(
    model_id: str, data_folder: Path
) -> None:
    with pytest.raises(AssetError, match="begins with a letter or digit") as caught:
        add_face_model(replace(builtin_model(), model_id=model_id))
    assert f"'{model_id[:64]}'" in str(caught.value)
    assert [path for path in data_folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("model_id", [BUILTIN_MODEL_ID, EARLIER_MODEL_ID])
def test_nothing_takes_the_place_of_a_built_in_model(model_id: str) -> None:
    model = find_face_model(model_id)
    with pytest.raises(ConflictError, match=f"'{model_id}'.*built in"):
        add_face_model(replace(model, mean_shape=model.mean_shape * 2))
    assert add_face_model(model) is model
    assert list(models_folder().iterdir()) == []


@pytest.mark.parametrize("model_id", ["faceverse-v3", "../mine", "a/b", "x" * 5000])
def test_a_missing_model_says_how_to_get_it(model_id: str, data_folder: Path) -> None:
    replace(builtin_model(), model_id="mine").save(data_folder / "mine.safetensors")
    with pytest.raises(AssetError, match="import-faceverse FILE") as caught:
        find_face_model(model_id)
    assert caught.value.reason == "FACE_MODEL_MISSING"
    assert len(str(caught.value)) < 500
