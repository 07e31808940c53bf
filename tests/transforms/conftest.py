"""Crystals of every awkward kind, and their edges by trying all images."""

from itertools import product

import numpy as np
import pytest
import torch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.testing import small_crystals


def awkward_crystals():
    """The shipped crystals, and a slab, a rod, molecules and atoms far outside the cell, in float64."""
    generator = np.random.default_rng(7)
    slab_cell = np.array([[3.0, 0.0, 0.0], [1.2, 2.8, 0.0], [0.4, 0.3, 11.0]])
    slab = generator.random((3, 3)) @ slab_cell
    far = small_crystals(torch.float64)[-1].clone()
    far.pos = far.pos + torch.tensor([[37.0, -51.0, 12.0]], dtype=torch.float64)
    far.structure_id = "far-outside"
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    return [
        *small_crystals(torch.float64),
        far,
        make_crystal([6, 7, 8], slab, slab_cell, (True, True, False), structure_id="slab", dtype=torch.float64),
        make_crystal([6, 7, 8], slab, slab_cell, (False, True, False), structure_id="rod", dtype=torch.float64),
        make_crystal([8, 1, 1], water, np.eye(3), (False,) * 3, structure_id="molecule", dtype=torch.float64),
        make_crystal([2], water[:1], np.eye(3), (False,) * 3, structure_id="lone-atom", dtype=torch.float64),
    ]


@pytest.fixture(params=awkward_crystals(), ids=lambda data: data.structure_id)
def crystal(request):
    return request.param.clone()


@pytest.fixture
def brute_force_edges():
    """A function: all (target, source, shift, distance) within a radius but the atoms themselves, as a sorted list."""

    def edges(data, radius):
        pos, cell, pbc = data.pos.numpy(), data.cell[0].numpy(), data.pbc[0].numpy()
        span = np.linalg.norm(np.ptp(pos, axis=0))
        box = cell.copy()  # with unit vectors normal to the periodic ones in the place of the others
        box[~pbc] = np.linalg.svd(np.vstack([cell[pbc], np.zeros((1, 3))]))[2][pbc.sum() :]
        heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
        reach = np.where(pbc, np.ceil((radius + span) / heights), 0).astype(int)
        found = []
        for shift in product(*(range(-n, n + 1) for n in reach)):
            vectors = pos[None] + np.array(shift) @ cell - pos[:, None]
            distances = np.linalg.norm(vectors, axis=-1)
            for target, source in zip(*np.nonzero(distances <= radius), strict=True):
                if shift != (0, 0, 0) or target != source:
                    found.append((int(target), int(source), *shift, distances[target, source]))
        return sorted(found)

    return edges


@pytest.fixture
def stored_edges():
    """A function: the edges of a crystal as brute force gives them."""

    def edges(data):
        columns = [data.edge_index[1], data.edge_index[0], *data.edge_shift.T, data.edge_dist]
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    return edges
