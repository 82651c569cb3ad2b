# SPDX-License-Identifier: Apache-2.0
"""A trained person: the bundle, its conditioning inputs, reenactment."""
