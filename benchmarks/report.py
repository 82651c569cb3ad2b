# SPDX-License-Identifier: Apache-2.0
"""The shape that all benchmark reports share; `styleavatar demo` writes the same one."""

from styleavatar_core.evaluation.figures import (
    build_report,
    machine,
    print_report,
    write_report,
)

__all__ = ["build_report", "machine", "print_report", "write_report"]
