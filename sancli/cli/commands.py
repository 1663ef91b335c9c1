"""One short function per subcommand. Every option is the field of the same name in the task's settings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sancli import __version__
from sancli.cli.options import (
    MACHINE,
    Device,
    InferenceBatch,
    MaxPixels,
    Model,
    Precision,
    RunsDir,
    Tta,
    Workers,
    common,
    given,
    number_or_auto,
    one_of,
    read_preset,
)
from sancli.config import (
    ARCHS,
    ATTENTIONS,
    PRESETS,
    RELATIONS,
    SPLITS,
    DemoConfig,
    DownloadConfig,
    EvalConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    TrainConfig,
)

MODEL, LEARNING, IMAGES, RUN, LABELS = "Model", "Learning", "Images", "Run", "Labels"
PUBLISHING = "Publishing"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: san demo, or san prepare PATH with your folder of images.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"san {__version__}")
        raise typer.Exit


@app.callback()
def san(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Fine-tune and use compact self-attention image networks (SAN) on your own image folders."""


@app.command()
@common
def prepare(
    source: Annotated[Path, typer.Argument(help="A folder of images, or a zip or tar of one.")],
    out: Annotated[Path | None, typer.Argument(help="Where to. Default: data/<name of the source>.")] = None,
    layout: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(PrepareConfig.LAYOUTS)}.", autocompletion=one_of(*PrepareConfig.LAYOUTS)
        ),
    ] = PrepareConfig.layout,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table with a column of images and one of labels, or a list of ImageNet's labels.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    image_col: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column of the images.", rich_help_panel=LABELS),
    ] = None,
    label_col: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column of the labels.", rich_help_panel=LABELS),
    ] = None,
    split_col: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column that says train, val or test.", rich_help_panel=LABELS),
    ] = None,
    label_regex: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help=r"Finds the label in file names, as in '(.+)_\d+\.jpg'; with a slash in it, in paths.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Pass over labels without an image.", rich_help_panel=LABELS),
    ] = False,
    val: Annotated[
        float, typer.Option(help="Share of the training images for val, where the source has none.")
    ] = PrepareConfig.val,
    test: Annotated[
        float, typer.Option(help="Share of the images for test, where the source has none.")
    ] = PrepareConfig.test,
    seed: Annotated[int, typer.Option(help="Of the split.")] = PrepareConfig.seed,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX|COLUMN",
            help="Images in whose paths it finds the same (one patient, one video), or for which this column"
            " of the table of labels says the same, go to one split.",
        ),
    ] = None,
    duplicates: Annotated[
        str,
        typer.Option(
            help="drop, report or off: images with the same bytes.",
            autocompletion=one_of(*PrepareConfig.DUPLICATES),
        ),
    ] = PrepareConfig.duplicates,
    near_duplicates: Annotated[
        bool,
        typer.Option("--near-duplicates", help="Report pictures that look alike too; none is dropped."),
    ] = False,
    bad: Annotated[
        str,
        typer.Option(
            help="skip or fail: files that cannot be read.", autocompletion=one_of(*PrepareConfig.BAD)
        ),
    ] = PrepareConfig.bad,
    max_pixels: MaxPixels = PrepareConfig.max_pixels,
    min_per_class: Annotated[
        int, typer.Option(help="Classes with fewer training images are left out and named.")
    ] = PrepareConfig.min_per_class,
    max_per_class: Annotated[
        int | None, typer.Option(help="Take at most so many training images a class.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="Take these classes alone.")] = None,
    skip: Annotated[str | None, typer.Option(metavar="A,B", help="Leave these classes out.")] = None,
    link: Annotated[
        str,
        typer.Option(
            help="auto, hard, sym, reflink or copy: how images get into the prepared folder.",
            autocompletion=one_of(*PrepareConfig.LINKS),
        ),
    ] = PrepareConfig.link,
    resize: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Make larger images smaller, once: so many pixels the short side."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look and report, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a prepared folder.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the prepared folder SOURCE to its hashes; change nothing.")
    ] = False,
) -> None:
    """Check a folder of images, split it, and lay it out for training."""
    config = PrepareConfig(**locals())
    from sancli.tasks import prepare as task

    task.run(config)


