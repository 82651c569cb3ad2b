# SPDX-License-Identifier: Apache-2.0
"""From frames to face parameters: landmarks, Eq. 1-3, filtering (paper, Sec. 3.1)."""
