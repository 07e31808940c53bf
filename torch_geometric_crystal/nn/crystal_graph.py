"""What the attention layers need of a batch of crystals, gathered once for all of them."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

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
from torch_geometric_crystal.ops.edge_stream import EdgeStream
from torch_geometric_crystal.ops.lattice import edge_vectors, vector_lengths
from torch_geometric_crystal.ops.precision import at_least_float32
from torch_geometric_crystal.transforms.merging import ATOM_MULTIPLICITY, refuse_merged


class CrystalGraph(NamedTuple):
    """Atoms of a batch, and grouped edges and wave vectors, each of these None where no layer needs it.

    Attributes:
        z: atomic numbers, shape (N,).
        batch: crystal of each atom, shape (N,).
        ptr: crystal b has the atoms ``ptr[b]`` to ``ptr[b + 1]``, shape (B + 1,).
        neighborhood: the edges in real space.
        blocks: the edges as the blocked backend takes them, prepared once for all layers.
        waves: the waves in reciprocal space.
        stream: what takes the place of `neighborhood` in crystals too large to keep their edges.
        multiplicity: number of atoms that each one stands for, shape (N,); None where all atoms are there.
    """

    z: Tensor
    batch: Tensor
    ptr: Tensor
    neighborhood: Neighborhood | None
    blocks: list[RowBlock] | None
    waves: WaveVectors | None
    stream: EdgeStream | None = None
    multiplicity: Tensor | None = None

    @property
    def edges(self) -> Neighborhood | EdgeStream | None:
        """The edges in real space, stored or streamed."""
        return self.neighborhood if self.stream is None else self.stream

    @property
    def num_crystals(self) -> int:
        """Number of crystals B."""
        return self.ptr.numel() - 1


def gather_crystal_graph(
    data: Data, dtype: torch.dtype, real: bool, reciprocal: bool, basis: GaussianBasis | None
) -> CrystalGraph:
    """Read the graph of one crystal or a batch. Where positions or cells ask for gradients, distances follow them.

    Raises:
        ValueError: if the fields that the transform writes are missing, or atoms are merged for another model, where
            waves are needed, or where positions ask for gradients.
    """
    multiplicity = data.get(ATOM_MULTIPLICITY)
    if multiplicity is not None:
        refuse_gradients(data)
        if reciprocal:
            refuse_merged(data, "for sums in reciprocal space")
        if "edge_multiplicity" in data:
            refuse_merged(data, "or those that MergeEquivalentAtoms keeps")
    num_atoms = data.z.numel()
    batch = data.batch if data.batch is not None else torch.zeros_like(data.z)
    ptr = crystal_pointers(data)
    precise = at_least_float32(dtype)
    neighborhood, blocks, waves, stream = None, None, None, None
    if real and "edge_index" not in data and "edge_cutoff" in data:
        stream = EdgeStream(data.pos, data.cell, batch, _periodic_directions(data), data.edge_cutoff.flatten())
    elif real:
        _require(data, "edge_index", "edge_dist")
        neighborhood = group_edges(data.edge_index, edge_distances(data).to(precise), num_atoms)
        chosen = choose_backend(None, neighborhood.dist.device, dtype)
        if chosen == "blocked" and not torch.compiler.is_compiling():
            blocks = prepare_row_blocks(neighborhood, basis)
    if reciprocal:
        _require(data, "wave_vector", "num_wave_vectors")
        waves = gather_wave_vectors(
            data.pos.to(precise), data.cell.to(precise), data.wave_vector, data.num_wave_vectors.flatten(), ptr
        )
    return CrystalGraph(data.z, batch, ptr, neighborhood, blocks, waves, stream, multiplicity)


def crystal_pointers(data: Data) -> Tensor:
    """Where the atoms of each crystal begin, and the end, shape (B + 1,): PyG's `ptr`, or made from `batch`."""
    if data.batch is None:
        return torch.arange(2, device=data.z.device) * data.z.numel()
    if data.get("ptr") is not None:
        return data.ptr
    return torch.searchsorted(data.batch, torch.arange(number_of_crystals(data) + 1, device=data.batch.device))


def number_of_crystals(data: Data) -> int:
    """Number of crystals B of a batch, also where it was made by hand, of `batch` alone; 1 for a single crystal."""
    if data.batch is None:
        return 1
    return data.num_graphs if isinstance(data, Batch) else int(data.batch[-1]) + 1


def edge_distances(data: Data) -> Tensor:
    """Distances of the edges, A, shape (E,): as stored, or from positions and cell where these ask for gradients."""
    if not (data.pos is not None and (data.pos.requires_grad or data.cell.requires_grad)):
        return data.edge_dist
    return vector_lengths(edge_vectors(data.pos, data.cell, data.edge_index, data.edge_shift, data.batch))


def refuse_gradients(data: Data) -> None:
    """Raise ``ValueError`` where positions or cells of merged atoms ask for gradients."""
    if any(field is not None and field.requires_grad for field in (data.pos, data.get("cell"))):
        raise ValueError(
            "data: expected every atom where gradients to positions or cell are asked for, received merged ones. "
            "Apply model.neighborhood(merge_tolerance=None)"
        )


def _periodic_directions(data: Data) -> Tensor:
    given = data.get("pbc")
    return torch.ones_like(data.cell[:, 0], dtype=torch.bool) if given is None else given


def _require(data: Data, *fields: str) -> None:
    missing = [field for field in fields if field not in data]
    check_argument(
        not missing,
        "data",
        f"crystals with {' and '.join(fields)}; apply model.neighborhood() to each crystal before batching",
        sorted(data.keys()),
    )
