"""Before the long run: the network is made, its memory measured, and one batch of each kind is tried."""

import copy
import dataclasses
import math
import time

import torch
from torch import Tensor, nn

from sancli import console, model
from sancli.config import AUTO
from sancli.data.dataset import Batch, Images, Order, collate, readable
from sancli.data.transforms import evaluation_view, training_view
from sancli.engine.device import Device
from sancli.engine.distributed import World
from sancli.engine.loop import Learner, NotFinite, infer, train_step
from sancli.engine.optim import make_optimizer, moving_average
from sancli.errors import TrainingError, UsageError
from sancli.tasks.training.choices import LARGEST_AUTO_BATCH, rarity, with_batch_size
from sancli.tasks.training.planning import Plan

HEAD = "fc"
"""The last layer of every network."""
PROBE_IMAGES = 2
WORKING_SHARE = 1.6
"""Peak memory of a step over what is saved for its backward: measured 1.2 for SAN10, 1.3 for SAN15."""
COPIES = 5
"""Of the weights: themselves, their gradients, the two moments of AdamW, and the moving average."""
USED_SHARE = 0.7
"""Of the memory that is free: the rest is for the loader and for whatever else the machine does."""
WARM_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What one batch of each kind took."""

    batch: Batch
    """The training batch that was tried."""
    step_s: float
    load_s: float
    """Reading the training batch, in one process."""
    val_s: float
    """For all of val, images read included."""

    def epoch_s(self, plan: Plan) -> float:
        """An epoch: on a CPU the readers share the cores with the network, a GPU works beside them."""
        if not plan.workers:
            step = self.step_s + self.load_s
        elif plan.device.torch_device.type == "cpu":
            step = self.step_s + self.load_s / torch.get_num_threads()
        else:
            step = max(self.step_s, self.load_s / plan.workers)
        return plan.steps_per_epoch * step + self.val_s


def make_network(plan: Plan) -> nn.Module:
    """The network on its device, with fresh parameters by the seed, or with those it starts from."""
    torch.manual_seed(plan.config.seed)
    network = model.build(
        plan.config.arch,
        attention=plan.config.attention,
        relation=plan.config.relation,
        num_classes=len(plan.classes),
        zero_init_residual=True,
    )
    if plan.start is not None:
        state = plan.start.network.state_dict()
        own = network.state_dict()
        for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
            state[name] = head_rows(own[name], state[name], plan.classes, plan.start.info.classes)
        network.load_state_dict(state)
    return plan.device.place(network)


def head_rows(fresh: Tensor, old: Tensor, classes: tuple[str, ...], known: tuple[str, ...]) -> Tensor:
    """A new head: the rows of classes that the old one knew by the same name are kept."""
    rows = fresh.clone()
    for label, name in enumerate(classes):
        if name in known:
            rows[label] = old[known.index(name)]
    return rows


def saved_bytes(network: nn.Module, images: Tensor, device: Device) -> int:
    """What a forward pass keeps for the backward pass, parameters apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), device.autocast():
        logits = network(device.send(images))  # kept until the end: freed storage could be counted twice
    total = sum(kept.values())
    del logits
    return total


def fit_into_memory(plan: Plan, network: nn.Module) -> tuple[Plan, int]:
    """The plan with its batch and learning rate, and how many images go through the network at once."""
    side = plan.preprocessing.image_size
    probe = copy.deepcopy(network).train()
    per_image = saved_bytes(probe, torch.randn(PROBE_IMAGES, 3, side, side), plan.device) / PROBE_IMAGES
    free = plan.device.free_bytes()
    fitting = (
        LARGEST_AUTO_BATCH if free is None else max(1, int(free * USED_SHARE / (per_image * WORKING_SHARE)))
    )
    if plan.config.batch_size == AUTO:
        batch = 2 ** int(math.log2(min(fitting, LARGEST_AUTO_BATCH, max(2, len(plan.train)))))
        plan.reasons["batch_size"] = f"the largest that fits, up to {LARGEST_AUTO_BATCH}"
    else:
        batch = int(plan.config.batch_size)
    config = with_batch_size(plan.config, batch, from_scratch=plan.start is None)
    micro = min(batch, fitting) if plan.device.torch_device.type == "cpu" else batch
    at_once = min(micro, len(plan.train))
    total = at_once * per_image * WORKING_SHARE + COPIES * sum(p.nbytes for p in network.parameters())
    plan.reasons["memory"] = f"about {console.size(total)} in a step: {console.size(per_image)} an image"
    if micro < batch:
        parts = math.ceil(batch / micro)
        plan.reasons["memory"] += f", {console.size(free or 0)} free: in {parts} parts, which BatchNorm sees"
    return dataclasses.replace(plan, config=config), micro


