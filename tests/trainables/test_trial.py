"""What an objective holds: its reports, its checkpoints over several attempts, its batches' pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo_ray.trainables.trial import Message, Report, Splits, Trial, TrialSpec


class Link:
    """What a trial has said; it is always told to go on."""

    def __init__(self) -> None:
        self.said: list[Message] = []

    def __call__(self, message: Message) -> bool:
        self.said.append(message)
        return True

    @property
    def reports(self) -> list[tuple[float, float | None]]:
        return [(message.fidelity, message.since) for message in self.said if isinstance(message, Report)]


def attempt(folder: Path, number: int = 0, **fields: Any) -> tuple[Trial, Link]:
    link = Link()
    return Trial(TrialSpec("0000", {}, 0, number, folder / f"attempt-{number}", **fields), link), link


def save(folder: Path) -> None:
    (folder / "w").write_text("x")


def saved(folder: Path, *epochs: int) -> tuple[Path, ...]:
    """The checkpoints of a first attempt, the newest first."""
    trial, link = attempt(folder, fidelity="epoch")
    for epoch in epochs:
        trial.report(epoch=epoch, loss=1.0, checkpoint=save)
    return tuple(message.checkpoint for message in reversed(link.said) if isinstance(message, Report))  # type: ignore[misc]


def test_every_checkpoint_is_left_where_it_was_reported(tmp_path: Path) -> None:
    newest_first = saved(tmp_path, 1, 2, 3)
    assert [path.name for path in newest_first] == ["checkpoint-3", "checkpoint-2", "checkpoint-1"]
    assert all((path / "w").read_text() == "x" for path in newest_first)


def test_the_next_attempt_starts_from_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest_first = saved(tmp_path, 1, 2, 3)
    trial, link = attempt(tmp_path, 1, fidelity="epoch", checkpoints=newest_first)
    assert trial.load_checkpoint() == newest_first[0]
    trial.report(epoch=4, loss=1.0)
    trial.report(epoch=5, loss=1.0)
    assert link.reports == [(4.0, 3.0), (5.0, None)]
    assert capsys.readouterr().out == ""


def test_damaged_ones_are_passed_over_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest_first = saved(tmp_path, 1, 2, 3)
    (newest_first[0] / "w").write_text("y")
    (newest_first[1] / ".complete.json").unlink()
    trial, link = attempt(tmp_path, 1, fidelity="epoch", checkpoints=newest_first)
    assert trial.load_checkpoint() == newest_first[2]
    assert trial.load_checkpoint() == newest_first[2]  # and says it once
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"checkpoint '{newest_first[0]}' is passed over: the contents of its file 'w' have changed")
    assert second.startswith(f"checkpoint '{newest_first[1]}' is passed over: it was not saved to its end")
    trial.report(epoch=2, loss=1.0)  # what the damaged one had seen is trained again
    assert link.reports == [(2.0, 1.0)]


def test_where_all_are_damaged_the_attempt_starts_afresh(tmp_path: Path) -> None:
    trial, link = attempt(tmp_path, 1, checkpoints=(tmp_path / "gone",))
    assert trial.load_checkpoint() is None
    trial.report(loss=1.0)
    assert link.reports == [(1.0, None)]


def test_an_attempt_does_not_see_its_own(tmp_path: Path) -> None:
    trial, _ = attempt(tmp_path)
    trial.report(loss=1.0, checkpoint=save)
    assert trial.load_checkpoint() is None


def test_counted_reports_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    trial, first = attempt(tmp_path)
    for _ in range(3):
        trial.report(loss=1.0, checkpoint=save)
    newest = tmp_path / "attempt-0" / "checkpoint-3"
    trial, second = attempt(tmp_path, 1, checkpoints=(newest,))
    trial.load_checkpoint()
    trial.report(loss=1.0)
    trial.report(loss=1.0)
    assert first.reports == [(1.0, None), (2.0, None), (3.0, None)]
    assert second.reports == [(4.0, 3.0), (5.0, None)]


def test_an_attempt_that_does_not_look_for_a_checkpoint_starts_afresh(tmp_path: Path) -> None:
    newest_first = saved(tmp_path, 1, 2, 3)
    trial, link = attempt(tmp_path, 1, checkpoints=newest_first)
    trial.report(loss=1.0)
    assert trial.load_checkpoint() == newest_first[0]  # too late to have started from it
    trial.report(loss=1.0)
    assert link.reports == [(1.0, None), (2.0, None)]


def test_asking_for_pieces_is_told_once(tmp_path: Path) -> None:
    trial, link = attempt(tmp_path, micro_batches=4)
    assert link.said == []
    assert [trial.micro_batches, trial.micro_batches] == [4, 4]
    assert link.said == [Splits()]
