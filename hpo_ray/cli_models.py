"""The commands on models and data: predict, evaluate, export-weights, data check. They print; none starts Ray."""

from __future__ import annotations

import logging
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from hpo_ray.console import note, out, print_json
from hpo_ray.errors import InvalidInput, Problem

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from hpo_ray.best_model import BestModel, PartOpinion
    from hpo_ray.trainables.image_prediction import Opinion

_IMAGES_A_BIN = 25  # fewer, and chance makes most of the calibration error

RunDir = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
TrialId = Annotated[str | None, typer.Option("--trial", help="Another trial than the best one, e.g. 0007.")]
Views = Annotated[int, typer.Option("--tta", min=0, help="Augmented views of each image besides the plain one.")]
Weight = Annotated[
    str, typer.Option("--tta-weight", help="The plain view's share: mean (as any other's) or fastai (a quarter).")
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]


def predict_command(
    run_dir: RunDir,
    images: Annotated[Path, typer.Argument(help="A folder of images, one image, or a text file with a path a line.")],
    file: Annotated[
        Path | None, typer.Option("--out", help="FILE.csv or FILE.parquet; default predictions.csv.")
    ] = None,
    views: Views = 0,
    weight: Weight = "mean",
    if_it_helps: Annotated[
        bool, typer.Option("--if-it-helps", help="With --tta: only if validation images are classified better so.")
    ] = False,
    trial: TrialId = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Classify images with a run's best model: probabilities of every class, as a table."""
    from hpo_ray import best_model

    target = file or Path("predictions.csv")
    if target.suffix not in (".csv", ".parquet"):
        raise InvalidInput(Problem("--out", f"'{target}' ends neither in .csv nor in .parquet"))
    _check_views(views, weight, if_it_helps)
    model = best_model.load(run_dir, trial)
    paths = _images(images)
    if if_it_helps and not _helps(model, views, device, weight):
        views = 0
    logging.getLogger("hpo_ray.data").setLevel(logging.ERROR)  # what it warns of is said below
    opinion = best_model.on_files(model, paths, device=device, views=views, weight=weight)
    frame = _frame(opinion, views)
    _write(frame, target)
    for path, reason in opinion.unreadable.items():
        note(f"left out, it cannot be read: {path} ({reason})")
    if as_json:
        counts = {str(name): int(n) for name, n in frame["predicted"].value_counts().items()}
        unreadable = [str(path) for path in opinion.unreadable]
        about = {"file": str(target), "trial": model.trial_id, "images": len(frame), "views": views}
        print_json({**about, "predicted": counts, "unreadable": unreadable})
        return
    counted = ", ".join(f"{n} {name}" for name, n in frame["predicted"].value_counts().items())
    out().print(
        f"{len(frame)} {_noun(len(frame))} by trial {model.trial_id}: {counted}", soft_wrap=True, highlight=False
    )
    out().print(f"written to {target}", soft_wrap=True, highlight=False)


def evaluate_command(
    run_dir: RunDir,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where tables and pictures go; default RUN/evaluation.")
    ] = None,
    part: Annotated[str, typer.Option("--part", help="valid or test.")] = "test",
    views: Views = 0,
    weight: Weight = "mean",
    trial: TrialId = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Score a run's best model class by class: accuracy, confusion, calibration, worst mistakes."""
    from dataclasses import asdict

    from hpo_ray import best_model
    from hpo_ray.results import calibration, image_plots, metrics, plots

    if part not in ("valid", "test"):
        raise InvalidInput(Problem("--part", f"'{part}': expected valid or test"))
    _check_views(views, weight)
    model = best_model.load(run_dir, trial)
    found = best_model.on_part(model, part, device=device, views=views, weight=weight)
    target = folder or run_dir / ("evaluation" if part == "test" else "evaluation-valid")
    bins = min(10, max(1, len(found.labels) // _IMAGES_A_BIN))
    plain, merged = (metrics.scores(p, found.labels, bins=bins) for p in (found.plain, found.merged))
    best = found.merged if views else found.plain
    confusion = metrics.confusion(best, found.labels, found.classes)
    classes = metrics.per_class(best, found.labels, found.classes)
    worst = metrics.top_losses(best, found.labels, found.classes)
    sure = calibration.calibration(best, found.labels, bins=bins)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _of_part(found, best).to_csv(target / "predictions.csv", index=False)
        classes.to_csv(target / "classes.csv", index=False)
        confusion.to_csv(target / "confusion.csv")
        worst.to_csv(target / "top_losses.csv", index=False)
        plots.save(image_plots.top_losses(found.images, worst), target / "top_losses.png")
        plots.save(plots.confusion_matrix(confusion), target / "confusion.png")
        plots.save(plots.calibration(sure), target / "calibration.png")
    except OSError as error:
        raise InvalidInput(Problem("--out", f"'{error.filename}' cannot be written: {error.strerror}")) from None
    if as_json:
        rows: dict[str, Any] = {"plain": asdict(plain)} | ({"tta": asdict(merged)} if views else {})
        if len(found.each) > 1:
            rows["each"] = [asdict(metrics.scores(p, found.labels)) for p in found.each]
        print_json({"trial": model.trial_id, "part": part, "views": views, **rows, "folder": str(target)})
        return
    chosen = ", which it was chosen on: flattering" if part == "valid" else ""
    out().print(f"trial {model.trial_id} on {plain.n} {part} {_noun(plain.n)}{chosen}", highlight=False)
    for name, row in [("plain", plain), *([(f"{views} views", merged)] if views else [])]:
        low, high = row.interval
        text = f"accuracy {row.accuracy:.2%}, 95 % interval {low:.2%} to {high:.2%}; log loss {row.log_loss:.4f}"
        out().print(f"{name:<9} {text}; calibration error {row.ece:.2%}", soft_wrap=True, highlight=False)
    by_chance = calibration.calibration_by_chance(sure)
    out().print(f"          (a perfectly calibrated model would have {by_chance:.2%} here, by chance)", highlight=False)
    if len(found.each) > 1:
        shares = [metrics.scores(p, found.labels).accuracy for p in found.each]
        how = f"with {views} views" if views else "as the images are"
        text = f"of {len(shares)} models alone {how}, from {min(shares):.2%} to {max(shares):.2%}"
        out().print(
            f"each      accuracy {statistics.mean(shares):.2%} on average {text}", soft_wrap=True, highlight=False
        )
    out().print(classes.round(3).to_string(index=False), soft_wrap=True, highlight=False)
    out().print(f"tables and pictures in {target}", soft_wrap=True, highlight=False)


def export_weights_command(
    run_dir: RunDir, file: Annotated[Path, typer.Argument(help="FILE.pt")], trial: TrialId = None
) -> None:
    """Write the best model's weights as a plain state dict, which torch.load(…, weights_only=True) reads."""
    from hpo_ray import best_model

    model = best_model.load(run_dir, trial)
    written = best_model.export(model, file)
    for path in written:
        out().print(f"weights of trial {model.trial_id} written to {path}", soft_wrap=True, highlight=False)


data_app = typer.Typer(help="Look at data before anything is trained.", no_args_is_help=True)


@data_app.command("check")
def data_check_command(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="experiment=finetune data.root=/photos model.weights=… or any other experiment on images"),
    ] = None,
    as_json: AsJson = False,
    config_dir: Annotated[Path | None, typer.Option("--config-dir", help="Your own conf/ folder.")] = None,
) -> None:
    """Open every image once: balance, sizes, unreadable files, copies on both sides of the split; advise a recipe."""
    from pydantic import ValidationError

    from hpo_ray import config
    from hpo_ray.sections import DataConfig, ModelConfig
    from hpo_ray.trainables.data_check import check_data
    from hpo_ray.wording import problems_of

    # Not `preflight.check`: what it refuses to train on is what this command is to name.
    document = config.load(overrides or [], config_dir)
    if document.problems:
        raise InvalidInput(*document.problems)
    sections = {}
    for name, model in (("data", DataConfig), ("model", ModelConfig)):
        try:
            sections[name] = model.model_validate(document.data.get(name) or {}).model_dump()
        except ValidationError as error:
            raise InvalidInput(*(Problem(f"{name}.{p.key}", p.message, p.source) for p in problems_of(error))) from None
    report = check_data(sections)
    if as_json:
        print_json(report.state())
        return
    text = Text()
    for name, line, style in report.lines():
        text.append(f"{name:<12}", style="bold")
        text.append(f"{line}\n", style=style)
    text.rstrip()
    out().print(text, soft_wrap=True)


def _noun(n: int) -> str:
    return "image" if n == 1 else "images"


def _check_views(views: int, weight: str, if_it_helps: bool = False) -> None:
    from hpo_ray.errors import nearest

    names = ("mean", "fastai")
    problems = []
    if weight not in names:
        problems.append(Problem("--tta-weight", f"'{weight}' is unknown; {nearest(weight, names)}"))
    for option, given in (("--tta-weight", weight != "mean"), ("--if-it-helps", if_it_helps)):
        if given and not views:
            problems.append(Problem(option, "it is about augmented views: give their number too, e.g. --tta 4"))
    if problems:
        raise InvalidInput(*problems)


def _helps(model: BestModel, views: int, device: str, weight: str) -> bool:
    """Whether augmented views do better on the validation images; says so."""
    from hpo_ray import best_model

    plain, merged, better = best_model.views_help(model, device=device, views=views, weight=weight)
    what = f"{plain.errors} of {plain.n} validation images wrong without, {merged.errors} with {views} views"
    note(f"{what}: {'used' if better else 'not used'}")
    return better


def _images(given: Path) -> list[Path]:
    """The images that an argument means, sorted; paths in a list are relative to its folder."""
    from hpo_ray.data.folders import IMAGE_SUFFIXES

    if given.is_dir():
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise InvalidInput(Problem("images", f"'{given}' holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"))
        return found
    if not given.is_file():
        raise InvalidInput(Problem("images", f"'{given}' does not exist"))
    if given.suffix.lower() in IMAGE_SUFFIXES:
        return [given]
    try:
        lines = [line.strip() for line in given.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InvalidInput(Problem("images", f"'{given}' is neither an image nor a list of paths")) from None
    if not lines:
        raise InvalidInput(Problem("images", f"'{given}' lists no image"))
    return [given.parent / line for line in lines]


def _frame(opinion: Opinion, views: int) -> pd.DataFrame:
    """One row per image; with views, beside what all of them say, what the plain one does."""
    import pandas as pd

    frame = pd.DataFrame({"path": [str(path) for path in opinion.paths]})
    if views:
        plain = _with_probabilities(pd.DataFrame(index=frame.index), opinion.plain.numpy(), opinion.classes)
        frame["plain_predicted"], frame["plain_probability"] = plain["predicted"], plain["probability"]
    return _with_probabilities(frame, opinion.probabilities.numpy(), opinion.classes)


def _of_part(found: PartOpinion, probabilities: np.ndarray) -> pd.DataFrame:
    """One row per image: where it lies (its number, for a set in memory), what it is, what it was taken for."""
    import pandas as pd

    where = [str(image) if isinstance(image, Path) else str(number) for number, image in enumerate(found.images)]
    frame = pd.DataFrame({"path": where, "label": [found.classes[label] for label in found.labels]})
    return _with_probabilities(frame, probabilities, found.classes)


def _with_probabilities(frame: pd.DataFrame, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    from hpo_ray.results.probabilities import predicted

    frame["predicted"] = [classes[index] if index >= 0 else "(none)" for index in predicted(probabilities)]
    frame["probability"] = probabilities.max(1)
    for index, name in enumerate(classes):
        frame[f"p/{name}"] = probabilities[:, index]
    return frame


def _write(frame: pd.DataFrame, target: Path) -> None:
    try:
        if target.suffix == ".csv":
            frame.to_csv(target, index=False)
        else:
            frame.to_parquet(target, index=False)
    except OSError as error:
        raise InvalidInput(Problem("--out", f"'{target}' cannot be written: {error.strerror or error}")) from None
