"""Our own small classifiers, and torchvision's with a new head: one per family."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.models import names, vision

# The smallest size that each family takes, and where its head sits.
FAMILIES = [
    ("alexnet", 64, "classifier.6"),
    ("convnext_tiny", 32, "classifier.2"),
    ("densenet121", 32, "classifier"),
    ("efficientnet_b0", 32, "classifier.1"),
    ("googlenet", 32, "fc"),
    ("inception_v3", 80, "fc"),
    ("maxvit_t", 224, "classifier.5"),
    ("mnasnet0_5", 32, "classifier.1"),
    ("mobilenet_v2", 32, "classifier.1"),
    ("mobilenet_v3_small", 32, "classifier.3"),
    ("regnet_y_400mf", 32, "fc"),
    ("resnet18", 32, "fc"),
    ("shufflenet_v2_x0_5", 32, "fc"),
    ("squeezenet1_1", 32, "classifier.1"),
    ("swin_v2_t", 32, "head"),
    ("vgg11", 32, "classifier.6"),
    ("vit_b_32", 64, "heads.head"),
]


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
    assert [layer.p for layer in modules(model, nn.Dropout)] == [0.3] * layers
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
    assert {"cnn", "mlp", "softmax", *(arch for arch, _, _ in FAMILIES)} <= set(known)
    assert "fcn_resnet50" not in known
    assert all(names.check_arch(arch) is None for arch in ("cnn", "resnet18"))


@pytest.mark.parametrize(("arch", "size", "head"), FAMILIES)
def test_every_family_gets_a_new_head_and_takes_one_channel(arch, size, head):
    model = build(arch, image_size=size)
    assert vision.head_name(model) == head
    model.train().requires_grad_(False)
    model.get_submodule(head).requires_grad_(True)
    logits = model(torch.rand(2, 1, size, size))
    assert isinstance(logits, torch.Tensor), "a tensor in training too, no tuple with auxiliary outputs"
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.get_submodule(head).parameters())


def test_every_torchvision_family_is_in_the_list_above():
    def families(archs):
        return {torchvision.models.get_model_builder(arch).__module__ for arch in archs}

    every = torchvision.models.list_models(module=torchvision.models)
    assert families(every) == families(arch for arch, _, _ in FAMILIES)


def test_the_state_dict_keeps_torchvisions_names():
    model = build("resnet18", image_size=32, dropout=0.5)
    assert model.state_dict().keys() == torchvision.models.resnet18().state_dict().keys()


def test_dropout_before_a_torchvision_head_works_in_training_only():
    model = build("resnet18", image_size=32, dropout=0.9)
    image = torch.rand(4, 1, 32, 32)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(image), model(image))
        model.fc.train()
        assert not torch.equal(model(image), model(image))


def test_a_torchvision_model_with_hooks_can_be_copied_and_pickled():
    model = build("squeezenet1_1", image_size=32, dropout=0.1).eval()
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(copy.deepcopy(model)(image), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(image), expected)


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
