# SPDX-License-Identifier: Apache-2.0
"""The StyleAvatar method: tracking, networks, training and engines, without any service."""

import os

__version__ = "0.1.0"

# Read by OpenMP when torch is first loaded. By default its threads spin for many milliseconds while
# they wait for each other; where another process needs the core, every small operation then costs a
# time slice, and training stands still (seen: 4 steps in 275 s on busy cores, 200 on idle ones).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
