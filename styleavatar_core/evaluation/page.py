# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation as one self-contained HTML file: figures, curves, pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.evaluation.charts import line_chart
from styleavatar_core.evaluation.evaluate import HeldOutEvaluation
from styleavatar_core.types import FloatArray

_ROWS = {"": "avatar", "nearest_sample_": "nearest training frame", "mean_frame_": "mean frame"}
_COLUMNS = {
    "psnr_db": "PSNR, dB",
    "ssim": "SSIM",
    "no_background_psnr_db": "PSNR without background, dB",
    "no_background_ssim": "SSIM without background",
    "sharpness": "sharpness (1 = as sharp)",
    "flicker": "flicker, levels",
}
_CONTROL_UNITS = {"yaw": "degrees", "pitch": "degrees", "gaze": "degrees", "mouth": "mm"}
_CONTROL_UNITS |= {"jaw": "coefficient", "smile": "coefficient", "lids": "coefficient"}
_LOSSES = ("l1", "structure", "perceptual", "mask", "adversarial", "judge", "judge_penalty")
_NEAREST = ("translation", "rotation", "expression")

Series = Mapping[str, tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Driven:
    """How well an avatar follows a driver.

    Attributes:
        name: Who drives: the held-out frames themselves, or a file.
        figures: What :func:`control_fidelity` returned, with Table 4's ``nearest_..._std``.
        series: What :func:`control_series` returned; may be empty. What is not in it has no chart.
        sheet_jpeg: Driver and output side by side, if pictures were taken.
    """

    name: str
    figures: Mapping[str, float]
    series: Series
    sheet_jpeg: bytes | None = None


@dataclass(frozen=True)
class ReportContent:
    """Everything that a page shows.

    Attributes:
        name: Of the avatar.
        manifest: What its bundle says.
        evaluation: Figures of the held-out frames.
        absent: Metrics that could not be measured, each with the reason.
        sheet_jpeg: Contact sheet of frames evenly spread over the held-out part.
        extremes_jpeg: Contact sheet of the best, the middle and the worst frame.
        closeups_jpeg: Eyes, mouth and hair of frames beside the truth.
        preview_jpeg: A picture of the avatar.
        training_log: Rows of ``training.jsonl``; empty where there is none.
        driven: Self-driven first, then others.
        teacher: ``preset`` and ``digest`` of the larger avatar whose pictures are the truth; None
            where the video is.
    """

    name: str
    manifest: AvatarManifest
    evaluation: HeldOutEvaluation
    absent: Mapping[str, str]
    sheet_jpeg: bytes
    extremes_jpeg: bytes
    closeups_jpeg: bytes
    preview_jpeg: bytes
    training_log: Sequence[Mapping[str, float]] = ()
    driven: Sequence[Driven] = field(default_factory=tuple)
    teacher: Mapping[str, str] | None = None


def write_page(content: ReportContent, path: Path) -> Path:
    """Writes the report; it needs no other file and no network.

    Args:
        content: What it shows.
        path: File to write.

    Returns:
        ``path``.
    """
    environment = Environment(
        loader=PackageLoader("styleavatar_core.evaluation"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _figure,
        "jpeg": partial(_data_uri, "jpeg"),
        "svg": partial(_data_uri, "svg+xml"),
    }
    figures = content.evaluation.figures
    page = environment.get_template("report.html").render(
        content=content,
        manifest=content.manifest,
        figures=figures,
        facts=_facts(content),
        columns=_COLUMNS,
        rows=_ROWS,
        nearest=_NEAREST,
        quality_charts=_quality_charts(content.evaluation),
        training_charts=_training_charts(content.training_log),
        control_charts=[_control_charts(driven.series) for driven in content.driven],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path


def _facts(content: ReportContent) -> dict[str, str]:
    """Returns what a reader asks first, by label."""
    manifest = content.manifest
    source, training, methods = manifest.source, manifest.training, manifest.methods
    held_out, looked_at = source.held_out_frame_count, len(content.evaluation.indices)
    facts = {
        "preset": f"{manifest.preset}, {manifest.image_size_px} px",
        "video": f"{source.file_name}, {source.width}×{source.height}, {source.fps:g} fps",
    }
    if content.teacher is None:
        trained = source.train_frame_count
        facts["frames"] = f"{trained} for training; {looked_at} of {held_out} held out"
    else:
        preset, digest = content.teacher["preset"], content.teacher["digest"]
        facts["truth"] = (
            f"pictures of a larger avatar ({preset}, sha256 {digest[:12]}…), not the video; "
            f"{looked_at} that were held out"
        )
    if "steps" in training:
        ended = f", ended by {training['stopped_by']}" if "stopped_by" in training else ""
        facts["training"] = f"{training['steps']} steps in {training['minutes']:.1f} minutes{ended}"
    if recoveries := training.get("recoveries"):
        causes = ", ".join(dict.fromkeys(one["cause"] for one in recoveries))
        facts["gone back"] = f"{len(recoveries)} times to a good checkpoint ({causes})"
    facts["others' models"] = f"{methods.landmarks}; {methods.matting}; {methods.perceptual_loss}"
    facts["consent"] = f"{manifest.consent.statement} ({manifest.consent.given_by})"
    facts["made"] = f"{manifest.created_time:%Y-%m-%d %H:%M} UTC"
    return facts


def _quality_charts(evaluation: HeldOutEvaluation) -> list[dict[str, Any]]:
    series, frames = evaluation.series, [float(index) for index in evaluation.indices]
    charts = []
    for name in ("psnr_db", "ssim"):
        lines = {label: series[prefix + name] for prefix, label in _ROWS.items()}
        charts.append(_chart(_COLUMNS[name], frames, lines, x_label="frame of the clip"))
    # Only frames that follow another have a flicker; a still picture is no baseline for it.
    moving = [place for place, value in enumerate(series["flicker"]) if math.isfinite(value)]
    lines = {
        label: [series[f"{prefix}flicker"][i] for i in moving]
        for prefix, label in list(_ROWS.items())[:2]
    }
    places = [frames[i] for i in moving]
    charts.append(_chart(_COLUMNS["flicker"], places, lines, x_label="frame of the clip"))
    return [chart for chart in charts if chart["svg"]]


def _training_charts(log: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Returns the course of the training over minutes: losses, and PSNR of the watched frames."""
    minutes = [row["elapsed_s"] / 60 for row in log]
    names = [name for name in _LOSSES if any(name in row for row in log)]
    losses = {name: [row.get(name, math.nan) for row in log] for name in names}
    psnr = {"watched frames": [row.get("psnr_db", math.nan) for row in log]}
    charts = [
        _chart("weighted losses", minutes, losses, x_label="minutes of training"),
        _chart("PSNR of the watched frames, dB", minutes, psnr, x_label="minutes of training"),
    ]
    return [chart for chart in charts if chart["svg"]]


def _control_charts(series: Series) -> list[dict[str, Any]]:
    charts = []
    for name, unit in _CONTROL_UNITS.items():
        if name not in series:
            continue
        scale = 180 / np.pi if unit == "degrees" else 1.0
        asked, seen = (values * scale for values in series[name])
        lines = {"seen": seen, "asked": asked}
        charts.append(_chart(f"{name}, {unit}", range(len(asked)), lines, x_label="frame"))
    return [chart for chart in charts if chart["svg"]]


def _chart(
    title: str, places: Sequence[float], lines: Mapping[str, npt.ArrayLike], *, x_label: str
) -> dict[str, Any]:
    return {"title": title, "svg": line_chart(places, lines, x_label=x_label)}


def _figure(value: float | None, digits: int = 3) -> str:
    """Formats a figure; what was not measured is a dash, never a zero."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
