# SPDX-License-Identifier: Apache-2.0
"""The front's side of the workers: which avatar is where, and frames to and fro."""
