"""Infinitely connected attention as a PyG layer."""

import math
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj
from torch_geometric.utils import softmax

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.nn.decay import GaussianDecay
from torch_geometric_crystal.ops import (
    GaussianBasis,
    Neighborhood,
    RowBlock,
    WaveVectors,
    group_edges,
    infinite_attention,
    reciprocal_attention,
)
from torch_geometric_crystal.ops.edge_stream import EdgeStream
from torch_geometric_crystal.ops.precision import at_least_float32, without_autocast
from torch_geometric_crystal.ops.streamed_attention import streamed_attention

DOMAINS = ("real", "reciprocal", "multihead", "auto")

AUTO_FLOOR = 1e-30
"""Lower bound of the sum over waves where the domain is chosen: far below any tolerance, so that the domains agree."""


class RowStatistics(NamedTuple):
    """What a posteriori truncation bounds are made of, for the heads in real space.

    Attributes:
        query, key: shape (N, H, d), the logit being their product times `scale`.
        rho: shape (N, H).
        lse: logarithm of the rows' denominators, shape (N, H).
        scale: factor of the logits.
    """

    query: Tensor
    key: Tensor
    rho: Tensor
    lse: Tensor
    scale: float


class PeriodicInfiniteAttention(MessagePassing):
    r"""The infinitely connected attention of Crystalformer, from `"Crystalformer: Infinitely Connected Attention for
    Periodic Structure Encoding" <https://arxiv.org/abs/2403.11686>`_ (Taniai et al., ICLR 2024): every atom attends to
    all periodic images of all atoms, with weights that decay as a Gaussian in distance.

    .. math::
        \mathbf{x}^{\prime}_i = W^O \Big\Vert_h \sum_{e \to i} a_{e} \left( \mathbf{v}_{j(e)} +
        W^E \mathbf{b}(r_e) \right), \qquad
        a_{e} = \mathrm{softmax}_{e \to i} \left( \frac{\mathbf{q}_i^{\top} \mathbf{k}_{j(e)}}{\sqrt{d}} -
        \frac{r_e^2}{2 \sigma_i^2} \right), \qquad \sigma_i^2 = \frac{r_0^2}{\rho(\mathbf{q}_i)},

    where :math:`\mathbf{q}, \mathbf{k}, \mathbf{v}` are linear in :math:`\mathbf{x}`, an edge :math:`e` is one image of
    atom :math:`j(e)` at distance :math:`r_e`, :math:`b_k(r) = \exp(-(r - kc)^2 / 2c^2)` with :math:`c = 10 r_0 / K`,
    and :math:`\rho` is :class:`~torch_geometric_crystal.nn.decay.GaussianDecay`.

    If :obj:`domain="reciprocal"`, the sum over the images of one atom is taken over wave vectors instead, with
    :math:`\sigma_i^2 = \rho(\mathbf{q}_i)\, \bar{r}_0^2` and without :math:`W^E`:

    .. math::
        a_{ij} = \mathrm{softmax}_j \left( \frac{\mathbf{q}_i^{\top} \mathbf{k}_j}{\sqrt{d}} + \ln \alpha_{ij} \right),
        \qquad \alpha_{ij} = \frac{(2 \pi \sigma_i^2)^{3/2}}{V} \sum_{\mathbf{g}}
        e^{-\sigma_i^2 g^2 / 2} \cos \mathbf{g} \cdot (\mathbf{p}_j - \mathbf{p}_i).

    If :obj:`domain="multihead"`, the first half of the heads are of the first kind, the others of the second.

    If :obj:`domain="auto"`, the sum is the first, without :math:`W^E` and with :math:`\rho` replaced by
    :math:`\min(\rho, \rho_{max})`, and each crystal is summed in the domain that its graph has: over edges, or, by
    Poisson summation at the same :math:`\sigma_i^2 = r_0^2 / \rho`, over waves. The result is the same to the tolerance
    of the graph. The bound makes the number of waves finite; it applies in both domains, so that neither the function
    nor its gradient (none to :math:`\rho` beyond the bound) depends on the choice.

    The graph comes from :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood`. As a PyG layer it also runs
    unfused, edge by edge, whenever PyG's explainer asks for it or attention weights are to be returned.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample; a multiple of :obj:`heads`.
        heads (int, optional): Number of attention heads H. (default: :obj:`8`)
        num_basis (int, optional): Size K of the radial basis of the value position encoding; 0 for values without it.
            (default: :obj:`64`)
        domain (str, optional): :obj:`"real"`, :obj:`"reciprocal"`, :obj:`"multihead"` or :obj:`"auto"`.
            (default: :obj:`"real"`)
        r0 (float, optional): Length scale in real space, A. (default: :obj:`1.4`)
        r0_reciprocal (float, optional): Length scale of the heads in reciprocal space, A. (default: :obj:`2.2`)
        rho_min (float, optional): Lower bound of :math:`\rho`. (default: :obj:`0.5`)
        rho_min_reciprocal (float, optional): The same for the heads in reciprocal space. (default: :obj:`0.5`)
        rho_max (float, optional): Upper bound of :math:`\rho` where :obj:`domain="auto"`. (default: :obj:`4.0`)
        basis_range (float, optional): Distance of the last basis function, A. (default: :math:`10\, r_0`)
        elu_beta (float, optional): How fast :math:`\rho` reacts to the query. (default: :obj:`0.1`)
        reciprocal_floor (float, optional): Lower bound of the sum over wave vectors. (default: :obj:`1e-6`)
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** states :math:`(N, C_{in})`, edges :math:`(2, E)`, distances :math:`(E,)`
        - **output:** states :math:`(N, C_{out})`

    Raises:
        ValueError: if :obj:`out_channels` is no multiple of :obj:`heads`, or an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 8,
        num_basis: int = 64,
        domain: str = "real",
        r0: float = 1.4,
        r0_reciprocal: float = 2.2,
        rho_min: float = 0.5,
        rho_min_reciprocal: float = 0.5,
        rho_max: float = 4.0,
        basis_range: float | None = None,
        elu_beta: float = 0.1,
        reciprocal_floor: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(node_dim=0, **{"aggr": "add"} | kwargs)
        check_choice("aggr", kwargs.get("aggr", "add"), ("add", "sum"))
        check_choice("flow", self.flow, ("source_to_target",))
        check_choice("domain", domain, DOMAINS)
        check_argument(heads >= 1, "heads", "a positive number", heads)
        check_argument(out_channels % heads == 0, "out_channels", f"a multiple of heads, {heads}", out_channels)
        check_argument(
            domain != "multihead" or heads % 2 == 0, "heads", "an even number where domain is 'multihead'", heads
        )
        check_argument(num_basis >= 0, "num_basis", "zero or a positive number", num_basis)
        check_argument(
            domain != "auto" or num_basis == 0, "num_basis", "0 where domain is 'auto', which has no W^E", num_basis
        )
        check_argument(rho_max > 1, "rho_max", "a number above 1, the value before training", rho_max)
        check_argument(basis_range is None or basis_range > 0, "basis_range", "a positive length in A", basis_range)
        check_argument(elu_beta > 0, "elu_beta", "a positive number", elu_beta)
        check_argument(r0 > 0 and r0_reciprocal > 0, "r0", "positive lengths in A", (r0, r0_reciprocal))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.head_dim = out_channels // heads
        self.domain = domain
        self.r0 = r0
        self.r0_reciprocal = r0_reciprocal
        self.rho_min = rho_min
        self.rho_max = rho_max
        self.reciprocal_floor = reciprocal_floor
        self.scale = 1 / math.sqrt(self.head_dim)
        self.real_heads = {"reciprocal": 0, "multihead": heads // 2}.get(domain, heads)
        self.num_basis = num_basis if self.real_heads else 0
        self.basis: GaussianBasis | None = None
        if self.num_basis:
            self.basis = GaussianBasis(num_basis, (10 * r0 if basis_range is None else basis_range) / num_basis)

        self.qkv = nn.Linear(in_channels, 3 * out_channels)
        bounds = (rho_min,) * self.real_heads + (rho_min_reciprocal,) * (heads - self.real_heads)
        self.decay = GaussianDecay(heads, self.head_dim, bounds, elu_beta)
        self.out = nn.Linear(out_channels, out_channels)
        if self.num_basis:
            self.value_encoding = nn.Parameter(torch.empty(self.real_heads, self.head_dim, num_basis))
        else:
            self.register_parameter("value_encoding", None)
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the weights anew as the paper does; `gain` scales values and output (0.67 L^-1/4 in L blocks)."""
        super().reset_parameters()
        for part, part_gain in zip(self.qkv.weight.data.chunk(3), (1.0, 1.0, gain), strict=True):
            nn.init.xavier_uniform_(part)
            part.mul_(part_gain)
        nn.init.xavier_uniform_(self.out.weight, gain=gain)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)
        self.decay.reset_parameters()
        if self.value_encoding is not None:
            nn.init.xavier_uniform_(self.value_encoding.data.view(-1, self.num_basis), gain=self.num_basis**-0.5)

    def forward(
        self,
        x: Tensor,
        edge_index: Adj | None = None,
        edge_dist: Tensor | None = None,
        waves: WaveVectors | None = None,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer.

        Args:
            x: States of the atoms, shape (N, C_in).
            edge_index: Edges from source to target, shape (2, E), or an :class:`torch_geometric.EdgeIndex`.
            edge_dist: Their lengths, A, shape (E,).
            waves: Wave vectors, for heads in reciprocal space, from
                :func:`~torch_geometric_crystal.ops.gather_wave_vectors`.
            return_attention_weights: If set, also return ``(edge_index, weights)`` with weights (E, H) of the heads in
                real space.

        Raises:
            ValueError: if the edges or waves that the domain needs are missing or of wrong shape, or weights are to be
                returned where there are no heads in real space.
        """
        if not self.real_heads:
            expected = "False in reciprocal space, where no image has a weight of its own"
            check_argument(not return_attention_weights, "return_attention_weights", expected, True)
            return self.attend(x, None, waves)[0]
        if edge_index is None or edge_dist is None:
            raise ValueError("edge_index, edge_dist: expected edges for the heads in real space, received None")
        edge_dist = edge_dist.to(at_least_float32(x.dtype))
        if self.explain or return_attention_weights:
            return self._forward_unfused(x, edge_index, edge_dist, waves, return_attention_weights)
        return self.attend(x, group_edges(edge_index, edge_dist, x.size(0)), waves)[0]

    def attend(
        self,
        x: Tensor,
        neighborhood: Neighborhood | EdgeStream | None,
        waves: WaveVectors | None = None,
        blocks: list[RowBlock] | None = None,
        multiplicity: Tensor | None = None,
    ) -> tuple[Tensor, RowStatistics | None]:
        """The layer on edges, grouped or streamed, that a model shares between its layers.

        Crystalformer's blocks call this, not the layer: hooks belong on the block, or on the parts `qkv` and `out`.

        Returns:
            The new states (N, C_out) and, if there are heads in real space, what bounds on the truncation need.
        """
        query, key, value, rho = self._project(x, multiplicity)
        parts, statistics, split = [], None, self.real_heads
        if split and neighborhood is not None:
            inputs = (query[:, :split], key[:, :split], value[:, :split], rho[:, :split])
            settings: dict[str, Any] = {"r0": self.r0, "scale": self.scale, "basis": self.basis}
            settings["value_encoding"] = self._encoding(query.dtype)
            with without_autocast(x.device):
                if isinstance(neighborhood, EdgeStream):
                    out, lse = streamed_attention(*inputs, neighborhood, **settings)
                else:
                    out, lse = infinite_attention(*inputs, neighborhood, blocks=blocks, **settings)
            parts.append(out)
            statistics = RowStatistics(query[:, :split], key[:, :split], rho[:, :split], lse, self.scale)
        if self.domain == "auto" and statistics is not None:
            has_edges = ~statistics.lse.isneginf()
            parts = [torch.where(has_edges.unsqueeze(-1), parts[0], self._reciprocal(query, key, value, rho, waves))]
        elif split < self.heads:
            parts.append(self._reciprocal(query, key, value, rho, waves))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if not attended.is_cuda:  # where _project widened it
            attended = attended.to(x.dtype)
        return self.out(attended.flatten(1)), statistics

    def _project(self, x: Tensor, multiplicity: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        projected = self.qkv(x)
        if not projected.is_cuda:  # half precision is storage for the GPU's kernels; those for the CPU take float32
            projected = projected.to(at_least_float32(projected.dtype))
        query, key, value = projected.view(-1, 3, self.heads, self.head_dim).unbind(1)
        rho = self.decay(query, multiplicity)
        return query, key, value, rho.clamp(max=self.rho_max) if self.domain == "auto" else rho

    def _encoding(self, dtype: torch.dtype) -> Tensor | None:
        precise = at_least_float32(dtype)
        return None if self.value_encoding is None else self.value_encoding.to(precise)

    def _reciprocal(self, query: Tensor, key: Tensor, value: Tensor, rho: Tensor, waves: WaveVectors | None) -> Tensor:
        if waves is None:
            raise ValueError("waves: expected wave vectors for the heads in reciprocal space, received None")
        auto = self.domain == "auto"
        heads = slice(0 if auto else self.real_heads, None)
        sigma_sq = self.r0**2 / rho if auto else rho[:, heads] * self.r0_reciprocal**2
        with without_autocast(query.device):
            out, _ = reciprocal_attention(
                query[:, heads], key[:, heads], value[:, heads], sigma_sq, waves,
                scale=self.scale, floor=AUTO_FLOOR if auto else self.reciprocal_floor,
            )  # fmt: skip
        return out

    def _forward_unfused(
        self, x: Tensor, edge_index: Adj, edge_dist: Tensor, waves: WaveVectors | None, return_attention_weights: bool
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value, rho = self._project(x)
        source, target, split = edge_index[0], edge_index[1], self.real_heads
        logit = (query[target, :split] * key[source, :split]).sum(-1) * self.scale
        logit = logit - rho[target, :split] * (edge_dist.square() / (2 * self.r0**2)).unsqueeze(-1)
        weights = softmax(logit, target, num_nodes=x.size(0))
        encoded = self.basis(edge_dist) if self.basis is not None else None
        parts = [self.propagate(edge_index, value=value[:, :split], weights=weights, encoded=encoded, size=None)]
        if self.domain == "auto":
            has_edges = torch.zeros_like(x[:, 0], dtype=torch.bool).index_fill(0, target, True)
            parts = [torch.where(has_edges[:, None, None], parts[0], self._reciprocal(query, key, value, rho, waves))]
        elif split < self.heads:
            parts.append(self._reciprocal(query, key, value, rho, waves))
        out = self.out(torch.cat(parts, dim=1).flatten(1).to(x.dtype))
        return (out, (edge_index, weights)) if return_attention_weights else out

    def message(self, value_j: Tensor, weights: Tensor, encoded: Optional[Tensor]) -> Tensor:  # noqa: UP045 (PyG reads it)
        """Weighted value of each edge, shape (E, H, d)."""
        if encoded is not None and self.value_encoding is not None:
            value_j = value_j + torch.einsum("hdk,ek->ehd", self.value_encoding.to(encoded.dtype), encoded)
        return weights.unsqueeze(-1) * value_j

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, heads={self.heads}, "
            f"num_basis={self.num_basis}, domain={self.domain!r})"
        )
