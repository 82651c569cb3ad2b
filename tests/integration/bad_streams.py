# SPDX-License-Identifier: Apache-2.0
"""Streams of messages that the rendering service must refuse, as Hypothesis thinks them up."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st
from styleavatar.v1 import rendering_service_pb2

from tests.integration.stream_helpers import face, render_config

Request = rendering_service_pb2.StreamFramesRequest

BAD_TIMES = (2**63 - 1, -(2**63), 315_576_000_001)

bad_number = st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38, -1.0])
bad_face = st.one_of(
    st.builds(lambda value: {"scale": value}, bad_number),
    st.builds(lambda value: {"expression": [value] * 52}, bad_number.filter(lambda v: v != -1.0)),
    st.builds(lambda count: {"expression": [0.5] * count}, st.sampled_from([0, 3, 51, 53, 5000])),
    st.just({"rotation": {"w": 0.0}}),
    st.builds(lambda value: {"capture_offset": {"seconds": value}}, st.sampled_from(BAD_TIMES)),
    st.builds(lambda text: {"model_id": text}, st.text(max_size=40)),
)
bad_config = st.one_of(
    st.builds(lambda text: {"avatar_id": text}, st.text(max_size=200)),
    st.builds(lambda value: {"jpeg_quality": value}, st.sampled_from([-1, 101, 2**31 - 1])),
    st.builds(lambda value: {"image_size_px": value}, st.sampled_from([-5, 1, 4096, 2**31 - 1])),
    st.builds(lambda value: {"image_format": value}, st.integers(5, 2**31 - 1)),
    st.builds(lambda value: {"crop": {"left": value, "side": 0.5}}, bad_number),
    st.builds(lambda value: {"frames_per_second": value}, st.sampled_from([-1, 121])),
    st.builds(lambda data: {"background": 4, "background_image": {"data": data}}, st.binary()),
)


def no_message(data: bytes) -> bool:
    """Whether bytes cannot be read as a request, or say nothing that a stream may begin with."""
    try:
        return Request.FromString(data).WhichOneof("request") != "config"
    except Exception:
        return True


bad_faces = bad_face.map(lambda fields: [Request(config=render_config("anna")), fields])
bad_streams = st.one_of(
    bad_config.map(lambda fields: [Request(config=render_config("anna")), ("config", fields)]),
    st.binary(min_size=1, max_size=300).filter(no_message).map(lambda data: [data]),
    st.sampled_from([[Request(parameters=face(0))], [Request()], [Request(set_neutral={})]]),
    st.just([Request(config=render_config("anna")), Request(config=render_config("anna"))]),
)


def encoded(stream: list) -> Iterator[bytes]:
    """Writes a stream of messages, some of them already bytes, some changes of good ones."""
    for part in stream:
        if isinstance(part, tuple):
            config = render_config("anna")
            config.MergeFrom(rendering_service_pb2.RenderConfig(**part[1]))
            if part[1].get("avatar_id") == "":
                config.avatar_id = ""
            yield Request(config=config).SerializeToString()
        elif isinstance(part, dict):
            bad = face(0)
            for name in part:
                bad.ClearField(name)
            bad.MergeFrom(type(bad)(**part))
            yield Request(parameters=bad).SerializeToString()
        else:
            yield part if isinstance(part, bytes) else part.SerializeToString()
