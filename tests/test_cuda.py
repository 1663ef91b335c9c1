"""Every operator gives on a GPU what its formula gives on the CPU in float64, however it is called."""

import functools
import itertools

import formulas
import pytest
import test_trunk
import torch
import torch.nn.functional as F
from formulas import random

from sancli import ops
from sancli.model import build
from sancli.model.relations import RELATIONS

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Largest difference to float64, as a share of the largest value.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
# Of gradients in 16 bits the length of the difference: rounding decides what a ReLU lets through.
LENGTH = {torch.float16: 6e-2, torch.bfloat16: 0.25}
SIZES = [
    (3, 8, 2),
    (16, 64, 8),
    (32, 128, 16),
]  # R, M, G: for the naive kernels; for those of the network's layers
LARGE = [(2, 9, 17, 3), (2, 13, 11, 7)]  # N, H, W, K: several blocks, none of them full


def norm(channels, *, batch, seed=0):
    return ops.Norm(*formulas.norm(channels, batch=batch, seed=seed))


def aggregation(n, h, w, k, r, m, g, batch):
    value, weight = random(n, m, h, w), random(n, k * k, g, h, w)
    return ops.aggregation, formulas.aggregate, {"value": value, "weight": weight, "kernel_size": k}


def attention(operator, formula, related, hidden, n, h, w, k, r, m, g, batch, place=(), **settings):
    """Query, key and value are slices of one map, as in the network."""

    def sliced(function):
        return lambda merged, **rest: function(*merged.split([r, r, m], 1), **rest)

    weights = g * k * k if "sign" not in settings else g
    parameters = {
        "norm1": norm(related, batch=batch),
        "weight1": (random(hidden, related) / related**0.5).detach().requires_grad_(),
        "norm2": norm(hidden, batch=batch, seed=5),
        "weight2": (random(weights, hidden) / hidden**0.5).detach().requires_grad_(),
        "bias2": random(weights),
        "kernel_size": k,
    }
    merged = random(n, 2 * r + m, h, w).detach().to(memory_format=torch.channels_last).requires_grad_()
    return sliced(operator), sliced(formula), {"merged": merged, **dict(place), **parameters, **settings}


def patchwise(n, h, w, k, r, m, g, batch):
    related = r * (k * k + 1)
    operator, formula = ops.patchwise_attention, formulas.patchwise
    return attention(operator, formula, related, g, n, h, w, k, r, m, g, batch)


def pairwise(n, h, w, k, r, m, g, batch, sign=-1):
    operator, formula, place = ops.pairwise_attention, formulas.pairwise, {"place": random(1, 2, h, w)}
    return attention(operator, formula, r + 2, r, n, h, w, k, r, m, g, batch, place, sign=sign)


def bn_relu_conv1x1(n, h, w, k, r, m, g, batch):
    inputs = {"x": random(n, m, h, w), "norm": norm(m, batch=batch)}
    inputs |= {"weight": (random(r, m, 1, 1) / m**0.5).detach().requires_grad_(), "bias": random(r)}
    return ops.bn_relu_conv1x1, test_trunk.layers_conv, inputs


def bn_relu_pool(n, h, w, k, r, m, g, batch):
    inputs = {"x": random(n, m, h + 1, w + 1), "norm": norm(m, batch=batch)}  # at least one window
    return ops.bn_relu_pool, test_trunk.layers_pool, inputs


def norm_relu(n, h, w, k, r, m, g, batch):
    inputs = {"x": random(n, m, h, w, grad=False), "norm": norm(m, batch=False)}
    inputs["norm"] = ops.Norm(*(x.detach() for x in inputs["norm"][:4]), inputs["norm"].eps)
    return ops.norm_relu, lambda x, norm: test_trunk.normalised(x, norm)[0], inputs


def stem(n, h, w, k, r, m, g, batch):
    inputs = {"image": random(n, 3, h + 1, w + 1), "weight": random(m, 3), "norm": norm(m, batch=batch)}
    return ops.stem, test_trunk.layers_stem, inputs


OPERATORS = [
    aggregation, patchwise, pairwise, functools.partial(pairwise, sign=1),
    bn_relu_conv1x1, bn_relu_pool, norm_relu, stem,
]  # fmt: skip
NAMES = ["aggregation", "patchwise", "pairwise", "summation", "conv", "pool", "norm_relu", "stem"]
every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=NAMES)


