# SPDX-License-Identifier: Apache-2.0
"""The processes around the core: gateway, tracking, rendering, training, and what they share in ``common``."""
