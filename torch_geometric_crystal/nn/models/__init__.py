"""Whole models: from a batch of crystals to their targets."""

from torch import nn

from torch_geometric_crystal.nn.models.alignn import ALIGNN
from torch_geometric_crystal.nn.models.cgcnn import CGCNN
from torch_geometric_crystal.nn.models.crystalformer import Crystalformer

MODELS: dict[str, type[nn.Module]] = {"crystalformer": Crystalformer, "cgcnn": CGCNN, "alignn": ALIGNN}
"""Models by the name that the command line and checkpoints use."""

__all__ = ["ALIGNN", "CGCNN", "MODELS", "Crystalformer"]
