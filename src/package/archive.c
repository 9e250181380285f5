// SPDX-License-Identifier: BSD-2-Clause
// A package as one file or as a folder. The file is a tar of which everything but names, lengths
// and contents is fixed: POSIX.1-2017, pax, "ustar Interchange Format", plain files with mode 0644
// of user 0 from 1970, in records of 10240 bytes. A reader makes each header again from the name
// and the length in it, and compares: there is one way to write a package, so none of the formats
// and extensions that a tar may be in is ever interpreted. GNU tar makes the same file when it is
// told so (docs/package.md).
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/package.h"

#define BLOCK_BYTES 512u
#define RECORD_BYTES 10240u
#define END_BYTES 1024u  // two blocks of zeros, at least

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], check_sum[8], type, link[100],
        magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
_Static_assert(sizeof(struct tar_header) == BLOCK_BYTES, "a tar header is one block");

struct member {
    struct package_member public;
    char name[PACKAGE_NAME_MAX + 1];
    uint64_t offset;  // in the tar
};

struct package_archive {
    int fd;         // of the tar or folder
    int member_fd;  // of a folder: what was opened last
    bool is_folder;
    struct member members[PACKAGE_MEMBERS_MAX];
    size_t count;
};

// ---- Members ------------------------------------------------------------------------------------

// What a name is made of: words with at most one folder, and no word that starts with a dot.
static bool is_safe(const char *name)
{
    const char *slash = strchr(name, '/');
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "0123456789._+~-/");

    return *name && !name[length] && strchr("./-", *name) == NULL &&
           (!slash || (slash[1] && !strchr("./-", slash[1]) && !strchr(slash + 1, '/')));
}

static struct member *find(const struct package_archive *archive, const char *name)
{
    for (size_t i = 0; i < archive->count; i++)
        if (strcmp(archive->members[i].name, name) == 0)
            return (struct member *)&archive->members[i];
    return NULL;
}

static int add(struct package_archive *archive, const char *name, uint64_t bytes, uint64_t offset,
               struct error *err)
{
    struct member *member = &archive->members[archive->count];

    if (strlen(name) > PACKAGE_NAME_MAX || !is_safe(name))
        return error_set(err, -EBADMSG, "a file in it has a name that no package has");
    if (find(archive, name))
        return error_set(err, -EBADMSG, "\"%s\" is in it twice", name);
    if (archive->count == PACKAGE_MEMBERS_MAX)
        return error_set(err, -EBADMSG, "there are more than %u files in it", PACKAGE_MEMBERS_MAX);
    snprintf(member->name, sizeof(member->name), "%s", name);
    member->public = (struct package_member){.name = member->name, .bytes = bytes};
    member->offset = offset;
    archive->count++;
    return 0;
}

// ---- Tar ----------------------------------------------------------------------------------------

static void header_make(struct tar_header *header, const char *name, uint64_t bytes)
{
    char size[24];
    unsigned sum = 0;

    *header = (struct tar_header){.mode = "0000644",
                                  .uid = "0000000",
                                  .gid = "0000000",
                                  .mtime = "00000000000",
                                  .check_sum = "        ",
                                  .type = '0',
                                  .magic = "ustar",
                                  .version = "00",
                                  .major = "0000000",
                                  .minor = "0000000"};
    memcpy(header->name, name, strlen(name));
    snprintf(size, sizeof(size), "%011llo", (unsigned long long)bytes);
    memcpy(header->size, size, sizeof(header->size));
    for (size_t i = 0; i < sizeof(*header); i++)
        sum += ((const uint8_t *)header)[i];
    snprintf(header->check_sum, sizeof(header->check_sum), "%06o", sum);
}

static bool parse_size(const char *text, uint64_t *bytes)
{
    *bytes = 0;
    for (unsigned i = 0; i < 11; i++) {
        if (text[i] < '0' || text[i] > '7')
            return false;
        *bytes = *bytes << 3 | (uint64_t)(text[i] - '0');
    }
    return true;
}

