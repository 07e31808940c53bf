import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from pymatgen.core import Lattice, Molecule, Structure

from torch_geometric_crystal.benchmark import load_model, predict, predict_structures, save_checkpoint
from torch_geometric_crystal.benchmark.prediction import make_graphs
from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import from_ase_atoms, from_structure, make_crystal
from torch_geometric_crystal.datasets.processing import StructureWarning


def rock_salt(length=4.0, species=("Li", "F")):
    vectors = length / 2 * (np.ones((3, 3)) - np.eye(3))
    return Structure(Lattice(vectors), list(species), [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def mixed():
    """A pymatgen structure, ASE atoms, `Data` and a molecule."""
    return [
        rock_salt(),
        bulk("NaCl", "rocksalt", 5.6),
        make_crystal([14], [[0, 0, 0]], 2.5 * np.eye(3), [True] * 3, structure_id="x"),
        Molecule("CO", [[0, 0, 0], [0, 0, 1.1]]),
    ]


@pytest.fixture
def model(tiny, tmp_path):
    """A model with random weights, as it comes from a file."""
    built = tiny()
    save_checkpoint(tmp_path / "tiny.ckpt", built.card, built.state_dict())
    return load_model(tmp_path / "tiny.ckpt")


def test_mixed_lists_are_predicted_in_order_as_crystals_one_by_one_are(model, mixed):
    values = model.predict_structures(mixed, device="cpu", batch_size=2)
    assert isinstance(values, np.ndarray)
    assert values.shape == (4, len(model.card.units)) == (4, 1)
    crystals = [from_structure(mixed[0]), from_ase_atoms(mixed[1]), mixed[2], from_structure(mixed[3])]
    expected = [predict(model, make_graphs(model, [crystal]), device="cpu").prediction for crystal in crystals]
    np.testing.assert_allclose(values, torch.cat(expected), rtol=1e-5)
    assert len(np.unique(values)) == 4


def test_the_function_and_the_method_say_the_same(model, mixed):
    np.testing.assert_array_equal(predict_structures(model, mixed), model.predict_structures(mixed))


def test_embeddings_come_with_the_predictions(model, mixed):
    values, embedding = model.predict_structures(mixed, return_embedding=True, device="cpu")
    np.testing.assert_array_equal(values, model.predict_structures(mixed, device="cpu"))
    assert embedding.shape == (4, 8)


def disordered():
    return Structure(Lattice.cubic(3.0), [{"Li": 0.5, "Na": 0.5}], [[0, 0, 0]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (disordered(), r"structure 'structures\[1\]': site 0 is disordered"),
        (Atoms("Li", cell=[0, 0, 0], pbc=True), r"structure 'structures\[1\]': .*volume"),
        (Atoms(), r"structure 'structures\[1\]': it has no atoms"),
        ("NaCl.cif", r"structure 'structures\[1\]': it is no structure but a str. Give a pymatgen Structure"),
        (None, r"structure 'structures\[1\]': it is no structure but a NoneType"),
    ],
)
def test_a_structure_that_cannot_be_used_is_named_by_its_position_or_gives_nan(model, wrong, message):
    structures = [rock_salt(), wrong, rock_salt(4.1)]
    with pytest.raises(InvalidStructureError, match=message):
        model.predict_structures(structures, device="cpu")
    values, embedding = model.predict_structures(structures, on_error="nan", return_embedding=True, device="cpu")
    good = model.predict_structures([structures[0], structures[2]], device="cpu")
    np.testing.assert_array_equal(np.isnan(values[:, 0]), [False, True, False])
    np.testing.assert_allclose(values[[0, 2]], good, rtol=1e-6)
    assert np.isnan(embedding[1]).all()
    assert np.isfinite(embedding[[0, 2]]).all()


def test_where_no_structure_can_be_used_all_rows_are_nan(model):
    values, embedding = model.predict_structures([None, disordered()], on_error="nan", return_embedding=True)
    assert values.shape == (2, 1)
    assert np.isnan(values).all()
    assert embedding.shape == (2, 0)


def test_an_element_that_the_model_lacks_is_refused_by_name(model, monkeypatch):
    monkeypatch.setattr(model, "num_elements", 98, raising=False)
    structures = [rock_salt(4.0 + 0.1 * k) for k in range(7)]
    structures[4] = rock_salt(6.0, ("Lr", "Cl"))
    with pytest.raises(
        InvalidStructureError, match=r"structures\[4\]': the model knows the elements up to Cf, and it has Lr"
    ):
        model.predict_structures(structures, device="cpu")
    values = model.predict_structures(structures, on_error="nan", device="cpu")
    assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == [4]


@pytest.mark.parametrize(
    ("structures", "error", "message"),
    [
        (rock_salt(), TypeError, r"received Structure; give \[structures\] for one"),
        (bulk("Cu"), TypeError, r"received Atoms; give \[structures\] for one"),
        ("a.cif", TypeError, "expected a list of pymatgen structures, ASE atoms or Data, received str"),
        (3, TypeError, "received int"),
        ([], ValueError, "structures: expected at least one structure, received 'none'"),
    ],
)
def test_what_is_no_list_of_structures_is_refused(model, structures, error, message):
    with pytest.raises(error, match=message):
        model.predict_structures(structures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_error": "skip"}, "on_error: expected one of 'raise', 'nan'"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"batch_by": "bonds"}, "batch_by: expected one of"),
        ({"device": "gpu"}, "device: 'gpu' is not available"),
    ],
)
def test_wrong_settings_are_not_blamed_on_the_structures(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model.predict_structures([rock_salt()], **({"on_error": "nan"} | settings))


def test_overlapping_atoms_are_noted_by_position(model):
    overlapping = Structure(Lattice.cubic(4.0), ["Li", "F"], [[0, 0, 0], [0, 0, 0.01]])
    with pytest.warns(StructureWarning, match=r"structures\[1\]"):
        values = model.predict_structures([rock_salt(), overlapping], device="cpu")
    assert np.isfinite(values).all()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_predict_with_their_own_weights(model, duplicate):
    double = duplicate(model)
    with torch.no_grad():
        double.out.bias += 1.0
    changed, kept = (m.predict_structures([rock_salt()], device="cpu") for m in (double, model))
    assert changed[0, 0] != kept[0, 0]


def test_atoms_with_a_calculator_are_taken(model):
    from ase.calculators.emt import EMT

    atoms = bulk("Al")
    atoms.calc = EMT()
    assert model.predict_structures([atoms], device="cpu").shape == (1, 1)


def test_crystals_for_a_model_in_float64_keep_their_digits(model):
    model.double()
    values = model.predict_structures([rock_salt(3.9), rock_salt(3.9 + 1e-9)], device="cpu")
    assert values.dtype == np.float64
    assert 0.0 < abs(values[0, 0] - values[1, 0]) < 1e-6
