# SPDX-License-Identifier: Apache-2.0
"""Messages that no client would send: is each answered with its status, is a worker lost?"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import grpc
from styleavatar.v1 import rendering_service_pb2

from benchmarks.streaming_parts.bench import Progress
from benchmarks.streaming_parts.callers import Request, config_request, face_request
from benchmarks.streaming_parts.service import RunningService, memory_mb

METHOD = "/styleavatar.v1.RenderingService/StreamFrames"
BEYOND_LIMIT_BYTES = 34_000_000
TIMEOUT_S = 30

INVALID: set[grpc.StatusCode | str] = {grpc.StatusCode.INVALID_ARGUMENT}
UNKNOWN: set[grpc.StatusCode | str] = {grpc.StatusCode.NOT_FOUND}
FAILED: set[grpc.StatusCode | str] = {"failure"}  # of the frame; the stream goes on


class Malformed(NamedTuple):
    """One stream.

    Attributes:
        messages: Its bytes.
        right: The ends that fit: a status that is an error, or the kind of the last answer.
    """

    messages: list[bytes]
    right: set[grpc.StatusCode | str]


def send_garbage(service: RunningService, avatar_id: str, count: int) -> dict[str, float]:
    """Sends malformed streams; counts those answered rightly, and workers that are gone then."""
    call = service.channel.stream_stream(METHOD)
    before = {worker.pid for worker in service.workers()}
    chance = random.Random(0)
    progress = Progress("malformed", count)
    answered = 0
    front_mb = [memory_mb(service.process)]
    for index in range(count):
        if index == count // 2:
            front_mb.append(memory_mb(service.process))
        answered += _is_answered(call, KINDS[index % len(KINDS)](chance, avatar_id))
        progress.tell(index)
    lost = before - {worker.pid for worker in service.workers()}
    return {
        "malformed.messages": float(count),
        "malformed.answered_rightly_percent": 100 * answered / count,
        "malformed.workers_lost": float(len(lost)),
        "malformed.front_grown_mb_first_half": front_mb[1] - front_mb[0],
        "malformed.front_grown_mb_second_half": memory_mb(service.process) - front_mb[1],
    }


def _is_answered(call: grpc.StreamStreamMultiCallable, stream: Malformed) -> bool:
    end: grpc.StatusCode | str
    try:
        *_, last = call(iter(stream.messages), timeout=TIMEOUT_S)
        end = rendering_service_pb2.StreamFramesResponse.FromString(last).WhichOneof("response")
    except grpc.RpcError as error:
        end = error.code()
    return end in stream.right


def _bad_number(chance: random.Random, avatar_id: str) -> Malformed:
    face = face_request(0)
    value = chance.choice([float("nan"), float("inf"), -float("inf"), 1e30])
    field = chance.choice(["scale", "expression", "rotation"])
    if field == "scale":
        face.parameters.scale = value
    elif field == "expression":
        face.parameters.expression[chance.randrange(52)] = chance.choice([value, float("nan")])
        face.parameters.expression[0] = float("nan")
    else:
        face.parameters.rotation.w = float("nan")
    return Malformed(_encoded(config_request(avatar_id), face), FAILED)


def _wrong_length(chance: random.Random, avatar_id: str) -> Malformed:
    face = face_request(0)
    del face.parameters.expression[:]
    face.parameters.expression.extend([0.1] * chance.choice([1, 51, 53, 100_000]))
    return Malformed(_encoded(config_request(avatar_id), face), FAILED)


def _odd_avatar(chance: random.Random, avatar_id: str) -> Malformed:
    config = config_request("".join(chance.choices("../\x00abcÄ", k=chance.randrange(60))))
    return Malformed(_encoded(config, face_request(0)), UNKNOWN)


def _unknown_avatar(chance: random.Random, avatar_id: str) -> Malformed:
    config = config_request(f"nobody-{chance.randrange(1000)}")
    return Malformed(_encoded(config, face_request(0)), UNKNOWN)


def _absurd_size(chance: random.Random, avatar_id: str) -> Malformed:
    config = config_request(avatar_id, image_size_px=chance.choice([-1, 1, 4096, 1 << 30]))
    return Malformed(_encoded(config, face_request(0)), INVALID)


def _absurd_time(chance: random.Random, avatar_id: str) -> Malformed:
    face = face_request(0)
    face.parameters.capture_offset.seconds = chance.choice([2**63 - 1, -(2**63), 10**12])
    return Malformed(_encoded(config_request(avatar_id), face), FAILED)


def _too_long_or_empty(chance: random.Random, avatar_id: str) -> Malformed:
    # Rarely as long as that: sending it takes longer than all others together.
    byte_count = BEYOND_LIMIT_BYTES if chance.random() < 0.02 else 0
    right = {grpc.StatusCode.RESOURCE_EXHAUSTED} if byte_count else INVALID
    return Malformed([bytes(byte_count)], right)


def _unreadable(chance: random.Random, avatar_id: str) -> Malformed:
    noise = b"\xff" + chance.randbytes(chance.randrange(1, 2000))
    return Malformed([config_request(avatar_id).SerializeToString(), noise], INVALID)


def _face_first(chance: random.Random, avatar_id: str) -> Malformed:
    return Malformed(_encoded(face_request(0), config_request(avatar_id)), INVALID)


def _changed_bits(chance: random.Random, avatar_id: str) -> Malformed:
    """A face of which bits have changed on the way: it may still be one."""
    config, face = _encoded(config_request(avatar_id), face_request(0))
    changed = bytearray(face)
    for _ in range(chance.randrange(1, 20)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return Malformed([config, bytes(changed)], INVALID | FAILED | {"frame", "config"})


def _encoded(*requests: Request) -> list[bytes]:
    return [request.SerializeToString() for request in requests]


KINDS: tuple[Callable[[random.Random, str], Malformed], ...] = (
    _bad_number,
    _wrong_length,
    _odd_avatar,
    _unknown_avatar,
    _absurd_size,
    _absurd_time,
    _too_long_or_empty,
    _unreadable,
    _face_first,
    _changed_bits,
)
