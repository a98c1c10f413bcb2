"""Which system makes samples of text with a model's `transformer/`, by the system of its folder.

Each of these modules has the same three: `load_transformer(folder)`, `sample_shape(folder,
config)` and `called(network)`, the network as it is called in one run of sampling.
"""

from __future__ import annotations

from types import ModuleType

from vidgen.errors import InputError
from vidgen.stages.base import Compute, Loading, accelerated
from vidgen.systems import snap_video, world
from vidgen.systems.base import ModelFolder

SYSTEMS: dict[str, ModuleType] = {"world": world, "snap-video": snap_video}


def system_of(folder: ModelFolder) -> ModuleType:
    """The model's; InputError for one that makes no samples of text here."""
    if folder.system not in SYSTEMS:
        raise InputError(
            f"{folder.path}: a model of `{folder.system}`, which makes no samples of text here",
            next=f"systems that do: {', '.join(SYSTEMS)}",
        )
    return SYSTEMS[folder.system]


def reads_size(folder: ModelFolder) -> bool:
    """Whether the network is told the size that a clip once had."""
    return system_of(folder) is snap_video and snap_video.reads_size(folder)


def loading(folder: ModelFolder, compute: Compute) -> Loading:
    """The network, on the CPU."""
    return Loading(
        lambda: accelerated(system_of(folder).load_transformer(folder), compute),
        now=compute.preload,
    )
