# SPDX-License-Identifier: Apache-2.0
"""Running an avatar bundle fast: frozen generator, engines, and the renderer that services use."""
