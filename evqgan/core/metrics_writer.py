"""The numbers and pictures of a run that trains, in metrics.jsonl and for TensorBoard."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from evqgan.core import stores
from evqgan.core.errors import InputError
from evqgan.core.files import atomic, writable
from evqgan.core.metric_lines import parsed
from evqgan.core.mirror import Mirror
from evqgan.core.progress import warn

PART = 2**23  # ours: bytes of a file of events on a bucket, which is copied whole when it grows


class Writer:
    """Appends numbers to metrics.jsonl, and numbers and pictures to TensorBoard's events.

    Raises InputError for an OSError, such as a full disk.

    workdir: of a bucket, all is written into `folder`, from where a `mirror.Mirror` copies it.
    resume_step: the step of the state with which the run goes on. Lines of later steps are dropped
      (TensorBoard is told to do the same) and written again, so that metrics.jsonl ends as if
      nothing had happened, but for perf/*. 0 is a run from the start: every line goes.
    enabled: whether this process writes, of which there may be one in a run; with False nothing is
      touched.
    folder: where files are written: the workdir, or what is copied there.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], resume_step: int = 0, enabled: bool = True
    ) -> None:
        self._lines: Any = None
        self._events: Any = None
        self._mirror: Mirror | None = None
        self.folder = stores.path(workdir)
        if not enabled:
            return
        if stores.is_remote(workdir):
            self._mirror = Mirror(self.folder)
            self._mirror.fetch("metrics.jsonl")
            self.folder = self._mirror.folder
        self.path = self.folder / "metrics.jsonl"
        with writable(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        _keep(self.path, resume_step)
        with writable(self.path):
            self._lines = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)
            self._suffix, self._parts = f".{resume_step}.{os.getpid()}", 0
            self._events = self._begun_events()
            # TensorBoard hides older events from this step on.
            start = SessionLog(status=SessionLog.START)
            self._event(step=resume_step + 1 if resume_step else 0, session_log=start)
            self._events.flush()

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write one line {"step": step, **scalars}.

        A non-finite number is null there and named under "errors".
        """
        if self._lines is None:
            return
        values = {name: _host(name, value) for name, value in scalars.items()}
        errors = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        finite = {name: None if name in errors else value for name, value in values.items()}
        line: dict[str, Any] = {"step": int(step), **finite}
        if errors:
            line["errors"] = errors
        with writable(self.path):
            self._lines.write(json.dumps(line, allow_nan=False) + "\n")
            self._lines.flush()
            for name, value in values.items():
                scalar = summary.scalar(name, 0.0)
                # Set afterwards, as of one that is not finite tensorboardX prints a line.
                scalar.value[0].simple_value = value
                self._event(step=int(step), summary=scalar)
            self._events.flush()

    def images(self, step: int, pictures: Mapping[str, Any]) -> None:
        """Write pictures {name: uint8 [H,W,3]} to TensorBoard."""
        if self._lines is None:
            return
        with writable(self.path.parent):
            for name, picture in pictures.items():
                image = summary.image(name, np.asarray(picture), dataformats="HWC")
                self._event(step=int(step), summary=image)
            self._events.flush()

    def flush(self) -> None:
        """Return when all that was written is in the workdir, if that is on a bucket."""
        if self._mirror is not None:
            self._mirror.flush()

    def close(self) -> None:
        """Close both files; calling it again does nothing."""
        if self._lines is not None:
            with writable(self.path):
                self._lines.close()
                self._events.close()
            self._lines = None
            if self._mirror is not None:
                self._mirror.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except InputError as unwritten:
            if error is None:
                raise
            warn(str(unwritten))  # the error that ends the run says more

    def _begun_events(self) -> EventsWriter:
        """Return a new file of events.

        EventsWriter writes when called. SummaryWriter's thread dies of a full disk and its queue
        then blocks.
        """
        suffix = f"{self._suffix}.{self._parts}" if self._parts else self._suffix
        self._size, self._parts = 0, self._parts + 1
        return EventsWriter(str(self.folder / "events"), suffix)

    def _event(self, **fields: Any) -> None:
        event = Event(wall_time=time.time(), **fields)
        if self._mirror is not None and self._size > PART:
            self._events.close()
            self._events = self._begun_events()
        self._size += event.ByteSize()
        self._events.write_event(event)


def _keep(path: pathlib.Path, step: int) -> None:
    """Drop the lines of metrics.jsonl after `step` (all of them at 0).

    A last line that was cut short goes, too.
    """
    with writable(path):
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = text.splitlines()
    kept = []
    for number, line in enumerate(lines, 1):
        if (found := parsed(line)) is None:
            if number == len(lines):
                break
            what = "is not a JSON object with a step: move the file away to go on"
            raise InputError(f"{path} line {number} {what}")
        if step and found["step"] <= step:
            kept.append(line + "\n")
    if "".join(kept) != text:
        with atomic(path) as file:
            file.write("".join(kept).encode())


def _host(name: str, value: Any) -> int | float:
    """Return a Python int or float from a Python or NumPy number."""
    value = np.asarray(value)
    if value.shape or value.dtype.kind not in "biuf":
        raise TypeError(f"expected a number for {name}, got {value.dtype} {list(value.shape)}")
    return value.item()
