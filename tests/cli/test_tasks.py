"""Classes, targets of atoms and fine-tuning, as a user types them."""

import csv
import json
import shutil

import pytest

# Of two crystals the class is not known.
pytestmark = pytest.mark.filterwarnings("ignore:.* 2 of 1[12] crystals have no value of any target")
SMALL_CGCNN = ["--model", "cgcnn", "--model-option", "channels=8", "--epochs", "2", "--batch-size", "6"]
CPU = ["--device", "cpu"]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def class_folder(cif_folder, tmp_path_factory):
    """The CIF files, with a text as label, of which two are missing."""
    folder = tmp_path_factory.mktemp("classes") / "cifs"
    shutil.copytree(cif_folder, folder)
    values = [line.split(",") for line in (cif_folder / "id_prop.csv").read_text().splitlines()]
    labels = ["" if index in (3, 7) else ("salt" if float(y) > 9 else "oxide") for index, (_, y) in enumerate(values)]
    rows = [f"{name},{label}" for (name, _), label in zip(values, labels, strict=True)]
    (folder / "id_prop.csv").write_text("\n".join(["id,phase", *rows]))
    return folder


@pytest.fixture
def class_run(run, class_folder, tmp_path):
    folder = tmp_path / "classes"
    result = run("train", "-d", class_folder, "--task", "classification", "-o", folder, *SMALL_CGCNN, *CPU)
    assert result.code == 0, result.err
    return folder, result


def test_classes_are_trained_evaluated_and_predicted(run, class_run, class_folder, tmp_path):
    folder, result = class_run
    assert "ROC-AUC" in result.out
    assert "class shares of training set" in result.out
    assert "confusion.png, roc.png" in result.out
    result = run("evaluate", "-c", folder, "-d", class_folder, "--split", "all", "-o", tmp_path / "e", *CPU)
    assert result.code == 0, result.err
    (metrics,) = json.loads((tmp_path / "e" / "metrics.json").read_text())["targets"].values()
    assert metrics["count"] == 10
    assert set(metrics) == {"accuracy", "balanced_accuracy", "f1", "rocauc", "cross_entropy", "count"}
    (tmp_path / "bad.cif").write_text("nothing")
    result = run("predict", "-c", folder, class_folder, tmp_path / "bad.cif", "-o", tmp_path / "p.csv", *CPU)
    assert result.code == 0, result.err
    rows, evaluated = rows_of(tmp_path / "p.csv"), rows_of(tmp_path / "e" / "predictions.csv")
    assert list(rows[0])[:4] == ["id", "prediction", "probability_oxide", "probability_salt"]
    assert (rows[-1]["prediction"], bool(rows[-1]["error"])) == ("", True)
    expected = {row["id"]: row for row in evaluated}
    assert {row["id"] for row in rows[:-1]} - set(expected) == {"x03", "x07"}  # the unlabelled ones
    for row in (row for row in rows[:-1] if row["id"] in expected):
        assert row["prediction"] == expected[row["id"]]["prediction"]
        assert float(row["probability_salt"]) == pytest.approx(float(expected[row["id"]]["probability_salt"]), rel=1e-3)


def test_labels_that_the_model_does_not_know_are_left_out(run, class_run, class_folder, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(class_folder, folder)
    text = (folder / "id_prop.csv").read_text().replace("x00,salt", "x00,sulfide").replace("x00,oxide", "x00,sulfide")
    (folder / "id_prop.csv").write_text(text)
    with pytest.warns(UserWarning, match=r"x00: target 'phase': 'sulfide' is none of the classes oxide, salt"):
        result = run("evaluate", "-c", class_run[0], "-d", folder, "--split", "all", "-o", tmp_path / "e", *CPU)
    assert result.code == 0, result.err
    assert len(rows_of(tmp_path / "e" / "predictions.csv")) == 9


@pytest.mark.filterwarnings("ignore::torch_geometric_crystal.datasets.StructureWarning")
def test_text_labels_without_the_task_say_what_to_choose(run, class_folder, tmp_path):
    result = run("train", "-d", class_folder, "-o", tmp_path / "r", *SMALL_CGCNN, *CPU)
    assert result.code == 2
    assert "no crystal has a value of 'phase'" in result.err
    assert "choose the task classification" in result.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "classes"], "task: expected one of 'regression', 'classification'"),
        (["--task", "classification", "-d", "flla_2015"], "flla_2015, which has neither"),
        (["--level", "atom"], "is not a list with a value for each atom"),
        (["--init-from", "nowhere"], "checkpoint 'nowhere': no such file"),
        (["--freeze", "conv.*"], "freeze: expected patterns of parameters' names, such as 'convs.*'"),
    ],
)
@pytest.mark.filterwarnings("ignore::torch_geometric_crystal.datasets.StructureWarning")
def test_wrong_settings_are_one_line(run, cif_folder, tmp_path, flags, message):
    result = run("train", "-d", cif_folder, *SMALL_CGCNN, *CPU, "-o", tmp_path / "r", *flags)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_fractions_are_refused_as_classes(run, cif_folder, tmp_path):
    result = run("train", "-d", cif_folder, "--task", "classification", *SMALL_CGCNN, *CPU, "-o", tmp_path / "r")
    assert result.code == 2
    assert "classes are texts or whole numbers" in result.err


def test_targets_of_atoms_are_trained_and_predicted(run, cif_folder, tmp_path):
    import ase.io

    images = []
    for index in range(12):
        atoms = ase.io.read(cif_folder / f"x{index:02d}.cif")
        atoms.set_array("charge", atoms.numbers / 10.0)
        atoms.info["material_id"] = f"m{index}"
        images.append(atoms)
    ase.io.write(tmp_path / "a.extxyz", images, format="extxyz")
    result = run(
        "train",
        "-d",
        tmp_path / "a.extxyz",
        "-t",
        "charge",
        "--level",
        "atom",
        "-o",
        tmp_path / "r",
        *SMALL_CGCNN,
        *CPU,
    )
    assert result.code == 0, result.err
    assert "│ atoms" in result.out or "atoms ┃" in result.out
    rows = rows_of(tmp_path / "r" / "predictions.csv")
    assert list(rows[0]) == ["id", "atom", "element", "target", "prediction"]
    result = run("predict", "-c", tmp_path / "r", cif_folder / "x00.cif", "-o", tmp_path / "p.csv", *CPU)
    assert "1 of 1 structures predicted" in result.out
    assert [row["atom"] for row in rows_of(tmp_path / "p.csv")] == ["0", "1"]


def test_weights_of_another_run_are_tuned(run, small_run, class_folder, tmp_path):
    flags = ["--init-from", small_run, "--freeze", "atom_embedding.*", "--epochs", "1", "--batch-size", "6", *CPU]
    result = run("train", "-d", class_folder, "--task", "classification", "-o", tmp_path / "r", *flags)
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    assert f"tensors taken from {small_run}, new: out.weight, out.bias" in shown
    assert "its targets are others, or have no names, so the head and their normalisation are new" in shown
    assert "frozen: 2 of" in shown
    result = run("train", "--resume", "-o", tmp_path / "r", "--epochs", "2")
    assert result.code == 0, result.err
    assert "epochs: 2" in result.out


def test_model_of_the_checkpoint_is_named_where_another_is_asked_for(run, small_run, cif_folder, tmp_path):
    result = run("train", "-d", cif_folder, "--init-from", small_run, "-m", "alignn", "-o", tmp_path / "r")
    assert result.code == 2
    assert "--model cgcnn" in result.err
