"""Every shared option, declared once: its flags, help, range and default words.

A command names them as annotations: `fps: Fps = None`. A bundle is a dataclass of options that
belong together: `out: RecordOutput` in a command's signature gives it all of the bundle's options.
An option that only one command has is declared in that command's module, with `option`.

Each settable option is also read from the environment (`--batch-size`: VIDGEN_BATCH_SIZE) and from
settings files (`batch-size`), see settings.py. What shapes a single run only (-o, -f, -n) is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from vidgen.errors import UsageError

if TYPE_CHECKING:
    from vidgen.stages.base import Compute
    from vidgen.stages.checkpoints import Checkpoints
    from vidgen.systems.base import ModelFolder

IO = "Input and output"
RUNNING = "Running"

MAX_SEED = 2**63 - 1
MAX_SEEDS = 1_000_000


def option(
    *flags: str,
    help: str,
    metavar: str | None = None,
    default: str | None = None,
    group: str | None = None,
    min: float | None = None,
    max: float | None = None,
    parse: Any = None,
    settable: bool = True,
) -> Any:
    """The annotation of an option: `Annotated[int, option("--crf", help="…", min=0, max=51)]`.

    flags     the first long one names it in the environment and in settings files
    help      one phrase, lower case, no full stop
    default   words for the default where the value itself doesn't tell: "the model's own"
    group     None: the command's own; IO or RUNNING: shared
    parse     str → value, ValueError with words for what can't be read
    settable  whether the environment and settings files may set it
    """
    name = next(flag for flag in flags if flag.startswith("--"))
    return typer.Option(
        *flags,
        help=help,
        metavar=metavar,
        show_default=default if default is not None else True,
        rich_help_panel=group,
        min=min,
        max=max,
        parser=parse,
        envvar=env_name(name) if settable else None,
    )


def argument(metavar: str, help: str) -> Any:
    """The annotation of an argument: `Annotated[str, argument("RECIPE", "a recipe's path")]`."""
    return typer.Argument(metavar=metavar, help=help)


def env_name(flag: str) -> str:
    """--batch-size → VIDGEN_BATCH_SIZE"""
    return "VIDGEN_" + flag.lstrip("-").replace("-", "_").upper()


# --- values that are more than a word or a number -------------------------------------------------


class Seeds(tuple[int, ...]):
    """Seeds as given: one, or several in their order."""


def parse_seeds(text: str) -> Seeds:
    """`7`, `0-99`, `1,5,20-24` → Seeds. ValueError for anything else, and for repeats."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        if not match:
            raise ValueError("must be a number, or a range such as 0-99")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {first}-{last} runs backwards")
        if last > MAX_SEED:
            raise ValueError(f"must be at most {MAX_SEED}")
        if len(seeds) + last - first + 1 > MAX_SEEDS:
            raise ValueError(f"more than {MAX_SEEDS} seeds")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise ValueError("the same seed is in it twice")
    return Seeds(seeds)


class Size(NamedTuple):
    """Pixels of a video."""

    width: int
    height: int


def parse_size(text: str) -> Size:
    """`832x480` → Size(832, 480)"""
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text.strip(), re.ASCII)
    if not match or not int(match[1]) or not int(match[2]):
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 832x480")
    return Size(int(match[1]), int(match[2]))


# --- shared options -------------------------------------------------------------------------------

Inputs = Annotated[
    list[str] | None,
    argument("IN", "files of records, one after the other; - is standard input"),
]

