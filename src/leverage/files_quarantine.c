// SPDX-License-Identifier: BSD-2-Clause
// Infected files are moved out of everybody's way, with what is known of them beside them.
//
// The folders on the way to such a file belong to whom we do not trust: who may rename in them can
// have a name mean another file at any moment. So the folder is opened without following a link,
// from the path's own root; what is renamed is looked at afterwards, and put back when it is not
// the file that was scanned; and nothing is done by name that a rename has not fixed before.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "leverage/files.h"

#define PIECE_BYTES 65536u

// ---- What is known ------------------------------------------------------------------------------

static void read_process(pid_t pid, char *program, size_t capacity, uid_t *uid)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        char *effective;
        if (strncmp(line, "Name:\t", 6) == 0)
            snprintf(program, capacity, "%.*s", (int)strcspn(line + 6, "\n"), line + 6);
        if (strncmp(line, "Uid:\t", 5) != 0)
            continue;
        strtoul(line + 5, &effective, 10);  // the real one
        *uid = (uid_t)strtoul(effective, NULL, 10);
        break;
    }
    if (file)
        fclose(file);
}

void files_finding_init(struct files_finding *finding, int file, pid_t pid, const char *signature)
{
    char link[64];
    *finding = (struct files_finding){.pid = pid, .uid = (uid_t)-1, .at_ns = clock_realtime_ns()};
    snprintf(finding->signature, sizeof(finding->signature), "%s", signature);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, finding->path, sizeof(finding->path) - 1);
    finding->path[n > 0 ? n : 0] = 0;
    read_process(pid, finding->program, sizeof(finding->program), &finding->uid);
}

// Names are bytes; those that are no UTF-8 are shown in ASCII.
static json_t *text_to_json(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    char *copy = strdup(text);
    for (char *next = copy; next && *next; next++)
        if (*next & 0x80)
            *next = '?';
    string = json_string(copy ? copy : "?");
    free(copy);
    return string;
}

json_t *files_finding_to_json(const struct files_finding *finding)
{
    json_t *object = json_pack("{s:o, s:s, s:i, s:o, s:I}", "path", text_to_json(finding->path),
                               "signature", finding->signature, "pid", finding->pid, "program",
                               text_to_json(finding->program), "at_ns", (json_int_t)finding->at_ns);
    if (object && finding->uid != (uid_t)-1)
        json_object_set_new(object, "uid", json_integer(finding->uid));
    if (object && *finding->kept_as)
        json_object_set_new(object, "quarantine", json_string(finding->kept_as));
    if (object && *finding->problem)
        json_object_set_new(object, "problem", json_string(finding->problem));
    return object;
}

// ---- The folder ---------------------------------------------------------------------------------

int files_quarantine_open(const char *path, const struct files_marks *marks, struct error *err)
{
    struct stat stat;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, -errno, "cannot make the quarantine \"%s\"", path);
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fstat(folder, &stat) < 0) {
        int rc = -errno;
        if (folder >= 0)
            close(folder);
        return error_set_errno(err, rc, "cannot use the quarantine \"%s\"", path);
    }
    int rc =
        stat.st_uid != geteuid() || (stat.st_mode & 0077)
            ? error_set(err, -EPERM,
                        "the quarantine \"%s\" is not a folder that only this user may use", path)
        : files_marks_contain(marks, folder)
            ? error_set(err, -EINVAL, "the quarantine \"%s\" is below the path it is for", path)
            : 0;
    if (rc < 0)
        close(folder);
    return rc < 0 ? rc : folder;
}

static void choose_name(struct files_finding *finding)
{
    uint32_t noise = 0;
    struct tm tm;
    time_t now = (time_t)(finding->at_ns / 1000000000u);
    gmtime_r(&now, &tm);
    (void)!getrandom(&noise, sizeof(noise), GRND_NONBLOCK);
    snprintf(finding->kept_as, sizeof(finding->kept_as), "%04d%02d%02dT%02d%02d%02dZ-%08x",
             tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, noise);
}

// ---- Beside the file ----------------------------------------------------------------------------

static int write_note(int folder, int file, const struct files_finding *finding)
{
    char name[NAME_MAX + 1];
    struct stat stat;
    json_t *object = files_finding_to_json(finding);
    if (!object || fstat(file, &stat) < 0) {
        json_decref(object);
        return -ENOMEM;
    }
    json_object_set_new(object, "bytes", json_integer(stat.st_size));
    json_object_set_new(object, "mode", json_integer(stat.st_mode & 07777));
    json_object_set_new(object, "owner", json_integer(stat.st_uid));
    json_object_set_new(object, "group", json_integer(stat.st_gid));
    json_object_set_new(object, "modified", json_integer(stat.st_mtime));
    char *text = json_dumps(object, JSON_INDENT(4));
    json_decref(object);
    snprintf(name, sizeof(name), "%.*s.json", NAME_MAX - 5, finding->kept_as);
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int64_t n = fd < 0 ? -errno : text ? fd_write_full(fd, text, strlen(text)) : -ENOMEM;
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && n < 0)
        unlinkat(folder, name, 0);
    free(text);
    return n < 0 ? (int)n : 0;
}

