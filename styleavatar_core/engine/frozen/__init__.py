# SPDX-License-Identifier: Apache-2.0
"""The network as inference computes it: what is constant is folded away."""
