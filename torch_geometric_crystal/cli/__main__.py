"""``python -m torch_geometric_crystal.cli``."""

from torch_geometric_crystal.cli.app import main

main()
