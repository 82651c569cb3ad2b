# SPDX-License-Identifier: Apache-2.0
"""From the figures of a clip to what to film again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a clip lacks.

    Attributes:
        name: Stable word for programs.
        seen: What the clip shows, one sentence.
        advice: What to film, one sentence.
    """

    name: str
    seen: str
    advice: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """A figure that should reach a value; ``seen`` is formatted with what it is."""

    name: str
    figure: str
    is_enough: Callable[[float], bool]
    seen: str
    advice: str


# A driver who leaves the seen range is held back to it, so these are the ranges of a lively talk.
_RULES = (
    _Rule("face_missing", "missing_percent", lambda v: v <= 2,
          "{:.0f} % of the frames show no face.",
          "Keep the whole face in the picture, uncovered, and nobody else's."),
    _Rule("other_person", "other_person_percent", lambda v: v == 0,
          "{:.1f} % of the frames show somebody else and are left out.",
          "Film one person alone."),
    _Rule("short", "duration_s", lambda v: v >= 60, "The clip lasts {:.0f} s.",
          "Film one to two minutes."),
    _Rule("small_face", "face_width_px", lambda v: v >= 150, "The face is {:.0f} px wide.",
          "Come closer, or film with more pixels."),
    _Rule("blurred", "sharpness_ratio", lambda v: v >= 0.02, "The face is blurred ({:.3f}).",
          "Clean the lens, focus on the eyes, and let the file be less compressed."),
    _Rule("motion_blur", "blurred_percent", lambda v: v <= 10,
          "{:.0f} % of the frames are far more blurred than the others.",
          "Move more slowly, or in more light."),
    _Rule("dark", "brightness_level", lambda v: v >= 50, "The face is dark ({:.0f} of 255).",
          "Turn towards a window or a lamp."),
    _Rule("glaring", "brightness_level", lambda v: v <= 220,
          "The face is overexposed ({:.0f} of 255).", "Use less light, or a shorter exposure."),
    _Rule("light_changes", "light_change_percent", lambda v: v <= 40,
          "The light on the face changes by {:.0f} %.",
          "Switch automatic exposure off and keep lamps and sun as they are."),
    _Rule("yaw_left", "yaw_max_deg", lambda v: v >= 15,
          "The head turns {:.0f} degrees to image left.",
          "Turn slowly to image left until the camera sees one ear, and back."),
    _Rule("yaw_right", "yaw_min_deg", lambda v: v <= -15,
          "The head turns {:.0f} degrees to image right.",
          "Turn slowly to image right until the camera sees one ear, and back."),
    _Rule("pitch_down", "pitch_max_deg", lambda v: v >= 8, "The head nods down {:.0f} degrees.",
          "Look down at your chest and back."),
    _Rule("pitch_up", "pitch_min_deg", lambda v: v <= -8, "The head lifts {:.0f} degrees.",
          "Look up to the ceiling's edge and back."),
    _Rule("gaze_left", "gaze_yaw_min_deg", lambda v: v <= -8,
          "The eyes turn {:.0f} degrees to image left.",
          "Look to image left without turning the head."),
    _Rule("gaze_right", "gaze_yaw_max_deg", lambda v: v >= 8,
          "The eyes turn {:.0f} degrees to image right.",
          "Look to image right without turning the head."),
    _Rule("mouth", "mouth_open_ratio", lambda v: v >= 0.25,
          "The mouth opens to {:.2f} of the eye distance.",
          "Talk, laugh, and open the mouth wide a few times."),
    _Rule("blinks", "blink_count", lambda v: v >= 3, "The eyes close {:.0f} times.",
          "Blink as you usually do, and close both eyes for a second."),
)  # fmt: skip


def find_gaps(figures: dict[str, float]) -> Iterator[Finding]:
    """Yields what the figures of a clip fall short of, what matters most first."""
    for rule in _RULES:
        value = figures[rule.figure]
        if not rule.is_enough(value):
            yield Finding(rule.name, rule.seen.format(abs(value)), rule.advice)