# Own options with one meaning wherever they occur.
Model = Annotated[
    str | None,
    option("--model", "--system", metavar="MODEL", default="world",
           help="a model folder, or a model by name (`vidgen models` lists them); that of a system"
           " is named for it"),
]  # fmt: skip
Seed = Annotated[
    Seeds | None,
    option("--seed", metavar="SEED", default="the record's own, or 0", parse=parse_seeds,
           help="seed of the noise, or a range such as 0-99 for one sample each"),
]  # fmt: skip
NumSamples = Annotated[
    int,
    option("--num-samples", metavar="N", min=1,
           help="samples of each prompt, with seeds SEED, SEED+1, …"),
]  # fmt: skip
Steps = Annotated[
    int | None,
    option("--steps", "--num-inference-steps", metavar="N", min=1, max=1000,
           default="the model's own", help="denoising steps; more is slower and closer to exact"),
]  # fmt: skip
GuidanceScale = Annotated[
    float | None,
    option("--guidance-scale", "--cfg", metavar="X", min=0, max=100, default="the model's own",
           help="how far to follow the prompt; 1 is off, and twice as fast"),
]  # fmt: skip
Solver = Annotated[
    Literal["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "ddim", "ancestral"] | None,
    option("--solver", metavar="NAME", default="the model's own",
           help="euler, heun, dpmpp_2m, dpmpp_2m_sde, unipc, ddim or ancestral"),
]  # fmt: skip
Shift = Annotated[
    float | None,
    option("--shift", metavar="X", min=0.01, max=100, default="the model's own",
           help="above 1, more of the steps are spent at high noise"),
]  # fmt: skip
NumFrames = Annotated[
    int | None,
    option("--num-frames", metavar="N", min=1, max=10_000, default="the model's own",
           settable=False, help="frames of a clip, of models that make any number"),
]  # fmt: skip
ClipSize = Annotated[
    Size | None,
    option("--size", metavar="WxH", parse=parse_size, default="the model's own", settable=False,
           help="width and height of a clip, of models that make any size"),
]  # fmt: skip
LoraFiles = Annotated[
    list[str] | None,
    option("--lora", metavar="FILE[:X]", default="none", group=IO, settable=False,
           help="a LoRA to fuse into a released model, X times; may be repeated, and"
                " transformer_2=FILE is for the second network"),
]  # fmt: skip
Picture = Annotated[
    str | None,
    option("--image", metavar="FILE", default="none", group=IO, settable=False,
           help="the picture that clips begin with, of image-to-video models"),
]  # fmt: skip
Negative = Annotated[
    str | None,
    option("--negative", metavar="TEXT", default="empty", group=IO,
           help="what to steer away from, for prompts that don't say"),
]  # fmt: skip
Fps = Annotated[
    float | None,
    option("--fps", metavar="N", min=0.01, max=1000, default="the record's own", group=IO,
           help="frames a second"),
]  # fmt: skip
Crf = Annotated[
    int,
    option("--crf", metavar="N", min=0, max=51, group=IO,
           help="quality of H.264; lower is better and larger, 0 is lossless"),
]  # fmt: skip
Keep = Annotated[
    bool, option("--keep", help="pass on what is spent here too, such as text and latents")
]
DryRun = Annotated[
    bool,
    option("-n", "--dry-run", group=RUNNING, settable=False,
           help="print shapes, FLOPs, memory and time, and stop"),
]  # fmt: skip
Json = Annotated[
    bool,
    option("--json", group=IO, settable=False,
           help="print JSON (`vidgen schema`), of errors too"),
]  # fmt: skip

# Input and output.
_Output = Annotated[
    str,
    option("-o", "--output", metavar="PATH", group=IO, default="standard output", settable=False,
           help="where to write; '{id}' in it makes one file a record"),
]  # fmt: skip
_Force = Annotated[
    bool,
    option("-f", "--force", group=IO, settable=False, help="overwrite what is there"),
]
_Npz = Annotated[
    bool,
    option("--npz", group=IO, settable=False,
           help="write NPZ, which holds one record; so does -o x.npz"),
]  # fmt: skip
_NoProvenance = Annotated[
    bool, option("--no-provenance", group=IO, help="leave the log out of what is written")
]
_RedactPrompt = Annotated[
    bool, option("--redact-prompt", group=IO, help="leave prompts out of what is written")
]

# Running.
Device = Annotated[
    str,
    option("--device", metavar="NAME", group=RUNNING,
           help="auto, cpu, cuda, cuda:N or mps; auto takes the fastest there is"),
]  # fmt: skip
Dtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    option("--dtype", group=RUNNING, metavar="TYPE",
           help="of the network's numbers: auto (fp32 on a CPU, bf16 on CUDA), fp32, bf16, fp16"),
]  # fmt: skip
BatchSize = Annotated[
    int,
    option("--batch-size", metavar="N", min=1, group=RUNNING,
           help="samples computed at once; changes speed and memory only"),
]  # fmt: skip
Compile = Annotated[
    bool,
    option("--compile", group=RUNNING,
           help="torch.compile: a slow start, then faster steps; later starts find the code in"
                " the cache, vidgen/compiled"),
]  # fmt: skip
CudaGraphs = Annotated[
    bool,
    option("--cuda-graphs", group=RUNNING,
           help="on CUDA, capture the kernels of each network once and launch them together:"
                " for our small networks"),
]  # fmt: skip
Offload = Annotated[
    Literal["none", "model", "layer"],
    option("--offload", metavar="WHAT", group=RUNNING,
           help="of a released model, what is in memory only by its turn: none, model (each"
                " network) or layer (each block); slower, the same result"),
]  # fmt: skip
WeightDtype = Annotated[
    Literal["auto", "fp8"],
    option("--weight-dtype", metavar="TYPE", group=RUNNING,
           help="how a released model's blocks are kept: auto (as --dtype) or fp8 (half the memory"
                " of bf16, approximate)"),
]  # fmt: skip
Attention = Annotated[
    Literal["auto", "math", "flash", "efficient", "cudnn", "fa3"],
    option("--attention", metavar="KERNEL", group=RUNNING,
           help="auto (torch chooses), math, flash, efficient, cudnn, or fa3 (FlashAttention 3, if"
                " it is installed)"),
]  # fmt: skip

