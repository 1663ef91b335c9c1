"""The published networks and the baselines beside them: facts alone, no torch.

Accuracy is on the validation images of ImageNet, as the authors print it in their paper and in the README of
hszhao/SAN. The weights of the baselines are not published.
"""

from dataclasses import dataclass

SOURCE = "Zhao, Jia and Koltun, CVPR 2020; https://github.com/hszhao/SAN"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One row of the authors' table; accuracy in percent."""

    arch: str
    attention: str | None
    parameters_m: float
    flops_g: float
    top1: float
    top5: float
    drive_id: str | None = None
    """Of `model_best.pth` in the authors' release on Google Drive."""
    sha256: str | None = None
    """Of the file; None: recorded at the first download, and held to from then on."""


PUBLISHED = {
    "san10-pairwise": Network(
        arch="san10",
        attention="pairwise",
        parameters_m=10.5,
        flops_g=2.2,
        top1=74.9,
        top5=92.1,
        drive_id="1lv5TYfJFYvNWt_Ik0E-nAuI5h4PqSwuk",
    ),
    "san10-patchwise": Network(
        arch="san10",
        attention="patchwise",
        parameters_m=11.8,
        flops_g=1.9,
        top1=77.1,
        top5=93.5,
        drive_id="1aU60a3I-YZK1HYs25sj2V5nbXC9FqRZ5",
    ),
    "san15-pairwise": Network(
        arch="san15",
        attention="pairwise",
        parameters_m=14.1,
        flops_g=3.0,
        top1=76.6,
        top5=93.1,
        drive_id="1yfJnq28XYAjJ4ThYd9kv9MFBKFvzCr4I",
    ),
    "san15-patchwise": Network(
        arch="san15",
        attention="patchwise",
        parameters_m=16.2,
        flops_g=2.6,
        top1=78.0,
        top5=93.9,
        drive_id="1MJwkzyo2wxjSCynj-Jp8NQMSj6o89Ph-",
    ),
    "san19-pairwise": Network(
        arch="san19",
        attention="pairwise",
        parameters_m=17.6,
        flops_g=3.8,
        top1=76.9,
        top5=93.4,
        drive_id="1wAaGSizflxOCSiVHh2EE3mtyGL0IuPK9",
    ),
    "san19-patchwise": Network(
        arch="san19",
        attention="patchwise",
        parameters_m=20.5,
        flops_g=3.3,
        top1=78.2,
        top5=93.9,
        drive_id="1rtYIB-fTkDc4HR5s8K9Ddn2Xae-lhsfb",
    ),
}

BASELINES = {
    "resnet26": Network(
        arch="resnet26", attention=None, parameters_m=13.7, flops_g=2.4, top1=73.6, top5=91.7
    ),
    "resnet38": Network(
        arch="resnet38", attention=None, parameters_m=19.6, flops_g=3.2, top1=76.0, top5=93.0
    ),
    "resnet50": Network(
        arch="resnet50", attention=None, parameters_m=25.6, flops_g=4.1, top1=76.9, top5=93.5
    ),
}
