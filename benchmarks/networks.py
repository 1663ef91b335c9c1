"""SAN as published, SAN as here, and ResNet-50: time and memory of a training step and of inference.

usage: python benchmarks/networks.py [--quick] [--rounds 7] [--out FILE.json]

Networks take turns within each round, so that what else the machine does falls on all alike; medians and
quartiles over the rounds. Each network's peak of memory is measured in a process of its own. One JSON object
with all figures and their conditions is written to benchmarks/results/ (with --quick: printed only).
"""

import argparse
import ctypes
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # runs from a bare checkout too

from sancli.model import build  # noqa: E402
from sancli.model.san import SAN, coordinates  # noqa: E402

NUM_CLASSES = 6
NETWORKS = (
    "resnet50",
    *(
        f"{arch}-{attention}-{how}"
        for arch in ("san10", "san15")
        for attention in ("patchwise", "pairwise")
        for how in ("plain", "naive")
    ),
)


class Published(nn.Module):
    """A SAN run as the authors' code runs it: layer by layer, every footprint made by unfold."""

    def __init__(self, net: SAN):
        super().__init__()
        self.net = net

    def forward(self, image):
        """Image to logits."""
        net, x = self.net, self.net.bn_in(self.net.conv_in(image)).relu()
        for i in range(5):
            x = getattr(net, f"conv{i}")(F.max_pool2d(x, 2))
            for block in getattr(net, f"layer{i}"):
                out = attend(block.sam, block.bn1(x).relu())
                x = x + block.conv(block.bn2(out).relu())
            x = getattr(net, f"bn{i}")(x).relu()
        return net.fc(x.mean((2, 3)))


def attend(layer, x):
    """Model/san.py in hszhao/SAN, with the unfold formulas of its tests for its CUDA operators."""
    query, key, value = layer.conv1(x), layer.conv2(x), layer.conv3(x)
    if hasattr(layer, "conv_p"):
        place = layer.conv_p(coordinates(x, x.dtype))
        position = (place.flatten(2)[:, :, None] - footprints(place, layer)).expand(len(x), -1, -1, -1)
        compared = query.flatten(2)[:, :, None] - footprints(key, layer)  # [N, R, K * K, H * W]
        weights = layer.conv_w(torch.cat([compared, position], 1)).softmax(2)
    else:
        relation = torch.cat([query.flatten(2), footprints(key, layer).flatten(1, 2)], 1)
        weights = layer.conv_w(relation[:, :, None]).view(len(x), -1, layer.kernel_size**2, relation.shape[2])
    values = footprints(value, layer).unflatten(1, (-1, weights.shape[1]))  # [N, S, G, K * K, H * W]
    return (values * weights[:, None]).sum(3).view(value.shape)


def footprints(x, layer):
    """[N, C, K * K, H * W]."""
    reach = layer.kernel_size // 2
    wide = F.unfold(F.pad(x, (reach,) * 4, mode="reflect"), layer.kernel_size)
    return wide.view(len(x), x.shape[1], layer.kernel_size**2, -1)


def make(name):
    """The network and its optimizer; channels last but for the published code, which knows no layout."""
    torch.manual_seed(0)
    if name == "resnet50":
        net = torchvision.models.resnet50(num_classes=NUM_CLASSES).to(memory_format=torch.channels_last)
    else:
        arch, attention, how = name.split("-")
        net = build(arch, attention=attention, num_classes=NUM_CLASSES)
        net = Published(net.to(memory_format=torch.contiguous_format)) if how == "naive" else net
    return net, torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)


def images(name, batch, size):
    """Random ones, in the layout that the network wants."""
    x = torch.randn(batch, 3, size, size)
    return x if name.endswith("naive") else x.to(memory_format=torch.channels_last)


