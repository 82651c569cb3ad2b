# SPDX-License-Identifier: Apache-2.0
"""Work on a CUDA device: streams, captured graphs, and transfers beside them."""
