import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress

from torch_geometric_crystal.ase import CrystalCalculator
from torch_geometric_crystal.benchmark import predict_structures, save_checkpoint
from torch_geometric_crystal.checks import InvalidStructureError

TOL = 1e-8  # dropped share, which is what energies jump by where an image crosses the cutoff


def central_difference(energy, step):
    """Fourth order, so that its own error stays below the tolerance of the comparison."""
    return (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)


@pytest.fixture(scope="module")
def calculator(make_model):
    return CrystalCalculator(make_model(), energy="per_atom", tol=TOL, device="cpu")


def energy_of(calculator, atoms, positions=None, deformation=None):
    moved = atoms.copy()
    if positions is not None:
        moved.positions = positions
    if deformation is not None:
        moved.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    moved.calc = calculator
    return moved.get_potential_energy()


@pytest.mark.parametrize("domain", ["real", "multihead"])
def test_forces_are_the_finite_differences_of_the_energy(make_model, rutile, domain):
    calculator = CrystalCalculator(make_model(domain=domain), energy="per_atom", tol=TOL, device="cpu")
    rutile.calc = calculator
    forces = rutile.get_forces()
    expected = np.zeros_like(forces)
    for atom in range(len(rutile)):
        for axis in range(3):

            def energy(step, atom=atom, axis=axis):
                positions = rutile.positions.copy()
                positions[atom, axis] += step
                return energy_of(calculator, rutile, positions)

            expected[atom, axis] = -central_difference(energy, 1e-3)
    assert np.abs(forces).max() > 1e-2  # eV/A: not a comparison of zeros
    np.testing.assert_allclose(forces, expected, atol=1e-5 * np.abs(forces).max())


@pytest.mark.parametrize("domain", ["real", "multihead"])
def test_stress_is_the_finite_difference_of_the_energy(make_model, rutile, domain):
    calculator = CrystalCalculator(make_model(domain=domain), energy="per_atom", tol=TOL, device="cpu")
    rutile.calc = calculator
    stress = voigt_6_to_full_3x3_stress(rutile.get_stress())
    expected = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):

            def energy(step, a=a, b=b):
                strain = np.zeros((3, 3))
                strain[a, b] += step / 2
                strain[b, a] += step / 2
                return energy_of(calculator, rutile, deformation=np.eye(3) + strain)

            expected[a, b] = central_difference(energy, 1e-3) / rutile.get_volume()
    assert np.abs(stress).max() > 1e-4  # eV/A^3
    np.testing.assert_allclose(stress, expected, atol=1e-5 * np.abs(stress).max())


def test_no_force_acts_on_the_whole_crystal(calculator, rutile):
    rutile.calc = calculator
    assert np.abs(rutile.get_forces().sum(axis=0)).max() < 1e-12


def test_the_energy_is_the_models_prediction_times_the_atoms(make_model, rutile):
    model = make_model()
    per_atom = float(predict_structures(model, [rutile], device="cpu")[0, 0])
    rutile.calc = CrystalCalculator(model, energy="per_atom", device="cpu")
    assert rutile.get_potential_energy() == pytest.approx(6 * per_atom, rel=1e-12)
    assert rutile.get_potential_energy(force_consistent=True) == rutile.get_potential_energy()


def test_a_supercell_has_the_same_forces_and_stress_and_more_energy(calculator, rutile):
    double = rutile * (2, 1, 1)
    rutile.calc = double.calc = calculator
    energy, forces, stress = rutile.get_potential_energy(), rutile.get_forces(), rutile.get_stress()
    assert double.get_potential_energy() == pytest.approx(2 * energy, rel=1e-7)
    np.testing.assert_allclose(double.get_forces(), np.tile(forces, (2, 1)), atol=1e-6)
    np.testing.assert_allclose(double.get_stress(), stress, atol=1e-7)


def test_a_total_energy_and_its_unit_are_converted(make_model, rutile):
    expected = CrystalCalculator(make_model("eV/atom"), energy="per_atom", device="cpu")
    total = CrystalCalculator(make_model("Ha"), energy="total", device="cpu")
    told = CrystalCalculator(make_model(""), energy="per_atom", unit="kJ/mol/atom", device="cpu")
    rutile.calc = expected
    energy, forces, stress = rutile.get_potential_energy(), rutile.get_forces(), rutile.get_stress()
    for calculator, factor in ((total, units.Hartree / 6), (told, units.kJ / units.mol)):
        rutile.calc = calculator
        assert rutile.get_potential_energy() == pytest.approx(factor * energy)
        np.testing.assert_allclose(rutile.get_forces(), factor * forces)
        np.testing.assert_allclose(rutile.get_stress(), factor * stress)


