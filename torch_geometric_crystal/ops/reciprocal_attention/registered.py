"""Reciprocal attention as one node of autograd, and as operators of ``torch.library`` for graphs that are recorded."""

from typing import Any

import torch
from torch import Tensor

from torch_geometric_crystal.ops.reciprocal_attention.dispatch import backward, forward
from torch_geometric_crystal.ops.tracing import is_recorded
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


def attend(query: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Run the operation, with the arguments and outputs of :func:`reciprocal_attention_op`."""
    run = reciprocal_attention_op if is_recorded(query) else _ReciprocalAttention.apply
    return run(query, *arguments)


def _waves(pos: Tensor, vector: Tensor, atom_ptr: Tensor, wave_ptr: Tensor) -> WaveVectors:
    return WaveVectors(pos, vector, atom_ptr, wave_ptr, log_volume=vector.new_empty(0))


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    pos: Tensor,
    vector: Tensor,
    atom_ptr: Tensor,
    wave_ptr: Tensor,
    backend: str,
    scale: float,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """The outputs are those of dispatch.forward."""
    waves = _waves(pos, vector, atom_ptr, wave_ptr)
    return forward(backend, query, key, value, sigma_sq, waves, scale, floor)


reciprocal_attention_op = torch.library.custom_op(
    "torch_geometric_crystal::reciprocal_attention", _run, mutates_args=()
)


@reciprocal_attention_op.register_fake
def _forward_fake(query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return value.new_empty(value.shape), sigma_sq.new_empty(sigma_sq.shape)


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
    backend: str,
    scale: float,
    floor: float,
    need_pos: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, sigma_sq, pos and vector; the last two empty where not asked for."""
    waves = _waves(pos, vector, atom_ptr, wave_ptr)
    grads = backward(backend, grad_out, grad_lse, query, key, value, sigma_sq, waves, scale, floor, out, lse, need_pos)
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
    need_pos, none = rest[-1], query.new_empty(0)
    return (
        query.new_empty(query.shape),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
        sigma_sq.new_empty(sigma_sq.shape),
        pos.new_empty(pos.shape) if need_pos else none,
        vector.new_empty(vector.shape) if need_pos else none.clone(),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.backend, ctx.scale, ctx.floor = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse = ctx.saved_tensors
    need_pos = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grad_lse = torch.zeros_like(lse) if grad_lse is None else grad_lse
    if is_recorded(query) and not torch.is_grad_enabled():
        grads = reciprocal_attention_backward_op(
            grad_out, grad_lse, query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse,
            ctx.backend, ctx.scale, ctx.floor, need_pos,
        )  # fmt: skip
    else:
        backend = "blocked" if torch.is_grad_enabled() else ctx.backend  # for second derivatives autograd records it
        waves = _waves(pos, vector, atom_ptr, wave_ptr)
        grads = backward(
            backend, grad_out, grad_lse, query, key, value, sigma_sq, waves, ctx.scale, ctx.floor, out, lse, need_pos
        )
    return (*grads[:4], *(grads[4:6] if need_pos else (None, None)), *[None] * 5)


reciprocal_attention_op.register_autograd(_backward, setup_context=_setup_context)


class _ReciprocalAttention(torch.autograd.Function):
    """The operation where it runs at once; arguments and outputs of :func:`reciprocal_attention_op`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _run(*inputs)
        ctx.set_materialize_grads(False)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return _backward(ctx, *grads)
