"""Stages: records in, records out. They know neither flags nor files nor terminals."""

import gc
import sys

# All of them need torch. Its import makes some hundred thousand objects that stay, and looking
# among them for what could go takes a seventh of a small command's start.
if "torch" not in sys.modules and gc.isenabled():
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
