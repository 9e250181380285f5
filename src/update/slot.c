// SPDX-License-Identifier: BSD-2-Clause
// One slot: slots/VERSION/{strake,manifest.json,manifest.json.minisig}.
//
// It is made under another name and renamed when all of it is on the disk, and renamed away before
// it is removed: a folder with a version's name is whole at any moment.
//
// Of a manifest only what the store needs is read, and what else it has is passed over: the slot
// may have been made by a later strake, whose manifests have more in them. Whether a manifest is to
// be believed was decided before it got here.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "update/internal.h"

#define NEW_SLOT "slots/.new"
#define OLD_SLOT "slots/.old"
#define COPY_BYTES (64u << 10)

static const char *const slot_files[] = {[UPDATE_SLOT_PROGRAM] = "strake",
                                         [UPDATE_SLOT_MANIFEST] = "manifest.json",
                                         [UPDATE_SLOT_SIGNATURE] = "manifest.json.minisig"};

static const size_t slot_file_max[] = {[UPDATE_SLOT_PROGRAM] = UPDATE_PROGRAM_BYTES_MAX,
                                       [UPDATE_SLOT_MANIFEST] = UPDATE_MANIFEST_BYTES_MAX,
                                       [UPDATE_SLOT_SIGNATURE] = UPDATE_SIGNATURE_BYTES_MAX};

static void slot_path(char path[PATH_BYTES], const char *version)
{
    snprintf(path, PATH_BYTES, "slots/%.*s", (int)UPDATE_VERSION_BYTES, version);
}

static void slot_file_path(char path[PATH_BYTES], const char *folder, enum update_slot_file file)
{
    snprintf(path, PATH_BYTES, "%.100s/%s", folder, slot_files[file]);
}

// ---- Digests -----------------------------------------------------------------------

bool digest_is_good(const char *digest)
{
    return strspn(digest, "0123456789abcdef") == UPDATE_DIGEST_BYTES - 1 &&
           !digest[UPDATE_DIGEST_BYTES - 1];
}

// ---- The manifest -------------------------------------------------------------------------------

static int parse_manifest(struct update_slot *slot, const void *bytes, size_t count)
{
    const char *version, *digest;
    json_int_t program_bytes, epoch;
    json_t *manifest = json_loadb(bytes, count, JSON_REJECT_DUPLICATES, NULL);
    int rc = json_unpack(manifest, "{s:s,s:I,s:{s:I,s:s}}", "version", &version, "epoch", &epoch,
                         "program", "bytes", &program_bytes, "sha256", &digest);
    if (rc < 0 || !package_version_valid(version) || !digest_is_good(digest) || epoch < 0 ||
        program_bytes <= 0 || program_bytes > UPDATE_PROGRAM_BYTES_MAX) {
        json_decref(manifest);
        return -EINVAL;
    }
    *slot =
        (struct update_slot){.program_bytes = (uint64_t)program_bytes, .epoch = (uint64_t)epoch};
    snprintf(slot->version, sizeof(slot->version), "%s", version);
    snprintf(slot->program_sha256, sizeof(slot->program_sha256), "%s", digest);
    json_decref(manifest);
    return 0;
}

// ---- Looking ------------------------------------------------------------------------------------

// Whether a failure says how the slot is, and not how the machine is just now.
static bool is_damage(int rc)
{
    return rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP || rc == -EINVAL || rc == -EPERM ||
           rc == -EFBIG || rc == -EXDEV;
}

static int look_at_program(struct update_store *store, const char *folder, uint64_t bytes)
{
    char path[PATH_BYTES];
    struct update_file_look look;
    slot_file_path(path, folder, UPDATE_SLOT_PROGRAM);
    int rc = store->files.look(store->files.opaque, path, &look);
    if (rc < 0)
        return rc;
    if (look.kind != UPDATE_FILE || look.bytes != bytes)
        return -EINVAL;
    return look.others_write ? -EPERM : 0;
}

static int read_file(struct update_store *store, const char *folder, enum update_slot_file file,
                     char **bytes, size_t *count)
{
    char path[PATH_BYTES];
    slot_file_path(path, folder, file);
    return files_read(&store->files, path, slot_file_max[file], bytes, count);
}

