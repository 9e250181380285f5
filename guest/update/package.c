// SPDX-License-Identifier: BSD-2-Clause
// Packages: manifest.json, its signature, then the files that the manifest names; a tar (.strake)
// or a folder. It is brought into FOLDER/package as a whole or not at all, so that an update can go
// on after a reboot without the place it came from.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "update.h"

#define MANIFEST "manifest.json"
#define SIGNATURE "manifest.json.minisig"
#define FILES_MAX (MONITOR_MAX + GUEST_MAX)
#define SILENCE_S 60u  // of a server

int package_path(const struct context *context, const char *file, char path[PATH_BYTES],
                 struct fault *fault)
{
    char folder[PATH_BYTES];

    return join(folder, context->folder, "package", fault) || join(path, folder, file, fault) ? -1
                                                                                              : 0;
}

static void drop_texts(struct context *context)
{
    free(context->manifest_text.bytes);
    free(context->signature.bytes);
    context->manifest_text = context->signature = (struct buffer){NULL, 0};
}

void package_drop(struct context *context)
{
    char path[PATH_BYTES];
    struct fault ignored;

    drop_texts(context);
    if (join(path, context->folder, "package", &ignored) == 0)
        remove_tree(path, &ignored);
}

static int load_from(struct context *context, const char *folder, struct fault *fault)
{
    char path[PATH_BYTES];

    drop_texts(context);
    return join(path, folder, MANIFEST, fault) ||
                   read_file(path, MANIFEST_BYTES_MAX, &context->manifest_text, fault) ||
                   join(path, folder, SIGNATURE, fault) ||
                   read_file(path, SIGNATURE_BYTES_MAX, &context->signature, fault) ||
                   manifest_parse(&context->manifest, context->manifest_text.bytes,
                                  context->manifest_text.count, fault)
               ? -1
               : 0;
}

int package_load(struct context *context, struct fault *fault)
{
    char folder[PATH_BYTES];

    return join(folder, context->folder, "package", fault) || load_from(context, folder, fault) ? -1
                                                                                                : 0;
}

// ---- Fetching ----------------------------------------------------------------------------------

struct fetch {
    struct context *context;
    char folder[PATH_BYTES];  // where it is put together
    bool seen[FILES_MAX];     // files of the manifest that are there
    bool manifest, signature;
};

// Which file of the manifest this is, or FILES_MAX.
static unsigned file_index(const struct manifest *manifest, const struct manifest_file *file)
{
    for (unsigned i = 0; i < manifest->monitor_count; i++)
        if (&manifest->monitor[i].payload == file)
            return i;
    for (unsigned i = 0; i < manifest->guest_count; i++)
        if (&manifest->guest[i].payload == file)
            return MONITOR_MAX + i;
    return FILES_MAX;
}

// Copies what `from` holds and hashes it on the way.
static bool copy_hashed(struct tar *from, int to, char hex[SHA256_HEX], struct fault *fault)
{
    static char bytes[65536];
    struct sha256 hash;
    ssize_t count;

    sha256_init(&hash);
    while ((count = tar_read(from, bytes, sizeof(bytes), fault)) > 0) {
        sha256_update(&hash, bytes, (size_t)count);
        if (write_all(to, bytes, (size_t)count)) {
            fault_system(fault, OUTCOME_FAILED, "cannot write the package to the disk");
            return false;
        }
    }
    sha256_hex(&hash, hex);
    return count == 0;
}

// Puts one file in its place; expected: what it must be, or NULL.
static int put_file(const struct fetch *fetch, const char *name, struct tar *from,
                    const struct manifest_file *expected, struct fault *fault)
{
    char path[PATH_BYTES], beside[PATH_BYTES], hex[SHA256_HEX];

    if (expected && from->left != expected->bytes)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "the package is damaged: '%s' is not of the size that "
                         "its manifest says",
                         name);
    if (join(path, fetch->folder, name, fault) || make_folders(path, fault))
        return -1;
    int fd = file_begin(path, 0644, beside, fault);
    if (fd < 0)
        return -1;
    struct fault why;
    if (!copy_hashed(from, fd, hex, &why)) {
        file_finish(fd, false, beside, path, fault);
        *fault = why;
        return -1;
    }
    if (file_finish(fd, true, beside, path, fault))
        return -1;
    if (expected && strcasecmp(hex, expected->sha256) != 0)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "the package is damaged: '%s' is not what its manifest "
                         "says",
                         name);
    return 0;
}

// The manifest and its signature come first, so that of all others is known what they must be.
static int take_file(struct fetch *fetch, const char *name, struct tar *from, struct fault *fault)
{
    struct context *context = fetch->context;
    bool *text = !strcmp(name, MANIFEST) ? &fetch->manifest : &fetch->signature;

    if (!fetch->manifest || !fetch->signature) {
        if (strcmp(name, fetch->manifest ? SIGNATURE : MANIFEST) != 0 ||
            from->left > (fetch->manifest ? SIGNATURE_BYTES_MAX : MANIFEST_BYTES_MAX))
            return fault_set(fault, OUTCOME_BAD_PACKAGE,
                             "this is no package of Strake: it does not begin "
                             "with a manifest and its signature");
        *text = true;
        if (put_file(fetch, name, from, NULL, fault))
            return -1;
        return fetch->signature ? load_from(context, fetch->folder, fault) : 0;
    }
    const struct manifest_file *file = manifest_find(&context->manifest, name);
    if (!file)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "the package is damaged: it holds '%s', which its "
                         "manifest does not name",
                         name);
    fetch->seen[file_index(&context->manifest, file)] = true;
    return put_file(fetch, name, from, file, fault);
}

