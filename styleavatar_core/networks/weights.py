# SPDX-License-Identifier: Apache-2.0
"""Names of the published checkpoints and ours: the only place that knows the old ones.

Constant buffers of the checkpoints (Haar matrices, FIR kernels) are left out: our ops compute them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from styleavatar_core.errors import AssetError
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.portrait_generator import PortraitGenerator

# Parameters of a styled convolution or ToRGB, named alike in both.
_STYLED = r"(bias|conv\.weight|conv\.modulation\.weight|conv\.modulation\.bias|noise\.weight)"
_FOREGROUND_SIZES = (128, 64, 32)
_SYNTHESIS_SIZES = (64, 32, 16)
# Static maps that checkpoints hold beside the networks, and what bundles call them.
PUBLISHED_MAPS = {
    "feature_face": "face.feature",
    "skip_face": "face.rgb_pack",
    "feature_back": "background.feature",
    "skip_back": "background.rgb_pack",
}
_BUFFERS = re.compile(r"(^|\.)(ll|lh|hl|hh|kernel)$")


def _name_styled(prefix: str, index: int) -> str:
    """Returns our module for the old flat list, where ups and second convolutions alternate."""
    return f"{prefix}.{index // 2}.{'up' if index % 2 == 0 else 'conv'}"


def _rename_unet(name: str) -> str | None:
    """Renames a parameter of one of the two StyleUNets, or returns None."""
    unets = {"0": ("foreground", _FOREGROUND_SIZES), "1": ("synthesis", _SYNTHESIS_SIZES)}
    if match := re.fullmatch(r"from_rgbs_([01])\.(\d)\.conv\.0\.(weight|bias)", name):
        unet, sizes = unets[match[1]]
        return f"{unet}.from_rgbs.{sizes[int(match[2])]}.conv.{match[3]}"
    if match := re.fullmatch(r"cond_convs_([01])\.(\d)\.conv(1\.0|2\.1)\.(weight|bias)", name):
        # The second StyleUNet's first level is the published ``cond_addition``.
        level = int(match[2]) + int(match[1])
        part = "conv" if match[3] == "1.0" else "down"
        return f"{unets[match[1]][0]}.encoder.{level}.{part}.{match[4]}"
    if match := re.fullmatch(r"cond_addition\.conv(1\.0|2\.1)\.(weight|bias)", name):
        return f"synthesis.encoder.0.{'conv' if match[1] == '1.0' else 'down'}.{match[2]}"
    if match := re.fullmatch(r"comb_convs_([01])\.(\d)\.0\.(weight|bias)", name):
        joins = {"0": ("joins.32", "bottom"), "1": ("joins.32", "joins.16", "bottom")}[match[1]]
        return f"{unets[match[1]][0]}.{joins[int(match[2])]}.{match[3]}"
    if match := re.fullmatch(rf"convs_([01])\.(\d+)\.{_STYLED}", name):
        return f"{_name_styled(unets[match[1]][0] + '.decoder', int(match[2]))}.{match[3]}"
    if match := re.fullmatch(rf"to_rgbs_([01])\.(\d)\.{_STYLED}", name):
        return f"{unets[match[1]][0]}.decoder.{match[2]}.to_rgb.{match[3]}"
    if match := re.fullmatch(rf"tex_up\.([012])\.{_STYLED}", name):
        part = ("up", "conv", "to_rgb")[int(match[1])]
        return f"foreground.decoder.3.{part}.{match[2]}"
    return None


def _rename_mapping(name: str) -> str | None:
    """Renames a parameter of a mapping network, or returns None."""
    if match := re.fullmatch(r"mapping\.(\d)\.(weight|bias)", name):
        return f"mapping.layers.{int(match[1]) // 2}.{match[2]}"
    return None


def _rename_generator(name: str) -> str | None:
    """Renames a parameter of the published DoubleStyleUnet."""
    if match := re.fullmatch(r"get_mask\.0\.(weight|bias)", name):
        return f"mask_conv.{match[1]}"
    return _rename_mapping(name) or _rename_unet(name)


def _rename_feature_generator(name: str) -> str | None:
    """Renames a parameter of a published FeatureGenerator."""
    if name == "input.input":
        return "input.constant"
    if match := re.fullmatch(r"batchnorm\.(\w+)", name):
        return f"norm.{match[1]}"
    if match := re.fullmatch(rf"convs\.(\d)\.{_STYLED}", name):
        index = int(match[1])
        return f"{'ups' if index % 2 == 0 else 'convs'}.{index // 2}.{match[2]}"
    if match := re.fullmatch(rf"to_rgbs\.(\d)\.{_STYLED}", name):
        return name
    return _rename_mapping(name)


def _rename_discriminator(name: str) -> str | None:
    """Renames a parameter of the published Discriminator."""
    if match := re.fullmatch(r"from_rgbs\.(\d)\.conv\.(0\.weight|1\.bias)", name):
        return f"from_rgbs.{match[1]}.{match[2][2:]}"
    if match := re.fullmatch(r"convs\.(\d)\.conv1\.(0\.weight|1\.bias)", name):
        return f"blocks.{match[1]}.conv.{match[2][2:]}"
    if match := re.fullmatch(r"convs\.(\d)\.conv2\.(1\.weight|2\.bias)", name):
        return f"blocks.{match[1]}.down.{match[2][2:]}"
    if match := re.fullmatch(r"final_conv\.(0\.weight|1\.bias)", name):
        return f"final_conv.{match[1][2:]}"
    if match := re.fullmatch(r"final_linear\.([01])\.(weight|bias)", name):
        return f"{('final_linear', 'score')[int(match[1])]}.{match[2]}"
    return None


_RENAMERS = {
    "g_ema": _rename_generator,
    "i_g": _rename_generator,
    "f_g": _rename_feature_generator,
    "b_g": _rename_feature_generator,
    "d": _rename_discriminator,
}


def convert_published(
    network: str, parameters: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Converts one network of a published checkpoint into a state of ours (preset ``paper``).

    Args:
        network: ``g_ema`` or ``i_g`` (PortraitGenerator), ``f_g`` or ``b_g`` (FeatureGenerator),
            ``d`` (Discriminator).
        parameters: Tensors by published name; constant buffers are skipped.

    Returns:
        Tensors by our name, for ``load_state_dict``.

    Raises:
        AssetError: A name is not one of the published network's.
    """
    rename = _RENAMERS[network]
    state: dict[str, torch.Tensor] = {}
    for name, tensor in parameters.items():
        if _BUFFERS.search(name):
            continue
        ours = rename(name)
        if ours is None:
            raise AssetError(
                f"'{network}.{name}' is not a parameter of the published network; "
                "is this a checkpoint of StyleAvatar in the paper's configuration?"
            )
        state[ours] = _reshape(ours, tensor)
    return state


