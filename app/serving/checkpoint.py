"""The folder of a stream's offsets and state: on this machine's disk, or on any file system that Spark reaches."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from app.errors import ServingError

_URI = re.compile(r"[a-z][a-z0-9+.-]*:/")


def checkpoint_uri(parent: str | None, stream_id: str) -> str:
    """Where a stream keeps its checkpoint: below `parent`, a folder or a URI such as ``hdfs:///streams``.

    Without one, in the machine's temporary folder. Nothing is percent-encoded: Hadoop takes a URI as it stands.
    """
    parent = parent or str(Path(tempfile.gettempdir(), "stockflow-streams"))
    uri = parent if _URI.match(parent) else f"file://{Path(parent).absolute()}"
    return f"{uri.rstrip('/')}/{stream_id}"


class CheckpointFolder:
    """A checkpoint's folder, asked through Hadoop's file systems as Spark itself does.

    Raises ServingError for a URI whose file system this Spark does not know or reach.
    """

    def __init__(self, spark: SparkSession, uri: str) -> None:
        self.uri = uri
        jvm: Any = spark.sparkContext._jvm
        self._jvm = jvm
        try:
            self._path = jvm.org.apache.hadoop.fs.Path(uri)
            self._files = self._path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
        except Py4JJavaError as exc:
            raise self._not_reached(exc) from exc

    def exists(self) -> bool:
        """Whether a stream has begun to write there."""
        try:
            return bool(self._files.exists(self._path))
        except Py4JJavaError as exc:
            raise self._not_reached(exc) from exc

    def planned(self) -> str:
        """JSON of the offset up to which micro-batches were planned, the last one perhaps not done; "" without one."""
        return self._offset_of_newest("offsets")

    def done(self) -> str:
        """JSON of the offset up to which micro-batches are done; "" without one."""
        return self._offset_of_newest("commits")

    def _offset_of_newest(self, log: str) -> str:
        """The end of the newest micro-batch in a log of Spark's.

        A log has a file for each micro-batch, named by its number; the last line of those in "offsets" is the source's
        offset. Spark removes old ones from all logs alike.
        """
        folder = self._jvm.org.apache.hadoop.fs.Path
        try:
            if not self._files.exists(folder(self._path, log)):
                return ""
            names = [status.getPath().getName() for status in self._files.listStatus(folder(self._path, log))]
            numbers = [int(name) for name in names if name.isdigit()]
            if not numbers:
                return ""
            stream = self._files.open(folder(self._path, f"offsets/{max(numbers)}"))
            try:
                text = str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
            finally:
                stream.close()
        except Py4JJavaError as exc:
            raise self._not_reached(exc) from exc
        return text.rstrip().rpartition("\n")[2]

    def remove(self) -> None:
        """Remove the folder with all it holds; one that is not there is no error."""
        try:
            self._files.delete(self._path, True)
        except Py4JJavaError as exc:
            raise self._not_reached(exc) from exc

    def _not_reached(self, exc: Py4JJavaError) -> ServingError:
        cause = exc.java_exception.getMessage()
        return ServingError(f"checkpoint {self.uri}: {cause}: name a folder, or a URI that this Spark reaches")
