# SPDX-License-Identifier: Apache-2.0
"""From a video, or from a larger avatar, to the dataset on disk that a training reads."""
