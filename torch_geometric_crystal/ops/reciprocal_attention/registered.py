"""The blocked backend as operators of ``torch.library``, so that torch.compile, export and autograd see one node."""

from typing import Any

import torch
from torch import Tensor

from torch_geometric_crystal.ops.reciprocal_attention.blocked import backward_blocked, forward_blocked
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


def _waves(pos: Tensor, vector: Tensor, atom_ptr: Tensor, wave_ptr: Tensor) -> WaveVectors:
    return WaveVectors(pos, vector, atom_ptr, wave_ptr, log_volume=vector.new_empty(0))


@torch.library.custom_op("torch_geometric_crystal::reciprocal_attention", mutates_args=())
def reciprocal_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    pos: Tensor,
    vector: Tensor,
    atom_ptr: Tensor,
    wave_ptr: Tensor,
    scale: float,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """The outputs are those of forward_blocked."""
    waves = _waves(pos, vector, atom_ptr, wave_ptr)
    return forward_blocked(query, key, value, sigma_sq, waves, scale, floor)


@reciprocal_attention_op.register_fake
def _forward_fake(query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(value), torch.empty_like(sigma_sq)


@torch.library.custom_op("torch_geometric_crystal::reciprocal_attention_backward", mutates_args=())
def reciprocal_attention_backward_op(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    pos: Tensor,
    vector: Tensor,
    atom_ptr: Tensor,
    wave_ptr: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    floor: float,
    need_pos: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, sigma_sq, pos and vector; the last two empty where not asked for."""
    waves = _waves(pos, vector, atom_ptr, wave_ptr)
    grads = backward_blocked(
        grad_out, grad_lse, query, key, value, sigma_sq, waves, scale, floor, out, lse, need_pos
    )  # fmt: skip
    none = query.new_empty(0)
    return (
        *grads[:4],
        none if grads.pos is None else grads.pos,
        none.clone() if grads.vector is None else grads.vector,
    )


@reciprocal_attention_backward_op.register_fake
def _backward_fake(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    pos: Tensor,
    vector: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    need_pos = rest[-1]
    of_inputs = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), torch.empty_like(sigma_sq))
    if need_pos:
        return (*of_inputs, torch.empty_like(pos), torch.empty_like(vector))
    return (*of_inputs, query.new_empty(0), query.new_empty(0))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale, ctx.floor = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
    query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse = ctx.saved_tensors
    need_pos = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
    if torch.is_grad_enabled():
        waves = _waves(pos, vector, atom_ptr, wave_ptr)
        grads = backward_blocked(
            grad_out, grad_lse, query, key, value, sigma_sq, waves, ctx.scale, ctx.floor, out, lse, need_pos
        )  # fmt: skip
    else:
        grads = reciprocal_attention_backward_op(
            grad_out, grad_lse, query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse,
            ctx.scale, ctx.floor, need_pos,
        )  # fmt: skip
    return (*grads[:4], *(grads[4:6] if need_pos else (None, None)), None, None, None, None)


reciprocal_attention_op.register_autograd(_backward, setup_context=_setup_context)
