# SPDX-License-Identifier: Apache-2.0
"""The shape that all benchmark reports share; `styleavatar demo` writes the same one."""

import argparse
from collections import Counter
from collections.abc import Iterable

from styleavatar_core.evaluation.figures import (
    build_report,
    machine,
    print_report,
    write_report,
)

__all__ = ["build_report", "machine", "print_report", "refuse_repeats", "write_report"]


def refuse_repeats(parser: argparse.ArgumentParser, option: str, names: Iterable[str]) -> None:
    """Ends the command where figures of two files would have one name.

    Args:
        parser: Of the command line.
        option: That named the files.
        names: What the figures of each file begin with.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        parser.error(
            f"{option}: figures are named after the files, and more than one is called "
            f"{', '.join(repeated)}; rename all but one"
        )
