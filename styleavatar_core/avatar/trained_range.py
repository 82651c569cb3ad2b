# SPDX-License-Identifier: Apache-2.0
"""What an avatar was trained on, as a bound: inside nothing changes, beyond is bent back smoothly.

Numpy only. All groups of parameters are one vector here: this runs before every live frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from styleavatar_core.avatar.statistics import ParameterStatistics, Spread, split_parameters
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.types import FaceParameters, FloatArray

_MARGIN_STD = 0.5  # the trained range reaches this far beyond what was seen
_MARGIN_MIN = 1e-3


@dataclass(frozen=True, slots=True)
class Reach:
    """How far beyond what its clip shows an avatar was trained to go.

    Attributes:
        window: Of the head's place, a share of the picture's side: the person's window moves.
        tilt_deg: Of its roll, degrees to either side.
    """

    window: float = 0.0
    tilt_deg: float = 0.0


class TrainedRange:
    """Holds parameters back to what an avatar has seen.

    Args:
        statistics: The avatar's, from its manifest.
        expression_max: Largest coefficient of its face model.
        reach: How far beyond what was seen it may go, see ``AvatarManifest.reach``.
    """

    def __init__(
        self,
        statistics: ParameterStatistics,
        expression_max: float = 1.0,
        reach: Reach | None = None,
    ) -> None:
        self._expression_max = expression_max
        groups = ("rotation", "translation", "scale", "expression", "eye_rotation")
        spreads: list[Spread] = [getattr(statistics, name) for name in groups]
        self._minimum = np.concatenate([spread.minimum for spread in spreads])
        self._maximum = np.concatenate([spread.maximum for spread in spreads])
        std = np.concatenate([spread.std for spread in spreads])
        self._margin = np.maximum(_MARGIN_STD * std, _MARGIN_MIN)
        sizes = [len(spread.std) for spread in spreads]
        ends = np.cumsum(sizes).tolist()
        self._parts = {
            name: slice(end - size, end)
            for name, size, end in zip(groups, sizes, ends, strict=True)
        }
        reach = reach or Reach()
        roll = self._parts["rotation"].start + 2
        self._minimum[roll] -= np.deg2rad(reach.tilt_deg)
        self._maximum[roll] += np.deg2rad(reach.tilt_deg)
        # The picture's side is two frame units, of which ``scale`` are a model unit.
        self._room = np.zeros_like(self._margin)
        self._room[self._parts["translation"]] = 2.0 * reach.window
        seen = statistics.expression
        self._is_within_model = bool(
            (seen.minimum >= 0.0).all() and (seen.maximum <= expression_max).all()
        )

    def hold(self, wanted: FaceParameters) -> tuple[FaceParameters, bool]:
        """Bends what is beyond the range; a coefficient stays within its model's bounds.

        Args:
            wanted: In the coordinates of the avatar's window.

        Returns:
            What the avatar can do, and whether much was bent.
        """
        groups = split_parameters(wanted)
        values = np.concatenate([groups[name] for name in self._parts])
        part = self._parts["scale"]
        drawn_scale, _ = _bend(
            values[part], self._minimum[part], self._maximum[part], self._margin[part]
        )
        room = self._room / drawn_scale
        held, beyond = _bend(values, self._minimum - room, self._maximum + room, self._margin)
        if not np.count_nonzero(beyond):
            if self._is_within_model:
                return wanted, False
            return replace(wanted, expression=self._coefficients(wanted.expression)), False
        eyes = self._parts["eye_rotation"]
        for axis in (slice(eyes.start, eyes.stop, 2), slice(eyes.start + 1, eyes.stop, 2)):
            if beyond[axis].any():
                held[axis] = _hold_gaze(
                    values[axis], self._minimum[axis], self._maximum[axis], self._margin[axis]
                )
        parts = {name: held[part] for name, part in self._parts.items()}
        rotation = wanted.rotation
        if beyond[self._parts["rotation"]].any():
            rotation = quaternion_from_rotation_vector(parts["rotation"])
        parameters = replace(
            wanted,
            rotation=rotation,
            translation=np.append(parts["translation"], wanted.translation[2]).astype(np.float32),
            scale=float(parts["scale"][0]),
            expression=self._coefficients(parts["expression"]),
            eye_rotation=parts["eye_rotation"].reshape(2, 2).astype(np.float32),
        )
        return parameters, bool(np.count_nonzero(np.abs(beyond) > self._margin))

    def _coefficients(self, expression: FloatArray) -> FloatArray:
        return np.minimum(np.maximum(expression, 0.0), self._expression_max).astype(np.float32)


def _bend(
    values: np.ndarray, minimum: np.ndarray, maximum: np.ndarray, margin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns values held back to a margin around their range, and how far beyond it they were."""
    inside = np.minimum(np.maximum(values, minimum), maximum)
    beyond = values - inside
    return inside + margin * np.tanh(beyond / margin), beyond


def _hold_gaze(
    eyes: np.ndarray, minimum: np.ndarray, maximum: np.ndarray, margin: np.ndarray
) -> np.ndarray:
    """Holds both eyes back: where they look counts most, then how far they are crossed.

    One by one they would squint where only one is held back, and stop looking about where both are:
    at the ends of their ranges while the driver's are crossed.

    Args:
        eyes: (2,) rotations about one axis.
        minimum: (2,) least that was seen.
        maximum: (2,) most.
        margin: (2,) how far beyond the direction may go.
    """
    middle = eyes.mean()
    apart = eyes - middle
    # All shares of ``apart`` at which an eye comes to an end of its range, or both do.
    ends = np.concatenate([minimum - middle, maximum - middle])
    across = np.array([minimum[1] - minimum[0], maximum[1] - maximum[0]]) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.concatenate([ends / np.tile(apart, 2), across / apart[1], [0.0, 1.0]])
    shares = np.nan_to_num(shares, nan=0.0).clip(0.0, 1.0)
    lowest = (minimum - shares[:, None] * apart).max(axis=1)
    highest = (maximum - shares[:, None] * apart).min(axis=1)
    misses = np.maximum(np.maximum(lowest - middle, middle - highest), 0.0)
    chosen = np.lexsort((-shares, misses.round(6)))[0]
    reached = min(max(middle, lowest[chosen]), highest[chosen])
    room = margin.min()
    direction = reached + room * np.tanh((middle - reached) / room)
    # Eyes that were only seen apart stay so, whatever the driver's do.
    return np.clip(direction + shares[chosen] * apart, minimum - room, maximum + room)
