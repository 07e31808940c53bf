"""Each example runs in its quick form and shows what its docstring says."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def run_example(monkeypatch, capsys):
    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, "--quick", *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def errors_by_epoch(output: str) -> list[float]:
    return [float(value) for value in re.findall(r"epoch +\d+: ([\d.]+)", output)]


def error_of_the_mean(output: str) -> float:
    return float(re.search(r"the mean: ([\d.]+)", output).group(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_bundled.py", "mix_into_pyg_model.py"])
def test_a_few_epochs_beat_the_mean(run_example, name):
    output = run_example(name)
    errors = errors_by_epoch(output)
    assert len(errors) == 3
    assert errors[-1] < errors[0]
    assert errors[-1] < error_of_the_mean(output)


def test_a_folder_of_cif_files_is_read_trained_on_and_predicted(run_example):
    output = run_example("own_cif_folder.py")
    assert "24 crystals read from binary_crystals" in output
    rows = re.findall(r"^(mp-\d+) +(-?[\d.]+) +(-?[\d.]+)$", output, re.MULTILINE)
    targets = dict(line.split(",") for line in (EXAMPLES / "data/binary_crystals/id_prop.csv").read_text().split())
    assert len(rows) == 4
    for structure_id, target, _ in rows:
        assert float(target) == pytest.approx(float(targets[structure_id]), abs=5e-4)  # printed with three digits


def test_a_faulty_cif_is_listed_and_left_out(run_example, tmp_path):
    for path in (EXAMPLES / "data/binary_crystals").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "mp-1138.cif").write_text("data_LiF\n_cell_length_a 2.9\n")
    with pytest.warns(UserWarning, match="mp-1138"):
        output = run_example("own_cif_folder.py", "--folder", str(tmp_path))
    assert "23 crystals read" in output
    assert "left out: mp-1138:" in output


def test_a_checkpoint_of_the_authors_format_is_loaded(run_example):
    output = run_example("load_official_checkpoint.py")
    assert "loaded 853,505 parameters" in output
    assert re.search(r"SrTiO3: -?\d+\.\d+", output)


def test_forces_and_stress_by_autograd_agree_with_finite_differences(run_example):
    output = run_example("forces_by_autograd.py")
    forces, stress = (float(re.search(rf"{what} ([\d.e+-]+)[,;]", output).group(1)) for what in ("forces", "stress"))
    assert forces < 1e-5  # of the truncation at tol = 1e-8 and the step of 1e-4
    assert stress < 1e-5
    assert float(re.search(r"sum of the forces ([\d.e+-]+) eV", output).group(1)) < 1e-10


def test_merged_atoms_give_the_same(run_example):
    output = run_example("merge_like_atoms.py")
    assert re.search(r"its supercell, 3 x 3 x 3 +2 of 216 +(\d+) of \d+", output)
    assert re.search(r"rutile, atoms displaced +6 of 6 +(\d+) of \1", output)
    whole, merged = (
        [float(value) for value in re.search(rf"on {kind} graphs: +(.+)", output).group(1).split()]
        for kind in ("whole", "merged")
    )
    assert len(whole) == 4
    assert merged == pytest.approx(whole, abs=2e-6)
    assert float(re.search(r"relative to the largest: ([\d.e+-]+)", output).group(1)) < 1e-5


@pytest.mark.slow
def test_cross_validation_beats_the_mean_and_a_saved_estimator_predicts(run_example):
    output = run_example("sklearn_cross_validation.py")
    model, mean = (
        [float(value) for value in re.search(rf"{text}: +([\d. ]+)", output).group(1).split()]
        for text in (r"three folds, log10\(GPa\)", "predicting the mean")
    )
    assert len(model) == len(mean) == 3
    assert sum(model) < sum(mean)
    assert re.search(r"learning rate chosen: 0.00[15]\n", output)
    assert len(re.findall(r"^    \S+ +[\d.]+ GPa, predicted +[\d.]+ GPa$", output, re.MULTILINE)) == 5


@pytest.mark.slow
def test_a_crystal_is_relaxed_with_learned_energies(run_example):
    output = run_example("relax_with_ase.py")
    error, deviation = (float(x) for x in re.search(r"([\d.]+) meV/atom, .* ([\d.]+) meV/atom", output).groups())
    assert error < 0.5 * deviation
    rows = re.findall(r"^(model|EMT) +(energy|volume), \S+ +(-?[\d.]+) +(-?[\d.]+)$", output, re.MULTILINE)
    values = {(name, what): (float(start), float(end)) for name, what, start, end in rows}
    assert len(values) == 4
    for name in ("model", "EMT"):
        start, end = values[(name, "energy")]
        assert end < start
    assert values[("model", "volume")][1] == pytest.approx(values[("EMT", "volume")][1], rel=0.1)


def test_explained_neighbours_are_drawn_and_the_attention_adds_up(run_example, tmp_path):
    picture = tmp_path / "neighbors.png"
    output = run_example("explain_neighbors.py", "--output", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = re.findall(r"^ +(\d+) (\w+) +([\d.]+) +([\d.]+) +([\d.]+)$", output, re.MULTILINE)
    shells = {(element, float(distance)): int(number) for number, element, distance, *_ in rows}
    assert shells[("Ti", 0.0)] == 1
    assert shells[("O", 1.95)] == 6
    assert shells[("Sr", 3.38)] == 8
    assert sum(float(row[3]) for row in rows) == pytest.approx(1.0, abs=0.01)
    assert all(0.0 <= float(row[4]) <= 1.0 for row in rows)
