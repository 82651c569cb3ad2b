# SPDX-License-Identifier: Apache-2.0
import copy

import torch
from torch import nn

from styleavatar_core.training.flat_weights import flat_weights


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 2, 3))
    return network.to(memory_format=torch.channels_last)


def test_a_flat_network_learns_as_one_of_separate_weights() -> None:
    flat = _network()
    separate = copy.deepcopy(flat)
    vectors = flat_weights(flat)
    optimizers = [
        torch.optim.Adam(vectors, lr=0.1),
        torch.optim.Adam(separate.parameters(), lr=0.1),
    ]
    for step in range(3):
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for network, optimizer in zip((flat, separate), optimizers, strict=True):
            optimizer.zero_grad(set_to_none=False)
            network(x).square().sum().backward()
            optimizer.step()
    for ours, theirs in zip(flat.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()


def test_weights_and_gradients_are_views_of_one_vector() -> None:
    network = _network()
    (vector,) = flat_weights(network)
    network(torch.ones(1, 3, 8, 8)).sum().backward()
    assert vector.numel() == sum(weight.numel() for weight in network.parameters())
    assert vector.grad is not None
    assert float(vector.grad.abs().sum()) > 0
    with torch.no_grad():
        vector.zero_()
        vector.grad.zero_()
    for weight in network.parameters():
        assert weight.grad is not None
        assert not weight.any()
        assert not weight.grad.any()


def test_loaded_weights_reach_the_vector() -> None:
    network = _network()
    other = {name: torch.ones_like(x) for name, x in network.state_dict().items()}
    (vector,) = flat_weights(network)
    network.load_state_dict(other)
    assert torch.equal(vector, torch.ones_like(vector))
