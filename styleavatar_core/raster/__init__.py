# SPDX-License-Identifier: Apache-2.0
"""Meshes to pixels: texture rendering and UV rendering (paper, Sec. 3.1)."""
