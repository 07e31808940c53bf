"""Crystalformer with any distance decay: attention written plainly in PyTorch, over shells of images.

Images of one atom at one distance from another (to SHELL, A) are one entry with their number: the attention is the
same to rounding, and symmetric crystals have several times fewer entries. For the Gaussian it equals the library's
operation (tests/experiments/test_decays.py).
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from decays_profiles import DECAYS
from decays_truncation import Images, certified_images, images_within, inverse_power_tails, series_factor
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.nn import Crystalformer, PeriodicInfiniteAttention
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph, crystal_pointers
from torch_geometric_crystal.nn.models import MODELS

SHELL = 1e-3
"""Distances that differ by less may be merged, A."""
NEAR = 6.0
"""Where the exact rest of the inverse power begins, A."""
TAIL_TERMS = 5
"""Terms of the series of that rest."""


class Layout(NamedTuple):
    """Shells of a batch, a row for each atom, padded.

    Attributes:
        square: squared distances (N, 1, D), A^2.
        log_count: logarithm of the number of images (N, 1, D), minus infinity for padding.
        local: source's place in its crystal (N, 1, D).
        encoded: radial basis at the distances (N, D, K), None without it.
        members: atoms of the row's crystal (N, M).
        present: whether they exist (N, 1, M).
        tails: sums of inverse powers beyond `NEAR` (N, 1, M, T), or None.
    """

    square: Tensor
    log_count: Tensor
    local: Tensor
    encoded: Tensor | None
    members: Tensor
    present: Tensor
    tails: Tensor | None


class DecayShells(BaseTransform):
    """Shells that drop at most `tol` of any row, or, for the inverse power, those within `NEAR` and the exact rest.

    Args:
        decay: name in `DECAYS`.
        length: the longest that can be learned, A.
        tol: tolerated share.
        spread: of the logits in a row.
        merge: whether images at one distance are one entry.
    """

    def __init__(
        self,
        decay: str = "gaussian",
        length: float = 1.4 * math.sqrt(2),
        tol: float = 1e-3,
        spread: float = 1.5,
        merge: bool = True,
    ):
        self.decay, self.length, self.tol, self.spread = decay, length, tol, spread
        self.merge = merge

    def forward(self, data: Data) -> Data:
        """Return `data` with shells."""
        pos, cell = data.pos.double().numpy(), data.cell.double().numpy()[0]
        if self.decay == "inverse-power":
            images = images_within(pos, cell, NEAR)
            tails = inverse_power_tails(pos, cell, NEAR, TAIL_TERMS)
            data.pair_tails = torch.from_numpy(tails.reshape(-1, TAIL_TERMS)).float()
        else:
            images = certified_images(pos, cell, DECAYS[self.decay], self.length, self.tol, self.spread)
        shells = merge_shells(images, SHELL if self.merge else None)
        data.shell_index = torch.from_numpy(np.stack([shells[1], shells[0]]))
        data.shell_dist = torch.from_numpy(shells[2]).float()
        data.shell_count = torch.from_numpy(shells[3]).float()
        return data

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{self.__class__.__name__}({settings})"


def merge_shells(images: Images, width: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Target, source, mean distance and number of the images of each shell, sorted by target; None: one shell each."""
    step = np.arange(len(images.dist)) if width is None else np.floor(images.dist / width + 0.5).astype(np.int64)
    keys = np.stack([images.target, images.source, step])
    unique, member, number = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    mean = np.bincount(member.ravel(), images.dist, minlength=len(number)) / number
    return unique[0], unique[1], mean, number


