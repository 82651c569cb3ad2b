# SPDX-License-Identifier: Apache-2.0
"""One thread: on shared cores, OpenMP threads that wait for each other take ten times as long."""

import torch

torch.set_num_threads(1)
