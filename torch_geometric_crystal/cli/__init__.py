"""The command line: ``tgcrystal``. One module per command; heavy imports happen inside the commands."""

from torch_geometric_crystal.cli.app import app, main

__all__ = ["app", "main"]
