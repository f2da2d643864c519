"""What Ray says of a process that it lost, and what becomes of it: texts as Ray 2.60 writes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hpo_ray.attempts import RAY_OUT_OF_MEMORY
from hpo_ray.bridge import error_of
from tests.sweeps import Command, events_of

HEAD = "Failure # 1 (occurred at 2026-11-21_14-43-54)\n"
KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: TrialActor
\tpid: 7197
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly \
due to SIGSEGV or another unexpected error.
"""
NODE = """The actor died unexpectedly before finishing this task.
\tactor_id: f98aa1f1370ee7a7539a294601000000
The actor died because its node has died. Node Id: c06d8470d6424b3439d241f30f861629803879359d81d5ad3b43c780
"""
RAISED = f"""The actor died because of an error raised in its creation task, \x1b[36mray::TrialActor.__init__()\x1b[39m
{"  File 'x.py', line 12, in setup" * 20}
ModuleNotFoundError: No module named 'hpo_ray'
"""
MEMORY = f"""1 worker(s) were killed due to the node running low on memory. Memory on the node was 23.1GB used / 23.54GB
{"- bytes spillable: 0" * 20}
"""


@pytest.mark.parametrize(
    ("text", "begins", "ends", "memory"),
    [
        (
            KILLED,
            "The actor died unexpectedly before finishing this task. The actor is dead",
            "unexpected error.",
            False,
        ),
        (
            NODE,
            "The actor died unexpectedly before finishing this task. The actor died",
            "879359d81d5ad3b43c780",
            False,
        ),
        (RAISED, "The actor died because of an error", "ModuleNotFoundError: No module named 'hpo_ray'", False),
        (MEMORY, "1 worker(s) were killed due to", "- bytes spillable: 0", True),
    ],
)
def test_what_ray_says_is_one_line_from_its_beginning_to_its_cause(
    tmp_path: Path, text: str, begins: str, ends: str, memory: bool
) -> None:
    (tmp_path / "error.txt").write_text(HEAD + text)
    error = error_of(SimpleNamespace(error_file=str(tmp_path / "error.txt")))
    assert error.startswith(f"the trial's process was lost: {begins}")
    assert error.endswith(ends)
    assert len(error) < 440
    assert not set("\n\t\x1b") & set(error)
    assert (RAY_OUT_OF_MEMORY in error) == memory


@pytest.mark.parametrize("file", [None, "/nowhere/error.txt"])
def test_a_loss_without_words_is_a_loss(file: str | None) -> None:
    assert error_of(SimpleNamespace(error_file=file)) == "the trial's process was lost"


def test_a_trial_that_ray_kills_to_save_memory_ran_out_of_memory(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # of all memory: more is in use in any case
    (in_tmp / "slow.py").write_text("import time\ndef train(config, trial):\n    time.sleep(30)\n")
    words = ["experiment=function", "trainable.target=slow.py:train", "space.x=uniform(0, 1)", "searcher=random"]
    with Command("run", *words, "trials=1", "slots=1", "--json", "--out", "r") as driver:
        assert driver.end() == 1, driver.err
        assert driver.out.count("\n") == 1  # Ray's own words about it do not get between
    [end] = events_of(Path("r"), "trial_ended")
    assert (end["status"], end["cause"]) == ("out_of_memory", "out_of_memory")
    assert "running low on memory" in end["reason"]
