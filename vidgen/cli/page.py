"""What a command says of itself; help, man page and completion are printed from this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Page:
    """The words of one command. Its options speak for themselves (options.py).

    name         as typed: "sample-keyframes"
    summary      one line without a full stop, at most 60 characters; the same as in `vidgen --help`
    description  for the man page: what goes in and what comes out, when not to use it; paragraphs
                 are separated by empty lines
    reads        what it takes: a phrase such as "latents records from IN", or "" for nothing
    writes       what it makes: "frames records to -o"
    examples     (command, comment), the commonest first; the first one heads the help text
    notes        more sections of the man page: {"RECORDS": text, "PAPERS": text}; a known section
                 (REPRODUCIBILITY, FILES, …) is added to, an unknown one stands after EXAMPLES
    see_also     other pages: "vidgen-decode(1)", "ffmpeg(1)"
    """

    name: str
    summary: str
    description: str
    reads: str = ""
    writes: str = ""
    examples: Sequence[tuple[str, str]] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    see_also: Sequence[str] = ()

    def flow(self) -> list[str]:
        """The sentences about input and output; records come and go through pipes by default."""
        lines = []
        if self.reads:
            default = " (default: standard input)" if self.reads.endswith(" IN") else ""
            lines.append(f"Reads {self.reads}{default}.")
        if self.writes:
            default = " (default: standard output)" if self.writes.endswith(" -o") else ""
            lines.append(f"Writes {self.writes}{default}.")
        return lines
