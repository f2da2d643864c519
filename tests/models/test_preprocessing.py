"""What weights expect of an image."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hpo_ray.errors import InvalidInput
from hpo_ray.models import names
from hpo_ray.models.preprocessing import Preprocessing, preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("resnet18", Preprocessing(256, 224, "bilinear", **IMAGENET)),
        ("resnet50", Preprocessing(232, 224, "bilinear", **IMAGENET)),
        ("inception_v3", Preprocessing(342, 299, "bilinear", **IMAGENET)),
        ("convnext_tiny", Preprocessing(236, 224, "bilinear", **IMAGENET)),
        ("efficientnet_b0", Preprocessing(256, 224, "bicubic", **IMAGENET)),
        ("efficientnet_v2_l", Preprocessing(480, 480, "bicubic", **HALF)),
    ],
)
def test_torchvisions_own(arch, expected):
    assert preprocessing(arch, "default") == expected


def test_every_architecture_has_some_and_nothing_is_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("no download is needed to know them")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    for arch in set(names.architectures()) - set(names.OWN):
        found = preprocessing(arch, "default")
        assert found.crop <= found.resize
        assert found.interpolation in ("bilinear", "bicubic")
        assert len(found.mean) == len(found.std) == 3
        assert all(isinstance(value, float) for value in (*found.mean, *found.std))


def test_a_file_is_taken_to_be_like_them(tmp_path):
    (tmp_path / "w.pt").touch()
    assert preprocessing("resnet50", str(tmp_path / "w.pt")) == preprocessing("resnet50", "default")


@pytest.mark.parametrize("arch", ["cnn", "resnet50"])
def test_from_scratch_no_size_is_bound(arch):
    assert preprocessing(arch, None) == Preprocessing(None, None, "bilinear", **IMAGENET)


def test_mistakes_are_named(tmp_path):
    for arch, weights, key in [
        ("resnet81", "default", "model.arch"),
        ("cnn", "default", "model.weights"),
        ("resnet18", str(tmp_path / "none.pt"), "model.weights"),
    ]:
        with pytest.raises(InvalidInput) as caught:
            preprocessing(arch, weights)
        assert [problem.key for problem in caught.value.problems] == [key]


def test_our_own_need_no_torch():
    code = (
        "import sys\n"
        "from hpo_ray.models.preprocessing import preprocessing\n"
        "preprocessing('cnn', None)\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
