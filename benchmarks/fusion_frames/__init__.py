"""What FusionFrames (arXiv 2311.13073) found, looked at again on the procedural world: a module a
claim, each a command that runs again."""

SYSTEM = "fusion-frames"
