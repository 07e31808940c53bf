import contextlib
import sqlite3
import sys

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from pymatgen.io.ase import AseAtomsAdaptor

from torch_geometric_crystal.checks import MissingDependencyError
from torch_geometric_crystal.datasets.readers.ase_file import AseDatabaseSource, ExtendedXyzSource


@pytest.fixture
def atoms(crystals):
    made = [AseAtomsAdaptor.get_atoms(c, msonable=False) for c in crystals]
    for k, a in enumerate(made):
        a.calc = SinglePointCalculator(a, energy=-1.0 * k, forces=np.zeros((len(a), 3)))
    return made


@pytest.fixture(params=["db", "json"])
def database(request, tmp_path, atoms):
    path = tmp_path / f"crystals.{request.param}"
    with connect(path, use_lock_file=False) as file:
        for k, a in enumerate(atoms):
            file.write(a, key_value_pairs={"gap": 0.5 * k} | ({"jid": f"J{k}"} if k < 3 else {}))
    return path


@pytest.fixture
def frames(tmp_path, atoms):
    path = tmp_path / "crystals.extxyz"
    for k, a in enumerate(atoms):
        a.info = {"gap": 0.5 * k} | ({"structure_id": f"J{k}"} if k < 3 else {})
    write(path, atoms, format="extxyz")
    return path


def check(source, numbers, crystals):
    entries = list(source)
    assert [entry.structure_id for entry in entries] == ["J0", "J1", "J2", *numbers]
    assert [entry.targets for entry in entries] == [(0.5 * k, -1.0 * k) for k in range(6)]
    for entry, crystal in zip(entries, crystals, strict=True):
        assert np.allclose(entry.load().cell[0], crystal.lattice.matrix, atol=1e-5)


def test_a_database_gives_pairs_and_results_as_targets(database, crystals):
    check(AseDatabaseSource(database, ["gap", "energy"]), ["4", "5", "6"], crystals)


def test_extended_xyz_gives_comment_values_and_results_as_targets(frames, crystals):
    check(ExtendedXyzSource(frames, ["gap", "energy"]), ["3", "4", "5"], crystals)


def test_without_a_choice_there_is_no_target(frames):
    assert ExtendedXyzSource(frames).target_names == ()


def test_a_value_called_target_is_the_target(tmp_path, atoms):
    atoms[0].info = {"target": 7.0}
    write(tmp_path / "a.xyz", atoms[:2], format="extxyz")
    entries = list(ExtendedXyzSource(tmp_path / "a.xyz"))
    assert entries[0].targets == (7.0,)
    assert np.isnan(entries[1].targets[0])


def test_an_absent_target_is_named(frames):
    with pytest.raises(ValueError, match=r"target: 'volume' is not in .*'gap'"):
        list(ExtendedXyzSource(frames, "volume"))


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.db").write_bytes(b"nothing")
    (tmp_path / "a.xyz").write_text('3\nLattice="1"\nH 0 0 0\n')
    with pytest.raises(ValueError, match=r"a.db cannot be read"):
        list(AseDatabaseSource(tmp_path / "a.db"))
    with pytest.raises(ValueError, match=r"a.xyz cannot be read"):
        list(ExtendedXyzSource(tmp_path / "a.xyz"))


def test_without_ase_the_extra_is_named(frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(MissingDependencyError, match=r"torch_geometric_crystal\[ase\]"):
        list(ExtendedXyzSource(frames))


def test_the_fingerprint_changes_with_the_target(frames):
    assert ExtendedXyzSource(frames).fingerprint() != ExtendedXyzSource(frames, "gap").fingerprint()


def test_a_sqlite_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE notes (line TEXT)")
        file.commit()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no table 'systems'; it has notes"):
        list(AseDatabaseSource(path))
    assert path.read_bytes() == before


def test_what_could_be_a_target_is_said(frames):
    assert "gap" in ExtendedXyzSource(frames).available_targets
