"""What both kinds of attention are given beside their maps: two norms and two 1x1 convolutions."""

from typing import NamedTuple

from torch import Tensor

from sancli.ops.norm import Affine, Norm

GIVEN = (
    "Tensor gamma1, Tensor beta1, Tensor? mean1, Tensor? var1, float eps1, Tensor weight1, "
    "Tensor gamma2, Tensor beta2, Tensor? mean2, Tensor? var2, float eps2, Tensor weight2, Tensor bias2, "
    "int kernel_size"
)
"""Given in an operator's schema."""
GIVEN_BACK = (
    "Tensor gamma1, Tensor beta1, Tensor mean1, Tensor var1, float eps1, bool batch1, Tensor weight1, "
    "Tensor gamma2, Tensor beta2, Tensor mean2, Tensor var2, float eps2, bool batch2, Tensor weight2, "
    "Tensor bias2, Tensor kept, int kernel_size"
)
"""GivenBack."""
USED = "Tensor mean1_used, Tensor var1_used, Tensor mean2_used, Tensor var2_used"
"""The statistics that an operator gives back."""


class Given(NamedTuple):
    """What an attention operator is given behind its maps, in the order of its schema."""

    gamma1: Tensor
    beta1: Tensor
    mean1: Tensor | None
    var1: Tensor | None
    eps1: float
    weight1: Tensor
    gamma2: Tensor
    beta2: Tensor
    mean2: Tensor | None
    var2: Tensor | None
    eps2: float
    weight2: Tensor
    bias2: Tensor
    kernel_size: int

    @property
    def norms(self) -> tuple[Norm, Norm]:
        """Both."""
        return (
            Norm(self.gamma1, self.beta1, self.mean1, self.var1, self.eps1),
            Norm(self.gamma2, self.beta2, self.mean2, self.var2, self.eps2),
        )

    def parameters(self) -> tuple[Tensor, ...]:
        """Those that get a gradient."""
        return self.gamma1, self.beta1, self.weight1, self.gamma2, self.beta2, self.weight2, self.bias2


class GivenBack(NamedTuple):
    """The same in the backward pass: statistics are known, and `batch` says whose they were."""

    gamma1: Tensor
    beta1: Tensor
    mean1: Tensor
    var1: Tensor
    eps1: float
    batch1: bool
    weight1: Tensor
    gamma2: Tensor
    beta2: Tensor
    mean2: Tensor
    var2: Tensor
    eps2: float
    batch2: bool
    weight2: Tensor
    bias2: Tensor
    kept: Tensor
    """Of the forward pass: z of patchwise attention, the log-sum-exp of pairwise."""
    kernel_size: int

    @property
    def norms(self) -> tuple[Affine, Affine]:
        """Both."""
        return (
            Affine(self.gamma1, self.beta1, self.mean1, self.var1, self.eps1),
            Affine(self.gamma2, self.beta2, self.mean2, self.var2, self.eps2),
        )

    def parameters(self) -> tuple[Tensor, ...]:
        """Those that get a gradient."""
        return self.gamma1, self.beta1, self.weight1, self.gamma2, self.beta2, self.weight2, self.bias2
