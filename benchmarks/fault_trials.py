# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Kill trainings with -9 at random moments, resume, compare the weights.

    python -m benchmarks.fault_trials --trials 20

A third of the kills come at any moment, a third while a checkpoint is being
written, a third during an evaluation. Each training is a process of its own,
with a process that loads data, and is killed up to three times before it may
end. Its last checkpoint must equal, bit by bit, that of a training that was
left alone.
"""
import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import torch

from hrformer_mm.engine import train as training
from hrformer_mm.utils.paths import root

sys.path.insert(0, str(root() / 'tests'))  # small configs and their data
from tiny_tasks import CONFIG_FILES, task_config  # noqa: E402

MOMENTS = ('any', 'writing', 'evaluation')
LONGEST = 300  # seconds; longer is a hang


def start(task: str, folder: Path, log: Path) -> int:
    """Train in a process group of its own, as ``--resume`` does."""
    process = os.fork()
    # Both do it, as either may come first: a kill may follow at once.
    os.setpgid(process, process)
    if process:
        return process
    with open(log, 'a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    cfg = task_config(task, folder)
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    cfg.resume = True
    try:
        training.train(cfg)
    except BaseException as error:
        print(f'ended by {error!r}')
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def has_ended(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] == process


def has_come(moment: str, folder: Path, log: Path, seen: int) -> bool:
    """Whether a training is where it is to be killed."""
    if moment == 'writing':
        return any(folder.glob('run/.*.pth.*'))
    new = log.read_text()[seen:] if log.exists() else ''
    return 'Epoch(val)' in new or 'Iter(val)' in new


def kill_at(moment: str, process: int, folder: Path, log: Path, seen: int,
            duration: float, rng: random.Random) -> bool:
    """Kill a training at a moment; False if it ended before."""
    began, delay = time.monotonic(), rng.uniform(0, duration)
    skips = rng.randrange(3)  # checkpoints that may still be written
    while not has_ended(process):
        if moment == 'any':
            come = time.monotonic() - began > delay
        else:
            come = has_come(moment, folder, log, seen)
        if come and skips and moment == 'writing':
            skips -= 1
            time.sleep(.05)
        elif come:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return True
        time.sleep(.0005)
    return False


def finish(process: int):
    end = time.monotonic() + LONGEST
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            assert status == 0, f'it ended with status {status}'
            return
        assert time.monotonic() < end, 'it hangs'
        time.sleep(.05)


def last_state(folder: Path) -> dict:
    path = (folder / 'run/last_checkpoint').read_text()
    return torch.load(path)


def differences(a: dict, b: dict) -> int:
    """How many weights and moments of the optimizer are not the same bits."""
    count = sum(not torch.equal(a['state_dict'][n], b['state_dict'][n])
                for n in b['state_dict'])
    moments, others = a['optimizer']['state'], b['optimizer']['state']
    return count + sum(
        not torch.equal(torch.as_tensor(moments[i][n]),
                        torch.as_tensor(others[i][n]))
        for i in others for n in others[i]) + (
            a['meta']['iter'] != b['meta']['iter'])


def trial(number: int, task: str, reference: dict, duration: float,
          folder: Path) -> dict:
    """Kill and resume one training; what happened."""
    rng = random.Random(number)
    log, kills = folder / 'log.txt', []
    log.write_text('')
    for _ in range(rng.randint(1, 3)):
        moment = MOMENTS[number % 3]
        seen = len(log.read_text())
        process = start(task, folder, log)
        if not kill_at(moment, process, folder, log, seen, duration, rng):
            break
        text = log.read_text()[seen:]
        kills.append('starting' if '(train)' not in text else moment)
    finish(start(task, folder, log))
    return dict(
        task=task, kills=kills,
        skipped=log.read_text().count('not resumed from'),
        left_over=len(list(folder.glob('run/.*.pth.*'))),
        differences=differences(last_state(folder), reference))


def run(numbers: range, folder: Path) -> list:
    """All trials, the tasks in turn."""
    for package in ('mmpose', 'mmseg', 'mmpretrain'):  # once, not in each
        for part in ('models', 'datasets', 'evaluation', 'visualization'):
            import_module(f'{package}.{part}')
    references, results = {}, []
    for number in numbers:
        task = list(CONFIG_FILES)[number // 3 % 3]
        if task not in references:
            alone = folder / task
            alone.mkdir()
            began = time.monotonic()
            finish(start(task, alone, alone / 'log.txt'))
            references[task] = (last_state(alone), time.monotonic() - began)
        place = folder / str(number)
        place.mkdir()
        results.append(trial(number, task, *references[task], place))
        print(json.dumps(results[-1]), flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--trials', type=int, default=20)
    parser.add_argument(
        '--first', type=int, default=0, help='number of the first; its seed')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(
            range(args.first, args.first + args.trials), Path(folder))
    kills = Counter(k for r in results for k in r['kills'])
    same = sum(r['differences'] == 0 for r in results)
    print(f'{len(results)} trials, {sum(kills.values())} kills '
          f'{dict(kills)}, {same} ended with the same bits')


if __name__ == '__main__':
    main()
