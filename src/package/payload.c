// SPDX-License-Identifier: BSD-2-Clause
// Payloads: a program packed with zstd (RFC 8878), by itself or with an earlier program as its
// prefix; and digests of what is copied.
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "package/package.h"

#define CHUNK_BYTES 65536u
#define LEVEL 19  // the last one that unpacks with the usual 8 MiB window
#define WINDOW_LOG_MIN 10
#define WINDOW_LOG_MAX 31

// ---- Digests ------------------------------------------------------------------------------------

static void digest_text(crypto_hash_sha256_state *state, char text[PACKAGE_DIGEST_CHARS])
{
    uint8_t digest[crypto_hash_sha256_BYTES];

    crypto_hash_sha256_final(state, digest);
    sodium_bin2hex(text, PACKAGE_DIGEST_CHARS, digest, sizeof(digest));
}

static int write_all(int fd, const void *bytes, size_t count, struct error *err)
{
    int64_t written = fd < 0 ? (int64_t)count : fd_write_full(fd, bytes, count);

    if (written < 0)
        return error_set_errno(err, (int)written, "cannot write");
    return (size_t)written == count ? 0 : error_set_errno(err, -EIO, "cannot write");
}

int package_copy(int from_fd, int to_fd, uint64_t bytes, char sha256[PACKAGE_DIGEST_CHARS],
                 struct error *err)
{
    crypto_hash_sha256_state state;
    uint8_t chunk[CHUNK_BYTES];

    crypto_hash_sha256_init(&state);
    while (bytes > 0) {
        size_t count = bytes < sizeof(chunk) ? bytes : sizeof(chunk);
        int64_t got = fd_read_full(from_fd, chunk, count);
        if (got < 0)
            return error_set_errno(err, (int)got, "cannot read");
        if ((size_t)got < count)
            return error_set(err, -EBADMSG, "it is cut off");
        int rc = write_all(to_fd, chunk, count, err);
        if (rc < 0)
            return rc;
        crypto_hash_sha256_update(&state, chunk, count);
        bytes -= count;
    }
    digest_text(&state, sha256);
    return 0;
}

void package_digest(const void *bytes, size_t length_bytes, char sha256[PACKAGE_DIGEST_CHARS])
{
    crypto_hash_sha256_state state;

    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, bytes, length_bytes);
    digest_text(&state, sha256);
}

int package_measure(int fd, uint64_t *bytes, char sha256[PACKAGE_DIGEST_CHARS], struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return error_set_errno(err, -errno, "cannot read");
    *bytes = (uint64_t)status.st_size;
    return package_copy(fd, -1, *bytes, sha256, err);
}

// ---- Packing ------------------------------------------------------------------------------------

// The smallest window that reaches from the program's last byte to the base's first.
static int window_log(uint64_t program_bytes, uint64_t base_bytes)
{
    int log = WINDOW_LOG_MIN;

    while (log < WINDOW_LOG_MAX && 1ull << log < program_bytes + base_bytes)
        log++;
    return log;
}

static size_t set_up(ZSTD_CCtx *context, size_t program_bytes, const void *base, size_t base_bytes)
{
    size_t rc = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, LEVEL);

    if (ZSTD_isError(rc) || base_bytes == 0)
        return rc;
    rc = ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log(program_bytes, base_bytes));
    if (!ZSTD_isError(rc))
        rc = ZSTD_CCtx_setParameter(context, ZSTD_c_enableLongDistanceMatching, 1);
    return ZSTD_isError(rc) ? rc : ZSTD_CCtx_refPrefix(context, base, base_bytes);
}

