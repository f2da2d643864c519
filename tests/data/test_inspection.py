"""Every fault that is planted among good pictures is found, and nothing is found among good ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageEnhance

from hpo_ray.data import duplicates, findings, inspection, listing, parts
from hpo_ray.data.findings import Finding
from hpo_ray.errors import InvalidInput

CLASSES = ("ants", "bees", "wasps")
EACH = {"train": 12, "val": 5, "test": 4}


def picture(seed: int) -> Image.Image:
    """Coloured blobs of about 200 pixels, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((int(rng.integers(180, 240)), 180), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    seed = 0
    for part, count in EACH.items():
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                picture(seed).save(root / part / name / f"{i}.{('jpg', 'png')[i % 2]}")
                seed += 1
    (root / "LICENSE").write_text("free")
    (root / "train" / "README.txt").write_text("three kinds")
    return root


@pytest.fixture
def photos(clean: Path, tmp_path: Path) -> Path:
    """A copy to plant faults in."""
    return Path(shutil.copytree(clean, tmp_path / "photos"))


def check(root: Path | None, name: str = "folder", **options: float) -> tuple[Finding, ...]:
    listed = listing.list_images(name, None if root is None else str(root), **options)
    found = inspection.inspect(listed)
    groups, _ = duplicates.groups(found.frame, found.thumbnails, found.comparable)
    return findings.all_findings(listed, found.frame, found.other, groups)


def the(found: tuple[Finding, ...], kind: str) -> Finding:
    [one] = [finding for finding in found if finding.kind == kind]
    return one


def test_a_contradiction_across_parts_names_them(photos):
    shutil.copy(photos / "train/ants/1.png", photos / "val/wasps/ant.png")
    assert the(check(photos), "exact contradiction").groups == (
        ("train/ants/1.png (train)", "val/wasps/ant.png (valid)"),
    )


def test_a_second_look_sees_what_was_mended(photos):
    leaked(photos)
    assert len(check(photos)) == 2
    (photos / "val/ants/copy.jpg").unlink()
    (photos / "test/bees/again.jpg").unlink()
    assert check(photos) == ()


def test_good_pictures_give_no_finding(clean):
    assert check(clean) == ()


def no_picture(root: Path) -> None:
    Image.new("P", (30, 30)).save(root / "train/ants/imageNotFound.gif")
    (root / "train/bees/Thumbs.db").write_bytes(b"no picture")


def truncated(root: Path) -> None:
    path = root / "train/ants/0.jpg"
    path.write_bytes(path.read_bytes()[:-1500])
    (root / "val/bees/1.png").write_text("<html>404</html>")
    (root / "val/bees/2.jpg").write_bytes(b"")


def empty(root: Path) -> None:
    (root / "train/hornets").mkdir()


def huge(root: Path) -> None:
    picture(999).resize((3000, 2400)).save(root / "train/bees/huge.jpg")
    picture(998).resize((30, 24)).save(root / "train/bees/tiny.png")


def grey(root: Path) -> None:
    picture(997).convert("L").save(root / "train/wasps/mode_l.jpg")
    picture(996).convert("L").convert("RGB").save(root / "train/wasps/three_channels.jpg")
    cut_out = picture(995).convert("RGBA")
    cut_out.putalpha(Image.new("L", cut_out.size, 128))
    cut_out.save(root / "train/wasps/cut_out.png")


def leaked(root: Path) -> None:
    shutil.copy(root / "train/ants/0.jpg", root / "val/ants/copy.jpg")
    image = Image.open(root / "train/bees/0.jpg")
    smaller = image.resize((image.width * 7 // 10, image.height * 7 // 10))
    ImageEnhance.Brightness(smaller).enhance(1.08).save(root / "test/bees/again.jpg", quality=70)


def contradicting(root: Path) -> None:
    shutil.copy(root / "train/ants/1.png", root / "train/wasps/ant.png")
    shutil.copy(root / "train/ants/3.png", root / "train/ants/twice.png")


def sideways(root: Path) -> None:
    image = picture(994)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(root / "train/ants/sideways.jpg", exif=exif)


def imbalanced(root: Path) -> None:
    for path in sorted((root / "train/wasps").iterdir())[3:]:
        path.unlink()


FAULTS: dict[Callable[[Path], None], dict[str, tuple[str, tuple[tuple[str, ...], ...]]]] = {
    no_picture: {
        "junk": (
            "2 files among the images that training passes over",
            (
                ("train/ants/imageNotFound.gif: a picture (GIF) that training does not take",),
                ("train/bees/Thumbs.db: no picture",),
            ),
        )
    },
    empty: {"empty class": ("1 class folder without an image", (("train/hornets",),))},
    huge: {
        "huge images": ("1 image of more than 4 times the median long side", (("train/bees/huge.jpg: 3000 x 2400",),)),
        "tiny images": ("1 image of less than a 4th", (("train/bees/tiny.png: 30 x 24",),)),
    },
    leaked: {
        "exact leakage": (
            "1 file more than once, in more than one part",
            (("train/ants/0.jpg (train)", "val/ants/copy.jpg (valid)"),),
        ),
        "near leakage": (
            "1 picture more than once, encoded, sized, cut or lit differently, in more than one part",
            (("train/bees/0.jpg (train)", "test/bees/again.jpg (test)"),),
        ),
    },
    contradicting: {
        "exact contradiction": ("in different classes", (("train/ants/1.png", "train/wasps/ant.png"),)),
        "exact duplicates": (
            "1 file more than once, in the same part",
            (("train/ants/3.png", "train/ants/twice.png"),),
        ),
    },
    sideways: {"orientation": ("1 image turned upright", (("train/ants/sideways.jpg: EXIF orientation 6",),))},
    imbalanced: {"imbalance": ("'ants' has 12 images to train on, 'wasps' 3: 4.0 to 1", ())},
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_nothing_else(photos, plant):
    plant(photos)
    found = check(photos)
    assert {finding.kind for finding in found} == set(FAULTS[plant])
    for kind, (text, groups) in FAULTS[plant].items():
        assert text in the(found, kind).text
        assert the(found, kind).groups == groups


def test_unreadable_files_are_told_with_reasons(photos):
    truncated(photos)
    found = check(photos)
    assert [finding.kind for finding in found] == ["corrupt"]
    assert found[0].text.startswith("3 of 63 images cannot be read")
    texts = [line for (line,) in found[0].groups]
    assert texts[0].startswith("train/ants/0.jpg: image file is truncated")
    assert texts[1].startswith("val/bees/1.png: cannot identify")
    assert texts[2].startswith("val/bees/2.jpg: ")


def test_grey_and_transparent_ones_among_coloured_ones(photos):
    grey(photos)
    found = check(photos)
    assert {finding.kind for finding in found} == {"colours"}
    texts = {finding.text: finding.groups for finding in found}
    assert texts["2 images grey among coloured ones"] == (
        ("train/wasps/mode_l.jpg: L",),
        ("train/wasps/three_channels.jpg: RGB",),
    )
    assert texts["1 image partly transparent among coloured ones"] == (("train/wasps/cut_out.png: RGBA",),)


def test_all_faults_at_once_the_errors_first(photos):
    for plant in (no_picture, truncated, empty, huge, grey, leaked, contradicting, sideways):
        if plant is leaked:  # its original is the truncated one
            shutil.copy(photos / "train/ants/2.jpg", photos / "train/ants/0.jpg")
        plant(photos)
    found = check(photos)
    kinds = {finding.kind for finding in found}
    assert {"junk", "corrupt", "empty class", "huge images", "colours", "near leakage", "orientation"} <= kinds
    order = [finding.severity for finding in found]
    assert order == sorted(order, key=("error", "warning", "note").index)


def test_copies_in_an_undivided_folder_stay_in_one_part(photos, tmp_path):
    root = tmp_path / "undivided"
    for name in CLASSES:
        shutil.copytree(photos / "train" / name, root / name)
    for i in range(6):
        shutil.copy(root / f"ants/{2 * i}.jpg", root / f"ants/copy{i}.jpg")
    found = {finding.kind: finding.groups for finding in check(root)}
    assert "exact leakage" not in found
    told = {tuple(sorted(name.partition(" ")[0] for name in group)) for group in found["exact duplicates"]}
    assert told == {(f"ants/{2 * i}.jpg", f"ants/copy{i}.jpg") for i in range(6)}


def test_what_training_refuses_is_told(photos):
    (photos / "val/hornets").mkdir()
    picture(990).save(photos / "val/hornets/1.jpg")
    assert the(check(photos), "unknown class").groups == (("hornets",),)
    shutil.rmtree(photos / "val/hornets")
    shutil.rmtree(photos / "test")
    for path in sorted((photos / "train/bees").iterdir())[1:]:
        path.unlink()
    [layout] = [finding for finding in check(photos) if finding.kind == "layout"]
    assert "cannot be split by class" in layout.text


def test_nothing_to_look_at_is_an_error(tmp_path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidInput):
            check(root)
    with pytest.raises(InvalidInput, match="did you mean"):
        check(None, "digit")


def test_one_file_looked_at(tmp_path):
    image = picture(1)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    found, thumbnail = inspection.look(tmp_path / "a.jpg")
    assert (found.width, found.height, found.kind, found.mode, found.orientation) == (*image.size, "JPEG", "RGB", 6)
    assert found.size_bytes == (tmp_path / "a.jpg").stat().st_size
    upright = np.asarray(image.rotate(-90, expand=True).resize((32, 32)), int)
    assert thumbnail is not None
    assert np.abs(thumbnail - upright).mean() < 3
    gone, thumbnail = inspection.look(tmp_path / "gone.jpg")
    assert "No such file" in gone.error
    assert thumbnail is None


def test_a_csv_file(photos, tmp_path):
    rows = [(path, path.parent.name) for path in sorted(photos.glob("train/*/*.*g"))]
    shutil.copy(rows[0][0], photos / "again.jpg")
    table = pd.DataFrame([*rows, (photos / "again.jpg", rows[0][1])], columns=["path", "label"])
    table.to_csv(photos / "photos.csv", index=False)
    found = check(photos / "photos.csv", "csv")
    assert [finding.kind.partition(" ")[0] for finding in found] == ["exact"]
    assert set(found[0].groups[0][0].split()) & {"train/ants/0.jpg", "again.jpg"}


def test_digits_are_in_good_order():
    assert check(None, "digits") == ()
    counts = findings.class_counts(
        listing.list_images("digits"), inspection.inspect(listing.list_images("digits")).frame
    )
    assert counts.to_numpy().sum() == 1797
    assert list(counts.columns) == ["train", "valid", "test"]


def test_copies_in_memory():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(np.stack([np.asarray(picture(i).resize((32, 32))) for i in range(30)])).permute(
        0, 3, 1, 2
    )
    labels = torch.from_numpy(rng.integers(0, 2, 30))
    train = parts.TensorImages(pixels[:20].contiguous(), labels[:20])
    again = torch.cat([pixels[20:], pixels[:1], (pixels[1:2] * 0.9).to(torch.uint8)])
    valid = parts.TensorImages(again, torch.cat([labels[20:], labels[:2]]))
    listed = listing.Listing(None, ("a", "b"), {}, {"train": train, "valid": valid})
    found = inspection.inspect(listed)
    groups, _ = duplicates.groups(found.frame, found.thumbnails, found.comparable)
    told = {finding.kind: finding.groups for finding in findings.all_findings(listed, found.frame, found.other, groups)}
    assert told["exact leakage"] == (("train[0] (train)", "valid[10] (valid)"),)
    assert told["near leakage"] == (("train[1] (train)", "valid[11] (valid)"),)


def test_shared_photographs():
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    found = check(Path(folder, "hymenoptera"))
    assert [finding.kind for finding in found] == ["junk", "colours"]
    assert found[0].groups[0][0].startswith("train/ants/imageNotFound.gif")
    found = check(Path(folder, "clothing-small"))
    assert [finding.kind for finding in found] == ["near contradiction", "imbalance"]
    # One photograph of a pair of shorts, which is a skirt in its other copy; 5.8 million pairs, and no other.
    assert [sorted(Path(name).parent.name for name in group) for group in found[0].groups] == [["shorts", "skirt"]]