@app.command()
@common
def train(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(help="A prepared folder. Default: the newest in data/.")
    ] = None,
    arch: Annotated[
        str,
        typer.Option(help=f"{', '.join(ARCHS)}.", autocompletion=one_of(*ARCHS), rich_help_panel=MODEL),
    ] = TrainConfig.arch,
    attention: Annotated[
        str,
        typer.Option(
            help=f"{' or '.join(ATTENTIONS)}.",
            autocompletion=one_of(*ATTENTIONS),
            rich_help_panel=MODEL,
        ),
    ] = TrainConfig.attention,
    relation: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{attention}: {', '.join(names)}" for attention, names in RELATIONS.items())
            + ". Default: the first.",
            autocompletion=one_of(*dict.fromkeys(sum(RELATIONS.values(), ()))),
            rich_help_panel=MODEL,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="auto|imagenet|none|RUN|FILE", help="What to start from.", rich_help_panel=MODEL
        ),
    ] = TrainConfig.weights,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Take from --weights what fits, and list what was left.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(PRESETS)}: sets other options; one that is given wins.",
            autocompletion=one_of(*PRESETS),
            is_eager=True,
            callback=read_preset,
        ),
    ] = TrainConfig.preset,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the images. Default: 45 from scratch, 15 from weights.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    freeze_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs for the head alone. Default: 0 from scratch, 1 from weights.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    batch_size: Annotated[
        Any,
        typer.Option(
            parser=number_or_auto,
            metavar="INT|auto",
            help="Images in one optimizer step.",
            rich_help_panel=LEARNING,
        ),
    ] = TrainConfig.batch_size,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate. Default: 1e-3 from scratch, 2e-4 from weights, at batch 64.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    body_rate: Annotated[
        float,
        typer.Option(
            help="Learning rate of all but the head, as a share of the head's.", rich_help_panel=LEARNING
        ),
    ] = TrainConfig.body_rate,
    optimizer: Annotated[
        str,
        typer.Option(
            help=f"{' or '.join(TrainConfig.OPTIMIZERS)}.",
            autocompletion=one_of(*TrainConfig.OPTIMIZERS),
            rich_help_panel=LEARNING,
        ),
    ] = TrainConfig.optimizer,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="None on biases and norms. Default: 0.05; 5e-4 with sgd.", rich_help_panel=LEARNING
        ),
    ] = TrainConfig.weight_decay,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the target given to all classes.", rich_help_panel=LEARNING)
    ] = TrainConfig.label_smoothing,
    mixup: Annotated[
        float, typer.Option(help="Alpha of mixup; 0: off.", rich_help_panel=LEARNING)
    ] = TrainConfig.mixup,
    cutmix: Annotated[
        float, typer.Option(help="Alpha of CutMix; 0: off.", rich_help_panel=LEARNING)
    ] = TrainConfig.cutmix,
    augment: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(TrainConfig.AUGMENTS)}.",
            autocompletion=one_of(*TrainConfig.AUGMENTS),
            rich_help_panel=IMAGES,
        ),
    ] = TrainConfig.augment,
    equalize: Annotated[
        bool,
        typer.Option(
            "--equalize/--no-equalize",
            help="Equalize the histogram of each channel; stored with the model.",
            rich_help_panel=IMAGES,
        ),
    ] = TrainConfig.equalize,
    image_size: Annotated[
        Any,
        typer.Option(
            parser=number_or_auto,
            metavar="PX|auto",
            help="Side of the square that the network sees.",
            rich_help_panel=IMAGES,
        ),
    ] = TrainConfig.image_size,
    crop: Annotated[
        str,
        typer.Option(
            help="center, squash or pad: how an image becomes square.",
            autocompletion=one_of(*TrainConfig.CROPS),
            rich_help_panel=IMAGES,
        ),
    ] = TrainConfig.crop,
    crop_share: Annotated[
        float | None,
        typer.Option(
            help="Of the short side, that --crop center shows. Default: as the weights; 1 from scratch.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Training images a class. Default: all.", rich_help_panel=IMAGES)
    ] = None,
    balance: Annotated[
        str,
        typer.Option(
            help="auto, none, loss or sampler. auto: loss weights where the largest class is over 3 times "
            "the smallest.",
            autocompletion=one_of(*TrainConfig.BALANCES),
            rich_help_panel=LEARNING,
        ),
    ] = TrainConfig.balance,
    select: Annotated[
        str,
        typer.Option(
            help="top1, macro-f1 or loss on val: what the best epoch is.",
            autocompletion=one_of(*TrainConfig.SELECTS),
            rich_help_panel=LEARNING,
        ),
    ] = TrainConfig.select,
    ema: Annotated[
        bool,
        typer.Option("--ema/--no-ema", help="Keep a running mean of the weights.", rich_help_panel=LEARNING),
    ] = TrainConfig.ema,
    early_stop: Annotated[
        int | None,
        typer.Option(help="Epochs without a better figure after which to end.", rich_help_panel=RUN),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="End after so long.", rich_help_panel=RUN)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run.", rich_help_panel=RUN)
    ] = False,
    resume_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with this run.", rich_help_panel=RUN)
    ] = None,
    device: Device = TrainConfig.device,
    precision: Precision = TrainConfig.precision,
    workers: Workers = TrainConfig.workers,
    seed: Annotated[
        int, typer.Option(help="Of weights, order and augmentation.", rich_help_panel=RUN)
    ] = TrainConfig.seed,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Refuse GPU algorithms that vary.", rich_help_panel=MACHINE),
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the run. Default: <data>-<arch>.", rich_help_panel=RUN)
    ] = None,
    runs_dir: RunsDir = TrainConfig.runs_dir,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Try one batch, show the plan, and stop.", rich_help_panel=RUN),
    ] = False,
) -> None:
    """Train or fine-tune a network on prepared images."""
    options = dict(locals())
    options_given = given(options.pop("context"))
    config = TrainConfig(**options)
    from sancli.tasks import train as task

    task.run(config, given=options_given)


