# SPDX-License-Identifier: Apache-2.0
"""Training batches: order of frames, random sample boxes and sliding windows (paper, Sec. 3.2).

In some samples the windows of person and background come *apart*: the person is put before the
backplate, the room without the person, which stays in the middle. Otherwise a background could tell
where the person is, and nothing would keep it from showing when the two are moved. Some of these
persons are tilted, farther to a side than any frame shows them: how bodies follow heads that tilt
less, the frames tell.

What a step sees is a function of seed and step alone, so a resumed run goes on as if unbroken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.ops.ranks import own_share
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.samples.below_frame import extend_person
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.pictures import image_tensor
from styleavatar_core.training.samples.tilting import tilt_frame
from styleavatar_core.types import ByteArray

FIXED_STYLE_TIME = 0.5  # the z_tmp that inference uses
_DEVIATIONS = 2.5  # the largest offset and tilt are so many standard deviations away


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's samples; R rendering side, U = ``uv_size``, Fw = ``feature_size``.

    Attributes:
        image: (B, 3, H, W) float32 in [-1, 1], the sample box.
        valid: (B, 1, H, W) float32, 0 where the box leaves the source frame, but for the person
            below it (``below_frame``).
        mask: (B, 1, Fw, Fw) float32 in [0, 1], 1 = person.
        mask_valid: (B, 1, Fw, Fw) float32, 0 where the box leaves the source frame, but for what is
            below it.
        rendering: (B, 3, R, R) float32 in [-1, 1], central square, not moved with the box.
        box_rendering: (B, 3, R, R) float32 in [-1, 1], moved with the box, for the discriminator.
        uv: (B, 2, U, U) float32 in [0, 1], in the box.
        face_mask: (B, 1, U, U) float32, in the box.
        window: (B, 2) int64, texels (x, y), of the person; always on the host, as a GPU would wait
            for reading it.
        background_window: The same of the background.
        style_time: (B,) float32, argument of the positional code of z_tmp.
        clip: Which of the clips that are trained on they all come from.
        has_shared_identity: Whether they have the z_id of nobody in particular.
    """

    image: torch.Tensor
    valid: torch.Tensor
    mask: torch.Tensor
    mask_valid: torch.Tensor
    rendering: torch.Tensor
    box_rendering: torch.Tensor
    uv: torch.Tensor
    face_mask: torch.Tensor
    window: torch.Tensor
    background_window: torch.Tensor
    style_time: torch.Tensor
    clip: int = 0
    has_shared_identity: bool = False

    def to(self, device: torch.device) -> Batch:
        """Returns the same samples on a device."""
        return self._with(lambda part: part.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Returns the same samples in memory that a GPU copies from by itself."""
        return self._with(torch.Tensor.pin_memory)

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Returns the same samples with a change made to what steps compute with: all but windows.

        Args:
            change: Of where a tensor lies.
        """
        return dataclasses.replace(
            self,
            image=change(self.image),
            valid=change(self.valid),
            mask=change(self.mask),
            mask_valid=change(self.mask_valid),
            rendering=change(self.rendering),
            box_rendering=change(self.box_rendering),
            uv=change(self.uv),
            face_mask=change(self.face_mask),
            style_time=change(self.style_time),
        )


class BatchSampler:
    """Makes this rank's share of the batch of any step.

    Args:
        clips: What is trained on; each step sees one of them, in turn.
        generator_config: The preset.
        config: The training.
    """

    def __init__(
        self, clips: Sequence[Clip], generator_config: GeneratorConfig, config: TrainConfig
    ) -> None:
        self._clips = clips
        self._generator_config = generator_config
        self._config = config

    def at_step(self, step: int) -> Batch:
        """Returns this rank's samples of a step."""
        config, generator_config = self._config, self._generator_config
        rng = np.random.default_rng((config.seed, 1, step))
        turn, which = divmod(step, len(self._clips))
        clip, size = self._clips[which], config.batch_size
        dataset = clip.dataset
        indices = [self._frame(dataset, turn * size + i) for i in range(size)]
        limit = _offset_limit(generator_config, dataset.info.canvas_factor)
        offsets = np.rint(_spread(rng, limit, (size, 2))).astype(np.int64)
        is_apart = rng.random(size) < config.apart_share
        offsets[(rng.random(size) < config.centered_share) & ~is_apart] = 0
        times = np.array(indices) / len(dataset)  # places in the clip, in [0, 1)
        times[rng.random(size) < config.fixed_style_share] = FIXED_STYLE_TIME
        own = own_share()
        is_shared = bool(rng.random() < config.shared_identity_share)
        tilts = _draw_tilts(rng, clip.rolls_deg, indices, config)
        tilts[~is_apart] = 0.0
        batch = make_batch(
            dataset, generator_config, indices[own], offsets[own], times[own], tilts[own]
        )
        batch = dataclasses.replace(batch, clip=which, has_shared_identity=is_shared)
        if not is_apart[own].any():
            return batch
        behind, valid = map(dataset.window, (clip.backplate, dataset.valid))
        return move_apart(batch, behind, valid, is_apart[own])

    def _frame(self, dataset: AvatarDataset, position: int) -> int:
        """Returns the frame at a place in the endless order: one permutation after another."""
        epoch, rest = divmod(position, len(dataset.train_indices))
        rng = np.random.default_rng((self._config.seed, 0, epoch))
        return int(rng.permutation(len(dataset.train_indices))[rest])


def make_batch(
    dataset: AvatarDataset,
    config: GeneratorConfig,
    indices: list[int],
    offsets: np.ndarray | None = None,
    style_times: np.ndarray | None = None,
    tilts: np.ndarray | None = None,
) -> Batch:
    """Cuts sample boxes out of the canvas arrays.

    Args:
        dataset: The clip.
        config: The preset.
        indices: B frames.
        offsets: (B, 2) int64 texels (x, y); None keeps all boxes in the middle.
        style_times: (B,) float; None takes the code of inference.
        tilts: (B,) float, degrees by which persons are tilted, clockwise; None tilts nobody.
    """
    count = len(indices)
    offsets = np.zeros((count, 2), np.int64) if offsets is None else offsets
    times = np.full(count, FIXED_STYLE_TIME) if style_times is None else style_times
    tilts = np.zeros(count) if tilts is None else tilts
    size = config.feature_size
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _PARTS}
    for index, (x, y), tilt in zip(indices, offsets.tolist(), tilts.tolist(), strict=True):
        image_px = config.pixels_per_texel
        box = (x * image_px, y * image_px)
        rendering_px = config.rendering_size_px // size
        rendering_box = (x * rendering_px, y * rendering_px)
        if tilt:
            person = tilt_frame(dataset, index, tilt)
            on_canvas = (person.image, person.mask, person.valid, person.mask_valid)
            image, mask, valid, mask_valid = (dataset.window(part, box) for part in on_canvas)
            rendering, levels = person.rendering, person.uv
        else:
            mask = dataset.window(dataset.masks[index], box)
            image, valid, mask_valid = extend_person(
                dataset.window(dataset.frames[index], box), mask, dataset.window(dataset.valid, box)
            )
            rendering, levels = dataset.renderings[index], dataset.uv[index]
        parts["image"].append(image)
        parts["valid"].append(valid)
        parts["mask"].append(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA))
        parts["mask_valid"].append(
            cv2.resize(mask_valid, (size, size), interpolation=cv2.INTER_NEAREST)
        )
        parts["rendering"].append(dataset.window(rendering))
        parts["box_rendering"].append(dataset.window(rendering, rendering_box))
        stride = config.rendering_size_px // config.uv_size
        parts["uv"].append(dataset.window(levels, rendering_box)[::stride, ::stride])
    stacked = {name: np.stack(values) for name, values in parts.items()}
    uv, face_mask = decode_uv(stacked["uv"])
    return Batch(
        image=image_tensor(stacked["image"]),
        valid=torch.from_numpy(stacked["valid"])[:, None].float(),
        mask=torch.from_numpy(stacked["mask"])[:, None].float() / 255.0,
        mask_valid=torch.from_numpy(stacked["mask_valid"])[:, None].float(),
        rendering=image_tensor(stacked["rendering"]),
        box_rendering=image_tensor(stacked["box_rendering"]),
        uv=torch.from_numpy(uv).permute(0, 3, 1, 2).contiguous(),
        face_mask=torch.from_numpy(face_mask)[:, None],
        window=torch.from_numpy(offsets),
        background_window=torch.from_numpy(offsets),
        style_time=torch.from_numpy(times.astype(np.float32)),
    )


