"""Sizes and choices of the FusionFrames U-Net; what each choice does is written where it acts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

VARIANTS = {
    "spatial": "no temporal parts: every frame is a picture of its own",
    "conv1d_attn1d_layers": "temporal convolutions and attention as layers inside spatial blocks",
    "conv1d_attn1d_blocks": "temporal blocks behind the spatial ones",
    "conv3d_attn1d_blocks": "the same, with convolutions of 3×3×3",
    "conv1d_attn3d_blocks": "the same, with attention over windows of 2×2 pixels in all frames",
    "interpolation": "a convolution over groups behind each spatial one, mixed in by a gate",
}
CHOICES = {
    "variant": tuple(VARIANTS),
    "text_mean": ("words", "padding_as_zeros", "padding_too"),
    "frame_embedding": ("attention", "all"),
    "noise_embedding": ("", "time", "frames"),
}


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a `UNet`. The defaults are the published network's."""

    in_channels: int = 4
    out_channels: int = 4
    variant: str = "conv1d_attn1d_blocks"  # of VARIANTS
    init_channels: int = 192  # behind the stem
    widths: tuple[int, ...] = (384, 768, 1536, 3072)  # channels of the levels, full size first
    self_attention: tuple[bool, ...] = (False, True, True, True)  # on which levels
    cross_attention: tuple[bool, ...] = (False, True, True, True)
    blocks: int = 3  # pairs of residual blocks on each side of a level
    head_dim: int = 64
    groups: int = 32  # of every GroupNorm
    ff_ratio: int = 4
    time_dim: int = 1536  # of the embedding of the noise level
    level_scale: float = 1.0  # training timesteps in one unit of t and of noise_level
    time_scale: float = 24.0  # frame positions in one unit of times
    text_dim: int = 4096  # of each text token; 0: a network without text
    context_dim: int = 0  # a linear layer and a norm bring text to this width; 0: it stays
    pooled_dim: int = 0  # of a pooled text vector, added to the noise level's embedding; 0: none
    text_mean: str = "words"  # what the query of text pooling is the mean of; see `Text`
    null_tokens: int = 1  # the null text's length; all but the first are padding
    # Where the embedding of frame positions goes: "attention" puts it in the place of the noise
    # level's in the norm before temporal attention (v1.0), "all" adds it to that in every temporal
    # norm (v1.1).
    frame_embedding: str = "attention"
    # What noise_level does: "" nothing, "time" is mixed into the noise level's embedding by a gate
    # (interpolation), "frames" is added to the frames' (v1.1 keyframes).
    noise_embedding: str = ""
    skip_rows: int = 0  # of the table of skip-frame numbers; 0: no table
    motion: bool = False  # a motion score is added to the frames' embedding (v1.1)
    image_stem: bool = False  # one frame is a picture: a stem of its own, no temporal parts (v1.1)
    lerp_attention: bool = False  # temporal attention in "interpolation" (v1.1)
    pooling_last: bool = False  # pooled text joins after skip and noise level, not before (v1.1)

    def __post_init__(self) -> None:
        for name in ("widths", "self_attention", "cross_attention"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, must be one of {allowed}")
        if {len(self.self_attention), len(self.cross_attention)} != {len(self.widths)}:
            raise ValueError("widths, self_attention and cross_attention must have the same levels")
        for level, (own, text) in enumerate(
            zip(self.self_attention, self.cross_attention, strict=True)
        ):
            before, width = self.channels(level)
            for n in (before, width, width // 2, max(before, width) // 2):
                if n % self.groups or not n:
                    raise ValueError(f"groups is {self.groups}, must divide {n} of level {level}")
            for n in ([before] if own else []) + ([width] if text else []):
                if n % self.head_dim:
                    raise ValueError(
                        f"head_dim is {self.head_dim}, must divide {n} of level {level}"
                    )
        for wrong, why in (
            (self.blocks < 1, "blocks must be at least 1"),
            (self.init_channels % 2 or self.init_channels < 4, "init_channels must be even"),
            (self.text_dim and self.time_dim % self.head_dim, "head_dim must divide time_dim"),
            (not self.text_dim and any(self.cross_attention), "cross_attention needs a text_dim"),
            (not self.text_dim and self.context_dim, "context_dim needs a text_dim"),
            (
                self.lerp_attention and self.variant != "interpolation",
                "lerp_attention is for the variant interpolation",
            ),
            (
                (self.motion or self.image_stem or self.noise_embedding == "frames")
                and not self.has_frames,
                "motion, image_stem and noise_embedding `frames` need a variant with frames",
            ),
        ):
            if wrong:
                raise ValueError(why)

    @property
    def context(self) -> int:
        """Width of the text tokens that the blocks see."""
        return self.context_dim or self.text_dim

    @property
    def has_blocks(self) -> bool:
        """Whether temporal parts are blocks of their own."""
        return self.variant.endswith("_blocks")

    @property
    def window(self) -> int:
        """Side of the windows of temporal attention, pixels."""
        return 2 if self.variant == "conv1d_attn3d_blocks" else 1

    @property
    def stride(self) -> int:
        """h and w inside the network are multiples of this."""
        return self.window * 2 ** (len(self.widths) - 1)

    @property
    def live(self) -> float:
        """Numbers alive at the widest moment, for each latent that comes in: what came up beside
        what came down, its norm, and a layer's way inside."""
        return 8.0 * self.widths[0]

    @property
    def has_frames(self) -> bool:
        """Whether there is an embedding of frame positions."""
        return self.variant not in ("spatial", "interpolation")

    def channels(self, level: int) -> tuple[int, int]:
        """Channels in front of a level and in it."""
        return ((self.init_channels, *self.widths)[level], self.widths[level])

    def of_pictures(self) -> UNetConfig:
        """The text-to-image network of the same sizes and channels."""
        return replace(
            self, variant="spatial", noise_embedding="", skip_rows=0,
            motion=False, image_stem=False, lerp_attention=False,
        )  # fmt: skip

    def to_dict(self) -> dict:
        return asdict(self)