def make_learner(plan: Plan, network: nn.Module, world: World, *, micro_batch: int) -> Learner:
    """The network with its optimizer, its average and its loss."""
    config, steps = plan.config, plan.epochs * plan.steps_per_epoch
    assert config.lr is not None
    assert config.weight_decay is not None
    weight = rarity(plan.train, len(plan.classes)) if config.balance == "loss" else None
    return Learner(
        network=network,
        optimizer=make_optimizer(
            network,
            name=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            head=HEAD,
            body_rate=config.body_rate,
        ),
        average=moving_average(network, steps=steps) if config.ema else None,
        device=plan.device,
        criterion=nn.CrossEntropyLoss(
            weight=weight, reduction="sum", label_smoothing=config.label_smoothing
        ).to(plan.device.torch_device),
        lr=config.lr,
        steps=steps,
        micro_batch=micro_batch,
        world=world,
    )


def rehearse(plan: Plan, learner: Learner) -> Rehearsal:
    """Tries one batch of training and one of validation on a copy: what fails, fails now.

    Raises:
        TrainingError: The network gives no finite loss, or there is too little memory.
        UsageError: The batch is too small for BatchNorm.
    """
    trial = copy.deepcopy(learner)
    trial.lr = 0.0  # what is not finite now is not the learning rate's fault
    batch, load_s = timed_batch(plan, learner.world)
    try:
        train_step(trial, batch.images[:WARM_IMAGES], batch.labels[:WARM_IMAGES], number=0, of=WARM_IMAGES)
        began = time.perf_counter()
        train_step(trial, batch.images, batch.labels, number=1, of=plan.step_images)
        step_s = time.perf_counter() - began
    except NotFinite as error:
        raise TrainingError(
            "the network has no finite loss, before it has learnt anything.",
            why=f"{error}.",
            fix="take other weights with --weights, or --precision fp32.",
        ) from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            f"--batch-size {plan.batch_size} is too small for images of {plan.preprocessing.image_size} px.",
            why="BatchNorm would see a single pixel.",
            fix="use --batch-size 2 or more, or a larger --image-size.",
        ) from None
    learner.micro_batch = trial.micro_batch
    return Rehearsal(batch, step_s, load_s, timed_validation(plan, trial))


def timed_batch(plan: Plan, world: World) -> tuple[Batch, float]:
    """The first training batch, and the seconds it takes to read."""
    images, order = training_images(plan), make_order(plan, world)
    keys = next(iter(order))
    began = time.perf_counter()
    batch = next(readable([collate([images[key] for key in keys])], plan.train))
    return batch, time.perf_counter() - began


def timed_validation(plan: Plan, learner: Learner) -> float:
    """Seconds that all of val takes, from one batch of it."""
    count = min(plan.batch_size, len(plan.val))
    view, enough_px = evaluation_view(plan.preprocessing), plan.preprocessing.enough_px
    images = Images(plan.val, view, enough_px=enough_px, max_pixels=plan.max_pixels)
    began = time.perf_counter()
    for _ in infer(
        learner.best_network, [collate([images[index] for index in range(count)])], device=plan.device
    ):
        pass
    return (time.perf_counter() - began) * len(plan.val) / count / learner.world.size


def training_images(plan: Plan) -> Images:
    """The training images in their random views."""
    view, enough_px = training_view(plan.preprocessing, plan.config.augment), plan.preprocessing.enough_px
    return Images(plan.train, view, enough_px=enough_px, seed=plan.config.seed, max_pixels=plan.max_pixels)


def make_order(plan: Plan, world: World) -> Order:
    """The order in which they come."""
    weights = None
    if plan.config.balance == "sampler":
        weights = rarity(plan.train, len(plan.classes))[[sample.label for sample in plan.train]]
    return Order(
        len(plan.train),
        batch_size=plan.batch_size,
        seed=plan.config.seed,
        weights=weights,
        rank=world.rank,
        world=world.size,
    )
