# SPDX-License-Identifier: Apache-2.0
"""Avatars in the formats of others: ONNX out, with the check that it agrees; checkpoints in."""
