# SPDX-License-Identifier: BSD-2-Clause
"""HFS+ volumes, made and checked: Debian has no program that does either. After Apple's Technical Note
TN1150, as far as a small volume without extents overflow, forks of attributes and a journal needs it."""

import struct

BLOCK = 4096
NODE = 8192
HEADER_AT = 1024
ROOT, EXTENTS, CATALOG, ALLOCATION = 2, 3, 4, 6  # catalog node ids
FOLDER, FILE, FOLDER_THREAD, FILE_THREAD = 1, 2, 3, 4  # records of the catalog
LEAF, INDEX, HEADER_NODE = 0xff, 0, 1
UNMOUNTED = 1 << 8
EPOCH = 2082844800  # 1904 to 1970


def _fork(size, extents):
    """size, clump size, blocks, eight extents"""
    text = struct.pack(">QII", size, 0, sum(count for _, count in extents))
    return text + b"".join(struct.pack(">II", *extent) for extent in extents).ljust(64, b"\0")


def _node(kind, height, records):
    text = struct.pack(">IIbBHH", 0, 0, kind - 256 if kind > 127 else kind, height, len(records), 0)
    offsets = []
    for record in records:
        offsets.append(len(text))
        text += record
    offsets.append(len(text))
    tail = b"".join(struct.pack(">H", offset) for offset in reversed(offsets))
    return text.ljust(NODE - len(tail), b"\0") + tail


def _tree(nodes, leaves, records, key_bytes, attributes):
    """A B-tree of so many nodes: the header, and one leaf or none."""
    header = struct.pack(">HIIIIHHIIHIBBI", 1 if leaves else 0, 1 if leaves else 0, records,
                         1 if leaves else 0, 1 if leaves else 0, NODE, key_bytes, nodes,
                         nodes - 1 - len(leaves), 0, 0, 0, 0, attributes).ljust(106, b"\0")
    used = bytes([0xc0 if leaves else 0x80]).ljust(NODE - 14 - 106 - 128 - 8, b"\0")
    whole = _node(HEADER_NODE, 0, [header, bytes(128), used]) + b"".join(leaves)
    return whole.ljust(nodes * NODE, b"\0")


def _key(parent, name):
    return struct.pack(">HIH", 6 + 2 * len(name), parent, len(name)) + name.encode("utf-16-be")


