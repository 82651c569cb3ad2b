# SPDX-License-Identifier: Apache-2.0
"""Training of an avatar from a prepared dataset (paper, Sec. 3.2-3.4)."""
