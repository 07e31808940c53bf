"""The wave vectors of a batch of crystals, in the form that the reciprocal sum takes them."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.lattice import reciprocal_cell
from torch_geometric_crystal.ops.segment import segment_index


class WaveVectors(NamedTuple):
    """Atoms and half of the wave vectors of each crystal; the other half is its mirror image.

    Crystal b has the atoms ``atom_ptr[b]`` to ``atom_ptr[b + 1]`` and the waves ``wave_ptr[b]`` to ``wave_ptr[b + 1]``.
    Without waves its atoms attend to nothing: output zero, log-sum-exp minus infinity.

    Attributes:
        pos: positions, A, shape (N, 3).
        vector: wave vectors g with the factor 2 pi, 1/A, shape (M, 3); g = 0 first in each crystal that has any,
            then one of each pair g, -g.
        atom_ptr: shape (B + 1,).
        wave_ptr: shape (B + 1,).
        log_volume: logarithm of each cell's volume in A^3, shape (B,).
    """

    pos: Tensor
    vector: Tensor
    atom_ptr: Tensor
    wave_ptr: Tensor
    log_volume: Tensor

    def crystal_of_atom(self) -> Tensor:
        """Crystal of each atom, shape (N,)."""
        return segment_index(self.atom_ptr.diff(), self.pos.size(0))


def gather_wave_vectors(
    pos: Tensor, cell: Tensor, wave_vector: Tensor, num_wave_vectors: Tensor, atom_ptr: Tensor
) -> WaveVectors:
    """Wave vectors from Miller indices; differentiable with respect to `pos` and `cell`.

    Args:
        pos: positions, A, shape (N, 3).
        cell: lattice vectors as rows, A, shape (B, 3, 3).
        wave_vector: Miller indices of all crystals in turn, integers, shape (M, 3); of each crystal (0, 0, 0) first,
            then one of each pair m, -m.
        num_wave_vectors: how many each crystal has, or 0, shape (B,).
        atom_ptr: crystal b has the atoms ``atom_ptr[b]`` to ``atom_ptr[b + 1]``, shape (B + 1,).

    Raises:
        ValueError: if shapes disagree, or a crystal's waves do not begin with (0, 0, 0).
    """
    num_crystals = atom_ptr.numel() - 1
    check_shape("pos", pos, (None, 3))
    check_shape("cell", cell, (num_crystals, 3, 3))
    check_shape("wave_vector", wave_vector, (None, 3))
    check_shape("num_wave_vectors", num_wave_vectors, (num_crystals,))
    wave_ptr = torch.cat([num_wave_vectors.new_zeros(1), num_wave_vectors.cumsum(0)])
    if not torch.compiler.is_compiling():
        _check_waves(wave_vector, num_wave_vectors, wave_ptr)
    crystal = segment_index(num_wave_vectors, wave_vector.size(0))
    reciprocal = reciprocal_cell(cell)
    vector = (wave_vector.to(pos.dtype).unsqueeze(1) @ reciprocal[crystal]).squeeze(1)
    return WaveVectors(pos, vector, atom_ptr, wave_ptr, torch.linalg.det(cell).abs().log())


def _check_waves(wave_vector: Tensor, num_wave_vectors: Tensor, wave_ptr: Tensor) -> None:
    """Reads the device once.

    Raises:
        ValueError: if the numbers do not add up, or a crystal's waves do not begin with (0, 0, 0).
    """
    is_first = torch.zeros(wave_vector.size(0) + 1, dtype=torch.bool, device=wave_vector.device)
    is_first[wave_ptr[:-1].clamp(0, wave_vector.size(0))] = True
    wrong = (num_wave_vectors < 0).any() | (is_first[:-1] & (wave_vector != 0).any(1)).any()
    total, wrong = torch.stack([wave_ptr[-1], wrong.to(wave_ptr.dtype)]).tolist()
    check_argument(total == wave_vector.size(0), "num_wave_vectors", f"a sum of {wave_vector.size(0)}", total)
    check_argument(not wrong, "wave_vector", "(0, 0, 0) first in every crystal", "another first vector")
