"""TensorBoard: a folder a trial with its metrics over the fidelity, and what the HParams tab wants to know.

Each file's content is a function of the journal's beginning, byte for byte, and only grows with it. So a writer that
comes after one that died has nothing to remember: it makes the same bytes again and writes those that are not there.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray.events import Event
from hpo_ray.loggers.sink import (
    FAILED,
    FINISHED,
    Claim,
    Sink,
    better,
    domains_of,
    facts_of,
    refuse_link,
    rows_by_step,
    scale_of,
    shown,
    step_of,
    text_of,
)
from hpo_ray.space import Levelled

if TYPE_CHECKING:
    from hpo_ray.history import History, ReportRow, TrialRecord

FILE_NAME = "events.out.tfevents.hpo_ray"
CLAIM_NAME = ".hpo_ray"
# So many bytes wait at most before they are written, while a long journal is caught up with.
_HELD = 4 << 20
_HPARAMS = "_hparams_/"


def open_sink(target: str, *, patient: bool) -> Sink:
    """A writer of event files.

    Args:
        target: The run's folder there, made if missing.
        patient: Wait for a writer that is about to end.

    Raises:
        InvalidInput: Nothing can be written there.
    """
    return EventFiles(Path(target), patient=patient)


@dataclass
class _File:
    """One event file: how far it is as it should be, and what follows. `top`, `best`: of what was told so far."""

    path: Path
    matched: int = 0
    pending: bytearray = field(default_factory=bytearray)
    scale: int = 0
    top: int | None = None
    best: float = math.nan
    ended: bool = False


class EventFiles(Sink):
    """See the module."""

    def __init__(self, folder: Path, *, patient: bool) -> None:
        refuse_link(folder)
        self._folder = folder
        self._claim = Claim(folder / CLAIM_NAME, patient=patient)
        self._files: dict[str, _File] = {}
        self._groups: dict[str, str] = {}
        self._held = 0
        self._described = False
        self._claimed = False
        self._domains: Mapping[str, Any] = {}
        self._encode = _Encoder()

    def take(self, event: Event, run: History) -> None:
        super().take(event, run)
        if event["event"] == "run_started" and not self._claimed:
            self._claim.belongs_to(self.identity)
            self._claimed, self._domains = True, domains_of(run)
        kind = event["event"]
        trial = run.trials.get(event.get("trial_id", ""))
        if trial is None or kind not in ("trial_started", "trial_reported", "trial_ended"):
            return
        file = self._file(trial, event)
        if kind == "trial_reported" and event["attempt"] == trial.attempt:
            self._describe(event, run)
            self._report(file, trial, event, run)
        elif kind == "trial_ended" and event["status"] in FINISHED and not file.ended:
            file.ended = True
            self._put(file, self._encode.end(event, trial, file.top or 0))
        if self._held > _HELD:
            self._write()

    def flush(self, run: History, *, over: bool) -> None:
        self._write()

    def close(self) -> None:
        self._claim.release()

    def _file(self, trial: TrialRecord, event: Event) -> _File:
        """A trial's file; begun when the trial is first heard to run."""
        file = self._files.get(trial.trial_id)
        if file is None:
            file = self._files[trial.trial_id] = _File(self._folder / trial.trial_id / FILE_NAME)
            # Trials of one configuration, as a race has them, are one line of the HParams tab, their means.
            group = self._groups.setdefault(trial.config_id or trial.trial_id, trial.trial_id)
            self._put(file, self._encode.header(event["time"]))
            self._put(file, self._encode.start(event["time"], trial, group, self._domains))
        return file

    def _report(self, file: _File, trial: TrialRecord, event: Event, run: History) -> None:
        """A report. One at a step that there is already replaces it: what follows is written again."""
        file.scale = file.scale or scale_of(trial)
        step = step_of(event["fidelity"], file.scale)
        rows = {step: trial.reports[-1]}
        if file.top is not None and step <= file.top:
            by_step = rows_by_step(trial, file.scale)
            rows = {at: row for at, row in by_step.items() if at >= step}
            file.best = math.nan
            for at, row in by_step.items():
                if at < step:
                    file.best = better(file.best, row.metrics.get(run.metric, math.nan), run.mode)
            self._put(file, self._encode.purge(event["time"], step))
        for at, row in rows.items():
            file.best = better(file.best, row.metrics.get(run.metric, math.nan), run.mode)
            self._put(file, self._encode.row(row, at, shown(row.metrics, file.best, run)))
            file.top = at

    def _describe(self, event: Event, run: History) -> None:
        """Say, once, what the space and the metrics are: the first report names them."""
        if self._described:
            return
        self._described = True
        file = self._files[""] = _File(self._folder / FILE_NAME)
        names = list(dict.fromkeys([run.metric, *shown(event["metrics"], 0.0, run)]))
        self._put(file, self._encode.header(event["time"]))
        self._put(file, self._encode.experiment(event["time"], run, self._domains, names))

    def _put(self, file: _File, data: bytes) -> None:
        file.pending += data
        self._held += len(data)

    def _write(self) -> None:
        for file in self._files.values():
            if file.pending:
                _continue(file)
        self._held = 0