static int check_whole(const struct fetch *fetch, struct fault *fault)
{
    const struct manifest *manifest = &fetch->context->manifest;
    bool whole = true;

    if (!fetch->signature)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "this is no package of Strake: it holds no manifest");
    for (unsigned i = 0; i < manifest->monitor_count; i++)
        whole &= fetch->seen[i];
    for (unsigned i = 0; i < manifest->guest_count; i++)
        whole &= fetch->seen[MONITOR_MAX + i];
    if (!whole)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "the package is damaged: a file that its manifest "
                         "names is missing");
    return 0;
}

static int fetch_tar(struct fetch *fetch, const char *path, struct fault *fault)
{
    struct tar tar = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    struct tar_entry entry;
    int more;

    if (tar.fd < 0)
        return fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", path);
    while ((more = tar_next(&tar, &entry, fault)) > 0) {
        if (entry.kind != TAR_FILE)
            more = fault_set(fault, OUTCOME_BAD_PACKAGE,
                             "the package is damaged: '%.200s' is no file", entry.name);
        else
            more = take_file(fetch, entry.name, &tar, fault);
        if (more)
            break;
    }
    close(tar.fd);
    return more;
}

static int fetch_one(struct fetch *fetch, const char *folder, const char *name, struct fault *fault)
{
    char path[PATH_BYTES];
    struct stat status;

    if (join(path, folder, name, fault))
        return -1;
    struct tar whole = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (whole.fd < 0 || fstat(whole.fd, &status)) {
        fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", path);
        if (whole.fd >= 0)
            close(whole.fd);
        return -1;
    }
    whole.left = (uint64_t)status.st_size;
    int result = take_file(fetch, name, &whole, fault);
    close(whole.fd);
    return result;
}

static int fetch_folder(struct fetch *fetch, const char *folder, struct fault *fault)
{
    const struct manifest *manifest = &fetch->context->manifest;

    if (fetch_one(fetch, folder, MANIFEST, fault) || fetch_one(fetch, folder, SIGNATURE, fault))
        return -1;
    for (unsigned i = 0; i < manifest->monitor_count; i++)
        if (fetch_one(fetch, folder, manifest->monitor[i].payload.file, fault))
            return -1;
    for (unsigned i = 0; i < manifest->guest_count; i++)
        if (fetch_one(fetch, folder, manifest->guest[i].payload.file, fault))
            return -1;
    return 0;
}

static int fetch_url(struct fetch *fetch, const char *url, struct fault *fault)
{
    char path[PATH_BYTES], mark[PATH_BYTES];
    struct context *context = fetch->context;

    if (join(path, context->folder, "download", fault) ||
        join(mark, context->folder, "download.url", fault) ||
        http_download(url, path, context->wait_s < SILENCE_S ? context->wait_s : SILENCE_S,
                      &context->report, fault))
        return -1;
    int result = fetch_tar(fetch, path, fault) || check_whole(fetch, fault);
    // A damaged one is of no use for going on, either.
    unlink(mark);
    unlink(path);
    return result ? -1 : 0;
}

static int fetch_place(struct fetch *fetch, const char *place, struct fault *fault)
{
    struct stat status;

    if (strstr(place, "://"))
        return fetch_url(fetch, place, fault);
    if (stat(place, &status))
        return fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", place);
    return S_ISDIR(status.st_mode) ? fetch_folder(fetch, place, fault)
                                   : fetch_tar(fetch, place, fault);
}

static void name_manifest(const struct context *context, char hex[SHA256_HEX])
{
    struct sha256 hash;

    sha256_init(&hash);
    sha256_update(&hash, context->manifest_text.bytes, context->manifest_text.count);
    sha256_hex(&hash, hex);
}

// The new package takes its place, and the state is about it.
static int adopt(struct fetch *fetch, struct fault *fault)
{
    struct context *context = fetch->context;
    struct state *state = &context->state;
    char place[PATH_BYTES], hex[SHA256_HEX];

    name_manifest(context, hex);
    if (state->phase != PHASE_IDLE && strcmp(hex, state->manifest_sha256) != 0)
        return fault_set(fault, OUTCOME_BUSY,
                         "the update to %s is unfinished: `strake-update resume` goes on "
                         "with it, `strake-update withdraw` gives it up",
                         state->version);
    if (sync_folder(fetch->folder, fault) || join(place, context->folder, "package", fault) ||
        remove_tree(place, fault))
        return -1;
    if (rename(fetch->folder, place))
        return fault_system(fault, OUTCOME_FAILED, "cannot keep the package in '%s'", place);
    memcpy(state->manifest_sha256, hex, sizeof(hex));
    return sync_folder(context->folder, fault);
}

int package_fetch(struct context *context, const char *place, struct fault *fault)
{
    struct fetch fetch = {.context = context};

    if (join(fetch.folder, context->folder, "package.new", fault) ||
        remove_tree(fetch.folder, fault) || make_folder(fetch.folder, fault))
        return -1;
    int result =
        fetch_place(&fetch, place, fault) || check_whole(&fetch, fault) || adopt(&fetch, fault);
    struct fault ignored;
    remove_tree(fetch.folder, &ignored);
    return result ? -1 : 0;
}
