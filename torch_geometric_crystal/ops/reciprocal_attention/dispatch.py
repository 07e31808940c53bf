"""From the name of a backend to its forward and backward pass."""

from torch import Tensor

from torch_geometric_crystal.ops.precision import outside_autocast
from torch_geometric_crystal.ops.reciprocal_attention.blocked import backward_blocked, forward_blocked
from torch_geometric_crystal.ops.reciprocal_attention.gradients import Gradients
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


@outside_autocast
def forward(
    backend: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    waves: WaveVectors,
    scale: float,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """Output (N, H, d) and log-sum-exp (N, H) by one backend."""
    if backend == "triton":
        from torch_geometric_crystal.ops.reciprocal_attention.triton_forward import forward_triton

        return forward_triton(query, key, value, sigma_sq, waves, scale, floor)
    if backend == "cpp":
        from torch_geometric_crystal.ops.reciprocal_attention.cpp import forward_cpp

        return forward_cpp(query, key, value, sigma_sq, waves, scale, floor)
    dtype = sigma_sq.dtype
    out, lse = forward_blocked(query.to(dtype), key.to(dtype), value.to(dtype), sigma_sq, waves, scale, floor)
    return out.to(value.dtype), lse


@outside_autocast
def backward(
    backend: str,
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
    """Gradients of the inputs by one backend. Autograd can run through the backend ``"blocked"``."""
    if backend == "triton":
        from torch_geometric_crystal.ops.reciprocal_attention.triton_backward import backward_triton

        return backward_triton(
            grad_out, grad_lse, query, key, value, sigma_sq, waves, scale, floor, out, lse, need_pos
        )  # fmt: skip
    if backend == "cpp":
        from torch_geometric_crystal.ops.reciprocal_attention.cpp import backward_cpp

        return backward_cpp(
            grad_out, grad_lse, query, key, value, sigma_sq, waves, scale, floor, out, lse, need_pos
        )  # fmt: skip
    dtype = sigma_sq.dtype
    grads = backward_blocked(
        grad_out.to(dtype), grad_lse, query.to(dtype), key.to(dtype), value.to(dtype), sigma_sq, waves, scale, floor,
        out.to(dtype), lse, need_pos,
    )  # fmt: skip
    return grads._replace(
        query=grads.query.to(query.dtype), key=grads.key.to(key.dtype), value=grads.value.to(value.dtype)
    )
