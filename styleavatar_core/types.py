# SPDX-License-Identifier: Apache-2.0
"""Small frozen values over numpy that cross process lines.

Imports neither torch nor OpenCV, so that light processes may use it. Axes, units and coordinates
are those of ``docs/conventions.md``: frame coordinates have their origin at the frame centre and
half the frame height as unit, x right, y down, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Of float32 or float64; docstrings say which.
FloatArray = npt.NDArray[np.floating]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FaceParameters:
    """What is tracked in one frame (paper, Sec. 3.1): the one thing that crosses every boundary.

    A model vertex v lands at ``scale * (R v + translation)`` in frame coordinates.

    Attributes:
        model_id: Face model that the expression coefficients belong to.
        rotation: (4,) float32. Head rotation, unit quaternion wxyz; (1, 0, 0, 0) faces the camera.
        translation: (3,) float32, model units (decimetres).
        scale: Frame units (half frame heights) per model unit, positive.
        expression: (E,) float32. ARKit-named coefficients in [0, 1] for the built-in model.
        eye_rotation: (2, 2) float32, radians. Rows: subject's left eye, right eye; columns: pitch
            (down positive), yaw (towards image right positive), relative to the head.
        confidence: 1 where the face was found in the frame, 0 where it is held or at rest.
        capture_time_s: When the frame was captured, seconds on the caller's clock.
        frame_index: Index given by the caller, echoed everywhere.
        person_index: How many people the tracker has seen before this one, one after the other.
    """

    model_id: str
    rotation: FloatArray
    translation: FloatArray
    scale: float
    expression: FloatArray
    eye_rotation: FloatArray
    confidence: float = 1.0
    capture_time_s: float = 0.0
    frame_index: int = 0
    person_index: int = 0


@dataclass(frozen=True, slots=True)
class FaceIdentity:
    """What stays the same for a person: solved once, stored in the avatar bundle.

    Attributes:
        model_id: Face model that the coefficients belong to.
        identity: (I,) float32 identity coefficients, in standard deviations.
        texture: (T,) float32 texture coefficients.
    """

    model_id: str
    identity: FloatArray
    texture: FloatArray


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square part of a frame, in frame coordinates; it may reach beyond the frame.

    Attributes:
        center_x: Frame units, right of the frame centre.
        center_y: Frame units, below the frame centre.
        half_size: Half the side of the square, frame units, positive.
    """

    center_x: float
    center_y: float
    half_size: float

    def enlarged(self, factor: float) -> CropBox:
        """Returns the square with the same centre and ``factor`` times the side."""
        return CropBox(self.center_x, self.center_y, self.half_size * factor)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long piece of work has come; sent to the terminal and to the job queue alike.

    Attributes:
        stage: ``tracking``, ``rendering``, ``training`` or ``export``.
        fraction: Share of this stage that is done, in [0, 1].
        message: One line for people.
        step: Training step, when training.
        eta_s: Estimated seconds until the stage ends, if known.
        losses: Loss terms by name, weighted as they are summed; those of the discriminator's own
            loss, and how far it leads, have names that begin with ``judge``.
        psnr_db: PSNR of the watched frames at the last look, if any; once the avatar is ready that
            of the held-out ones.
        preview_jpeg: A picture of the present state, if one was made since the last event.
    """

    stage: str
    fraction: float
    message: str = ""
    step: int | None = None
    eta_s: float | None = None
    losses: dict[str, float] = field(default_factory=dict)
    psnr_db: float | None = None
    preview_jpeg: bytes | None = None
