// SPDX-License-Identifier: BSD-2-Clause
// ledger: writes numbered records to a disk, one after the other, and says of each that it is there
// only when it was synced.
//
//   ledger DEVICE PAUSE_MS   prints "found N", how many are there, then the number of each new one
//
// Record N is the N-th block of RECORD_BYTES, and holds nothing but its number (for
// tests/system/lib/update_kills.py, which reads them from the disk's file).
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#define RECORD_BYTES 512u
#define WORDS (RECORD_BYTES / sizeof(uint64_t))

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static bool is_there(int fd, uint64_t number)
{
    uint64_t record[WORDS];

    if (pread(fd, record, sizeof(record), (off_t)((number - 1) * RECORD_BYTES)) != sizeof(record))
        return false;
    for (size_t i = 0; i < WORDS; i++)
        if (record[i] != number)
            return false;
    return true;
}

static bool add(int fd, uint64_t number)
{
    uint64_t record[WORDS];

    for (size_t i = 0; i < WORDS; i++)
        record[i] = number;
    return pwrite(fd, record, sizeof(record), (off_t)((number - 1) * RECORD_BYTES)) ==
               sizeof(record) &&
           fdatasync(fd) == 0;
}

// How many there are: none is missing before one that is there.
static uint64_t find_end(int fd, uint64_t most)
{
    uint64_t there = 0;

    while (there < most) {
        uint64_t middle = there + (most - there + 1) / 2;
        if (is_there(fd, middle))
            there = middle;
        else
            most = middle - 1;
    }
    return there;
}

int main(int argc, char **argv)
{
    uint64_t bytes;
    int fd = argc == 3 ? open(argv[1], O_RDWR) : -1;

    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes))
        return fail("ledger");
    uint64_t most = bytes / RECORD_BYTES, number = find_end(fd, most);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("found %lu\n", number);
    while (number++ < most) {
        if (!add(fd, number))
            return fail("ledger: write");
        if (printf("%lu\n", number) < 0)
            return fail("ledger: print");
        usleep(1000 * (useconds_t)atoi(argv[2]));
    }
    return 0;
}
