# SPDX-License-Identifier: Apache-2.0
"""The frozen layers as torch computes them on a CPU with less work: tiles, matrix unit, strips."""
