"""What a trained Crystalformer looks at: attention weights, learned widths, comparison with bonds, pictures."""

from torch_geometric_crystal.explain.attention_map import (
    AttentionMap,
    ReciprocalHeadsError,
    attention_map,
    attention_maps,
    image_graph,
)
from torch_geometric_crystal.explain.bonds import Bonds, BondShares, bond_recall, bond_shares, crystal_nn_bonds
from torch_geometric_crystal.explain.distances import (
    DistanceProfile,
    mean_distance,
    self_share,
    weight_by_distance,
    weight_moved_by_dot_products,
)
from torch_geometric_crystal.explain.peaks import BondPeaks, bond_peaks, peak_correlation
from torch_geometric_crystal.explain.pictures import (
    plot_atoms,
    plot_sigma,
    plot_species_pairs,
    plot_weight_by_distance,
)
from torch_geometric_crystal.explain.report import write_report
from torch_geometric_crystal.explain.shells import Shell, attention_shells
from torch_geometric_crystal.explain.species import SpeciesPairs, weight_by_species
from torch_geometric_crystal.explain.tables import head_rows, pair_rows, weight_rows
from torch_geometric_crystal.explain.widths import sigma_by_head, sigma_quantiles

__all__ = [
    "AttentionMap",
    "BondPeaks",
    "BondShares",
    "Bonds",
    "DistanceProfile",
    "ReciprocalHeadsError",
    "Shell",
    "SpeciesPairs",
    "attention_map",
    "attention_maps",
    "attention_shells",
    "bond_peaks",
    "bond_recall",
    "bond_shares",
    "crystal_nn_bonds",
    "head_rows",
    "image_graph",
    "mean_distance",
    "pair_rows",
    "peak_correlation",
    "plot_atoms",
    "plot_sigma",
    "plot_species_pairs",
    "plot_weight_by_distance",
    "self_share",
    "sigma_by_head",
    "sigma_quantiles",
    "weight_by_distance",
    "weight_by_species",
    "weight_moved_by_dot_products",
    "weight_rows",
    "write_report",
]