def _continue(file: _File) -> None:
    """Write a file's pending bytes, unless they are there; what is there in their place, torn or another's, goes."""
    data = bytes(file.pending)
    refuse_link(file.path.parent).mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(file.path, flags, 0o666), "r+b") as there:
        there.seek(file.matched)
        if there.read(len(data)) != data:
            there.seek(file.matched)
            there.truncate()
            there.write(data)
    file.matched += len(data)
    file.pending.clear()


class _Encoder:
    """Records of event files."""

    def __init__(self) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.text import metadata as text
        from tensorboard.summary.writer.record_writer import RecordWriter
        from tensorboard.util import tensor_util

        self._event, self._summary, self._types = event_pb2, summary_pb2, types_pb2
        self._api, self._metadata, self._data = api_pb2, metadata, plugin_data_pb2
        self._types_of = {
            "bool": api_pb2.DATA_TYPE_BOOL,
            "number": api_pb2.DATA_TYPE_FLOAT64,
            "string": api_pb2.DATA_TYPE_STRING,
        }
        self._text, self._tensor, self._writer = text, tensor_util.make_tensor_proto, RecordWriter

    def header(self, time: float) -> bytes:
        return self._record(wall_time=time, file_version="brain.Event:2")

    def purge(self, time: float, step: int) -> bytes:
        """From here on readers forget what they have from this step on."""
        log = self._event.SessionLog(status=self._event.SessionLog.START)
        return self._record(wall_time=time, step=step, session_log=log)

    def row(self, row: ReportRow, step: int, metrics: dict[str, float]) -> bytes:
        # A number beyond a single's range is infinite there.
        values = [self._summary.Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        return self._record(wall_time=row.time, step=step, summary=self._summary.Summary(value=values))

    def start(self, time: float, trial: TrialRecord, group: str, domains: Mapping[str, Any]) -> bytes:
        info = self._data.SessionStartInfo(group_name=group, start_time_secs=time)
        for name, value in trial.config.items():
            kind = _kind(domains[name].values if isinstance(domains.get(name), Levelled) else (value,))
            setattr(info.hparams[name], f"{kind}_value", text_of(value) if kind == "string" else value)
        return self._hparams(time, "session_start_info", self._data.HParamsPluginData(session_start_info=info))

    def end(self, event: Event, trial: TrialRecord, step: int) -> bytes:
        time = event["time"]
        status = self._api.STATUS_FAILURE if event["status"] in FAILED else self._api.STATUS_SUCCESS
        info = self._data.SessionEndInfo(status=status, end_time_secs=time)
        ended = self._hparams(time, "session_end_info", self._data.HParamsPluginData(session_end_info=info))
        words = "\n".join(f"- {key}: {value}" for key, value in facts_of(trial).items())
        if trial.traceback:
            words += "\n\n" + "\n".join(f"    {line}" for line in trial.traceback.splitlines())
        about = self._summary.Summary.Value(
            tag="trial",
            metadata=self._text.create_summary_metadata(display_name="trial", description=""),
            tensor=self._tensor([words.encode()], dtype=self._types.DT_STRING),
        )
        return ended + self._record(wall_time=time, step=step, summary=self._summary.Summary(value=[about]))

    def experiment(self, time: float, run: History, domains: Mapping[str, Any], metrics: list[str]) -> bytes:
        made = self._api.Experiment(time_created_secs=time, name=str(run.experiment.get("name") or ""))
        for name, domain in domains.items():
            info = made.hparam_infos.add(name=name)
            if isinstance(domain, Levelled):
                kind = _kind(domain.values)
                info.type = self._types_of[kind]
                info.domain_discrete.extend([text_of(v) if kind == "string" else v for v in domain.values])
            else:
                info.type = self._types_of["number"]
                info.domain_interval.min_value, info.domain_interval.max_value = domain.low, domain.high
        for name in metrics:
            made.metric_infos.add(name=self._api.MetricName(tag=name))
        return self._hparams(time, "experiment", self._data.HParamsPluginData(experiment=made))

    def _hparams(self, time: float, tag: str, data: Any) -> bytes:
        data.version = self._metadata.PLUGIN_DATA_VERSION
        plugin = self._summary.SummaryMetadata.PluginData(
            plugin_name=self._metadata.PLUGIN_NAME,
            content=data.SerializeToString(deterministic=True),  # else maps are in another order in each process
        )
        value = self._summary.Summary.Value(
            tag=f"{_HPARAMS}{tag}",
            metadata=self._summary.SummaryMetadata(plugin_data=plugin),
            tensor=self._metadata.NULL_TENSOR,
        )
        return self._record(wall_time=time, summary=self._summary.Summary(value=[value]))

    def _record(self, **fields: Any) -> bytes:
        buffer = io.BytesIO()
        self._writer(buffer).write(self._event.Event(**fields).SerializeToString())
        return buffer.getvalue()


def _kind(values: Iterable[Any]) -> str:
    """What a parameter with these values is in the HParams tab: a tick, a number, or else text."""
    types = {type(value) for value in values}
    return "bool" if types == {bool} else "number" if types <= {int, float} else "string"