int package_pack_program(const void *program, size_t program_bytes, const void *base,
                         size_t base_bytes, void **packed, size_t *packed_bytes, struct error *err)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    size_t capacity = ZSTD_compressBound(program_bytes);
    void *bytes = malloc(capacity);
    size_t rc = 0;

    if (context && bytes) {
        rc = set_up(context, program_bytes, base, base_bytes);
        if (!ZSTD_isError(rc))
            rc = ZSTD_compress2(context, bytes, capacity, program, program_bytes);
    }
    ZSTD_freeCCtx(context);
    if (rc == 0 || ZSTD_isError(rc)) {
        free(bytes);
        return error_set(err, -ENOMEM, "cannot pack the program: %s",
                         rc ? ZSTD_getErrorName(rc) : "there is no memory");
    }
    *packed = bytes;
    *packed_bytes = rc;
    return 0;
}

// ---- Unpacking ----------------------------------------------------------------------------------

struct unpacking {
    const struct package_manifest *manifest;
    const struct package_payload *payload;
    int payload_fd, out_fd;
    void *base;
    size_t base_bytes;
    ZSTD_DCtx *context;
    crypto_hash_sha256_state program;  // digest of what has been written
    uint64_t out_bytes;                // of the program
    bool ended;                        // the frame has
};

// A signature is over the payload's digest, and a guest sends the bytes: zstd gets to see only
// those that were signed.
static int check_payload(const struct unpacking *unpacking, struct error *err)
{
    const struct package_file *file = &unpacking->payload->file;
    char sha256[PACKAGE_DIGEST_CHARS];
    off_t start = lseek(unpacking->payload_fd, 0, SEEK_CUR);
    int rc = start < 0 ? error_set_errno(err, -errno, "it cannot be read")
                       : package_copy(unpacking->payload_fd, -1, file->bytes, sha256, err);

    if (rc < 0)
        return rc;
    if (strcmp(sha256, file->sha256) != 0)
        return error_set(err, -EBADMSG, "its digest is not what the manifest says");
    if (lseek(unpacking->payload_fd, start, SEEK_SET) < 0)
        return error_set_errno(err, -errno, "it cannot be read");
    return 0;
}

// The base's bytes are copied first: it may be a file that somebody changes.
static int read_base(struct unpacking *unpacking, int fd, uint64_t max_bytes, struct error *err)
{
    const struct package_payload *payload = unpacking->payload;
    char sha256[PACKAGE_DIGEST_CHARS];
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set(err, -ENOENT, "version %s, which it is a delta to, is not here",
                         payload->base_version);
    if ((uint64_t)status.st_size > max_bytes)
        return error_set(err, -EFBIG, "version %s, which it is a delta to, is too large",
                         payload->base_version);
    size_t count = (size_t)status.st_size;
    unpacking->base = malloc(count + 1);
    int64_t got = unpacking->base ? fd_pread_full(fd, unpacking->base, count, 0) : -ENOMEM;
    if (got < 0)
        return error_set_errno(err, (int)got, "cannot read version %s", payload->base_version);
    unpacking->base_bytes = (size_t)got;
    package_digest(unpacking->base, unpacking->base_bytes, sha256);
    if (strcmp(sha256, payload->base_sha256) != 0)
        return error_set(err, -ENOENT, "what is here is another version %s than it is a delta to",
                         payload->base_version);
    return 0;
}

static int make_context(struct unpacking *unpacking, struct error *err)
{
    ZSTD_DCtx *context = unpacking->context = ZSTD_createDCtx();
    int log = window_log(unpacking->manifest->program_bytes, unpacking->base_bytes);

    // A window larger than program and base together is of no use but to take memory. Levels below
    // have windows of up to 8 MiB whatever the program's size.
    if (log < 23)
        log = 23;
    if (!context || ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, log)) ||
        (unpacking->base &&
         ZSTD_isError(ZSTD_DCtx_refPrefix(context, unpacking->base, unpacking->base_bytes))))
        return error_set_errno(err, -ENOMEM, "cannot set up zstd");
    return 0;
}

static int put(struct unpacking *unpacking, const uint8_t *bytes, size_t count, struct error *err)
{
    if (count > unpacking->manifest->program_bytes - unpacking->out_bytes)
        return error_set(err, -EBADMSG, "it holds more than the program");
    unpacking->out_bytes += count;
    crypto_hash_sha256_update(&unpacking->program, bytes, count);
    return write_all(unpacking->out_fd, bytes, count, err);
}

