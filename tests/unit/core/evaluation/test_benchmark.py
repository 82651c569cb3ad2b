# SPDX-License-Identifier: Apache-2.0
"""How ``python -m benchmarks.quality`` is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quality import read_options
from benchmarks.quality_parts.variants import DEFAULT_VARIANTS


@pytest.mark.parametrize(
    "arguments",
    [
        "--clips a.mp4 b.mp4 --variants full dvp",
        "--clips a.mp4 --variants full --clips b.mp4 --variants dvp full",
    ],
)
def test_several_clips_and_variants_come_after_one_option_or_several(arguments: str) -> None:
    options = read_options(arguments.split())
    assert options.clips == [Path("a.mp4"), Path("b.mp4")]
    assert options.variants == ["full", "dvp"]


def test_sets_of_variants_are_taken_apart_and_unknown_ones_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert read_options([]).variants == list(DEFAULT_VARIANTS)
    assert read_options(["--variants", "all", "published"]).variants.count("full") == 1
    with pytest.raises(SystemExit):
        read_options(["--variants", "full", "dvpp"])
    assert "unknown: dvpp; choose of full" in capsys.readouterr().err
