"""`vidgen sample-keyframes`: text records to keyframe latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

from vidgen.cli.console import Console
from vidgen.cli.options import (
    Denoising,
    DryRun,
    Inputs,
    Model,
    RecordOutput,
    Running,
    Seeds,
    Size,
    option,
    parse_size,
)
from vidgen.cli.page import Page
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    from vidgen.io.record import Record
    from vidgen.stages.base import Compute
    from vidgen.stages.checkpoints import Checkpoints
    from vidgen.stages.sample_keyframes import Choices
    from vidgen.systems.base import ModelFolder
    from vidgen.systems.lora import Lora

PAGE = Page(
    name="sample-keyframes",
    summary="text records to keyframe latents",
    description="""\
Denoises latents of a clip's keyframes from the text in each record. Keyframes are latents with
gaps between their `times`; `vidgen decode` makes a slow video of them, and later stages may fill
the gaps.

A sample's noise follows from its seed and its text record's id alone: it depends neither on the
batch, nor on the device, nor on what else is in the stream. With several seeds each text record
gives several samples, named ID-sSEED. The text stays in the records for later stages.

With --init samples begin as latents that are there, with noise on them, instead of noise alone
(SDEdit): a clip drawn anew, by the same words or others. They must be as many and as large as
those that the model makes.

In training Snap Video's FIT is told how large a clip was before it got its size; --original-size
asks for one that was smaller, with no more details than that. Which sizes a network learned from
its config says (`sizes`, as shares of the full size); others are warned about.""",
    reads="text records from IN",
    writes="latents records to -o",
    examples=[
        ("vidgen sample-keyframes ball.text.safetensors -o ball.latents.safetensors",
         "the common case"),
        ("vidgen sample-keyframes ball.text.safetensors --seed 0-3 -o '{id}.safetensors'",
         "four seeds, a file each"),
        ('vidgen encode-text "a can" | vidgen sample-keyframes | vidgen decode -o can.mp4',
         "in a pipe"),
        ("vidgen sample-keyframes ball.text.safetensors --init ball.latents.safetensors -o b.vgs",
         "drawn anew from what is there"),
        ("vidgen sample-keyframes --dry-run ball.text.safetensors",
         "shapes, FLOPs, memory, time"),
    ],
    notes={
        "RECORDS": """\
Adds `latents` float32 [C, T, h, w] and `times` float64 [T], seconds. Attributes: `latent_space`,
`num_frames`, `height`, `width` and `fps` of the decoded video, `seed`, and `source`, the text
record's id.""",
        "REPRODUCIBILITY": """\
The same text record, seed, model and options give the same bytes on the same machine and torch.
Between devices, dtypes and batch sizes the noise is the same to the bit and the result to
rounding.""",
        "PAPERS": """\
arXiv numbers. Rectified flow: 2210.02747, 2209.03003. Guidance: 2207.12598. Solvers: euler and heun
2206.00364, dpmpp_2m and dpmpp_2m_sde 2211.01095, unipc 2302.04867, ddim 2010.02502, ancestral
2006.11239. SDEdit: 2108.01073. Original sizes: 2402.14797, appendix C.6.""",
    },
    see_also=["vidgen-encode-text(1)", "vidgen-decode(1)"],
)  # fmt: skip


Init = Annotated[
    str | None,
    option("--init", metavar="FILE", default="noise alone", settable=False,
           help="latents that samples begin as, with noise: one record for all texts, or one for"
           " each, in order"),
]  # fmt: skip
Strength = Annotated[
    float | None,
    option("--strength", metavar="S", min=0, max=1, default="0.6", settable=False,
           help="with --init: the share of noise that samples begin with; less stays nearer to"
           " what they begin as, and takes fewer steps"),
]  # fmt: skip
OriginalSize = Annotated[
    Size | None,
    option("--original-size", metavar="WxH", parse=parse_size, default="the full size",
           settable=False,
           help="ask for clips as if they had been this large once, of models that are told so"),
]  # fmt: skip
STRENGTH = 0.6  # objects stay where they are, and are drawn anew


def sample_keyframes(
    out: RecordOutput,
    running: Running,
    console: Console,
    inputs: Inputs = None,
    *,
    denoising: Denoising,
    init: Init = None,
    strength: Strength = None,
    original_size: OriginalSize = None,
    model: Model = None,
    dry_run: DryRun = False,
) -> None:
    from vidgen.systems.base import ModelFolder

    if init is None and strength is not None:
        raise UsageError("--strength has no effect here: it is for --init", next="--init FILE")
    wanted = Wanted.of(denoising)._replace(original_size=original_size)
    if init is not None:
        wanted = wanted._replace(init=init, strength=STRENGTH if strength is None else strength)
    folder = ModelFolder.find(model)
    if folder.released:
        raise UsageError(
            f"{folder.path}: a model of {folder.system}, which makes whole clips, no keyframes",
            next=f"vidgen sample --model {folder.path} …",
        )
    folder.component("transformer")
    sample_texts(out, running, console, inputs, folder, wanted, dry_run=dry_run)


