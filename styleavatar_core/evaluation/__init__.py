# SPDX-License-Identifier: Apache-2.0
"""Metrics, baselines and reports on the held-out part of a clip (paper, Sec. 4)."""
