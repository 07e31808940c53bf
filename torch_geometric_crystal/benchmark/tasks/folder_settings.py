"""The settings of the folds in a folder, so that folds of other settings are not mixed with them."""

from pathlib import Path
from typing import Any

from torch_geometric_crystal.benchmark.config import RunConfig, read_config
from torch_geometric_crystal.benchmark.recording import write_text
from torch_geometric_crystal.benchmark.tasks.fold import settings_of
from torch_geometric_crystal.benchmark.tasks.record import FOLD_FILE
from torch_geometric_crystal.benchmark.tasks.task import Task
from torch_geometric_crystal.datasets.file_lock import is_locked

SETTINGS_FILE = "settings.yaml"
LOCK_FILE = ".lock"
"""What a process holds in the folder of the fold that it trains."""


def keep_settings(task: Task, config: RunConfig, folder: Path) -> None:
    """Write the settings of the folds of a task by a model, or check them where a fold is begun.

    Raises:
        ValueError: if the folder has folds of other settings.
    """
    import yaml

    has_work = any(any(folder.glob(f"fold_*/{name}")) for name in ("last.ckpt", FOLD_FILE))
    has_work = has_work or any(is_locked(lock) for lock in folder.glob(f"fold_*/{LOCK_FILE}"))
    if has_work and (folder / SETTINGS_FILE).is_file():
        check_settings(task, config, folder)
    else:
        write_text(folder / SETTINGS_FILE, yaml.safe_dump(_settings(task, config), sort_keys=False))


def check_settings(task: Task, config: RunConfig, folder: Path) -> None:
    """Raise ``ValueError`` if others were kept. What an earlier version did not know had today's default."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return
    before, now = settings_of(RunConfig(model=config.model)) | read_config(path), _settings(task, config)
    if before != now:
        raise ValueError(
            f"output: {folder} holds runs with other settings ({'; '.join(_differences(before, now))}): give the "
            "same ones to continue, or choose another folder"
        )


def _settings(task: Task, config: RunConfig) -> dict[str, Any]:
    about = {"task": task.name, "data_sha256": task.source.fingerprint(), "statement": task.statement}
    return about | settings_of(config)


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    texts = []
    for name in dict.fromkeys([*before, *now]):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            texts += _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            texts.append(f"{prefix}{name} was {a}, is {b}")
    return texts
