# SPDX-License-Identifier: Apache-2.0
"""What an avatar has seen in training: ranges of the face parameters, and the nearest sample.

Travels in the bundle's manifest. All parameters here are in the coordinates of the avatar's window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.types import CropBox, FaceParameters, FloatArray

# A coefficient at rest is below this percentile of its values: faces are at rest, then move.
NEUTRAL_PERCENTILE = 10.0
# Lips are closed below this percentile of their gap: at m, b and p they meet, whoever talks.
CLOSED_PERCENTILE = 5.0

_GROUPS = ("rotation", "translation", "scale", "expression", "eye_rotation")
# Values of each group; the face model decides how many an expression has.
_LENGTHS = {"rotation": 3, "translation": 2, "scale": 1, "eye_rotation": 4}


@dataclass(frozen=True, slots=True)
class Spread:
    """How one group of parameters was spread over the training frames; (N,) float32 each."""

    mean: FloatArray
    std: FloatArray
    minimum: FloatArray
    maximum: FloatArray

    @classmethod
    def of(cls, samples: FloatArray) -> Self:
        """Summarises (T, N) samples."""
        samples = np.asarray(samples, np.float32)
        return cls(samples.mean(0), samples.std(0), samples.min(0), samples.max(0))

    def to_dict(self) -> dict[str, list[float]]:
        """Returns plain lists."""
        return {name: [round(float(v), 6) for v in getattr(self, name)] for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class PlaceByRotation:
    """Where the head was, as its rotation tells: it turns and nods about the neck, not its middle.

    A place that was often seen is a rare one with another rotation. (T, 3) rotations are rotation
    vectors in radians, (T, 2) places the translations in model units.

    Attributes:
        constant: (2,) the place of a head that is not rotated.
        slopes: (2, 3) by how much it changes with each radian.
        std: (2,) how far places were from those that rotations told, one standard deviation.
        minimum: (2,) least that one was.
        maximum: (2,) most.
    """

    constant: FloatArray
    slopes: FloatArray
    std: FloatArray
    minimum: FloatArray
    maximum: FloatArray

    @classmethod
    def of(cls, rotations: FloatArray, places: FloatArray) -> Self:
        """Fits places to rotations, by least squares."""
        means = rotations.mean(0), places.mean(0)
        slopes = np.linalg.lstsq(rotations - means[0], places - means[1], rcond=None)[0].T
        constant = means[1] - slopes @ means[0]
        apart = places - (constant + rotations @ slopes.T)
        values = (constant, slopes, apart.std(0), apart.min(0), apart.max(0))
        return cls(*(np.asarray(value, np.float32) for value in values))

    @classmethod
    def unknown(cls, places: Spread) -> Self:
        """Returns what tells nothing of a rotation: of bundles from before it was fitted."""
        least, most = places.minimum - places.mean, places.maximum - places.mean
        return cls(places.mean, np.zeros((2, 3), np.float32), places.std, least, most)

    def told(self, rotation: FloatArray) -> FloatArray:
        """Returns the (2,) place that a (3,) rotation tells."""
        place: FloatArray = self.constant + self.slopes @ rotation
        return place

    def to_dict(self) -> dict[str, list[Any]]:
        """Returns plain lists."""
        return {
            name: np.round(np.asarray(getattr(self, name), np.float64), 6).tolist()
            for name in self.__slots__
        }


@dataclass(frozen=True, slots=True)
class ParameterStatistics:
    """Statistics of the training frames' parameters, in window coordinates.

    Attributes:
        model_id: Face model of the coefficients.
        window: The avatar's window in the coordinates of its source video's frames.
        rotation: Of the rotation vector, 3 values, radians.
        translation: Of x and y, 2 values, model units. Depth has no effect under this camera.
        scale: 1 value.
        expression: E values.
        eye_rotation: 4 values: left pitch, left yaw, right pitch, right yaw, radians.
        place_by_rotation: Of x and y, as the rotation tells them.
        neutral_expression: (E,) float32, the person's face at rest.
        closed_lip_gap: The lips' distance (``LipGap``) when the person's mouth is closed.
    """

    model_id: str
    window: CropBox
    rotation: Spread
    translation: Spread
    scale: Spread
    expression: Spread
    eye_rotation: Spread
    place_by_rotation: PlaceByRotation
    neutral_expression: FloatArray
    closed_lip_gap: float = 0.0

    @classmethod
    def from_parameters(
        cls,
        parameters: Sequence[FaceParameters],
        window: CropBox,
        *,
        closed_lip_gap: float = 0.0,
    ) -> Self:
        """Summarises the training frames.

        Args:
            parameters: At least one, in the coordinates of the window.
            window: The window, in frame coordinates.
            closed_lip_gap: See :func:`measure_closed_lip_gap`; lips touch at 0.

        Raises:
            InvalidInputError: There are none.
        """
        if not parameters:
            raise InvalidInputError("There are no tracked frames to take statistics of.")
        rows = [split_parameters(p) for p in parameters]
        groups = {name: np.stack([row[name] for row in rows]) for name in _GROUPS}
        neutral = np.percentile(groups["expression"], NEUTRAL_PERCENTILE, axis=0)
        return cls(
            model_id=parameters[0].model_id,
            window=window,
            place_by_rotation=PlaceByRotation.of(groups["rotation"], groups["translation"]),
            neutral_expression=neutral.astype(np.float32),
            closed_lip_gap=closed_lip_gap,
            **{name: Spread.of(samples) for name, samples in groups.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        window = self.window
        return {
            "model_id": self.model_id,
            "window": [window.center_x, window.center_y, window.half_size],
            "neutral_expression": [round(float(v), 6) for v in self.neutral_expression],
            "closed_lip_gap": round(self.closed_lip_gap, 6),
            "place_by_rotation": self.place_by_rotation.to_dict(),
            **{name: getattr(self, name).to_dict() for name in _GROUPS},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads what :meth:`to_dict` returned.

        Raises:
            AssetError: Something is missing or of another kind.
        """
        try:
            spreads = {name: Spread(**_arrays(values[name])) for name in _GROUPS}
            # What bundles lack is from before it was measured: rotations tell nothing of the place.
            fit = values.get("place_by_rotation")
            statistics = cls(
                model_id=str(values["model_id"]),
                window=CropBox(*(float(v) for v in values["window"])),
                neutral_expression=np.array(values["neutral_expression"], np.float32),
                place_by_rotation=PlaceByRotation.unknown(spreads["translation"])
                if fit is None
                else PlaceByRotation(**_arrays(fit)),
                closed_lip_gap=float(values.get("closed_lip_gap", 0.0)),  # lips touch at 0
                **spreads,
            )
            statistics._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AssetError(f"The avatar's parameter statistics are damaged: {error!r}") from error
        return statistics

    def _check(self) -> None:
        """Raises ``ValueError`` for what no training gives."""
        lengths = {**_LENGTHS, "expression": len(self.neutral_expression)}
        shapes: dict[tuple[str, str], tuple[int, ...]] = {
            (name, part): (lengths[name],) for name in _GROUPS for part in Spread.__slots__
        }
        shapes |= {("place_by_rotation", part): (2,) for part in PlaceByRotation.__slots__}
        shapes["place_by_rotation", "slopes"] = (2, 3)
        for (name, part), shape in shapes.items():
            numbers: FloatArray = getattr(getattr(self, name), part)
            if numbers.shape != shape or not np.isfinite(numbers).all():
                count = " x ".join(map(str, shape))
                raise ValueError(f"{name}.{part} is not {count} finite numbers")
        scale = float(self.scale.mean[0])
        if not (math.isfinite(sum(self.neutral_expression)) and scale > 0):
            raise ValueError("a face at rest that is none, or a scale that is not positive")
        if not (self.window.half_size > 0 and math.isfinite(self.window.half_size)):
            raise ValueError("a window without size")


def _arrays(values: dict[str, Any]) -> dict[str, FloatArray]:
    """Returns plain lists as arrays, by name."""
    return {name: np.array(numbers, np.float32) for name, numbers in values.items()}


def measure_closed_lip_gap(parameters: Sequence[FaceParameters]) -> float:
    """Returns the distance of a person's lips when the mouth is closed, as ``LipGap`` counts it.

    Args:
        parameters: Frames of one person, at least one.

    Raises:
        AssetError: Their face model is not in the library.
    """
    gaps = lip_gap(parameters[0].model_id).of(np.stack([p.expression for p in parameters]))
    return float(np.percentile(gaps, CLOSED_PERCENTILE))


def split_parameters(parameters: FaceParameters) -> dict[str, FloatArray]:
    """Returns the groups that statistics are kept of, by name, (N,) float32 each."""
    return {
        "rotation": rotation_vector_from_quaternion(parameters.rotation),
        "translation": np.asarray(parameters.translation[:2], np.float32),
        "scale": np.array([parameters.scale], np.float32),
        "expression": np.asarray(parameters.expression, np.float32),
        "eye_rotation": np.asarray(parameters.eye_rotation, np.float32).ravel(),
    }
