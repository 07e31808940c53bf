"""Crystalformer: a transformer over the infinitely repeated atoms of a crystal."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.nn.atom_embedding import AtomEmbedding
from torch_geometric_crystal.nn.conv.periodic_infinite_attention import (
    DOMAINS,
    PeriodicInfiniteAttention,
    RowStatistics,
)
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph, gather_crystal_graph
from torch_geometric_crystal.nn.fused_block import can_run_fused, run_fused
from torch_geometric_crystal.nn.models.official_checkpoint import load_official_checkpoint, translate_official
from torch_geometric_crystal.nn.property_head import PropertyHead
from torch_geometric_crystal.nn.readout import TargetNormalization
from torch_geometric_crystal.nn.truncation_report import crystal_truncation_bound, row_truncation_bound
from torch_geometric_crystal.ops.precision import without_autocast
from torch_geometric_crystal.transforms.merging import refuse_merged


class CrystalformerBlock(nn.Module):
    r"""Attention and a feed-forward part, each added to the states; no normalisation, no dropout.

    .. math::
        \mathbf{x} \leftarrow \mathbf{x} + \mathrm{attention}(\mathbf{x}), \qquad
        \mathbf{x} \leftarrow \mathbf{x} + W_2\, \mathrm{relu}(W_1 \mathbf{x} + \mathbf{b}_1) + \mathbf{b}_2

    Args:
        channels (int): Size of the states.
        feedforward_channels (int): Size of the hidden layer.
        **attention: Arguments of :class:`~torch_geometric_crystal.nn.PeriodicInfiniteAttention`.
    """

    def __init__(self, channels: int, feedforward_channels: int, **attention: Any):
        super().__init__()
        self.attention = PeriodicInfiniteAttention(channels, channels, **attention)
        self.expand = nn.Linear(channels, feedforward_channels)
        self.contract = nn.Linear(feedforward_channels, channels)

    def reset_parameters(self, gain: float) -> None:
        """Draw the weights anew as the paper does, with this gain on everything that is added to the states."""
        self.attention.reset_parameters(gain)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight, gain=gain)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, graph: CrystalGraph) -> tuple[Tensor, RowStatistics | None]:
        """Return the new states (N, C) and what bounds on the truncation need."""
        return run_fused(self, x, graph) if can_run_fused(self, x, graph) else self.run_parts(x, graph)

    def run_parts(self, x: Tensor, graph: CrystalGraph) -> tuple[Tensor, RowStatistics | None]:
        """The same as :meth:`forward`, one part after the other."""
        counts = () if graph.multiplicity is None else (graph.multiplicity,)
        attended, statistics = self.attention.attend(x, graph.edges, graph.waves, graph.blocks, *counts)
        x = x + attended
        return x + self.contract(self.expand(x).relu_()), statistics


class Crystalformer(nn.Module):
    r"""The full model of `"Crystalformer: Infinitely Connected Attention for Periodic Structure Encoding"
    <https://arxiv.org/abs/2403.11686>`_ (Taniai et al., ICLR 2024).

    .. math::
        \mathbf{x}_i^{(0)} = \mathrm{embedding}(Z_i), \qquad
        \mathbf{x}^{(l)} = \mathrm{block}_l(\mathbf{x}^{(l-1)}), \qquad
        \hat{\mathbf{y}} = W_2\, \mathrm{relu} \Big( W_1 \frac{1}{N} \sum_i \mathbf{x}_i^{(L)} + \mathbf{b}_1 \Big) +
        \mathbf{b}_2

    The defaults are the paper's (853,505 parameters). Its variants: :obj:`num_basis=0` without value position
    encoding; :obj:`domain="multihead"` with half of the heads in reciprocal space; :obj:`domain="alternating"` with
    blocks in real and reciprocal space in turn. Weights are drawn as in the paper; in the first forward pass in
    training each block takes the statistics of its decay from that batch
    (:class:`~torch_geometric_crystal.nn.decay.GaussianDecay`).

    Graph: apply :meth:`neighborhood` to each crystal. If :obj:`data.pos` or :obj:`data.cell` require gradients, the
    output is differentiable in them (forces and stress).

    Args:
        num_targets (int, optional): Number of targets T. (default: :obj:`1`)
        channels (int, optional): Size of the atoms' states. (default: :obj:`128`)
        num_blocks (int, optional): Number of blocks L. (default: :obj:`4`)
        num_heads (int, optional): Attention heads. (default: :obj:`8`)
        num_basis (int, optional): Radial basis of the value position encoding; 0 for none. (default: :obj:`64`)
        domain (str or list of str, optional): :obj:`"real"`, :obj:`"reciprocal"`, :obj:`"multihead"`,
            :obj:`"alternating"`, or one of the first three for each block; or :obj:`"auto"` with :obj:`num_basis=0`:
            each crystal is summed in the domain that costs less. (default: :obj:`"real"`)
        feedforward_channels (int, optional): Hidden size of the feed-forward parts. (default: :obj:`4 * channels`)
        head_channels (int, optional): Hidden size of the last perceptron. (default: :obj:`channels`)
        pooling (str, optional): :obj:`"mean"`, :obj:`"sum"` for extensive targets, or :obj:`"max"` for targets that
            one part of a crystal decides, as the highest frequency of its phonons; see
            :class:`~torch_geometric_crystal.nn.property_head.PropertyHead`. (default: :obj:`"mean"`)
        num_elements (int, optional): Largest atomic number that the embedding holds. (default: :obj:`98`)
        r0, r0_reciprocal, rho_min, rho_min_reciprocal, rho_max, basis_range, elu_beta, reciprocal_floor: as in
            :class:`~torch_geometric_crystal.nn.PeriodicInfiniteAttention`.
        level (str, optional): :obj:`"crystal"`, or :obj:`"atom"` for targets of each atom, without pooling.
            (default: :obj:`"crystal"`)
        element_features (bool, optional): Whether the elements' tabulated properties add to the embedding, as in
            :class:`~torch_geometric_crystal.nn.atom_embedding.AtomEmbedding`: for small training sets.
            (default: :obj:`False`)

    Shapes:
        - **input:** a batch of B crystals with `z` :math:`(N,)` and the fields that :meth:`neighborhood` writes
        - **output:** targets :math:`(B, T)` in physical units; with ``return_embedding=True`` also the pooled states
          :math:`(B, C)`. At the level of atoms :math:`(N, T)` and :math:`(N, C)`

    Raises:
        ValueError: if an argument is out of range, or a batch comes without the graph.
    """

    def __init__(
        self,
        num_targets: int = 1,
        channels: int = 128,
        num_blocks: int = 4,
        num_heads: int = 8,
        num_basis: int = 64,
        domain: str | Sequence[str] = "real",
        feedforward_channels: int | None = None,
        head_channels: int | None = None,
        pooling: str = "mean",
        num_elements: int = 98,
        r0: float = 1.4,
        r0_reciprocal: float = 2.2,
        rho_min: float = 0.5,
        rho_min_reciprocal: float = 0.5,
        rho_max: float = 4.0,
        basis_range: float | None = None,
        elu_beta: float = 0.1,
        reciprocal_floor: float = 1e-6,
        level: str = "crystal",
        element_features: bool = False,
    ):
        super().__init__()
        check_argument(num_blocks >= 1, "num_blocks", "at least 1", num_blocks)
        check_argument(1 <= num_elements <= 118, "num_elements", "1 .. 118", num_elements)
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        arguments["domain"] = domain if isinstance(domain, str) else list(domain)
        self._config: dict[str, Any] = arguments
        self.domains = block_domains(domain, num_blocks)
        self.num_elements = num_elements
        self.gradient_checkpointing = False

        self.embedding = AtomEmbedding(num_elements, channels, element_features)
        blocks = [
            CrystalformerBlock(
                channels,
                feedforward_channels or 4 * channels,
                heads=num_heads,
                num_basis=num_basis,
                domain=block_domain,
                r0=r0,
                r0_reciprocal=r0_reciprocal,
                rho_min=rho_min,
                rho_min_reciprocal=rho_min_reciprocal,
                rho_max=rho_max,
                basis_range=basis_range,
                elu_beta=elu_beta,
                reciprocal_floor=reciprocal_floor,
            )
            for block_domain in self.domains
        ]
        self.blocks = nn.ModuleList(blocks)
        self._basis = next((block.attention.basis for block in blocks if block.attention.basis is not None), None)
        self.head = PropertyHead(channels, head_channels or channels, num_targets, pooling, level)
        self.normalization = TargetNormalization(num_targets)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew as the paper does. The targets' normalisation stays."""
        num_blocks = len(self.blocks)
        self.embedding.draw(std=self.embedding.embedding_dim**-0.5 * (9 * num_blocks) ** -0.25)
        for block in cast(list[CrystalformerBlock], list(self.blocks)):
            block.reset_parameters(0.67 * num_blocks**-0.25)
        self.head.reset_parameters()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, so that ``Crystalformer(**model.config())`` has the same architecture."""
        return dict(self._config)

    def neighborhood(self, tol: float = 1e-3, merge_tolerance: float | None = None, **kwargs: Any) -> BaseTransform:
        """Return the transform that makes the graph this model needs.

        Args:
            tol: tolerated share of the dropped images in any row of the attention, at the widest Gaussian that the
                model can learn; see :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood`.
            merge_tolerance: with a number, one atom of each kind is kept, see
                :class:`~torch_geometric_crystal.transforms.MergeEquivalentAtoms`: the same outputs and gradients of the
                weights, faster. Not in reciprocal space, for targets of atoms, forces and stress. None keeps all.
            **kwargs: other arguments of the first transform, e.g. :obj:`cutoff` in A.

        Raises:
            ValueError: if atoms are to be merged that have targets or waves.
        """
        from torch_geometric_crystal.transforms.infinite_neighborhood import InfiniteNeighborhood
        from torch_geometric_crystal.transforms.merge_equivalent_atoms import MergeEquivalentAtoms

        config = self._config
        auto = "auto" in self.domains
        sigma_min = config["r0_reciprocal"] * math.sqrt(config["rho_min_reciprocal"])
        if auto:
            sigma_min = config["r0"] / math.sqrt(config["rho_max"])
        arguments: dict[str, Any] = {
            "tol": tol,
            "sigma_max": config["r0"] / math.sqrt(config["rho_min"]),
            "reciprocal_sigma_min": sigma_min if self.has_reciprocal_heads else None,
            "real": self.has_real_heads,
            "domain": "auto" if auto else "all",
        }
        if merge_tolerance is None:
            return InfiniteNeighborhood(**arguments | kwargs)
        mergeable = config["level"] == "crystal" and not self.has_reciprocal_heads
        expected = "None for targets of atoms and in reciprocal space"
        check_argument(mergeable, "merge_tolerance", expected, merge_tolerance)
        asked = kwargs.get("edges", "stored")
        check_argument(asked != "streamed", "edges", "'stored' where atoms are merged", asked)
        stored = InfiniteNeighborhood(**arguments | kwargs | {"edges": "stored"})
        return Compose([stored, MergeEquivalentAtoms(merge_tolerance)])

    def forward(self, data: Data, return_embedding: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the targets of each crystal of a batch, or of a single crystal.

        Raises:
            ValueError: if the graph is missing, or an element lies outside the embedding.
        """
        out, pooled = self.predict(self.gather(data))
        return (out, pooled) if return_embedding else out

    def predict(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """Targets and pooled states, as :meth:`forward`, of a batch that :meth:`gather` read."""
        out, pooled = self.head(self.encode(graph), graph.batch, graph.num_crystals, graph.ptr, graph.multiplicity)
        return self.normalization(out), pooled

    def encode(self, graph: CrystalGraph) -> Tensor:
        """Return the states of the atoms after the last block, shape (N, C)."""
        x = self.embedding(graph.z - 1)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x, _ = checkpoint(block, x, graph, use_reentrant=False)
            else:
                x, _ = block(x, graph)
        return x

    def atom_contributions(self, data: Data) -> Tensor:
        """Each atom's part of its crystal's targets, shape (N, T), in physical units; they sum to the output.

        The rule is that of :meth:`~torch_geometric_crystal.nn.property_head.PropertyHead.atom_contributions`; the mean
        of the targets is shared equally.

        Raises:
            ValueError: where atoms are merged.
        """
        graph = self.gather(data)
        check_argument(graph.multiplicity is None, "data", "all atoms of each crystal", "merged ones")
        parts = self.head.atom_contributions(self.encode(graph), graph.batch, graph.num_crystals)
        count = torch.bincount(graph.batch, minlength=graph.num_crystals)[graph.batch].unsqueeze(-1)
        return parts * self.normalization.std + self.normalization.mean / count

    @torch.no_grad()
    def truncation_report(self, data: Data) -> Tensor:
        """Certified share that dropped images would have had in any row, head and block of each crystal, shape (B,).

        The bound is a posteriori: from the widths and logits that the model has on this batch, with no allowance for
        their spread. See :func:`~torch_geometric_crystal.ops.truncation.posterior_truncation_bound`.

        Raises:
            ValueError: if the batch lacks the certificate that the transform writes.
        """
        expected = "wave_bound, which InfiniteNeighborhood writes and RebuildEdges removes"
        has_bound = not self.has_reciprocal_heads or "wave_bound" in data
        check_argument(has_bound, "data", expected, sorted(data.keys()))
        graph = self.gather(data)
        bounds = [data.wave_bound.to(graph.batch.device).double()] if self.has_reciprocal_heads else []
        x = self.embedding(data.z - 1)
        for block in self.blocks:
            x, statistics = block(x, graph)
            if statistics is not None:
                rows = row_truncation_bound(statistics, data, graph.batch, self._config["r0"], self._config["rho_min"])
                # Where nothing was left out, all edges or all waves are there: in particular crystals without edges.
                rows = rows.masked_fill(data.log_tail.isneginf().unsqueeze(-1), 0.0)
                bounds.append(crystal_truncation_bound(rows, graph.batch, graph.num_crystals))
        return torch.stack(bounds).amax(0)

    @classmethod
    def from_official_state_dict(
        cls, state_dict: Mapping[str, Tensor] | str | os.PathLike, config: Mapping[str, Any]
    ) -> "Crystalformer":
        """Load weights of the authors' code (omron-sinicx/crystalformer).

        Args:
            state_dict: the state dict, or the path of a checkpoint that holds one; it is read with weights_only=True.
            config: the authors' settings, with their names: model_dim, head_num, num_layers, ff_dim, embedding_dim,
                layer_domain or domain, value_pe_dist_real, value_pe_dist_max, scale_real, scale_reci, ...

        Returns:
            the model in evaluation mode.

        Raises:
            ValueError: if a setting is not supported, or a weight is missing, superfluous or of wrong shape.
        """
        if not isinstance(state_dict, Mapping):
            state_dict = load_official_checkpoint(state_dict)
        arguments, weights = translate_official(state_dict, config)
        model = cls(**arguments)
        model.load_state_dict(weights)
        return model.eval()

    @property
    def has_real_heads(self) -> bool:
        """Whether a batch needs edges."""
        return any(domain != "reciprocal" for domain in self.domains)

    @property
    def has_reciprocal_heads(self) -> bool:
        """Whether a batch needs wave vectors."""
        return any(domain != "real" for domain in self.domains)

    def gather(self, data: Data) -> CrystalGraph:
        """What the layers need of a batch, in order: everything that reads the device back happens here.

        Raises:
            ValueError: if the graph is missing, an element lies outside the embedding, or atoms are merged where each
                has its own targets.
        """
        if self._config["level"] == "atom":
            refuse_merged(data, "where each has its own targets")
        # On a GPU this would wait for the device; there the embedding's own look-up asserts the range.
        if data.z.numel() and not data.z.is_cuda and not torch.compiler.is_compiling():
            lowest, highest = (int(bound) for bound in torch.aminmax(data.z))
            check_argument(
                lowest >= 1 and highest <= self.num_elements,
                "data.z",
                f"atomic numbers 1 .. {self.num_elements} (Crystalformer(num_elements=118) holds all elements)",
                (lowest, highest),
            )
        weight = self.embedding.weight
        with without_autocast(weight.device):
            return gather_crystal_graph(data, weight.dtype, self.has_real_heads, self.has_reciprocal_heads, self._basis)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{self.__class__.__name__}({settings})"


def block_domains(domain: str | Sequence[str], num_blocks: int) -> list[str]:
    """The domain of each block.

    Raises:
        ValueError: if a name is unknown, or the number of names is not that of the blocks.
    """
    if domain == "alternating":
        return [("real", "reciprocal")[index % 2] for index in range(num_blocks)]
    if isinstance(domain, str):
        check_choice("domain", domain, (*DOMAINS, "alternating"))
        return [domain] * num_blocks
    check_argument(len(domain) == num_blocks, "domain", f"{num_blocks} domains, one for each block", list(domain))
    for name in domain:
        check_choice("domain", name, DOMAINS)
    check_argument(
        "auto" not in domain or set(domain) == {"auto"}, "domain", "'auto' in all blocks or in none", list(domain)
    )
    return list(domain)
