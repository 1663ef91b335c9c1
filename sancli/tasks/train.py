"""`san train`: a network learns from a prepared folder."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sancli import console, weights
from sancli.config import TrainConfig
from sancli.data.dataset import Batch
from sancli.data.transforms import visible
from sancli.engine.allocator import keep_freed_memory
from sancli.engine.distributed import World, joined
from sancli.engine.interrupts import deferred
from sancli.engine.loop import Learner
from sancli.errors import Interruption, command
from sancli.files import locked, write_text
from sancli.report.card import write_card
from sancli.report.curves import write_curves
from sancli.report.pictures import write_samples
from sancli.runs import Run, create_run, open_model
from sancli.tasks.evaluate import evaluate_split
from sancli.tasks.training.planning import Plan, make_plan, stem
from sancli.tasks.training.progress import Progress
from sancli.tasks.training.rehearsal import fit_into_memory, make_learner, make_network, rehearse
from sancli.tasks.training.resuming import Saved, check_same_data, reopen
from sancli.tasks.training.session import Session
from sancli.tasks.training.showing import NOTICE, plan_facts, show_plan

SHOWN_SAMPLES = 16


def run(config: TrainConfig, *, given: frozenset[str] = frozenset()) -> None:
    """Trains a network, or goes on training one.

    Args:
        config: The settings.
        given: Which of them stand on the command line; a run that goes on keeps its own.
    """
    keep_freed_memory()
    with joined() as world:
        if not world.leads:
            console.silence()
        train(config, given, world)


def train(config: TrainConfig, given: frozenset[str], world: World) -> None:
    """The recipe, for one process of the world."""
    saved = reopen(config, given) if config.resume or config.resume_from else None
    plan, learner = prepare(config, given, world, saved)
    progress = Progress(**saved.state["progress"]) if saved else Progress()
    rehearsal = rehearse(plan, learner)
    show_plan(plan, learner, rehearsal, progress)
    if config.dry_run:
        console.emit(plan_facts(plan, learner, rehearsal, progress))
        console.say("Dry run: nothing was written. The same command without --dry-run starts it.")
        return
    run = saved.run if saved else open_run(plan, rehearsal.batch, world)
    with locked(run.folder) if world.leads else nullcontext(), console.logged(run.log):
        if saved:
            learner.load_state_dict(saved.state)
        with deferred() as stop:
            session = Session(plan, learner, run, progress, stop)
            reason = session.learn()
            if world.leads:
                mark_finished(session)
        if world.leads:
            report(session, reason)


def prepare(
    config: TrainConfig, given: frozenset[str], world: World, saved: Saved | None
) -> tuple[Plan, Learner]:
    """Everything decided, and the network ready to learn."""
    if config.deterministic:
        torch.use_deterministic_algorithms(mode=True)
    if saved:
        plan = make_plan(saved.config, given, started_from=saved.state["started_from"])
        check_same_data(plan, saved)
    else:
        plan = make_plan(config, given)
    network = make_network(plan)
    plan, micro_batch = fit_into_memory(plan, network)
    world.copy_from_leader(network)
    return plan, make_learner(
        plan, network, world, micro_batch=saved.state["micro_batch"] if saved else micro_batch
    )


def open_run(plan: Plan, batch: Batch, world: World) -> Run:
    """A new run folder with its settings and a picture of what the network will see."""
    folder: Path | None = None
    if world.leads:
        run = create_run(plan.config.runs_dir, stem(plan.config, plan.prepared))
        folder = run.folder
        write_text(run.config, plan.config.to_toml())
        titles = [plan.classes[label] for label in batch.labels[:SHOWN_SAMPLES].tolist()]
        images = visible(batch.images[:SHOWN_SAMPLES], plan.preprocessing)
        write_samples(folder / "samples.jpg", images, titles)
    return Run(world.from_leader(folder))


def mark_finished(session: Session) -> None:
    """Says in the model's own file that the run is complete."""
    run = session.run
    run.save_model(weights.read(run.weights), session.info(finished=True))


def report(session: Session, reason: str) -> None:
    """The curves, the figures on val, the model card and the summary."""
    run, plan = session.run, session.plan
    try:
        write_curves(run.folder / "curves.png", run.metrics, best_epoch=session.progress.best_epoch)
        evaluation = evaluate_split(
            open_model(str(run.folder)),
            plan.prepared,
            "val",
            run.folder / "eval-val",
            device=plan.device,
            batch_size=session.largest_batch,
            workers=plan.workers,
        )
    except KeyboardInterrupt as interrupt:
        raise Interruption(
            "stopped after the training, before its report was written.",
            why=f"the run is complete; its model is {run.weights}.",
            fix=command("san", "eval", "--model", run.folder, "--split", "val"),
            signal_number=interrupt.args[0] if interrupt.args else 2,
        ) from None
    write_card(
        run.folder / "README.md",
        session.info(finished=True).to_dict(),
        evaluation=evaluation,
        conditions=conditions(session),
        pictures=("curves.png", "samples.jpg"),
    )
    summarize(session, reason)


def conditions(session: Session) -> dict[str, Any]:
    """How the training was done, for the model card."""
    plan, config = session.plan, session.plan.config
    return {
        "device": plan.device.describe(),
        "training images": len(plan.train),
        "epochs": f"{session.progress.epoch} of {plan.epochs}",
        "batch": plan.batch_size,
        "optimizer": f"{config.optimizer}, lr {config.lr:.3g}, weight decay {config.weight_decay:g}",
        "seed": config.seed,
        "time": console.duration(session.seconds()),
    }


def summarize(session: Session, reason: str) -> None:
    """The last lines on the screen, and the object of --json."""
    run, plan, progress = session.run, session.plan, session.progress
    info, peak = session.info(finished=True), peak_memory(plan)
    console.say(
        f"Done in {console.duration(session.seconds())}: {reason}; at most {console.size(peak)} of memory"
    )
    console.say(f"Best: epoch {info.epoch}, val top-1 {100 * info.metrics['top1']:.1f} %, in {run.folder}")
    if plan.lacks_imagenet:
        console.say(NOTICE.format(arch=plan.config.arch, attention=plan.config.attention))
    console.emit(
        {
            "run": str(run.folder),
            "model": str(run.weights),
            "ended": reason,
            "epoch": info.epoch,
            "epochs": progress.epoch,
            "metrics": info.metrics,
            "seconds": round(session.seconds(), 1),
            "peak_memory_bytes": peak,
        }
    )
    if plan.prepared.total("test"):
        console.next_command("san", "eval", "--model", run.folder, "--split", "test")
    else:
        console.next_command("san", "predict", plan.val[0].path, "--model", run.folder)


def peak_memory(plan: Plan) -> int:
    """Bytes that the run has held at most, on the GPU where it ran there; 0 where the system does not say."""
    if plan.device.torch_device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(plan.device.torch_device))
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