@app.command("eval")
@common
def evaluate(
    model: Model = None,
    data: Annotated[Path | None, typer.Option(help="A prepared folder. Default: the run's.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(SPLITS)}. Default: test where there is one, else val.",
            autocompletion=one_of(*SPLITS),
        ),
    ] = None,
    tta: Tta = EvalConfig.tta,
    worst: Annotated[int, typer.Option(help="Images in the picture of the worst errors.")] = EvalConfig.worst,
    out: Annotated[Path | None, typer.Option(help="Where to. Default: runs/<run>/eval-<split>.")] = None,
    batch_size: InferenceBatch = EvalConfig.batch_size,
    device: Device = EvalConfig.device,
    precision: Precision = EvalConfig.precision,
    workers: Workers = EvalConfig.workers,
) -> None:
    """Measure a model on the images of a split."""
    config = EvalConfig(**locals())
    from sancli.tasks import evaluate as task

    task.run(config)


@app.command()
@common
def predict(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, folders, globs, or - for names on stdin.")
    ],
    model: Model = None,
    topk: Annotated[int, typer.Option(help="Labels to name for each image.")] = PredictConfig.topk,
    min_confidence: Annotated[
        float, typer.Option(help='Below it the label is "unsure".')
    ] = PredictConfig.min_confidence,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help=".csv, .json or .jsonl. Default: predictions.csv."
        ),
    ] = None,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy each image into DIR/<label>/.")
    ] = None,
    tta: Tta = PredictConfig.tta,
    max_pixels: MaxPixels = PredictConfig.max_pixels,
    batch_size: InferenceBatch = PredictConfig.batch_size,
    device: Device = PredictConfig.device,
    precision: Precision = PredictConfig.precision,
    workers: Workers = PredictConfig.workers,
) -> None:
    """Say what is on images."""
    config = PredictConfig(**{**locals(), "paths": tuple(paths)})
    from sancli.tasks import predict as task

    task.run(config)


@app.command()
@common
def export(
    model: Model = None,
    format: Annotated[  # noqa: A002 -- the option's name
        str | None,
        typer.Option(
            help=f"{', '.join(ExportConfig.FORMATS)}. Default: as -o ends, or safetensors; hub with --push.",
            autocompletion=one_of(*ExportConfig.FORMATS),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Where to. Default: the model's name, in this folder."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what was exported there before.")] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Publish it in this repository of the Hugging Face Hub; made where there is none.",
            rich_help_panel=PUBLISHING,
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one.", rich_help_panel=PUBLISHING)
    ] = False,
    license: Annotated[  # noqa: A002 -- the option's name
        str | None,
        typer.Option(
            metavar="ID",
            help="For the model card, as the Hub names it: mit, apache-2.0, cc-by-4.0. Default: unknown.",
            rich_help_panel=PUBLISHING,
        ),
    ] = None,
) -> None:
    """Write a model in another form, or publish it on the Hugging Face Hub."""
    config = ExportConfig(**locals())
    from sancli.tasks import export as task

    task.run(config)


@app.command()
@common
def runs(runs_dir: RunsDir = TrainConfig.runs_dir) -> None:
    """List the runs of this folder with their figures."""
    from sancli.tasks import list_runs as task

    task.run(runs_dir)


@app.command()
@common
def download_weights(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|list|all",
            help="san10, san15 or san19, with -patchwise or -pairwise; or OWNER/NAME, a model of san"
            " on the Hugging Face Hub.",
        ),
    ] = DownloadConfig.name,
    attention: Annotated[
        str | None,
        typer.Option(
            help="patchwise or pairwise, where NAME does not say.", autocompletion=one_of(*ATTENTIONS)
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|URL",
            help="The authors' checkpoint, or one of ours. Default: their release on Google Drive.",
        ),
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="A Hugging Face repository that has the checkpoint."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit of the repository.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: the user's cache.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace weights that are there.")] = False,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Do not touch the network: say what is here, or where it is from."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched; check a FILE; write nothing.")
    ] = False,
) -> None:
    """Fetch published weights, check them and keep them ready, or list them."""
    config = DownloadConfig(**locals())
    from sancli.tasks import download_weights as task

    task.run(config)


@app.command()
@common
def doctor() -> None:
    """Say what this machine can do, and why."""
    from sancli.tasks import doctor as task

    task.run()


@app.command()
@common
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to.")] = DemoConfig.folder,
    seed: Annotated[int, typer.Option(help="Of the drawn scenes.")] = DemoConfig.seed,
) -> None:
    """Draw some scenes, then prepare, train, evaluate and predict: no data and no network needed."""
    config = DemoConfig(**locals())
    from sancli.tasks import demo as task

    task.run(config)
