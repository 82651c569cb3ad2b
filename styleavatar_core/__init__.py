# SPDX-License-Identifier: Apache-2.0
"""The StyleAvatar method: tracking, networks, training and engines, without any service."""

__version__ = "0.1.0"