// One frame, and nothing behind it. Each turn of the loop consumes or produces something, or zstd
// says that it does not go on.
static int unpack_chunk(struct unpacking *unpacking, const uint8_t *chunk, size_t count,
                        struct error *err)
{
    ZSTD_inBuffer in = {chunk, count, 0};
    uint8_t bytes[CHUNK_BYTES];
    int rc = 0;
    bool full = false;

    while (rc == 0 && (in.pos < in.size || full)) {
        ZSTD_outBuffer out = {bytes, sizeof(bytes), 0};
        if (unpacking->ended)
            return error_set(err, -EBADMSG, "something follows its end");
        size_t hint = ZSTD_decompressStream(unpacking->context, &out, &in);
        if (ZSTD_isError(hint))
            return error_set(err, -EBADMSG, "it cannot be unpacked: %s", ZSTD_getErrorName(hint));
        unpacking->ended = hint == 0;
        full = out.pos == out.size && !unpacking->ended;
        rc = put(unpacking, bytes, out.pos, err);
    }
    return rc;
}

static int unpack_all(struct unpacking *unpacking, struct error *err)
{
    uint64_t left_bytes = unpacking->payload->file.bytes;
    uint8_t chunk[CHUNK_BYTES];
    int rc = 0;

    while (rc == 0 && left_bytes > 0) {
        size_t count = left_bytes < sizeof(chunk) ? left_bytes : sizeof(chunk);
        int64_t got = fd_read_full(unpacking->payload_fd, chunk, count);
        if (got < 0)
            return error_set_errno(err, (int)got, "it cannot be read");
        if ((size_t)got < count)
            return error_set(err, -EBADMSG, "it is cut off");
        left_bytes -= count;
        rc = unpack_chunk(unpacking, chunk, count, err);
    }
    return rc;
}

static int check_program(struct unpacking *unpacking, struct error *err)
{
    char sha256[PACKAGE_DIGEST_CHARS];

    if (!unpacking->ended || unpacking->out_bytes != unpacking->manifest->program_bytes)
        return error_set(err, -EBADMSG, "it holds less than the program");
    digest_text(&unpacking->program, sha256);
    if (strcmp(sha256, unpacking->manifest->program_sha256) != 0)
        return error_set(err, -EBADMSG, "the program's digest is not what the manifest says");
    return 0;
}

static int unpack(struct unpacking *unpacking, int base_fd, uint64_t max_bytes, struct error *err)
{
    if (unpacking->manifest->program_bytes > max_bytes)
        return error_set(err, -EFBIG, "the program in it has %llu bytes, and may have %llu",
                         (unsigned long long)unpacking->manifest->program_bytes,
                         (unsigned long long)max_bytes);
    int rc = check_payload(unpacking, err);
    if (rc == 0 && unpacking->payload->base_version)
        rc = read_base(unpacking, base_fd, max_bytes, err);
    if (rc == 0)
        rc = make_context(unpacking, err);
    if (rc == 0)
        rc = unpack_all(unpacking, err);
    return rc < 0 ? rc : check_program(unpacking, err);
}

int package_unpack_program(const struct package_manifest *manifest,
                           const struct package_payload *payload, int payload_fd, int base_fd,
                           int out_fd, uint64_t max_bytes, struct error *err)
{
    struct unpacking unpacking = {
        .manifest = manifest, .payload = payload, .payload_fd = payload_fd, .out_fd = out_fd};

    crypto_hash_sha256_init(&unpacking.program);
    int rc = unpack(&unpacking, base_fd, max_bytes, err);
    if (rc < 0)
        error_prefix(err, "the payload \"%s\" is refused", payload->file.name);
    ZSTD_freeDCtx(unpacking.context);
    free(unpacking.base);
    return rc;
}
