"""Blocks of crystals, or of the rows of one large crystal, small enough for the cache."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.ops.wave_vectors import WaveVectors

TERMS_PER_BLOCK = 65_536
"""Most padded (row, atom) and (row, wave) terms per head in a block: 2 MB in float32 at 8 heads."""

PADDING = 1.4
"""Most padded terms per term: a block ends before a crystal whose size would waste more than this."""


class CrystalBlock(NamedTuple):
    """G crystals, padded to R rows, n atoms and M waves each; several crystals always come with all their rows.

    Attributes:
        rows: target atoms, shape (G, R).
        row_padding: True where a slot holds no atom, shape (G, R).
        atoms: source atoms, shape (G, n).
        atom_padding: shape (G, n).
        waves: shape (G, M).
        wave_padding: shape (G, M).
    """

    rows: Tensor
    row_padding: Tensor
    atoms: Tensor
    atom_padding: Tensor
    waves: Tensor
    wave_padding: Tensor


def crystal_blocks(waves: WaveVectors) -> Iterator[CrystalBlock]:
    """Cut the crystals into blocks, in order, without those that have no waves."""
    used = (waves.atom_ptr.diff() > 0) & (waves.wave_ptr.diff() > 0)
    first_atom, first_wave = waves.atom_ptr[:-1][used], waves.wave_ptr[:-1][used]
    atom_counts, wave_counts = waves.atom_ptr.diff()[used], waves.wave_ptr.diff()[used]
    num_atoms, num_waves = atom_counts.tolist(), wave_counts.tolist()
    first = 0
    while first < len(num_atoms):
        last = _end_of_block(num_atoms, num_waves, first)
        atoms = _padded(first_atom[first:last], atom_counts[first:last])
        block_waves = _padded(first_wave[first:last], wave_counts[first:last])
        most_rows = max(1, TERMS_PER_BLOCK // max(atoms[0].size(1), block_waves[0].size(1)))
        rows_per_block = atoms[0].size(1) if last - first > 1 else most_rows
        for start in range(0, atoms[0].size(1), rows_per_block):
            rows = slice(start, start + rows_per_block)
            yield CrystalBlock(atoms[0][:, rows], atoms[1][:, rows], *atoms, *block_waves)
        first = last


def _end_of_block(num_atoms: list[int], num_waves: list[int], first: int) -> int:
    total = 0
    last = first
    while last < len(num_atoms):
        side = max(num_atoms[last], num_waves[last])
        total += num_atoms[last] * side
        crystals = last + 1 - first
        padded = (
            crystals
            * max(num_atoms[first : last + 1])
            * max(*num_atoms[first : last + 1], *num_waves[first : last + 1])
        )
        if crystals > 1 and (padded > TERMS_PER_BLOCK or (padded > PADDING * total and padded > TERMS_PER_BLOCK // 8)):
            break
        last += 1
    return last


def _padded(first: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Members of each segment, none empty, repeated at the end up to the longest, and where they are repeats."""
    first, counts = first.unsqueeze(1), counts.unsqueeze(1)
    slot = torch.arange(int(counts.max()), device=first.device).unsqueeze(0)
    return first + torch.minimum(slot, counts - 1), slot >= counts
