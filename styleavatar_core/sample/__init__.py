# SPDX-License-Identifier: Apache-2.0
"""A talking head with known parameters, animated from a photograph in the public domain."""
