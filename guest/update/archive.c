// SPDX-License-Identifier: BSD-2-Clause
// tar (POSIX.1-1988 ustar, with GNU's long names, which dpkg-deb writes) and ar, from descriptors.
// Archives come from outside: what an entry is called is checked here, once, for everybody.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "update.h"

#define BLOCK 512u

static int damaged(struct fault *fault, const char *why)
{
    return fault_set(fault, OUTCOME_BAD_PACKAGE, "the archive is damaged: %s", why);
}

// All bytes that are asked for, fewer at the end of the file only, or -1.
static ssize_t read_full(int fd, void *bytes, size_t count)
{
    size_t done = 0;

    while (done < count) {
        ssize_t got = read(fd, (char *)bytes + done, count - done);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

ssize_t tar_read(struct tar *tar, void *bytes, size_t count, struct fault *fault)
{
    if (count > tar->left)
        count = (size_t)tar->left;
    ssize_t got = read_full(tar->fd, bytes, count);
    if (got < 0 || (size_t)got < count)
        return damaged(fault, "it ends in the middle of a file");
    tar->left -= count;
    return got;
}

static int pass_over(struct tar *tar, struct fault *fault)
{
    char bytes[BLOCK * 16];

    tar->left += tar->padding;
    tar->padding = 0;
    while (tar->left > 0)
        if (tar_read(tar, bytes, sizeof(bytes), fault) < 0)
            return -1;
    return 0;
}

// An octal number, with spaces or NULs around; -1 for anything else.
static int64_t octal(const char *field, size_t width)
{
    int64_t value = 0;
    size_t i = 0;

    while (i < width && field[i] == ' ')
        i++;
    if (i == width || field[i] < '0' || field[i] > '7')
        return -1;
    for (; i < width && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (field[i] - '0');  // 12 digits at most
    for (; i < width; i++)
        if (field[i] != ' ' && field[i] != 0)
            return -1;
    return value;
}

// The sum of all bytes, those of the sum itself taken as spaces.
static bool sum_is_right(const char *block)
{
    int64_t sum = 8 * ' ';

    for (unsigned i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? 0 : (unsigned char)block[i];
    return octal(block + 148, 8) == sum;
}

// Takes away what means nothing ("./", doubled and last slashes). False for a name that leads out
// of the folder that it is used in, or that a list of lines could not hold.
static bool clean_name(const char *from, char name[PATH_BYTES])
{
    size_t used = 0;

    if (*from == '/' || *from == 0)
        return false;
    while (*from) {
        size_t part = strcspn(from, "/");
        if (part == 2 && !memcmp(from, "..", 2))
            return false;
        if (part > 0 && !(part == 1 && *from == '.')) {
            if (part + 2 > PATH_BYTES - used)
                return false;
            if (used > 0)
                name[used++] = '/';
            memcpy(name + used, from, part);
            used += part;
        }
        from += part + (from[part] == '/');
    }
    if (used == 0)
        name[used++] = '.';
    name[used] = 0;
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return true;
}

// Name, kind and so on of a header block; `long_name` is what a GNU entry before it gave, or "".
static int take_header(const char *block, const char *long_name, struct tar_entry *entry,
                       struct fault *fault)
{
    char name[PATH_BYTES] = "";
    bool gnu = memcmp(block + 257, "ustar  ", 7) == 0;
    int64_t mode = octal(block + 100, 8);

    if (*long_name)
        snprintf(name, sizeof(name), "%s", long_name);
    else if (block[345] && !gnu)
        snprintf(name, sizeof(name), "%.155s/%.100s", block + 345, block);
    else
        snprintf(name, sizeof(name), "%.100s", block);
    if (mode < 0 || !clean_name(name, entry->name))
        return damaged(fault, "a name in it is not allowed");
    entry->mode = (unsigned)mode & 0777;
    snprintf(entry->target, sizeof(entry->target), "%.100s", block + 157);
    switch (block[156]) {
    case '0':
    case 0:
        entry->kind = TAR_FILE;
        break;
    case '2':
        entry->kind = TAR_LINK;
        break;
    case '5':
        entry->kind = TAR_FOLDER;
        break;
    default:
        return damaged(fault, "it holds something other than files, folders and symbolic links");
    }
    if (entry->kind == TAR_FILE ? !strcmp(entry->name, ".") : entry->bytes > 0)
        return damaged(fault, "an entry of it makes no sense");
    return 0;
}

// Reads the next header block; 0 at the end of the archive. Some writers leave its last blocks out.
static int read_header(struct tar *tar, char *block, uint64_t *bytes, struct fault *fault)
{
    static const char zeroes[BLOCK];

    if (pass_over(tar, fault))
        return -1;
    ssize_t got = read_full(tar->fd, block, BLOCK);
    if (got == 0 || (got == BLOCK && !memcmp(block, zeroes, BLOCK)))
        return 0;
    int64_t size = got == BLOCK ? octal(block + 124, 12) : -1;
    if (size < 0 || memcmp(block + 257, "ustar", 5) != 0 || !sum_is_right(block))
        return damaged(fault, "it is no tar, or a header in it is broken");
    if ((uint64_t)size > FILE_BYTES_MAX)
        return damaged(fault, "a file in it is too large");
    *bytes = (uint64_t)size;
    tar->left = *bytes;
    tar->padding = (unsigned)(-*bytes % BLOCK);
    return 1;
}

int tar_next(struct tar *tar, struct tar_entry *entry, struct fault *fault)
{
    char block[BLOCK], long_name[PATH_BYTES] = "";
    int more = read_header(tar, block, &entry->bytes, fault);

    if (more == 1 && block[156] == 'L') {
        if (entry->bytes == 0 || entry->bytes >= sizeof(long_name))
            return damaged(fault, "a name in it is too long");
        if (tar_read(tar, long_name, (size_t)entry->bytes, fault) < 0)
            return -1;
        more = read_header(tar, block, &entry->bytes, fault);
        if (more == 0)
            return damaged(fault, "it ends behind a name");
    }
    if (more <= 0)
        return more;
    return take_header(block, long_name, entry, fault) ? -1 : 1;
}

// ---- ar: a magic of 8 bytes, then members: a header of 60, the bytes, one more if they are odd.
// ----

static bool decimal(const char *field, size_t width, uint64_t *value)
{
    size_t i = 0;

    for (*value = 0; i < width && field[i] >= '0' && field[i] <= '9'; i++)
        *value = *value * 10 + (unsigned)(field[i] - '0');  // 10 digits at most
    return i > 0 && (i == width || field[i] == ' ');
}

int ar_find(int fd, const char *prefix, char name[17], uint64_t *bytes, struct fault *fault)
{
    char header[60];

    if (lseek(fd, 0, SEEK_SET) || read_full(fd, header, 8) != 8 ||
        memcmp(header, "!<arch>\n", 8) != 0)
        return damaged(fault, "it is no Debian package");
    while (read_full(fd, header, sizeof(header)) == sizeof(header)) {
        if (memcmp(header + 58, "`\n", 2) != 0 || !decimal(header + 48, 10, bytes) ||
            *bytes > FILE_BYTES_MAX)
            break;
        snprintf(name, 17, "%.16s", header);
        name[strcspn(name, " /")] = 0;
        if (!strncmp(name, prefix, strlen(prefix)))
            return 0;
        if (lseek(fd, (off_t)(*bytes + (*bytes & 1)), SEEK_CUR) < 0)
            break;
    }
    return damaged(fault, "a member that every Debian package has is missing");
}
