# SPDX-License-Identifier: Apache-2.0
"""What all services share; imports neither torch nor any one service."""
