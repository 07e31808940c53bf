"""Segments by their lengths."""

import torch

from torch_geometric_crystal.ops.segment import segment_index


def test_each_member_gets_its_segment_and_empty_segments_none():
    counts = torch.tensor([2, 0, 3, 1])
    assert segment_index(counts, 6).tolist() == [0, 0, 2, 2, 2, 3]
    assert segment_index(counts[1:2], 0).tolist() == []
