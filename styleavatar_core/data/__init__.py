# SPDX-License-Identifier: Apache-2.0
"""Video in and out, mattes, the portrait window and its crop (paper, Sec. 3.1)."""
