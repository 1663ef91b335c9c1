"""What a user calls a network -> the name that it was published under."""

from sancli.config.download_weights import ALL, LIST
from sancli.errors import UsageError, closest
from sancli.model.zoo import BASELINES, PUBLISHED


def full_name(name: str, attention: str | None) -> str:
    """The name with its attention: san15 is san15-patchwise.

    Raises:
        UsageError: There is no such network, or the two contradict each other.
    """
    arch, _, named = name.lower().partition("-")
    if named and attention and named != attention:
        raise UsageError(
            f"{name} and --attention {attention} contradict each other.",
            why=f"{name} is the {named} network.",
            fix=f"san download-weights {arch}-{attention}",
        )
    full = f"{arch}-{named or attention or 'patchwise'}"
    archs = dict.fromkeys(network.arch for network in PUBLISHED.values())
    if arch in BASELINES:
        file = "--weights FILE takes torchvision's file of it, " if arch == "resnet50" else ""
        raise UsageError(
            f"{arch} is one of the paper's baselines, and its authors published no weights of those.",
            why=f"published: {', '.join(PUBLISHED)}.",
            fix=f"{file or 'there is none to fetch: '}san train --arch {arch} --weights none begins anew.",
        )
    if full not in PUBLISHED:
        raise UsageError(
            f"{name} was not published.",
            why=f"known: {', '.join(PUBLISHED)}; {LIST}; {ALL}.",
            fix=closest(name, [*archs, *PUBLISHED, LIST, ALL]),
        )
    return full
