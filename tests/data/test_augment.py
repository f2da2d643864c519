"""What augmentation does to an image, and what it must not do."""

from __future__ import annotations

import os

import pytest
import torch

from hpo_ray.data import images, parts
from hpo_ray.data.augment import KINDS, Augmentation, kept_generator, mixer
from hpo_ray.errors import InvalidInput


def varied(augmentation: Augmentation, image: torch.Tensor, n: int = 60) -> list[torch.Tensor]:
    with kept_generator():
        return [augmentation.varied(image, seed) for seed in range(n)]


def scene(height=24, width=32, dtype=torch.uint8) -> torch.Tensor:
    """Bright everywhere, and no two pixels in a row or column the same."""
    image = (100 + torch.arange(height).view(-1, 1) + torch.arange(width).view(1, -1) * 2).expand(3, -1, -1)
    return image.to(dtype) if dtype == torch.uint8 else image / 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_type_and_shape_stay_and_seeds_decide(kind, channels, dtype):
    image = scene(28, 28, dtype)[:channels]
    found = varied(Augmentation(kind), image)
    assert all(each.shape == image.shape and each.dtype == dtype for each in found)
    again = varied(Augmentation(kind), image)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert len({tuple(each.flatten().tolist()) for each in found}) > (1 if kind != "none" else 0)
    assert torch.equal(image, scene(28, 28, dtype)[:channels]), "the image itself was changed"


@pytest.mark.parametrize("kind", ["side_on", "top_down", "crop"])
@pytest.mark.parametrize("size", [(28, 28), (24, 60), (8, 8)])
def test_no_black_comes_in_at_the_borders(kind, size):
    strongest = Augmentation(kind, zoom=1.5, rotate=45, lighting=0)
    for each in varied(strongest, scene(*size)):
        assert each.min() >= 98


def test_zoom_only_ever_enlarges():
    image = torch.zeros(1, 40, 40, dtype=torch.uint8)
    image[:, 15:25, 15:25] = 200
    areas = [int((each > 100).sum()) for each in varied(Augmentation("side_on", zoom=1.5, rotate=0, lighting=0), image)]
    assert min(areas) >= 100
    assert 150 < max(areas) <= 15**2 + 15


def test_rotation_stays_within_its_limit():
    image = torch.zeros(1, 41, 41, dtype=torch.uint8)
    image[:, 20, 4:37] = 255  # a level line
    tips = [
        (each[0, :, 7].float().argmax() - each[0, :, 33].float().argmax()).abs().item()
        for each in varied(Augmentation("side_on", zoom=1, rotate=10, lighting=0), image)
    ]
    limit = 26 * torch.tan(torch.deg2rad(torch.tensor(10.0)))
    assert limit - 2 < max(tips) <= limit + 1


def test_side_on_never_stands_an_image_on_its_head_and_top_down_does():
    image = scene(20, 20)

    def ways(kind):
        found = varied(Augmentation(kind, zoom=1, rotate=0, lighting=0), image, 100)
        return {tuple(each.flatten().tolist()) for each in found}

    def all_ways(image, quarters):
        turned = [image.rot90(k, (1, 2)) for k in quarters]
        return {tuple(each.flatten().tolist()) for each in turned + [each.flip(2) for each in turned]}

    assert ways("side_on") == all_ways(image, [0])
    assert ways("top_down") == all_ways(image, range(4))


def test_lighting_changes_brightness_within_its_limit():
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    found = [
        float(each.float().mean()) for each in varied(Augmentation("side_on", zoom=1, rotate=0, lighting=0.2), image)
    ]
    assert 79 <= min(found) < 90
    assert 110 < max(found) <= 121


def test_crop_shifts_by_an_eighth_at_most():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[:, 14, 14] = 255
    places = [divmod(int(each.argmax()), 28) for each in varied(Augmentation("crop"), image, 300)]
    assert {row for row, _ in places} == set(range(10, 19))
    assert {column for _, column in places} <= set(range(9, 19))


def test_wrong_settings_are_told_together():
    with pytest.raises(InvalidInput) as caught:
        Augmentation("sideon", zoom=0.5, rotate=-1, lighting=2)
    assert [problem.key for problem in caught.value.problems] == [
        "data.augment",
        "data.zoom",
        "data.rotate",
        "data.lighting",
    ]
    assert "did you mean 'side_on'" in str(caught.value)


@pytest.mark.parametrize("kinds", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_labels_are_shares(kinds):
    mix = mixer(*kinds, classes=5)
    torch.manual_seed(0)
    pictures, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 5
    mixed, soft = mix(pictures, labels)
    assert mixed.shape == pictures.shape
    assert soft.shape == (16, 5)
    torch.testing.assert_close(soft.sum(1), torch.ones(16))
    assert not torch.equal(mixed, pictures)


def test_mixup_blends_images_as_it_blends_labels():
    pictures = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 6, 6).contiguous()
    mixed, soft = mixer(1.0, 0.0, 4)(pictures, torch.arange(4))
    torch.testing.assert_close(mixed[:, :, 0, 0], soft)


def test_cutmix_takes_as_much_of_the_label_as_of_the_image():
    pictures = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 10, 10).contiguous()
    mixed, soft = mixer(0.0, 1.0, 4)(pictures, torch.arange(4))
    torch.testing.assert_close(mixed.mean((2, 3)), soft)


def test_no_mixing_is_no_mixer_and_a_negative_one_is_refused():
    assert mixer(0, 0, 10) is None
    with pytest.raises(InvalidInput, match=r"training.cutmix"):
        mixer(0.1, -1, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_real_photographs_stay_recognisable(kind):
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    part = images.load("folder", f"{folder}/hymenoptera", image_size=64).valid
    some = parts.FolderImages(part.samples[:24], part.preprocess, part.corrupt)
    [(plain, _)] = parts.batches(some, 24)
    [(seen, _)] = parts.batches(some, 24, augment=Augmentation(kind))
    assert torch.isfinite(seen).all()
    alike = torch.nn.functional.cosine_similarity(
        torch.nn.functional.avg_pool2d(plain, 32).flatten(1), torch.nn.functional.avg_pool2d(seen, 32).flatten(1)
    )
    assert alike.median() > 0.6
