"""A run's best model from the command line: predictions on files, its evaluation, its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hpo_ray import history
from hpo_ray.data import images
from hpo_ray.models import vision
from tests.sweeps import told

Told = Callable[..., tuple[int, str, str]]
PLAIN = ["experiment=digits", "model.arch=mlp", "trials=2", "scheduler.max_t=3", "searcher=random"]


@pytest.fixture(scope="module")
def runs(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain run and one with folds."""
    from hpo_ray import config, runner
    from hpo_ray.preflight import check

    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("plain", []), ("folds", ["folds=2"])):
        runner.start(check(config.load([*PLAIN, *more])), out=folder / name)
    return {name: folder / name for name in ("plain", "folds")}


@pytest.fixture
def pictures(in_tmp: Path) -> Path:
    """Twenty digits as files, one of them no picture."""
    digits = load_digits()
    (in_tmp / "pictures" / "deep").mkdir(parents=True)
    for i in range(20):
        Image.fromarray((digits.images[i] * 255 / 16).round().astype(np.uint8)).save(in_tmp / f"pictures/{i:02}.png")
    (in_tmp / "pictures/deep/broken.png").write_bytes(b"no picture")
    return in_tmp / "pictures"


@pytest.mark.parametrize("run", ["plain", "folds"])
def test_a_folder_becomes_a_table_of_probabilities(
    runs: dict[str, Path], pictures: Path, capfd: pytest.CaptureFixture[str], run: str
) -> None:
    code, out, err = told(capfd, "predict", str(runs[run]), str(pictures))
    assert code == 0
    frame = pd.read_csv("predictions.csv", dtype={"predicted": str})
    assert list(frame) == ["path", "predicted", "probability", *(f"p/{digit}" for digit in range(10))]
    assert list(frame["path"]) == [str(pictures / f"{i:02}.png") for i in range(20)]
    shares = frame.filter(like="p/").to_numpy()
    assert shares.sum(1) == pytest.approx(1, abs=1e-5)
    assert frame["probability"].to_numpy() == pytest.approx(shares.max(1))
    assert [int(name) for name in frame["predicted"]] == shares.argmax(1).tolist()
    assert (frame["predicted"].astype(int) == load_digits().target[:20]).mean() > 0.6
    assert f"note: left out, it cannot be read: {pictures / 'deep' / 'broken.png'} (" in err
    assert err.count("broken.png") == 2  # its name and the reason's
    assert out.startswith("20 images by trial 000")


