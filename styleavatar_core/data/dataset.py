# SPDX-License-Identifier: Apache-2.0
"""The prepared dataset on disk: memory-mapped arrays of one clip, and how they are read.

Everything is stored on the *canvas*, the portrait window enlarged 1.5 times (paper, Sec. 3.1), so
that sample boxes are plain slices. Of the first four fifths in time all but the end are trained on;
that end is *watched*, for what a training decides by quality; the last fifth is held out (Sec. 4.1)
and only ever reported on. ``dataset.json`` is written last: where it is, the dataset is complete.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from styleavatar_core.data.dataset_info import DATASET_NAME, DatasetInfo, read_info
from styleavatar_core.data.parameter_arrays import stack_parameters, unstack_parameters
from styleavatar_core.data.room import cannot_write, take_blocks
from styleavatar_core.errors import AssetError
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray

_PARAMETERS_NAME = "parameters.safetensors"
_UV_LEVELS = 65534.0  # 0 is kept for "no face"
_WATCHED_SHARE = 1 / 20  # of the first four fifths


class DatasetWriter:
    """Writes the arrays of a dataset one frame after another, in constant memory.

    Args:
        folder: Where; created if missing.
        frame_count: Number of frames that will come.
        canvas_size_px: Side of the canvas picture.
        rendering_canvas_px: Side of the canvas renderings.

    Raises:
        TrainingError: The disk has no room for them.
    """

    def __init__(
        self, folder: Path, frame_count: int, canvas_size_px: int, rendering_canvas_px: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        side, rendering = canvas_size_px, rendering_canvas_px
        shapes = {
            "frames": ((side, side, 3), np.uint8),
            "masks": ((side, side), np.uint8),
            "renderings": ((rendering, rendering, 3), np.uint8),
            "uv": ((rendering, rendering, 2), np.uint16),
        }
        paths = {name: folder / f"{name}.npy" for name in shapes}
        try:
            self._arrays = {
                name: np.lib.format.open_memmap(
                    paths[name], mode="w+", dtype=kind, shape=(frame_count, *shape)
                )
                for name, (shape, kind) in shapes.items()
            }
            for path in paths.values():
                take_blocks(path)
        except OSError as error:
            for path in paths.values():
                path.unlink(missing_ok=True)
            sizes = [np.prod(shape) * np.dtype(kind).itemsize for shape, kind in shapes.values()]
            what = f"a dataset of {frame_count * sum(sizes) / 1e9:.2f} GB"
            raise cannot_write(what, folder, error) from error

    def put(
        self,
        position: int,
        *,
        frame: ByteArray,
        mask: FloatArray,
        rendering: ByteArray,
        uv: FloatArray,
        face_mask: ByteArray,
    ) -> None:
        """Stores one frame.

        Args:
            position: Place in the dataset.
            frame: (S, S, 3) uint8 RGB.
            mask: (S, S) float32 in [0, 1], 1 = person.
            rendering: (R, R, 3) uint8, texture rendering.
            uv: (R, R, 2) float32 in [0, 1].
            face_mask: (R, R) uint8, 1 where the UV rendering shows the face.
        """
        self._arrays["frames"][position] = frame
        self._arrays["masks"][position] = np.rint(np.clip(mask, 0, 1) * 255)
        self._arrays["renderings"][position] = rendering
        levels = np.rint(np.clip(uv, 0, 1) * _UV_LEVELS) + 1
        self._arrays["uv"][position] = levels * face_mask[..., None]

    def finish(self, info: DatasetInfo, parameters: list[FaceParameters], valid: ByteArray) -> None:
        """Completes the dataset.

        Args:
            info: What it is.
            parameters: One per frame, in source frame coordinates.
            valid: (S, S) uint8, 1 where the canvas lies inside the source frame.

        Raises:
            TrainingError: The disk has no room for what comes last.
        """
        try:
            for array in self._arrays.values():
                array.flush()
            np.save(self._folder / "valid.npy", valid)
            save_file(stack_parameters(parameters), self._folder / _PARAMETERS_NAME)
            incoming = self._folder / f".{DATASET_NAME}"
            incoming.write_text(json.dumps(asdict(info), indent=2) + "\n")
            incoming.replace(self._folder / DATASET_NAME)
        except (OSError, SafetensorError) as error:
            raise cannot_write("the end of a dataset", self._folder, error) from error


class AvatarDataset:
    """A complete dataset, read by memory maps.

    Args:
        folder: Where :class:`DatasetWriter` wrote it.

    Attributes:
        info: What it is.
        frames: (T, S, S, 3) uint8 RGB, the canvas.
        masks: (T, S, S) uint8, 255 = person.
        renderings: (T, R, R, 3) uint8, texture renderings of the canvas.
        uv: (T, R, R, 2) uint16, see :func:`decode_uv`.
        valid: (S, S) uint8, 1 where the canvas lies inside the source frame.
        parameters: T face parameters in source frame coordinates.

    Raises:
        AssetError: There is no complete dataset.
    """

    def __init__(self, folder: Path) -> None:
        info = read_info(folder)
        if info is None:
            raise AssetError(f"{folder} holds no complete dataset; prepare the video again")
        self.folder = folder
        self.info = info
        self.frames = np.load(folder / "frames.npy", mmap_mode="r")
        self.masks = np.load(folder / "masks.npy", mmap_mode="r")
        self.renderings = np.load(folder / "renderings.npy", mmap_mode="r")
        self.uv = np.load(folder / "uv.npy", mmap_mode="r")
        self.valid = np.load(folder / "valid.npy")
        self.parameters = unstack_parameters(load_file(folder / _PARAMETERS_NAME), info.model_id)

    def __len__(self) -> int:
        return self.info.frame_count

    @property
    def train_indices(self) -> range:
        """Frames to train on: the first four fifths in time without the watched ones."""
        return range(self.info.train_count - self._watched_count)

    @property
    def watched_indices(self) -> range:
        """Frames between the two others, at least one: when to stop and which z_tmp, say these."""
        return range(self.info.train_count - self._watched_count, self.info.train_count)

    @property
    def held_out_indices(self) -> range:
        """Frames that no training sees or decides by: the last fifth in time."""
        return range(self.info.train_count, self.info.frame_count)

    @property
    def _watched_count(self) -> int:
        return max(int(self.info.train_count * _WATCHED_SHARE), 1)

    def window(self, array: np.ndarray, offset_px: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Cuts the window out of a canvas array.

        Args:
            array: (S, S, ...), a picture or rendering of the canvas.
            offset_px: (x, y) of the window from the canvas' middle, in pixels of ``array``.

        Returns:
            A view of side ``S / canvas_factor``.
        """
        side = round(array.shape[0] / self.info.canvas_factor)
        margin = (array.shape[0] - side) // 2
        left, top = margin + offset_px[0], margin + offset_px[1]
        return array[top : top + side, left : left + side]


def decode_uv(levels: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Turns stored UV levels into coordinates and mask.

    Args:
        levels: (..., 2) uint16; 0 = no face.

    Returns:
        (..., 2) float32 in [0, 1] and (...) float32 face mask, 0 or 1.
    """
    mask = (levels[..., 0] > 0).astype(np.float32)
    return np.maximum(levels.astype(np.float32) - 1, 0) / np.float32(_UV_LEVELS), mask
