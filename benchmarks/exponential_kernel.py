"""A Triton kernel that does nothing but exponentials, to measure how many a GPU can do."""

import torch
import triton
import triton.language as tl

BLOCK = 1024
REPEATS = 256


@triton.jit
def _exponentials(values, block: tl.constexpr, repeats: tl.constexpr):
    offsets = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(values + offsets)
    for _ in range(repeats):
        x = tl.exp2(-x)
    tl.store(values + offsets, x)


def run(values: torch.Tensor) -> None:
    """Replace each value by 2^-x, `REPEATS` times; a multiple of `BLOCK` values."""
    _exponentials[(values.numel() // BLOCK,)](values, block=BLOCK, repeats=REPEATS)
