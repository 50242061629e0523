# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Start processes with torchrun, and return informative exit codes.

    python -m hrformer_mm.engine.launch [torchrun options] SCRIPT [arguments]

torchrun exits with 1 on every failure. This command exits with the code of the
process that failed first, with 128 plus the number of the signal that killed
it, with 143 after SIGTERM and with 130 after Ctrl-C. On several machines it
prints the missing ones every 15 seconds, and gives up after ``NODE_TIMEOUT``
seconds (300).
Processes of other launchers wait for each other in the same way, see
:class:`Meeting`.
"""
import os
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from torch.distributed import TCPStore
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

STOPPED = 128 + signal.SIGTERM
MISTAKE = 2  # exit code for user errors
GRACE = 60  # seconds for processes to save and leave after a signal
REPORT = 15  # seconds between reports of missing machines
STORE_TIMEOUT = 5  # seconds for an operation of the thread's store


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def node_timeout() -> float:
    """Return the seconds to wait for other machines.

    Raises:
        ValueError: If ``NODE_TIMEOUT`` is not a positive number.
    """
    text = os.environ.get('NODE_TIMEOUT', '300')
    with suppress(ValueError):
        if 0 < float(text) < float('inf'):
            return float(text)
    raise ValueError(f'NODE_TIMEOUT is {text!r}; it must be a number of '
                     'seconds above 0')


class Machines(threading.Thread):
    """Thread that reports machines that have not joined yet.

    Args:
        count: Number of machines.
        rank: Rank of this machine, from 0.
        address: Address of the first machine.
        port: Port of the first machine.
        timeout: Seconds to wait.
    """

    def __init__(self, count: int, rank: int, address: str, port: int,
                 timeout: float):
        super().__init__(daemon=True)
        self.count, self.rank = count, rank
        self.address, self.port = address, port
        self.end = time.monotonic() + timeout
        self.missing = [0] if rank else list(range(1, count))
        self.is_over = threading.Event()

    @property
    def text(self) -> str:
        """Return a description of the missing machines."""
        one = len(self.missing) == 1
        return (f"machine{'' if one else 's'} NODE_RANK="
                f"{','.join(map(str, self.missing))} of NNODES={self.count} "
                f"{'is' if one else 'are'} missing at "
                f'{self.address}:{self.port}')

    def run(self) -> None:
        store = None
        reported = time.monotonic() - REPORT + 2  # the first one after 2 s
        while self.missing and not self.is_over.wait(.5):
            with suppress(Exception):  # the first machine may not listen yet
                store = store or self.join_store()
                self.look(store)
            now = time.monotonic()
            if self.missing and now - reported > REPORT:
                reported = now
                report(f'waiting: {self.text}, {self.end - now:.0f} s left '
                       '(NODE_TIMEOUT)')

    def leave(self) -> None:
        """End the thread.

        A process that ends while a thread is inside PyTorch's store aborts,
        with exit code -6 in place of its own.
        """
        self.is_over.set()
        self.join(STORE_TIMEOUT + 5)

    def join_store(self) -> TCPStore:
        """Connect to the first machine and register this one."""
        socket.create_connection((self.address, self.port), 2).close()
        store = TCPStore(self.address, self.port, None, False,
                         timedelta(seconds=STORE_TIMEOUT),
                         wait_for_workers=False)
        store.set(self.key(self.rank), 'here')
        return store

    @staticmethod
    def key(rank: int) -> str:
        return f'hrformer_mm/machine/{rank}'

    def look(self, store: TCPStore) -> None:
        self.missing = [r for r in range(self.count)
                        if not store.check([self.key(r)])]


def ranges(numbers: Sequence[int]) -> str:
    """Format sorted numbers like '0, 4-7'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ', '.join('-'.join(map(str, run)) for run in runs)


