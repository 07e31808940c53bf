"""Crystalformer with layer norm, or with weights that know nothing of the number of blocks: model "depth-variant"."""

from typing import Any

from torch import Tensor, nn

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.conv.periodic_infinite_attention import RowStatistics
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph
from torch_geometric_crystal.nn.models import MODELS
from torch_geometric_crystal.nn.models.crystalformer import CrystalformerBlock

VARIANTS = ("paper", "layer-norm", "xavier")


class NormalizedBlock(nn.Module):
    """A block with layer norm before the attention and before the feed-forward part (Xiong et al., ICML 2020)."""

    def __init__(self, block: CrystalformerBlock, channels: int):
        super().__init__()
        self.block = block
        self.before_attention = nn.LayerNorm(channels)
        self.before_feedforward = nn.LayerNorm(channels)

    def reset_parameters(self, gain: float) -> None:
        """Draw the weights anew; the norms begin as the identity."""
        self.block.reset_parameters(gain)
        self.before_attention.reset_parameters()
        self.before_feedforward.reset_parameters()

    def forward(self, x: Tensor, graph: CrystalGraph) -> tuple[Tensor, RowStatistics | None]:
        """Return the new states and what bounds on the truncation need."""
        block = self.block
        attended, statistics = block.attention.attend(
            self.before_attention(x), graph.neighborhood, graph.waves, graph.blocks
        )
        x = x + attended
        return x + block.contract(block.expand(self.before_feedforward(x)).relu()), statistics


class DepthVariant(Crystalformer):
    """Crystalformer in one of the `VARIANTS`.

    ``"paper"``: weights drawn smaller the more blocks there are (gain 0.67 L^-1/4, as T-Fixup), no normalisation;
    ``"layer-norm"``: the same weights, with layer norm; ``"xavier"``: gain 1 whatever L is, embedding of unit norm.
    """

    def __init__(self, variant: str = "paper", **arguments: Any):
        super().__init__(**arguments)
        self._config["variant"] = self.variant = variant
        channels = self.embedding.embedding_dim
        if variant == "layer-norm":
            self.blocks = nn.ModuleList([NormalizedBlock(block, channels) for block in self.blocks])
        elif variant == "xavier":
            self.embedding.draw(std=channels**-0.5)
            for block in self.blocks:
                block.reset_parameters(1.0)


MODELS["depth-variant"] = DepthVariant
