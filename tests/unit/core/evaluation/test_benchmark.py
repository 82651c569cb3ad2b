# SPDX-License-Identifier: Apache-2.0
"""How ``python -m benchmarks.quality`` is asked, and when it answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import quality
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


def test_two_clips_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options(["--clips", "anna/video.mp4", "kim/still.mp4", "ben/video.mov"])
    assert "more than one is called video;" in capsys.readouterr().err


def test_a_clip_that_fails_leaves_the_figures_of_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(clip: Path, *_: object) -> dict[str, float]:
        if clip.stem == "ben":
            raise RuntimeError("no face")
        return {"full.psnr_db": 30.0}

    monkeypatch.setattr(quality, "measure_clip", measured)
    folders = ["--folder", str(tmp_path), "--json", str(tmp_path / "quality.json")]
    arguments = ["--clips", "anna.mp4", "kim.mp4", "ben.mp4", *folders]
    monkeypatch.setattr(sys, "argv", ["quality", *arguments])
    with pytest.raises(RuntimeError, match="no face"):
        quality.main()
    figures = json.loads((tmp_path / "quality.json").read_text())["figures"]
    assert figures == {"anna.full.psnr_db": 30.0, "kim.full.psnr_db": 30.0}
