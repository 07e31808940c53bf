"""Crystals for tests: random ones of every awkward shape, with their images by plain enumeration, and real ones."""

import gzip
import json
from dataclasses import dataclass
from importlib import resources

import numpy as np
from hypothesis import strategies as st

SHAPES = ("compact", "skewed", "flat", "long", "tiny", "left-handed")
PERIODICITIES = ((True, True, True),) * 5 + (
    (True, True, False),
    (False, True, True),
    (True, False, False),
    (False,) * 3,
)


def real_crystals(step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions and cell of every `step`-th structure of flla_2015 (3,938 structures)."""
    path = resources.files("torch_geometric_crystal.datasets") / "files" / "flla_2015.json.gz"
    table = json.loads(gzip.decompress(path.read_bytes()))
    structures = [row[table["columns"].index("structure")] for row in table["data"][::step]]
    cells = [np.array(structure["lattice"]["matrix"]) for structure in structures]
    fractions = [np.array([site["abc"] for site in structure["sites"]]) for structure in structures]
    return [(fraction @ cell, cell) for fraction, cell in zip(fractions, cells, strict=True)]


@dataclass
class RandomCrystal:
    """`cell` is `transform @ core`, and the atoms lie in the cells `wrap` of the core lattice, by construction."""

    pos: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    core: np.ndarray
    transform: np.ndarray
    wrap: np.ndarray

    @property
    def num_atoms(self) -> int:
        return len(self.pos)

    def images(self, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Target, source, image in `cell` and distance of all images within `radius`, the atoms themselves included."""
        dual = np.linalg.norm(np.linalg.inv(self.core), axis=0)
        limits = (np.floor(radius * dual) + 1).astype(int) * self.pbc
        box = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in limits), indexing="ij"), -1).reshape(-1, 3)
        inverse = np.rint(np.linalg.inv(self.transform)).astype(int)
        found = []
        for target in range(self.num_atoms):
            for source in range(self.num_atoms):
                core_shift = box + self.wrap[target] - self.wrap[source]
                vectors = self.pos[source] - self.pos[target] + core_shift @ self.core
                dist = np.sqrt((vectors**2).sum(1))
                near = np.flatnonzero(dist <= radius)
                pair = np.full((len(near), 2), (target, source))
                found.append((pair, core_shift[near] @ inverse, dist[near]))
        pairs, shifts, dists = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return pairs[:, 0], pairs[:, 1], shifts, dists


def _core(shape: str, lengths: list[float], angle: float, draw_sign: list[float]) -> np.ndarray:
    core = np.diag(lengths) + 0.15 * min(lengths) * np.array([[0, *draw_sign[:2]], [draw_sign[2], 0, 0], [0, 0, 0]])
    if shape == "flat":
        core[1] = lengths[1] * np.array([np.cos(angle), np.sin(angle), 0.0])
        core[0] = lengths[0] * np.array([1.0, 0.0, 0.0])
    if shape == "long":
        core[2] *= 6.0
    if shape == "tiny":
        core *= 0.3
    return core


@st.composite
def random_crystals(draw: st.DrawFn) -> RandomCrystal:
    """Crystals, slabs, rods and molecules of 1 to 6 atoms, some of them outside their cell."""
    shape = draw(st.sampled_from(SHAPES))
    pbc = np.array(draw(st.sampled_from(PERIODICITIES)))
    lengths = [draw(st.floats(2.5, 7.0)) for _ in range(3)]
    core = _core(shape, lengths, draw(st.floats(0.15, 0.6)), [draw(st.floats(-1.0, 1.0)) for _ in range(3)])
    most = 2 if abs(np.linalg.det(core)) < 15.0 else 6
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_atoms = int(rng.integers(1, most + 1))
    transform = np.eye(3, dtype=int)
    if shape == "skewed":
        for row, other in rng.permutation([(0, 1), (1, 2), (2, 0)]):
            transform[row] += rng.integers(-4, 5) * (pbc[row] and pbc[other]) * transform[other]
    if shape == "left-handed":
        periodic = np.flatnonzero(pbc)
        transform[periodic] = transform[periodic[::-1]]
    wrap = rng.integers(-2, 3, (num_atoms, 3)) * pbc
    pos = (rng.random((num_atoms, 3)) + wrap) @ core
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return RandomCrystal(pos @ rotation, transform @ core @ rotation, pbc, core @ rotation, transform, wrap)
