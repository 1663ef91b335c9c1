"""A run while it goes on: epoch after epoch, measured on val, saved so that it can stop anywhere.

A step is a function of the settings, its number and what the steps before it left in the learner. That is why
a checkpoint needs no random states, and why a run that stopped and went on is bit for bit one that did not.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from sancli import console
from sancli.data.dataset import Batch, evaluation_loader, readable, seed_of, training_loader
from sancli.data.prepared import Sample
from sancli.data.transforms import mixing
from sancli.engine import checkpoint
from sancli.engine.interrupts import StopRequest, stop_workers
from sancli.engine.loop import Learner, NotFinite, infer, measure_statistics, train_step
from sancli.engine.metrics import summary
from sancli.engine.optim import lr_factor
from sancli.errors import Interruption, TrainingError, command
from sancli.files import write_csv
from sancli.model.bounded import Bounded
from sancli.report.curves import write_curves
from sancli.runs import ModelInfo, Run
from sancli.tasks.training.planning import Plan
from sancli.tasks.training.progress import Progress
from sancli.tasks.training.rehearsal import HEAD, make_order, training_images
from sancli.tasks.training.showing import epoch_line, live_text

STATISTICS_IMAGES = 128
YOUNG_STEPS = 100
"""So long a network from scratch is measured with statistics of its own: BatchNorm's running ones remember
fresh parameters. After 100 steps both tell the same: benchmarks/batchnorm.py."""
SAVE_EVERY_S = 300
CURVES_EVERY_S = 30
FORMAT = 1


class Session:
    """One run from where it stands to its end."""

    def __init__(self, plan: Plan, learner: Learner, run: Run, progress: Progress, stop: StopRequest) -> None:
        self.plan, self.learner, self.run, self.progress, self.stop = plan, learner, run, progress, stop
        self.leads = learner.world.leads
        self.began = time.monotonic() - progress.seconds
        self.saved_at = self.drawn_at = time.monotonic()
        pin = plan.device.torch_device.type == "cuda"
        self.order = make_order(plan, learner.world)
        self.train_loader = training_loader(training_images(plan), self.order, workers=plan.workers, pin=pin)
        self.mix = mixing(mixup=plan.config.mixup, cutmix=plan.config.cutmix, num_classes=len(plan.classes))

    def learn(self) -> str:
        """Trains to the end; says why it ended there.

        Raises:
            Interruption: A signal asked for the end; everything is saved.
            TrainingError: The loss is not finite, or a worker was killed.
            DataError: An image is gone.
        """
        if not self.progress.epoch and not self.progress.step:
            self.save()
        left = (self.plan.epochs - self.progress.epoch) * self.plan.steps_per_epoch - self.progress.step
        total = left * self.plan.step_images
        try:
            with console.progress("Training", total=total, unit="images", lines=False) as self.bar:
                while not (reason := self.reason_to_end()):
                    self.train_epoch()
                    self.finish_epoch(self.validate())
            return reason
        finally:
            stop_workers()

    def reason_to_end(self) -> str:
        """Why no further epoch is due; empty while one is."""
        config, progress = self.plan.config, self.progress
        if progress.epoch >= self.plan.epochs:
            return "all epochs done"
        if config.early_stop and progress.epoch - progress.best_epoch >= config.early_stop:
            return f"--early-stop: nothing better for {console.plural(config.early_stop, 'epoch')}"
        minutes = self.learner.world.from_leader(self.seconds() / 60)
        if config.time_limit is not None and progress.epoch and minutes >= config.time_limit:
            return f"--time-limit of {config.time_limit:g} min reached"
        return ""

    def train_epoch(self) -> None:
        """The steps of an epoch that are left."""
        progress = self.progress
        frozen = progress.epoch < (self.plan.config.freeze_epochs or 0)
        self.learner.set_training(frozen=frozen, head=HEAD)
        self.order.start(progress.epoch, progress.step)
        if progress.step == self.plan.steps_per_epoch:  # stopped before its validation
            return
        for batch in readable(self.train_loader, self.plan.train):
            self.train_batch(batch)

    def train_batch(self, batch: Batch) -> None:
        """One step; afterwards it may be time to save, or to stop."""
        progress, began = self.progress, time.monotonic()
        number = self.steps_done
        torch.manual_seed(seed_of(self.plan.config.seed, number))  # nothing random depends on earlier steps
        images, targets = self.mixed(batch)
        try:
            step = train_step(
                self.learner, images, targets, number=number, of=self.plan.step_images, stop=bool(self.stop)
            )
        except NotFinite as error:
            raise self.not_finite(error, number, batch) from None
        progress.step += 1
        progress.loss += step.loss
        progress.correct += step.correct
        progress.images += step.images
        self.stop.step_s = time.monotonic() - began
        self.bar.advance(step.images, extra=live_text(self.plan, progress))
        if step.stop or (self.stop and self.learner.world.size == 1):  # several processes stop together
            self.interrupt()
        if time.monotonic() - self.saved_at > SAVE_EVERY_S:
            self.save()

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images and targets, blended where --mixup or --cutmix ask for it."""
        if self.mix is None:
            return batch.images, batch.labels
        return self.mix(batch.images, batch.labels)

    def validate(self) -> dict[str, float]:
        """The figures on val of the network that would be kept.

        Raises:
            Interruption: A signal asked for the end; the epoch's training is saved.
        """
        world, found = self.learner.world, []
        if self.plan.from_scratch and self.steps_done <= YOUNG_STEPS:
            batches = self.evaluation_batches(self.statistics_samples())
            measure_statistics(self.learner.best_network, batches, device=self.plan.device)
        world.copy_from_leader(self.learner.best_network)  # BatchNorm statistics are each process's own
        mine = self.plan.val[world.rank :: world.size]
        network = Bounded(self.learner.best_network)
        for batch, logits in infer(network, self.evaluation_batches(mine), device=self.plan.device):
            found.append((logits, batch.labels))
            if self.stop and world.size == 1:
                self.interrupt()
        parts = [part for parts in world.collect(found) for part in parts]
        return summary(torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts]))

    @property
    def steps_done(self) -> int:
        """Of the whole run."""
        return self.progress.epoch * self.plan.steps_per_epoch + self.progress.step

    def statistics_samples(self) -> list[Sample]:
        """Some training images, the same each time, in whole batches: no lone image is left over.

        Drawn by chance: a batch of few classes has other statistics than one of all of them.
        """
        train, size = self.plan.train, min(self.largest_batch, self.plan.step_images)
        count = max(1, min(len(train), STATISTICS_IMAGES) // size) * size
        generator = torch.Generator().manual_seed(seed_of(self.plan.config.seed, count))
        return [train[index] for index in torch.randperm(len(train), generator=generator)[:count].tolist()]

    @property
    def largest_batch(self) -> int:
        """Images that go through the network at once."""
        return min(self.plan.batch_size, self.learner.micro_batch)

    def evaluation_batches(self, samples: list[Sample]) -> Iterator[Batch]:
        """The samples as evaluation sees them, in their order."""
        loader = evaluation_loader(
            samples,
            self.plan.preprocessing,
            batch_size=self.largest_batch,
            workers=self.plan.workers,
            max_pixels=self.plan.max_pixels,
            pin=self.plan.device.torch_device.type == "cuda",
        )
        return readable(loader, samples)

    def finish_epoch(self, figures: dict[str, float]) -> None:
        """Writes the epoch down; keeps the network where it is the best so far; saves."""
        progress, steps = self.progress, self.plan.steps_per_epoch
        row = {
            "epoch": progress.epoch + 1,
            "lr": self.learner.lr * lr_factor(progress.epoch * steps + steps - 1, self.learner.steps),
            "train_loss": progress.loss / progress.images,
            "train_top1": progress.correct / progress.images,
            **{f"val_{name}": value for name, value in figures.items()},
        }
        progress.rows.append(row)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss, progress.correct, progress.images = 0.0, 0.0, 0
        better = progress.is_better(row, self.plan.config.select)
        if better:
            progress.best_epoch = progress.epoch
        if self.leads:
            self.keep(better)
        console.say(epoch_line(self.plan, row, seconds=self.seconds(), better=better))
        if self.learner.world.from_leader(bool(self.stop)) and progress.epoch < self.plan.epochs:
            raise self.interruption()

    def keep(self, better: bool) -> None:
        """Writes what an epoch leaves behind; the checkpoint last, so that it never claims too much."""
        rows = self.progress.rows
        write_csv(self.run.metrics, list(rows[0]), [list(row.values()) for row in rows])
        if better:
            self.run.save_model(self.learner.best_network.state_dict(), self.info(finished=False))
        if time.monotonic() - self.drawn_at > CURVES_EVERY_S:
            self.drawn_at = time.monotonic()
            best = self.progress.best_epoch
            write_curves(self.run.folder / "curves.png", self.run.metrics, best_epoch=best)
        self.save()

    def save(self) -> None:
        """The checkpoint, by the first process alone."""
        self.saved_at = time.monotonic()
        self.progress.seconds = self.seconds()
        if self.leads:
            state = {
                "format": FORMAT,
                "config": self.plan.config.to_toml(),
                "classes": list(self.plan.classes),
                "data": self.plan.fingerprint(),
                "started_from": self.plan.started_from,
                "micro_batch": self.learner.micro_batch,
                "progress": asdict(self.progress),
                **self.learner.state_dict(),
            }
            checkpoint.save(self.run.checkpoint, state)

    def info(self, *, finished: bool) -> ModelInfo:
        """What the best network is."""
        best, plan = self.progress.best(), self.plan
        return ModelInfo(
            name=self.run.folder.name,
            classes=plan.classes,
            arch=plan.config.arch,
            attention=plan.config.attention,
            relation=plan.config.relation,
            preprocessing=plan.preprocessing,
            metrics={name.removeprefix("val_"): best[name] for name in best if name.startswith("val_")},
            epoch=self.progress.best_epoch,
            finished=finished,
            data={
                "name": plan.prepared.manifest.name,
                "path": str(plan.prepared.root.absolute()),
                "sha256": plan.fingerprint(),
            },
            started_from=plan.started_from,
        )

    def seconds(self) -> float:
        """That the run has taken, its earlier parts included."""
        return time.monotonic() - self.began

    def interrupt(self) -> None:
        """Saves where the run stands, and ends it.

        Raises:
            Interruption: Always.
        """
        self.save()
        raise self.interruption()

    def interruption(self) -> Interruption:
        """The end by a signal, with the command that goes on."""
        number = self.stop.signal or 15
        progress = self.progress
        return Interruption(
            f"stopped by {'Ctrl-C' if number == 2 else 'SIGTERM'}.",
            why=f"saved epoch {progress.epoch + (progress.step > 0)}, step {progress.step} of "
            f"{self.plan.steps_per_epoch}, in {self.run.checkpoint}.",
            fix=f"go on with: {resume_command(self.run)}",
            signal_number=number,
        )

    def not_finite(self, why: object, number: int, batch: Batch | None = None) -> TrainingError:
        """The end by a loss that is no number."""
        lr = self.learner.lr * lr_factor(number, self.learner.steps)
        names = [self.plan.train[int(index)].path.name for index in batch.indices[:4]] if batch else []
        more = f" and {len(batch.indices) - 4} more" if batch and len(batch.indices) > 4 else ""
        files = f"; images: {', '.join(names)}{more}" if batch else ""
        return TrainingError(
            f"step {number + 1} was not taken: {why}.",
            why=f"learning rate {lr:.3g} is mostly too high for this network{files}.",
            fix=f"start again with --lr {self.learner.lr / 10:.2g}; the last good checkpoint is "
            f"{self.run.checkpoint}.",
        )


def resume_command(run: Run) -> str:
    """What to type to go on with a run."""
    return command("san", "train", "--resume-from", run.folder)
