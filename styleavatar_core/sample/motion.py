# SPDX-License-Identifier: Apache-2.0
"""How the sample clip's head moves: known curves of pose, gaze and expression over time.

All curves are stationary (the last fifth looks like the rest), smooth, and follow from one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from styleavatar_core.types import FloatArray

Curve = npt.NDArray[np.float64]

# Largest turns of the head, degrees: pitch (down positive), yaw, roll. Beyond these a photograph
# taken from the front no longer shows what would come into view.
HEAD_RANGE_DEG = (7.0, 13.0, 6.0)
HEAD_SHIFT_DM = (0.16, 0.08)
GAZE_RANGE_DEG = (8.0, 16.0)

# Mouth shapes of speech. One weight per ARKit name, both sides alike.
VISEMES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.50, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15},
    {"jawOpen": 0.30, "mouthFunnel": 0.55},
    {"jawOpen": 0.10, "mouthPucker": 0.65},
    {"jawOpen": 0.22, "mouthStretch": 0.40, "mouthLowerDown": 0.30},
    {"jawOpen": 0.02, "mouthPress": 0.35, "mouthRollLower": 0.15},
    {"jawOpen": 0.12, "mouthRollLower": 0.35, "mouthUpperUp": 0.25},
    {"jawOpen": 0.38, "mouthSmile": 0.20},
)


@dataclass(frozen=True, slots=True)
class MotionCurves:
    """The head's motion, T frames.

    Attributes:
        angles: (T, 3) float32 radians: pitch (down positive), yaw (towards image right positive),
            roll (clockwise on the screen positive), relative to the photograph's pose.
        shift: (T, 2) float32 decimetres, right and down.
        gaze: (T, 2) float32 radians: pitch, yaw of both eyes.
        expression: ARKit name without side -> (T,) float32 in [0, 1], both sides alike; names
            that end in Left or Right move one side only.
        rest: (T,) float32 in [0, 1]. How much of the photograph's own expression remains.
    """

    angles: FloatArray
    shift: FloatArray
    gaze: FloatArray
    expression: dict[str, FloatArray]
    rest: FloatArray


def sample_curves(frame_count: int, fps: float, seed: int) -> MotionCurves:
    """Draws the curves of a clip; the same arguments give the same curves."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(frame_count) / fps
    angles = np.stack([_wander(time_s, rng, 0.32) * r for r in np.deg2rad(HEAD_RANGE_DEG)], axis=1)
    shift = np.stack([_wander(time_s, rng, 0.25) * r for r in HEAD_SHIFT_DM], axis=1)
    gaze = np.stack([_saccades(time_s, rng) * r for r in np.deg2rad(GAZE_RANGE_DEG)], axis=1)
    # Eyes counter part of the head's turn, as eyes that rest on something do.
    gaze -= 0.4 * angles[:, :2]
    talking = _talking(time_s, rng)
    smile = _events(time_s, rng, every_s=6.5, rise_s=0.5, hold_s=1.8)
    expression = _speech(time_s, talking, rng)
    expression["eyeBlink"] = _blinks(time_s, rng)
    expression["browInnerUp"] = 0.5 * _events(time_s, rng, every_s=5.0, rise_s=0.25, hold_s=0.6)
    expression["browOuterUp"] = 0.8 * expression["browInnerUp"]
    expression["browDown"] = 0.5 * _events(time_s, rng, every_s=8.0, rise_s=0.3, hold_s=0.7)
    expression["mouthSmile"] = np.maximum(expression.get("mouthSmile", 0.0), 0.5 * smile)
    expression["cheekSquint"] = 0.4 * smile
    expression["eyeLookDown"] = np.clip(gaze[:, 0], 0, None) / np.deg2rad(30)
    return MotionCurves(
        angles=angles.astype(np.float32),
        shift=shift.astype(np.float32),
        gaze=gaze.astype(np.float32),
        expression={
            name: np.clip(curve, 0.0, 1.0).astype(np.float32) for name, curve in expression.items()
        },
        rest=(0.45 + 0.55 * np.clip(smile - 0.5 * talking, 0.0, 1.0)).astype(np.float32),
    )


