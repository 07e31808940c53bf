"""Consecutive segments of a flat array, given by their lengths."""

import torch
from torch import Tensor


def segment_index(counts: Tensor, total: int) -> Tensor:
    """Segment of each member: 0 ``counts[0]`` times, 1 ``counts[1]`` times, ...; shape (total,), their sum."""
    return torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts, output_size=total)
