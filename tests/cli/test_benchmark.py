import json

import pytest

from tests.benchmark.tasks import tiny_matbench

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matbench|matminer|monty|sklearn")
SMALL = ["--model-option", "channels=8", "--epochs", "1", "--batch-size", "6", "--device", "cpu"]


@pytest.fixture(autouse=True)
def data_dir(monkeypatch, tmp_path):
    """A folder with the official task in small."""
    folder = tmp_path / "data"
    folder.mkdir()
    tiny_matbench.pretend_official(monkeypatch, folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_folds_are_compared_with_the_leaderboard_and_the_same_command_continues(run, tmp_path, data_dir):
    command = ["benchmark", "matbench", "--data-dir", data_dir, "--output", tmp_path / "out", *SMALL]
    models = ["--model", "cgcnn", "--model", "mean"]
    first = run(*command, *models, "--fold", "0")
    assert first.code == 0, first.err
    for text in ("the official Matbench v0.1 task", "cgcnn, here", "mean, here", "Dummy", "fold 0 of 5, 1 epoch,"):
        assert text in first.out
    assert "published: Matbench v0.1 leaderboard, November 2026" in first.out
    assert not (tmp_path / "out/cgcnn/results.json.gz").exists()
    again = run(*command, *models)
    assert again.code == 0, again.err
    assert "fold 0: epoch" not in again.out
    assert "fold 4: epoch 1/1" in again.out
    assert "all 5 folds" in again.out
    assert "results.json.gz (matbench_phonons), info.json, run.py" in again.out
    notes = json.loads((tmp_path / "out/cgcnn/info.json").read_text())["notes"]
    assert "Command: tgcrystal benchmark matbench --data-dir" in notes


def test_other_data_are_run_under_their_own_name(run, tmp_path):
    flags = ["--task", "elastic_2015", "--task", "elastic_2015:log10(G_VRH)", "--model", "mean"]
    result = run("benchmark", "matbench", *flags, "--output", tmp_path)
    assert result.code == 0, result.err
    assert result.out.count("not a Matbench task: the five-fold protocol of Matbench on the bundled set") == 2
    assert "published" not in result.out
    assert (tmp_path / "comparison_elastic_2015-log10-G_VRH.png").exists()
    assert not (tmp_path / "mean/results.json.gz").exists()


def test_runs_of_two_seeds_are_combined_into_an_entry_of_their_own(run, tmp_path, data_dir):
    folders = [tmp_path / "seed_0", tmp_path / "seed_1"]
    for seed, folder in enumerate(folders):
        command = ["benchmark", "matbench", "--data-dir", data_dir, "--seed", seed, "--model", "mean"]
        assert run(*command, "--output", folder).code == 0
    command = ["benchmark", "combine", *folders, "--data-dir", data_dir, "--name", "pair", "--output", folders[0]]
    for _ in range(2):  # the entry in the folder is no member of the second one
        result = run(*command)
        assert result.code == 0, result.err
        assert "pair, here" in result.out
        assert "results.json.gz (matbench_phonons), info.json, run.py" in result.out
    record = json.loads((folders[0] / "pair/matbench_phonons/fold_0/fold.json").read_text())
    assert [member["settings"]["seed"] for member in record["parameters"]["members"]] == [0, 1]


def test_an_interruption_is_exit_code_130_and_says_how_to_continue(run, tmp_path, data_dir, monkeypatch):
    from torch_geometric_crystal.benchmark.tasks import job

    monkeypatch.setattr(job, "run_fold", lambda *arguments, **settings: None)
    result = run("benchmark", "matbench", "--data-dir", data_dir, "--model", "cgcnn", "--output", tmp_path / "out")
    assert result.code == 130
    assert "the same command continues" in result.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fold", "9"], "fold: expected 0 to 4, received 9"),
        (["--model", "megnet"], "model: expected one of"),
        (["--task", "matbench_photons"], "task: expected one of matbench_dielectric"),
        (["--task", "matbench_jdft2d"], "matbench_jdft2d.json.gz is not there: get it from https://"),
        (["--task", "flla_2016"], "'flla_2016' is neither an official task"),
        (["--model-option", "chanels=3"], "model_options of crystalformer"),
        (["--epochs", "0"], "epochs: expected"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(run, tmp_path, data_dir, flags, message):
    result = run("benchmark", "matbench", "--data-dir", data_dir, "--output", tmp_path / "out", *flags)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert message in result.err


def test_other_settings_in_the_same_folder_are_refused(run, tmp_path, data_dir):
    command = ["benchmark", "matbench", "--data-dir", data_dir, "--output", tmp_path / "out", "--fold", "0"]
    assert run(*command, "--model", "mean").code == 0
    result = run(*command, "--model", "mean", "--seed", "1")
    assert result.code == 2
    assert "seed was 0, is 1" in result.err


def test_a_share_to_validate_on_is_refused_by_its_own_name(run, tmp_path, data_dir):
    command = ["benchmark", "matbench", "--data-dir", data_dir, "--output", tmp_path / "out", "--model", "cgcnn"]
    result = run(*command, "--val-fraction", "1.5")
    assert result.code == 2
    assert "val_fraction: expected a share" in result.err
    assert "test_fraction" not in result.err
    nearly_all = run(*command, *SMALL, "--val-fraction", "0.95", "--fold", "0")
    assert nearly_all.code == 0, nearly_all.err


@pytest.fixture
def jarvis_file(tmp_path):
    """Twenty cubic cells in JARVIS's layout; every other one has an MBJ gap."""
    records = [
        {
            "jid": f"JVASP-{k}",
            "atoms": {"lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "coords": [[0, 0, 0]], "elements": ["Fe"]},
            "ehull": k / 10,
            "mbj_bandgap": "na" if k % 2 else float(k),
        }
        for k in range(20)
    ]
    path = tmp_path / "jdft_3d.json"
    path.write_text(json.dumps(records))
    return path


def test_jarvis_targets_are_run_on_their_split_and_another_release_is_named(run, tmp_path, jarvis_file):
    flags = ["--target", "ehull", "--target", "mbj_bandgap", "--model", "mean"]
    result = run("benchmark", "jarvis", *flags, "--data-file", jarvis_file, "--output", tmp_path / "out")
    assert result.code == 0, result.err
    assert "ANOTHER RELEASE: 16 / 2 / 2 crystals where the published split has 44296 / 5537 / 5537" in result.out
    assert "mbj_bandgap of 10 of 20 records" in result.out
    assert "published:" not in result.out
    assert (tmp_path / "out/mean/jarvis_ehull/fold_0/fold.json").exists()


@pytest.mark.parametrize(
    ("command", "target", "flags", "epochs", "batch_size"),
    [
        ("jarvis", "ehull", [], 800, 256),
        ("jarvis", "mbj_bandgap", [], 1600, 256),
        ("jarvis", "ehull", ["--preset", "common", "--epochs", "7"], 7, 128),
        ("jarvis", "ehull", ["--model", "alignn"], 300, 64),
    ],
)
def test_crystalformer_takes_its_papers_settings_for_the_target(
    run, tmp_path, jarvis_file, monkeypatch, command, target, flags, epochs, batch_size
):
    from torch_geometric_crystal.benchmark import tasks

    seen = []
    monkeypatch.setattr(tasks, "run_benchmark", lambda loaders, configs, *rest: seen.extend(configs) or ([], True))
    flags = ["--target", target, "--data-file", jarvis_file, "--output", tmp_path / "out", *flags]
    assert run("benchmark", command, *flags).code == 0
    assert [(config.recipe.epochs, config.recipe.batch_size) for config in seen] == [(epochs, batch_size)]


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("jarvis", ["--target", "colour"], "target: expected one of 'formation_energy'"),
        ("jarvis", ["--target", "formation_energy"], "its first record has no 'formation_energy_peratom'; it has jid"),
        ("megnet", ["--target", "shear_modulus"], "--split-file"),
        ("megnet", ["--target", "e_form"], "its first record has no 'e_form' or 'formation_energy_per_atom'"),
    ],
)
def test_wrong_targets_and_files_are_named_in_one_line(run, tmp_path, jarvis_file, command, flags, message):
    result = run("benchmark", command, *flags, "--data-file", jarvis_file, "--output", tmp_path / "out")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert message in result.err


def test_graphs_of_a_benchmark_can_be_chosen(run, tmp_path, data_dir):
    sizes = ["--model-option", "embedding_channels=4", "--model-option", "num_alignn_layers=1"]
    command = ["benchmark", "matbench", "--data-dir", data_dir, "--fold", "0", "--model", "alignn", *SMALL, *sizes]
    result = run(*command, "--graph-option", "merge_tolerance=1e-4", "--output", tmp_path / "out")
    assert result.code == 0, result.err
    settings = (tmp_path / "out/alignn/matbench_phonons/settings.yaml").read_text()
    assert "merge_tolerance: 0.0001" in settings
    result = run(*command, "--graph-option", "no_such=1", "--output", tmp_path / "other")
    assert result.code != 0
    assert "neighborhood of alignn" in result.err
    assert "no_such" in result.err
