# SPDX-License-Identifier: Apache-2.0
"""The client's commands, as the command line loads them."""

from styleavatar_client.create_command import create
from styleavatar_client.drive_command import drive

__all__ = ["create", "drive"]
