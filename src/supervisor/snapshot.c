// SPDX-License-Identifier: BSD-2-Clause
// Snapshots: a folder with `manifest.json` (which partition, of what, when), `state`
// (docs/state.md) and `ram.zst`. It appears under its name complete and on the disk, or not at all.
//
// Unpacked RAM is a memfd, sealed against writing, that all partitions restored from the snapshot
// map and share until they write (memory/share.c). It is unpacked once, by a thread, and kept as
// long as somebody wants it.
//
// Threads: everything belongs to the loop's thread, but for what `struct unpack` says.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "supervisor/supervisor.h"

#define MANIFEST_FORMAT 1
#define HOLE_BYTES 4096u

static const char *const file_names[] = {"manifest.json", "state", "ram.zst"};
enum { FILE_MANIFEST, FILE_STATE, FILE_RAM, FILES };

// ---- Taking -------------------------------------------------------------------------------------

struct taking {
    char *path, *temporary;
    int folder_fd;
    json_t *partition;  // definition
    link_done *done;
    void *opaque;
};

static void taking_destroy(struct taking *taking, bool remove)
{
    for (int i = 0; remove && taking->folder_fd >= 0 && i < FILES; i++)
        unlinkat(taking->folder_fd, file_names[i], 0);
    if (taking->folder_fd >= 0)
        close(taking->folder_fd);
    if (remove && taking->temporary)
        rmdir(taking->temporary);
    json_decref(taking->partition);
    free(taking->path);
    free(taking->temporary);
    free(taking);
}

