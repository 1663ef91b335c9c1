"""Every operator gives on a GPU what it gives on the CPU in float64, twice the same."""

import formulas
import pytest
import test_pairwise
import test_patchwise
import torch
import torch.nn.functional as F

from sancli.model import build
from sancli.model.relations import RELATIONS
from sancli.ops import pairwise_attention, patchwise_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Largest difference to float64, as a share of the largest value; as in the tests on the CPU.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def moved(x, **to):
    """Tensors in nested tuples and dicts, as new leaves on the device."""
    return torch.utils._pytree.tree_map(
        lambda t: t.detach().to(**to).requires_grad_(t.requires_grad) if isinstance(t, torch.Tensor) else t, x
    )


@pytest.mark.parametrize("shape", formulas.MAPS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("operator", "module"), [(patchwise_attention, test_patchwise), (pairwise_attention, test_pairwise)]
)
def test_attention_on_the_gpu_is_that_on_the_cpu(shape, dtype, operator, module):
    if module is test_patchwise and shape[0] * shape[1] * shape[2] == 1:
        pytest.skip("one value has no statistics")
    first, parameters = module.make_inputs(*shape, dtype=dtype)
    given = (first if isinstance(first, tuple) else (first,)), parameters
    (wanted, *_), wanted_grads = formulas.gradients(module.sliced(operator), *given[0], **given[1])
    args, kwargs = moved(given, device="cuda")
    (got, *_), got_grads = formulas.gradients(module.sliced(operator), *args, **kwargs)
    _, again = formulas.gradients(module.sliced(operator), *args, **kwargs)
    assert all(torch.equal(a, b) for a, b in zip(got_grads, again, strict=True))
    for a, b in zip((got, *got_grads), (wanted, *wanted_grads), strict=True):
        assert (a.cpu().double() - b.double()).abs().max() <= TOLERANCE[dtype] * (1 + b.double().abs().max())


@pytest.mark.parametrize("attention", RELATIONS)
def test_a_network_trains_on_the_gpu_under_autocast(attention):
    net = build("san10", attention=attention, num_classes=5).cuda()
    with torch.autocast("cuda", dtype=torch.float16):
        loss = F.cross_entropy(net(torch.randn(4, 3, 64, 96, device="cuda")), torch.arange(4, device="cuda"))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
