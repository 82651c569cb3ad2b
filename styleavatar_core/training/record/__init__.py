# SPDX-License-Identifier: Apache-2.0
"""What a training leaves on disk: checkpoints to go on from, its log, pictures and curves."""
