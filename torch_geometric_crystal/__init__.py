"""Crystals in PyTorch Geometric: exact infinitely connected attention and the models, data and benchmarks around it."""

__version__ = "0.1.0"
