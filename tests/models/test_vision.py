"""Our own small classifiers, and torchvision's with a new head: one per family."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.models import heads, names, vision
from tests.models.families import FAMILIES


def build(arch="mlp", **options):
    return vision.build(arch, **{"classes": 5, "channels": 1, "image_size": 8, **options})


def modules(model: nn.Module, kind: type[nn.Module]) -> list:
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("activation", vision.ACTIVATIONS)
@pytest.mark.parametrize("arch", names.OWN)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 33), (1, 5)])
def test_our_own_give_logits_for_any_size(arch, activation, channels, size):
    model = build(arch, channels=channels, image_size=size, activation=activation)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 5)


def test_softmax_is_one_linear_layer():
    assert sum(p.numel() for p in build("softmax").parameters()) == 64 * 5 + 5


@pytest.mark.parametrize("arch", ["mlp", "cnn"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_units_layers_activation_and_dropout_are_used(arch, layers):
    model = build(arch, units=17, layers=layers, activation="tanh", dropout=0.3)
    linear = modules(model, nn.Linear)
    assert [layer.out_features for layer in linear] == [17] * layers + [5]
    assert [layer.p for layer in modules(model, nn.Dropout)] == [0.3] * (layers - 1)
    assert heads.head_of(model).dropout == (0.3 if layers else 0), "the last one is the head's"
    assert len(modules(model, nn.Tanh)) == layers + len(modules(model, nn.Conv2d))


def test_cnn_on_digits_is_as_small_as_its_docstring_says():
    convolutions = modules(build("cnn"), nn.Conv2d)
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [(1, 32), (32, 32)]
    assert len(modules(build("cnn", image_size=160), nn.MaxPool2d)) == 5


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return [parameter.detach() for parameter in build("cnn").parameters()]

    with torch.random.fork_rng():
        assert all(map(torch.equal, weights(1), weights(1)))
        assert not any(map(torch.equal, weights(1)[::3], weights(2)[::3]))


def test_wrong_names_are_answered_with_the_nearest_and_all_at_once():
    with pytest.raises(InvalidInput) as caught:
        build("resnet81", activation="rellu")
    said = {problem.key: problem.message for problem in caught.value.problems}
    assert "did you mean 'resnet18'?" in said["model.arch"]
    assert "did you mean 'relu'?" in said["model.activation"]


def test_architectures_are_ours_and_all_of_torchvisions_classifiers():
    known = vision.architectures()
    assert {"cnn", "mlp", "softmax", *(arch for arch, *_ in FAMILIES)} <= set(known)
    assert "fcn_resnet50" not in known
    assert all(names.check_arch(arch) is None for arch in ("cnn", "resnet18"))


def test_one_channel_is_seen_three_times(family):
    model = build(family.arch, image_size=family.size)
    grey = torch.rand(2, 1, family.size, family.size)
    with torch.no_grad():
        one = model.eval()(grey)
        model._forward_pre_hooks.clear()
        assert torch.equal(one, model(grey.expand(-1, 3, -1, -1)))


def test_every_torchvision_family_is_in_the_list_above():
    def families(archs):
        return {torchvision.models.get_model_builder(arch).__module__ for arch in archs}

    every = torchvision.models.list_models(module=torchvision.models)
    assert families(every) == families(arch for arch, *_ in FAMILIES)


@pytest.mark.parametrize(("arch", "size"), [("alexnet", 32), ("vit_b_32", 50), ("inception_v3", 32), ("maxvit_t", 100)])
def test_an_image_size_that_the_architecture_cannot_take(arch, size):
    with pytest.raises(InvalidInput, match=f"'{arch}' cannot take {size} px") as caught:
        build(arch, image_size=size)
    assert caught.value.problems[0].key == "data.image_size"


def test_vit_with_its_own_weights_is_bound_to_their_size_and_nothing_is_downloaded_to_say_so():
    with pytest.raises(InvalidInput, match="expected value 224 but got 160"):
        build("vit_b_32", image_size=160, weights="default")


def test_trying_the_size_leaves_the_model_untouched():
    model = build("resnet18", image_size=32)
    assert model.training
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert int(model.bn1.num_batches_tracked) == 0


def test_torchvisions_own_weights_come_from_its_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    url = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url
    stock = torchvision.models.squeezenet1_1()
    torch.save(stock.state_dict(), tmp_path / "hub/checkpoints" / url.split("/")[-1])
    model = build("squeezenet1_1", image_size=32, weights="default")
    assert torch.equal(model.features[0].weight, stock.features[0].weight)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 5)


def test_offline_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(InvalidInput, match=r"could not be downloaded.*give the path of a local file") as caught:
        build("squeezenet1_1", image_size=32, weights="default")
    assert caught.value.problems[0].key == "model.weights"


def test_our_own_take_no_weights_and_a_file_must_exist(tmp_path):
    with pytest.raises(InvalidInput, match="'cnn' starts from scratch"):
        build("cnn", weights="default")
    with pytest.raises(InvalidInput, match="neither 'default' nor a file"):
        build("resnet18", image_size=32, weights=str(tmp_path / "none.pt"))