@pytest.fixture(autouse=True)
def exact():
    """torch's own convolutions and products without TF32, and the same bits each time."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = False, True, False
    yield
    cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = before


def moved(inputs, dtype, device=DEVICE):
    """New leaves on the device: maps and weights of convolutions of this type, parameters of that of sums."""
    real = torch.promote_types(dtype, torch.float32)

    def move(t):
        if not isinstance(t, torch.Tensor):
            return t
        return t.detach().to(device, dtype if t.dim() > 3 else real).requires_grad_(t.requires_grad)

    return torch.utils._pytree.tree_map(move, inputs)


@functools.cache
def seed(shape, dtype, device):
    """A gradient to start from; made before a graph is captured, which could not copy it."""
    return random(*shape, seed=9, grad=False).to(device, dtype)


def run(function, inputs, start=None):
    """Output, statistics and gradients, in a row."""
    outputs, leaves = function(**inputs), list(formulas.tensors(inputs))
    outputs = torch.utils._pytree.tree_leaves(outputs)
    first = outputs[0]
    start = seed(first.shape, first.dtype, first.device) if start is None else start
    grads = torch.autograd.grad(first, leaves, start, allow_unused=True) if leaves else ()
    grads = [torch.zeros_like(x) if grad is None else grad for x, grad in zip(leaves, grads, strict=True)]
    return [x.detach() for x in (*outputs, *grads)]


def assert_near(got, wanted, dtype, outputs):
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        a, b = a.cpu().double(), b.cpu().double()
        assert a.shape == b.shape
        if i >= outputs and dtype in LENGTH:
            assert (a - b).norm() <= LENGTH[dtype] * (b.norm() + b.numel() ** 0.5 * 0.1), i
        else:
            assert (a - b).abs().max() <= TOLERANCE[dtype] * (1 + b.abs().max()), i


def every_tensor(inputs):
    return [x for x in torch.utils._pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor)]


def same(got, wanted):
    return all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def cases():
    """Shape, sizes, and whether statistics are those of the batch."""
    yield from itertools.product(formulas.MAPS, SIZES[:1], [True, False])
    yield from itertools.product(LARGE, SIZES[1:], [True])
    yield from [(LARGE[0], SIZES[1], False), ((1, 3, 3, 7), SIZES[1], True), ((2, 1, 1, 7), SIZES[1], False)]


@every_operator
@pytest.mark.parametrize(("shape", "sizes", "batch"), [*cases()])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_it_is_its_formula_and_twice_the_same(operator, shape, sizes, batch, dtype):
    if batch and shape[0] * shape[1] * shape[2] == 1:
        pytest.skip("one value has no statistics")
    ours, formula, inputs = operator(*shape, *sizes, batch)
    given = moved(inputs, dtype)
    got = run(ours, given)
    assert same(run(ours, given), got)
    wide = moved(moved(inputs, dtype), torch.float64, "cpu")
    outputs = len(got) - len(list(formulas.tensors(inputs)))
    assert_near(got, run(formula, wide), dtype, outputs)


@every_operator
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_it_works_on_another_stream(operator, dtype):
    ours, _, inputs = operator(*LARGE[0], *SIZES[1], True)
    given = moved(inputs, dtype)
    wanted = run(ours, given)
    busy = torch.randn(4096, 4096, device=DEVICE)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()  # the inputs are there
    for _ in range(3):
        busy = busy @ busy / 64  # the default stream is late: nobody may wait for it
        with torch.cuda.stream(stream):
            got = run(ours, given)
        stream.synchronize()
        assert same(got, wanted)


@every_operator
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_captured_graph_gives_the_same_bits(operator, dtype):
    ours, _, inputs = operator(*LARGE[1], *SIZES[1], True)
    given, others = moved(inputs, dtype), moved(inputs, dtype)
    with torch.no_grad():
        for tensor in every_tensor(others):
            tensor.copy_(tensor.flip(0))
    wanted = run(ours, others)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(ours, given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run(ours, given)
    with torch.no_grad():
        for tensor, other in zip(every_tensor(given), every_tensor(others), strict=True):
            tensor.copy_(other)
    graph.replay()
    assert same(got, wanted)


@pytest.mark.parametrize(
    ("operator", "backend"),
    [*((one, "aot_eager") for one in OPERATORS), (patchwise, "inductor"), (bn_relu_pool, "inductor")],
    ids=[*NAMES, "patchwise-inductor", "pool-inductor"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_compiles_whole(operator, backend, dtype):
    ours, _, inputs = operator(*LARGE[0], *SIZES[1], True)
    given = moved(inputs, dtype)
    torch.compiler.reset()
    got = run(torch.compile(ours, fullgraph=True, backend=backend), given)
    assert_near(got, run(ours, given), dtype, len(got))


@every_operator
def test_more_than_two_to_the_31_numbers(operator):
    """Many copies of an image: the last of them is where an index would have run over."""
    if torch.cuda.get_device_properties(0).total_memory < 70 * 2**30:
        pytest.skip("needs 70 GB")
    shape, dtype = (1, 56, 56, 3), torch.bfloat16
    ours, _, inputs = operator(*shape, *SIZES[1], False)
    one = moved(inputs, dtype)
    wanted = run(ours, one)
    largest = max(t.numel() for t in (*every_tensor(one), *wanted))
    images = 2**31 // largest + 2

    def repeated(t):
        of_an_image = isinstance(t, torch.Tensor) and t.dim() > 3 and len(t) == 1 and t.shape[-1] > 2
        if not of_an_image or t.shape[1] == 2:  # the place of a pairwise relation is that of all images
            return t
        many = t.detach().expand(images, *t.shape[1:])
        layout = torch.channels_last if t.dim() == 4 else torch.contiguous_format
        return many.clone(memory_format=layout).requires_grad_(t.requires_grad)

    start = repeated(seed(wanted[0].shape, dtype, wanted[0].device))
    got = run(ours, torch.utils._pytree.tree_map(repeated, one), start)
    assert images * largest > 2**31
    for a, b in zip(got, wanted, strict=True):
        if a.dim() > 3 and len(a) == images:
            for image in (0, images // 2, images - 1):
                assert_near([a[image : image + 1]], [b], dtype, 1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@every_operator
def test_it_works_on_a_device_that_is_not_the_current_one(operator):
    ours, _, inputs = operator(*LARGE[0], *SIZES[1], True)
    wanted = run(ours, moved(inputs, torch.float32))
    got = run(ours, moved(inputs, torch.float32, "cuda:1"))
    assert torch.cuda.current_device() == 0
    assert_near(got, wanted, torch.float32, len(got))


@pytest.mark.parametrize("attention", RELATIONS)
def test_a_network_trains_on_the_gpu_under_autocast(attention):
    net = build("san10", attention=attention, num_classes=5).cuda()
    with torch.autocast("cuda", dtype=torch.float16):
        loss = F.cross_entropy(net(torch.randn(4, 3, 64, 96, device="cuda")), torch.arange(4, device="cuda"))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
