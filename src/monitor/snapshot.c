// SPDX-License-Identifier: BSD-2-Clause
// A monitor's part of a snapshot: state and RAM, written to files that it was given, and digests of
// its disks, which a snapshot refers to and does not copy.
//
// The partition is paused for all of it, so that state, RAM and disks are of one moment.
//
// RAM is one zstd frame of the whole of it, with a check sum: any zstd can unpack it. What is not
// there is zeros, which cost next to nothing and become holes again.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "monitor/internal.h"

#define MANIFEST_BYTES_MAX (1u << 20)
#define STATE_BYTES_MAX (64 << 20)
#define STEP_BYTES (1u << 20)
// Level 1 of zstd packs faster than a disk writes, and RAM much smaller; levels above gain little.
#define LEVEL 1

// ---- RAM ----------------------------------------------------------------------------------------

struct packer {
    ZSTD_CCtx *zstd;
    uint8_t *in, *out;
    int fd;
    uint64_t packed_bytes;
};

static int packer_init(struct packer *packer, int fd, uint64_t length_bytes)
{
    *packer = (struct packer){.zstd = ZSTD_createCCtx(),
                              .in = malloc(STEP_BYTES),
                              .out = malloc(ZSTD_CStreamOutSize()),
                              .fd = fd};
    if (!packer->zstd || !packer->in || !packer->out)
        return -ENOMEM;
    ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_compressionLevel, LEVEL);
    ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setPledgedSrcSize(packer->zstd, length_bytes);
    return 0;
}

static void packer_fini(struct packer *packer)
{
    ZSTD_freeCCtx(packer->zstd);
    free(packer->in);
    free(packer->out);
}

static int pack(struct packer *packer, size_t count, bool last)
{
    ZSTD_inBuffer in = {.src = packer->in, .size = count};
    size_t left;

    do {
        ZSTD_outBuffer out = {.dst = packer->out, .size = ZSTD_CStreamOutSize()};
        left = ZSTD_compressStream2(packer->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return -EIO;
        int64_t written = fd_write_full(packer->fd, packer->out, out.pos);
        if (written < 0)
            return (int)written;
        packer->packed_bytes += out.pos;
    } while (last ? left > 0 : in.pos < in.size);
    return 0;
}

static int write_ram(struct machine *machine, int fd, uint64_t *packed_bytes)
{
    const struct memory_ram *ram = memory_find_ram(machine_memory(machine), MACHINE_RAM_GPA);
    struct packer packer;
    int rc = packer_init(&packer, fd, ram->length_bytes);

    for (uint64_t at = 0, count; rc == 0 && at < ram->length_bytes; at += count) {
        count = ram->length_bytes - at < STEP_BYTES ? ram->length_bytes - at : STEP_BYTES;
        rc = memory_copy_out(ram, at, packer.in, count);
        if (rc == 0)
            rc = pack(&packer, count, at + count == ram->length_bytes);
    }
    *packed_bytes = packer.packed_bytes;
    packer_fini(&packer);
    return rc;
}

// ---- State --------------------------------------------------------------------------------------

static int write_state(struct monitor *monitor, int fd)
{
    struct state_writer *writer;
    const void *bytes;
    const int *fds;
    size_t length_bytes, fd_count;
    int rc = state_writer_create(&writer, false);

    if (rc < 0)
        return rc;
    partition_save(monitor->partition, writer);
    rc = state_writer_finish(writer, &bytes, &length_bytes, &fds, &fd_count);
    if (rc == 0) {
        int64_t written = fd_write_full(fd, bytes, length_bytes);
        rc = written < 0 ? (int)written : 0;
    }
    state_writer_destroy(writer);
    return rc;
}

// ---- Disks --------------------------------------------------------------------------------------

// XXH3 with 128 bits of every block that is not zeros, with its place: so a hole is as good as
// zeros, and a disk that was copied to another host is the same disk.
static int digest_disk(int fd, char digest[33])
{
    static const uint8_t zeros[4096];
    XXH3_state_t *hash = XXH3_createState();
    uint8_t *bytes = malloc(STEP_BYTES);
    int64_t count = -ENOMEM;
    uint64_t at = 0;

    if (!hash || !bytes)
        goto out;
    XXH3_128bits_reset(hash);
    while ((count = fd_pread_full(fd, bytes, STEP_BYTES, at)) > 0) {
        for (uint64_t done = 0, step; done < (uint64_t)count; done += step) {
            uint64_t place = at + done;
            step = (uint64_t)count - done < sizeof(zeros) ? (uint64_t)count - done : sizeof(zeros);
            if (memcmp(bytes + done, zeros, step) == 0)
                continue;
            XXH3_128bits_update(hash, &place, sizeof(place));
            XXH3_128bits_update(hash, bytes + done, step);
        }
        at += (uint64_t)count;
        // Holes need not be read.
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data > (off_t)at)
            at = (uint64_t)data & ~(uint64_t)(STEP_BYTES - 1);
    }
    if (count < 0)
        goto out;
    count = 0;
    XXH128_hash_t value = XXH3_128bits_digest(hash);
    snprintf(digest, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)value.high64,
             (uint64_t)value.low64);
out:
    XXH3_freeState(hash);
    free(bytes);
    return (int)count;
}

static int digest_disks(struct monitor *monitor, json_t *digests, struct error *err)
{
    for (size_t i = 0; i < monitor->definition.disk_count; i++) {
        char name[DESCRIPTOR_NAME_BYTES], digest[33];
        snprintf(name, sizeof(name), "disk%u", (unsigned)i);
        int rc = digest_disk(descriptors_find(&monitor->fds, name), digest);
        if (rc == 0 && json_array_append_new(digests, json_string(digest)) < 0)
            rc = -ENOMEM;
        if (rc < 0)
            return error_set_errno(err, rc, "cannot read disk \"%s\"",
                                   monitor->definition.disks[i].path);
    }
    return 0;
}