_Checkpoint = Annotated[
    str | None,
    option("--checkpoint", metavar="FOLDER", default="none", group=RUNNING, settable=False,
           help="keep unfinished samples of a released model there"),
]  # fmt: skip
_CheckpointEvery = Annotated[
    int,
    option("--checkpoint-every", metavar="N", min=1, group=RUNNING,
           help="with --checkpoint: after so many steps"),
]  # fmt: skip
_PreviewEvery = Annotated[
    int | None,
    option("--preview-every", metavar="N", min=1, default="none", group=RUNNING, settable=False,
           help="with --checkpoint: a small picture beside it of what is made, after so many"
                " steps"),
]  # fmt: skip
_StopAfter = Annotated[
    int | None,
    option("--stop-after", metavar="N", min=1, default="none", group=RUNNING, settable=False,
           help="with --checkpoint: stop after N steps, with exit code 75"),
]  # fmt: skip
_Resume = Annotated[
    Literal["auto", "yes", "no"],
    option("--resume", metavar="WHEN", group=RUNNING, settable=False,
           help="go on from a checkpoint: auto (if there is one), yes (insist), no (begin anew)"),
]  # fmt: skip

# For all commands.
_Help = Annotated[
    bool, option("-h", "--help", group=RUNNING, settable=False, help="print this and stop")
]
_Config = Annotated[
    str | None,
    option("--config", metavar="FILE", group=RUNNING, settable=False,
           help="settings that go before those of vidgen.toml"),
]  # fmt: skip
_Quiet = Annotated[bool, option("-q", "--quiet", group=RUNNING, help="say nothing but errors")]
_Verbose = Annotated[bool, option("-v", "--verbose", group=RUNNING, help="say more")]
_Progress = Annotated[
    Literal["auto", "bar", "plain", "json", "none"],
    option("--progress", metavar="HOW", group=RUNNING,
           help="auto, bar, plain, json or none"),
]  # fmt: skip
_Debug = Annotated[
    bool, option("--debug", group=RUNNING, help="with an error, print where in the code it arose")
]


# --- what was typed -------------------------------------------------------------------------------


