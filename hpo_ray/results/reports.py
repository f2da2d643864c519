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

# How our writer begins a report's line: eight bytes at two places, and between them the time, of so many bytes.
_BEGINNING, _KIND, _BEFORE_TIME, _TO_KIND = b'{"v":1,"', b"reported", len(b'{"v":1,"time":'), len(b',"event":"trial_')
_TIMES = (12, 13, 14)
_NEWLINE, _BRACE = b"\n}"
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
    """Takes in a journal's lines.

    Attributes:
        damaged: How many could not be read.
        others: The events that are no reports, with their places.
    """

    def __init__(self, trial_number: dict[str, int]) -> None:
        """`trial_number`: trial id -> number, by order of appearance among what was read; added to."""
        self.damaged = 0
        self.others: list[tuple[int, Event]] = []
        self._numbers = trial_number
        self._blocks: list[Block] = []
        self._metrics: dict[str, None] = {}

    def take(self, text: bytes, line: int) -> int:
        """Read lines, the first of which is the journal's line number `line`; returns how many they are."""
        ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE), len(text))
        starts = np.append(0, ends[:-1] + 1)
        quick = _like_reports(text, starts, ends)
        slow = np.flatnonzero(~quick)
        self._slowly([text[starts[at] : ends[at]] for at in slow.tolist()], slow + line)
        pieces = np.append(-1, slow), np.append(slow, len(starts))
        view = memoryview(text)
        lines = [view[starts[a + 1] : ends[b - 1] + 1] for a, b in zip(*pieces, strict=True) if b > a + 1]
        fast = np.flatnonzero(quick)
        lengths = (ends - starts)[fast] + 1
        after = np.cumsum(lengths)
        self._quick(b"".join(lines), after - lengths, after - 1, fast + line)
        return len(starts)

    def _quick(self, text: bytes, starts: Ints, ends: Ints, positions: Ints) -> None:
        """Read lines that look like our writer's reports, many at once where they are."""
        if len(starts) > _FEW and not self._metrics:  # which names there are
            self._slowly([text[starts[0] : ends[0]]], positions[:1])
            starts, ends, positions = starts[1:], ends[1:], positions[1:]
        if len(starts) > _FEW:
            block = self._quickly(text[starts[0] : ends[-1]], positions) if self._metrics else None
            if block is not None:
                self._blocks.append(block)
                return
            half = len(starts) // 2
            for part in (slice(None, half), slice(half, None)):
                self._quick(text, starts[part], ends[part], positions[part])
        elif len(starts):
            self._slowly([text[start:end] for start, end in zip(starts, ends, strict=True)], positions)

    def whole(self) -> Block:
        """All that was taken in, as one block in no particular order."""
        blocks = self._blocks
        columns = {
            name: np.concatenate([np.empty(0, kind), *(getattr(block, name) for block in blocks)])
            for name, kind in COLUMNS.items()
        }
        names = dict.fromkeys(name for block in blocks for name in block.metrics)
        return Block(**columns, metrics={name: _joined(blocks, name) for name in names})

    def _quickly(self, data: bytes, positions: Ints) -> Block | None:
        """The block that lines are; None where any of them may be something else.

        Each begins and ends as an object does, so that none can end on another line.
        """
        import pyarrow as pa
        import pyarrow.json

        nulls = b"null" in data and any(found in data for found in (b":null", b" ", b"\t", b"\r"))
        if not data.isascii() or b"\\" in data or nulls or len(self._metrics) > _MOST_METRICS:
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
        if table.num_rows != len(positions) or any(
            table[name].null_count for name in (*fields, "metrics", "elapsed_s")
        ):
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
            if not line or line.isspace():
                continue
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


def _like_reports(text: bytes, starts: Ints, ends: Ints) -> NDArray[np.bool_]:
    """Which lines begin and end as our writer's reports do."""
    shortest = _BEFORE_TIME + max(_TIMES) + _TO_KIND + len(_KIND)
    quick = ends - starts > shortest
    if not quick.any():
        return quick
    # Every eight bytes as one number: a view in steps of one byte.
    words = np.ndarray(len(text) - 7, "<u8", text, strides=(1,))
    begin = starts[quick]
    kind, beginning = (np.frombuffer(word, "<u8")[0] for word in (_KIND, _BEGINNING))
    found = np.zeros(len(begin), bool)
    for width in _TIMES:
        found |= words[begin + (_BEFORE_TIME + width + _TO_KIND)] == kind
    quick[quick] = found & (words[begin] == beginning) & (np.frombuffer(text, np.uint8)[ends[quick] - 1] == _BRACE)
    return quick


def _joined(blocks: list[Block], name: str) -> tuple[Floats, NDArray[np.bool_] | None]:
    values, known = [], []
    for block in blocks:
        size = len(block.position)
        found, there = block.metrics.get(name, (np.full(size, np.nan), np.zeros(size, bool)))
        values.append(found)
        known.append(np.ones(size, bool) if there is None else there)
    mask = np.concatenate(known)
    return np.concatenate(values), None if mask.all() else mask
