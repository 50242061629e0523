# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Start jobs of several processes and compare what they computed."""
import socket
import subprocess

import torch
from helpers import ROOT
from toy import ENV


def free_port():
    with socket.socket() as s:
        s.bind(('', 0))
        return str(s.getsockname()[1])


def start(script, *args, **env):
    return subprocess.Popen(['bash', ROOT / 'tools' / script, *map(str, args)],
                            env=dict(ENV, **env), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process, code=0, seconds=900):
    text = process.communicate(timeout=seconds)[0]
    assert process.returncode == code, text
    return text


def assert_same_steps(a, b, tolerance=1e-4):
    a, b = torch.load(a / 'steps.pth'), torch.load(b / 'steps.pth')
    assert len(a['losses']) == len(b['losses']) > 0
    torch.testing.assert_close(a['losses'], b['losses'], rtol=0,
                               atol=tolerance)
    assert a['gradients'].keys() == b['gradients'].keys()
    for name, gradient in a['gradients'].items():
        torch.testing.assert_close(gradient, b['gradients'][name], rtol=0,
                                   atol=tolerance)
