"""The program `vidgen`: the table of its commands, and the one place where errors become text.

Nothing heavy is imported here: `vidgen --help` prints the table as it stands, and a command's
module is imported when that command is named.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from vidgen import __version__
from vidgen.cli.failure import Failure, Terminated, report
from vidgen.errors import Exit, UsageError

if TYPE_CHECKING:
    from vidgen.cli.command import Command

# Group → command → (module in vidgen.cli, one-line summary; the same as in the module's PAGE).
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Stages": {
        "encode-text": ("encode_text", "prompts to text records"),
        "encode-video": ("encode_video", "videos to latents records"),
        "sample": ("sample", "text records, or prompts, to latents of whole clips"),
        "sample-keyframes": ("sample_keyframes", "text records to keyframe latents"),
        "extend": ("extend", "latents to latents of longer clips"),
        "interpolate": ("interpolate", "keyframe latents to denser latents"),
        "upsample": ("upsample", "latents to latents of a larger picture"),
        "decode": ("decode", "latents records to video"),
    },
    "The whole job": {
        "generate": ("generate", "prompts to videos, in one process"),
    },
    "Evaluation": {
        "evaluate-fvd": ("evaluate_fvd", "how far generated clips are from real ones (FVD, KVD)"),
        "evaluate-clip": ("evaluate_clip", "how well clips fit their prompts, as CLIP sees them"),
        "evaluate-quality": (
            "evaluate_quality",
            "clips against the true ones: PSNR, SSIM, LPIPS and more",
        ),
        "evaluate-camera": ("evaluate_camera", "how far camera paths are from the reference"),
        "evaluate-motion": ("evaluate_motion", "whether clips move as others do, and how smoothly"),
        "evaluate-events": ("evaluate_events", "whether things happen in order and in time"),
        "evaluate-world": ("evaluate_world", "whether clips of the world show what was asked for"),
    },
    "Files": {
        "inspect": ("inspect", "what is in a file or stream"),
        "log": ("log", "how a file came to be, step by step"),
        "check": ("check", "whether files are whole and undamaged"),
        "diff": ("diff", "how two files differ"),
        "convert": ("convert", "between records, NPZ and video files"),
        "contact-sheet": ("contact_sheet", "frames of videos side by side in one picture"),
        "schema": ("schema", "JSON Schemas of records, reports and events"),
    },
    "Models and data": {
        "systems": ("systems", "the research systems, and how far each is"),
        "models": ("models", "the models that are here, and what they can do"),
        "train": ("train", "train a model from a recipe"),
        "world": ("world", "clips of the procedural world, with all their truth"),
    },
    "This program": {
        "config": ("config", "settings, and where each comes from"),
        "completion": ("completion", "completion for bash, zsh or fish"),
    },
}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}

EXAMPLES = (
    ('vidgen generate "a red ball bounces on sand ground" -o ball.mp4', "the whole job"),
    (
        'vidgen encode-text "a blue cube spins" | vidgen sample-keyframes --seed 7'
        " | vidgen decode -o cube.mp4",
        "the same job in steps",
    ),
    ("vidgen inspect clip.safetensors", "what is in a file"),
    ("vidgen log cube.mp4", "how it was made"),
)


def entry() -> None:
    """The console script: run, and leave with the exit code or by the signal that stopped us."""
    _prepare_streams()
    if not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")  # for developers: python -W default -m vidgen shows them
    code = main()
    if code == Terminated.EXIT_CODE:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    if code in (Exit.USAGE, Exit.BAD_INPUT, Exit.INTERRUPTED, Exit.CLOSED_PIPE):
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)  # at once: don't wait for threads that still read weights
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Every error ends here, as three lines on
    standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    failure = Failure.of(words)
    try:
        with _sigterm_as_error():
            code = run(words, failure)
            sys.stdout.flush()  # a disk that is full may say so only now
    except BaseException as error:
        code = report(error, failure)
    if failure.console is not None:
        with suppress(OSError):
            failure.console.close(code)
    return code


def run(words: list[str], failure: Failure) -> int:
    """The command that the words name, with the rest of them."""
    verb, rest = (words[0], words[1:]) if words else ("", [])
    match verb:
        case "":
            sys.stderr.write(overview())
            return Exit.USAGE
        case "-h" | "--help":
            sys.stdout.write(overview())
            return Exit.DONE
        case "help":
            return run([rest[0], "--help"] if rest else ["--help"], failure)
        case "--version":
            return print_version(as_json="--json" in rest)
    if verb not in COMMANDS:
        raise unknown(verb)
    return run_command(verb, rest, failure)


def run_command(name: str, words: list[str], failure: Failure) -> int:
    """Parse, resolve the settings, call."""
    failure.verb = name
    command = failure.command = load(name)

    from vidgen.cli import help, settings
    from vidgen.cli.console import Console

    given = command.split(words)
    if given.get("help"):
        sys.stdout.write(help.page(command))
        return Exit.DONE
    files = settings.read_files(given.get("config"), COMMANDS)
    values = {k: s.value for k, s in settings.resolve(command, given, files).items()}
    failure.debug, failure.json = values["debug"], values.get("json", False)
    failure.console = Console(
        name,
        quiet=values["quiet"],
        verbose=values["verbose"],
        progress=values["progress"],
    )
    return int(command.call(values, failure.console, given) or Exit.DONE)


def load(name: str) -> Command:
    """The command of that name, its module imported."""
    from vidgen.cli.command import Command

    return Command.load(name, COMMANDS[name][0])


def overview() -> str:
    """The page of `vidgen --help`."""
    from vidgen.cli import help

    return help.overview(GROUPS, EXAMPLES)


def unknown(verb: str) -> UsageError:
    """A word that names no command, and the nearest that does."""
    import difflib

    what = "option" if verb.startswith("-") else "command"
    near = difflib.get_close_matches(verb, COMMANDS, 1)
    return UsageError(
        f"there is no {what} {verb}",
        why="options come after the command" if what == "option" else None,
        next=f"vidgen {near[0]} --help" if near else "vidgen --help",
    )


def print_version(*, as_json: bool) -> int:
    """`vidgen 0.1.0`, or with what it runs on."""
    if not as_json:
        sys.stdout.write(f"vidgen {__version__}\n")
        return Exit.DONE
    import platform
    from importlib.metadata import version

    from vidgen.cli.runner import print_json

    versions: dict[str, Any] = {name: version(name) for name in ("numpy", "torch", "transformers")}
    print_json(
        {
            "schema": "vidgen.version/1",
            "vidgen": __version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()}-{platform.machine()}",
            **versions,
        }
    )
    return Exit.DONE


@contextmanager
def _sigterm_as_error() -> Iterator[None]:
    """SIGTERM unwinds the stack as an exception does, so that temporary files go. `vidgen train`
    puts its own handler over this one: it saves first."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the program as it is
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: its handler is not ours to change
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare_streams() -> None:
    """Give closed standard streams an object: one that fails when written to (standard output),
    or one that takes everything (standard error, which has no other place to complain). Nothing
    fails for a character that the terminal's encoding lacks."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
