"""Attention weights of a trained Crystalformer: of each image that an atom attends to, in each block and head."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import softmax

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.data.elements import SYMBOLS
from torch_geometric_crystal.datasets.check_structures import check_structures
from torch_geometric_crystal.datasets.readers.structure_list import crystal_from_arrays, structure_arrays
from torch_geometric_crystal.explain.reciprocal_weights import reciprocal_head_weights
from torch_geometric_crystal.nn.conv.periodic_infinite_attention import PeriodicInfiniteAttention, RowStatistics
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph
from torch_geometric_crystal.nn.models.crystalformer import Crystalformer, CrystalformerBlock

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SELF_DIST = 1e-6
"""Images nearer than this (A) are the atom itself."""


class ReciprocalHeadsError(ValueError):
    """What was asked for needs a weight for each image, and heads in reciprocal space have one for each pair."""


@dataclass(frozen=True)
class AttentionMap:
    r"""Where each atom of one crystal looks, in L blocks of H heads: for every edge e from an image of atom j to atom i

    .. math::
        a_e = \mathrm{softmax}_{e \to i} \left( \frac{\mathbf{q}_i^{\top} \mathbf{k}_{j(e)}}{\sqrt{d}} -
        \frac{r_e^2}{2 \sigma_i^2} \right)

    (Crystalformer, arXiv 2403.11686). The images are those of the model's graph; what lies beyond its cutoff has at
    most the share `truncation_bound`. The atom's own place, r = 0, is among them. A head in reciprocal space sums over
    the images of an atom at once: it has weights of pairs (:meth:`pair_weights`), and NaN in `weights`.

    Args:
        structure_id: name of the crystal.
        z: atomic numbers (N,).
        pos: positions (N, 3), A.
        cell: lattice vectors as rows (3, 3), A.
        pbc: the periodic directions (3,).
        source: atom j of each edge (E,); edges are sorted by target.
        target: atom i of each edge (E,).
        shift: image of atom j, in units of the lattice vectors (E, 3).
        dist: length of each edge (E,), A.
        weights: (L, H, E); those of one target sum to one.
        decay_weights: what they would be with the same widths if all :math:`\mathbf{q}^{\top} \mathbf{k}` were equal.
        sigma: width of the Gaussian of each atom (L, H, N), A; in reciprocal heads, too.
        domains: domain of each block.
        reciprocal: weights of pairs (L, H, N, N), target first, NaN in heads of real space; None where all heads are.
        truncation_bound: certified share of any row that images beyond the graph have.
    """

    structure_id: str
    z: IntArray
    pos: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    source: IntArray
    target: IntArray
    shift: IntArray
    dist: FloatArray
    weights: FloatArray
    decay_weights: FloatArray
    sigma: FloatArray
    domains: tuple[str, ...]
    reciprocal: FloatArray | None
    truncation_bound: float

    @property
    def num_atoms(self) -> int:
        """Number of atoms N."""
        return len(self.z)

    @property
    def elements(self) -> list[str]:
        """Symbol of each atom."""
        return [SYMBOLS[number - 1] for number in self.z.tolist()]

    @property
    def formula(self) -> str:
        """Elements with their numbers of atoms in the cell, in order of appearance."""
        symbols = self.elements
        return "".join(f"{symbol}{symbols.count(symbol)}" for symbol in dict.fromkeys(symbols))

    @property
    def is_self(self) -> NDArray[np.bool_]:
        """Which edges are the atom at its own place (E,)."""
        return (self.source == self.target) & (self.dist < SELF_DIST)

    @property
    def has_image_weights(self) -> NDArray[np.bool_]:
        """Which heads are in real space (L, H)."""
        if self.reciprocal is None:
            return np.ones(self.weights.shape[:2], dtype=bool)
        return np.isnan(self.reciprocal[:, :, 0, 0])

    def sum_by_target(self, values: FloatArray) -> FloatArray:
        """Sums of values of edges (..., E) over the edges of each atom, (..., N)."""
        return sum_by_index(values, self.target, self.num_atoms)

    def pair_weights(self) -> FloatArray:
        """Weight of all images of one atom together, (L, H, N, N), target first: of heads in both domains."""
        blocks, heads = self.weights.shape[:2]
        n = self.num_atoms
        pairs = sum_by_index(self.weights, self.target * n + self.source, n * n).reshape(blocks, heads, n, n)
        return pairs if self.reciprocal is None else np.where(np.isnan(self.reciprocal), pairs, self.reciprocal)


def attention_maps(
    model: nn.Module, structures: Sequence[Any], structure_ids: Sequence[str] | None = None
) -> list[AttentionMap]:
    """Attention weights on structures in memory, one map each.

    Args:
        model: a Crystalformer, as :func:`~torch_geometric_crystal.benchmark.load_model` returns it.
        structures: pymatgen structures, ASE atoms or `Data`, also mixed.
        structure_ids: their names; by default ``structures[0]``, ``structures[1]``, ...

    Raises:
        TypeError: if the model is no Crystalformer, or `structures` no list.
        InvalidStructureError: for a structure that cannot be used.
        ValueError: if the model is in training mode, or does not know an element.
    """
    add_graph = image_graph(model)
    structures = check_structures(structures)
    names = [f"structures[{k}]" for k in range(len(structures))] if structure_ids is None else list(structure_ids)
    check_argument(len(names) == len(structures), "structure_ids", f"{len(structures)} names", len(names))
    dtype = next(p.dtype for p in model.parameters())
    maps = []
    for structure, name in zip(structures, names, strict=True):
        data = crystal_from_arrays(structure_arrays(structure, name), name, dtype)
        maps.append(attention_map(model, add_graph(data)))
    return maps


def image_graph(model: nn.Module) -> Callable[[Data], Data]:
    """The transform of the model's graphs, but with all atoms, and edges where ``domain="auto"`` would leave them out.

    Raises:
        TypeError: if the model is no Crystalformer.
    """
    model = _check_model(model)
    card = getattr(model, "card", None)
    settings = (dict(card.neighborhood) if card is not None else {}) | {"merge_tolerance": None}
    return model.neighborhood(**settings | ({"domain": "all"} if "auto" in model.domains else {}))


@torch.no_grad()
def attention_map(model: nn.Module, data: Data) -> AttentionMap:
    """Attention weights on one crystal that has its graph (:func:`image_graph`).

    Raises:
        TypeError: if the model is no Crystalformer.
        ValueError: if the model is in training mode, the graph is missing or has merged atoms, or the model does not
            know an element.
    """
    model = _check_model(model)
    check_argument("atom_multiplicity" not in data, "data", "all atoms of the crystal", "merged ones")
    data = data.to(model.embedding.weight.device)
    graph = model.gather(data)
    order, target, source, dist = _edges(model, data)
    x = model.embedding(graph.z - 1)
    found: list[tuple[Tensor, ...]] = []
    for block in cast(list[CrystalformerBlock], list(model.blocks)):
        states = x
        x, statistics = block(states, graph)
        layer = block.attention
        image_weights, from_decay = _image_weights(layer, statistics, target, source, dist)
        pair_weights, sigma = _pairs_and_sigma(layer, states, statistics, graph)
        found.append((image_weights, from_decay, sigma, pair_weights))
    weights, decay_weights, sigmas, reciprocal = (torch.stack(part).cpu().numpy() for part in zip(*found, strict=True))
    return AttentionMap(
        structure_id=str(data.get("structure_id", "crystal")),
        z=data.z.cpu().numpy(),
        pos=data.pos.detach().cpu().double().numpy(),
        cell=data.cell.detach().cpu().double().numpy()[0],
        pbc=np.ones(3, dtype=bool) if data.get("pbc") is None else data.pbc.cpu().numpy()[0],
        source=source.cpu().numpy(),
        target=target.cpu().numpy(),
        shift=data.edge_shift[order].long().cpu().numpy() if model.has_real_heads else np.zeros((0, 3), dtype=int),
        dist=dist.cpu().numpy(),
        weights=weights,
        decay_weights=decay_weights,
        sigma=sigmas,
        domains=tuple(model.domains),
        reciprocal=reciprocal if model.has_reciprocal_heads else None,
        truncation_bound=float(model.truncation_report(data)),
    )


def sum_by_index(values: FloatArray, index: IntArray, size: int) -> FloatArray:
    """Sums of values (..., E) that share an index from 0 to size - 1, (..., size)."""
    leading = values.shape[:-1]
    rows = [np.bincount(index, row, minlength=size) for row in values.reshape(math.prod(leading), len(index))]
    return np.array(rows, dtype=np.float64).reshape(*leading, size)


def check_image_weights(maps: Sequence[AttentionMap]) -> None:
    """Raise unless there are maps, of one architecture, with weights of images in some head.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
        ValueError: if there are no maps, or they are of different models.
    """
    check_argument(len(maps) > 0, "maps", "at least one attention map", "none")
    shapes = sorted({each.weights.shape[:2] for each in maps})
    check_argument(len(shapes) == 1, "maps", "maps of one model, with as many blocks and heads each", shapes)
    if all(domain == "reciprocal" for domain in maps[0].domains):
        raise ReciprocalHeadsError(
            "maps: all heads are in reciprocal space and have a weight for each pair of atoms, not for each image, so "
            "not at a distance. Use AttentionMap.pair_weights()"
        )


def _check_model(model: nn.Module) -> Crystalformer:
    if not isinstance(model, Crystalformer):
        raise TypeError(
            f"model: expected a Crystalformer, received {type(model).__name__}, which has no attention weights over "
            "periodic images"
        )
    check_argument(not model.training, "model", "a model in evaluation mode (model.eval())", "one in training mode")
    return model


def _edges(model: Crystalformer, data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The order that sorts the edges by target, then target, source and length of each."""
    if not model.has_real_heads:
        none = data.z[:0]
        return none, none, none, none.double()
    order = data.edge_index[1].argsort(stable=True)
    source, target = data.edge_index[:, order]
    return order, target, source, data.edge_dist[order].detach().double()