class Wanted(NamedTuple):
    """What `stages.sample_keyframes.Choices` is made of, without its torch."""

    seeds: tuple[int, ...] | None
    num_samples: int
    steps: int | None
    guidance_scale: float | None
    solver: str | None
    shift: float | None
    num_frames: int | None = None
    size: Size | None = None
    image: str | None = None
    lora: list[str] | None = None
    init: str | None = None
    strength: float | None = None
    original_size: Size | None = None

    @classmethod
    def of(
        cls, asked: Denoising, num_frames: int | None = None, size: Size | None = None,
        image: str | None = None, lora: list[str] | None = None,
    ) -> Self:  # fmt: skip
        """UsageError for a range of seeds together with --num-samples."""
        return cls(
            check_seeds(asked.seed, asked.num_samples),
            asked.num_samples,
            asked.steps,
            asked.guidance_scale,
            asked.solver,
            asked.shift,
            num_frames,
            size,
            image,
            lora,
        )

    def choices(self) -> Choices:
        """The same in the words of the stages. UsageError for a LoRA that isn't there."""
        from vidgen.stages.sample_keyframes import Choices

        return Choices(
            self.seeds, self.num_samples, self.steps, self.guidance_scale, self.solver, self.shift,
            self.num_frames, self.size, self.image, tuple(map(parse_lora, self.lora or ())),
            self.strength, self.original_size,
        )  # fmt: skip

    def samples(self, texts: int) -> int:
        """How many there will be of so many texts."""
        return texts * (len(self.seeds) if self.seeds else self.num_samples)


def sample_texts(
    out: RecordOutput,
    running: Running,
    console: Console,
    inputs: list[str] | None,
    folder: ModelFolder,
    wanted: Wanted,
    *,
    passes: int = 0,
    checkpoints: Checkpoints | None = None,
    dry_run: bool,
) -> None:
    """Text records to latents of clips, interpolated so many times."""
    from vidgen.cli.runner import Kind, check_names, headers_of, open_inputs, print_text, run_stage

    takes = Kind("text", "vidgen encode-text")

    def make():
        from vidgen.stages import cascade
        from vidgen.stages import sample_keyframes as stage

        compute = running.compute(preload=not inputs)
        compute.check()
        choices = wanted.choices()
        cascade.check_choices(folder, choices)
        texts = [(text.id, stage.own_seed(text)) for text in headers_of(inputs)]
        begin = _beginning(wanted.init, folder, choices, len(texts))
        check_names(out, stage.sample_ids(texts, choices))
        return lambda records: cascade.sample(
            begin(records), folder, choices, passes=passes, checkpoints=checkpoints,
            compute=compute, notify=console,
        )  # fmt: skip

    if dry_run:
        texts = sum(1 for _ in open_inputs(inputs, takes=takes))
        _beginning(wanted.init, folder, wanted.choices(), texts)
        print_text(planned(folder, running.compute(), wanted, texts, passes))
        return
    run_stage(make, inputs, out, console, takes=takes)


def _beginning(
    init: str | None, folder: ModelFolder, choices: Choices, texts: int
) -> Callable[[Iterable[Record]], Iterable[Record]]:
    """What gives text records the latents in the file `init`; UsageError or InputError for what no
    sample can begin as. `texts`: how many there are, or 0 where they aren't here yet."""
    from vidgen.io.stream import read_inputs
    from vidgen.stages import sample_keyframes as stage

    if init is None:
        return lambda records: records
    if not Path(init).exists():
        raise UsageError(f"--init {init}: no such file")
    stage.method_of(folder, choices)
    clips = list(read_inputs([init]))
    stage.require_beginnings(clips, folder)
    if not clips or (texts and len(clips) not in (1, texts)):
        raise InputError(
            f"{init}: {len(clips)} clips to begin as, and {texts or 'some'} texts",
            next="one clip for all, or one for each",
        )
    return lambda records: stage.begun(records, clips, folder)


def planned(folder: ModelFolder, compute: Compute, wanted: Wanted, texts: int, passes: int) -> str:
    """What sampling clips of so many texts would take."""
    from vidgen.stages import plan

    count = wanted.samples(texts)
    if folder.released:
        from vidgen.stages import plan_clips

        return plan_clips.sampling(folder, compute, count, wanted.choices())
    first = plan.sampling(folder, compute, count, wanted.choices())
    return "\n".join([first, *plan.after_keyframes(folder, compute, count, passes)])


def parse_lora(text: str) -> Lora:
    """`FILE`, `FILE:0.8`, `transformer_2=FILE:0.8`. UsageError for a file that isn't there."""
    from vidgen.systems.lora import Lora

    component, found, rest = text.partition("=")
    if not found or component not in ("transformer", "transformer_2"):
        component, rest = "transformer", text
    path, weight = rest, 1.0
    if not Path(path).is_file():
        path, _, number = rest.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            path = rest
    if not Path(path).is_file():
        raise UsageError(f"--lora {text}: no such file")
    return Lora(path, weight, component)


def check_seeds(seed: Seeds | None, num_samples: int) -> tuple[int, ...] | None:
    """The seeds to sample: as given, or `num_samples` from the given one on. None: from each
    record's own on. UsageError for a range together with --num-samples."""
    if seed is None or num_samples == 1:
        return None if seed is None else tuple(seed)
    if len(seed) > 1:
        raise UsageError(
            f"--seed names {len(seed)} seeds, and --num-samples {num_samples} wants to count them",
            next="give a range of seeds, or a first seed and --num-samples",
        )
    return tuple(range(seed[0], seed[0] + num_samples))