// 0; damage, as is_damage has it; or another negative errno.
static int look_at(struct update_store *store, const char *version, struct update_slot *slot)
{
    char folder[PATH_BYTES];
    char *bytes = NULL;
    size_t count = 0;
    slot_path(folder, version);
    int rc = package_version_valid(version) ? files_look_at_folder(&store->files, folder) : -ENOENT;
    if (rc == 0)
        rc = read_file(store, folder, UPDATE_SLOT_SIGNATURE, &bytes, &count);
    if (rc == 0) {
        free(bytes);
        rc = read_file(store, folder, UPDATE_SLOT_MANIFEST, &bytes, &count);
    }
    if (rc < 0)
        return rc;
    rc = parse_manifest(slot, bytes, count);
    free(bytes);
    if (rc == 0 && strcmp(slot->version, version) != 0)
        rc = -EINVAL;
    return rc == 0 ? look_at_program(store, folder, slot->program_bytes) : rc;
}

int slot_is_usable(struct update_store *store, const char *version)
{
    struct update_slot slot;
    if (strcmp(version, UPDATE_INSTALLED) == 0)
        return 1;
    int rc = look_at(store, version, &slot);
    return rc == 0 ? 1 : is_damage(rc) ? 0 : rc;
}

int update_store_slot(struct update_store *store, const char *version, struct update_slot *slot,
                      struct error *err)
{
    const struct update_state *state = &store->state;
    int rc = look_at(store, version, slot);
    if (rc == -ENOENT)
        return error_set(err, rc, "there is no version \"%s\" in the store", version);
    if (rc < 0)
        return error_set_errno(err, is_damage(rc) ? -ENOENT : rc,
                               "the slot of version \"%s\" cannot be used", version);
    slot->current = strcmp(state->current, version) == 0;
    slot->previous = strcmp(state->previous, version) == 0;
    slot->pending = strcmp(state->pending.version, version) == 0;
    return 0;
}

// ---- Listing ------------------------------------------------------------------------------------

struct listing {
    struct update_store *store;
    struct update_slot *slots;
    size_t count;
};

static int add_slot(void *opaque, const char *version)
{
    struct listing *listing = opaque;
    struct update_slot slot;
    int rc = update_store_slot(listing->store, version, &slot, NULL);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    struct update_slot *slots =
        reallocarray(listing->slots, listing->count + 1, sizeof(*listing->slots));
    if (!slots)
        return -ENOMEM;
    listing->slots = slots;
    slots[listing->count++] = slot;
    return 0;
}

static int by_version(const void *one, const void *other)
{
    return package_version_compare(((const struct update_slot *)one)->version,
                                   ((const struct update_slot *)other)->version);
}

int update_store_slots(struct update_store *store, struct update_slot **slots, size_t *count,
                       struct error *err)
{
    struct listing listing = {.store = store};
    int rc = store->files.list(store->files.opaque, "slots", add_slot, &listing);
    if (rc < 0) {
        free(listing.slots);
        return error_set_errno(err, rc, "cannot list the slots of \"%s\"", store->folder);
    }
    if (listing.count)
        qsort(listing.slots, listing.count, sizeof(*listing.slots), by_version);
    *slots = listing.slots;
    *count = listing.count;
    return 0;
}

int update_store_read(struct update_store *store, const char *version, enum update_slot_file file,
                      char **bytes, size_t *count, struct error *err)
{
    char folder[PATH_BYTES];
    slot_path(folder, version);
    int rc =
        package_version_valid(version) ? read_file(store, folder, file, bytes, count) : -ENOENT;
    return rc < 0 ? error_set_errno(err, rc, "cannot read \"%s/%s/%s\"", store->folder, folder,
                                    slot_files[file])
                  : 0;
}

// ---- Copying, with the digest compared ----------------------------------------------------------

struct end {
    const struct update_files *files;  // NULL: nowhere
    int fd;
};

static int copy_block(struct end from, struct end to, uint8_t *block, size_t count, uint64_t at)
{
    int64_t n = from.files->read(from.files->opaque, from.fd, block, count, at);
    if (n != (int64_t)count)
        return n < 0 ? (int)n : -EBADMSG;
    if (!to.files)
        return 0;
    n = to.files->write(to.files->opaque, to.fd, block, count, at);
    return n < 0 ? (int)n : n != (int64_t)count ? -ENOSPC : 0;
}

