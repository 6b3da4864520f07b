"""Where trials of `crash.py` run: a folder, or a file system of its own that can become full."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TMPFS_MB = 600


class Room:
    """A folder, or a file system of its own whose size can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.mounted = self._mount(f"size={TMPFS_MB}m")

    def used(self) -> int:
        """Bytes in use."""
        return shutil.disk_usage(self.folder).used

    def leave(self, size: int) -> None:
        """Leave room for so many bytes more; what runs there may write while this is done, hence several tries."""
        for _ in range(20):
            if not self.mounted or self._remount(self.used() + size):
                return
        raise RuntimeError(f"{self.folder}: its size cannot be set")

    def reopen(self) -> None:
        """Give it all the room that it had at first."""
        if self.mounted and not self._remount(TMPFS_MB * 2**20):
            raise RuntimeError(f"{self.folder}: its size cannot be set")

    def close(self) -> None:
        """Give the file system back."""
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)

    def _remount(self, size: int) -> bool:
        """False where more than so many bytes are in use already."""
        options = f"remount,size={max(-(-size // 1024), 1)}k"
        return subprocess.run(["mount", "-o", options, self.folder], capture_output=True).returncode == 0

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "gfm-crash", str(self.folder)]
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            return False


@contextmanager
def open_rooms(scratch: Path, count: int) -> Iterator[list[Room]]:
    """So many rooms, given back afterwards."""
    rooms: list[Room] = []
    try:
        for number in range(count):
            rooms.append(Room(scratch / f"room-{number}" / "disk"))
        yield rooms
    finally:
        for room in rooms:
            room.close()