def test_the_energy_among_several_targets_is_chosen_by_name(make_model, rutile):
    model = make_model(names=("band_gap", "energy"))
    values = predict_structures(model, [rutile], device="cpu")[0]
    for column, name in enumerate(("band_gap", "energy")):
        rutile.calc = CrystalCalculator(model, energy="per_atom", target=name, device="cpu")
        assert rutile.get_potential_energy() == pytest.approx(6 * values[column])


def test_edges_are_searched_anew_only_where_the_skin_is_used_up(make_model, rutile):
    calculator = CrystalCalculator(make_model(), energy="per_atom", device="cpu")
    without = CrystalCalculator(make_model(), energy="per_atom", skin=0.0, device="cpu")
    generator = np.random.default_rng(0)
    for _ in range(5):
        rutile.positions += generator.normal(scale=0.02, size=(6, 3))
        energies = [energy_of(c, rutile) for c in (calculator, without)]
        assert energies[0] == pytest.approx(energies[1], rel=1e-12)
    assert calculator.rebuild_edges.num_searches < without.rebuild_edges.num_searches == 4


def test_results_are_kept_until_the_atoms_change(calculator, rutile, monkeypatch):
    rutile.calc = calculator
    rutile.get_potential_energy()
    calls = []
    original = calculator._derivatives
    monkeypatch.setattr(calculator, "_derivatives", lambda crystal: calls.append(1) or original(crystal))
    rutile.get_forces()
    rutile.get_stress()
    assert calls == []
    rutile.positions[0, 0] += 0.01
    rutile.get_potential_energy()
    rutile.get_forces()
    assert calls == [1]


def test_another_crystal_gets_a_cutoff_of_its_own_and_a_step_keeps_it(calculator, rutile):
    def cutoff(atoms):
        energy_of(calculator, atoms)
        return float(calculator._crystal.edge_cutoff)

    first = cutoff(rutile)
    rutile.positions[0] += 0.2
    assert cutoff(rutile) == first
    larger = rutile.copy()
    larger.set_cell(1.3 * rutile.cell.array, scale_atoms=True)
    moved = cutoff(larger)
    assert moved != first
    fresh = CrystalCalculator(calculator.model, energy="per_atom", unit="eV", tol=TOL, device="cpu")
    assert energy_of(fresh, larger) == pytest.approx(energy_of(calculator, larger), rel=1e-12)
    assert cutoff(bulk("Cu")) != moved


def test_the_certificate_of_the_cutoff_follows_the_crystal(calculator, rutile):
    fresh = CrystalCalculator(calculator.model, energy="per_atom", unit="eV", tol=1e-3, device="cpu")
    with pytest.raises(ValueError, match="nothing was calculated yet"):
        fresh.truncation_bound()
    energy_of(fresh, rutile)
    bound = fresh.truncation_bound()
    assert 0.0 < bound <= 1e-3
    for _ in range(5):
        rutile.set_cell(0.98 * rutile.cell.array, scale_atoms=True)
        energy_of(fresh, rutile)
    assert fresh.truncation_bound() != bound


def test_molecular_dynamics_conserves_the_energy(make_model, rutile):
    rutile.calc = CrystalCalculator(make_model(), energy="per_atom", tol=1e-6, device="cpu")
    masses = rutile.get_masses()[:, None]
    momenta = np.sqrt(masses * 300 * units.kB) * np.random.default_rng(0).normal(size=(6, 3))
    rutile.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
    totals, kinetic = [], []
    dynamics = VelocityVerlet(rutile, timestep=0.5 * units.fs)
    dynamics.attach(lambda: totals.append(rutile.get_total_energy()))
    dynamics.attach(lambda: kinetic.append(rutile.get_kinetic_energy()))
    dynamics.run(60)
    assert np.ptp(kinetic) > 1e-2  # eV: energy went to and fro
    assert np.ptp(totals) < 1e-2 * np.ptp(kinetic)
    assert np.abs(rutile.get_momenta().sum(axis=0)).max() < 1e-10


def test_relaxing_atoms_and_cell_lowers_the_energy(make_model, rutile):
    rutile.calc = CrystalCalculator(make_model(), energy="per_atom", tol=1e-6, device="cpu")
    energies = [rutile.get_potential_energy()]
    cell = rutile.cell.array.copy()
    optimizer = BFGS(FrechetCellFilter(rutile), logfile=None, maxstep=0.05)
    optimizer.attach(lambda: energies.append(rutile.get_potential_energy()))
    optimizer.run(fmax=0.05, steps=10)
    assert energies[-1] < energies[0] - 0.1  # eV
    assert (np.diff(energies) < 1e-9).all()
    assert np.abs(rutile.cell.array - cell).max() > 0.05