def move_apart(batch: Batch, behind: ByteArray, valid: ByteArray, is_apart: np.ndarray) -> Batch:
    """Puts persons, cut out of their boxes, before the background of the middle window.

    Args:
        batch: Samples cut from boxes away from the middle.
        behind: (H, W, 3) uint8, the background of the middle window.
        valid: (H, W) uint8, 0 where the middle window leaves the source frame.
        is_apart: (B,) bool, the samples that this is done to.
    """
    chosen = torch.from_numpy(is_apart)[:, None, None, None]
    picture = image_tensor(behind[None])
    matte = F.interpolate(batch.mask, size=picture.shape[-2:], mode="bilinear", align_corners=False)
    own_valid = torch.from_numpy(valid)[None, None].float()
    return dataclasses.replace(
        batch,
        image=torch.where(chosen, picture + (batch.image - picture) * matte, batch.image),
        valid=torch.where(chosen & (matte == 0), own_valid, batch.valid),
        background_window=torch.where(chosen[:, 0, 0], 0, batch.window),
    )


_PARTS = ("image", "valid", "mask", "mask_valid", "rendering", "box_rendering", "uv")


def _offset_limit(config: GeneratorConfig, canvas_factor: float) -> int:
    """Returns the largest offset in texels for which canvas pictures and canvas maps reach."""
    pictured = int((canvas_factor - 1.0) / 2.0 * config.feature_size)
    return min(config.maximum_offset, pictured)


def _draw_tilts(
    rng: np.random.Generator, rolls: np.ndarray, indices: list[int], config: TrainConfig
) -> np.ndarray:
    """Draws tilts that take heads beyond the rolls of all frames, for a share of the samples.

    Args:
        rng: Gives the same numbers to each rank.
        rolls: Of the heads in all training frames, degrees.
        indices: B frames.
        config: How many are tilted, and how far.

    Returns:
        (B,) float64, degrees; zero where nobody is tilted.
    """
    beyond = np.abs(_spread(rng, config.tilt_deg, (len(indices),)))
    is_tilted = rng.random(len(indices)) < config.tilt_share
    least, most, own = rolls.min(), rolls.max(), rolls[indices]
    # To the side to which the head leans already: necks bend by no more than they must.
    tilts = np.where(own < (least + most) / 2, least - own - beyond, most - own + beyond)
    return np.where(is_tilted, tilts, 0.0)


def _spread(rng: np.random.Generator, limit: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draws numbers about zero, close to it more often, and none beyond a limit."""
    return np.clip(rng.normal(0.0, limit / _DEVIATIONS, shape), -limit, limit)
