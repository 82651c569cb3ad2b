# SPDX-License-Identifier: Apache-2.0
"""The tracer writes down exactly what depends on the inputs."""

import subprocess
import sys

import onnx
import pytest
import torch
import torch.nn.functional as F

from styleavatar_core.engine.onnx.operators import OPERATORS
from styleavatar_core.engine.onnx.tracing import Tracer
from styleavatar_core.errors import EngineError


def trace(function, *shapes: tuple[int, ...], names: dict[int, str] | None = None) -> Tracer:
    tracer = Tracer(OPERATORS, names)
    with torch.inference_mode(), tracer:
        inputs = [tracer.value(f"x{i}", shape, torch.float32) for i, shape in enumerate(shapes)]
        output = function(*inputs)
    tracer.prune([tracer.name_of(output)])
    return tracer


def test_what_depends_on_no_input_is_computed_and_becomes_a_constant() -> None:
    weight = torch.randn(4, 3, 3, 3)
    tracer = trace(lambda x: F.conv2d(x, (weight * 2).flip(2), padding=1), (1, 3, 8, 8))
    assert [node.operator for node in tracer.nodes] == ["Conv"]
    (constant,) = tracer.constants.values()
    torch.testing.assert_close(constant, (weight * 2).flip(2))


def test_shapes_are_known_without_computing() -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        y = F.conv_transpose2d(x, torch.zeros(3, 5, 4, 4), stride=2, padding=1)
        y = F.interpolate(F.pad(y, (1, 2, 3, 4)), scale_factor=2.0, mode="bilinear")
        return torch.cat([y, F.pixel_unshuffle(F.pixel_shuffle(y.repeat_interleave(1), 1), 1)], 1)

    def without_repeat(x: torch.Tensor) -> torch.Tensor:
        y = F.conv_transpose2d(x, torch.zeros(3, 5, 4, 4), stride=2, padding=1)
        y = F.interpolate(F.pad(y, (1, 2, 3, 4)), scale_factor=2.0, mode="bilinear")
        return torch.cat([y, y], 1)[:, 1:-1, ::2]

    expected = without_repeat(torch.zeros(2, 3, 6, 7)).shape
    assert trace(without_repeat, (2, 3, 6, 7)).nodes[-1].shape == tuple(expected)
    with pytest.raises(EngineError, match="does not know"):
        trace(network, (2, 3, 6, 7))


def test_what_no_output_needs_is_left_out() -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        torch.tanh(x + torch.ones(8))
        return x * torch.full((8,), 3.0)

    tracer = trace(network, (1, 8))
    assert [node.operator for node in tracer.nodes] == ["Mul"]
    assert len(tracer.constants) == 1


def test_parameters_keep_their_names_and_are_written_once() -> None:
    weight = torch.randn(3, 3, 1, 1)
    tracer = trace(
        lambda x: F.conv2d(F.conv2d(x, weight), weight),
        (1, 3, 4, 4),
        names={weight.data_ptr(): "layer.weight"},
    )
    assert list(tracer.constants) == ["layer.weight"]


def test_every_operator_name_is_one_of_onnx() -> None:
    def network(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = F.leaky_relu(1 - x, 0.2) / 3 + y.clamp(max=1.0).floor().round()
        z = F.grid_sample(z, y[:, :2].permute(0, 2, 3, 1), align_corners=False)
        z = F.avg_pool2d(z, 2).to(torch.uint8).float()
        return z[:, :, 0].unsqueeze(1).reshape(1, -1)

    nodes = trace(network, (1, 4, 8, 8), (1, 4, 8, 8)).nodes
    assert len(nodes) > 12
    for node in nodes:
        assert onnx.defs.get_schema(node.operator, 17).name == node.operator


def test_tracing_does_not_import_the_compiler_of_torch() -> None:
    program = (
        "import sys, torch\n"
        "from styleavatar_core.engine.onnx.operators import OPERATORS\n"
        "from styleavatar_core.engine.onnx.tracing import Tracer\n"
        "tracer = Tracer(OPERATORS)\n"
        "with torch.inference_mode(), tracer:\n"
        "    x = tracer.value('x', (1, 3), torch.float32)\n"
        "    y = torch.tanh(x * 2 + torch.ones(3))\n"
        "assert tuple(y.shape) == (1, 3) and len(tracer.nodes) == 3\n"
        "sys.exit('torch._dynamo' in sys.modules or 'sympy' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr or "importing takes a second at the first avatar"