static void drop_note(int folder, const struct files_finding *finding)
{
    char name[NAME_MAX + 1];
    snprintf(name, sizeof(name), "%.*s.json", NAME_MAX - 5, finding->kept_as);
    unlinkat(folder, name, 0);
}

// ---- The file -----------------------------------------------------------------------------------

// Opens the folder that the file is in; *name is its name in it.
static int open_parent(const struct files_marks *marks, const struct files_finding *finding,
                       const char **name)
{
    size_t length = strcmp(marks->path, "/") == 0 ? 0 : strlen(marks->path);
    if (strncmp(finding->path, marks->path, length) != 0 || finding->path[length] != '/')
        return -EXDEV;  // reached by another mount
    char below[PATH_MAX];
    snprintf(below, sizeof(below), ".%s", finding->path + length);
    char *last = strrchr(below, '/');
    *last = 0;
    *name = strrchr(finding->path, '/') + 1;
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, marks->root, below, &how, sizeof(how));
    return fd < 0 ? -errno : fd;
}

static bool is_file(int folder, const char *name, const struct stat *file)
{
    struct stat stat;
    return fstatat(folder, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && stat.st_ino == file->st_ino &&
           stat.st_dev == file->st_dev;
}

// Renames it, and back when that was another file.
static int rename_file(int from, const char *name, int to, const char *to_name,
                       const struct stat *stat)
{
    if (!is_file(from, name, stat))
        return -ESTALE;
    if (renameat2(from, name, to, to_name, RENAME_NOREPLACE) < 0)
        return -errno;
    if (is_file(to, to_name, stat))
        return 0;
    renameat2(to, to_name, from, name, RENAME_NOREPLACE);
    return -ESTALE;
}

static int copy_content(int file, int copy)
{
    uint8_t *piece = malloc(PIECE_BYTES);
    uint64_t offset = 0;
    int64_t n = piece ? 1 : -ENOMEM, written = 0;
    while (n > 0 && written >= 0) {
        n = fd_pread_full(file, piece, PIECE_BYTES, offset);
        if (n > 0)
            written = fd_write_full(copy, piece, (size_t)n);
        offset += (uint64_t)(n > 0 ? n : 0);
    }
    free(piece);
    return n < 0 ? (int)n : written < 0 ? (int)written : fsync(copy) < 0 ? -errno : 0;
}

// To another file system. The name goes when the copy is on the disk; it is renamed first, so that
// what is unlinked is what was looked at.
static int copy_file(int folder, int from, const char *name, int file, const struct stat *stat,
                     const char *kept_as)
{
    char aside[NAME_MAX + 1];
    int copy = openat(folder, kept_as, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    int rc = copy < 0 ? -errno : copy_content(file, copy);
    if (copy >= 0)
        close(copy);
    snprintf(aside, sizeof(aside), ".strake-%.200s", kept_as);
    if (rc == 0)
        rc = rename_file(from, name, from, aside, stat);
    if (rc == 0)
        unlinkat(from, aside, 0);
    else if (copy >= 0)
        unlinkat(folder, kept_as, 0);
    return rc;
}

static int move_file(int folder, const struct files_marks *marks, int file,
                     const struct files_finding *finding)
{
    const char *name;
    struct stat stat;
    if (fstat(file, &stat) < 0)
        return -errno;
    if (stat.st_nlink == 0)
        return -ENOENT;
    int from = open_parent(marks, finding, &name);
    if (from < 0)
        return from;
    int rc = rename_file(from, name, folder, finding->kept_as, &stat);
    if (rc == -EXDEV)
        rc = copy_file(folder, from, name, file, &stat, finding->kept_as);
    close(from);
    // Other names that it has are of no use any more, either.
    if (rc == 0 && (fchown(file, 0, 0) < 0 || fchmod(file, 0) < 0))
        log_line(LOG_WARN, "cannot take the rights from \"%s\"", finding->path);
    return rc;
}

void files_quarantine_move(int folder, const struct files_marks *marks, int file,
                           struct files_finding *finding)
{
    choose_name(finding);
    int rc = write_note(folder, file, finding);
    if (rc == 0) {
        rc = move_file(folder, marks, file, finding);
        if (rc < 0)
            drop_note(folder, finding);
    }
    if (rc < 0) {
        *finding->kept_as = 0;
        snprintf(finding->problem, sizeof(finding->problem), "it could not be moved: %s",
                 strerror(-rc));
    }
}
