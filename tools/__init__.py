# SPDX-License-Identifier: Apache-2.0
"""Developers' tools: not installed with the package."""
