"""Processes that run one fold each, with their share of the machine; they end with the process that started them."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from torch_geometric_crystal.benchmark.tasks.job import FoldJob, run_job

_state: dict[str, str | None] = {"device": None}


def run_in_processes(jobs: Sequence[FoldJob], number: int) -> bool:
    """Run folds in processes, `number` at a time, each with its share of the CPU's threads and one GPU, dealt in turn.

    After a failure, those under way end and no others start.

    Returns:
        Whether all have their records; they have not after an interruption.

    Raises:
        ChildProcessError: if a process was killed.
    """
    if not jobs:
        return True
    number = min(number, len(jobs))
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, min(cores, torch.get_num_threads()) // number)
    devices: Any = context.SimpleQueue()
    gpus = torch.cuda.device_count()
    for k in range(number):
        devices.put(f"cuda:{k % gpus}" if gpus else None)
    with ProcessPoolExecutor(number, context, initializer=_start, initargs=(devices, threads)) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            return False
    try:
        return all(future.result() for future in futures if not future.cancelled())
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that ran a fold was killed, perhaps for want of memory; the same command continues, with fewer "
            "--jobs if need be"
        ) from error


def _run(job: FoldJob) -> bool:
    return run_job(job, job.loader(), _state["device"])


def _start(devices: Any, threads: int) -> None:
    _state["device"] = devices.get()
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, processes whose parent was killed would train on, beside those of the command that continues."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
