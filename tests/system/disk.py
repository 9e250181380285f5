#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A disk is written, synced and read back in the guest; the host finds the same bytes in the file.
A read-only disk refuses writes and stays as it was; discarded blocks leave the host's file."""

import hashlib
import os

from lib.harness import TIMEOUT, UNDER_QEMU, check, main, need
import vm

MIB = 1 << 20

# vda: raw sectors; vdb: a file system; vdc: read-only.
SCRIPT = """
set -e
yes 'written by the guest' | head -c 4194304 >/tmp/data
dd if=/tmp/data of=/dev/vda bs=64k seek=16 conv=fsync 2>/dev/null
sync
echo 3 >/proc/sys/vm/drop_caches
echo "raw $(dd if=/dev/vda bs=64k skip=16 count=64 2>/dev/null | sha256sum)"

mke2fs /dev/vdb >/dev/null
mount -t ext4 /dev/vdb /mnt
cp /tmp/data /mnt/data
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 -o ro /dev/vdb /mnt
echo "file $(sha256sum </mnt/data)"
umount /mnt

echo "read-only $(cat /sys/block/vdc/ro) $(head -c 20 /dev/vdc)"
if dd if=/tmp/data of=/dev/vdc bs=512 count=1 conv=fsync 2>/dev/null; then
    echo "the read-only disk was written"
fi
echo "past the end: $(dd if=/dev/vdc bs=1M skip=1 2>/dev/null | wc -c)"
echo "sectors $(cat /sys/block/vda/size) $(cat /sys/block/vdc/size)"
blkdiscard -o 8388608 -l 4194304 /dev/vda && echo "discarded"
"""


def disk(test):
    need(vm.KERNEL, vm.INITRAMFS)
    paths = [test.folder / name for name in ("raw", "file", "read-only")]
    for path in paths[:2]:
        path.touch()
        os.truncate(path, 16 * MIB)
    paths[0].write_bytes(os.urandom(16 * MIB))
    before = paths[0].read_bytes()
    paths[2].write_bytes(b"written by the host!" * (MIB // 20) + bytes(MIB % 20))
    read_only = paths[2].read_bytes()
    data = (b"written by the guest\n" * (4 * MIB // 21 + 1))[:4 * MIB]
    digest = hashlib.sha256(data).hexdigest()

    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd, disks=[paths[0], paths[1], f"{paths[2]},ro"]))
    guest.expect("sectors [^\n]*\n", TIMEOUT)
    after_sync = paths[0].read_bytes()
    check(after_sync[MIB:5 * MIB] == data, "after sync, the host's file has what the guest wrote")
    check(after_sync[:MIB] == before[:MIB] and after_sync[12 * MIB:] == before[12 * MIB:],
          "and nothing beside it changed")
    test.finish(guest)

    text = guest.text()
    check(f"raw {digest}" in text, "raw sectors read back as written")
    check(f"file {digest}" in text, "a file on ext4 reads back as written")
    check("read-only 1 written by the host!" in text, "the guest reads a read-only disk")
    check("the read-only disk was written" not in text, "a read-only disk refuses a write")
    check(paths[2].read_bytes() == read_only, "the read-only disk's file is as it was")
    check("past the end: 0\n" in text, "a disk ends where its file ends")
    check(f"sectors {16 * MIB // 512} {MIB // 512}" in text, "disks have the sizes of their files")
    if not UNDER_QEMU:  # whose default ignores discard
        check("discarded" in text, "the guest discards blocks")
        check(paths[0].read_bytes()[8 * MIB:12 * MIB] == bytes(4 * MIB),
              "discarded blocks read as zeros in the host's file")
        check(paths[0].stat().st_blocks * 512 <= 12 * MIB + 65536,
              "and take no space in it any more")


main(disk)
