"""The program with the tests' command `relay` in its table, for tests that need a process."""

import sys

import made_command

from vidgen.cli import app

app.COMMANDS["relay"] = ("relay", made_command.PAGE.summary)
sys.modules["vidgen.cli.relay"] = made_command
app.entry()
