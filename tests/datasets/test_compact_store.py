import os
import pickle
import time

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.datasets import CompactStore, write_compact_store

LEFT_HANDED = np.array([[4.0, 0.3, -0.2], [0.5, 5.0, 0.1], [0.2, -0.4, -6.0]])


def crystals(dtype=torch.float64):
    return [
        make_crystal([1, 118], np.array([[0, 0, 0], [9, -7, 1.5]]), LEFT_HANDED, [True] * 3, [1.0, np.nan], "a", dtype),
        make_crystal([8], np.array([[1, 2, 3.0]]), np.eye(3) * 4, [True, True, False], [2.0, 3.0], "slab", dtype),
        make_crystal([8, 1], np.array([[0, 0, 0], [0, 0, 0.97]]), np.eye(3), [False] * 3, [4.0, 5.0], "water", dtype),
    ]


# Coordinates in units of the vectors: up to 4 here, rounded in float32 to 2.4e-7, times 5 A; in float64 to 4e-16.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_what_was_written_is_read(tmp_path, dtype, tolerance):
    path = tmp_path / "store.npz"
    assert write_compact_store(path, iter(crystals()), ["gap", "energy"], dtype=dtype) == 3
    store = CompactStore(path)
    assert (len(store), store.target_names, store.structure_ids) == (3, ("gap", "energy"), ["a", "slab", "water"])
    assert store.num_atoms.tolist() == [2, 1, 2]
    for entry, expected in zip(store, crystals(), strict=True):
        data = entry.load(torch.float64)
        assert torch.equal(data.z, expected.z)
        assert torch.equal(data.cell, expected.cell)
        assert torch.equal(data.pbc, expected.pbc)
        assert torch.allclose(data.pos, expected.pos, rtol=0, atol=tolerance)
        assert torch.equal(data.y.nan_to_num(-1), expected.y.nan_to_num(-1))


def test_items_are_found_by_position(tmp_path):
    write_compact_store(tmp_path / "store.npz", crystals(), ["gap", "energy"])
    store = CompactStore(tmp_path / "store.npz", "energy")
    assert store[-1].structure_id == "water"
    assert store[1].y.tolist() == [[3.0]]
    with pytest.raises(IndexError):
        store[3]


def test_crystals_without_targets_names_and_pbc_are_written(tmp_path):
    data = crystals()[:1]
    for key in ("y", "structure_id", "pbc"):
        del data[0][key]
    write_compact_store(tmp_path / "store.npz", data)
    store = CompactStore(tmp_path / "store.npz")
    assert store.structure_ids == ["0"]
    assert store[0].pbc.all()
    assert "y" not in store[0]


def foreign(tmp_path):
    """A file that gives lengths and angles of cells, as that of the Matbench gap task does."""
    rng = np.random.default_rng(0)
    parameters = np.concatenate([rng.uniform(3, 9, (4, 3)), rng.uniform(70, 110, (4, 3))], axis=1)
    arrays = {
        "cell_parameters": parameters,
        "num_atoms": np.array([1, 2, 3, 4], dtype=np.int32),
        "z": rng.integers(1, 90, 10).astype(np.uint8),
        "frac_coords": rng.random((10, 3)).astype(np.float32),
        "gap_pbe": np.array([0, 1, 2, np.nan], dtype=np.float32),
        "spacegroup": np.array([1, 2, 3, 4], dtype=np.uint8),
    }
    np.savez_compressed(tmp_path / "foreign.npz", **arrays)
    return arrays


def test_a_file_of_lengths_and_angles_is_read_as_pymatgen_would(tmp_path):
    arrays = foreign(tmp_path)
    store = CompactStore(tmp_path / "foreign.npz")
    assert store.target_names == ("gap_pbe",)
    assert store.structure_ids[0] == "foreign-000001"
    first = 0
    for k, row in enumerate(arrays["cell_parameters"]):
        data = store.entry(k).load(torch.float64)
        lattice = Lattice.from_parameters(*row)
        atoms = slice(first, first + k + 1)
        assert np.allclose(data.cell[0], lattice.matrix, rtol=0, atol=1e-12)
        assert np.allclose(data.pos, lattice.get_cartesian_coords(arrays["frac_coords"][atoms]), rtol=0, atol=1e-12)
        assert data.z.tolist() == arrays["z"][atoms].tolist()
        first = atoms.stop
    assert np.isnan(store.targets[3, 0])


