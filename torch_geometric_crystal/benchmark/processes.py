"""Several processes on one machine that train together: this one, and workers that it starts and ends.

This process is the first (rank 0): files, messages and signals are its own business. Workers ignore Ctrl-C and SIGTERM,
do as it says, and end with it, however it ends.
"""

import contextlib
import logging
import multiprocessing
import pickle
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

QUIET = tuple(
    "lightning." + name
    for name in ("fabric.utilities.rank_zero", "pytorch.utilities.rank_zero", "fabric.utilities.distributed")
)
"""Loggers that say how processes are connected."""
_PATIENCE = 60.0  # seconds that workers have to end by themselves once the work is done


class WorkerError(RuntimeError):
    """A process that was started to help has failed."""


@dataclass(frozen=True)
class Place:
    """Which of several processes this is.

    Args:
        rank: number of the process, from 0.
        size: how many there are.
        port: on this machine, where the first one waits for the others.
    """

    rank: int
    size: int
    port: int


class Group:
    """Sums and decisions of processes that work together; a process alone keeps its own.

    Args:
        place: of this process; None if it is alone.
        device: of the tensors that are sent.
    """

    def __init__(self, place: Place | None, device: torch.device):
        self.rank, self.size = (0, 1) if place is None else (place.rank, place.size)
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in a new tensor where `tensor` was."""
        if self.size == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(tensor.device)

    def decide(self, number: int) -> int:
        """What the first process says, for all of them."""
        if self.size == 1:
            return number
        decision = torch.tensor([number], device=self.device)
        torch.distributed.broadcast(decision, 0)
        return int(decision)


class Workers:
    """Starts processes that run ``function(place, *arguments)`` with the ranks 1, 2, ... for the time of a context.

    Args:
        size: number of processes, this one included.
        function: of a module, so that it can be imported by the others.
        arguments: can be pickled; lists of `Data` travel as a few large tensors.
    """

    def __init__(self, size: int, function: Callable[..., object], arguments: Sequence[Any]):
        self.size = size
        self._payload = pickle.dumps((function, [_pack(argument) for argument in arguments]))
        self._processes: list[Any] = []
        self._pipes: list[Any] = []
        self._killed: list[Any] = []
        self._threads = torch.get_num_threads()

    def __enter__(self) -> Place:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError("put the script's work under if __name__ == '__main__':, so that others can import it")
        context = multiprocessing.get_context("spawn")
        port, threads = _free_port(), max(1, self._threads // self.size)
        for rank in range(1, self.size):
            receive, send = context.Pipe(duplex=False)
            arguments = (Place(rank, self.size, port), threads, self._payload, send)
            process = context.Process(target=_help, args=arguments, daemon=True, name=f"worker {rank}")
            process.start()
            send.close()
            self._processes.append(process)
            self._pipes.append(receive)
        torch.set_num_threads(threads)
        return Place(0, self.size, port)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_num_threads(self._threads)
        if kind is not None and not issubclass(kind, RuntimeError):
            self._end(0.0)
            return
        self._end(_PATIENCE if kind is None else 2.0)
        reasons = self._reasons() if error is not None else []
        if reasons:
            raise WorkerError("; ".join(reasons)) from error

    def _reasons(self) -> list[str]:
        """What ended the workers that failed."""
        reasons = []
        for rank, (pipe, process) in enumerate(zip(self._pipes, self._processes, strict=True), start=1):
            try:
                reason = pipe.recv() if pipe.poll() else ""
            except (EOFError, OSError):
                reason = ""
            if not reason and process.exitcode not in (0, None) and process not in self._killed:
                reason = f"it ended with exit code {process.exitcode}"
            if reason:
                reasons.append(f"process {rank} of {self.size} failed: {reason}")
        return reasons

    def _end(self, patience: float) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for process in self._processes:
            process.join(patience)
            if process.is_alive():
                self._killed.append(process)
                process.kill()
                process.join()


def _help(place: Place, threads: int, payload: bytes, pipe: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        function, arguments = pickle.loads(payload)
        with quiet_distribution():
            function(place, *(_unpack(argument) for argument in arguments))
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        raise SystemExit(1) from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def quiet_distribution() -> Iterator[None]:
    """Silence Lightning's lines about the processes that it connects."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class PackedCrystals:
    """Crystals as a few large tensors: one by one they would drag along the storage that they are views of."""

    def __init__(self, crystals: Sequence[Data]):
        self.number = len(crystals)
        self.data, self.slices = InMemoryDataset.collate(list(crystals))

    def crystals(self) -> list[Data]:
        """The crystals again."""
        if self.slices is None:  # one alone is left as it is
            return [self.data]
        from torch_geometric.data.separate import separate

        return [
            separate(type(self.data), self.data, index, self.slices, decrement=False) for index in range(self.number)
        ]


def _pack(argument: Any) -> Any:
    is_list = isinstance(argument, list) and len(argument) > 0 and all(isinstance(item, Data) for item in argument)
    return PackedCrystals(argument) if is_list else argument


def _unpack(argument: Any) -> Any:
    return argument.crystals() if isinstance(argument, PackedCrystals) else argument


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
