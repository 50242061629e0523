# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""An error that ends a run leaves its traceback in the log."""
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import toy_config

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli
from hrformer_mm.utils.tracebacks import log_of, logged_traceback


@pytest.fixture
def last_line(monkeypatch, capsys):
    """Train as a command does; return what it prints last."""
    monkeypatch.setattr(training, 'check_types', lambda cfg: None)

    def run(cfg):

        @cli.one_line_errors
        def main(argv=None):
            training.train(cfg)

        with pytest.raises(SystemExit) as exit:
            main([])
        assert exit.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_an_error_while_training_has_its_traceback_in_the_log(tmp_path,
                                                              last_line):
    """Also that of the error it was made of, and the one line names it."""
    line = last_line(toy_config(
        tmp_path, **{'train_dataloader.dataset.broken': 7}))
    log, = tmp_path.glob('*/*.log')
    assert line.startswith('error: training sample 7')
    assert line.endswith(f' (traceback in {log})')
    text = log.read_text()
    assert text.count('Traceback (most recent call last)') == 2
    # Where it happened, and what the error was made of.
    assert 'in fetch' in text and 'toy.py' in text
    assert 'is truncated' in text.partition('The run ended by an error')[2]


@pytest.mark.parametrize('error', [
    KeyError('a'), OSError('b'), ImportError('c'), ValueError('d'),
    ZeroDivisionError('e')], ids=lambda e: type(e).__name__)
def test_errors_of_every_kind_are_in_the_log(error, tmp_path):
    """Those that keep their traceback on the terminal as well."""
    logger = logging.Logger('x')
    logger.addHandler(logging.FileHandler(tmp_path / 'x.log'))
    runner = SimpleNamespace(
        logger=logger,
        _train_loop=SimpleNamespace(iter=90),
        log_dir=str(tmp_path))
    with pytest.raises(type(error)) as raised:
        with logged_traceback(runner):
            raise error
    text = (tmp_path / 'x.log').read_text()
    assert f'{type(error).__name__}: ' in text and 'iteration 90' in text
    assert log_of(raised.value) == str(tmp_path / 'x.log')


def test_a_process_without_a_log_writes_its_own(tmp_path):
    """mmengine gives a file to the first process only."""
    runner = SimpleNamespace(logger=logging.Logger('x'), _train_loop=None,
                             log_dir=str(tmp_path / 'logs'))
    with pytest.raises(ValueError) as raised, logged_traceback(runner):
        raise ValueError('here')
    path = Path(log_of(raised.value))
    assert path == tmp_path / 'logs/error_rank0.log'
    assert 'ValueError: here' in path.read_text()


def test_a_disk_that_is_full_hides_no_error(tmp_path):
    runner = SimpleNamespace(logger=logging.Logger('x'), _train_loop=None,
                             log_dir='/dev/null/logs')
    with pytest.raises(ValueError, match='here') as raised:
        with logged_traceback(runner):
            raise ValueError('here')
    assert log_of(raised.value) is None


def test_an_error_before_a_run_is_one_line_without_a_log(tmp_path, last_line):
    cfg = toy_config(tmp_path)
    cfg.model = None
    line = last_line(cfg)
    assert 'needs model=dict' in line and 'traceback' not in line


@pytest.mark.parametrize('code, status, text', [
    ('print("a\\n" * 99999)', 141, ''),
    # Another pipe that broke is an error of the run.
    ('raise BrokenPipeError(32, "Broken pipe")', 2, 'error: [Errno 32]'),
])
def test_output_into_a_closed_pipe_ends_in_silence(code, status, text,
                                                   tmp_path):
    (tmp_path / 'tool.py').write_text(
        'from hrformer_mm.utils import cli\n'
        f'@cli.one_line_errors\ndef main(argv=None):\n    {code}\nmain()\n')
    read, write = os.pipe()
    if status == 141:
        os.close(read)
    done = subprocess.run([sys.executable, tmp_path / 'tool.py'], text=True,
                          stdout=write, stderr=subprocess.PIPE)
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert 'Broken pipe' not in done.stderr or status == 2