def test_views_change_probabilities_the_same_way_each_time(
    runs: dict[str, Path], pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def frame(name: str, *options: str) -> pd.DataFrame:
        assert told(capfd, "predict", str(runs["plain"]), str(pictures), "--out", f"{name}.parquet", *options)[0] == 0
        return pd.read_parquet(f"{name}.parquet")

    plain, one, again = frame("a"), frame("b", "--tta", "3"), frame("c", "--tta", "3")
    pd.testing.assert_frame_equal(one, again)
    assert not np.allclose(plain.filter(like="p/"), one.filter(like="p/"))
    _, _, err = told(capfd, "predict", str(runs["plain"]), str(pictures), "--tta", "3", "--if-it-helps")
    assert "of 270 validation images wrong without" in err
    helped = pd.read_csv("predictions.csv").filter(like="p/").to_numpy()
    assert helped == pytest.approx((one if ": used" in err else plain).filter(like="p/").to_numpy(), abs=1e-6)


def test_a_list_or_one_image_will_do(runs: dict[str, Path], pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (pictures / "some.txt").write_text("03.png\n\n05.png\n")
    code, out, _ = told(capfd, "predict", str(runs["plain"]), str(pictures / "some.txt"), "--json")
    assert code == 0
    assert json.loads(out)["images"] == 2
    assert told(capfd, "predict", str(runs["plain"]), str(pictures / "07.png"))[1].startswith("1 image by trial")


def test_the_evaluation_is_the_winners_test_and_comes_with_pictures(
    runs: dict[str, Path], in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for run in runs.values():
        code, out, _ = told(capfd, "evaluate", str(run), "--tta", "2", "--json", "--out", "here")
        assert code == 0
        ended = history.load(run).ended
        assert ended is not None
        found = json.loads(out)
        assert (found["plain"]["errors"], found["plain"]["n"]) == (ended["test"]["errors"], ended["test"]["n"])
        assert found["tta"]["n"] == 360
    names = {"calibration.png", "confusion.png", "top_losses.png", "classes.csv", "confusion.csv", "top_losses.csv"}
    assert {path.name for path in (in_tmp / "here").iterdir()} == {*names, "predictions.csv"}
    rows = pd.read_csv(in_tmp / "here" / "predictions.csv")
    assert (rows["label"] != rows["predicted"]).sum() == found["tta"]["errors"]
    assert [alone["n"] for alone in found["each"]] == [360, 360]  # of the two folds, which came last
    confusion = pd.read_csv(in_tmp / "here" / "confusion.csv", index_col=0)
    assert confusion.to_numpy().sum() == 360
    code, out, _ = told(capfd, "evaluate", str(runs["plain"]), "--part", "valid")
    assert code == 0
    assert "on 270 valid images" in out


def test_exported_weights_are_those_that_were_scored(
    runs: dict[str, Path], in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert told(capfd, "export-weights", str(runs["plain"]), "w.pt")[0] == 0
    run = history.load(runs["plain"])
    best, ended = run.best(), run.ended
    assert best is not None
    assert ended is not None
    state = torch.load(in_tmp / "w.pt", weights_only=True)
    model = vision.build("mlp", classes=10, channels=1, image_size=8, units=best[0].config["units"])
    model.load_state_dict(state)
    test = images.load("digits").test
    wrong = int((model.eval()(test.images).argmax(1) != test.labels).sum())
    assert wrong == ended["test"]["errors"]
    assert told(capfd, "export-weights", str(runs["folds"]), "w.pt")[0] == 0
    assert sorted(path.name for path in in_tmp.glob("w-*")) == ["w-f0-r0.pt", "w-f1-r0.pt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "PLAIN", "nowhere"], "images: 'nowhere' does not exist"),
        (["predict", "PLAIN", "."], "images: '.' holds no image"),
        (["predict", "PLAIN", "broken.png"], "images: none of 1 can be read"),
        (["predict", "PLAIN", "broken.png", "--out", "x.xlsx"], "--out: 'x.xlsx' ends neither in .csv nor in .parquet"),
        (["predict", "nowhere", "broken.png"], "nowhere"),
        (["predict", "PLAIN", "broken.png", "--trial", "0009"], "no trial '0009'; it has '0000' to '0001'"),
        (["evaluate", "PLAIN", "--part", "train"], "--part: 'train': expected valid or test"),
        (["evaluate", "FOLDS", "--part", "valid"], "with folds each image"),
        (["export-weights", "PLAIN", "nowhere/w.pt"], "'nowhere/w.pt' cannot be written"),
    ],
)
def test_mistakes_are_told(
    runs: dict[str, Path], in_tmp: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    if arguments[2] == "broken.png":
        (in_tmp / "broken.png").write_bytes(b"no")
    here = [str(runs.get(word.lower(), word)) for word in arguments]
    code, out, err = told(capfd, *here)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_the_data_need_not_be_at_hand_for_predictions(
    in_tmp: Path, ray_here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name, light in (("dark", 60), ("light", 180)):
        (in_tmp / "data" / name).mkdir(parents=True)
        for i in range(20):
            pixels = (light + rng.integers(-40, 40, (16, 20, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(in_tmp / "data" / name / f"{i}.png")
    plan = ["experiment=images", "data.root=data", "data.image_size=16", "model.arch=mlp", "trials=1"]
    more = ["scheduler.max_t=6", "space.lr=loguniform(1e-3, 2e-3)", "space.optimizer=choice(adam)", "--out", "r"]
    assert told(capfd, "run", *plan, *more, "--quiet")[0] == 0
    (in_tmp / "data").rename(in_tmp / "moved")
    assert told(capfd, "predict", "r", "moved")[0] == 0
    frame = pd.read_csv("predictions.csv")
    right = [Path(path).parent.name == name for path, name in zip(frame["path"], frame["predicted"], strict=True)]
    assert len(right) == 40
    assert np.mean(right) > 0.9
