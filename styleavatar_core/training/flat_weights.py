# SPDX-License-Identifier: Apache-2.0
"""A network's weights as one vector: an optimizer then takes one step instead of hundreds."""

from __future__ import annotations

import torch
from torch import nn


def flat_weights(network: nn.Module) -> list[nn.Parameter]:
    """Lays a network's weights into one vector, of which they are views from then on.

    So are their gradients, if it has any: they are to be set to zero, never to None. The order of
    each weight in memory (channels last) stays. Moving the network to another device undoes it.

    Args:
        network: Has weights of one type, on one device, that all learn or all do not.

    Returns:
        The vector alone in a list, (sum of all sizes,), as optimizers take it.
    """
    weights = list(network.parameters())
    size = sum(weight.numel() for weight in weights)
    vector = nn.Parameter(weights[0].new_empty(size), requires_grad=weights[0].requires_grad)
    if vector.requires_grad:
        vector.grad = torch.zeros_like(vector)
    first = 0
    for weight in weights:
        place = (weight.size(), weight.stride(), first)
        view = vector.detach().as_strided(*place)
        view.copy_(weight.detach())
        weight.data = view
        if vector.grad is not None:
            weight.grad = vector.grad.as_strided(*place)
        first += weight.numel()
    return [vector]
