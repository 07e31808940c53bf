"""The graphs of CGCNN and ALIGNN on 200 real structures, against plain search."""

from collections import Counter
from itertools import chain, product

import numpy as np
import pytest
import torch

from torch_geometric_crystal.datasets import MatbenchPhonons
from torch_geometric_crystal.transforms import LineGraph, PeriodicKNNGraph

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def real_crystals(tmp_path_factory):
    """200 of the bundled structures, spread over the set, in float64."""
    dataset = MatbenchPhonons(root=tmp_path_factory.mktemp("phonons"), dtype=torch.float64, log=False)
    small = [data for data in dataset if data.num_nodes <= 12]
    return [small[index].clone() for index in np.linspace(0, len(small) - 1, 200).astype(int)]


def images(data, radius):
    """Each atom's neighbours within a radius, as (distance, source, shift), sorted: all images, one cell at a time."""
    pos, cell = data.pos.numpy(), data.cell[0].numpy()
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil((radius + np.linalg.norm(np.ptp(pos, axis=0))) / heights).astype(int)
    rows = [[] for _ in pos]
    for shift in product(*(range(-n, n + 1) for n in reach)):
        distances = np.linalg.norm(pos[None] + np.array(shift) @ cell - pos[:, None], axis=-1)
        for target, source in zip(*np.nonzero(distances <= radius), strict=True):
            if target != source or shift != (0, 0, 0):
                rows[target].append((distances[target, source], int(source), shift))
    return [sorted(row) for row in rows]


@pytest.fixture(scope="module")
def rows_within_8(real_crystals):
    return [images(data, 8.0 + TOLERANCE) for data in real_crystals]


def nearest_shells(row, k):
    """The shells of a sorted row up to the one with the k-th neighbour, each sorted by source and shift."""
    shells, taken, last = [], 0, -np.inf
    for distance, source, shift in row:
        if distance - last > TOLERANCE:
            if taken >= k:
                break
            shells.append([])
        shells[-1].append((source, shift))
        taken, last = taken + 1, distance
    return [sorted(shell) for shell in shells]


def whole_shells(rows, k):
    """Edges (target, source, shift) to the k nearest and all that tie with the last; and those with their reverse."""
    edges = {
        (target, source, shift)
        for target, row in enumerate(rows)
        for shell in nearest_shells(row, k)
        for source, shift in shell
    }
    return edges, edges | {(source, target, tuple(-n for n in shift)) for target, source, shift in edges}


def stored(data):
    shifts = map(tuple, data.edge_shift.tolist())
    return sorted(zip(data.edge_index[1].tolist(), data.edge_index[0].tolist(), shifts, strict=True))


def test_the_graph_of_alignn_has_all_ties_and_both_directions(real_crystals, rows_within_8):
    transform = PeriodicKNNGraph(12, 8.0, ties="shell", shortage="grow", mutual=True)
    with_ties, one_sided = 0, 0
    for data, rows in zip(real_crystals, rows_within_8, strict=True):
        edges, both = whole_shells(rows, 12)
        with_ties += len(edges) > 12 * data.num_nodes
        one_sided += both != edges
        assert stored(transform(data)) == sorted(both), data.structure_id
    assert with_ties > 100  # what the name claims is there to be seen
    assert one_sided > 50


def test_the_graph_of_cgcnn_has_the_twelve_nearest(real_crystals, rows_within_8):
    transform = PeriodicKNNGraph(12, 8.0, ties="cut", shortage="keep")
    for data, rows in zip(real_crystals, rows_within_8, strict=True):
        expected = [
            (target, source, shift)
            for target, row in enumerate(rows)
            for source, shift in list(chain.from_iterable(nearest_shells(row, 12)))[:12]
        ]
        assert stored(transform(data)) == sorted(expected), data.structure_id


@pytest.mark.parametrize("k", [12, 60])
def test_the_cutoff_of_alignn_grows_where_neighbours_are_short(real_crystals, k):
    transform = PeriodicKNNGraph(k, 2.5, ties="shell", shortage="grow", mutual=True)
    steps = Counter()
    for data in real_crystals[::10]:
        longest = data.cell[0].norm(dim=1).max().item()
        cutoff, count = 2.5, 0
        while min(map(len, rows := images(data, cutoff + TOLERANCE))) < k:
            cutoff, count = longest if cutoff < longest else 2.0 * cutoff, count + 1
        steps[count] += 1
        graph = transform(data)
        assert graph.edge_cutoff.item() == pytest.approx(cutoff)
        assert stored(graph) == sorted(whole_shells(rows, k)[1]), data.structure_id
    assert steps[1 if k == 12 else 2] > 5  # to the longest vector, and then to twice that


def test_the_line_graph_of_real_structures_is_that_of_brute_force(real_crystals):
    alignn = PeriodicKNNGraph(12, 8.0, ties="shell", shortage="grow", mutual=True)
    for data in real_crystals[::10]:
        data = LineGraph()(alignn(data))
        source, target = data.edge_index.numpy()
        first, second = np.nonzero(target[:, None] == source[None, :])
        order = np.lexsort((first, second))
        assert np.array_equal(data.line_graph_index.numpy(), np.stack([first[order], second[order]]))
        pos, cell, shift = data.pos.numpy(), data.cell[0].numpy(), data.edge_shift.numpy()
        bond = pos[target] - pos[source] - shift @ cell  # from a to b
        one, two = bond[first[order]], bond[second[order]]
        cosine = (-one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        np.testing.assert_allclose(data.line_graph_cosine, cosine, atol=1e-12)
