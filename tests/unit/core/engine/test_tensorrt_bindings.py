# SPDX-License-Identifier: Apache-2.0
"""Our calls of TensorRT against what its Python bindings take, in every version that we know."""

import inspect
import json
from pathlib import Path

import pytest

from tests.fakes import tensorrt_runtime
from tools.tensorrt_facts import (
    CONTROLS,
    FACTS,
    Facts,
    UsedName,
    parameters_of,
    signatures_of,
    used_calls,
)

FOUND: dict[str, Facts] = json.loads(FACTS.read_text())


def test_the_facts_are_of_versions_10_and_11() -> None:
    assert sorted(version.split(".")[0] for version in FOUND) == ["10", "11"]


@pytest.mark.parametrize("version", FOUND)
def test_every_name_that_we_use_is_in_the_bindings(version: str) -> None:
    used = {used.name for used in used_calls()}
    assert len(used) > 30
    assert used | set(CONTROLS) == set(FOUND[version]), "run tools/tensorrt_facts.py again"
    assert [name for name in sorted(used) if FOUND[version][name] is None] == []


@pytest.mark.parametrize("version", FOUND)
def test_every_call_has_the_arguments_that_the_bindings_take(version: str) -> None:
    calls = [used for used in used_calls() if used.positional_count is not None]
    assert len(calls) > 20
    for call in calls:
        signatures = FOUND[version][call.name]
        assert signatures, call
        assert any(call.fits(signature) for signature in signatures), (call, signatures)


def test_names_that_are_gone_are_found_to_be_gone() -> None:
    old, new = (FOUND[version] for version in sorted(FOUND))
    assert old["ICudaEngine.num_bindings"] is None
    assert old["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"] is not None
    assert new["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"] is None
    assert old["Refitter.get_tensors_with_dynamic_range"] is not None
    assert new["Refitter.get_tensors_with_dynamic_range"] is None
    assert old["Refitter.release_refit_resources"] is None
    assert new["Refitter.release_refit_resources"] is not None


def test_calls_are_collected_from_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        "network = builder.create_network(tensorrt.Flag.A)\n"
        "self._context.start(now=1)\n"
        "other.thing()\n"
    )
    assert used_calls((source,)) == [
        UsedName("Builder.create_network", 1),
        UsedName("Flag"),
        UsedName("Flag.A"),
        UsedName("IExecutionContext.start", 0, ("now",)),
    ]


@pytest.mark.parametrize(
    ("count", "keywords", "is_right"),
    [
        (1, (), True),
        (2, (), True),
        (0, ("sizes", "loud"), True),
        (0, (), False),
        (3, (), False),
        (1, ("sizes",), False),
        (1, ("quiet",), False),
    ],
)
def test_a_call_fits_its_signature_or_not(
    count: int, keywords: tuple[str, ...], is_right: bool
) -> None:
    signature = "build(self: tensorrt.Builder, sizes: dict[str, int], loud: bool = False) -> bool"
    assert UsedName("Builder.build", count, keywords).fits(signature) == is_right


def test_every_overload_of_a_method_is_read() -> None:
    doc = (
        "start(*args, **kwargs)\nOverloaded function.\n\n1. start(self: T) -> bool\n\n    Says.\n\n"
        "2. start(self: T, at: int) -> bool\n"
    )
    assert signatures_of(doc) == ["start(self: T) -> bool", "start(self: T, at: int) -> bool"]


def test_the_stand_in_takes_what_the_bindings_take() -> None:
    _, new = sorted(FOUND)
    methods = 0
    for name, signatures in FOUND[new].items():
        owner, _, member = name.partition(".")
        if name in CONTROLS or not signatures or not member:
            continue
        stand_in = getattr(getattr(tensorrt_runtime, owner), member)
        taken = list(inspect.signature(stand_in).parameters)
        assert any(
            taken[1:] == list(parameters_of(text))[: len(taken) - 1] for text in signatures
        ), name
        methods += 1
    assert methods > 15
