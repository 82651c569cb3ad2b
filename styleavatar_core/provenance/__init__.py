# SPDX-License-Identifier: Apache-2.0
"""Consent and origin of what an avatar was made from (paper, Sec. 5)."""
