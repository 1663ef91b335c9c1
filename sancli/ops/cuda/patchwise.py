"""san::patchwise_attention by kernels/relation_norm.cu, kernels/generate*.cu and kernels/attend*.cu.

The second norm, and products of large matrices, are torch's.
"""

from torch import Tensor

import sancli.ops.patchwise  # noqa: F401 -- the schemas
from sancli.ops.attention import Given, GivenBack
from sancli.ops.cuda import loader
from sancli.ops.cuda.attend import choice as attend
from sancli.ops.cuda.generation import choice as generation
from sancli.ops.cuda.generation import norm
from sancli.ops.cuda.generation.relation import Relation
from sancli.ops.layout import of_one_type, parameter
from sancli.ops.norm import Affine
from sancli.ops.reference import patchwise as plain
from sancli.ops.reference import trunk
from sancli.ops.registry import implement


def patchwise_attention(
    query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::patchwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    tensors = (x for x in rest if isinstance(x, Tensor))
    if not loader.usable(query, key, value, *tensors) or not of_one_type(query, key, value):
        return plain.patchwise_attention(query, key, value, *given)
    (norm1, norm2), k = given.norms, given.kernel_size
    mean1, var1, moments = norm.statistics(query, key, norm1.mean, norm1.var, k)
    folded = norm.fold(norm1.known(mean1, var1), key, moments, k)
    weight1 = parameter(given.weight1, mean1.dtype)
    relation = Relation(query, key, folded, weight1, k)
    z = generation.choose(key, len(given.gamma2), k).generate(relation)
    known2 = trunk.affine(z, norm2)
    hidden = trunk.norm_relu(z, known2)
    out = attend.choose(hidden, value, k).attend(hidden, value, given.weight2, given.bias2, k)
    return out, mean1, var1, known2.mean, known2.var, z


def patchwise_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | float | bool
) -> tuple[Tensor, ...]:
    """san::patchwise_attention_backward."""
    given = GivenBack(*rest)  # type: ignore[arg-type]  # the schema says which is what
    tensors, z = (x for x in rest if isinstance(x, Tensor)), given.kept
    if not loader.usable(grad, query, key, value, *tensors) or not of_one_type(grad, query, key, value, z):
        return plain.patchwise_attention_backward(grad, query, key, value, *given)
    norm1, norm2 = given.norms
    hidden = trunk.norm_relu(z, norm2)
    way = attend.choose(hidden, value, given.kernel_size)
    grad_hidden, grad_value, grad_weight2, grad_bias2 = way.attend_backward(
        grad, hidden, value, given.weight2, given.bias2, given.kernel_size
    )
    grad_z, grad_gamma2, grad_beta2 = trunk.norm_relu_backward(grad_hidden, hidden, z, norm2, given.batch2)
    k, weight1 = given.kernel_size, parameter(given.weight1, norm1.mean.dtype)
    relation = Relation(query, key, norm.fold(norm1, key, None, k), weight1, k)
    grad_query, grad_key, first = generation_backward(relation, grad_z, norm1, given.batch1)
    return (
        grad_query, grad_key, grad_value, first.gamma.to(given.gamma1.dtype),
        first.beta.to(given.beta1.dtype), first.weight.to(given.weight1.dtype),
        grad_gamma2, grad_beta2, grad_weight2.to(given.weight2.dtype), grad_bias2.to(given.bias2.dtype),
    )  # fmt: skip


def generation_backward(
    relation: Relation, grad: Tensor, norm1: Affine, batch: bool
) -> tuple[Tensor, Tensor, norm.Gradients]:
    """Gradients of query, key and the parameters.

    Args:
        relation: As in the forward pass.
        grad: Of z [N, G, H, W].
        norm1: As then.
        batch: Whether its statistics are those of the relation, and so depend on query and key.
    """
    way, parts = generation.choose(relation.key, grad.shape[1], relation.kernel_size), relation.parts()
    found = norm.gradients(relation, norm1, *(way.sums(seen, grad).sum(0) for seen in parts))
    through = norm.fields(relation, norm1.mean, found.statistics) if batch else ((None, None), (None, None))
    grad_key, grad_query = (
        way.map_gradient(seen, grad, *of_map) for seen, of_map in zip(parts, through, strict=True)
    )
    return grad_query, grad_key, found


implement("patchwise_attention", patchwise_attention, "CUDA")
implement("patchwise_attention_backward", patchwise_attention_backward, "CUDA")