static int parse_header(struct package_archive *archive, const struct tar_header *header,
                        uint64_t offset, uint64_t *bytes, struct error *err)
{
    struct tar_header made;

    if (memchr(header->name, '\0', sizeof(header->name)) && parse_size(header->size, bytes)) {
        header_make(&made, header->name, *bytes);
        if (memcmp(&made, header, sizeof(made)) == 0)
            return add(archive, header->name, *bytes, offset, err);
    }
    return error_set(err, -EBADMSG,
                     "the header at byte %llu is none of a package, in which there are plain files "
                     "only",
                     (unsigned long long)offset - BLOCK_BYTES);
}

// `count` bytes from `offset` on are zeros; less than RECORD_BYTES + END_BYTES.
static int check_zeros(int fd, uint64_t offset, uint64_t count, struct error *err)
{
    uint8_t bytes[RECORD_BYTES + END_BYTES];
    int64_t got = fd_pread_full(fd, bytes, count, offset);

    if (got < 0)
        return error_set_errno(err, (int)got, "it cannot be read");
    for (int64_t i = 0; i < got; i++)
        if (bytes[i])
            return error_set(err, -EBADMSG, "byte %llu is not zero",
                             (unsigned long long)offset + (unsigned long long)i);
    return (uint64_t)got == count ? 0 : error_set(err, -EBADMSG, "it is cut off");
}

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

// The members' contents are skipped; their lengths are less than 2^33, and the file's is known, so
// that no sum is beyond 64 bits.
static int scan_tar(struct package_archive *archive, uint64_t file_bytes, struct error *err)
{
    static const struct tar_header end;
    struct tar_header header;
    uint64_t at = 0, bytes = 0;

    for (;;) {
        if (fd_pread_full(archive->fd, &header, sizeof(header), at) != sizeof(header))
            return error_set(err, -EBADMSG, "it is cut off");
        if (memcmp(&header, &end, sizeof(end)) == 0)
            break;
        at += BLOCK_BYTES;
        int rc = parse_header(archive, &header, at, &bytes, err);
        if (rc == 0)
            rc = check_zeros(archive->fd, at + bytes, round_up(bytes, BLOCK_BYTES) - bytes, err);
        if (rc < 0)
            return rc;
        at += round_up(bytes, BLOCK_BYTES);
    }
    if (file_bytes != round_up(at + END_BYTES, RECORD_BYTES))
        return error_set(err, -EBADMSG, "it is cut off, or something follows its end");
    return check_zeros(archive->fd, at, file_bytes - at, err);
}

// ---- Folder -------------------------------------------------------------------------------------

static int open_file(const struct package_archive *archive, const char *name, uint64_t *bytes,
                     struct error *err)
{
    struct stat status;
    int fd = openat(archive->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0)
        return error_set_errno(err, -errno, "\"%s\" cannot be opened", name);
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        *bytes = (uint64_t)status.st_size;
        return fd;
    }
    close(fd);
    return error_set(err, -EBADMSG, "\"%s\" is no plain file", name);
}

static int add_file(struct package_archive *archive, const char *name, struct error *err)
{
    uint64_t bytes = 0;
    int fd = open_file(archive, name, &bytes, err);

    if (fd < 0)
        return fd;
    close(fd);
    return add(archive, name, bytes, 0, err);
}

static int add_entry(struct package_archive *archive, const char *sub, const char *entry,
                     struct error *err)
{
    char name[PACKAGE_NAME_MAX + 1];

    if (strcmp(entry, ".") == 0 || strcmp(entry, "..") == 0)
        return 0;
    if (!*sub && strcmp(entry, "guest") == 0)
        return 0;  // scanned by itself
    if (snprintf(name, sizeof(name), "%s%s%s", sub, *sub ? "/" : "", entry) >= (int)sizeof(name))
        return error_set(err, -EBADMSG, "\"%.60s...\" is no name of a file of a package", entry);
    return add_file(archive, name, err);
}

