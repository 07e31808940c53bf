import dataclasses

import numpy as np
import pytest
import torch

from torch_geometric_crystal.benchmark import load_model, predict, save_checkpoint
from torch_geometric_crystal.benchmark.calibration import Calibration
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.ensemble import Ensemble, fingerprint
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import to_structure
from torch_geometric_crystal.datasets import StructureWarning


@pytest.fixture
def make_member():
    """A model with random weights of a seed, with its card."""

    def make(seed, names=("energy",), units=("eV",), **options):
        return build_run_model(RunConfig(model="tiny", seed=seed, model_options=options), names, units).eval()

    return make


@pytest.fixture
def members(make_member):
    return [make_member(seed) for seed in range(3)]


@pytest.fixture
def structures(make_crystals):
    return [to_structure(crystal) for crystal in make_crystals(7)]


def test_mean_and_spread_are_those_of_the_members(members, make_crystals):
    crystals = make_crystals(7)
    each = np.stack([predict(model, crystals, device="cpu").prediction.double().numpy() for model in members])
    result = Ensemble(members).predict_structures(crystals, device="cpu")
    np.testing.assert_allclose(result.members, each, rtol=1e-5)
    np.testing.assert_allclose(result.mean, each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(result.spread, each.std(axis=0, ddof=1), rtol=1e-3)
    assert result.uncertainty is None
    assert (result.spread > 0).all()


def test_checkpoints_and_models_are_taken_alike(members, structures, tmp_path):
    paths = []
    for index, model in enumerate(members):
        paths.append(tmp_path / f"{index}.ckpt")
        save_checkpoint(paths[-1], model.card, model.state_dict())
    results = [
        Ensemble(m).predict_structures(structures, device="cpu") for m in (paths, members, list(map(str, paths)))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.mean, results[0].mean)
    assert load_model(paths[0]).card.target_names == Ensemble(paths).card.target_names


def test_members_on_different_graphs_each_get_theirs(make_member, make_crystals):
    mixed = [make_member(0, cutoff=4.0), make_member(1, cutoff=3.0), make_member(2, cutoff=4.0)]
    mixed = [mixed[0], mixed[1], mixed[2].double()]
    crystals = make_crystals(5)
    result = Ensemble(mixed).predict_structures(crystals, device="cpu")
    for row, model in zip(result.members, mixed, strict=True):
        alone = Ensemble([model, make_member(9)]).predict_structures(crystals, device="cpu")
        np.testing.assert_array_equal(row, alone.members[0])


def test_graphs_are_made_once_for_members_that_share_them(members, structures, monkeypatch):
    from torch_geometric_crystal.transforms import PeriodicRadiusGraph

    made = []
    original = PeriodicRadiusGraph.forward
    monkeypatch.setattr(PeriodicRadiusGraph, "forward", lambda self, data: made.append(1) or original(self, data))
    Ensemble(members).predict_structures(structures, device="cpu")
    assert len(made) == len(structures)


def test_a_structure_that_cannot_be_used_is_named_or_nan(members, structures):
    structures[2] = None
    ensemble = Ensemble(members)
    with pytest.raises(InvalidStructureError, match=r"structures\[2\]"):
        ensemble.predict_structures(structures, device="cpu")
    result = ensemble.predict_structures(structures, on_error="nan", device="cpu")
    for values in (result.mean, result.spread, result.truncation_bound):
        assert np.flatnonzero(np.isnan(values).reshape(len(structures), -1).any(axis=1)).tolist() == [2]
    assert list(result.faults) == [2]


def test_files_keep_their_order_and_names(members, structures, tmp_path):
    for name, structure in zip("cab", structures, strict=False):
        structure.to(filename=str(tmp_path / f"{name}.cif"))
    (tmp_path / "bad.cif").write_text("nothing")
    names, result = Ensemble(members).predict_files(tmp_path, device="cpu")
    assert [name for name, _ in names] == ["a", "b", "bad", "c"]
    assert list(result.faults) == [2]
    expected = Ensemble(members).predict_structures([structures[1], structures[2], structures[0]], device="cpu")
    np.testing.assert_allclose(result.mean[[0, 1, 3]], expected.mean, rtol=1e-4)


def calibration_of(ensemble, **changes):
    settings = {"target_names": ("energy",), "units": ("eV",), "scale": (2.0,), "offset": (0.5,), "count": (10,)}
    return Calibration(**settings | {"members": ensemble.fingerprints} | changes)


def test_a_calibration_gives_the_uncertainty(members, structures):
    calibration = calibration_of(Ensemble(members))
    result = Ensemble(members[::-1], calibration).predict_structures(structures, device="cpu")
    np.testing.assert_allclose(result.uncertainty, 2.0 * result.spread + 0.5)


def test_a_calibration_of_other_weights_or_targets_is_refused(members, make_member):
    calibration = calibration_of(Ensemble(members))
    with pytest.raises(ValueError, match="it was made for other weights than those of this ensemble"):
        Ensemble(members[:2], calibration)
    with pytest.raises(ValueError, match="it was made for other weights"):
        Ensemble([*members[:2], make_member(7)], calibration)
    with pytest.raises(ValueError, match="calibration: expected one of energy, received"):
        Ensemble(members, calibration_of(Ensemble(members), target_names=("gap",)))


def test_members_must_agree_on_targets_and_units(members, make_member):
    with pytest.raises(
        ValueError, match=r"same target_names; members\[0\] has \('energy',\), members\[3\] has \('gap',\)"
    ):
        Ensemble([*members, make_member(3, names=("gap",))])
    with pytest.raises(ValueError, match=r"same units; .* members\[3\] has \('meV',\)"):
        Ensemble([*members, make_member(3, units=("meV",))])


def test_an_ensemble_has_two_members_that_differ(members):
    for wrong in (members[:1], [], members[0], "runs/a"):
        with pytest.raises(ValueError, match="members: expected at least two models, received"):
            Ensemble(wrong)
    with pytest.raises(ValueError, match=r"models with weights of their own, two of .* have the same"):
        Ensemble([members[0], members[0]])
    model = members[1]
    del model.card
    with pytest.raises(ValueError, match=r"models with a card, as load_model returns them, received 'members\[1\]'"):
        Ensemble(members[:2])


def test_the_largest_bound_and_tolerance_of_the_members_are_stated(members, structures):
    result = Ensemble(members).predict_structures(structures, device="cpu")
    np.testing.assert_allclose(result.truncation_bound, 4e-6, rtol=1e-5)
    assert Ensemble(members).tolerance() is None


def test_a_fingerprint_is_of_the_weights(members, make_member):
    assert fingerprint(members[0]) == fingerprint(make_member(0)) != fingerprint(make_member(1))
    with torch.no_grad():
        members[0].out.bias += 1e-3
    assert fingerprint(members[0]) != fingerprint(make_member(0))


def test_the_ensembles_name_has_its_size_and_targets(members):
    assert repr(Ensemble(members)) == "Ensemble(3 models of energy)"
    assert dataclasses.is_dataclass(Ensemble(members).card)


def test_a_crystal_that_some_members_leave_out_is_named(make_member, structures, tmp_path, monkeypatch):
    from torch_geometric_crystal.transforms import PeriodicRadiusGraph

    for name, structure in zip("abcdefg", structures, strict=True):
        structure.to(filename=str(tmp_path / f"{name}.cif"))
    (tmp_path / "id_prop.csv").write_text("\n".join(f"{name},1.0" for name in "abcdefg"))
    original = PeriodicRadiusGraph.forward

    def refuse(self, data):
        if self.cutoff == 3.0 and data.structure_id == "c":
            raise InvalidStructureError("c", "it is odd", "Remove it")
        return original(self, data)

    monkeypatch.setattr(PeriodicRadiusGraph, "forward", refuse)
    ensemble = Ensemble([make_member(0, cutoff=4.0, names=("target",)), make_member(1, cutoff=3.0, names=("target",))])
    message = r"expected crystals that all members can take; 'c' in .* is none"
    with pytest.warns(StructureWarning, match="it is odd"), pytest.raises(ValueError, match=message):
        ensemble.predict_part(str(tmp_path), "all", device="cpu")