def train_step(net, optimizer, x):
    """Forward, loss, backward, update."""
    net.train()
    loss = F.cross_entropy(net(x), torch.arange(len(x)) % NUM_CLASSES)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def infer(net, x):
    """Forward without autograd."""
    net.eval()
    with torch.inference_mode():
        net(x)


def milliseconds(function, *args):
    """How long a call takes."""
    began = time.perf_counter()
    function(*args)
    return (time.perf_counter() - began) * 1e3


def time_all(names, settings):
    """Milliseconds an image of each network and task, one number a round; the first round is not counted."""
    made = {name: make(name) for name in names}
    times = {name: {"train": [], "infer": [], "infer_batch1": []} for name in names}
    for _ in range(settings["rounds"] + 1):
        for name, (net, optimizer) in made.items():
            x, batch = images(name, settings["batch"], settings["size"]), settings["batch"]
            times[name]["train"].append(milliseconds(train_step, net, optimizer, x) / batch)
            times[name]["infer"].append(milliseconds(infer, net, x) / batch)
            times[name]["infer_batch1"].append(milliseconds(infer, net, x[:1]))
        print(".", end="", file=sys.stderr, flush=True)
    return {name: {task: spread(values[1:]) for task, values in of.items()} for name, of in times.items()}


def spread(values):
    """Median and quartiles."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"median_ms": round(median, 2), "quartiles_ms": [round(low, 2), round(high, 2)]}


def saved_mib(net, x):
    """MiB an image that autograd keeps for backward: each storage once, parameters apart."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    storages = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = net.train()(x)  # alive until counted, so that no storage is used twice
    total = sum(storages.values())
    del out
    return total / len(x) / 2**20


def memory(name, settings):
    """Saved for backward, and the growth of the process's memory in one step, in MiB an image."""
    net, optimizer = make(name)
    train_step(
        net, optimizer, images(name, 2, 128)
    )  # gradients, momentum and libraries are there from now on
    x = images(name, settings["batch"], settings["size"])
    found = {"saved_mib": round(saved_mib(net, x), 1)}
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = status("VmRSS")
        train_step(net, optimizer, x)
        found["peak_growth_mib"] = round((status("VmHWM") - before) / 2**20 / len(x), 1)
    return found


def status(key):
    """Bytes, from what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def memory_apart(name, settings):
    """`memory` in a fresh process: a peak is of one network only."""
    command = [sys.executable, __file__, "--memory-of", name, "--settings", json.dumps(settings)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def conditions(settings):
    """What the figures depend on."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), processor)
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        **settings,
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "precision": "float32",
        "step": "forward, cross entropy, backward, SGD with momentum",
    }


def table(figures):
    """The figures as lines, with the ratio to ResNet-50 behind each time: above 1 is faster than it."""
    base = figures["resnet50"]
    yield f"{'':24}{'train ms':>16}{'infer ms':>16}{'batch 1 ms':>16}{'saved MiB':>11}{'peak MiB':>10}"
    for name, of in figures.items():
        cells = ""
        for task in ("train", "infer", "infer_batch1"):
            ms = of[task]["median_ms"]
            cells += f"{ms:9.1f} ({base[task]['median_ms'] / ms:.2f})"
        yield f"{name:24}{cells}{of['saved_mib']:11.1f}{of.get('peak_growth_mib', float('nan')):10.1f}"


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, SAN10, two rounds: does it run?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(memory(args.memory_of, args.settings)))
        return
    settings = {"size": 224, "batch": 8, "rounds": args.rounds}
    names = NETWORKS
    if args.quick:
        settings = {"size": 128, "batch": 2, "rounds": 2}
        names = tuple(name for name in names if not name.startswith("san15"))
    result = {"conditions": conditions(settings), "networks": time_all(names, settings)}
    for name in names:
        result["networks"][name] |= memory_apart(name, settings)
    print(*table(result["networks"]), sep="\n")
    out = args.out or (None if args.quick else ROOT / "benchmarks/results/networks.json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {out}")


if __name__ == "__main__":
    main()