def _wander(time_s: Curve, rng: np.random.Generator, rate_hz: float) -> Curve:
    """A slow curve in [-1, 1]: a few sines whose rates do not divide each other."""
    rates = rate_hz * np.array([0.37, 0.71, 1.0, 1.53])
    phases = rng.uniform(0, 2 * np.pi, 4)
    weights = np.array([0.9, 0.7, 0.5, 0.2])
    waves = np.sin(2 * np.pi * rates * time_s[:, None] + phases) @ weights
    return waves / weights.sum() * 1.25 * (1 - 0.1 * np.abs(waves) / weights.sum())


def _smooth(curve: Curve, time_s: Curve, sigma_s: float) -> Curve:
    step_s = time_s[1] - time_s[0] if len(time_s) > 1 else 1.0
    sigma = sigma_s / step_s
    return gaussian_filter1d(curve, sigma, mode="nearest", radius=math.ceil(3 * sigma))


def _events(
    time_s: Curve, rng: np.random.Generator, *, every_s: float, rise_s: float, hold_s: float
) -> Curve:
    """Soft bumps of height 1 at irregular times."""
    curve = np.zeros_like(time_s)
    start_s = rng.uniform(0.2, 0.5) * every_s
    while start_s < time_s[-1] + every_s:
        stop_s = start_s + hold_s * rng.uniform(0.7, 1.3)
        curve[(time_s >= start_s) & (time_s < stop_s)] = rng.uniform(0.7, 1.0)
        start_s = stop_s + every_s * rng.uniform(0.5, 1.2)
    return _smooth(curve, time_s, rise_s / 2)


def _blinks(time_s: Curve, rng: np.random.Generator) -> Curve:
    """Blinks every few seconds: shut within 0.1 s, open again within 0.2 s."""
    curve = np.zeros_like(time_s)
    at_s = rng.uniform(0.6, 1.5)
    while at_s < time_s[-1]:
        since_s = time_s - at_s
        closing = np.clip(1 + since_s / 0.1, 0, 1)
        opening = np.clip(1 - (since_s - 0.06) / 0.2, 0, 1)
        curve = np.maximum(curve, np.minimum(closing, opening))
        at_s += rng.uniform(1.6, 3.6)
    return curve


def _saccades(time_s: Curve, rng: np.random.Generator) -> Curve:
    """Gaze that rests, then jumps; half of the time at the centre."""
    curve = np.zeros_like(time_s)
    start_s = 0.0
    while start_s < time_s[-1]:
        stop_s = start_s + rng.uniform(0.6, 1.8)
        target = rng.uniform(-1, 1) if rng.random() < 0.55 else 0.0
        curve[(time_s >= start_s) & (time_s < stop_s)] = target
        start_s = stop_s
    return _smooth(curve, time_s, 0.035)


def _talking(time_s: Curve, rng: np.random.Generator) -> Curve:
    """1 while talking, 0 in pauses, with soft edges."""
    curve = np.zeros_like(time_s)
    start_s = 0.4
    while start_s < time_s[-1]:
        stop_s = start_s + rng.uniform(2.0, 4.0)
        curve[(time_s >= start_s) & (time_s < stop_s)] = 1.0
        start_s = stop_s + rng.uniform(0.7, 1.6)
    return _smooth(curve, time_s, 0.1)


def _speech(time_s: Curve, talking: Curve, rng: np.random.Generator) -> dict[str, Curve]:
    """Strings mouth shapes together, five or six a second, and blends one into the next."""
    names = sorted({name for viseme in VISEMES for name in viseme})
    curves = {name: np.zeros_like(time_s) for name in names}
    start_s = 0.0
    while start_s < time_s[-1]:
        stop_s = start_s + rng.uniform(0.13, 0.24)
        during = (time_s >= start_s) & (time_s < stop_s)
        strength = rng.uniform(0.6, 1.1)
        for name, weight in VISEMES[int(rng.integers(len(VISEMES)))].items():
            curves[name][during] = weight * strength
        start_s = stop_s
    return {name: _smooth(curve, time_s, 0.05) * talking for name, curve in curves.items()}
