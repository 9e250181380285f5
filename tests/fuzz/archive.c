// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the reader of archives. The input's first byte says what the rest is: a tar as it
// is; blocks, of which those that look like headers get a check sum that is right; or changes to a
// good tar. What is taken is written again from its members: the same bytes.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "package/package.h"
#include "replay.h"

#define BLOCK_BYTES 512u
#define TAR_MAX_BYTES (1u << 20)

enum mode { MODE_RAW, MODE_SEALED, MODE_CHANGES };

// A change to the good tar: a byte of it, or its length.
struct change {
    uint8_t at[2];
    uint8_t kind, value;
};

struct tar {
    uint8_t bytes[TAR_MAX_BYTES];
    size_t count;
};

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static int new_file(void)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    promise(fd >= 0);
    return fd;
}

static void read_back(int fd, struct tar *tar)
{
    int64_t count = fd_pread_full(fd, tar->bytes, TAR_MAX_BYTES, 0);

    promise(count >= 0);
    tar->count = (size_t)count;
    close(fd);
}

static void make_good(struct tar *tar)
{
    static const struct package_source sources[] = {
        {.name = "manifest.json", .bytes = "{}\n", .length_bytes = 3},
        {.name = "manifest.json.minisig", .bytes = "signature\n", .length_bytes = 10},
        {.name = "monitor-full.zst", .bytes = "payload", .length_bytes = 7},
        {.name = "guest/a_1_riscv64.deb", .bytes = "deb", .length_bytes = 3}};
    int fd = new_file();

    promise(package_archive_write(fd, sources, BASE_COUNT_OF(sources), NULL) == 0);
    read_back(fd, tar);
}

static void seal(uint8_t *header)
{
    char text[8];
    unsigned sum = 0;

    memset(header + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        sum += header[i];
    snprintf(text, sizeof(text), "%06o", sum);
    memcpy(header + 148, text, 7);
}

static void seal_all(struct tar *tar)
{
    for (size_t at = 0; at + BLOCK_BYTES <= tar->count; at += BLOCK_BYTES)
        if (memcmp(tar->bytes + at + 257, "ustar", 5) == 0)
            seal(tar->bytes + at);
}

static void apply(struct tar *tar, const struct change *change)
{
    size_t at = (size_t)(change->at[1] << 8 | change->at[0]);

    if (change->kind % 8 == 7)
        tar->count = at;
    else if (at < tar->count)
        tar->bytes[at] = change->kind % 8 < 4 ? change->value : tar->bytes[at] ^ change->value;
}

static void make_tar(struct tar *tar, const uint8_t *input, size_t count)
{
    enum mode mode = *input++ % 4;

    count--;
    if (mode < MODE_CHANGES) {
        tar->count = count < TAR_MAX_BYTES ? count : TAR_MAX_BYTES;
        memcpy(tar->bytes, input, tar->count);
    } else {
        make_good(tar);
        for (; count >= sizeof(struct change); count -= 4, input += 4)
            apply(tar, (const struct change *)input);
    }
    if (mode != MODE_RAW)
        seal_all(tar);
}

// The names of members are in the tar, at each header.
static size_t list(const struct tar *tar, struct package_archive *archive,
                   struct package_source *sources)
{
    size_t count = 0;

    for (size_t at = 0; tar->bytes[at]; count++) {
        const struct package_member *member =
            package_archive_find(archive, (const char *)tar->bytes + at);
        promise(member && count < PACKAGE_MEMBERS_MAX && !strstr(member->name, ".."));
        sources[count] = (struct package_source){
            .name = member->name, .archive = archive, .length_bytes = member->bytes};
        at += BLOCK_BYTES + (member->bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        promise(at < tar->count);
    }
    return count;
}

static void write_again(const struct tar *tar, struct package_archive *archive)
{
    struct package_source sources[PACKAGE_MEMBERS_MAX];
    struct tar *again = malloc(sizeof(*again));
    size_t count = list(tar, archive, sources);
    int fd = new_file();

    promise(again && package_archive_write(fd, sources, count, NULL) == 0);
    read_back(fd, again);
    promise(again->count == tar->count && memcmp(again->bytes, tar->bytes, tar->count) == 0);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t count)
{
    struct package_archive *archive;
    struct error err = {0};
    char path[64];

    if (count == 0)
        return 0;
    struct tar *tar = calloc(1, sizeof(*tar));
    int fd = new_file();
    promise(tar);
    make_tar(tar, input, count);
    promise(fd_write_full(fd, tar->bytes, tar->count) == (int64_t)tar->count);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (package_archive_open(&archive, path, &err) == 0) {
        write_again(tar, archive);
        package_archive_close(archive);
    } else {
        promise(err.code == -EBADMSG && err.message[0]);
    }
    close(fd);
    free(tar);
    return 0;
}
