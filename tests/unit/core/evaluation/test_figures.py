# SPDX-License-Identifier: Apache-2.0
from io import StringIO

from rich.console import Console

from styleavatar_core.evaluation.figures import build_report, print_report


def test_counts_are_printed_without_decimals() -> None:
    written = StringIO()
    figures = {"frame_count": 1040.0, "psnr_db": 21.5, "errors": 0}
    print_report(build_report("demo", figures), Console(file=written, width=80))
    cells = written.getvalue().replace("│", " ").split()
    assert cells[cells.index("frame_count") + 1] == "1,040"
    assert cells[cells.index("psnr_db") + 1] == "21.500"
    assert cells[cells.index("errors") + 1] == "0"
