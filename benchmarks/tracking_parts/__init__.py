# SPDX-License-Identifier: Apache-2.0
"""What ``python -m benchmarks.tracking`` measures, by question."""