def _reshape(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Brings a published tensor into our shape and sign."""
    if name.startswith("mask_conv"):
        return -tensor  # the published mask is 1 on the background; tanh is odd
    if tensor.ndim == 5:  # modulated weights carry a batch axis
        return tensor[0]
    if tensor.ndim == 4 and name.endswith("bias"):
        return tensor.reshape(-1)
    return tensor


def convert_published_generator(
    network: str, parameters: Mapping[str, torch.Tensor], config: GeneratorConfig
) -> dict[str, torch.Tensor]:
    """Converts a whole published generator and checks that nothing is missing or of another size.

    Args:
        network: ``g_ema`` or ``i_g``.
        parameters: Tensors by published name; ``module.`` in front, as of parallel training, is
            left out.
        config: The topology that it must have.

    Returns:
        Contiguous float32 tensors for ``PortraitGenerator(config).load_state_dict``.

    Raises:
        AssetError: A parameter is unknown, missing, of another shape, or holds no numbers.
    """
    are_tensors = isinstance(parameters, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in parameters.items()
    )
    if not are_tensors:
        raise AssetError(f"'{network}' of the checkpoint is no table of tensors")
    plain = {name.removeprefix("module."): tensor for name, tensor in parameters.items()}
    state = convert_published(network, plain)
    with torch.device("meta"):
        wanted = PortraitGenerator(config).state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise AssetError(
            f"'{network}' of the checkpoint lacks {len(missing)} of {len(wanted)} parameters, "
            f"among them what is '{missing[0]}' here; is it a whole checkpoint of StyleAvatar?"
        )
    return {
        name: _plain_tensor(f"'{network}', '{name}' here", tensor, wanted[name].shape)
        for name, tensor in state.items()
    }


def convert_published_maps(
    parts: Mapping[str, torch.Tensor], config: GeneratorConfig
) -> dict[str, torch.Tensor]:
    """Takes the static maps of a published checkpoint: one sample of a batch that shares a code.

    Args:
        parts: The checkpoint: (B, C, F, F) maps by published name, see ``PUBLISHED_MAPS``.
        config: The topology that they must fit.

    Returns:
        (1, C, F, F) contiguous float32 by the names that bundles use.

    Raises:
        AssetError: A map is of another shape, or holds no numbers.
    """
    maps: dict[str, torch.Tensor] = {}
    for published, ours in PUBLISHED_MAPS.items():
        part = config.face if ours.startswith("face.") else config.background
        channels = part.feature_channels if ours.endswith("feature") else 12
        shape = torch.Size((1, channels, part.size, part.size))
        batch = parts[published]
        one = batch[:1] if isinstance(batch, torch.Tensor) and batch.ndim else batch
        maps[ours] = _plain_tensor(f"'{published}'", one, shape)
    return maps


def _plain_tensor(what: str, tensor: object, shape: torch.Size) -> torch.Tensor:
    """Returns a tensor of a checkpoint as contiguous float32, if it is what must be there."""
    if not isinstance(tensor, torch.Tensor):
        raise AssetError(f"{what} of the checkpoint is no tensor but {type(tensor).__name__}")
    if tensor.shape != shape:
        raise AssetError(
            f"{what}: the checkpoint has {tuple(tensor.shape)} where the paper's configuration has "
            f"{tuple(shape)}; only checkpoints at 1024 px with the published widths can be imported"
        )
    if not tensor.is_floating_point() or tensor.is_meta or tensor.layout != torch.strided:
        raise AssetError(f"{what} of the checkpoint holds no plain numbers but {tensor.dtype}")
    plain = tensor.detach().float().contiguous()
    if not plain.isfinite().all():
        raise AssetError(
            f"{what}: the checkpoint holds values that are not finite, so its training had "
            "diverged; import an earlier one"
        )
    return plain
