# SPDX-License-Identifier: Apache-2.0
"""The 3D morphable model of the paper (Sec. 3.1): geometry, expression names, camera."""