// What lies behind the program's bytes in `from` is not looked at. -EBADMSG: other bytes.
static int copy_program(struct end from, struct end to, const struct update_slot *slot)
{
    crypto_hash_sha256_state hash;
    uint8_t digest[crypto_hash_sha256_BYTES];
    char text[UPDATE_DIGEST_BYTES];
    uint8_t *block = malloc(COPY_BYTES);
    int rc = block ? 0 : -ENOMEM;
    crypto_hash_sha256_init(&hash);
    for (uint64_t at = 0; rc == 0 && at < slot->program_bytes; at += COPY_BYTES) {
        uint64_t left = slot->program_bytes - at;
        size_t count = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        rc = copy_block(from, to, block, count, at);
        if (rc == 0)
            crypto_hash_sha256_update(&hash, block, count);
    }
    free(block);
    crypto_hash_sha256_final(&hash, digest);
    sodium_bin2hex(text, sizeof(text), digest, sizeof(digest));
    return rc == 0 && strcmp(text, slot->program_sha256) != 0 ? -EBADMSG : rc;
}

static int seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0
               ? -errno
               : 0;
}

// Into a memfd, which is returned.
static int copy_to_memfd(struct end from, const struct update_slot *slot)
{
    int memory = fd_program_create();
    if (memory < 0)
        return memory;
    int rc = copy_program(from, (struct end){&files_plain, memory}, slot);
    if (rc == 0)
        rc = seal(memory);
    if (rc == 0)
        return memory;
    close(memory);
    return rc;
}

static int open_slot_program(struct update_store *store, const char *version, char path[PATH_BYTES])
{
    char folder[PATH_BYTES];
    slot_path(folder, version);
    slot_file_path(path, folder, UPDATE_SLOT_PROGRAM);
    return store->files.open(store->files.opaque, path, O_RDONLY, 0);
}

int update_store_open_program(struct update_store *store, const char *version, int *fd,
                              struct error *err)
{
    const struct update_files *files = &store->files;
    char path[PATH_BYTES];
    struct update_slot slot;
    int rc = update_store_slot(store, version, &slot, err);
    if (rc < 0)
        return rc;
    int from = open_slot_program(store, version, path);
    if (from < 0)
        return error_set_errno(err, from, "cannot open \"%s/%s\"", store->folder, path);
    rc = copy_to_memfd((struct end){files, from}, &slot);
    files->close(files->opaque, from);
    if (rc == -EBADMSG)
        return error_set(err, rc, "\"%s/%s\" is not the program that its manifest is about",
                         store->folder, path);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot copy \"%s/%s\" into memory", store->folder, path);
    *fd = rc;
    return 0;
}

// ---- Making and removing ------------------------------------------------------------------------

static int write_program(struct update_store *store, int program_fd, const struct update_slot *slot)
{
    const struct update_files *files = &store->files;
    char path[PATH_BYTES];
    slot_file_path(path, NEW_SLOT, UPDATE_SLOT_PROGRAM);
    int fd = files->open(files->opaque, path, O_WRONLY | O_CREAT | O_EXCL, 0700);
    if (fd < 0)
        return fd;
    int rc = copy_program((struct end){&files_plain, program_fd}, (struct end){files, fd}, slot);
    if (rc == 0)
        rc = files->sync(files->opaque, fd);
    files->close(files->opaque, fd);
    return rc;
}

static int write_file(struct update_store *store, enum update_slot_file file, const void *bytes,
                      size_t count)
{
    char path[PATH_BYTES];
    slot_file_path(path, NEW_SLOT, file);
    return files_write(&store->files, path, bytes, count, 0600);
}

struct parts {
    int program_fd;
    const void *manifest, *signature;
    size_t manifest_bytes, signature_bytes;
};

static int write_slot(struct update_store *store, const struct parts *parts,
                      const struct update_slot *slot)
{
    const struct update_files *files = &store->files;
    int rc = files_remove(files, NEW_SLOT);
    if (rc == 0)
        rc = files->make_folder(files->opaque, NEW_SLOT);
    if (rc == 0)
        rc = write_program(store, parts->program_fd, slot);
    if (rc == 0)
        rc = write_file(store, UPDATE_SLOT_MANIFEST, parts->manifest, parts->manifest_bytes);
    if (rc == 0)
        rc = write_file(store, UPDATE_SLOT_SIGNATURE, parts->signature, parts->signature_bytes);
    return rc == 0 ? files->sync_folder(files->opaque, NEW_SLOT) : rc;
}

