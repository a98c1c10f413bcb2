"""What Snap Video (arXiv 2402.14797) found, looked at again: a module a claim, each a command that
runs again."""

SYSTEM = "snap-video"
