"""Predictions in several processes, each with a share of the crystals."""

import copy
import itertools
import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.prediction import Predictions, pick_device, predict
from torch_geometric_crystal.benchmark.processes import PackedCrystals, WorkerError
from torch_geometric_crystal.checks import check_argument

_worker: dict[str, Any] = {}
"""In a worker process: its model and its device."""


class PredictionPool:
    """Processes that predict together, for the time of a context; each has the model, and a GPU of its own where asked.

    The crystals are cut into as many runs of neighbours as there are processes; the results are put together in order,
    so that they are those of one process. Scripts need ``if __name__ == "__main__":``.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it.
        size: number of processes.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: if there are not as many GPUs.
        WorkerError: if a process ends while it works.
    """

    def __init__(self, model: nn.Module, size: int, device: str = "auto"):
        check_argument(size >= 1, "devices", "an integer of at least 1", size)
        kind = pick_device(device)
        check_argument(kind.index is None, "device", "a kind of device, for several of them", device)
        available = torch.cuda.device_count() if kind.type == "cuda" else size
        check_argument(size <= available, "devices", f"at most the {available} GPUs that are here", size)
        context = multiprocessing.get_context("spawn")
        self.size = size
        self._places = context.Queue()
        for index in range(size):
            self._places.put(f"{kind.type}:{index}" if kind.type == "cuda" else kind.type)
        threads = max(1, torch.get_num_threads() // size)
        start = (self._places, threads, pickle.dumps(model.cpu()))
        self._pool = ProcessPoolExecutor(size, mp_context=context, initializer=_start, initargs=start)

    def __enter__(self) -> "PredictionPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def predict(
        self, crystals: Sequence[Data], batch_size: int = 64, batch_by: str = "crystals", embedding: bool = False
    ) -> Predictions:
        """Predict crystals that have their graphs, as :func:`~torch_geometric_crystal.benchmark.prediction.predict`."""
        number = len(crystals)
        check_argument(number > 0, "crystals", "at least one", "none")
        ends = [number * k // self.size for k in range(self.size + 1)]
        runs = [range(first, last) for first, last in itertools.pairwise(ends) if last > first]
        jobs = []
        for run in runs:
            named = [_named(crystals[index], index) for index in run]
            # As bytes, since tensors that travel between processes would be put into shared memory, which may be small.
            payload = pickle.dumps((PackedCrystals(named), batch_size, batch_by, embedding))
            jobs.append(self._pool.submit(_predict_run, payload))
        try:
            return _join([pickle.loads(job.result()) for job in jobs])
        except BrokenProcessPool as error:
            raise WorkerError(f"a process that predicts has ended ({error}); use fewer devices") from error


def _start(places: Any, threads: int, model: bytes) -> None:
    torch.set_num_threads(threads)
    _worker["model"], _worker["device"] = pickle.loads(model), places.get()


def _predict_run(payload: bytes) -> bytes:
    packed, batch_size, batch_by, embedding = pickle.loads(payload)
    crystals = packed.crystals()
    return pickle.dumps(predict(_worker["model"], crystals, batch_size, batch_by, _worker["device"], embedding))


def _named(crystal: Data, index: int) -> Data:
    if "structure_id" in crystal:
        return crystal
    crystal = copy.copy(crystal)
    crystal.structure_id = str(index)
    return crystal


def _join(parts: list[Predictions]) -> Predictions:
    def cat(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    return Predictions(
        ids=[name for part in parts for name in part.ids],
        prediction=cat("prediction"),
        target=cat("target"),
        truncation_bound=cat("truncation_bound"),
        embedding=cat("embedding"),
        atoms=None if parts[0].atoms is None else [z for part in parts for z in part.atoms or []],
    )