class Meeting:
    """Rendezvous of processes started by srun, mpirun or the like.

    PyTorch waits for them as long as the timeout of an operation, and does not
    report which are missing. For torchrun, see :class:`Machines`.

    Args:
        rank: Rank of this process.
        world: Number of processes.
        address: Address of the first process.
        port: Port of the first process.
        speaks: Whether this process reports missing processes.
        machines: Function that returns the names of all machines, or an empty
            sequence if they are unknown.
    """
    KEY = 'hrformer_mm/process/'
    COMPLETE = KEY + 'all'

    def __init__(self, rank: int, world: int, address: str, port: int,
                 speaks: bool = True,
                 machines: Callable[[], Sequence[str]] = tuple) -> None:
        self.rank, self.world = rank, world
        self.address, self.port = address, port
        self.speaks, self.machines = speaks, machines
        self.store: TCPStore | None = None
        self.there: dict[int, str] = {}  # machines by process

    def wait(self, timeout: float) -> TCPStore:
        """Wait until all processes have joined.

        Returns:
            Store that the first process must keep as long as PyTorch's own,
            which shares its port.

        Raises:
            TimeoutError: If processes are missing. Names them.
            OSError: If the first process cannot listen.
        """
        if not self.rank:
            self.store = self.listen()
        end = time.monotonic() + timeout
        reported = time.monotonic() - REPORT + 2  # the first one after 2 s
        while True:
            with suppress(RuntimeError, OSError):  # not listening yet
                self.store = self.store or self.join()
                if self.is_complete(self.store):
                    return self.store
            now = time.monotonic()
            if now > end:
                raise TimeoutError(
                    f'{self.text()}; gave up after NODE_TIMEOUT={timeout:.0f} '
                    'seconds: look at the output of those processes, and '
                    'whether the port can be reached from their machines')
            if self.speaks and now - reported > REPORT:
                reported = now
                report(f'waiting: {self.text()}, {end - now:.0f} s left '
                       '(NODE_TIMEOUT)')
            time.sleep(.2)

    def listen(self) -> TCPStore:
        try:
            return self.join()
        except RuntimeError as error:
            reason = str(error).partition('\n')[0]
            raise OSError(
                f'{self.address}:{self.port} cannot be used by the first '
                f'process ({reason}): choose another MASTER_PORT, and for '
                'MASTER_ADDR an address of its machine') from error

    def join(self) -> TCPStore:
        """Connect to the first process and register this one."""
        if self.rank:
            socket.create_connection((self.address, self.port), 2).close()
        store = TCPStore(self.address, self.port, None, not self.rank,
                         timedelta(seconds=10), wait_for_workers=False,
                         multi_tenant=True)
        store.set(f'{self.KEY}{self.rank}', socket.gethostname())
        return store

    def is_complete(self, store: TCPStore) -> bool:
        """Whether all processes have joined, as the first one determines."""
        if self.rank:
            return store.check([self.COMPLETE])
        self.look(store)
        if len(self.there) < self.world:
            return False
        store.set(self.COMPLETE, 'here')
        return True

    def look(self, store: TCPStore) -> None:
        for rank in set(range(self.world)) - {*self.there}:
            key = f'{self.KEY}{rank}'
            if store.check([key]):
                self.there[rank] = store.get(key).decode()

    def text(self) -> str:
        """Describe which processes are missing, and on which machines."""
        with suppress(RuntimeError, OSError):
            if self.store is not None:
                self.look(self.store)
        lost = [r for r in range(self.world) if r not in self.there] if (
            self.there) else [0]
        verb = 'is' if len(lost) == 1 else 'are'
        here = {name.partition('.')[0] for name in self.there.values()}
        silent = [name for name in self.machines()
                  if name.partition('.')[0] not in here]
        if not self.there:
            where = ''
        elif silent:
            where = f" (none has started on {', '.join(silent)})"
        else:
            where = f" (some have started on {', '.join(sorted(here))})"
        return (f"process{'' if len(lost) == 1 else 'es'} {ranges(lost)} of "
                f'{self.world} {verb} missing at {self.address}:{self.port}'
                f'{where}')


def watch_machines(args: Namespace) -> Machines | None:
    """Set torchrun's timeout for other machines, and report missing ones."""
    count = int(args.nnodes) if str(args.nnodes).isdigit() else 1
    if count == 1:
        return None
    timeout = node_timeout()
    args.rdzv_conf = ','.join(
        filter(None, [args.rdzv_conf, f'timeout={timeout:.0f}']))
    machines = Machines(count, args.node_rank, args.master_addr,
                        int(args.master_port or 29500), timeout)
    machines.start()
    return machines


def code_of(failed: ChildFailedError) -> int:
    """Return the exit code for failed processes, and print the reason."""
    codes = [failure.exitcode for failure in failed.failures.values()]
    if STOPPED in codes:  # the run was saved; other codes are consequences
        return STOPPED
    rank, failure = failed.get_first_failure()
    if failure.exitcode < 0:
        report(f'error: process {rank} was killed: {failure.message}')
        return 128 - failure.exitcode
    report(f'error: process {rank} ended with exit code {failure.exitcode}')
    return failure.exitcode


def wait_for_children(seconds: float) -> None:
    """Wait until all child processes have ended."""
    end = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while time.monotonic() < end:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(.1)


def main(argv: Sequence[str] | None = None) -> int:
    args = torchrun.parse_args(
        list(sys.argv[1:] if argv is None else argv))
    # torchrun kills processes 30 seconds after it passed on a signal.
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', str(GRACE))
    try:
        machines = watch_machines(args)
    except ValueError as error:
        report(f'error: {error}')
        return MISTAKE
    try:
        torchrun.run(args)
    except SignalException as error:
        number = int(error.sigval)
        # A second signal interrupts torchrun's own wait.
        signal.signal(number, signal.SIG_IGN)
        wait_for_children(GRACE)
        return 128 + number
    except ChildFailedError as error:
        return code_of(error)
    except Exception:
        if machines is not None and machines.missing:
            report(f'error: {machines.text}: start the same command there, '
                   'and look whether the port can be reached; gave up after '
                   'NODE_TIMEOUT seconds')
            return MISTAKE
        raise
    finally:
        if machines is not None:
            machines.leave()
    return 0


if __name__ == '__main__':
    sys.exit(main())