def _image_weights(
    layer: PeriodicInfiniteAttention, statistics: RowStatistics | None, target: Tensor, source: Tensor, dist: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights of the edges, and those from the decay alone, (H, E) in float64; NaN in heads of reciprocal space."""
    nothing = dist.new_full((layer.heads - layer.real_heads, dist.numel()), torch.nan)
    if statistics is None:
        return nothing, nothing
    query, key, rho = statistics.query.double(), statistics.key.double(), statistics.rho.double()
    number = query.size(0)
    logit = (query[target] * key[source]).sum(-1) * statistics.scale
    decay = -rho[target] * (dist.square() / (2 * layer.r0**2)).unsqueeze(-1)
    both = (softmax(values, target, num_nodes=number).T for values in (logit + decay, decay))
    weights, from_decay = (torch.cat([values, nothing]) for values in both)
    return weights, from_decay


def _pairs_and_sigma(
    layer: PeriodicInfiniteAttention, states: Tensor, statistics: RowStatistics | None, graph: CrystalGraph
) -> tuple[Tensor, Tensor]:
    """Weights of pairs (H, N, N), NaN in heads of real space, and all widths (H, N), in float64."""
    number = states.size(0)
    pairs = states.new_full((layer.real_heads, number, number), torch.nan, dtype=torch.float64)
    sigma = states.new_zeros((0, number), dtype=torch.float64)
    if statistics is not None:
        sigma = layer.r0 * statistics.rho.double().rsqrt().T
    if layer.real_heads == layer.heads or graph.waves is None:
        return pairs, sigma
    in_waves, widths = reciprocal_head_weights(layer, states, graph.waves)
    return torch.cat([pairs, in_waves]), torch.cat([sigma, widths])
