"""The component `video_decoder`: a decoder of the autoencoder's latents that sees several frames
(FusionFrames, arXiv 2311.13073). A model may have one beside its autoencoder, whose latent space
stays what it is."""

from __future__ import annotations

from vidgen.errors import InputError
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.systems.base import ModelFolder
from vidgen.systems.load import filled

COMPONENT = "video_decoder"


def has_video_decoder(folder: ModelFolder) -> bool:
    return (folder.place(COMPONENT) / "config.json").is_file()


def load_video_decoder(folder: ModelFolder) -> MoVQDecoder:
    """Latents → pixels, in the dtype of its weights, on the CPU. InputError for one that is not of
    the folder's autoencoder."""
    for key in ("channels", "stride"):
        own, vae = folder.size(COMPONENT, key), folder.size("vae", key)
        if own != vae:
            raise InputError(
                f"{folder.place(COMPONENT)}/config.json: {key} is {own}, that of its vae is {vae}"
            )
    return filled(MoVQDecoder, MoVQConfig, folder, COMPONENT)
