# SPDX-License-Identifier: Apache-2.0
import torch

from styleavatar_core.training.avatar_networks import AvatarNetworks, MovingAverage


def test_moving_average_in_closed_form(tiny_config):
    networks = AvatarNetworks(tiny_config)
    average = MovingAverage(networks, decay=0.5)
    static, generator = networks.flat_weights()
    start = networks.generator.mask_conv.bias.detach().clone()
    with torch.no_grad():
        networks.generator.mask_conv.bias.fill_(1.0)
    for step in (1000, 1001, 1002):  # after the ramp
        average.update(networks, static + generator, step)
    wanted = 1.0 + (start - 1.0) * 0.5**3
    torch.testing.assert_close(average.networks.generator.mask_conv.bias, wanted)
