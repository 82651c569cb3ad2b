# SPDX-License-Identifier: Apache-2.0
"""What shows through the openings of the sample clip's face: eyes that look, teeth, mouth cavity.

A photograph does not show what lies behind its lids and lips. Each opening is painted from what the
photograph does show of it and from a little of our own drawing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from styleavatar_core.types import BoolArray, ByteArray, FloatArray

# Rings of MediaPipe's topology around the openings, each from corner to corner and back.
RIGHT_EYE_RING = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE_RING = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
IRIS_CENTERS = {"left": 473, "right": 468}

_CAVITY_RGB = (44.0, 16.0, 16.0)
_TONGUE_RGB = (118.0, 58.0, 56.0)
_SUBPIXEL_BITS = 4


def lower_lid(ring: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the lower lid's landmarks from the outer corner to the inner one."""
    return ring[:9]


def upper_lid(ring: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the upper lid's landmarks from the outer corner to the inner one."""
    return (ring[0], *ring[:7:-1])


def polygon_alpha(shape: tuple[int, int], polygon: FloatArray) -> FloatArray:
    """Draws a filled polygon with soft edges.

    Args:
        shape: Height and width, pixels.
        polygon: (N, 2) float32 pixels; pixel (i, j) has its centre at (i + 0.5, j + 0.5).

    Returns:
        (H, W) float32 in [0, 1].
    """
    # Four-fold supersampling in y and x: cv2's own anti-aliasing leaks over thin slits.
    factor = 4
    canvas = np.zeros((shape[0] * factor, shape[1] * factor), np.uint8)
    points = np.round((polygon * factor - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255, shift=_SUBPIXEL_BITS)
    small = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255.0


def fit_affine(source: FloatArray, target: FloatArray) -> FloatArray:
    """Returns the (2, 3) float64 affine map that takes (N, 2) source points nearest to target."""
    homogeneous = np.concatenate([source, np.ones((len(source), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(homogeneous, target, rcond=None)
    return np.ascontiguousarray(solution.T)


def warp(image: FloatArray, affine: FloatArray, region: tuple[slice, slice]) -> FloatArray:
    """Moves an image by an affine map of pixel-centre coordinates and returns one region of it."""
    # cv2 counts from the centre of the first pixel: shift both sides by half a pixel.
    matrix = affine.copy()
    matrix[:, 2] += affine[:, :2] @ (0.5, 0.5) - 0.5 - (region[1].start, region[0].start)
    size = (region[1].stop - region[1].start, region[0].stop - region[0].start)
    moved = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, image.dtype)


def region_around(polygon: FloatArray, shape: tuple[int, int], margin: int) -> tuple[slice, slice]:
    """Returns the rows and columns that hold a polygon with a margin, within an image."""
    low = np.floor(polygon.min(axis=0)).astype(int) - margin
    high = np.ceil(polygon.max(axis=0)).astype(int) + margin
    rows = slice(int(max(low[1], 0)), int(min(high[1], shape[0])))
    columns = slice(int(max(low[0], 0)), int(min(high[0], shape[1])))
    return rows, columns


def blend(
    frame: ByteArray, region: tuple[slice, slice], layer: FloatArray, alpha: FloatArray
) -> None:
    """Lays a float32 layer over a region of a uint8 frame, in place."""
    part = frame[region].astype(np.float32)
    mixed = part + (layer - part) * alpha[..., None]
    frame[region] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class EyeLayer:
    """One eye of the photograph, taken apart.

    Attributes:
        ring: Landmark indices of the lids' edge.
        sclera: (H, W, 3) float32, 0 to 255. The photograph with white where iris and lids are.
        iris: (H, W, 4) float32. The whole iris at its place in the photograph, and its alpha.
        center: (2,) float32 pixels. Where the iris is in the photograph.
    """

    ring: tuple[int, ...]
    sclera: FloatArray
    iris: FloatArray
    center: FloatArray

    def paint(
        self, frame: ByteArray, opening: FloatArray, rigid: FloatArray, iris_center: FloatArray
    ) -> None:
        """Paints the eye into its opening, in place.

        Args:
            frame: (H, W, 3) uint8.
            opening: (N, 2) float32 pixels, the lids' edge in this frame.
            rigid: (2, 3) affine map, photograph to frame, of the head's motion at the eye.
            iris_center: (2,) float32 pixels, where the iris is in this frame.
        """
        region = region_around(opening, frame.shape[:2], margin=2)
        rows, columns = region
        shift = np.array([columns.start, rows.start], np.float32)
        alpha = polygon_alpha(
            (rows.stop - rows.start, columns.stop - columns.start), opening - shift
        )
        layer = warp(self.sclera, rigid, region)
        gaze = rigid.copy()
        gaze[:, 2] = iris_center - rigid[:, :2] @ self.center
        iris = warp(self.iris, gaze, region)
        layer += (iris[..., :3] - layer) * iris[..., 3:]
        blend(frame, region, layer, alpha)


def take_eye(photo: ByteArray, landmarks: FloatArray, side: str) -> EyeLayer:
    """Separates an eye of the photograph into white and iris.

    Args:
        photo: (H, W, 3) uint8 RGB.
        landmarks: (478, 2) float32 pixels in the photograph.
        side: ``left`` or ``right`` of the subject.
    """
    ring = LEFT_EYE_RING if side == "left" else RIGHT_EYE_RING
    first = IRIS_CENTERS[side]
    center = landmarks[first]
    radius = float(np.linalg.norm(landmarks[first + 1 : first + 5] - center, axis=1).mean())
    inside = polygon_alpha(photo.shape[:2], landmarks[list(ring)])
    rows, columns = np.indices(photo.shape[:2]) + 0.5
    distance = np.hypot(columns - center[0], rows - center[1])
    white = (inside > 0.9) & (distance > radius * 1.2)
    sclera = _spread(photo, white, reach=radius * 3)
    iris = _whole_iris(photo, inside > 0.9, distance, radius)
    alpha = np.clip((radius - distance) / 1.2 + 0.5, 0.0, 1.0)
    return EyeLayer(ring, sclera, np.dstack([iris, alpha]).astype(np.float32), center)


def _spread(photo: ByteArray, known: BoolArray, reach: float) -> FloatArray:
    """Spreads the known pixels' colours smoothly over their surroundings."""
    weight = known.astype(np.float32)
    if not known.any():
        return np.full(photo.shape, 205.0, np.float32)
    total = cv2.GaussianBlur(photo * weight[..., None], (0, 0), reach / 4)
    share = cv2.GaussianBlur(weight, (0, 0), reach / 4)
    mean = photo[known].mean(axis=0)
    # Far from anything known the blur has nothing to say: fall back to the mean.
    smooth = (total + 1e-3 * mean) / (share + 1e-3)[..., None]
    return (smooth + (photo - smooth) * weight[..., None]).astype(np.float32)


def _whole_iris(
    photo: ByteArray, visible: BoolArray, distance: FloatArray, radius: float
) -> FloatArray:
    """Completes the iris where lids hide it by the mean colour at the same distance."""
    ring_count = max(4, round(radius * 1.5))
    index = np.minimum((distance / (radius * 1.15) * ring_count).astype(int), ring_count)
    profile = np.zeros((ring_count + 1, 3), np.float32)
    for ring in range(ring_count + 1):
        chosen = visible & (index == ring)
        profile[ring] = photo[chosen].mean(axis=0) if chosen.any() else profile[max(ring - 1, 0)]
    complete = profile[index]
    keep = cv2.GaussianBlur(visible.astype(np.float32), (0, 0), 0.8)[..., None] * visible[..., None]
    return complete + (photo - complete) * keep


@dataclass(frozen=True, slots=True)
class MouthLayer:
    """The photograph's teeth, which stay with the skull, before a cavity of our own.

    Attributes:
        teeth: (H, W, 4) float32. The photograph and the alpha of what shows between its lips.
    """

    teeth: FloatArray

    def paint(
        self, frame: ByteArray, upper: FloatArray, lower: FloatArray, rigid: FloatArray
    ) -> None:
        """Paints teeth and cavity between the lips, in place.

        Args:
            frame: (H, W, 3) uint8.
            upper: (N, 2) float32 pixels, the upper lip's inner edge from corner to corner.
            lower: (N, 2) float32 pixels, the lower lip's inner edge, same corners.
            rigid: (2, 3) affine map, photograph to frame, of the head's motion at the mouth.
        """
        opening = np.concatenate([upper, lower[::-1]])
        region = region_around(opening, frame.shape[:2], margin=2)
        rows, columns = region
        shift = np.array([columns.start, rows.start], np.float32)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        alpha = polygon_alpha(shape, opening - shift)
        teeth = warp(self.teeth, rigid, region)
        layer = _cavity(shape, opening - shift)
        layer += (teeth[..., :3] - layer) * teeth[..., 3:]
        blend(frame, region, layer, alpha)


def take_mouth(photo: ByteArray, landmarks: FloatArray) -> MouthLayer:
    """Takes the teeth from the photograph: what shows between its lips.

    Args:
        photo: (H, W, 3) uint8 RGB.
        landmarks: (478, 2) float32 pixels in the photograph.
    """
    ring = [*UPPER_INNER_LIP, *LOWER_INNER_LIP[::-1]]
    inside = polygon_alpha(photo.shape[:2], landmarks[ring])
    eroded = cv2.erode(inside, np.ones((2, 2), np.uint8))
    alpha = cv2.GaussianBlur(eroded, (0, 0), 0.7)
    return MouthLayer(np.dstack([photo.astype(np.float32), alpha]).astype(np.float32))


def _cavity(shape: tuple[int, int], opening: FloatArray) -> FloatArray:
    """Draws a dark mouth with a tongue that shows the more, the wider it is open."""
    top, bottom = opening[:, 1].min(), opening[:, 1].max()
    width = np.ptp(opening[:, 0]) + 1e-3
    rows, columns = np.indices(shape) + 0.5
    down = (rows - top) / (bottom - top + 1e-3)
    aside = (columns - opening[:, 0].mean()) / width
    openness = np.clip((bottom - top) / width * 2 - 0.3, 0.0, 1.0)
    tongue = np.clip((down - 0.55) * 3, 0, 1) * np.clip(1 - (aside * 2.6) ** 2, 0, 1) * openness
    dark, bright = np.array(_CAVITY_RGB), np.array(_TONGUE_RGB)
    return (dark + (bright - dark) * tongue[..., None]).astype(np.float32)
