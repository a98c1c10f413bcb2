"""vidgen: composable command-line tools for text-to-video diffusion."""

__version__ = "0.1.0"
