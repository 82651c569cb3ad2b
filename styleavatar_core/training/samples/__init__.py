# SPDX-License-Identifier: Apache-2.0
"""What a step takes: frames in random boxes and windows, with what a clip shows of a person."""