def test_a_hundred_thousand_structures_are_read_in_seconds(tmp_path):
    number, atoms = 100_000, 8
    np.savez(
        tmp_path / "large.npz",
        format="torch_geometric_crystal compact store 1",
        num_atoms=np.full(number, atoms, dtype=np.int32),
        z=np.full(number * atoms, 6, dtype=np.uint8),
        frac_coords=np.zeros((number * atoms, 3), dtype=np.float32),
        cells=np.tile(np.eye(3) * 4, (number, 1, 1)),
        pbc=np.ones((number, 3), dtype=bool),
        structure_ids=np.arange(number).astype(np.str_),
        targets=np.zeros((number, 1)),
        target_names=np.array(["energy"]),
    )
    start = time.perf_counter()
    store = CompactStore(tmp_path / "large.npz")
    # It takes about 0.2 s; the allowance is for a busy machine.
    assert time.perf_counter() - start < 5
    assert store.entry(99_999).structure_id == "99999"


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array("torch_geometric_crystal compact store 9")}, "has format .* 9'; this version reads"),
        ({"z": None}, "is not a compact store: it lacks z"),
        ({"cells": None}, "it lacks cells"),
        ({"z": np.zeros(3, dtype=np.uint8)}, r"is damaged: z has shape \(3,\), not \(5,\)"),
        ({"num_atoms": np.array([2, 1], dtype=np.int32)}, "is damaged: z has shape"),
        ({"num_atoms": np.array([4, -1, 2], dtype=np.int32)}, "is damaged: a crystal has fewer than 0 atoms"),
        ({"targets": np.zeros((3, 1))}, r"is damaged: targets has shape \(3, 1\), not \(3, 2\)"),
        ({"pbc": np.ones((3, 2), dtype=bool)}, "is damaged: pbc"),
        ({"structure_ids": None}, "it lacks structure_ids"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(tmp_path, changes, message):
    path = tmp_path / "store.npz"
    write_compact_store(path, crystals(), ["gap", "energy"])
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=message):
        CompactStore(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "store.npz"
    write_compact_store(path, crystals(), ["gap", "energy"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable compact store"):
        CompactStore(path)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_in_an_array_is_refused_and_not_executed(tmp_path):
    path, sentinel = tmp_path / "store.npz", tmp_path / "executed"
    write_compact_store(path, crystals(), ["gap", "energy"])
    rewrite(path, structure_ids=np.array([Payload(str(sentinel))] * 3, dtype=object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        CompactStore(path)
    path.write_bytes(pickle.dumps(Payload(str(sentinel))))
    with pytest.raises(ValueError, match="not a readable compact store"):
        CompactStore(path)
    assert not sentinel.exists()


def test_an_invalid_crystal_in_the_store_is_named(tmp_path):
    path = tmp_path / "store.npz"
    write_compact_store(path, crystals(), ["gap", "energy"])
    rewrite(path, frac_coords=np.full((5, 3), np.nan))
    with pytest.raises(InvalidStructureError, match="structure 'slab': pos"):
        CompactStore(path)[1]


@pytest.mark.parametrize(
    ("name", "names", "ids", "message"),
    [
        ("store.npy", ["gap", "energy"], None, "a name that ends in .npz"),
        ("store.npz", ["gap"], None, "target_names: expected 2 names"),
        ("store.npz", ["gap", "energy"], ["a"], "structure_ids: expected 3 names"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, name, names, ids, message):
    with pytest.raises(ValueError, match=message):
        write_compact_store(tmp_path / name, crystals(), names, ids)
    assert list(tmp_path.iterdir()) == []


def test_no_crystals_are_refused(tmp_path):
    with pytest.raises(ValueError, match="crystals: expected at least one"):
        write_compact_store(tmp_path / "store.npz", [])


def test_a_failed_writing_leaves_the_old_store(tmp_path, monkeypatch):
    path = tmp_path / "store.npz"
    write_compact_store(path, crystals(), ["gap", "energy"])
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_compact_store(path, crystals()[:1], ["gap", "energy"])
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["store.npz"]
