# SPDX-License-Identifier: Apache-2.0
"""What a clip shows of a person before anything is trained: coverage, sharpness, light.

An avatar shows only what it has seen. The report says what was seen and what to film again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.tracking.capture_advice import Finding, find_gaps
from styleavatar_core.tracking.video import TrackedVideo
from styleavatar_core.types import ByteArray, FloatArray

_FACE_SIDE_PX = 160  # to which a face is resized before its sharpness is compared
_CLOSED_SHARE = 0.5  # of the usual opening: below it a lid counts as closed
_RANGE_PERCENTILES = (2, 98)


@dataclass(slots=True)
class FrameObserver:
    """Looks at the pixels of each frame while a video is tracked.

    Attributes:
        times_s: Capture time of each frame.
        brightness: Mean luminance of the face in [0, 255]; all are NaN without a face.
        sharpness: Mean absolute Laplacian of the face, at one size, over its brightness.
        face_width_px: Width of the face.
    """

    times_s: list[float] = field(default_factory=list)
    brightness: list[float] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    face_width_px: list[float] = field(default_factory=list)

    def see(self, time_s: float, frame: ByteArray, landmarks: FloatArray | None) -> None:
        """Takes the next frame, (H, W, 3) uint8 RGB, and its (478, 3) landmarks in pixels."""
        self.times_s.append(time_s)
        values = (np.nan,) * 3 if landmarks is None else _look(frame, landmarks)
        for series, value in zip(
            (self.brightness, self.sharpness, self.face_width_px), values, strict=True
        ):
            series.append(value)


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """What a clip shows.

    Attributes:
        name: File name of the clip.
        figures: Numbers by name; the unit ends the name.
        findings: What is missing, worst first; empty for a good clip.
        series: Values per frame for the picture, NaN without a face: ``time_s``, ``yaw_deg``,
            ``pitch_deg``, ``gaze_yaw_deg``, ``gaze_pitch_deg``, ``mouth``, ``lids``,
            ``brightness``, ``sharpness``.
    """

    name: str
    figures: dict[str, float]
    findings: tuple[Finding, ...]
    series: dict[str, FloatArray]

    def to_dict(self) -> dict[str, object]:
        """Returns what goes into the JSON file."""
        findings = [{"name": f.name, "seen": f.seen, "advice": f.advice} for f in self.findings]
        figures = {name: round(value, 3) for name, value in self.figures.items()}
        return {"clip": self.name, "figures": figures, "findings": findings}

    def to_text(self) -> str:
        """Returns the report for people."""
        f = self.figures
        lines = [
            f"{self.name}: {f['duration_s']:.0f} s, a face in {100 - f['missing_percent']:.1f} % "
            f"of {f['frame_count']:.0f} frames, {f['face_width_px']:.0f} px wide",
            f"  head    yaw {f['yaw_min_deg']:+.0f} to {f['yaw_max_deg']:+.0f} deg, "
            f"pitch {f['pitch_min_deg']:+.0f} to {f['pitch_max_deg']:+.0f} deg",
            f"  gaze    yaw {f['gaze_yaw_min_deg']:+.0f} to {f['gaze_yaw_max_deg']:+.0f} deg, "
            f"pitch {f['gaze_pitch_min_deg']:+.0f} to {f['gaze_pitch_max_deg']:+.0f} deg",
            f"  mouth   open to {f['mouth_open_ratio']:.2f} of the eye distance",
            f"  blinks  {f['blink_count']:.0f}",
            f"  picture sharpness {f['sharpness_ratio']:.3f}, {f['blurred_percent']:.0f} % of "
            f"frames blurred; brightness {f['brightness_level']:.0f} of 255, "
            f"changing by {f['light_change_percent']:.0f} %",
        ]
        if not self.findings:
            return "\n".join([*lines, "Nothing is missing."])
        lines.append("Film again:")
        return "\n".join([*lines, *(f"  - {f.seen} {f.advice}" for f in self.findings)])


def assess_capture(name: str, tracked: TrackedVideo, observer: FrameObserver) -> CaptureReport:
    """Sums up a tracked clip.

    Args:
        name: File name of the clip.
        tracked: What tracking found.
        observer: Saw the same frames.
    """
    series = _series(tracked, observer)
    figures = _figures(series, tracked)
    return CaptureReport(name, figures, tuple(find_gaps(figures)), series)


def _look(frame: ByteArray, landmarks: FloatArray) -> tuple[float, float, float]:
    height, width = frame.shape[:2]
    low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    left, top = np.clip(low.astype(int), 0, [width - 1, height - 1])
    right, bottom = np.clip(high.astype(int) + 1, [left + 1, top + 1], [width, height])
    gray = cv2.cvtColor(
        np.ascontiguousarray(frame[top:bottom, left:right]), cv2.COLOR_RGB2GRAY
    ).astype(np.float32)
    small = cv2.resize(gray, (_FACE_SIDE_PX, _FACE_SIDE_PX), interpolation=cv2.INTER_AREA)
    brightness = float(gray.mean())
    detail = float(np.abs(cv2.Laplacian(small, cv2.CV_32F)).mean())
    return brightness, detail / max(brightness, 1.0), float(high[0] - low[0])


def _series(tracked: TrackedVideo, observer: FrameObserver) -> dict[str, FloatArray]:
    missing = np.full(3, np.nan), np.full(2, np.nan)
    turns = np.degrees(
        [missing[0] if p is None else rotation_vector_from_quaternion(p.rotation)
         for p in tracked.parameters]
    )  # fmt: skip
    gaze = np.degrees(
        [missing[1] if p is None else p.eye_rotation.mean(axis=0) for p in tracked.parameters]
    )
    points = tracked.landmarks
    left, right = (points[:, list(c)].mean(axis=1) for c in _EYE_CORNERS)
    eye_distance = np.linalg.norm(left - right, axis=1)

    def gap(*pairs: tuple[int, int]) -> FloatArray:
        gaps = [np.linalg.norm(points[:, a] - points[:, b], axis=1) for a, b in pairs]
        return np.mean(gaps, axis=0) / eye_distance

    return {
        "time_s": np.array(observer.times_s),
        "yaw_deg": turns[:, 1],
        "pitch_deg": turns[:, 0],
        "gaze_yaw_deg": gaze[:, 1],
        "gaze_pitch_deg": gaze[:, 0],
        "mouth": gap((13, 14)),
        "lids": gap((159, 145), (386, 374)),
        "brightness": np.array(observer.brightness),
        "sharpness": np.array(observer.sharpness),
        "face_width_px": np.array(observer.face_width_px),
    }


_EYE_CORNERS = (groups.LEFT_EYE_CORNERS, groups.RIGHT_EYE_CORNERS)


def _figures(series: dict[str, FloatArray], tracked: TrackedVideo) -> dict[str, float]:
    found = np.isfinite(series["mouth"])
    times = series["time_s"]
    other_share = tracked.other_count / len(times)
    figures: dict[str, float] = {
        "duration_s": float(times[-1] + 1 / max(tracked.fps, 1.0)),
        "frame_count": float(len(times)),
        "missing_percent": 100 * float(1 - found.mean() - other_share),
        "other_person_percent": 100 * other_share,
    }
    for name in ("yaw", "pitch", "gaze_yaw", "gaze_pitch"):
        values = series[f"{name}_deg"][found]
        low, high = np.percentile(values - np.median(values), _RANGE_PERCENTILES)
        figures |= {f"{name}_min_deg": float(low), f"{name}_max_deg": float(high)}
    lids = series["lids"][found]
    closed = lids < _CLOSED_SHARE * np.median(lids)
    sharpness = series["sharpness"][found]
    usual = np.median(sharpness)
    seconds = np.floor(times[found]).astype(int)
    light = np.array([np.mean(series["brightness"][found][seconds == s]) for s in set(seconds)])
    return figures | {
        "mouth_open_ratio": float(np.percentile(series["mouth"][found], 98)),
        "blink_count": float(np.count_nonzero(closed[1:] & ~closed[:-1])),
        "sharpness_ratio": float(usual),
        "blurred_percent": 100 * float((sharpness < 0.6 * usual).mean()),
        "brightness_level": float(np.median(light)),
        "light_change_percent": 100 * float(np.ptp(light) / np.median(light)),
        "face_width_px": float(np.median(series["face_width_px"][found])),
    }
