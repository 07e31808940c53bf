import gzip
import json

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Molecule, Structure

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.datasets.bundled import FILES
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict, lattice_from_parameters

SITE = {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]}
CUBIC = {"lattice": {"matrix": (np.eye(3) * 4).tolist()}, "sites": [SITE]}
JARVIS = {"lattice_mat": (np.eye(3) * 4).tolist(), "coords": [[0.5, 0, 0]], "elements": ["Na"], "cartesian": False}


def assert_same(data, structure):
    expected = from_structure(structure, dtype=torch.float64)
    assert torch.equal(data.z, expected.z)
    assert torch.equal(data.pbc, expected.pbc)
    assert torch.equal(data.cell, expected.cell)
    # two orders of summation of the same three products
    assert torch.allclose(data.pos, expected.pos, rtol=1e-15, atol=1e-13)


@pytest.mark.parametrize("path", sorted(FILES.glob("*.json.gz")), ids=lambda path: path.name)
def test_bundled_structures_are_what_pymatgen_reads(path):
    with gzip.open(path) as file:
        rows = json.load(file)["data"]
    for row in rows[:: len(rows) // 12]:
        assert_same(crystal_from_dict(row[0], "s", torch.float64), Structure.from_dict(row[0]))


@pytest.mark.parametrize(
    "structure",
    [
        Structure(Lattice.cubic(3), ["Fe2+"], [[0.1, 0, 0]]),
        Structure(Lattice.cubic(3), ["D"], [[0, 0, 2.5]], site_properties={"magmom": [1.0]}),
        Structure(Lattice(np.diag([3, 4, -5]), pbc=(True, True, False)), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Molecule(["O", "H"], [[0, 0, 0], [0, 0, 0.97]]),
    ],
    ids=["oxidation_state", "deuterium_with_property", "left_handed_slab", "molecule"],
)
def test_what_pymatgen_writes_is_read(structure):
    assert_same(crystal_from_dict(json.loads(json.dumps(structure.as_dict())), "s", torch.float64), structure)


def test_a_lattice_of_parameters_alone_is_read():
    lattice = Lattice.from_parameters(3, 4, 5, 70, 80, 95)
    keys = {key: getattr(lattice, key) for key in ("a", "b", "c", "alpha", "beta", "gamma")}
    data = crystal_from_dict({"lattice": keys, "sites": [SITE]}, "s", torch.float64)
    assert np.allclose(data.cell[0], lattice.matrix, rtol=0, atol=1e-12)


def test_lattices_from_parameters_are_those_of_pymatgen():
    rng = np.random.default_rng(0)
    parameters = np.concatenate([rng.uniform(2, 20, (50, 3)), rng.uniform(65, 115, (50, 3))], axis=1)
    expected = np.stack([Lattice.from_parameters(*row).matrix for row in parameters])
    assert np.allclose(lattice_from_parameters(parameters), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cartesian", [False, True])
def test_jarvis_atoms_are_read(cartesian):
    raw = JARVIS | {"cartesian": cartesian, "elements": ["Na "]}
    data = crystal_from_dict(raw, "s")
    assert data.pos.tolist() == [[0.5, 0, 0]] if cartesian else [[2.0, 0, 0]]
    assert data.z.tolist() == [11]


def site(**changes):
    return CUBIC | {"sites": [SITE | changes]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (site(species=[{"element": "Fe", "occu": 0.5}, {"element": "Ni", "occu": 0.5}]), r"\(Fe 0.5, Ni 0.5\)"),
        (site(species=[{"element": "Fe", "occu": 0.9}]), "site 0 is disordered"),
        (site(species=[]), "site 0 is disordered"),
        (site(species=[{"element": "Xx", "occu": 1}]), "site 0 has the unknown element 'Xx'"),
        (site(species=[{"element": None, "occu": 1}]), "unknown element None"),
        (site(abc=[0, 0]), r"coordinates have shape \(1, 2\)"),
        (site(abc=["a", 0, 0]), "malformed"),
        (site(abc=[float("nan"), 0, 0]), "is nan"),
        (CUBIC | {"sites": []}, "no atoms"),
        ({"lattice": {}, "sites": [SITE]}, r"malformed structure dictionary \(KeyError"),
        ({"lattice": {"matrix": [[1, 0, 0]]}, "sites": [SITE]}, "malformed"),
        ({}, "malformed"),
        ({"sites": 3}, "malformed"),
        (JARVIS | {"coords": [[0, 0, 0], [1, 1, 1]]}, r"coordinates have shape \(2, 3\) for 1 atoms"),
        (JARVIS | {"elements": []}, "no atoms"),
        (JARVIS | {"lattice_mat": np.zeros((3, 3)).tolist()}, "zero volume"),
    ],
)
def test_each_fault_is_named(raw, message):
    with pytest.raises(InvalidStructureError, match=f"structure 'bad': .*{message}"):
        crystal_from_dict(raw, "bad")


def test_no_class_that_a_dictionary_names_is_imported(tmp_path, monkeypatch):
    (tmp_path / "payload_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    evil = {"@module": "payload_module", "@class": "Payload", "properties": {"@module": "payload_module"}}
    crystal_from_dict(CUBIC | evil | {"sites": [SITE | evil]}, "s")
    assert not (tmp_path / "executed").exists()
