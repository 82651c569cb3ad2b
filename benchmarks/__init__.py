# SPDX-License-Identifier: Apache-2.0
"""Every claim of speed or quality is one command here: ``python -m benchmarks.NAME``."""
