"""The C++ backend for the CPU: float32, built by ``tgcrystal build``, first derivatives only."""

from torch import Tensor

from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.reciprocal_attention.blocked import backward_blocked
from torch_geometric_crystal.ops.reciprocal_attention.gradients import Gradients
from torch_geometric_crystal.ops.strides import with_dense_rows
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


def forward_cpp(
    query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, waves: WaveVectors, scale: float, floor: float
) -> tuple[Tensor, Tensor]:
    """Softmax over a crystal's atoms of ``scale q.k + log max(S, floor)``: output (N, H, d), log-sum-exp (N, H).

    Raises:
        ExtensionError: if the kernels are not built or cannot be loaded.
    """
    out, lse = extension.load().reciprocal_attention(
        with_dense_rows(query),
        with_dense_rows(key),
        with_dense_rows(value),
        sigma_sq.contiguous(),
        *_arrays(waves),
        scale,
        floor,
    )
    return out, lse


def backward_cpp(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    waves: WaveVectors,
    scale: float,
    floor: float,
    out: Tensor,
    lse: Tensor,
    need_pos: bool,
) -> Gradients:
    """Gradients of every input. Those of positions and wave vectors, if `need_pos`, come from the blocked backend.

    Raises:
        ExtensionError: if the kernels are not built or cannot be loaded.
    """
    if need_pos:
        return backward_blocked(
            grad_out, grad_lse, query, key, value, sigma_sq, waves, scale, floor, out, lse, need_pos
        )  # fmt: skip
    grad_query, grad_key, grad_value, grad_sigma_sq = extension.load().reciprocal_attention_backward(
        grad_out.contiguous(), grad_lse.contiguous(),
        with_dense_rows(query), with_dense_rows(key), with_dense_rows(value), sigma_sq.contiguous(), *_arrays(waves),
        scale, floor, out.contiguous(), lse.contiguous(),
    )  # fmt: skip
    return Gradients(grad_query, grad_key, grad_value, grad_sigma_sq, None, None)


def _arrays(waves: WaveVectors) -> list[Tensor]:
    return [array.contiguous() for array in (waves.pos, waves.vector, waves.atom_ptr, waves.wave_ptr)]
