# SPDX-License-Identifier: Apache-2.0
"""Renders avatars over gRPC: a light front process, and workers that hold the engines."""
