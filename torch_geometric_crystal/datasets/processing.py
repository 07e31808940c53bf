"""Entries to crystals: parse, check, filter and transform, in this process or in several."""

import contextlib
import copy
import itertools
import multiprocessing
import os
import pickle
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch_geometric.data import Data
from tqdm import tqdm

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.source import Entry

_CHUNK = 32  # entries sent to a worker at a time
_WORTH_A_POOL = 20.0  # seconds of work in one process from which starting others (some seconds each) pays
_MAX_DEFAULT_WORKERS = 8


class StructureWarning(UserWarning):
    """Something about a structure, or a source, that a user should know although it can be used."""


class Fault(NamedTuple):
    """Why an entry was left out."""

    structure_id: str
    fault: str
    remedy: str


@dataclass
class Processed:
    """Crystals in the order of their entries, what was left out, and what was noted."""

    crystals: list[Data] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Outcome(NamedTuple):
    """What came of an entry: `data` (None if it was filtered out), or a `fault`; and what was noted."""

    data: Any
    fault: Fault | None
    notes: list[str]


@dataclass(frozen=True)
class Recipe:
    """What is done to each entry."""

    pre_transform: Callable | None
    pre_filter: Callable | None
    dtype: torch.dtype

    def __call__(self, entry: Entry) -> Outcome:
        """Load, check, filter and transform one entry; an invalid structure is an outcome, not an exception."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                data = self._apply(entry)
                fault = None
            except InvalidStructureError as error:
                data, fault = None, Fault(entry.structure_id, error.fault, error.remedy)
        return Outcome(data, fault, [str(w.message) for w in caught if issubclass(w.category, UserWarning)])

    def _apply(self, entry: Entry) -> Data | None:
        data = entry.load(self.dtype)
        try:
            if self.pre_filter is not None and not self.pre_filter(data):
                return None
            return data if self.pre_transform is None else self.pre_transform(data)
        except InvalidStructureError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"pre_transform or pre_filter failed on {entry.structure_id!r} ({type(error).__name__}: {error})"
            ) from error


def process(
    entries: Sequence[Entry],
    recipe: Recipe,
    num_workers: int | None = None,
    skip_faults: bool = False,
    progress: bool = True,
    description: str = "",
) -> Processed:
    """Load, filter and transform entries; arguments as `stream`."""
    result = Processed()
    result.crystals.extend(stream(entries, recipe, result, num_workers, skip_faults, progress, description))
    return result


def stream(
    entries: Sequence[Entry],
    recipe: Recipe,
    result: Processed,
    num_workers: int | None = None,
    skip_faults: bool = False,
    progress: bool = True,
    description: str = "",
) -> Iterator[Data]:
    """Crystals one by one, in the order of their entries.

    Args:
        entries: What to process.
        recipe: What to do to each.
        result: Takes the faults and notes as they come.
        num_workers: Processes beside this one; 0 does all here. Default: none if the whole takes less than about 20 s
            here (judged by the first entries), else one per core, 8 at most.
        skip_faults: Collect invalid structures instead of raising at the first.
        progress: Whether to show a bar (on a terminal only).
        description: Label of the bar.

    Raises:
        InvalidStructureError: at the first invalid structure, unless `skip_faults`.

    Warns:
        StructureWarning: if the processes cannot be used, and this one does the work.
    """
    with contextlib.closing(outcomes(entries, recipe, num_workers, progress, description)) as results:
        for outcome in results:
            result.notes.extend(outcome.notes)
            if outcome.fault is None:
                if outcome.data is not None:
                    yield outcome.data
            elif skip_faults:
                result.faults.append(outcome.fault)
            else:
                raise InvalidStructureError(*outcome.fault)


def outcomes(
    entries: Sequence[Entry],
    recipe: Recipe,
    num_workers: int | None = None,
    progress: bool = True,
    description: str = "",
) -> Generator[Outcome, None, None]:
    """One outcome for each entry, in their order; arguments as `stream`. Closing it ends the processes."""
    disable = None if progress else True
    with (
        contextlib.closing(_outcomes(entries, recipe, num_workers)) as results,
        tqdm(total=len(entries), desc=description, unit="structure", disable=disable) as bar,
    ):
        for outcome in results:
            bar.update()
            yield outcome


def transform_crystals(
    crystals: Sequence[Data],
    transform: Callable[[Data], Data],
    num_workers: int | None = None,
    progress: bool = False,
    description: str = "",
) -> list[Data]:
    """Apply `transform` to crystals in memory: as a loop over them would, in this process or in several.

    Args:
        crystals: `Data` on the CPU; those given are left as they are.
        transform: for a model, ``model.neighborhood()``.
        num_workers: as in `stream`.
        progress: as in `stream`.
        description: as in `stream`.

    Raises:
        InvalidStructureError: at the first crystal that `transform` refuses.
        RuntimeError: if it fails on one, which is named.
    """
    entries = [
        Entry(str(data.get("structure_id", index)), None, _given, _Parcel(data)) for index, data in enumerate(crystals)
    ]
    recipe = Recipe(transform, None, torch.float32)
    graphs = process(entries, recipe, num_workers, progress=progress, description=description).crystals
    for data, graph in zip(crystals, graphs, strict=True):
        if "structure_id" not in data:
            del graph.structure_id
    return graphs


class _Parcel:
    """A crystal that is pickled by value, see `_to_arrays`."""

    def __init__(self, data: Data):
        self.data = data

    def __reduce__(self) -> tuple:
        return _unpack, (_to_arrays(self.data),)


def _unpack(arrays: tuple[type[Data], dict[str, Any]]) -> _Parcel:
    return _Parcel(_to_data(arrays))


def _given(raw: _Parcel, structure_id: str, dtype: torch.dtype) -> Data:
    return copy.copy(raw.data)


def _outcomes(entries: Sequence[Entry], recipe: Recipe, num_workers: int | None) -> Generator[Outcome, None, None]:
    done = 0
    if num_workers is None:
        start = time.perf_counter()
        for entry in entries[:_CHUNK]:
            yield recipe(entry)
        done = min(_CHUNK, len(entries))
        seconds_left = (time.perf_counter() - start) / max(done, 1) * (len(entries) - done)
        num_workers = _default_workers() if seconds_left > _WORTH_A_POOL else 0
    if num_workers > 0 and len(entries) > done:
        reason = None if not multiprocessing.current_process().daemon else "this process may not start others"
        reason = reason or _unpicklable(recipe)
        if reason is None:
            try:
                for outcome in _pooled(entries[done:], recipe, num_workers):
                    yield outcome
                    done += 1
            except (BrokenProcessPool, pickle.PicklingError, OSError) as error:
                reason = (
                    f"{type(error).__name__}: {error} (a script that starts processes must keep its work under "
                    "if __name__ == '__main__':)"
                )
        if reason is not None:
            warnings.warn(f"processing in one process: {reason}", StructureWarning, stacklevel=2)
    for entry in entries[done:]:
        yield recipe(entry)


def _pooled(entries: Sequence[Entry], recipe: Recipe, num_workers: int) -> Iterator[Outcome]:
    """Outcomes in order, from fresh (spawned) processes; few chunks are under way at a time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        chunks = _chunks(entries)
        waiting: list[Future] = []
        try:
            for chunk in itertools.islice(chunks, 4 * num_workers):
                waiting.append(pool.submit(_process_chunk, recipe, chunk))
            while waiting:
                for outcome in waiting.pop(0).result():
                    yield outcome if outcome.data is None else outcome._replace(data=_to_data(outcome.data))
                for chunk in itertools.islice(chunks, 1):
                    waiting.append(pool.submit(_process_chunk, recipe, chunk))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    iterator = iter(entries)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


def _process_chunk(recipe: Recipe, chunk: Sequence[Entry]) -> list[Outcome]:
    results = [recipe(entry) for entry in chunk]
    return [o if o.data is None else o._replace(data=_to_arrays(o.data)) for o in results]


def _to_arrays(data: Data) -> tuple[type[Data], dict[str, Any]]:
    """Tensors as arrays: they travel by value, where each tensor would hold an open file descriptor."""
    return type(data), {
        key: value.numpy() if type(value) is torch.Tensor else value for key, value in data.to_dict().items()
    }


def _to_data(arrays: tuple[type[Data], dict[str, Any]]) -> Data:
    cls, values = arrays
    return cls.from_dict(
        {key: torch.from_numpy(value) if type(value).__name__ == "ndarray" else value for key, value in values.items()}
    )


def _default_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else min(cores, _MAX_DEFAULT_WORKERS)


def _unpicklable(recipe: Recipe) -> str | None:
    try:
        pickle.dumps(recipe)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f"the pre_transform or pre_filter cannot be sent to another process ({error})"
    return None