def test_a_path_is_loaded_and_float32_agrees_with_float64(make_model, rutile, tmp_path):
    model = make_model()
    save_checkpoint(tmp_path / "m.ckpt", model.card, model.float().state_dict())
    double = CrystalCalculator(tmp_path / "m.ckpt", energy="per_atom", device="cpu")
    single = CrystalCalculator(tmp_path / "m.ckpt", energy="per_atom", dtype="float32", device="cpu")
    rutile.calc = double
    energy, forces = rutile.get_potential_energy(), rutile.get_forces()
    rutile.calc = single
    assert rutile.get_potential_energy() == pytest.approx(energy, rel=1e-5)
    np.testing.assert_allclose(rutile.get_forces(), forces, atol=1e-4 * np.abs(forces).max())


def test_the_model_given_is_left_as_it_is(make_model):
    model = make_model().float()
    CrystalCalculator(model, energy="per_atom", device="cpu")
    parameters = list(model.parameters())
    assert {p.dtype for p in parameters} == {torch.float32}
    assert all(p.requires_grad for p in parameters)


@pytest.mark.parametrize(
    ("arguments", "unit", "message"),
    [
        ({"energy": "atomic"}, "eV/atom", "energy: expected one of 'per_atom', 'total'"),
        ({"energy": "total"}, "eV/atom", "energy: expected 'per_atom' for a model whose unit is 'eV/atom'"),
        ({"energy": "total"}, "", "unit: expected one of eV, meV, Ha, .* as the model's card has none"),
        ({"energy": "total"}, "log10(GPa)", "unit: expected one of eV"),
        ({"energy": "total", "unit": "J"}, "", "unit: expected one of 'eV'"),
        ({"energy": "per_atom", "unit": "meV"}, "eV/atom", "unit: expected 'eV', which the model's card states"),
        ({"energy": "per_atom", "target": "gap"}, "eV/atom", "target: expected one of 'energy', received 'gap'"),
        ({"energy": "per_atom", "dtype": "half"}, "eV/atom", "dtype: expected one of"),
        ({"energy": "per_atom", "skin": -1.0}, "eV/atom", "skin: expected a length"),
        ({"energy": "per_atom", "tol": 2.0}, "eV/atom", "tol"),
        ({"energy": "per_atom", "device": "gpu"}, "eV/atom", "device: 'gpu' is not available"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make_model, arguments, unit, message):
    with pytest.raises(ValueError, match=message):
        CrystalCalculator(make_model(unit), **arguments)


def test_the_kind_of_energy_must_be_stated(make_model):
    with pytest.raises(TypeError, match="energy"):
        CrystalCalculator(make_model())


def test_one_of_several_targets_must_be_named(make_model):
    with pytest.raises(ValueError, match="target: expected one of a, b, received None"):
        CrystalCalculator(make_model(names=("a", "b")), energy="per_atom")


@pytest.mark.parametrize("model", ["cgcnn", "alignn"])
def test_models_on_nearest_neighbours_are_refused(make_model, model):
    with pytest.raises(ValueError, match="whose energy jumps where the nearest neighbours change"):
        CrystalCalculator(make_model(model=model), energy="per_atom")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.set_pbc([True, True, False]), r"pbc is \[True, True, False\].*vacuum included"),
        (lambda atoms: atoms.set_positions(atoms.positions * np.nan), "O4Ti2': pos"),
        (lambda atoms: atoms.set_cell(np.diag([4.0, 4.0, 0.0])), "volume"),
        (lambda atoms: atoms.__delitem__(slice(None)), "no atoms"),
    ],
)
def test_atoms_that_are_no_crystal_are_refused(calculator, rutile, change, message):
    energy_of(calculator, rutile)
    change(rutile)
    with pytest.raises(InvalidStructureError, match=message):
        energy_of(calculator, rutile)


def test_an_element_that_the_model_does_not_know_is_named(calculator):
    with pytest.raises(ValueError, match=r"atomic numbers 1 \.\. 98"):
        energy_of(calculator, Atoms("Lr", cell=4 * np.eye(3), pbc=True))


def test_an_energy_that_is_not_finite_is_no_result(make_model, rutile):
    model = make_model()
    model.normalization.std.fill_(float("nan"))
    rutile.calc = CrystalCalculator(model, energy="per_atom", device="cpu")
    with pytest.raises(CalculationFailed, match="O4Ti2 are not finite"):
        rutile.get_potential_energy()
    assert rutile.calc.results == {}


def test_one_atom_in_its_cell_has_no_force_but_stress(calculator):
    atoms = bulk("Cu")
    atoms.calc = calculator
    assert np.abs(atoms.get_forces()).max() < 1e-10
    assert np.abs(atoms.get_stress()).max() > 0.0
