# SPDX-License-Identifier: Apache-2.0
"""The child's side, the only part of this service that loads landmark models."""
