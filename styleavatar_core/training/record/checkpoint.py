# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file, written beside and renamed: never half there, no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from styleavatar_core.avatar.placing import sync
from styleavatar_core.data.room import cannot_write
from styleavatar_core.errors import AssetError, ConflictError
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.parallel import wait_for_all

TRAINING_FOLDER = "training"  # of a work folder: checkpoint, log, pictures
CHECKPOINT_NAME = "checkpoint.safetensors"
_FORMAT = "styleavatar-checkpoint-1"


def checkpoint_in(folder: Path) -> Path:
    """Returns where the checkpoint of a work folder's training is, or will be."""
    return folder / TRAINING_FOLDER / CHECKPOINT_NAME


def save_checkpoint(
    path: Path,
    clock: Clock,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    fingerprint: str,
    perceptual_loss: str = "",
    config: TrainConfig | None = None,
    face_model: str = "",
) -> None:
    """Writes the whole state of a training; of several ranks, which are all alike, the first.

    Args:
        path: The file.
        clock: How far it is. Order of frames and randomness follow from its step.
        modules: By name; all parameters and buffers are kept.
        optimizers: By name; Adam's moments are kept.
        fingerprint: What must agree on resumption: video, face model, preset and seed.
        perceptual_loss: Its name, which must agree too; empty where there is none.
        config: What it was trained with.
        face_model: Id of the model that faces were rendered with.

    Raises:
        TrainingError: It cannot be written; the one before is still there.
    """
    wait_for_all()  # until nobody reads the one before
    if own_rank() == 0:
        metadata = {"format": _FORMAT, "clock": clock.to_json(), "fingerprint": fingerprint}
        metadata["perceptual_loss"] = perceptual_loss
        metadata["layout"] = _layout(modules)
        metadata["face_model"] = face_model
        if config is not None:
            metadata["settings"] = json.dumps(config.to_dict())
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming = path.with_name(f".{path.name}")
        try:
            save_file(_flat_state(modules, optimizers), incoming, metadata=metadata)
            sync(incoming)
            incoming.replace(path)
        except (OSError, SafetensorError) as error:
            incoming.unlink(missing_ok=True)
            raise cannot_write(f"checkpoint {path.name}", path.parent, error) from error
        sync(path.parent)
    wait_for_all()


def _flat_state(
    modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"module/{name}/{key}"] = value.detach().contiguous()
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value).contiguous()
    return tensors


def load_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    fingerprint: str,
    perceptual_loss: str = "",
) -> Clock:
    """Restores the state of a training in place.

    Raises:
        AssetError: The file cannot be read.
        ConflictError: It belongs to another video, face model, preset or seed, to another version,
            or was trained with another perceptual loss or on another kind of device.
    """
    tensors, metadata = _read(path)
    if metadata["fingerprint"] != fingerprint:
        raise ConflictError(
            f"checkpoint {path.name} belongs to another video, or to other masks, another face "
            "model, preset or seed; use another folder or remove it"
        )
    # Checkpoints of older versions do not say: they go on with what is given.
    trained_with = metadata.get("perceptual_loss", perceptual_loss)
    if trained_with != perceptual_loss:
        raise ConflictError(
            f"checkpoint {path.name} was trained with the perceptual loss '{trained_with}', not "
            f"with '{perceptual_loss}': go on as it began, with VGG19 weights or without, or "
            "train in another folder"
        )
    # Adam's moments are one vector, in the order in which the weights lie in memory.
    layout = _layout(modules)
    if metadata.get("layout", layout) != layout:
        raise ConflictError(
            f"checkpoint {path.name} was trained on another kind of device, a GPU or a CPU: go on "
            "there, or train in another folder; --from takes what it has learned"
        )
    try:
        for name, module in modules.items():
            module.load_state_dict(_part(tensors, f"module/{name}/"))
        for name, optimizer in optimizers.items():
            _load_optimizer(optimizer, f"optimizer/{name}/", tensors)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ConflictError(
            f"checkpoint {path.name} is of another version of this program, whose networks or "
            "optimizers differ; finish it with that version, or use another folder"
        ) from error
    return Clock.from_json(metadata["clock"])


def _layout(modules: dict[str, nn.Module]) -> str:
    """Returns how the weights of convolutions lie in memory: GPUs have theirs channels last."""
    weights = (weight for module in modules.values() for weight in module.parameters())
    is_last = any(weight.dim() == 4 and not weight.is_contiguous() for weight in weights)
    return "channels_last" if is_last else "contiguous"


def _load_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str, tensors: dict[str, torch.Tensor]
) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, name = key[len(prefix) :].split("/")
            if value.shape == parameters[int(index)].shape:
                # The fused optimizer walks memory: moments must lie there as their parameter does.
                value = torch.empty_like(parameters[int(index)]).copy_(value)
            state.setdefault(int(index), {})[name] = value.detach()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def read_module(path: Path, name: str, module: nn.Module, besides: tuple[str, ...] = ()) -> Clock:
    """Restores one module of a checkpoint, whatever video it belongs to.

    Args:
        path: The file.
        name: Of the module in the checkpoint.
        module: Takes the weights.
        besides: Tensors that it keeps as they are.
    """
    tensors, metadata = _read(path)
    own = module.state_dict()
    module.load_state_dict(_part(tensors, f"module/{name}/") | {key: own[key] for key in besides})
    return Clock.from_json(metadata["clock"])


def read_shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a module's tensors in a checkpoint, by their names in the module.

    Raises:
        AssetError: The file cannot be read.
    """
    prefix = f"module/{name}/"
    with _opened(path) as file:
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
        return {key[len(prefix) :]: tuple(file.get_slice(key).get_shape()) for key in keys}


def read_perceptual_loss(path: Path) -> str:
    """Returns the name of the perceptual loss that a checkpoint was trained with.

    Those of older versions do not say: it is empty.
    """
    with _opened(path) as file:
        return file.metadata().get("perceptual_loss", "")


def read_face_model(path: Path) -> str:
    """Returns the id of the face model that a checkpoint belongs to; empty where it does not say.

    Raises:
        AssetError: The file cannot be read.
    """
    with _opened(path) as file:
        return file.metadata().get("face_model", "")


def read_settings(path: Path) -> TrainConfig | None:
    """Returns what a checkpoint was trained with; None where there is none, or it does not say.

    Raises:
        AssetError: The file cannot be read.
    """
    if not path.exists():
        return None
    with _opened(path) as file:
        settings = file.metadata().get("settings")
    return TrainConfig.from_dict(json.loads(settings)) if settings else None


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yields a checkpoint, of which safetensors reads what is asked for."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise AssetError(f"{path.name} is not a checkpoint of format {_FORMAT}")
            yield file
    except (OSError, SafetensorError) as error:
        raise AssetError(
            f"checkpoint {path.name} cannot be read: {error}; put checkpoint-good.safetensors, if"
            " it lies beside it, in its place, or remove it to begin anew"
        ) from error


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: v for key, v in tensors.items() if key.startswith(prefix)}
