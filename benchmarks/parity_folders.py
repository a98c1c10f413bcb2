"""Tiny released models: diffusers' own networks with random weights, saved by diffusers, with a
tiny UMT5 or T5 and a tokenizer of a few words. What parity is measured on, in tests and table.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    from diffusers import (
        AutoencoderKLCogVideoX,
        AutoencoderKLWan,
        CogVideoXDDIMScheduler,
        CogVideoXDPMScheduler,
        CogVideoXImageToVideoPipeline,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
        UniPCMultistepScheduler,
        WanImageToVideoPipeline,
        WanPipeline,
        WanTransformer3DModel,
    )

TEXT_DIM = 16
WORDS = "a red blue ball cube cat bounces spins on the grass slowly"

# fmt: off
_WAN = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 32,
        "text_dim": TEXT_DIM, "freq_dim": 16, "in_channels": 4, "out_channels": 4}
_WAN_VAE = {"base_dim": 6, "z_dim": 4, "num_res_blocks": 1,
            "latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 1.5]}
_WAN_VAE_2_2 = _WAN_VAE | {
    "decoder_base_dim": 8, "is_residual": True, "patch_size": 2, "in_channels": 12,
    "out_channels": 12, "scale_factor_spatial": 16}
_COG = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4,
        "time_embed_dim": 24, "text_embed_dim": TEXT_DIM, "num_layers": 2, "sample_width": 6,
        "sample_height": 4, "sample_frames": 9, "max_text_seq_length": 12}
_COG_VAE = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
            "latent_channels": 4}
_COG_SAMPLING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                 "clip_sample": False, "prediction_type": "v_prediction",
                 "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
                 "snr_shift_scale": 1.0}
_ROTARY = {"use_rotary_positional_embeddings": True}

# Kind → what differs from the first of its system: sizes of the transformer, of the autoencoder,
# the scheduler, and what model_index.json says besides.
KINDS: dict[str, dict[str, Any]] = {
    "wan 2.1": {},
    "wan 2.2, two experts": {"index": {"boundary_ratio": 0.875}},
    "wan 2.2, 5b": {"vae": _WAN_VAE_2_2, "index": {"expand_timesteps": True}},
    "wan 2.1, picture": {"transformer": {"in_channels": 12, "image_dim": 14,
                                         "added_kv_proj_dim": 24}},
    "wan 2.2, picture": {"transformer": {"in_channels": 12}, "index": {"boundary_ratio": 0.9}},
    "wan 2.2, 5b, picture": {"vae": _WAN_VAE_2_2, "index": {"expand_timesteps": True}},
    "cogvideox 2b": {"scheduler": (CogVideoXDDIMScheduler, {"snr_shift_scale": 3.0})},
    "cogvideox 5b, dpm": {"transformer": _ROTARY, "scheduler": (CogVideoXDPMScheduler, {})},
    "cogvideox 1.5": {"transformer": _ROTARY | {"patch_size_t": 2, "patch_bias": False}},
    "cogvideox 5b, picture": {"transformer": _ROTARY | {
        "in_channels": 8, "use_learned_positional_embeddings": True}},
}
# What each is asked for: frames, rows and columns of pixels.
MADE = dict.fromkeys(KINDS, (9, 32, 48)) | {
    "wan 2.2, 5b": (9, 64, 96), "wan 2.2, 5b, picture": (9, 64, 96), "cogvideox 1.5": (17, 32, 48),
}
# fmt: on


def shaken(module: nn.Module, seed: int, spread: float = 0.1) -> Any:
    """Every weight random, so that none is left out unseen."""
    draw = torch.Generator().manual_seed(seed)
    for p in module.eval().requires_grad_(False).parameters():
        p.copy_(p * 0.5 + spread * torch.randn(p.shape, generator=draw))
    return module


def parts(kind: str) -> dict[str, Any]:
    """The components of a kind, as diffusers' pipeline takes them, without those of text."""
    torch.manual_seed(0)
    more, made = KINDS[kind], {}
    if kind.startswith("wan"):
        sizes = _WAN | more.get("transformer", {})
        made["transformer"] = shaken(WanTransformer3DModel(**sizes), 1)
        if "boundary_ratio" in more.get("index", {}):
            made["transformer_2"] = shaken(WanTransformer3DModel(**sizes), 2)
        made["vae"] = shaken(AutoencoderKLWan(**more.get("vae", _WAN_VAE)), 3)
        made["scheduler"] = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
        return made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = CogVideoXTransformer3DModel(**_COG | more.get("transformer", {}))
    made["transformer"] = shaken(network, 1)
    made["vae"] = shaken(AutoencoderKLCogVideoX(**_COG_VAE), 3)
    cls, settings = more.get("scheduler", (CogVideoXDDIMScheduler, {}))
    made["scheduler"] = cls(**_COG_SAMPLING | settings)
    return made


def tokenizer(folder: Path, length: int) -> Any:
    """A tokenizer of some words and all letters, as those of T5: a prompt's end is </s>. `length`:
    what its config says of that of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -4.0)]
    pieces += [("▁" + word, -3.0) for word in WORDS.split()]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz.,'\""]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    fast = T5TokenizerFast(
        tokenizer_object=made,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_ids=0,
        model_max_length=length,
    )
    fast.save_pretrained(folder)
    return T5TokenizerFast.from_pretrained(folder)


def text_encoder(kind: str) -> Any:
    """UMT5 for Wan, T5 for CogVideoX."""
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    sizes = {
        "d_model": TEXT_DIM, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
        "vocab_size": 64, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
    }  # fmt: skip
    wan = kind.startswith("wan")
    torch.manual_seed(0)
    made = UMT5EncoderModel(UMT5Config(**sizes)) if wan else T5EncoderModel(T5Config(**sizes))
    return shaken(made, 4, 0.3)


def image_encoder() -> tuple[Any, Any]:
    """CLIP's half that sees, and what prepares pictures for it."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=14, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    return shaken(CLIPVisionModel(config), 5, 0.3), processor


def write(kind: str, folder: Path) -> Any:
    """The folder of a kind, its transformer in shards; and diffusers' pipeline of it."""
    made = parts(kind)
    for name, part in made.items():
        shards = {"max_shard_size": "60KB"} if name.startswith("transformer") else {}
        part.save_pretrained(folder / name, **shards)
    made["text_encoder"] = text_encoder(kind)
    made["text_encoder"].save_pretrained(folder / "text_encoder")
    length = 512 if kind.startswith("wan") else _COG["max_text_seq_length"]
    made["tokenizer"] = tokenizer(folder / "tokenizer", length)
    more, pictured = KINDS[kind].get("index", {}), kind.endswith("picture")
    if pictured and kind.startswith("wan"):  # whose pipeline has places for both, filled or not
        made |= {"image_encoder": None, "image_processor": None}
    if "image_dim" in KINDS[kind].get("transformer", {}):
        made["image_encoder"], made["image_processor"] = image_encoder()
        made["image_encoder"].save_pretrained(folder / "image_encoder")
        made["image_processor"].save_pretrained(folder / "image_processor")
    if kind.startswith("wan"):
        make = WanImageToVideoPipeline if pictured else WanPipeline
    else:
        make = CogVideoXImageToVideoPipeline if pictured else CogVideoXPipeline
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make(**made, **more)
    pipeline.set_progress_bar_config(disable=True)
    index = {name: [type(part).__module__.split(".")[0], type(part).__name__]
             for name, part in made.items() if part is not None}  # fmt: skip
    index |= {"_class_name": make.__name__, **more}
    (folder / "model_index.json").write_text(json.dumps(index))
    return pipeline
