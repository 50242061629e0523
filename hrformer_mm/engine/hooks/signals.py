# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Handle SIGTERM, which schedulers send before they end a run.

One or all processes may receive it, including data loader workers, and more
than once: Slurm sends it to every process of a job, and ``torchrun`` then
sends it again.
"""
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import torch.distributed as dist
from mmengine.dist import is_distributed
from torch.utils.data import DataLoader

EXIT_CODE = 128 + signal.SIGTERM  # as shells report the signal
REPEATS = 5.  # seconds in which further signals are ignored
numbers = count()


class StopRequest:
    """Record SIGTERM, for the process that receives it and for all others.

    A second signal after more than :data:`REPEATS` seconds ends the process
    as it would without this class.
    """

    def __init__(self) -> None:
        self.noted_at: float | None = None
        self.former_handler: Any = None
        # All processes create their objects in the same order.
        self.key = f'hrformer_mm/stop/{next(numbers)}'

    def __bool__(self) -> bool:
        """Return whether this process received the signal."""
        return self.noted_at is not None

    def listen(self) -> None:
        """Record SIGTERM instead of exiting."""
        if threading.current_thread() is threading.main_thread():
            self.former_handler = signal.signal(signal.SIGTERM, self.note)

    def note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.noted_at is None:
            self.noted_at = now
        elif now - self.noted_at > REPEATS:
            self.restore()
            os.kill(os.getpid(), number)

    def restore(self) -> None:
        """Restore the handler of SIGTERM from before :meth:`listen`."""
        if self.former_handler is not None:
            signal.signal(signal.SIGTERM, self.former_handler)
            self.former_handler = None

    def is_announced(self) -> bool:
        """Whether any process received the signal; does not wait.

        The result may differ between processes at the same time.
        """
        if not is_distributed():
            return bool(self)
        store = dist.distributed_c10d._get_default_store()
        if self:
            store.set(self.key, 'SIGTERM')
        return bool(self) or store.check([self.key])


def outlive_first_sigterm() -> None:
    """Keep a worker loading data until its parent has saved and ends it.

    A run whose worker has died cannot save. SIGTERM from the parent process
    ends the worker at once, as this is how Python ends workers.
    """
    if not hasattr(signal, 'sigwaitinfo'):  # macOS and Windows
        return
    # Threads started later inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def obey() -> None:
        first = None
        while True:
            sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
            if sender == parent:
                os._exit(0)  # PyTorch reports any other code as a failure
            now = time.monotonic()
            first = now if first is None else first
            if now - first > REPEATS:
                os._exit(EXIT_CODE)

    threading.Thread(target=obey, daemon=True).start()


def init_worker(former: Callable[[int], None] | None, number: int) -> None:
    """Shield a worker from SIGTERM and call its original ``init_fn``."""
    outlive_first_sigterm()
    if former is not None:
        former(number)


def shield_workers(loader: Any) -> None:
    """Shield all workers that a loader will start from SIGTERM."""
    if not isinstance(loader, DataLoader) or not loader.num_workers or (
            not hasattr(signal, 'pthread_sigmask')):
        return
    if getattr(loader.worker_init_fn, 'func', None) is init_worker:
        return
    loader.worker_init_fn = partial(init_worker, loader.worker_init_fn)
    start = loader._get_iterator

    def start_masked() -> Any:
        # Workers inherit the mask, so they are shielded from the start.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    setattr(loader, '_get_iterator', start_masked)
