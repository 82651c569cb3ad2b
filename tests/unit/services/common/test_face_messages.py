# SPDX-License-Identifier: Apache-2.0
"""Face parameters come back from their messages as they were."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from styleavatar.v1 import face_pb2

from services.common.face_messages import (
    duration_from_seconds,
    identity_from_message,
    identity_to_message,
    parameters_from_message,
    parameters_to_message,
    seconds_from_duration,
)
from services.common.worker.messages import (
    Answer,
    Command,
    Failure,
    decode_answer,
    decode_command,
    encode_answer,
    encode_command,
)
from services.common.worker.parameters import (
    identity_from_body,
    identity_to_body,
    pack_parameters,
    unpack_parameters,
)
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import FaceIdentity, FaceParameters


def some_parameters() -> FaceParameters:
    generator = np.random.default_rng(0)
    rotation = generator.normal(size=4).astype(np.float32)
    return FaceParameters(
        model_id="builtin-3",
        rotation=rotation / np.linalg.norm(rotation),
        translation=generator.normal(size=3).astype(np.float32),
        scale=0.75,
        expression=generator.random(52).astype(np.float32),
        eye_rotation=generator.normal(size=(2, 2)).astype(np.float32),
        confidence=0.5,
        person_index=3,
        capture_time_s=1234.567,
        frame_index=987654321,
    )


def assert_same(left: object, right: object) -> None:
    assert left.model_id == right.model_id
    for name in (part.name for part in fields(left) if part.name != "model_id"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-6)


def test_parameters_survive_the_wire() -> None:
    parameters = some_parameters()
    assert_same(parameters_from_message(parameters_to_message(parameters)), parameters)


def test_parameters_survive_shared_memory_to_the_bit() -> None:
    given = some_parameters()
    back = unpack_parameters(given.model_id, pack_parameters(given))
    for name in (part.name for part in fields(given)):
        assert np.array_equal(getattr(back, name), getattr(given, name))


def test_an_identity_survives_both_ways() -> None:
    identity = FaceIdentity("m", np.array([1.5, -2], np.float32), np.array([0.1], np.float32))
    assert_same(identity_from_message(identity_to_message(identity)), identity)
    line = encode_command(Command(7, "open", identity_to_body(identity)))
    assert line.count(b"\n") == 1
    assert_same(identity_from_body(decode_command(line).body), identity)


@pytest.mark.parametrize("name", ["identity", "texture"])
@pytest.mark.parametrize("values", [[0.0] * 1025, [float("nan")], [float("inf")]])
def test_an_identity_that_no_model_has_is_refused(name: str, values: list[float]) -> None:
    message = face_pb2.FaceIdentity(model_id="m", identity=[0.5], texture=[0.5])
    getattr(message, name)[:] = values
    with pytest.raises(InvalidInputError) as caught:
        identity_from_message(message)
    assert caught.value.reason == "BAD_PARAMETERS"


def test_an_answer_survives_with_its_failure() -> None:
    for answer in (Answer(3, {"a": 1}), Answer(4, failure=Failure("AssetError", "R", "m"))):
        assert decode_answer(encode_answer(answer)) == answer


def test_quaternions_are_normalized() -> None:
    message = parameters_to_message(some_parameters())
    message.rotation.w *= 2
    message.rotation.x *= 2
    message.rotation.y *= 2
    message.rotation.z *= 2
    assert np.linalg.norm(parameters_from_message(message).rotation) == pytest.approx(1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("name", ["scale", "confidence", "rotation.x", "translation.z"])
def test_numbers_that_are_none_are_refused(name: str, bad: float) -> None:
    message = parameters_to_message(some_parameters())
    *path, last = name.split(".")
    setattr(message if not path else getattr(message, path[0]), last, bad)
    with pytest.raises(InvalidInputError, match="frame 987654321"):
        parameters_from_message(message)


def test_no_rotation_and_no_expression_are_refused() -> None:
    for name in ("rotation", "expression", "scale"):
        message = parameters_to_message(some_parameters())
        message.ClearField(name)
        with pytest.raises(InvalidInputError):
            parameters_from_message(message)


@pytest.mark.parametrize("seconds", [0.0, 0.04, 1e-9, 12345.678901234, -0.5])
def test_durations_keep_nanoseconds(seconds: float) -> None:
    assert seconds_from_duration(duration_from_seconds(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 315_576_000_001])
def test_times_that_no_duration_may_have_are_refused(seconds: int) -> None:
    message = parameters_to_message(some_parameters())
    message.capture_offset.seconds = seconds
    with pytest.raises(InvalidInputError, match="absurd"):
        parameters_from_message(message)
