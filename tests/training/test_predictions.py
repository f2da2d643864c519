"""A model's opinion of every image: all of them, in order, and counted as `evaluate` counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from hpo_ray.errors import InvalidInput, RunFailed
from hpo_ray.training.evaluate import evaluate
from hpo_ray.training.precision import Precision
from hpo_ray.training.predictions import Predictions, predict

IMAGES = torch.randn(17, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (17,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))


def batches(size: int, images=IMAGES, labels=LABELS):
    return list(zip(images.split(size), labels.split(size), strict=True))


def outputs(logits) -> Predictions:
    """What is made of these logits, of images that are all of class 0."""
    logits = torch.tensor(logits)
    return predict(nn.Identity(), [(logits, torch.zeros(len(logits), dtype=torch.int64))], "cpu")


@pytest.mark.parametrize("size", [1, 8, 17, 100])
def test_they_are_the_softmax_in_order_whatever_the_batches(model, size):
    found = predict(model, batches(size), "cpu")
    model.eval()
    with torch.no_grad():
        expected = model(IMAGES).softmax(1)
    assert torch.allclose(found.probabilities, expected, atol=1e-6)
    assert torch.equal(found.labels, LABELS)
    assert (found.probabilities.dtype, found.labels.dtype, len(found)) == (torch.float32, torch.int64, 17)


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_they_score_as_evaluate_does(model, scale):
    with torch.no_grad():
        model[2].weight *= scale
    here, there = predict(model, batches(5), "cpu").evaluation(), evaluate(model, batches(5), "cpu")
    assert (here.errors, here.n) == (there.errors, there.n)
    assert here.loss == pytest.approx(there.loss, rel=1e-6)
    assert here.loss > 0.1 * scale  # at 1e4 a wrong image's probability is 0 in any floating point number


def test_a_nan_is_an_error_and_an_overflow_wins_as_in_evaluate():
    logits = [[math.nan, 1.0], [math.inf, 1.0], [1.0, math.inf], [-math.inf, 1.0], [math.inf, math.inf]]
    found = outputs(logits)
    expected = torch.tensor([[math.nan, math.nan], [1, 0], [0, 1], [0, 1], [0.5, 0.5]])
    assert torch.equal(found.probabilities.nan_to_num(9), expected.nan_to_num(9))
    there = evaluate(nn.Identity(), [(torch.tensor(logits), found.labels)], "cpu")
    assert found.evaluation().errors == there.errors == 3
    assert math.isnan(found.evaluation().loss)


def test_huge_logits_give_probabilities_and_a_finite_loss():
    found = outputs([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    assert found.probabilities.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert found.evaluation().loss == pytest.approx(1e4)


def test_a_single_class_is_certain():
    found = outputs([[3.0], [-7.0]])
    assert found.probabilities.tolist() == [[1], [1]]
    assert (found.evaluation().errors, found.evaluation().loss) == (0, 0)


def test_a_part_of_the_model_and_half_precision(model):
    activations = model[0].eval()(IMAGES).detach()
    whole = predict(model, batches(8), "cpu")
    head = predict(model, batches(8, activations), "cpu", forward=model[2])
    assert torch.allclose(whole.probabilities, head.probabilities, atol=1e-6)
    half = predict(model, batches(8), "cpu", precision=Precision("bf16", "cpu"))
    assert half.probabilities.dtype == torch.float32
    assert 0 < (half.probabilities - whole.probabilities).abs().max() < 0.05


def test_nothing_in_the_model_changes(model):
    seen = []
    model.register_forward_hook(lambda *_: seen.append((torch.is_grad_enabled(), model.training, model[1].training)))
    model.train()
    model[0].eval()  # frozen on purpose
    before = {key: value.clone() for key, value in model.state_dict().items()}
    predict(model, batches(8), "cpu")
    assert seen == [(False, False, False)] * 3
    assert [module.training for module in (model, *model)] == [True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("given", [[], [(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]])
def test_no_image_is_an_error(model, given):
    with pytest.raises(RunFailed, match="no image"):
        predict(model, given, "cpu")


SET = TensorDataset(IMAGES, torch.zeros(17, dtype=torch.int64))  # of one class: labels would show nothing


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 4, "shuffle": True}, "shuffles"),
        ({"batch_size": 4, "drop_last": True}, "leaves out"),
        ({"batch_sampler": BatchSampler(RandomSampler(SET), 4, False)}, "shuffles"),
        ({"batch_sampler": BatchSampler(SequentialSampler(SET), 4, True)}, "leaves out"),
    ],
)
def test_a_loader_that_shuffles_or_leaves_out_is_refused_before_it_is_read(model, options, said):
    with pytest.raises(InvalidInput, match=f"^tta: the DataLoader {said}"):
        predict(model, DataLoader(SET, **options), "cpu")
    fitting = DataLoader(SET, batch_size=4)
    assert torch.equal(predict(model, fitting, "cpu").probabilities, predict(model, batches(4), "cpu").probabilities)


def test_images_left_out_or_moved_are_seen_where_the_labels_are_known(model):
    assert torch.equal(predict(model, batches(5), "cpu", expected=LABELS).labels, LABELS)
    with pytest.raises(InvalidInput, match="the batches and the data set have 15 and 17 images"):
        predict(model, batches(5)[:3], "cpu", expected=LABELS)
    with pytest.raises(InvalidInput, match="differ in the label of image"):
        predict(model, batches(5)[::-1], "cpu", expected=LABELS)