int slot_remove(struct update_store *store, const char *version)
{
    const struct update_files *files = &store->files;
    char path[PATH_BYTES];
    slot_path(path, version);
    int rc = files_remove(files, OLD_SLOT);
    if (rc == 0)
        rc = files->rename(files->opaque, path, OLD_SLOT);
    if (rc == 0)
        rc = files_sync_parent(files, path);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return files_remove(files, OLD_SLOT);
}

static int place_slot(struct update_store *store, const char *version)
{
    const struct update_files *files = &store->files;
    char path[PATH_BYTES];
    slot_path(path, version);
    int rc = slot_remove(store, version);
    if (rc == 0)
        rc = files->rename(files->opaque, NEW_SLOT, path);
    return rc == 0 ? files_sync_parent(files, path) : rc;
}

// 1: its program's bytes are those of its manifest; 0: they are others.
static int slot_is_intact(struct update_store *store, const struct update_slot *slot)
{
    const struct update_files *files = &store->files;
    char path[PATH_BYTES];
    int fd = open_slot_program(store, slot->version, path);
    if (fd < 0)
        return fd;
    int rc = copy_program((struct end){files, fd}, (struct end){NULL, -1}, slot);
    files->close(files->opaque, fd);
    return rc == 0 ? 1 : rc == -EBADMSG ? 0 : rc;
}

// 1: the slot is there, with this manifest; 0: it is to be made, also in place of one whose program
// has changed on the disk; -EEXIST: it may not be.
static int compare_slot(struct update_store *store, const struct parts *parts, const char *version)
{
    struct update_slot there;
    char *manifest = NULL;
    size_t count = 0;
    int rc = update_store_slot(store, version, &there, NULL);
    if (rc == 0)
        rc = update_store_read(store, version, UPDATE_SLOT_MANIFEST, &manifest, &count, NULL);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    bool same = count == parts->manifest_bytes && memcmp(manifest, parts->manifest, count) == 0;
    free(manifest);
    bool needed =
        there.current || there.previous || strcmp(store->state.pending.before, version) == 0;
    return same ? slot_is_intact(store, &there) : needed ? -EEXIST : 0;
}

static int install(struct update_store *store, const struct parts *parts, struct update_slot *slot)
{
    if (parts->manifest_bytes > UPDATE_MANIFEST_BYTES_MAX ||
        parts->signature_bytes > UPDATE_SIGNATURE_BYTES_MAX)
        return -EFBIG;
    int rc = parse_manifest(slot, parts->manifest, parts->manifest_bytes);
    if (rc == 0)
        rc = compare_slot(store, parts, slot->version);
    if (rc != 0)
        return rc;
    rc = write_slot(store, parts, slot);
    if (rc == 0)
        rc = place_slot(store, slot->version);
    if (rc < 0)
        (void)!files_remove(&store->files, NEW_SLOT);
    return rc;
}

int update_store_install(struct update_store *store, int program_fd, const void *manifest,
                         size_t manifest_bytes, const void *signature, size_t signature_bytes,
                         struct error *err)
{
    const struct parts parts = {.program_fd = program_fd,
                                .manifest = manifest,
                                .manifest_bytes = manifest_bytes,
                                .signature = signature,
                                .signature_bytes = signature_bytes};
    struct update_slot slot = {0};
    int rc = install(store, &parts, &slot);
    if (rc == 0)
        audit_note(store,
                   json_pack("{s:s,s:s,s:s,s:I}", "event", "installed", "version", slot.version,
                             "sha256", slot.program_sha256, "epoch", (json_int_t)slot.epoch));
    if (rc >= 0)
        return 0;
    if (rc == -EINVAL && !*slot.version)
        return error_set(err, rc, "cannot make a slot: the manifest has no version or no program");
    if (rc == -EBADMSG)
        return error_set(err, rc, "cannot make a slot of version \"%s\": this is not its program",
                         slot.version);
    if (rc == -EEXIST)
        return error_set(err, rc,
                         "cannot make a slot of version \"%s\": another build of it is in use",
                         slot.version);
    return error_set_errno(err, rc, "cannot make a slot of version \"%s\"", slot.version);
}

int slots_tidy(struct update_store *store)
{
    int rc = files_remove(&store->files, NEW_SLOT);
    return rc == 0 ? files_remove(&store->files, OLD_SLOT) : rc;
}
