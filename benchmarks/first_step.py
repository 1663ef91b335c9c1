"""How long the first training step of a process takes, in which kernels are compiled or read, and the next.

usage: python benchmarks/first_step.py DEVICE SIZE NAME...

The names are those of subjects.py. Prints one JSON object: seconds by name.
"""

import json
import sys
import time

import torch
from devices import synchronize
from subjects import ready


def main() -> None:
    """Measures and prints."""
    device, size, *names = sys.argv[1:]
    torch.zeros(1, device=device)  # the context of the card is not what is measured
    found = {}
    for name in names:
        step = ready(name, "train", batch=2, size=int(size), device=device)
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            step()
            synchronize(device)
            seconds.append(round(time.perf_counter() - began, 3))
        found[name] = dict(zip(("first_s", "next_s"), seconds, strict=True))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
