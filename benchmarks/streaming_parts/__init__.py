# SPDX-License-Identifier: Apache-2.0
"""Parts of ``benchmarks.streaming``: the service under test, and what is measured on it."""
