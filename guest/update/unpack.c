// SPDX-License-Identifier: BSD-2-Clause
// Installing a Debian package without dpkg: its files are unpacked over the guest's.
//
// First, what is in their way is copied to FOLDER/backup/PACKAGE, the copy of the file in line N of
// `list` as N. The list is written last: with it the backup is whole, without it nothing has been
// unpacked. A line is "=NAME" for a file to be put back, "+NAME" for one to be removed, and "/NAME"
// for a folder. What only the package unpacked before had is to go: "-NAME" for its files, which
// are to be put back, too, and "~NAME" for its folders. Nothing of a package is run.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "update.h"

#define LIST_BYTES_MAX (4u << 20)
#define ENTRIES_MAX 10000u
#define UNPACKED_BYTES_MAX (UINT64_C(1) << 30)

struct unpack {
    const struct context *context;
    char folder[PATH_BYTES];  // of the backup
    FILE *list, *names;  // names: "\nNAME\n" of all in the package, "\n/DEVICE:INODE\n" of what is
                         // there of it: /bin/x and /usr/bin/x may be the same
    char *names_text;
    size_t names_count;
    unsigned lines;
    uint64_t bytes;  // unpacked in all
};

typedef int take_entry(struct unpack *unpack, struct tar *tar, const struct tar_entry *entry,
                       struct fault *fault);

// ---- Reading a package's files -----------------------------------------------------------------

static const struct {
    const char *suffix, *program;
} compressions[] = {{".xz", "xz"}, {".gz", "gzip"}, {".zst", "zstd"}};

static int go_through(struct unpack *unpack, int fd, take_entry *take, struct fault *fault)
{
    struct tar tar = {.fd = fd};
    struct tar_entry *entry = malloc(sizeof(*entry));
    int more = -1;

    unpack->bytes = 0;
    for (unsigned count = 0; entry && (more = tar_next(&tar, entry, fault)) > 0; count++) {
        unpack->bytes += entry->bytes;
        if (count == ENTRIES_MAX || unpack->bytes > UNPACKED_BYTES_MAX) {
            more = fault_set(fault, OUTCOME_BAD_PACKAGE, "the package unpacks to too much");
            break;
        }
        if ((more = take(unpack, &tar, entry, fault)) != 0)
            break;
    }
    if (!entry)
        fault_system(fault, OUTCOME_FAILED, "cannot unpack");
    free(entry);
    return more;
}

// Leaves data.tar.* alone in a file: decompressors take no notice of where the member ends.
static int copy_member(const char *deb, const char *path, char name[17], struct fault *fault)
{
    uint64_t left;
    char bytes[65536];
    int from = open(deb, O_RDONLY | O_CLOEXEC);
    int to = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (from < 0 || to < 0) {
        fault_system(fault, OUTCOME_FAILED, "cannot unpack '%s'", deb);
    } else if (ar_find(from, "data.tar", name, &left, fault) == 0) {
        while (left > 0) {
            ssize_t got = read(from, bytes, left < sizeof(bytes) ? (size_t)left : sizeof(bytes));
            if (got <= 0 || write_all(to, bytes, (size_t)got))
                break;
            left -= (uint64_t)got;
        }
        if (left == 0 && lseek(to, 0, SEEK_SET) == 0) {
            close(from);
            return to;
        }
        fault_set(fault, OUTCOME_BAD_PACKAGE, "cannot unpack '%s': it ends too early", deb);
    }
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return -1;
}

static int go_through_compressed(struct unpack *unpack, int fd, const char *program,
                                 take_entry *take, struct fault *fault)
{
    const char *const command[] = {program, "-dc", NULL};
    int output;
    pid_t child;

    if (!have_program(program))
        return fault_set(fault, OUTCOME_FAILED, "cannot unpack: this guest has no '%s'", program);
    if (start_program(command, fd, &output, &child))
        return fault_system(fault, OUTCOME_FAILED, "cannot run '%s'", program);
    int result = go_through(unpack, output, take, fault);
    char rest[4096];
    while (result == 0 && read(output, rest, sizeof(rest)) > 0)
        ;
    close(output);
    if (wait_program(child) != 0 && result == 0)
        return fault_set(fault, OUTCOME_BAD_PACKAGE, "cannot unpack: '%s' failed", program);
    return result;
}

