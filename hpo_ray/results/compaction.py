"""A run's rows as Parquet files beside its journal: the same frames, many times quicker.

The journal stays the truth. Each file says which journal it was made from; one that does not fit the journal that is
there, or that is damaged, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_ray import journal, plain
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.results.places import Place, find, is_run
from hpo_ray.results.tables import COLUMNS, Coded, Table, table_of

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "frames"
VERSION = 1
_KEY = b"hpo_ray"
_ROOM = 1 << 20
# A row comes from a line of its own, which is longer than this: what claims more rows is no frame of this journal.
_SHORTEST_LINE = 32


def compact(path: str | os.PathLike[str]) -> list[Path]:
    """Write the rows of runs that no driver works on into Parquet files in their folders, so that they load quickly.

    ``frames/<level>.parquet`` in the run directory, replaced whole. When the journal changes afterwards (the run is
    resumed), they are not used until this is done again. Directories of plain Ray Tune are left as they are.

    Args:
        path: A run directory or a glob, on this machine.

    Returns:
        The files written.

    Raises:
        InvalidInput: There is no run of ours at `path`, one is still running, or its folder cannot be written to.
    """
    from hpo_ray.results import source

    places = [place for place in find(path) if is_run(place.entries())]
    if not places or any(place.local is None for place in places):
        raise InvalidInput(Problem("run", f"'{os.fspath(path)}' names no run of ours on this machine"))
    written = []
    for place in places:
        if source.alive(place):
            raise InvalidInput(Problem("run", f"'{place}' is still running: it can be compacted once it has ended"))
        before = None
        with contextlib.suppress(OSError):  # what is wrong is said below
            before = place.stat(journal.FILE_NAME)
        run = source.read(place)
        try:
            size, changed = place.stat(journal.FILE_NAME)
            made_from = {"v": VERSION, "bytes": size, "mtime_ns": changed, "digest": _digest(place)}
            if before != (size, changed):
                raise OSError(0, "its journal is being written to")
            for level in COLUMNS:
                written.append(_write(place, level, table_of(run, level), {**made_from, "damaged": run.damaged}))
        except OSError as error:
            raise InvalidInput(Problem("run", f"'{place}' cannot be compacted: {error.strerror}")) from None
    return written


def load(place: Place, level: str) -> tuple[Table, int] | None:
    """A level's rows and the journal's damaged lines, from its file; None if there is none that fits the journal."""
    try:
        size, changed = place.stat(journal.FILE_NAME)
        place.stat(FOLDER, f"{level}.parquet")
        import pyarrow as pa
        import pyarrow.parquet

        with place.open(FOLDER, f"{level}.parquet") as file:
            data = plain.whole(file, _ROOM + size)
        found = pa.parquet.ParquetFile(pa.BufferReader(data))
        about = json.loads(found.schema_arrow.metadata[_KEY])
        if about["v"] != VERSION or about["bytes"] != size or found.metadata.num_rows * _SHORTEST_LINE > size:
            return None
        groups = (found.metadata.row_group(number) for number in range(found.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > 4 * size + _ROOM:
            return None
        if about["mtime_ns"] != changed and about["digest"] != _digest(place):  # copied, or not the same
            return None
        return _table(found.read(use_threads=False), level, about), int(about["damaged"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, NotImplementedError):
        return None  # pyarrow's own errors are among these


def _write(place: Place, level: str, table: Table, about: dict[str, Any]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet

    best = table.best
    columns = {name: _array(kind, table.columns[name]) for name, kind in COLUMNS[level].items()}
    if table.configs or level == "trials":
        columns["config"] = pa.array([json.dumps(config) for config in table.configs], pa.string())
    columns |= {f"metric/{name}": pa.array(values) for name, values in table.metrics.items()}
    if best is not None:
        columns["best"] = pa.array(best[1])
    described = {**about, "metrics": list(table.metrics), "best": None if best is None else best[0]}
    folder = Path(place.path) / FOLDER
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if folder.is_symlink():
        raise OSError(0, f"{folder} is a link")
    file, partial = folder / f"{level}.parquet", folder / f"{level}.{os.getpid()}.partial"
    try:
        made = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(described).encode()})
        pa.parquet.write_table(made, partial, compression="zstd", use_dictionary=["trial_id"])
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _array(kind: str, values: Any) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, Coded):
        return pa.DictionaryArray.from_arrays(pa.array(values.codes, pa.int32()), pa.array(values.names, pa.string()))
    types = {"count": pa.int64(), "int": pa.int64(), "bool": pa.bool_(), "float": pa.float64(), "time": pa.float64()}
    return pa.array(values, types.get(kind, pa.string()))


def _table(found: pa.Table, level: str, about: dict[str, Any]) -> Table:
    """The rows; raises where they are not what `_write` makes."""
    columns = {name: _values(kind, found[name]) for name, kind in COLUMNS[level].items()}
    configs = []
    if level == "trials":
        configs = [plain.loads(text.encode()) for text in found["config"].to_pylist()]
        if not all(isinstance(config, dict) for config in configs):
            raise ValueError
    metrics = {str(name): _values("float", found[f"metric/{name}"]) for name in about["metrics"]}
    best = None if about["best"] is None else (str(about["best"]), _values("float", found["best"]))
    return Table(columns, configs, metrics, best)


def _values(kind: str, column: pa.ChunkedArray) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        whole = column.unify_dictionaries().combine_chunks()
        names = whole.dictionary.to_pylist()
        if whole.null_count or not all(isinstance(name, str) for name in names):
            raise ValueError
        return Coded(whole.indices.to_numpy(), names)
    if kind in ("text", "status", "name", "count"):
        return column.cast(pa.int64() if kind == "count" else pa.string()).to_pylist()
    if kind != "bool" and not pa.types.is_primitive(column.type):
        raise ValueError
    return column.to_numpy().astype({"int": np.int64, "bool": np.bool_}.get(kind, np.float64), copy=False)


def _digest(place: Place) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with place.open(journal.FILE_NAME) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
