"""A journal's reports as columns, parsed many lines at a time: a million of them would be a gigabyte of Python objects.

Lines are given to pyarrow's JSON reader where it provably sees what `events.parse` would: ASCII without escapes, one
object a line, every number finite, every field known. Any other line goes through `events.parse`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_ray import events
from hpo_ray.events import Event

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

KIND = b'"event":"trial_reported"'
_BEGINNING = b'{"v":1,"time":'
# Below so many lines the quick way's own cost is not worth it.
_FEW = 64
_MOST_METRICS = 256
COLUMNS = {
    **dict.fromkeys(("position", "trial", "attempt"), np.int64),
    **dict.fromkeys(("time", "fidelity", "elapsed_s", "since"), np.float64),
}


@dataclass
class Block:
    """Some reports: their place in the journal, and each field as an array of as many values.

    Attributes:
        metrics: Name -> values and whether each report has it (None: all have).
    """

    position: Ints
    trial: Ints
    attempt: Ints
    time: Floats
    fidelity: Floats
    elapsed_s: Floats
    since: Floats
    metrics: dict[str, tuple[Floats, NDArray[np.bool_] | None]] = field(default_factory=dict)


class Reports:
    """Takes in the lines of a journal that look like reports.

    Attributes:
        damaged: How many could not be read.
        others: Events among them that are no reports after all, with their places.
    """

    def __init__(self, trial_number: dict[str, int]) -> None:
        """`trial_number`: trial id -> number, by order of appearance among what was read; added to."""
        self.damaged = 0
        self.others: list[tuple[int, Event]] = []
        self._numbers = trial_number
        self._blocks: list[Block] = []
        self._metrics: dict[str, None] = {}

    def take(self, lines: list[bytes], positions: Ints) -> None:
        """Read lines that stand at these places in the journal."""
        if len(lines) > _FEW and not self._metrics:
            self._slowly(lines[:1], positions[:1])  # which names there are
            lines, positions = lines[1:], positions[1:]
        if not lines:
            return
        block = self._quickly(lines, positions) if len(lines) > _FEW and self._metrics else None
        if block is not None:
            self._blocks.append(block)
        elif len(lines) <= _FEW:
            self._slowly(lines, positions)
        else:
            half = len(lines) // 2
            self.take(lines[:half], positions[:half])
            self.take(lines[half:], positions[half:])

    def whole(self) -> Block:
        """All that was taken in, as one block in no particular order."""
        blocks = self._blocks
        columns = {
            name: np.concatenate([np.empty(0, kind), *(getattr(block, name) for block in blocks)])
            for name, kind in COLUMNS.items()
        }
        names = dict.fromkeys(name for block in blocks for name in block.metrics)
        return Block(**columns, metrics={name: _joined(blocks, name) for name in names})

    def _quickly(self, lines: list[bytes], positions: Ints) -> Block | None:
        """The block that they are; None where any of them may be something else."""
        import pyarrow as pa
        import pyarrow.json

        data = b"\n".join(lines)
        # Beginning and end of every line are those of an object, so that none ends on another line.
        framed = data.startswith(_BEGINNING) and data.endswith(b"}")
        framed = framed and data.count(b"}\n" + _BEGINNING) == len(lines) - 1
        nulls = b"null" in data and any(found in data for found in (b":null", b" ", b"\t", b"\r"))
        if not framed or not data.isascii() or b"\\" in data or nulls or len(self._metrics) > _MOST_METRICS:
            return None
        number, whole, text = pa.float64(), pa.int64(), pa.string()
        metrics = pa.struct([(name, number) for name in self._metrics])
        fields = {"v": whole, "time": number, "event": text, "trial_id": text, "attempt": whole, "fidelity": number}
        schema = pa.schema([*fields.items(), ("metrics", metrics), ("elapsed_s", number), ("since", number)])
        try:
            table = pa.json.read_json(
                pa.BufferReader(data),
                read_options=pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            ).combine_chunks()
        except (pa.ArrowException, OSError):
            return None
        if table.num_rows != len(lines) or any(table[name].null_count for name in (*fields, "metrics", "elapsed_s")):
            return None
        return self._block(table, positions)

    def _block(self, table: Any, positions: Ints) -> Block | None:
        import pyarrow.compute as pc

        if not pc.all(pc.equal(table["event"], "trial_reported")).as_py():
            return None
        ids = table["trial_id"].combine_chunks().dictionary_encode()
        names = ids.dictionary.to_pylist()
        attempt = table["attempt"].to_numpy()
        columns = {name: table[name].to_numpy() for name in ("time", "fidelity", "elapsed_s")}
        since = table["since"].to_numpy()  # absent: NaN
        if np.isnan(since).sum() != table["since"].null_count:
            return None
        metrics: dict[str, tuple[Floats, NDArray[np.bool_] | None]] = {}
        struct = table["metrics"].combine_chunks()
        for number, metric in enumerate(self._metrics):
            values = struct.field(number)
            if values.null_count < len(values):
                known = None if not values.null_count else values.is_valid().to_numpy(zero_copy_only=False)
                metrics[metric] = (values.to_numpy(zero_copy_only=False), known)
        finite = [*columns.values(), *(v if known is None else v[known] for v, known in metrics.values())]
        # A sum is finite where all are: quicker, and one that overflows only costs the slow way.
        if not all(np.isfinite(values.sum()) for values in finite) or np.isinf(since).any():
            return None
        if not all(map(events.is_trial_id, names)) or attempt.min() < 0 or attempt.max() >= events.LARGEST_INT:
            return None
        times, fidelity = columns["time"], columns["fidelity"]
        exact = max(abs(fidelity.min()), abs(fidelity.max()), np.abs(np.nan_to_num(since)).max()) < events.EXACT
        if not exact or times.min() < 0 or times.max() >= events.LATEST:
            return None
        codes = np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names], np.int64)
        trial = codes[ids.indices.to_numpy()]
        return Block(positions, trial, attempt, times, fidelity, columns["elapsed_s"], since, metrics)

    def _slowly(self, lines: list[bytes], positions: Ints) -> None:
        rows: list[tuple[int, Event]] = []
        for position, line in zip(positions.tolist(), lines, strict=True):
            event = events.parse(line)
            if event is None:
                self.damaged += 1
            elif event["event"] == "trial_reported":
                rows.append((position, event))
            elif event["event"] in events.KNOWN:
                self.others.append((position, event))
        if rows:
            self._blocks.append(self._of_events(rows))

    def _of_events(self, rows: list[tuple[int, Event]]) -> Block:
        found = [event for _, event in rows]
        names = dict.fromkeys(name for event in found for name in event["metrics"])
        self._metrics.update(names)

        def column(key: str) -> Floats:
            return np.array([event.get(key, np.nan) for event in found], np.float64)

        metrics = {}
        for name in names:
            known = np.array([name in event["metrics"] for event in found])
            values = np.array([float(event["metrics"].get(name, np.nan)) for event in found])
            metrics[name] = (values, None if known.all() else known)
        numbers = [self._numbers.setdefault(event["trial_id"], len(self._numbers)) for event in found]
        return Block(
            position=np.array([position for position, _ in rows], np.int64),
            trial=np.array(numbers, np.int64),
            attempt=np.array([event["attempt"] for event in found], np.int64),
            **{key: column(key) for key in ("time", "fidelity", "elapsed_s", "since")},
            metrics=metrics,
        )


def _joined(blocks: list[Block], name: str) -> tuple[Floats, NDArray[np.bool_] | None]:
    values, known = [], []
    for block in blocks:
        size = len(block.position)
        found, there = block.metrics.get(name, (np.full(size, np.nan), np.zeros(size, bool)))
        values.append(found)
        known.append(np.ones(size, bool) if there is None else there)
    mask = np.concatenate(known)
    return np.concatenate(values), None if mask.all() else mask