class Given(frozenset[str]):
    """The parameters that the command line itself sets, for a command that asks. What the
    environment or a settings file says is for every command: it is no mistake where it has no
    use."""

    def refuse(self, *names: str, why: str) -> None:
        """UsageError for the first of these that was typed although it would have no effect."""
        for name in names:
            if name in self:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} has no effect here: {why}", next=f"leave {flag} out")


# --- bundles --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileOutput:
    """Where a report or a picture goes."""

    output: _Output = "-"
    force: _Force = False


@dataclass(frozen=True)
class RecordOutput:
    """Where records go, and how much they tell."""

    output: _Output = "-"
    force: _Force = False
    npz: _Npz = False
    no_provenance: _NoProvenance = False
    redact_prompt: _RedactPrompt = False


@dataclass(frozen=True)
class Place:
    """Where to compute, and in which numbers."""

    device: Device = "auto"
    dtype: Dtype = "auto"

    def compute(self, *, preload: bool = False) -> Compute:
        """The same in the words of the stages. `preload`: read weights while upstream computes."""
        from vidgen.stages.base import Compute

        return Compute(device=self.device, dtype=self.dtype, preload=preload)


@dataclass(frozen=True)
class Running(Place):
    """Where and how to compute, for stages that sample."""

    batch_size: BatchSize = 4
    compile: Compile = False
    cuda_graphs: CudaGraphs = False
    attention: Attention = "auto"

    def compute(self, *, preload: bool = False) -> Compute:
        return replace(
            super().compute(preload=preload),
            attention=self.attention,
            batch_size=self.batch_size,
            compile=self.compile,
            cuda_graphs=self.cuda_graphs,
        )


@dataclass(frozen=True)
class RunningClips(Running):
    """The same of stages that sample clips, and how released models are made to fit."""

    offload: Offload = "none"
    weight_dtype: WeightDtype = "auto"

    def compute(self, *, preload: bool = False) -> Compute:
        return replace(
            super().compute(preload=preload), offload=self.offload, weight_dtype=self.weight_dtype
        )

    def refuse_unused(self, folder: ModelFolder, given: Given) -> None:
        """UsageError for what has no effect on the model."""
        if folder.released:
            why = f"the kernels of `{folder.name}` take longer than to launch them"
            given.refuse("cuda_graphs", why=why)
        else:
            why = f"`{folder.name}` is small, it is for released models"
            given.refuse("offload", "weight_dtype", why=why)


@dataclass(frozen=True)
class Denoising:
    """How many samples there are of each text, and how keyframes come out of noise."""

    seed: Seed = None
    num_samples: NumSamples = 1
    steps: Steps = None
    guidance_scale: GuidanceScale = None
    solver: Solver = None
    shift: Shift = None


@dataclass(frozen=True)
class Keeping:
    """Where unfinished samples are kept, to go on from."""

    checkpoint: _Checkpoint = None
    checkpoint_every: _CheckpointEvery = 10
    preview_every: _PreviewEvery = None
    stop_after: _StopAfter = None
    resume: _Resume = "auto"

    def checkpoints(self, folder: ModelFolder, given: Given) -> Checkpoints | None:
        """The same in the words of the stages. UsageError for options that have no effect."""
        from vidgen.stages.checkpoints import Checkpoints

        if self.checkpoint is None:
            if self.stop_after is not None or self.resume == "yes":
                raise UsageError(
                    "--stop-after and --resume want a folder to keep steps in",
                    next="--checkpoint FOLDER",
                )
            given.refuse("checkpoint_every", "preview_every", why="it is for --checkpoint")
            return None
        if not folder.released:
            raise UsageError(
                f"--checkpoint: samples of `{folder.name}` take no time worth keeping",
                why="it is for released models",
                next="leave --checkpoint out",
            )
        return Checkpoints(
            self.checkpoint,
            self.checkpoint_every,
            self.preview_every,
            self.stop_after,
            self.resume,
        )


@dataclass(frozen=True)
class Talk:
    """What every command takes without asking for it."""

    config: _Config = None
    quiet: _Quiet = False
    verbose: _Verbose = False
    progress: _Progress = "auto"
    debug: _Debug = False
    help: _Help = field(default=False)
