"""Batches padded to a few sizes, so that what was recorded for one batch (a CUDA graph) can run on another.

The padding is a number of further crystals. Their atoms have edges to themselves alone, at distance 0, and their waves
are zero vectors: every row and every crystal is a valid one, and no atom of the batch sees them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph
from torch_geometric_crystal.ops import Neighborhood, WaveVectors

SIZES_PER_OCTAVE = 8
"""Rounded sizes between one power of two and the next: at most one part in eight is padding."""

SMALLEST_SIZE = 16


class GraphSizes(NamedTuple):
    """Numbers of atoms, crystals, pairs, edges and waves; 0 for what a batch does not have."""

    atoms: int
    crystals: int
    pairs: int
    edges: int
    waves: int

    def hold(self, sizes: "GraphSizes") -> bool:
        """Whether a batch of these sizes can be padded to them."""
        return all(least <= given for least, given in zip(_least(sizes, self), self, strict=True))


def graph_sizes(graph: CrystalGraph) -> GraphSizes:
    """The sizes of a batch.

    Raises:
        ValueError: if its edges are streamed, which has no fixed size.
    """
    check_argument(graph.stream is None, "graph", "stored edges, not streamed ones, for CUDA graphs", graph.stream)
    pairs = 0 if graph.neighborhood is None else graph.neighborhood.pair_source.numel()
    edges = 0 if graph.neighborhood is None else graph.neighborhood.dist.numel()
    waves = 0 if graph.waves is None else graph.waves.vector.size(0)
    return GraphSizes(graph.z.numel(), graph.num_crystals, pairs, edges, waves)


def padded_sizes(sizes: GraphSizes) -> GraphSizes:
    """Sizes a little larger, of which there are few: rounded up to the next of a geometric series."""
    crystals = _round_up(sizes.crystals + 1)
    atoms = _round_up(sizes.atoms + crystals - sizes.crystals)
    least = _least(sizes, GraphSizes(atoms, crystals, 0, 0, 0))
    pairs = _round_up(least.pairs)
    least = _least(sizes, GraphSizes(atoms, crystals, pairs, 0, 0))
    return GraphSizes(atoms, crystals, pairs, _round_up(least.edges), _round_up(least.waves))


def pad_graph(graph: CrystalGraph, sizes: GraphSizes) -> CrystalGraph:
    """Add crystals up to the given sizes; the new atoms, edges and waves are shared evenly among them.

    Raises:
        ValueError: if the sizes cannot hold the batch and a crystal more.
    """
    given = graph_sizes(graph)
    check_argument(sizes.hold(given), "sizes", f"room for {given} and one more crystal", sizes)
    more = GraphSizes(*(new - old for new, old in zip(sizes, given, strict=True)))
    device = graph.z.device
    crystal_atoms, given_counts = _shares(more.atoms, more.crystals, device), graph.multiplicity
    return CrystalGraph(
        z=torch.cat([graph.z, graph.z.new_ones(more.atoms)]),
        batch=torch.cat([graph.batch, given.crystals + _owner(more.atoms, more.crystals, device)]),
        ptr=torch.cat([graph.ptr, given.atoms + crystal_atoms[1:]]),
        neighborhood=None if graph.neighborhood is None else _pad_edges(graph.neighborhood, given, more),
        blocks=None,
        waves=None if graph.waves is None else _pad_waves(graph.waves, given, more),
        multiplicity=None if given_counts is None else torch.cat([given_counts, given_counts.new_ones(more.atoms)]),
    )


def _pad_edges(edges: Neighborhood, given: GraphSizes, more: GraphSizes) -> Neighborhood:
    device = edges.dist.device
    if more.pairs == 0:  # no crystal has edges: neither have the new ones, which are summed over their waves, too
        names = ("row_ptr", "row_pair_ptr", "column_ptr")
        return edges._replace(**{n: torch.cat([p := getattr(edges, n), p.new_zeros(more.atoms)]) for n in names})
    pair_atom = given.atoms + _owner(more.pairs, more.atoms, device)
    edge_pair = _owner(more.edges, more.pairs, device)
    atom_pairs = _shares(more.pairs, more.atoms, device)[1:]
    pair_edges = _shares(more.edges, more.pairs, device)[1:]
    new_edges, new_pairs = (torch.arange(number, device=device) for number in (more.edges, more.pairs))
    added = Neighborhood(
        dist=edges.dist.new_zeros(more.edges),
        source=pair_atom[edge_pair],
        row_ptr=given.edges + pair_edges[atom_pairs - 1],
        pair_order=given.edges + new_edges,
        pair_ptr=given.edges + pair_edges,
        pair_source=pair_atom,
        row_pair_ptr=given.pairs + atom_pairs,
        edge_pair=given.pairs + edge_pair,
        pair_target=pair_atom,
        column_ptr=given.pairs + atom_pairs,
        column_pair=given.pairs + new_pairs,
    )
    return Neighborhood(*(torch.cat(parts) for parts in zip(edges, added, strict=True)))


def _pad_waves(waves: WaveVectors, given: GraphSizes, more: GraphSizes) -> WaveVectors:
    device = waves.pos.device
    added = WaveVectors(
        pos=waves.pos.new_zeros(more.atoms, 3),
        vector=waves.vector.new_zeros(more.waves, 3),
        atom_ptr=given.atoms + _shares(more.atoms, more.crystals, device)[1:],
        wave_ptr=given.waves + _shares(more.waves, more.crystals, device)[1:],
        log_volume=waves.log_volume.new_zeros(more.crystals),
    )
    return WaveVectors(*(torch.cat(parts) for parts in zip(waves, added, strict=True)))


def _least(sizes: GraphSizes, target: GraphSizes) -> GraphSizes:
    """The smallest sizes that hold a batch: each new crystal has an atom and a wave, each atom a pair, each an edge."""
    crystals = sizes.crystals + 1
    new_crystals = max(target.crystals, crystals) - sizes.crystals
    atoms = sizes.atoms + new_crystals
    new_atoms = max(target.atoms, atoms) - sizes.atoms
    pairs = sizes.pairs + new_atoms if sizes.pairs else 0
    new_pairs = max(target.pairs, pairs) - sizes.pairs
    edges = sizes.edges + new_pairs if sizes.pairs else 0
    waves = sizes.waves + new_crystals if sizes.waves else 0
    return GraphSizes(atoms, crystals, pairs, edges, waves)


def _round_up(size: int) -> int:
    if size == 0:
        return 0
    step = max(SMALLEST_SIZE, 1 << max(0, size - 1).bit_length() - 1) // SIZES_PER_OCTAVE
    return max(SMALLEST_SIZE, -(-size // step) * step)


def _owner(members: int, owners: int, device: torch.device) -> Tensor:
    """The owner of each member where consecutive ones are shared evenly, each owner having one at least."""
    return torch.arange(members, device=device) * owners // members


def _shares(members: int, owners: int, device: torch.device) -> Tensor:
    """Where each owner's members begin, and the end, shape (owners + 1,), for the rule of :func:`_owner`."""
    return (torch.arange(owners + 1, device=device) * members + owners - 1) // owners