static int for_each_entry(struct unpack *unpack, const char *deb, take_entry *take,
                          struct fault *fault)
{
    char path[PATH_BYTES], name[17];
    int result = -2;

    if (join(path, unpack->folder, "data", fault))
        return -1;
    int fd = copy_member(deb, path, name, fault);
    if (fd < 0)
        return -1;
    if (!strcmp(name, "data.tar"))
        result = go_through(unpack, fd, take, fault);
    for (unsigned i = 0; i < sizeof(compressions) / sizeof(compressions[0]); i++)
        if (!strcmp(name + strlen("data.tar"), compressions[i].suffix))
            result = go_through_compressed(unpack, fd, compressions[i].program, take, fault);
    close(fd);
    unlink(path);
    if (result == -2)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "cannot unpack '%s': its '%s' is packed in a way "
                         "that is not known",
                         deb, name);
    return result;
}

// ---- Backup ------------------------------------------------------------------------------------

// Copies a file with its mode, or a symbolic link.
static int copy_as_it_is(const char *from, const char *to, const struct stat *status,
                         struct fault *fault)
{
    char target[PATH_BYTES];

    if (S_ISREG(status->st_mode))
        return copy_file(from, to, status->st_mode & 07777, fault);
    ssize_t length = S_ISLNK(status->st_mode) ? readlink(from, target, sizeof(target) - 1) : -1;
    if (length < 0)
        return fault_set(fault, OUTCOME_FAILED, "cannot replace '%s': it is no file", from);
    target[length] = 0;
    if ((unlink(to) && errno != ENOENT) || symlink(target, to))
        return fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", to);
    return 0;
}

// One more line of the list, and the copy that belongs to it.
static int list_file(struct unpack *unpack, char mark, const char *name, const char *path,
                     const struct stat *status, struct fault *fault)
{
    char copy[PATH_BYTES], number[16];

    fprintf(unpack->list, "%c%s\n", mark, name);
    snprintf(number, sizeof(number), "%u", unpack->lines++);
    return join(copy, unpack->folder, number, fault) || copy_as_it_is(path, copy, status, fault)
               ? -1
               : 0;
}

static void list_name(struct unpack *unpack, char mark, const char *name)
{
    fprintf(unpack->list, "%c%s\n", mark, name);
    unpack->lines++;
}

static int back_up_entry(struct unpack *unpack, struct tar *tar, const struct tar_entry *entry,
                         struct fault *fault)
{
    char path[PATH_BYTES];
    struct stat status;
    bool folder = entry->kind == TAR_FOLDER;

    (void)tar;
    fprintf(unpack->names, "\n%s\n", entry->name);
    if (join(path, unpack->context->root, entry->name, fault))
        return -1;
    // A folder may be a link to one: /bin is.
    bool there = (folder ? stat(path, &status) : lstat(path, &status)) == 0;
    if (folder) {
        if (there && !S_ISDIR(status.st_mode))
            return fault_set(fault, OUTCOME_FAILED, "cannot replace '%s' by a folder", path);
        if (!there)
            list_name(unpack, '/', entry->name);
        return 0;
    }
    if (there) {
        fprintf(unpack->names, "\n/%jx:%jx\n", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
        return list_file(unpack, '=', entry->name, path, &status, fault);
    }
    list_name(unpack, '+', entry->name);
    return 0;
}

static bool is_in_package(const struct unpack *unpack, const char *name)
{
    char line[PATH_BYTES + 2];
    int count = snprintf(line, sizeof(line), "\n%s\n", name);

    return memmem(unpack->names_text, unpack->names_count, line, (size_t)count) != NULL;
}

static bool is_of_package(const struct unpack *unpack, const struct stat *status)
{
    char name[48];

    snprintf(name, sizeof(name), "/%jx:%jx", (uintmax_t)status->st_dev, (uintmax_t)status->st_ino);
    return is_in_package(unpack, name);
}

static int back_up_obsolete(struct unpack *unpack, struct tar *tar, const struct tar_entry *entry,
                            struct fault *fault)
{
    char path[PATH_BYTES];
    struct stat status;

