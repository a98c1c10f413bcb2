"""What published numbers of FVD mean by it: `--protocol`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vidgen.errors import UsageError

if TYPE_CHECKING:
    from vidgen.metrics.frechet import Divisor


@dataclass(frozen=True)
class Protocol:
    """All that decides a number but the clips: network and preprocessing (an extractor's name says
    both), frames, covariance.

    clips  of each side that the published numbers have; None: no custom
    full   REAL is a whole data set instead, of however many clips
    """

    features: str
    divisor: Divisor = "n-1"
    num_frames: int = 16
    stride: int = 1
    start: Literal["first", "random"] = "first"
    clips: int | None = None
    full: bool = False


OWN = Protocol("world")
PROTOCOLS = {
    "google": Protocol("i3d:google"),
    "stylegan-v": Protocol("i3d:stylegan-v", "n", start="random", clips=2048),
    "stylegan-v-128": Protocol("i3d:stylegan-v", "n", 128, start="random", clips=2048),
    "stylegan-v-128-by-8": Protocol("i3d:stylegan-v", "n", 16, 8, "random", clips=2048),
    "tats": Protocol("i3d:tats"),
    "videogpt": Protocol("i3d:videogpt"),
    "content-debiased-128": Protocol("i3d:cd-fvd-128", "n", start="random", clips=2048, full=True),
    "content-debiased-256": Protocol("i3d:cd-fvd-256", "n", start="random", clips=2048, full=True),
}


def chosen(name: str | None, **given: Any) -> Protocol:
    """The protocol of that name, or the own one with what was given. UsageError where a named one
    would be changed: its number would no longer be what its name says."""
    changes = {key: value for key, value in given.items() if value is not None}
    if name is None:
        return Protocol(**{"features": OWN.features, **changes})
    protocol = PROTOCOLS[name]
    for key, value in changes.items():
        if value != getattr(protocol, key):
            flag = "--" + key.replace("_", "-")
            raise UsageError(
                f"{flag} {value}: --protocol {name} has {getattr(protocol, key)}",
                next=f"leave {flag} out, or --protocol out and give the rest as options",
            )
    return protocol
