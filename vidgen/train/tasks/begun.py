"""A network of clips that is trained on, rather than from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from vidgen.errors import UsageError
from vidgen.systems.base import ClipSampler, ModelFolder
from vidgen.systems.load import ClipNetwork
from vidgen.train.task import require_alike


def begin(
    network: nn.Module,
    found: ClipNetwork,
    vae: ModelFolder,
    config: Any,
    settings: ClipSampler,
    means: Sequence[str],
) -> None:
    """`network` gets the weights of `found`, which is a component of the recipe's `data.start`.
    UsageError unless that was trained on latents of `vae`, has the sizes `config`, and the same of
    those settings that say what the network's output `means`."""
    require_alike(found.folder, {"vae": vae})
    if found.config != config or any(
        getattr(found.settings, key) != getattr(settings, key) for key in means
    ):
        raise UsageError(
            f"recipe: data.start is {found.folder.path}, whose {found.component} has other sizes or"
            " predicts something else",
            next=f"make `model` as in its {found.component}/config.json, and these settings as in"
            f" its `sample`: {', '.join(means)}",
        )
    network.load_state_dict(found.load().float().state_dict())
