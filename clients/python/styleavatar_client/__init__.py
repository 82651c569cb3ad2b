# SPDX-License-Identifier: Apache-2.0
"""Client of a StyleAvatar installation: create avatars over HTTP, drive them live over gRPC."""
