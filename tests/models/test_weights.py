"""Files of weights as people have them, put into a model."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision

from hpo_ray.errors import InvalidInput
from hpo_ray.models import vision


def build(weights, arch="squeezenet1_1", size=32):
    return vision.build(arch, classes=5, channels=3, image_size=size, weights=str(weights))


@pytest.fixture(scope="module")
def stock():
    return torchvision.models.squeezenet1_1().state_dict()


def same_trunk(model, state) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], state[key].float()) for key in state if not key.startswith("classifier"))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: state, id="plain"),
        pytest.param(lambda state: {"state_dict": state, "epoch": 3}, id="state_dict"),
        pytest.param(lambda state: {"model": state}, id="model"),
        pytest.param(lambda state: {f"module.{key}": value for key, value in state.items()}, id="DataParallel"),
        pytest.param(lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}, id="compiled"),
    ],
)
def test_everything_but_the_head_is_read(tmp_path, stock, wrap):
    torch.save(wrap(stock), tmp_path / "w.pt")
    model = build(tmp_path / "w.pt")
    assert same_trunk(model, stock)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_half_precision_becomes_single(tmp_path, stock):
    half = {key: value.half() for key, value in stock.items()}
    torch.save(half, tmp_path / "w.pt")
    model = build(tmp_path / "w.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert same_trunk(model, half)


def test_a_file_for_another_number_of_classes_serves_too(tmp_path):
    state = torchvision.models.squeezenet1_1(num_classes=37).state_dict()
    torch.save(state, tmp_path / "w.pt")
    assert same_trunk(build(tmp_path / "w.pt"), state)


def test_weights_of_another_architecture_are_refused(tmp_path, stock):
    torch.save(stock, tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match=r"does not fit 'resnet18': it lacks \d+ entries .* has besides") as caught:
        build(tmp_path / "w.pt", "resnet18")
    assert caught.value.problems[0].key == "model.weights"
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match=r"does not fit 'resnet18': it has besides \d+ entries \(layer1.2"):
        build(tmp_path / "w.pt", "resnet18")


def test_weights_of_another_shape_are_refused(tmp_path):
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match=r"does not fit 'shufflenet_v2_x1_0': .*size mismatch"):
        build(tmp_path / "w.pt", "shufflenet_v2_x1_0")


def test_vit_weights_are_bound_to_their_image_size_and_may_have_the_old_spelling(tmp_path):
    state = torchvision.models.vit_b_32(image_size=64).half().state_dict()
    old = OrderedDict((key.replace("mlp.0.", "mlp.linear_1."), value) for key, value in state.items())
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "w.pt")
    model = build(tmp_path / "w.pt", "vit_b_32", size=64)
    layer = "encoder.layers.encoder_layer_0.mlp.0"
    assert torch.equal(model.get_submodule(layer).weight, state[f"{layer}.weight"].float())
    with pytest.raises(InvalidInput, match=r"size mismatch for encoder.pos_embedding"):
        build(tmp_path / "w.pt", "vit_b_32", size=96)


@pytest.mark.parametrize("arch", ["inception_v3", "googlenet"])
def test_auxiliary_heads_in_the_file_are_passed_over(tmp_path, arch):
    whole = torchvision.models.get_model(arch, aux_logits=True, init_weights=False).state_dict()
    torch.save(whole, tmp_path / "w.pt")
    model = build(tmp_path / "w.pt", arch, size=96)
    own = model.state_dict()
    assert all(torch.equal(own[key], whole[key]) for key in own if not key.startswith("fc."))

    # A checkpoint of it is scored in a model that was built without the file: both must treat images alike.
    scratch = vision.build(arch, classes=5, channels=3, image_size=96)
    scratch.load_state_dict(own)
    image = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(scratch.eval()(image), model.eval()(image))


@pytest.mark.parametrize("keep_versions", [True, False])
def test_mnasnet_with_and_without_its_version(tmp_path, keep_versions):
    state = torchvision.models.mnasnet0_5().state_dict()
    torch.save(state if keep_versions else dict(state), tmp_path / "w.pt")
    assert torch.equal(build(tmp_path / "w.pt", "mnasnet0_5").layers[0].weight, state["layers.0.weight"])


def test_the_old_spelling_of_densenet(tmp_path):
    state = torchvision.models.densenet121().state_dict()
    old = OrderedDict((re.sub(r"(denselayer\d+\.(?:norm|conv))", r"\1.", key), value) for key, value in state.items())
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pt")
    layer = "features.denseblock1.denselayer1.conv1"
    assert torch.equal(build(tmp_path / "w.pt", "densenet121").get_submodule(layer).weight, state[f"{layer}.weight"])


@pytest.mark.parametrize("keep_versions", [True, False])
def test_files_without_batch_norms_counter_of_batches(tmp_path, keep_versions):
    state = torchvision.models.resnet18().state_dict()
    for key in [key for key in state if "num_batches" in key]:
        del state[key]
    torch.save(state if keep_versions else dict(state), tmp_path / "w.pt")
    assert torch.equal(build(tmp_path / "w.pt", "resnet18").conv1.weight, state["conv1.weight"])


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({"features.0.weight": Trap(tmp_path / "mark")}, tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match="is no file of weights"):
        build(tmp_path / "w.pt")
    assert not (tmp_path / "mark").exists()


def test_a_file_that_holds_something_else(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(InvalidInput, match="holds no state dict"):
        build(tmp_path / "tensor.pt")
    for name in ("text.pt", "empty.pt"):
        with pytest.raises(InvalidInput, match="is no file of weights"):
            build(tmp_path / name)
