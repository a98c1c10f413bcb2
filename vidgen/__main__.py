"""`python -m vidgen`."""

from vidgen.cli.app import entry

entry()
