# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Print the machine and its rates as JSON."""
import json

import torch

from .backbone.measure import Limits, seconds
from .backbone.report import describe_machine
from .backbone.subjects import DTYPES


def main():
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    found = dict(describe_machine(device), limits={})
    for name, dtype in DTYPES.items():
        limits = Limits.measure(dtype, device)
        found['limits'][name] = vars(limits)
    x = torch.zeros(1, device=device)

    def launches():
        for _ in range(1000):
            x.add_(1)

    launches()
    found['seconds_per_launch'] = seconds(launches, device) / 1000
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