    (void)tar;
    if (is_in_package(unpack, entry->name))
        return 0;
    if (join(path, unpack->context->root, entry->name, fault))
        return -1;
    if (lstat(path, &status))  // somebody has removed it already
        return 0;
    if (entry->kind == TAR_FOLDER) {
        if (S_ISDIR(status.st_mode))
            list_name(unpack, '~', entry->name);
        return 0;
    }
    if (S_ISDIR(status.st_mode) || is_of_package(unpack, &status))
        return 0;
    return list_file(unpack, '-', entry->name, path, &status, fault);
}

static int make_list(struct unpack *unpack, const char *deb, const char *before,
                     struct fault *fault)
{
    int result = for_each_entry(unpack, deb, back_up_entry, fault);

    if (result == 0 && fflush(unpack->names) == 0 && before)
        result = for_each_entry(unpack, before, back_up_obsolete, fault);
    return result;
}

static int back_up(struct unpack *unpack, const char *deb, const char *before,
                   const char *list_path, struct fault *fault)
{
    char *text = NULL;
    size_t count = 0;
    int result = -1;

    unpack->lines = 0;
    unpack->list = open_memstream(&text, &count);
    unpack->names = open_memstream(&unpack->names_text, &unpack->names_count);
    if (unpack->list && unpack->names)
        result = make_list(unpack, deb, before, fault);
    else
        fault_system(fault, OUTCOME_FAILED, "cannot make a list of the package's files");
    if (unpack->names)
        fclose(unpack->names);
    if (unpack->list)
        fclose(unpack->list);
    free(unpack->names_text);
    if (result == 0)
        result =
            sync_folder(unpack->folder, fault) || write_file(list_path, text, count, 0600, fault);
    free(text);
    return result ? -1 : 0;
}

// ---- Unpacking ---------------------------------------------------------------------------------

static int unpack_file(const char *path, struct tar *tar, unsigned mode, struct fault *fault)
{
    char beside[PATH_BYTES], bytes[65536];
    ssize_t count;
    struct fault why;
    int fd = file_begin(path, mode, beside, fault);

    if (fd < 0)
        return -1;
    bool written = true;
    while (written && (count = tar_read(tar, bytes, sizeof(bytes), &why)) != 0) {
        written = count > 0 && write_all(fd, bytes, (size_t)count) == 0;
        if (count > 0 && !written)
            fault_system(&why, OUTCOME_FAILED, "cannot write '%s'", path);
    }
    int result = file_finish(fd, written, beside, path, fault);
    if (!written)
        *fault = why;
    return result;
}

static int unpack_link(const char *path, const char *target, struct fault *fault)
{
    char beside[PATH_BYTES + 16];

    snprintf(beside, sizeof(beside), "%s.strake-new", path);
    unlink(beside);
    if (symlink(target, beside) || rename(beside, path))
        return fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", path);
    return sync_folder_of(path, fault);
}

static int unpack_entry(struct unpack *unpack, struct tar *tar, const struct tar_entry *entry,
                        struct fault *fault)
{
    char path[PATH_BYTES];

    if (join(path, unpack->context->root, entry->name, fault) || make_folders(path, fault))
        return -1;
    switch (entry->kind) {
    case TAR_FOLDER:
        return make_folder(path, fault);
    case TAR_LINK:
        return unpack_link(path, entry->target, fault);
    default:
        return unpack_file(path, tar, entry->mode, fault);
    }
}

// ---- Lines of the list -------------------------------------------------------------------------

typedef int take_line(const struct unpack *unpack, unsigned number, const char *line,
                      struct fault *fault);

// From the last: what is in a folder goes before the folder.
static int go_back_through(const struct unpack *unpack, const char *list_path, take_line *take,
                           struct fault *fault)
{
    struct buffer list;
    unsigned count = 0;
    int result = 0;

