"""Views of an image are merged as written by hand, never scrambled, and never reported alone."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hpo_ray.errors import InvalidInput, RunFailed
from hpo_ray.training.evaluate import Evaluation
from hpo_ray.training.tta import Predictions, helps, merge, predict, predict_views, tta, view_seed

N, CLASSES = 23, 4
IMAGES = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(CLASSES, (N,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))


def view(seed: int | None = None, size: int = 5, images=IMAGES, labels=LABELS):
    """Batches of images with noise on them; None: as they are."""
    if seed is not None:
        images = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return list(zip(images.split(size), labels.split(size), strict=True))


def given(rows, labels=None) -> Predictions:
    """These probabilities, of class 0 unless told."""
    labels = [0] * len(rows) if labels is None else labels
    return Predictions(torch.tensor(rows, dtype=torch.float32).log(), torch.tensor(labels))


def asked(model, n=4, seed=7):
    return predict(model, view(), "cpu"), list(predict_views(model, view, n, "cpu", seed=seed))


def by_hand(model, weight: float, n=4, seed=7) -> np.ndarray:
    """Everything again without batches, logarithms or float32: one image and one view at a time."""
    model = model.double().eval()
    rows = []
    for index in range(N):
        opinions = []
        for number in range(n):
            noise = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(view_seed(seed, number)))
            opinions.append((IMAGES + 0.5 * noise)[index])
        plain, *views = (
            np.exp(logits) / np.exp(logits).sum()
            for image in (IMAGES[index], *opinions)
            for logits in [model(image.double()[None]).detach().numpy()[0]]
        )
        rows.append(weight * plain + (1 - weight) * sum(views) / n)
    model.float()
    return np.array(rows)


@pytest.mark.parametrize(
    ("weight", "share"), [("mean", 1 / 5), ("fastai", 0.25), (0.25, 0.25), (0.5, 0.5), (0, 0), (1, 1)]
)
def test_it_is_the_reference_by_hand(model, weight, share):
    plain, views = asked(model)
    found = tta(plain, views, weight=weight)
    expected = by_hand(model, share)
    assert found.predictions.probabilities.numpy() == pytest.approx(expected, abs=1e-6)
    assert (found.views, found.merge, found.weight, found.used) == (4, "mean", pytest.approx(share), True)
    assert found.plain == plain.evaluation()
    wrong = int((expected.argmax(1) != LABELS.numpy()).sum())
    loss = -np.log(expected[np.arange(N), LABELS]).mean()
    assert (found.merged.errors, found.merged.n) == (wrong, N)
    assert found.merged.loss == pytest.approx(loss, abs=1e-6)


def test_the_named_weights_in_numbers():
    plain, views = given([[1.0, 0.0]]), [given([[p, 1 - p]]) for p in (0.1, 0.3)]
    assert merge(plain, views).predictions.probabilities[0, 0] == pytest.approx((1 + 0.1 + 0.3) / 3)
    fastai = merge(plain, views, weight="fastai")
    assert fastai.predictions.probabilities[0, 0] == pytest.approx(0.25 * 1 + 0.75 * 0.2)
    assert (fastai.weight, fastai.views) == (0.25, 2)


def test_max_and_mean_differ_where_one_view_is_sure():
    """Three views say class 0 at 0.7; one is surer, of class 1: the mean stays with the many, the largest does not."""
    plain, views = given([[0.7, 0.3]]), [given([row]) for row in ([0.7, 0.3], [0.7, 0.3], [0.2, 0.8])]
    mean, most = tta(plain, views), tta(plain, views, how="max")
    assert mean.predictions.probabilities[0, 0] == pytest.approx((3 * 0.7 + 0.2) / 4)
    assert most.predictions.probabilities[0].tolist() == pytest.approx([0.7 / 1.5, 0.8 / 1.5])
    assert (mean.merged.errors, most.merged.errors, most.weight, most.merge) == (0, 1, None, "max")


def test_the_order_of_the_views_does_not_matter_and_theirs_of_images_is_kept(model):
    plain, views = asked(model)
    there, back = (merge(plain, some).predictions.probabilities for some in (views, views[::-1]))
    assert torch.allclose(there, back, atol=1e-6)
    sure = [given([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 2, [0, 0, 0, 1, 1])] * 3
    assert merge(sure[0], sure).predictions.probabilities.argmax(1).tolist() == [0, 0, 0, 1, 1]


def test_batch_sizes_do_not_matter(model):
    whole, _ = asked(model)
    found = [tta(whole, predict_views(model, partial(view, size=size), 2, "cpu")).predictions for size in (1, 7, 50)]
    for other in found[1:]:
        assert torch.allclose(found[0].probabilities, other.probabilities, atol=1e-6)


def shuffled(seed):
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    return view(seed, images=IMAGES[order], labels=LABELS[order])


def dropped(seed):
    return view(seed)[:-1]


def moved_by_one(seed):
    return view(seed, images=IMAGES.roll(1, 0), labels=LABELS.roll(1))


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (shuffled, "view 1 and the plain view differ in the label of image"),
        (dropped, "view 1 and the plain view have 20 and 23 images"),
        (moved_by_one, "view 1 and the plain view differ in the label of image"),
    ],
)
def test_views_of_other_images_are_an_error_not_another_result(model, batches, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        tta(predict(model, view(), "cpu"), predict_views(model, batches, 2, "cpu"))
    assert "no shuffling, no dropped last batch" in str(caught.value)


def test_a_plain_view_that_is_scrambled_is_seen_as_well(model):
    with pytest.raises(InvalidInput, match="differ in the label"):
        tta(predict(model, shuffled(3), "cpu"), predict_views(model, view, 2, "cpu"))


def test_images_without_labels_are_matched_by_their_numbers(model):
    """Where all labels are the same, a shuffle would go unseen; numbers show it, and merging needs no classes."""
    numbers, order = torch.arange(N), torch.arange(N).flip(0)
    plain = predict(model, view(labels=numbers), "cpu")
    assert len(merge(plain, predict_views(model, partial(view, labels=numbers), 2, "cpu")).predictions) == N
    with pytest.raises(InvalidInput, match="image 0: 22, 0"):
        merge(plain, [predict(model, view(images=IMAGES[order], labels=numbers[order]), "cpu")])


def test_it_repeats_itself_by_seed(model):
    first, again, other = (tta(*asked(model, seed=seed)).predictions.probabilities for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_views_seed_depends_on_both_numbers_and_on_nothing_else():
    seeds = {view_seed(seed, number) for seed in range(20) for number in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert view_seed(0, 0) == 5407323776479522491
    assert len({view_seed(3, number) for number in range(4)}) == 4


def test_views_are_asked_for_one_by_one(model):
    seen: list[int] = []

    def batches(seed):
        seen.append(seed)
        return view(seed)

    views = predict_views(model, batches, 3, "cpu", seed=5)
    assert seen == []
    next(views)
    assert seen == [view_seed(5, 0)]
    assert len(list(views)) == 2
    assert seen == [view_seed(5, number) for number in range(3)]


@pytest.mark.parametrize(
    ("merged", "better"),
    [
        (Evaluation(9.0, 2, 10), True),
        (Evaluation(0.1, 4, 10), False),
        (Evaluation(0.4, 3, 10), True),
        (Evaluation(0.5, 3, 10), False),
        (Evaluation(0.6, 3, 10), False),
        (Evaluation(math.nan, 3, 10), False),
    ],
)
def test_it_helps_with_fewer_errors_or_as_many_at_a_lower_loss(merged, better):
    assert helps(Evaluation(0.5, 3, 10), merged) is better


def test_it_is_used_only_if_it_helps_where_so_asked():
    plain, better, worse = given([[0.4, 0.6]]), given([[0.9, 0.1]]), given([[0.1, 0.9]])
    good, bad = (tta(plain, [views], use=None) for views in (better, worse))
    assert (good.used, bad.used) == (True, False)
    assert good.predictions.probabilities[0, 0] == pytest.approx(0.65)
    assert bad.predictions is plain
    assert (bad.plain, bad.merged) == (plain.evaluation(), merge(plain, [worse]).predictions.evaluation())
    # What validation said holds for other images, whatever it does to them.
    assert tta(plain, [worse], use=good.used).used
    assert not tta(plain, [better], use=bad.used).used


@pytest.mark.parametrize("how", ["mean", "max"])
def test_a_nan_in_any_view_is_an_error_and_touches_no_other_image(how):
    plain = given([[0.9, 0.1], [0.9, 0.1]])
    found = tta(plain, [given([[math.nan, math.nan], [0.7, 0.3]])], how=how)
    assert (found.plain.errors, found.merged.errors) == (0, 1)
    assert math.isnan(found.merged.loss)
    assert found.predictions.probabilities[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_certainty_is_merged_without_nan(how):
    sure = [[1e4, -1e4], [-1e4, 1e4]]
    plain, other = (
        predict(nn.Identity(), [(torch.tensor(rows), torch.zeros(2).long())], "cpu") for rows in (sure, sure[::-1])
    )
    found = merge(plain, [other, other, other], how=how).predictions
    expected = [[0.25, 0.75], [0.75, 0.25]] if how == "mean" else [[0.5, 0.5]] * 2
    assert found.probabilities.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    both = merge(plain, [plain], how=how).predictions
    assert both.probabilities.tolist() == [[1, 0], [0, 1]]
    assert both.evaluation().loss == pytest.approx(1e4)


def test_probabilities_of_exactly_0_are_merged_without_nan():
    plain = given([[1.0, 0.0, 0.0]])
    for how in ("mean", "max"):
        found = merge(plain, [given([[0.0, 1.0, 0.0]])], how=how).predictions
        assert found.probabilities[0].tolist() == pytest.approx([0.5, 0.5, 0])


def test_a_single_class():
    found = tta(given([[1.0]]), [given([[1.0]])])
    assert found.plain == found.merged == Evaluation(pytest.approx(0, abs=1e-6), 0, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": "fastia"}, "tta.weight: 'fastia' is no number and no name; did you mean 'fastai'?"),
        ({"weight": 1.5}, "tta.weight: it is 1.5, but must be from 0 to 1"),
        ({"weight": math.nan}, "tta.weight: it is nan, but must be from 0 to 1"),
        ({"how": "median"}, "tta.merge: no way to merge is called 'median'; did you mean 'mean'?"),
        ({"how": "max", "weight": 0.25}, "tta.weight: it is 0.25, but the largest of all views has no weights"),
    ],
)
def test_wrong_choices_are_named_before_a_view_is_taken(options, said):
    def never():
        raise AssertionError
        yield

    with pytest.raises(InvalidInput) as caught:
        tta(given([[1.0, 0.0]]), never(), **options)
    assert str(caught.value) == said


def test_no_views_and_no_images_are_errors(model):
    with pytest.raises(InvalidInput, match="at least 1 view"):
        tta(given([[1.0, 0.0]]), [])
    with pytest.raises(RunFailed, match="no image"):
        list(predict_views(model, lambda seed: [], 2, "cpu"))
