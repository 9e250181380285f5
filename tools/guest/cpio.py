# SPDX-License-Identifier: BSD-2-Clause
"""Writes cpio archives as the kernel takes them for its initial file system ("newc").

The same entries give the same bytes: owner root, time 0, inodes counted, in the order of names. The
kernel unpacks several archives one after another, so that a test adds its files by appending an
archive of its own.
"""

import os
import stat
from pathlib import Path


class Tree:
    """A file system to be: a mapping of names to files, links, folders and devices."""

    def __init__(self):
        self.entries = {}

    def folder(self, name, mode=0o755):
        self._put(name, stat.S_IFDIR | mode)

    def file(self, name, content, mode=0o644):
        data = content.encode() if isinstance(content, str) else content
        self._put(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self._put(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name, major, minor, mode=0o600):
        self._put(name, stat.S_IFCHR | mode, device=(major, minor))

    def host_file(self, name, path, mode=None):
        """A copy of a file of the host; its mode too unless one is given."""
        path = Path(path)
        self.file(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode) if mode is None
                  else mode)

    def host_folder(self, name, path):
        """A copy of everything below a folder of the host; symbolic links stay links."""
        for parent, folders, files in os.walk(path):
            for entry in folders + files:
                source = Path(parent, entry)
                target = f"{name}/{source.relative_to(path)}".strip("/")
                if source.is_symlink():
                    self.link(target, os.readlink(source))
                elif source.is_dir():
                    self.folder(target)
                else:
                    self.host_file(target, source)

    def archive(self):
        """The archive's bytes; their number is a multiple of 512."""
        chunks = []
        names = sorted(self.entries)
        for inode, name in enumerate(names, start=1):
            mode, data, device = self.entries[name]
            chunks.append(_entry(inode, name, mode, data, device))
        chunks.append(_entry(0, "TRAILER!!!", 0, b"", (0, 0)))
        size = sum(map(len, chunks))
        chunks.append(bytes(-size % 512))
        return b"".join(chunks)

    def _put(self, name, mode, data=b"", device=(0, 0)):
        name = name.strip("/")
        parent = name.rpartition("/")[0]
        if parent and parent not in self.entries:
            self.folder(parent)
        self.entries[name] = (mode, data, device)


def _entry(inode, name, mode, data, device):
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = [inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return (header + raw + bytes(-(len(header) + len(raw)) % 4)
            + data + bytes(-len(data) % 4))