    if (read_file(list_path, LIST_BYTES_MAX, &list, fault))
        return -1;
    for (size_t i = 0; i < list.count; i++)
        if (list.bytes[i] == '\n') {
            list.bytes[i] = 0;
            count++;
        }
    const char *line = list.bytes + list.count;
    while (result == 0 && count > 0) {
        for (line--; line > list.bytes && line[-1]; line--)
            ;
        result = take(unpack, --count, line, fault);
    }
    free(list.bytes);
    return result;
}

static int remove_obsolete(const struct unpack *unpack, unsigned number, const char *line,
                           struct fault *fault)
{
    char path[PATH_BYTES];

    (void)number;
    if (*line != '-' && *line != '~')
        return 0;
    if (join(path, unpack->context->root, line + 1, fault))
        return -1;
    if (*line == '~') {
        rmdir(path);  // which others may use
        return 0;
    }
    if (unlink(path) == 0)
        return sync_folder_of(path, fault);
    // Gone with its folder, maybe, when this is done for a second time.
    return errno == ENOENT ? 0 : fault_system(fault, OUTCOME_FAILED, "cannot remove '%s'", path);
}

static int restore_line(const struct unpack *unpack, unsigned number, const char *line,
                        struct fault *fault)
{
    char path[PATH_BYTES], copy[PATH_BYTES], name[16];
    struct stat status;

    if (join(path, unpack->context->root, line + 1, fault))
        return -1;
    switch (*line) {
    case '/':
        rmdir(path);  // which others may use by now
        return 0;
    case '+':
        return unlink(path) && errno != ENOENT
                   ? fault_system(fault, OUTCOME_FAILED, "cannot remove '%s'", path)
                   : 0;
    case '~':
        return make_folders(path, fault) || make_folder(path, fault) ? -1 : 0;
    default:
        break;
    }
    snprintf(name, sizeof(name), "%u", number);
    if (join(copy, unpack->folder, name, fault) || make_folders(path, fault))
        return -1;
    if (lstat(copy, &status))
        return fault_system(fault, OUTCOME_FAILED, "cannot put '%s' back", path);
    return copy_as_it_is(copy, path, &status, fault);
}

// ---- What others call --------------------------------------------------------------------------

static int open_unpack(struct unpack *unpack, const struct context *context, const char *package,
                       char list[PATH_BYTES], struct fault *fault)
{
    char all[PATH_BYTES];

    *unpack = (struct unpack){.context = context};
    return join(all, context->folder, "backup", fault) ||
                   join(unpack->folder, all, package, fault) ||
                   join(list, unpack->folder, "list", fault)
               ? -1
               : 0;
}

int unpack_install(const struct context *context, const char *package, const char *deb,
                   const char *before, struct fault *fault)
{
    struct unpack unpack;
    char list[PATH_BYTES];

    if (open_unpack(&unpack, context, package, list, fault) || make_folders(list, fault))
        return -1;
    if (access(list, F_OK) && back_up(&unpack, deb, before, list, fault))
        return -1;
    return for_each_entry(&unpack, deb, unpack_entry, fault) ||
                   go_back_through(&unpack, list, remove_obsolete, fault)
               ? -1
               : 0;
}

int unpack_restore(const struct context *context, const char *package, struct fault *fault)
{
    struct unpack unpack;
    char list[PATH_BYTES];

    if (open_unpack(&unpack, context, package, list, fault))
        return -1;
    // Without a list nothing was unpacked.
    if (access(list, F_OK) == 0 && go_back_through(&unpack, list, restore_line, fault))
        return -1;
    return unpack_forget(context, package, fault);
}

int unpack_forget(const struct context *context, const char *package, struct fault *fault)
{
    struct unpack unpack;
    char list[PATH_BYTES];

    if (open_unpack(&unpack, context, package, list, fault))
        return -1;
    // First the list: copies without it are nothing.
    if (unlink(list) == 0 && sync_folder(unpack.folder, fault))
        return -1;
    return remove_tree(unpack.folder, fault);
}