// Whether they are still what a snapshot says of them.
static int check_disks(struct monitor *monitor, const json_t *digests, struct error *err)
{
    json_t *now = json_array();
    int rc = now ? digest_disks(monitor, now, err)
                 : error_set_errno(err, -ENOMEM, "cannot look at the disks");

    if (rc == 0 && json_array_size(digests) != json_array_size(now))
        rc = error_set(err, -EINVAL, "the snapshot is of a partition with %zu disks, not %zu",
                       json_array_size(digests), json_array_size(now));
    for (size_t i = 0; rc == 0 && i < json_array_size(now); i++)
        if (!json_equal(json_array_get(digests, i), json_array_get(now, i)))
            rc = error_set(err, -ESTALE, "disk \"%s\" has changed since the snapshot was taken",
                           monitor->definition.disks[i].path);
    json_decref(now);
    return rc;
}

// ---- Going on from one --------------------------------------------------------------------------

json_t *manifest_read(int fd, struct error *err)
{
    json_error_t why;
    char *text = malloc(MANIFEST_BYTES_MAX);
    int64_t bytes = text ? fd_pread_full(fd, text, MANIFEST_BYTES_MAX, 0) : -ENOMEM;
    json_t *manifest =
        bytes < 0 ? NULL : json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &why);

    if (bytes < 0)
        error_set_errno(err, (int)bytes, "cannot read the snapshot's manifest");
    else if (!manifest)
        error_set(err, -EINVAL, "the snapshot's manifest is no JSON: line %d: %s", why.line,
                  why.text);
    free(text);
    return manifest;
}

static int check_manifest(struct monitor *monitor, struct error *err)
{
    json_t *manifest = manifest_read(descriptors_find(&monitor->fds, "manifest"), err);
    if (!manifest)
        return err->code;
    int rc = check_disks(monitor, json_object_get(manifest, "disks"), err);
    json_decref(manifest);
    return rc;
}

static int load_state(struct monitor *monitor, struct error *err)
{
    int fd = descriptors_find(&monitor->fds, "state");
    struct state_reader *reader;
    struct stat status;
    int rc;

    if (fstat(fd, &status) < 0)
        return error_set_errno(err, -errno, "cannot read the snapshot's state");
    if (status.st_size > STATE_BYTES_MAX)
        return error_set(err, -EFBIG, "the snapshot's state is larger than any can be");
    uint8_t *bytes = malloc((size_t)status.st_size + 1);
    int64_t got = bytes ? fd_pread_full(fd, bytes, (size_t)status.st_size, 0) : -ENOMEM;
    if (got < 0) {
        free(bytes);
        return error_set_errno(err, (int)got, "cannot read the snapshot's state");
    }
    rc = state_reader_create(&reader, bytes, (size_t)got, NULL, 0, err);
    if (rc == 0) {
        rc = partition_load(monitor->partition, reader, NULL, err);
        state_reader_destroy(reader);
    }
    free(bytes);
    return rc;
}

// The guest is told that it is a copy: it makes new random numbers, and may make a new identity.
static int set_generation(struct machine *machine, struct error *err)
{
    uint8_t id[MACHINE_GENERATION_BYTES];

    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return error_set_errno(err, -errno, "cannot make a VM generation id");
    machine_set_generation(machine, id);
    return 0;
}

int monitor_restore(struct monitor *monitor, struct error *err)
{
    struct machine *machine = partition_machine(monitor->partition);
    int rc = check_manifest(monitor, err);

    if (rc == 0)
        rc = load_state(monitor, err);
    if (rc == 0) {
        machine_resume_time(machine);
        rc = set_generation(machine, err);
    }
    close(descriptors_take(&monitor->fds, "state"));
    close(descriptors_take(&monitor->fds, "manifest"));
    return rc;
}

// ---- The operation ------------------------------------------------------------------------------

// {"ram_bytes": of the machine, "ram_packed_bytes": of the file, "disks": [digest...]}
static json_t *snapshot(struct monitor *monitor, int state_fd, int ram_fd, struct error *err)
{
    struct machine *machine = partition_machine(monitor->partition);
    json_t *digests = json_array();
    uint64_t packed_bytes = 0;
    int rc = digests ? write_state(monitor, state_fd) : -ENOMEM;

    if (rc < 0)
        error_set_errno(err, rc, "cannot write the state");
    if (rc == 0 && (rc = write_ram(machine, ram_fd, &packed_bytes)) < 0)
        error_set_errno(err, rc, "cannot write the RAM");
    if (rc == 0)
        rc = digest_disks(monitor, digests, err);
    if (rc < 0) {
        json_decref(digests);
        return NULL;
    }
    return json_pack("{s:I, s:I, s:o}", "ram_bytes", (json_int_t)monitor->definition.memory_bytes,
                     "ram_packed_bytes", (json_int_t)packed_bytes, "disks", digests);
}

void monitor_snapshot(struct monitor *monitor, struct monitor_call call, json_t *message,
                      struct descriptors *fds)
{
    int state_fd = descriptors_find(fds, "state"), ram_fd = descriptors_find(fds, "ram");
    struct error err = {0};
    json_t *result = NULL;

    (void)message;
    if (state_fd < 0 || ram_fd < 0) {
        error_set(&err, -EINVAL, "a snapshot needs files for state and RAM");
    } else {
        partition_pause(monitor->partition);
        result = snapshot(monitor, state_fd, ram_fd, &err);
        partition_resume(monitor->partition);
    }
    if (result)
        monitor_reply(monitor, call, result, NULL);
    else
        monitor_fail(monitor, call, &err);
}
