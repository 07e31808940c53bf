"""The graph of infinitely connected attention: every periodic image that matters, with a certificate for the others."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import InvalidStructureError, check_argument, check_choice
from torch_geometric_crystal.data import neighbors
from torch_geometric_crystal.data.validation import validate_crystal
from torch_geometric_crystal.ops.domain_cost import cheaper_domain, estimated_waves
from torch_geometric_crystal.ops.lattice import (
    FloatArray,
    IntArray,
    count_polynomials,
    gram_schmidt_lengths,
    reciprocal_cell,
    reduce_lattice,
)
from torch_geometric_crystal.ops.reciprocal_truncation import wave_cutoff, wave_truncation_bound, wave_vectors
from torch_geometric_crystal.ops.truncation import (
    certified_cutoff,
    check_tolerance,
    clear_cutoff,
    search_radius,
    search_radius_for_cutoff,
    truncation_bound,
)
from torch_geometric_crystal.transforms.graph_fields import (
    REAL_FIELDS,
    RECIPROCAL_FIELDS,
    remove_fields,
    structure_name,
)
from torch_geometric_crystal.transforms.streamed_certificate import streamed_certificate

DEFAULT_SIGMA_MAX = 1.4 / math.sqrt(0.5)
"""r0 / sqrt(lb) of Crystalformer (arXiv 2403.11686): r0 = 1.4 A and rho > lb = 0.5."""

DEFAULT_SPREAD = 1.5
"""Allowance for the spread of the logits. At initialisation they reach 0.8. In trained models they go far beyond, but
mostly downwards, where they cost nothing: what the tail sees is the excess of the largest logit over the row's mean.
With 1.5 the a-posteriori bound of about 85 % of crystals keeps tol, with 3.0 that of 98 % (benchmarks/README.md)."""


STREAMED_IMAGES_PER_ATOM = 10_000
"""Where an atom has more images to search, lengths are taken to be wrong, and the crystal is refused as too large."""

MAX_WAVES = 2_000_000
"""Beyond it (1.4 kB a wave to make them) a crystal is refused as too large."""


class InfiniteNeighborhood(BaseTransform):
    r"""Edges (and waves) that infinitely connected attention needs, from a tolerance, with a certificate.

    In the softmax over *all* periodic images, with weights :math:`e^{z_{ij}} e^{-r^2 / 2 \sigma_i^2}`, the images
    beyond a cutoff R have the share :math:`\delta_i`. Since :math:`\sigma_i \le \sigma_{max}`, a cutoff follows from a
    tolerance before training: the smallest R, moved outwards into the next gap between shells of neighbours, with

    .. math::
        \delta_i \le \frac{e^\Delta O_i}{e^\Delta O_i + I_i} \le tol \quad \text{for all atoms } i

    in which :math:`I_i` and :math:`O_i` are the sums of :math:`e^{-r^2 / 2 \sigma_{max}^2}` within and beyond R and
    :math:`\Delta` is the allowed spread of the logits z within a row. :math:`O_i` is bounded rigorously for any cell:
    see :mod:`torch_geometric_crystal.ops.truncation`. The change of the layer's output is at most :math:`\delta_i`
    times the diameter of the set of value vectors. The attention is that of "Crystalformer: Infinitely Connected
    Attention for Periodic Structure Encoding" (https://arxiv.org/abs/2403.11686), the certificate this library's.

    If `real`, sets `edge_index` (2, E), `edge_shift` (E, 3), `edge_dist` (E,), `edge_cutoff` (1,), `truncation_bound`
    (1,) and `log_tail` (N,): edges to every image within R, the self image (i, i, 0) included, sorted by target, then
    by source, distance and image, so that the images of a pair of atoms are contiguous, near to far. If
    `reciprocal_sigma_min` is given, sets `wave_vector` (M, 3), `num_wave_vectors` (1,), `wave_cutoff` (1,) and
    `wave_bound` (1,). Fields of an earlier graph are removed.

    If :obj:`domain="auto"`, a crystal gets edges or waves, whichever ``ops.domain_cost.cheaper_domain`` estimates to
    cost less; the fields of the other domain are there without members (no waves: `num_wave_vectors` is 0) and with
    bounds of zero. A crystal with fewer than three periodic directions gets edges.

    A crystal of so many atoms that its edges would not fit into memory gets `edge_cutoff` and the certificate alone.
    :class:`~torch_geometric_crystal.nn.Crystalformer` then finds them anew in each layer, some at a time. The cutoff is
    the largest that any of the pieces asks for.

    Args:
        tol (float): Tolerated share. It decides both cutoffs; the one of the edges unless `cutoff` is given.
            (default: `1e-3`)
        cutoff (float, optional): Radius R of the edges in A, instead of the one that `tol` asks for. Where it would
            touch a shell of neighbours it is moved outwards into the next gap. `truncation_bound` says what it costs.
        sigma_max (float): Upper bound of :math:`\sigma` in A. (default: `1.4 / sqrt(0.5)`)
        spread (float): Allowance :math:`\Delta` for the spread of the logits :math:`q_i \cdot k_j / \sqrt{d}` within a
            row. Whether a trained model keeps it is seen from
            :func:`~torch_geometric_crystal.ops.truncation.posterior_truncation_bound`. (default: `1.5`)
        reciprocal_sigma_min (float, optional): Lower bound in A of :math:`\sigma` in the reciprocal sum. Makes wave
            vectors.
        real (bool): Whether to make edges. (default: `True`)
        domain (str): `"all"`: edges and waves as `real` and `reciprocal_sigma_min` say; or `"auto"`, for layers that
            sum each crystal in one of the two domains. (default: `"all"`)
        edges (str): `"stored"`, `"streamed"`, or `"auto"`: streamed where a search would find more than
            ``data.neighbors.MAX_IMAGES``, 50 million. (default: `"auto"`)

    Raises:
        ValueError: if an argument is out of range, or neither edges nor waves are asked for.
        InvalidStructureError: on a crystal that :func:`~torch_geometric_crystal.data.validate_crystal` refuses, or, if
            waves are asked for, one without three periodic directions or so large that they would exhaust the memory.
    """

    def __init__(
        self,
        tol: float = 1e-3,
        cutoff: float | None = None,
        sigma_max: float = DEFAULT_SIGMA_MAX,
        spread: float = DEFAULT_SPREAD,
        reciprocal_sigma_min: float | None = None,
        real: bool = True,
        domain: str = "all",
        edges: str = "auto",
    ):
        check_tolerance(tol, spread)
        check_argument(0.0 < sigma_max < math.inf, "sigma_max", "a positive length in A", sigma_max)
        check_argument(cutoff is None or 0.0 <= cutoff < math.inf, "cutoff", "a length >= 0 in A", cutoff)
        check_argument(
            reciprocal_sigma_min is None or 0.0 < reciprocal_sigma_min < math.inf,
            "reciprocal_sigma_min",
            "a positive length in A",
            reciprocal_sigma_min,
        )
        check_argument(
            real or reciprocal_sigma_min is not None, "real", "True where reciprocal_sigma_min is None", real
        )
        check_choice("domain", domain, ("all", "auto"))
        check_choice("edges", edges, ("auto", "stored", "streamed"))
        check_argument(
            edges != "streamed" or (real and domain == "all"),
            "edges",
            "'auto' or 'stored' where not all crystals have edges",
            edges,
        )
        both = real and reciprocal_sigma_min is not None and reciprocal_sigma_min <= sigma_max
        check_argument(
            domain == "all" or both,
            "domain",
            "'all' unless edges and waves can be made, reciprocal_sigma_min at most sigma_max",
            (domain, real, reciprocal_sigma_min),
        )
        self.tol = tol
        self.cutoff = cutoff
        self.sigma_max = sigma_max
        self.spread = spread
        self.reciprocal_sigma_min = reciprocal_sigma_min
        self.real = real
        self.domain = domain
        self.edges = edges

    def forward(self, data: Data) -> Data:
        """Return `data` with the graph."""
        validate_crystal(data, check_overlap=False)
        pos = data.pos.detach().cpu().double().numpy()
        cell = data.cell.detach().cpu().double().numpy()[0]
        pbc = data.pbc.cpu().numpy()[0] if data.get("pbc") is not None else np.ones(3, dtype=bool)
        remove_fields(data, REAL_FIELDS + RECIPROCAL_FIELDS)
        domain = self._cheaper_domain(len(pos), cell, pbc) if self.domain == "auto" else None
        if domain == "reciprocal":
            _store_no_edges(data)
        elif self.real:
            self._add_edges(data, pos, cell, pbc)
        if domain == "real":
            _store_waves(data, np.zeros((0, 3), dtype=np.int64), 0.0, 0.0)
        elif self.reciprocal_sigma_min is not None:
            self._add_waves(data, pbc, self.reciprocal_sigma_min)
        return data

    def _cheaper_domain(self, num_atoms: int, cell: FloatArray, pbc: NDArray[np.bool_]) -> str:
        if self.reciprocal_sigma_min is None or not pbc.all():
            return "real"
        volume = abs(float(np.linalg.det(cell)))
        return cheaper_domain(
            num_atoms, volume, self.sigma_max, self.reciprocal_sigma_min, self.tol, self.spread, self.cutoff
        )

    def _add_edges(self, data: Data, pos: FloatArray, cell: FloatArray, pbc: NDArray[np.bool_]) -> None:
        n = len(pos)
        lattice = reduce_lattice(cell, pbc)
        lengths = gram_schmidt_lengths(lattice.basis)
        count = count_polynomials(lengths)
        volume = float(lengths.prod()) if pbc.all() else math.inf
        if self.cutoff is None:
            radius = search_radius(count, n, volume, self.sigma_max, self.tol, self.spread)
        else:
            radius = search_radius_for_cutoff(count, n, volume, self.sigma_max, self.cutoff)
        if self._streams(n, lattice.basis, radius):
            neighbors.check_number_of_images(n, lattice.basis, radius, structure_name(data), most=math.inf)
            settings = (self.sigma_max, self.tol, self.spread, self.cutoff)
            _store_certificate(data, *streamed_certificate(data, pbc, count, radius, *settings))
            return
        while True:
            images = neighbors.periodic_images(pos, lattice, radius, structure_name(data))
            row, dist = images.target, images.dist
            if self.cutoff is None:
                cutoff = certified_cutoff(row, dist, n, radius, count, self.sigma_max, self.tol, self.spread)
            else:
                cutoff = clear_cutoff(dist, self.cutoff, self.sigma_max)
            if cutoff is not None:
                break
            radius += 0.5 * self.sigma_max
        share, log_tail = truncation_bound(row, dist, n, radius, count, self.sigma_max, cutoff, self.spread)
        _store_edges(data, *images.select(dist <= cutoff))
        _store_certificate(data, cutoff, float(share.max()), log_tail)

    def _streams(self, num_atoms: int, basis: FloatArray, radius: float) -> bool:
        """Whether the edges are not stored. A cell with too small lengths is no reason for that."""
        if self.edges == "auto" and self.domain == "all":
            per_atom = neighbors.expected_images_per_atom(num_atoms, basis, radius)
            return per_atom <= STREAMED_IMAGES_PER_ATOM and num_atoms * per_atom > neighbors.MAX_IMAGES
        return self.edges == "streamed"

    def _add_waves(self, data: Data, pbc: NDArray[np.bool_], sigma_min: float) -> None:
        if not pbc.all():
            raise InvalidStructureError(
                structure_name(data),
                f"the reciprocal sum needs three periodic directions, pbc is {pbc.tolist()}",
                "Use edges alone (reciprocal_sigma_min=None, real heads only) for slabs and molecules",
            )
        basis = reciprocal_cell(data.cell[0].detach().cpu().double()).numpy()
        n = data.z.numel()
        volume = (2.0 * math.pi) ** 3 / float(abs(np.linalg.det(basis)))
        number = estimated_waves(n, volume, sigma_min, self.tol, self.spread)
        if number > MAX_WAVES:
            raise InvalidStructureError(
                structure_name(data),
                f"its cell asks for about {number:.0e} wave vectors, of which {MAX_WAVES:.0e} are the most",
                "Use edges alone (real heads, or domain 'auto'), a larger tol, or a smaller cell",
            )
        cutoff = wave_cutoff(basis, n, sigma_min, self.tol, self.spread)
        bound = wave_truncation_bound(basis, n, sigma_min, cutoff, self.spread)
        _store_waves(data, wave_vectors(basis, cutoff), cutoff, bound)

    def __repr__(self) -> str:
        radius = f"tol={self.tol:g}" if self.cutoff is None else f"cutoff={self.cutoff:g}"
        waves = "" if self.reciprocal_sigma_min is None else f", reciprocal_sigma_min={self.reciprocal_sigma_min:g}"
        real = "" if self.real else ", real=False"
        real += "" if self.domain == "all" else f", domain={self.domain!r}"
        real += "" if self.edges == "auto" else f", edges={self.edges!r}"
        return f"{type(self).__name__}({radius}, sigma_max={self.sigma_max:g}, spread={self.spread:g}{waves}{real})"


def _store_edges(data: Data, target: IntArray, source: IntArray, shift: IntArray, dist: FloatArray) -> None:
    """Store edges sorted by target, source, stored distance and image."""
    edge_dist = torch.from_numpy(dist).to(data.pos.dtype)
    width = 2 * int(np.abs(shift).max()) + 1
    image, pair = shift[:, 1] * width + shift[:, 2], target * data.num_nodes + source
    order = np.lexsort((image, shift[:, 0], edge_dist.numpy(), pair))
    device = data.pos.device
    data.edge_index = torch.from_numpy(np.stack([source[order], target[order]])).to(device)
    data.edge_shift = torch.from_numpy(shift[order]).to(device, torch.int32)
    data.edge_dist = edge_dist[torch.from_numpy(order)].to(device)


def _store_certificate(data: Data, cutoff: float, share: float, log_tail: FloatArray) -> None:
    device = data.pos.device
    data.edge_cutoff = torch.tensor([cutoff], dtype=torch.float64, device=device)
    data.truncation_bound = torch.tensor([share], dtype=torch.float64, device=device)
    data.log_tail = torch.from_numpy(log_tail).to(device)


def _store_no_edges(data: Data) -> None:
    """Store the fields of a graph without edges, from which nothing was left out."""
    device = data.pos.device
    data.edge_index = torch.zeros(2, 0, dtype=torch.int64, device=device)
    data.edge_shift = torch.zeros(0, 3, dtype=torch.int32, device=device)
    data.edge_dist = data.pos.new_zeros(0)
    _store_certificate(data, 0.0, 0.0, np.full(data.num_nodes, -np.inf))


def _store_waves(data: Data, waves: IntArray, cutoff: float, bound: float) -> None:
    device = data.pos.device
    data.wave_vector = torch.from_numpy(waves).to(device, torch.int32)
    data.num_wave_vectors = torch.tensor([len(waves)], device=device)
    data.wave_cutoff = torch.tensor([cutoff], dtype=torch.float64, device=device)
    data.wave_bound = torch.tensor([bound], dtype=torch.float64, device=device)
