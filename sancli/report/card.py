"""README.md of a run: what the model is, how good, on which data, and how to use it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sancli.errors import printable
from sancli.files import write_text

FIGURES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "balanced": "Balanced (mean recall of the classes)",
    "macro_f1": "Macro F1",
    "ece": "Expected calibration error",
}
TASK, LIBRARY = "image-classification", "sancli"
HUB_METRICS = {"top1": "accuracy", "top5": "accuracy", "macro_f1": "f1"}
"""Those of our figures that the Hub has a name for."""
MOST_CLASSES, MOST_PAIRS = 100, 5


def write_card(
    path: Path,
    info: Mapping[str, Any],
    *,
    evaluation: Mapping[str, Any] | None = None,
    conditions: Mapping[str, object] | None = None,
    pictures: Sequence[str] = (),
    license: str | None = None,  # noqa: A002 -- the Hub's word
    repository: str | None = None,
) -> None:
    """Writes the model card.

    Args:
        path: Where to.
        info: What `ModelInfo.to_dict` gives.
        evaluation: metrics.json of an evaluation; None: the figures in `info`, on val.
        conditions: What the training was done with and how long it took, in words.
        pictures: Paths of figures, relative to the card.
        license: For the Hub, which then gets its block of YAML at the top; None: the card is not for the Hub.
        repository: OWNER/NAME, where the model can be had from.
    """
    parts = [
        "" if license is None else front_matter(info, evaluation, license=license),
        head(info),
        figures(info["metrics"] if evaluation is None else evaluation),
        "\n".join(map(shown, pictures)),
        usage(info, repository),
        data(info),
        classes(info["classes"]),
        table("Conditions", {**(conditions or {}), **info["versions"]}),
    ]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def shown(picture: str) -> str:
    """The line that shows a figure."""
    return f"![{Path(picture).stem}]({picture})"


def shows(card: str, picture: str) -> bool:
    """Whether a card is one of ours for the Hub, and shows this figure."""
    lines = card.splitlines()
    return f"library_name: {LIBRARY}" in lines and shown(picture) in lines


def front_matter(
    info: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    *,
    license: str,  # noqa: A002 -- the Hub's word
) -> str:
    """What the Hub reads: the block of YAML, with the figures of the evaluation or of the model itself."""
    from huggingface_hub import EvalResult, ModelCardData  # here: a training has no use for it

    values = info["metrics"] if evaluation is None else evaluation
    data = str(info["data"].get("name") or "unknown")
    split = str(values.get("split", "val"))
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type="imagefolder",
            dataset_name=data,
            dataset_split=split,
            metric_type=kind,
            metric_name=FIGURES[key],
            metric_value=round(float(values[key]), 4),
        )
        for key, kind in HUB_METRICS.items()
        if key in values
    ]
    card = ModelCardData(
        license=license,
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=["image-classification", "self-attention", info["arch"]],
        model_name=info["name"],
        eval_results=results or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def head(info: Mapping[str, Any]) -> str:
    """What it is, in two lines."""
    view = info["preprocessing"]
    size = view["image_size"]
    relation = f", relation {info['relation']}" if info["relation"] else ""
    attention = f", {info['attention']} attention{relation}" if info["arch"].startswith("san") else ""
    share = f" {view['crop_share']:.1%} of the short side" if view.get("crop_share", 1.0) != 1.0 else ""
    equalized = ", histograms equalized" if view["equalize"] else ""
    state = "" if info["finished"] else "\n\nThe training is not finished: this is the best so far."
    return (
        f"# {escaped(info['name'])}\n\n"
        f"An image classifier: {info['arch'].upper()}{attention}, {len(info['classes'])} classes, "
        f"{size} x {size} px ({view['crop']}{share}{equalized}), epoch {info['epoch']}, "
        f"started from {escaped(info['started_from'])}.{state}"
    )


def figures(values: Mapping[str, Any]) -> str:
    """The table of figures, with the interval and the most confused pairs where they are known."""
    rows = {name: f"{100 * values[key]:.1f} %" for key, name in FIGURES.items() if key in values}
    if "top1_interval" in values:
        low, high = values["top1_interval"]
        rows["Top-1"] += f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    where = f" on {values['split']}, {values['images']:,} images" if "split" in values else " on val"
    pairs = "".join(
        f"\n- {escaped(pair['true'])} taken for {escaped(pair['predicted'])}: {pair['images']}"
        for pair in values.get("most_confused", ())[:MOST_PAIRS]
    )
    return table(f"Figures{where}", rows) + (f"\n\nMost confused:\n{pairs}" if pairs else "")


def usage(info: Mapping[str, Any], repository: str | None = None) -> str:
    """How to ask the model, from this folder or from the Hub."""
    where, fetch, spec = "In this folder:", "", '"."'
    if repository is not None:
        where, fetch = (
            f"With san (sancli {info['versions']['sancli']}):",
            f"san download-weights {repository}\n",
        )
        spec = f'"{repository}", download=True'
    return (
        f"## Use\n\n{where}\n\n"
        f"```sh\n{fetch}san predict photo.jpg --model {repository or '.'}\n```\n\n"
        "```python\nfrom sancli import load\n\n"
        f"model = load({spec})\n"
        f'model.predict("photo.jpg")  # [({info["classes"][0]!a}, 0.97), ...]\n```\n\n'
        "Labels and preprocessing are inside `model.safetensors`; nothing else is needed."
    )


def data(info: Mapping[str, Any]) -> str:
    """What it has learnt from."""
    known = {key: value for key, value in info["data"].items() if value is not None}
    return table("Data", known) if known else ""


def classes(names: Sequence[str]) -> str:
    """The labels; the first hundred where there are more."""
    more = f" and {len(names) - MOST_CLASSES} more, in model.json" if len(names) > MOST_CLASSES else ""
    return f"## Classes\n\n{', '.join(map(escaped, names[:MOST_CLASSES]))}{more}"


def table(title: str, rows: Mapping[str, object]) -> str:
    """A heading and a table of two columns."""
    lines = [f"| {escaped(name)} | {escaped(value)} |" for name, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def escaped(value: object) -> str:
    """The text as Markdown shows it unchanged, in one line: a class may be called <b> or a|b."""
    return re.sub(r"([\\`*_|<>\[\]#&])", r"\\\1", printable(value))