static int create_file(const struct taking *taking, int file)
{
    int fd =
        openat(taking->folder_fd, file_names[file], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd;
}

static int write_manifest(const struct taking *taking, const json_t *result)
{
    json_t *manifest =
        json_pack("{s:i, s:s, s:I, s:O}", "format", MANIFEST_FORMAT, "strake", STRAKE_VERSION,
                  "created", (json_int_t)time(NULL), "partition", taking->partition);
    int fd = manifest ? create_file(taking, FILE_MANIFEST) : -ENOMEM;
    int rc = fd < 0 ? fd : 0;

    if (rc == 0 && json_object_update_missing(manifest, (json_t *)result) < 0)
        rc = -ENOMEM;
    if (rc == 0 && (json_dumpfd(manifest, fd, JSON_INDENT(2)) < 0 || fsync(fd) < 0))
        rc = errno ? -errno : -EIO;
    if (fd >= 0)
        close(fd);
    json_decref(manifest);
    return rc;
}

// The folder gets its name when all that is in it is on the disk.
static int publish(const struct taking *taking)
{
    char *parent = strdup(taking->path), *slash = parent ? strrchr(parent, '/') : NULL;
    int rc = parent ? 0 : -ENOMEM, fd = -1;

    if (slash)
        slash[slash == parent] = 0;
    if (rc == 0 && (fsync(taking->folder_fd) < 0 || renameat2(AT_FDCWD, taking->temporary, AT_FDCWD,
                                                              taking->path, RENAME_NOREPLACE) < 0))
        rc = -errno;
    if (rc == 0 && (fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0) {
        rc = fsync(fd) < 0 ? -errno : 0;
        close(fd);
    }
    free(parent);
    return rc;
}

static void taken(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct taking *taking = opaque;
    struct error failure;
    int rc = 0;

    if (err) {
        failure = *err;
        rc = err->code;
        error_prefix(&failure, "cannot take snapshot \"%s\"", taking->path);
    } else if ((rc = write_manifest(taking, result)) < 0 || (rc = publish(taking)) < 0) {
        error_set_errno(&failure, rc, "cannot take snapshot \"%s\"", taking->path);
    }
    taking->done(taking->opaque, rc < 0 ? NULL : result, rc < 0 ? NULL : fds,
                 rc < 0 ? &failure : NULL);
    taking_destroy(taking, rc < 0);
}

static int taking_create(struct taking **out, const struct definition *definition, const char *path)
{
    struct taking *taking = calloc(1, sizeof(*taking));
    struct stat status;

    if (!taking)
        return -ENOMEM;
    *out = taking;
    taking->folder_fd = -1;
    taking->path = strdup(path);
    taking->partition = definition_to_json(definition);
    size_t length = taking->path ? strlen(taking->path) : 0;
    while (length > 1 && taking->path[length - 1] == '/')
        taking->path[--length] = 0;
    char *temporary = NULL;
    if (!taking->path || !taking->partition || asprintf(&temporary, "%s.XXXXXX", taking->path) < 0)
        return -ENOMEM;
    if (lstat(taking->path, &status) == 0 || !mkdtemp(temporary)) {
        int rc = lstat(taking->path, &status) == 0 ? -EEXIST : -errno;
        free(temporary);
        return rc;
    }
    taking->temporary = temporary;
    taking->folder_fd = open(temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return taking->folder_fd < 0 ? -errno : 0;
}

int snapshot_take(struct process *process, const struct definition *definition, const char *path,
                  link_done *done, void *opaque, struct error *err)
{
    struct descriptors fds = {0};
    struct taking *taking = NULL;
    int rc = taking_create(&taking, definition, path);

    if (rc == 0)
        rc = descriptors_add(&fds, "state", create_file(taking, FILE_STATE));
    if (rc == 0)
        rc = descriptors_add(&fds, "ram", create_file(taking, FILE_RAM));
    if (rc < 0) {
        error_set_errno(err, rc, "cannot take snapshot \"%s\"", path);
        if (taking)
            taking_destroy(taking, true);
    } else {
        taking->done = done;
        taking->opaque = opaque;
        process_request(process, "snapshot", NULL, &fds, taken, taking);
    }
    descriptors_close(&fds);
    return rc;
}

// ---- Unpacking ----------------------------------------------------------------------------------

// RAM that is unpacked, or being unpacked.
struct snapshot_ram {
    struct list link;  // in snapshots.rams
    struct snapshots *snapshots;
    unsigned users;
    struct timespec changed;  // with the next two: which file
    dev_t device;
    ino_t inode;

    int fd;         // the memfd
    int packed_fd;  // thread, until it is done
    uint64_t ram_bytes;
    int rc;  // of the thread
    pthread_t thread;
    struct loop_wake *ready;
    bool is_ready;
    struct list waiting;  // snapshots
};

struct snapshots {
    struct loop *loop;
    struct list rams;
};

static bool is_zero(const uint8_t *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

// Writes what is not zeros.
static int put_ram(int fd, const uint8_t *bytes, size_t count, uint64_t offset)
{
    for (size_t done = 0, step; done < count; done += step) {
        step = HOLE_BYTES - (offset + done) % HOLE_BYTES;
        if (step > count - done)
            step = count - done;
        if (is_zero(bytes + done, step))
            continue;
        ssize_t put = pwrite(fd, bytes + done, step, (off_t)(offset + done));
        if (put != (ssize_t)step)
            return put < 0 ? -errno : -ENOSPC;
    }
    return 0;
}

static int unpack_into(struct snapshot_ram *ram, ZSTD_DCtx *zstd, uint8_t *in_bytes,
                       uint8_t *out_bytes)
{
    uint64_t offset = 0;
    size_t left = 1;
    int64_t got;
    int rc = 0;

    while (rc == 0 && (got = fd_read_full(ram->packed_fd, in_bytes, ZSTD_DStreamInSize())) > 0) {
        ZSTD_inBuffer in = {.src = in_bytes, .size = (size_t)got};
        while (rc == 0 && in.pos < in.size) {
            ZSTD_outBuffer out = {.dst = out_bytes, .size = ZSTD_DStreamOutSize()};
            left = ZSTD_decompressStream(zstd, &out, &in);
            if (ZSTD_isError(left) || out.pos > ram->ram_bytes - offset)
                return -EBADMSG;
            rc = put_ram(ram->fd, out_bytes, out.pos, offset);
            offset += out.pos;
        }
    }
    if (rc == 0 && got < 0)
        rc = (int)got;
    return rc < 0 ? rc : left != 0 || offset != ram->ram_bytes ? -EBADMSG : 0;
}

static int unpack(struct snapshot_ram *ram)
{
    const unsigned seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    ZSTD_DCtx *zstd = ZSTD_createDCtx();
    uint8_t *in = malloc(ZSTD_DStreamInSize()), *out = malloc(ZSTD_DStreamOutSize());
    int rc = zstd && in && out ? 0 : -ENOMEM;

    if (rc == 0 && ftruncate(ram->fd, (off_t)ram->ram_bytes) < 0)
        rc = -errno;
    if (rc == 0)
        rc = unpack_into(ram, zstd, in, out);
    if (rc == 0 && fcntl(ram->fd, F_ADD_SEALS, seals) < 0)
        rc = -errno;
    ZSTD_freeDCtx(zstd);
    free(in);
    free(out);
    return rc;
}

static void *unpack_thread(void *opaque)
{
    struct snapshot_ram *ram = opaque;

    ram->rc = unpack(ram);
    loop_wake_signal(ram->ready);
    return NULL;
}

static void ram_destroy(struct snapshot_ram *ram)
{
    if (!ram->is_ready && ram->ready)
        pthread_join(ram->thread, NULL);
    list_remove(&ram->link);
    loop_wake_close(ram->ready);
    if (ram->fd >= 0)
        close(ram->fd);
    if (ram->packed_fd >= 0)
        close(ram->packed_fd);
    free(ram);
}

static void ram_put(struct snapshot_ram *ram)
{
    if (ram && --ram->users == 0)
        ram_destroy(ram);
}

static void on_ready(void *opaque);

// Takes `packed_fd` over, always.
static int ram_create(struct snapshot_ram **out, struct snapshots *snapshots, int packed_fd,
                      const struct stat *status, uint64_t ram_bytes)
{
    struct snapshot_ram *ram = calloc(1, sizeof(*ram));
    int rc;

    if (!ram) {
        close(packed_fd);
        return -ENOMEM;
    }
    *ram = (struct snapshot_ram){.snapshots = snapshots,
                                 .users = 1,
                                 .changed = status->st_mtim,
                                 .device = status->st_dev,
                                 .inode = status->st_ino,
                                 .packed_fd = packed_fd,
                                 .ram_bytes = ram_bytes};
    list_init(&ram->waiting);
    list_append(&snapshots->rams, &ram->link);
    ram->fd = memfd_create("strake-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    rc = ram->fd < 0 ? -errno : loop_wake_create(snapshots->loop, on_ready, ram, &ram->ready);
    if (rc == 0 && (rc = -pthread_create(&ram->thread, NULL, unpack_thread, ram)) < 0)
        ram->is_ready = true;  // there is no thread to wait for
    if (rc < 0) {
        ram_put(ram);
        return rc;
    }
    *out = ram;
    return 0;
}

// The RAM in the file, which may be unpacked already. Takes `packed_fd` over, always.
static int ram_get(struct snapshot_ram **out, struct snapshots *snapshots, int packed_fd,
                   uint64_t ram_bytes)
{
    struct stat status;

    if (fstat(packed_fd, &status) < 0) {
        int rc = -errno;
        close(packed_fd);
        return rc;
    }
    LIST_FOR_EACH(&snapshots->rams, node)
    {
        struct snapshot_ram *ram = BASE_CONTAINER_OF(node, struct snapshot_ram, link);
        if (ram->device != status.st_dev || ram->inode != status.st_ino ||
            ram->changed.tv_sec != status.st_mtim.tv_sec ||
            ram->changed.tv_nsec != status.st_mtim.tv_nsec || ram->ram_bytes != ram_bytes ||
            ram->rc < 0)
            continue;
        close(packed_fd);
        ram->users++;
        *out = ram;
        return 0;
    }
    return ram_create(out, snapshots, packed_fd, &status, ram_bytes);
}

// ---- Opening ------------------------------------------------------------------------------------

struct snapshot {
    struct list link;  // in snapshot_ram.waiting
    char *path;
    struct definition definition;
    bool has_definition;
    int manifest_fd, state_fd;
    struct snapshot_ram *ram;
    snapshot_opened *opened;
    void *opaque;
};

void snapshot_close(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    list_remove(&snapshot->link);
    ram_put(snapshot->ram);
    if (snapshot->manifest_fd >= 0)
        close(snapshot->manifest_fd);
    if (snapshot->state_fd >= 0)
        close(snapshot->state_fd);
    if (snapshot->has_definition)
        definition_fini(&snapshot->definition);
    free(snapshot->path);
    free(snapshot);
}

static int open_in(const char *folder, int file)
{
    char *path;

    if (asprintf(&path, "%s/%s", folder, file_names[file]) < 0)
        return -ENOMEM;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not stop us
    int rc = fd < 0 ? -errno : fd;
    free(path);
    return rc;
}

static int read_manifest(struct snapshot *snapshot, uint64_t *ram_bytes, struct error *err)
{
    json_t *manifest = manifest_read(snapshot->manifest_fd, err), *partition;
    json_error_t why;
    json_int_t ram = 0;
    int format = 0, rc;

    if (!manifest)
        return err->code;
    if (json_unpack_ex(manifest, &why, 0, "{s:i, s:I, s:o, s:[*]}", "format", &format, "ram_bytes",
                       &ram, "partition", &partition, "disks") < 0)
        rc = error_set(err, -EINVAL, "its manifest is not understood: %s", why.text);
    else if (format != MANIFEST_FORMAT)
        rc = error_set(err, -EINVAL, "it has format %d, and this version knows %d", format,
                       MANIFEST_FORMAT);
    else
        rc = definition_from_json(&snapshot->definition, partition, err);
    json_decref(manifest);
    if (rc < 0)
        return rc;
    snapshot->has_definition = true;
    *ram_bytes = snapshot->definition.memory_bytes;
    if (ram < 0 || (uint64_t)ram != *ram_bytes)
        return error_set(err, -EINVAL, "its RAM is not as large as its partition's");
    return 0;
}

static int open_files(struct snapshot *snapshot, struct snapshots *snapshots, struct error *err)
{
    uint64_t ram_bytes = 0;
    int packed_fd, rc;

    snapshot->manifest_fd = open_in(snapshot->path, FILE_MANIFEST);
    snapshot->state_fd = open_in(snapshot->path, FILE_STATE);
    if (snapshot->manifest_fd < 0 || snapshot->state_fd < 0)
        return error_set_errno(
            err, snapshot->manifest_fd < 0 ? snapshot->manifest_fd : snapshot->state_fd,
            "it has no readable %s",
            file_names[snapshot->manifest_fd < 0 ? FILE_MANIFEST : FILE_STATE]);
    rc = read_manifest(snapshot, &ram_bytes, err);
    if (rc < 0)
        return rc;
    packed_fd = open_in(snapshot->path, FILE_RAM);
    rc = packed_fd < 0 ? packed_fd : ram_get(&snapshot->ram, snapshots, packed_fd, ram_bytes);
    return rc < 0 ? error_set_errno(err, rc, "cannot read its RAM") : 0;
}

// Tells the snapshot's owner, who may close it.
static void tell(struct snapshot *snapshot, int rc)
{
    struct error err;

    list_remove(&snapshot->link);
    if (rc < 0)
        error_set_errno(&err, rc, "cannot restore \"%s\": its RAM is damaged or cannot be unpacked",
                        snapshot->path);
    snapshot->opened(snapshot->opaque, snapshot, rc < 0 ? &err : NULL);
}

static void on_ready(void *opaque)
{
    struct snapshot_ram *ram = opaque;

    if (!ram->is_ready) {
        pthread_join(ram->thread, NULL);
        ram->is_ready = true;
    }
    ram->users++;  // while its snapshots come and go
    while (!list_empty(&ram->waiting))
        tell(BASE_CONTAINER_OF(ram->waiting.next, struct snapshot, link), ram->rc);
    ram_put(ram);
}

int snapshot_open(struct snapshot **out, struct snapshots *snapshots, const char *path,
                  snapshot_opened *opened, void *opaque, struct error *err)
{
    struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
    int rc;

    if (!snapshot)
        return error_set_errno(err, -ENOMEM, "cannot restore \"%s\"", path);
    *snapshot = (struct snapshot){.path = strdup(path),
                                  .manifest_fd = -1,
                                  .state_fd = -1,
                                  .opened = opened,
                                  .opaque = opaque};
    list_init(&snapshot->link);
    rc = snapshot->path ? open_files(snapshot, snapshots, err)
                        : error_set_errno(err, -ENOMEM, "no memory");
    if (rc < 0 || !snapshot->ram) {
        error_prefix(err, "cannot restore \"%s\"", path);
        snapshot_close(snapshot);
        return rc;
    }
    list_append(&snapshot->ram->waiting, &snapshot->link);
    if (snapshot->ram->is_ready)
        loop_wake_signal(snapshot->ram->ready);
    *out = snapshot;
    return 0;
}

const struct definition *snapshot_definition(const struct snapshot *snapshot)
{
    return &snapshot->definition;
}

// A copy to be read from its start by whoever gets it.
static int copy_of(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    return copy < 0 ? -errno : copy;
}

static int make_map(const struct snapshot *snapshot)
{
    int fd = memfd_create("strake-ram-map", MFD_CLOEXEC);

    if (fd >= 0 &&
        ftruncate(fd, (off_t)memory_base_map_bytes(snapshot->definition.memory_bytes)) == 0)
        return fd;
    int rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

int snapshot_add_descriptors(const struct snapshot *snapshot, struct descriptors *fds,
                             struct error *err)
{
    int rc = descriptors_add(fds, "state", copy_of(snapshot->state_fd));

    if (rc == 0)
        rc = descriptors_add(fds, "manifest", copy_of(snapshot->manifest_fd));
    if (rc == 0)
        rc = descriptors_add(fds, "ram-base", copy_of(snapshot->ram->fd));
    if (rc == 0)
        rc = descriptors_add(fds, "ram-map", make_map(snapshot));
    return rc < 0 ? error_set_errno(err, rc, "cannot restore \"%s\"", snapshot->path) : 0;
}

// ---- All of them --------------------------------------------------------------------------------

int snapshots_create(struct snapshots **out, struct loop *loop)
{
    struct snapshots *snapshots = calloc(1, sizeof(*snapshots));

    if (!snapshots)
        return -ENOMEM;
    snapshots->loop = loop;
    list_init(&snapshots->rams);
    *out = snapshots;
    return 0;
}

void snapshots_destroy(struct snapshots *snapshots)
{
    free(snapshots);
}
