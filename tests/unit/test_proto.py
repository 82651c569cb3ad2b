# SPDX-License-Identifier: Apache-2.0
"""The committed Python code is what the proto files give, and the files follow their own rules."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from styleavatar.v1 import face_pb2, image_pb2, rendering_service_pb2, tracking_service_pb2

PROTO = Path(__file__).resolve().parents[2] / "proto"
MODULES = (face_pb2, image_pb2, rendering_service_pb2, tracking_service_pb2)


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    runpy.run_path(str(PROTO / "generate.py"))["generate"](tmp_path)
    committed = PROTO / "gen" / "python"
    names = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    kept = {
        p.relative_to(committed)
        for p in committed.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and ".egg-info" not in str(p)
    }
    assert names == kept
    for name in sorted(names):
        assert (tmp_path / name).read_bytes() == (committed / name).read_bytes(), name


def test_other_languages_are_told_where_the_code_belongs() -> None:
    for module in MODULES:
        options = module.DESCRIPTOR.GetOptions()
        assert options.go_package == "styleavatar/v1;styleavatarv1"  # Go's compiler refuses without
        assert options.java_multiple_files  # else each message is inside a class of its file's name


@pytest.mark.parametrize("path", sorted(PROTO.glob("styleavatar/v1/*.proto")), ids=lambda p: p.stem)
def test_everything_has_a_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    declares = re.compile(
        r"\s*(message|enum|service|rpc|oneof|[\w.]+ \w+ = \d|repeated |[A-Z_0-9]+ = \d)"
    )
    for number, line in enumerate(lines):
        if declares.match(line):
            assert lines[number - 1].strip().startswith("//"), f"{path.name}:{number + 1}: {line}"


def test_enums_begin_with_an_unspecified_zero_and_their_own_prefix() -> None:
    for module in MODULES:
        for enum in module.DESCRIPTOR.enum_types_by_name.values():
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
            assert enum.values_by_number[0].name == f"{prefix}UNSPECIFIED"
            assert all(value.name.startswith(prefix) for value in enum.values)


def test_each_rpc_has_messages_of_its_own() -> None:
    seen: set[str] = set()
    for module in (rendering_service_pb2, tracking_service_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                names = {method.input_type.name, method.output_type.name}
                assert not names & seen
                seen |= names
                assert method.input_type.name.endswith("Request")
                assert method.output_type.name.endswith("Response")


def test_every_message_with_a_rendered_picture_says_synthetic() -> None:
    assert "synthetic" in rendering_service_pb2.RenderedFrame.DESCRIPTOR.fields_by_name
    for module in (rendering_service_pb2, tracking_service_pb2):
        for message in module.DESCRIPTOR.message_types_by_name.values():
            pictures = [
                f for f in message.fields if f.message_type and f.message_type.name == "Image"
            ]
            # A background goes into a config; what comes out is a rendered frame.
            assert not pictures or message.name in ("RenderedFrame", "RenderConfig")
