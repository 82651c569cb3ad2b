# SPDX-License-Identifier: Apache-2.0
"""The whole system on one machine: ``styleavatar serve`` and ``styleavatar demo``."""