class DecayAttention(PeriodicInfiniteAttention):
    """The library's layer with another decay: same weights, other sum.

    Args:
        decay: name in `DECAYS`.
        **kwargs: of the layer.
    """

    def __init__(self, decay: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.profile = DECAYS[decay]
        shape = self.profile.shape(self.heads)
        self.shape = None if shape is None else nn.Parameter(shape)

    def attend(self, x: Tensor, neighborhood: Layout, *unused: None) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the new states; shells stand in place of grouped edges."""
        layout = neighborhood
        query, key, value, rho = self._project(x)
        keys, values = key[layout.members], value[layout.members]  # (N, M, H, d)
        logit = torch.einsum("nhd,nmhd->nhm", query, keys) * self.scale
        local = layout.local.expand(-1, self.heads, -1)
        reduced = rho.unsqueeze(-1) / self.r0**2
        entries = logit.gather(2, local) + self.profile.log_value(reduced * layout.square, self.shape)
        entries = entries + layout.log_count
        shells = entries.size(-1)
        if layout.tails is not None:
            entries = torch.cat([entries, logit + log_tail(reduced, layout.tails, layout.present)], -1)
        weight = entries.softmax(-1)
        near = weight[..., :shells]
        pair = torch.zeros_like(logit).scatter_add(2, local, near)
        if layout.tails is not None:
            pair = pair + weight[..., shells:]
        out = torch.einsum("nhm,nmhd->nhd", pair, values)
        if self.value_encoding is not None and layout.encoded is not None:
            out = out + torch.einsum("nhk,hdk->nhd", near @ layout.encoded, self.value_encoding)
        return self.out(out.flatten(1)), None


def log_tail(reduced: Tensor, tails: Tensor, present: Tensor) -> Tensor:
    """Logarithm of the inverse power's sum over the images of each atom beyond `NEAR`, (N, H, M).

    Args:
        reduced: inverse squared lengths (N, H, 1), 1/A^2.
        tails: as in :class:`Layout`.
        present: as in :class:`Layout`.
    """
    ratio = 1 / (reduced * NEAR**2)
    series = torch.zeros_like(ratio * tails[..., 0])
    for term in range(tails.size(-1)):
        series = series + series_factor(term) * ratio**term * tails[..., term]
    return (series.clamp(min=1e-20).log() + 3 * ratio.log()).masked_fill(~present, -torch.inf)


class DecayCrystalformer(Crystalformer):
    """Crystalformer whose blocks have :class:`DecayAttention`.

    Args:
        decay: name in `DECAYS`.
        **kwargs: of Crystalformer.
    """

    truncation_report = None  # type: ignore[assignment]

    def __init__(self, decay: str = "gaussian", **kwargs: Any):
        super().__init__(**kwargs)
        self._decay = decay
        config = self._config
        for block in self.blocks:
            block.attention = DecayAttention(
                decay,
                in_channels=config["channels"],
                out_channels=config["channels"],
                heads=config["num_heads"],
                num_basis=config["num_basis"],
                r0=config["r0"],
                rho_min=config["rho_min"],
            )
        self.reset_parameters()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().config() | {"decay": self._decay}

    def neighborhood(self, **kwargs: Any) -> BaseTransform:  # type: ignore[override]
        """Return the transform that makes the shells."""
        length = self._config["r0"] / math.sqrt(self._config["rho_min"])
        return DecayShells(**{"decay": self._decay, "length": length} | kwargs)

    def gather(self, data: Data) -> CrystalGraph:
        """Lay out the shells of a batch."""
        batch = data.batch if data.batch is not None else torch.zeros_like(data.z)
        pointers = crystal_pointers(data)
        return CrystalGraph(data.z, batch, pointers, self._layout(data, batch, pointers), None, None)  # type: ignore[arg-type]

    def _layout(self, data: Data, batch: Tensor, pointers: Tensor) -> Layout:
        source, target = data.shell_index
        number = batch.numel()
        degree = torch.bincount(target, minlength=number)
        first = degree.cumsum(0) - degree
        place = (target, torch.arange(target.numel()) - first[target])
        padded = torch.zeros(number, int(degree.max()))
        square = padded.index_put(place, data.shell_dist.square())
        log_count = (padded - torch.inf).index_put(place, data.shell_count.log())
        local = padded.long().index_put(place, source - pointers[batch[source]])
        sizes = pointers.diff()
        columns = torch.arange(int(sizes.max()))
        present = columns < sizes[batch, None]
        members = torch.where(present, pointers[batch, None] + columns, pointers[batch, None])
        tails = None
        if "pair_tails" in data:
            tails = torch.zeros(number, 1, len(columns), data.pair_tails.size(1))
            tails[present.nonzero()[:, 0], 0, present.nonzero()[:, 1]] = data.pair_tails
        encoded = None if self._basis is None else self._basis(square.sqrt())
        return Layout(square[:, None], log_count[:, None], local[:, None], encoded, members, present[:, None], tails)


MODELS["decay-crystalformer"] = DecayCrystalformer
