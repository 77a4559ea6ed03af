"""Arrow shards that ``datasets.load_from_disk`` opens, written with little memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from versatune.artifacts import replacing, write_json
from versatune.errors import VersatuneError

SHARD_BYTES = 1 << 27
"""A shard is read whole, so long documents make shards of fewer rows."""


def write_shard(path: Path, table: pa.Table) -> None:
    """Write one shard in one step: after a crash there is a whole file or none.

    Raises VersatuneError when it can't be written.
    """
    try:
        with (
            replacing(path) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table)
    except OSError as error:
        raise VersatuneError(f"{path} can't be written: {error}.") from error


def read_shard(path: Path) -> pa.Table:
    """One shard, read into memory rather than mapped, so that it is freed after use."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a stream, one at a time."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from stream


class ShardWriter:
    """Collects batches; writes a shard when ``rows`` rows or ``SHARD_BYTES`` are together."""

    def __init__(self, folder: Path, schema: pa.Schema, rows: int) -> None:
        self.folder = folder
        self.schema = schema
        self.rows = rows
        self.names: list[str] = []
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        while batch.num_rows:
            part = batch.slice(0, self.rows - self._count)
            batch = batch.slice(part.num_rows)
            self._waiting.append(part)
            self._count += part.num_rows
            self._bytes += part.nbytes
            if self._count == self.rows or self._bytes >= SHARD_BYTES:
                self._write()

    def close(self) -> None:
        """Write what is left, and the files that make the folder a data set."""
        if self._count or not self.names:
            self._write()
        describe(self.folder, self.names, self.schema)

    def _write(self) -> None:
        name = f"data-{len(self.names):05d}.arrow"
        write_shard(self.folder / name, pa.Table.from_batches(self._waiting, schema=self.schema))
        self.names.append(name)
        self._waiting, self._count, self._bytes = [], 0, 0


def describe(folder: Path, names: Sequence[str], schema: pa.Schema) -> None:
    """Make a folder of shards one data set for ``datasets.load_from_disk``."""
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": folder.name,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)
