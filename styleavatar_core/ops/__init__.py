# SPDX-License-Identifier: Apache-2.0
"""Stateless tensor functions, each with a plain reference beside the fast path."""
