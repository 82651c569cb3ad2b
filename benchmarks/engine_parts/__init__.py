# SPDX-License-Identifier: Apache-2.0
"""Parts of ``benchmarks.engine``: the work of a frame, one engine's figures, a first frame."""
