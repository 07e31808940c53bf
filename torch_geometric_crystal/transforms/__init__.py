"""Transforms of crystals: graphs for the models, and other descriptions of the same or a changed crystal."""

from torch_geometric_crystal.transforms.infinite_neighborhood import InfiniteNeighborhood
from torch_geometric_crystal.transforms.line_graph import LineGraph, LineGraphData
from torch_geometric_crystal.transforms.merge_equivalent import MergeEquivalent
from torch_geometric_crystal.transforms.merge_equivalent_atoms import MergeEquivalentAtoms
from torch_geometric_crystal.transforms.niggli_reduce import NiggliReduce
from torch_geometric_crystal.transforms.periodic_knn_graph import PeriodicKNNGraph
from torch_geometric_crystal.transforms.periodic_radius_graph import PeriodicRadiusGraph
from torch_geometric_crystal.transforms.random_perturb import RandomPerturb
from torch_geometric_crystal.transforms.random_rotate import RandomRotate
from torch_geometric_crystal.transforms.rebuild_edges import RebuildEdges, certify_edges
from torch_geometric_crystal.transforms.supercell import Supercell

__all__ = [
    "InfiniteNeighborhood",
    "LineGraph",
    "LineGraphData",
    "MergeEquivalent",
    "MergeEquivalentAtoms",
    "NiggliReduce",
    "PeriodicKNNGraph",
    "PeriodicRadiusGraph",
    "RandomPerturb",
    "RandomRotate",
    "RebuildEdges",
    "Supercell",
    "certify_edges",
]
