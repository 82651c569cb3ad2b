# SPDX-License-Identifier: Apache-2.0
"""Tracks faces over gRPC and drives avatars with them: a light front process, and workers."""
