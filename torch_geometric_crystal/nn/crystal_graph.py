"""What the attention layers need of a batch of crystals, gathered once for all of them."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.ops import (
    GaussianBasis,
    Neighborhood,
    RowBlock,
    WaveVectors,
    choose_backend,
    gather_wave_vectors,
    group_edges,
    prepare_row_blocks,
)
from torch_geometric_crystal.ops.lattice import edge_vectors


class CrystalGraph(NamedTuple):
    """Grouped edges and wave vectors of a batch, each None where no layer needs it.

    Attributes:
        batch: crystal of each atom, shape (N,).
        num_crystals: B.
        neighborhood: the edges in real space.
        blocks: the edges as the blocked backend takes them, prepared once for all layers.
        waves: the waves in reciprocal space.
    """

    batch: Tensor
    num_crystals: int
    neighborhood: Neighborhood | None
    blocks: list[RowBlock] | None
    waves: WaveVectors | None


def gather_crystal_graph(
    data: Data, dtype: torch.dtype, real: bool, reciprocal: bool, basis: GaussianBasis | None
) -> CrystalGraph:
    """Read the graph of one crystal or a batch. Where positions or cells ask for gradients, distances follow them.

    Raises:
        ValueError: if the fields that the transform writes are missing.
    """
    num_atoms = data.z.numel()
    batch = data.batch if data.batch is not None else torch.zeros_like(data.z)
    num_crystals = data.num_graphs if data.batch is not None else 1
    neighborhood, blocks, waves = None, None, None
    if real:
        _require(data, "edge_index", "edge_dist")
        neighborhood = group_edges(data.edge_index, edge_distances(data).to(dtype), num_atoms)
        chosen = choose_backend(None, neighborhood.dist.device, dtype)
        if chosen == "blocked" and not torch.compiler.is_compiling():
            blocks = prepare_row_blocks(neighborhood, basis)
    if reciprocal:
        _require(data, "wave_vector", "num_wave_vectors")
        atom_ptr = torch.searchsorted(batch.contiguous(), torch.arange(num_crystals + 1, device=batch.device))
        waves = gather_wave_vectors(
            data.pos.to(dtype), data.cell.to(dtype), data.wave_vector, data.num_wave_vectors.flatten(), atom_ptr
        )
    return CrystalGraph(batch, num_crystals, neighborhood, blocks, waves)


def edge_distances(data: Data) -> Tensor:
    """Distances of the edges, A, shape (E,): as stored, or from positions and cell where these ask for gradients."""
    if not (data.pos is not None and (data.pos.requires_grad or data.cell.requires_grad)):
        return data.edge_dist
    vectors = edge_vectors(data.pos, data.cell, data.edge_index, data.edge_shift, data.batch)
    squared = vectors.square().sum(-1)
    apart = squared > 0  # the self image stays at zero whatever moves, and the root has no derivative there
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def _require(data: Data, *fields: str) -> None:
    missing = [field for field in fields if field not in data]
    check_argument(
        not missing,
        "data",
        f"crystals with {' and '.join(fields)}; apply model.neighborhood() to each crystal before batching",
        sorted(data.keys()),
    )
