"""What a run writes line by line, on a bucket: files grow here, and a thread copies them there.

An object cannot grow. So the files lie in a local folder, and those that have changed are written
anew, whole, every EVERY seconds and whenever `Mirror.flush` is called. Training never waits for it
in between, and a store that is out of reach for a while costs nothing but a warning.
"""

import contextlib
import pathlib
import shutil
import threading

from evqgan.core import files, scratch, stores
from evqgan.core.errors import InputError
from evqgan.core.progress import warn

EVERY = 30.0  # ours: seconds; metrics.jsonl of a long run has some ten megabytes


class Mirror:
    """A local folder, `folder`, whose files are copied into the remote folder `place`."""

    def __init__(self, place: pathlib.Path) -> None:
        """Begin with an empty folder."""
        self.place = place
        self._made = contextlib.ExitStack()
        self.folder = self._made.enter_context(scratch.folder())
        self._copy = self.folder / ".copy"
        self._copied: dict[pathlib.Path, tuple[int, int]] = {}  # their sizes and times
        self._copying, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def fetch(self, name: str) -> None:
        """Copy a remote file into the folder, if there is one."""
        copy = self.folder / name
        with files.writable(self.place / name), contextlib.suppress(FileNotFoundError):
            stores.fetch(self.place / name, copy)
            self._copied[copy] = changed(copy)

    def flush(self) -> None:
        """Copy what has changed, and return when it is there; InputError if that cannot be."""
        with self._copying:
            for file in sorted(self.folder.rglob("*")):
                if not file.is_file() or file.name.startswith("."):  # `files.atomic` writes those
                    continue
                stamp = changed(file)
                if self._copied.get(file) != stamp:
                    target = self.place / file.relative_to(self.folder).as_posix()
                    with files.writable(target):
                        shutil.copyfile(file, self._copy)  # which does not grow meanwhile
                        stores.put(self._copy, target)
                    self._copied[file] = stamp

    def close(self) -> None:
        """Copy what has changed, and remove the local folder.

        Where that cannot be copied, the folder is kept under another name, which the InputError
        tells.
        """
        self._ended.set()
        self._thread.join()
        try:
            self.flush()
        except InputError as error:
            kept = self.folder.rename(f"{self.folder}-kept")
            raise InputError(f"{error}; what was to be copied is kept in {kept}") from error
        finally:
            self._made.close()

    def _repeat(self) -> None:
        """Copy what has changed every so often; what fails is tried again the next time."""
        while not self._ended.wait(EVERY):
            try:
                self.flush()
            except InputError as error:
                warn(f"{error}; it is kept here, and tried again in {EVERY:.0f} s")


def changed(file: pathlib.Path) -> tuple[int, int]:
    """Return the size of a local file, and when it was changed, in nanoseconds."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns
