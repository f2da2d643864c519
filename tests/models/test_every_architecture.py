"""Every architecture, torchvision's and our own, with 5 classes: right head, right groups, a step of training."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from hpo_ray.models import groups, heads, names, vision
from tests.models.families import CLASSES, FAMILIES, on_meta, size_of

SMALLEST = {arch for arch, *_ in FAMILIES}
EVERY = names.architectures()


def forward(model: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
    """The model's output, and its parameters in the order in which the pass came to the modules that hold them."""
    used: list[str] = []
    for name, module in model.named_modules():
        own = [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
        module.register_forward_pre_hook(lambda module, inputs, own=own: used.extend(own))
    with torch.no_grad():
        return model(image), used


@pytest.mark.parametrize("arch", EVERY)
def test_right_head_and_right_groups_on_the_meta_device(arch):
    model = on_meta(arch)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    head = heads.head_name(model)
    assert isinstance(model.get_submodule(head), heads.LinearHead | heads.ConvHead)
    assert model.get_submodule(head).weight.shape[0] == CLASSES
    image = torch.empty(2, 3, size_of(arch), size_of(arch), device="meta")
    logits, used = forward(model.train(), image)
    assert isinstance(logits, torch.Tensor), "a tensor in training too, no tuple with auxiliary outputs"
    assert logits.shape == (2, CLASSES)

    units = groups.blocks(model)
    unit_of = {key: index for index, (_, parameters) in enumerate(units) for key, _ in parameters}
    assert sum(len(parameters) for _, parameters in units) == len(unit_of), "no parameter twice"
    assert unit_of.keys() == dict(model.named_parameters()).keys(), "and none left out"
    assert units[-1][0] == head
    assert {key for key, _ in units[-1][1]} == {f"{head}.{key}" for key, _ in heads.head_of(model).named_parameters()}
    visited = [unit_of[key] for key in used]
    assert visited == sorted(visited), "units come in the order of computation"

    found = groups.layer_groups(model, 3)
    assert [group.depth for group in found] == list(range(min(3, len(units))))
    assert found[-1].name == head
    joined = [key for group in found for key, _ in group.parameters]
    assert joined == [key for _, parameters in units for key, _ in parameters], "contiguous, in order"
    if len(units) >= 5:
        counts = [len({unit_of[key] for key, _ in group.parameters}) for group in found[:2]]
        assert max(counts) <= 3 * min(counts) + 1, "parts of like size"


def step(arch: str, size: int) -> None:
    """One real step of training with every part moving, then an evaluation."""
    model = vision.build(arch, classes=CLASSES, channels=3, image_size=size)
    images = torch.rand(2, 3, size, size)
    loss = nn.functional.cross_entropy(model.train()(images), torch.tensor([1, 3]))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    head = [parameter.detach().clone() for parameter in heads.head_of(model).parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            # Signs only: over two images on 1 x 1 maps BatchNorm's gradients have any size (1e11 in regnet).
            parameter -= 1e-4 * parameter.grad.sign_()
    assert not any(map(torch.equal, head, heads.head_of(model).parameters()))
    with torch.no_grad():
        logits = model.eval()(images)
    assert logits.shape == (2, CLASSES)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("arch", "size"), [pytest.param(arch, size, id=arch) for arch, size, *_ in FAMILIES])
def test_one_step_of_the_smallest_of_each_family(arch, size):
    step(arch, size)


def available_gib() -> float:
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found
    return int(found[1]) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in EVERY if arch not in SMALLEST and arch not in names.OWN])
def test_one_step_of_all_the_others(arch):
    # Weights, gradients, and half as much again for what a step allocates besides; images are tiny.
    needed = 2.5 * 4 * sum(parameter.numel() for parameter in on_meta(arch).parameters()) / 2**30 + 0.5
    if needed > available_gib():
        pytest.skip(f"needs about {needed:.1f} GiB of memory, {available_gib():.1f} GiB are available")
    step(arch, size_of(arch))
    gc.collect()