def make(path, size):
    """Makes an empty volume in a file of so many bytes."""
    blocks = size // BLOCK
    bitmap_blocks = -(-blocks // (8 * BLOCK))
    tree_blocks = [8 * NODE // BLOCK, max(64, blocks // 64) * NODE // BLOCK]
    now = struct.pack(">I", EPOCH + 1700000000)
    first = 1
    extents = []
    for count in (bitmap_blocks, *tree_blocks):
        extents.append([(first, count)])
        first += count
    name = "volume"
    bsd = struct.pack(">IIBBHI", 0, 0, 0, 0, 0o40755, 0)
    root = _key(1, name) + struct.pack(">HHII", FOLDER, 0, 0, ROOT) + now * 4 + bytes(4) + bsd \
        + bytes(32) + bytes(8)
    thread = _key(ROOT, "") + struct.pack(">HHIH", FOLDER_THREAD, 0, 1, len(name)) \
        + name.encode("utf-16-be")
    leaf = _node(LEAF, 1, [root, thread])
    header = struct.pack(">HHI4sI", 0x482b, 4, UNMOUNTED, b"10.0", 0) + now * 4 \
        + struct.pack(">IIIIIIIII", 0, 0, BLOCK, blocks, blocks - first - 1, first, BLOCK, BLOCK, 16) \
        + struct.pack(">IQ", 1, 1) + bytes(32) \
        + _fork(bitmap_blocks * BLOCK, extents[0]) + _fork(tree_blocks[0] * BLOCK, extents[1]) \
        + _fork(tree_blocks[1] * BLOCK, extents[2]) + bytes(160)
    used = {*range(first), blocks - 1}
    bitmap = bytearray(bitmap_blocks * BLOCK)
    for block in used:
        bitmap[block // 8] |= 0x80 >> block % 8
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, text in (
                (HEADER_AT, header), (size - 1024, header), (extents[0][0][0] * BLOCK, bitmap),
                (extents[1][0][0] * BLOCK, _tree(8, [], 0, 10, 2)),
                (extents[2][0][0] * BLOCK, _tree(tree_blocks[1] * BLOCK // NODE, [leaf], 2, 516, 6))):
            file.seek(offset)
            file.write(text)


class Broken(Exception):
    """What is wrong with a volume."""


def _need(condition, what):
    if not condition:
        raise Broken(what)


class Volume:
    """A volume to be checked."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        text = self.bytes[HEADER_AT:HEADER_AT + 512]
        signature, version, self.attributes = struct.unpack_from(">HHI", text)
        self.files, self.folders, size, self.blocks, self.free = struct.unpack_from(">IIIII", text, 32)
        _need((signature, version, size) == (0x482b, 4, BLOCK), "this is no volume of ours")
        self.used = {0, self.blocks - 1}
        self.forks = {number: self._take_fork(text, 112 + 80 * index)
                      for index, number in enumerate((ALLOCATION, EXTENTS, CATALOG))}
        for index in (3, 4):
            self._take_fork(text, 112 + 80 * index)

    def _take_fork(self, text, offset):
        """(size, extents); no block belongs to two."""
        size, _, count = struct.unpack_from(">QII", text, offset)
        extents = [struct.unpack_from(">II", text, offset + 16 + 8 * index) for index in range(8)]
        extents = [extent for extent in extents if extent[1]]
        _need(sum(blocks for _, blocks in extents) == count, "a fork has extents elsewhere")
        _need(size <= count * BLOCK, "a fork is larger than its blocks")
        for start, blocks in extents:
            mine = set(range(start, start + blocks))
            _need(not mine & self.used, f"blocks at {start} belong to two")
            self.used |= mine
        return size, extents

    def _content(self, fork):
        size, extents = fork
        return b"".join(self.bytes[start * BLOCK:(start + blocks) * BLOCK]
                        for start, blocks in extents)[:size]

    def _records(self, tree):
        """(key, data) of all leaves, from the first one on."""
        number = struct.unpack_from(">I", tree, 14 + 10)[0]
        previous = 0
        while number:
            node = tree[number * NODE:(number + 1) * NODE]
            following, back, kind, _, count = struct.unpack_from(">IIBBH", node)
            _need(kind == LEAF and back == previous, f"node {number} is out of place")
            offsets = struct.unpack_from(f">{count + 1}H", node, NODE - 2 * (count + 1))[::-1]
            for start, end in zip(offsets, offsets[1:]):
                length = struct.unpack_from(">H", node, start)[0]
                data = start + 2 + length + length % 2
                _need(start < data <= end <= NODE, f"node {number} has a broken record")
                yield node[start + 2:start + 2 + length], node[data:end]
            previous, number = number, following

    def check(self):
        """Raises Broken, or returns how many files and folders there are."""
        _need(self.attributes & UNMOUNTED, "it was not unmounted")
        tree = self._content(self.forks[CATALOG])
        entries, threads, valence, order = {}, {}, {}, []
        for key, data in self._records(tree):
            parent, length = struct.unpack_from(">IH", key)
            kind = struct.unpack_from(">H", data)[0]
            order.append(parent)
            if kind in (FOLDER, FILE):
                number = struct.unpack_from(">I", data, 8)[0]
                _need(number not in entries, f"{number} is there twice")
                entries[number] = (kind, parent, key[6:6 + 2 * length])
                valence[parent] = valence.get(parent, 0) + 1
                if kind == FILE:
                    self._take_fork(data, 88)
                    self._take_fork(data, 168)
                else:
                    entries[number] += (struct.unpack_from(">I", data, 4)[0],)
            else:
                back, chars = struct.unpack_from(">IH", data, 4)
                threads[parent] = (back, data[10:10 + 2 * chars])
        _need(order == sorted(order), "the catalog is out of order")
        _need(struct.unpack_from(">I", tree, 14 + 6)[0] == len(order), "the catalog has lost records")
        for number, (kind, parent, name, *count) in entries.items():
            if kind == FOLDER or number in threads:
                _need(threads.get(number) == (parent, name), f"{number} has no thread of its own")
            _need(kind == FILE or count[0] == valence.get(number, 0), f"folder {number} counts wrong")
        bitmap = self._content(self.forks[ALLOCATION])
        marked = {block for block in range(self.blocks) if bitmap[block // 8] & 0x80 >> block % 8}
        _need(marked == self.used, f"the bitmap is wrong at {sorted(marked ^ self.used)[:5]}")
        _need(self.free == self.blocks - len(marked), "the free blocks are counted wrong")
        kinds = [entry[0] for entry in entries.values()]
        _need(kinds.count(FILE) == self.files and kinds.count(FOLDER) == self.folders + 1,
              "files and folders are counted wrong")
        return self.files, self.folders