// Files of the folder, or of the folder `sub` in it, which need not be there.
static int scan_folder(struct package_archive *archive, const char *sub, struct error *err)
{
    int fd = openat(archive->fd, *sub ? sub : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int rc = 0;

    if (!folder && *sub && errno == ENOENT)
        return 0;
    if (!folder) {
        error_set_errno(err, rc = -errno, "\"%s\" in it cannot be listed", *sub ? sub : ".");
        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (rc == 0 && (entry = readdir(folder)))
        rc = add_entry(archive, sub, entry->d_name, err);
    closedir(folder);
    return rc;
}

// ---- Opening and reading ------------------------------------------------------------------------

static int scan(struct package_archive *archive, struct error *err)
{
    struct stat status;

    if (fstat(archive->fd, &status) < 0)
        return error_set_errno(err, -errno, "it cannot be looked at");
    archive->is_folder = S_ISDIR(status.st_mode);
    if (archive->is_folder) {
        int rc = scan_folder(archive, "", err);
        return rc < 0 ? rc : scan_folder(archive, "guest", err);
    }
    if (!S_ISREG(status.st_mode))
        return error_set(err, -EBADMSG, "it is neither a regular file nor a folder");
    return scan_tar(archive, (uint64_t)status.st_size, err);
}

int package_archive_open(struct package_archive **out, const char *path, struct error *err)
{
    struct package_archive *archive = calloc(1, sizeof(*archive));

    if (!archive)
        return error_set_errno(err, -ENOMEM, "cannot open the package \"%s\"", path);
    archive->member_fd = -1;
    archive->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = archive->fd < 0 ? -errno : 0;
    if (rc < 0)
        error_set_errno(err, rc, "cannot open the package \"%s\"", path);
    else if ((rc = scan(archive, err)) < 0)
        error_prefix(err, "\"%s\" is no package", path);
    if (rc < 0) {
        package_archive_close(archive);
        return rc;
    }
    *out = archive;
    return 0;
}

void package_archive_close(struct package_archive *archive)
{
    if (!archive)
        return;
    if (archive->fd >= 0)
        close(archive->fd);
    if (archive->member_fd >= 0)
        close(archive->member_fd);
    free(archive);
}

const struct package_member *package_archive_find(const struct package_archive *archive,
                                                  const char *name)
{
    const struct member *member = find(archive, name);

    return member ? &member->public : NULL;
}

int package_archive_seek(struct package_archive *archive, const char *name, int *fd,
                         struct error *err)
{
    const struct member *member = find(archive, name);
    uint64_t bytes;

    if (!member)
        return error_set(err, -ENOENT, "there is no \"%s\" in the package", name);
    *fd = archive->fd;
    if (!archive->is_folder)
        return lseek(archive->fd, (off_t)member->offset, SEEK_SET) < 0
                   ? error_set_errno(err, -errno, "\"%s\" cannot be read", name)
                   : 0;
    if (archive->member_fd >= 0)
        close(archive->member_fd);
    *fd = archive->member_fd = open_file(archive, name, &bytes, err);
    return *fd < 0 ? *fd : 0;
}

int package_archive_read(struct package_archive *archive, const char *name, size_t max_bytes,
                         void **bytes, size_t *length_bytes, struct error *err)
{
    int fd = -1, rc = package_archive_seek(archive, name, &fd, err);

    if (rc < 0)
        return rc;
    uint64_t length = find(archive, name)->public.bytes;
    if (length > max_bytes)
        return error_set(err, -E2BIG, "\"%s\" has %llu bytes, and may have %zu", name,
                         (unsigned long long)length, max_bytes);
    void *buffer = malloc(length + !length);
    int64_t got = buffer ? fd_read_full(fd, buffer, length) : -ENOMEM;
    if (got == (int64_t)length) {
        *bytes = buffer;
        *length_bytes = length;
        return 0;
    }
    free(buffer);
    if (got < 0)
        return error_set_errno(err, (int)got, "\"%s\" cannot be read", name);
    return error_set(err, -EBADMSG, "\"%s\" is cut off", name);
}

// ---- Against the manifest -----------------------------------------------------------------------

// Takes the next member; `at` counts them.
static int expect(const struct package_archive *archive, const struct package_file *file,
                  size_t *at, struct error *err)
{
    const struct member *member = find(archive, file->name);

    if (!member)
        return error_set(err, -EBADMSG, "\"%s\" is missing", file->name);
    if (file->bytes != member->public.bytes)
        return error_set(err, -EBADMSG, "\"%s\" has %llu bytes, and the manifest says %llu",
                         file->name, (unsigned long long)member->public.bytes,
                         (unsigned long long)file->bytes);
    if (!archive->is_folder && member != &archive->members[*at])
        return error_set(err, -EBADMSG, "\"%s\" is not in its place", file->name);
    ++*at;
    return 0;
}

// Manifest and signature have no size in the manifest.
static int expect_head(const struct package_archive *archive, const char *name, size_t *at,
                       struct error *err)
{
    const struct member *member = find(archive, name);
    struct package_file file = {.name = name, .bytes = member ? member->public.bytes : 0};

    return expect(archive, &file, at, err);
}

int package_archive_check(const struct package_archive *archive,
                          const struct package_manifest *manifest, struct error *err)
{
    size_t at = 0;
    int rc = expect_head(archive, PACKAGE_MANIFEST_NAME, &at, err);

    if (rc == 0 && find(archive, PACKAGE_SIGNATURE_NAME))
        rc = expect_head(archive, PACKAGE_SIGNATURE_NAME, &at, err);
    for (size_t i = 0; rc == 0 && i < manifest->payload_count; i++)
        rc = expect(archive, &manifest->payloads[i].file, &at, err);
    for (size_t i = 0; rc == 0 && i < manifest->extension_count; i++)
        rc = expect(archive, &manifest->extensions[i].file, &at, err);
    if (rc < 0) {
        error_prefix(err, "the package is not what its manifest says");
        return rc;
    }
    if (at != archive->count)
        return error_set(err, -EBADMSG,
                         "there are files in the package that its manifest does "
                         "not name");
    return 0;
}

// ---- Writing ------------------------------------------------------------------------------------

static int write_bytes(int fd, const void *bytes, size_t count, struct error *err)
{
    int64_t written = fd_write_full(fd, bytes, count);

    return written < 0 ? error_set_errno(err, (int)written, "cannot write the package") : 0;
}

static int write_zeros(int fd, uint64_t at, uint64_t unit, struct error *err)
{
    static const uint8_t zeros[RECORD_BYTES];

    return write_bytes(fd, zeros, round_up(at, unit) - at, err);
}

static int write_source(int fd, const struct package_source *source, struct error *err)
{
    struct tar_header header;
    char sha256[PACKAGE_DIGEST_CHARS];

    if (strlen(source->name) > PACKAGE_NAME_MAX || !is_safe(source->name) ||
        source->length_bytes >= PACKAGE_FILE_MAX_BYTES)
        return error_set(err, -EINVAL, "\"%s\" cannot be in a package", source->name);
    header_make(&header, source->name, source->length_bytes);
    int from_fd = source->fd, rc = write_bytes(fd, &header, sizeof(header), err);
    if (rc == 0 && !source->bytes && source->archive)
        rc = package_archive_seek(source->archive, source->name, &from_fd, err);
    if (rc < 0)
        return rc;
    rc = source->bytes ? write_bytes(fd, source->bytes, source->length_bytes, err)
                       : package_copy(from_fd, fd, source->length_bytes, sha256, err);
    return rc < 0 ? rc : write_zeros(fd, source->length_bytes, BLOCK_BYTES, err);
}

int package_archive_write(int fd, const struct package_source *sources, size_t count,
                          struct error *err)
{
    static const uint8_t end[END_BYTES];
    uint64_t at = END_BYTES;

    for (size_t i = 0; i < count; i++) {
        int rc = write_source(fd, &sources[i], err);
        if (rc < 0)
            return rc;
        at += BLOCK_BYTES + round_up(sources[i].length_bytes, BLOCK_BYTES);
    }
    int rc = write_bytes(fd, end, sizeof(end), err);
    return rc < 0 ? rc : write_zeros(fd, at, RECORD_BYTES, err);
}
