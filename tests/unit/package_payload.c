// SPDX-License-Identifier: BSD-2-Clause
// Payloads: a program comes back as it was, whole and as a delta; what is altered, cut off, longer
// than it says or for another base is refused, and nothing is written beyond what was promised, nor
// of what is not the payload of the manifest.
// Programs: what is none is told so.
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "package/package.h"
#include "unit.h"

#define PROGRAM_BYTES 300000u
#define MAX_BYTES (1u << 20)

struct bench {
    uint8_t program[PROGRAM_BYTES], base[PROGRAM_BYTES];
    uint8_t *packed;
    size_t packed_bytes;
    struct package_manifest manifest;
    struct package_payload payload;
    int64_t written;  // when it was unpacked last
};

// Half of it can be packed, as a program's code can.
static void fill(uint8_t *bytes, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes[i] = i % 64 < 32 ? (uint8_t)seed : (uint8_t)(i / 64);
    }
}

static void describe(struct bench *bench)
{
    bench->manifest.program_bytes = PROGRAM_BYTES;
    package_digest(bench->program, PROGRAM_BYTES, bench->manifest.program_sha256);
    bench->payload.file.name = "monitor-x.zst";
    bench->payload.file.bytes = bench->packed_bytes;
    package_digest(bench->packed, bench->packed_bytes, bench->payload.file.sha256);
    package_digest(bench->base, PROGRAM_BYTES, bench->payload.base_sha256);
}

static struct bench *make(bool delta)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    struct error err = {0};
    void *packed;

    fill(bench->base, PROGRAM_BYTES, 1);
    memcpy(bench->program, bench->base, PROGRAM_BYTES);
    fill(bench->program + 1000, 5000, 2);
    memmove(bench->program + 100000, bench->program + 100100, 100000);
    if (package_pack_program(bench->program, PROGRAM_BYTES, bench->base, delta ? PROGRAM_BYTES : 0,
                             &packed, &bench->packed_bytes, &err) < 0)
        fail_msg("%s", err.message);
    bench->packed = packed;
    bench->payload.base_version = delta ? "0.1.0" : NULL;
    describe(bench);
    return bench;
}

static void bench_free(struct bench *bench)
{
    free(bench->packed);
    free(bench);
}

static int fd_of(const void *bytes, size_t count)
{
    int fd = memfd_create("payload", MFD_CLOEXEC);

    assert_int_equal(fd_write_full(fd, bytes, count), count);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static int unpack(struct bench *bench, const void *base, size_t base_bytes, uint64_t max_bytes)
{
    uint8_t *program = malloc(PROGRAM_BYTES + 1);
    int payload_fd = fd_of(bench->packed, bench->packed_bytes),
        base_fd = base ? fd_of(base, base_bytes) : -1, out_fd = memfd_create("out", MFD_CLOEXEC);
    struct error err = {0};

    int rc = package_unpack_program(&bench->manifest, &bench->payload, payload_fd, base_fd, out_fd,
                                    max_bytes, &err);
    bench->written = fd_pread_full(out_fd, program, PROGRAM_BYTES + 1, 0);
    assert_true(bench->written <= (int64_t)bench->manifest.program_bytes);
    assert_int_equal(rc == 0, err.message[0] == '\0');
    if (rc == 0) {
        assert_int_equal(bench->written, PROGRAM_BYTES);
        assert_memory_equal(program, bench->program, PROGRAM_BYTES);
    }
    close(payload_fd);
    close(out_fd);
    if (base_fd >= 0)
        close(base_fd);
    free(program);
    return rc;
}

static void test_round(void **state)
{
    struct bench *whole = make(false), *again = make(false), *delta = make(true);
    (void)state;

    assert_int_equal(unpack(whole, NULL, 0, MAX_BYTES), 0);
    assert_int_equal(unpack(whole, NULL, 0, PROGRAM_BYTES), 0);
    assert_int_equal(unpack(delta, delta->base, PROGRAM_BYTES, MAX_BYTES), 0);
    assert_int_equal(whole->packed_bytes, again->packed_bytes);
    assert_memory_equal(whole->packed, again->packed, whole->packed_bytes);
    printf("a program of %u bytes: whole %zu bytes, as a delta %zu\n", PROGRAM_BYTES,
           whole->packed_bytes, delta->packed_bytes);
    assert_true(delta->packed_bytes < whole->packed_bytes / 5);
    bench_free(whole);
    bench_free(again);
    bench_free(delta);
}

static void test_base(void **state)
{
    struct bench *delta = make(true);
    (void)state;

    assert_int_equal(unpack(delta, NULL, 0, MAX_BYTES), -ENOENT);
    assert_int_equal(unpack(delta, delta->base, PROGRAM_BYTES - 1, MAX_BYTES), -ENOENT);
    assert_int_equal(unpack(delta, delta->base, 0, MAX_BYTES), -ENOENT);
    assert_int_equal(unpack(delta, delta->program, PROGRAM_BYTES, MAX_BYTES), -ENOENT);
    assert_int_equal(unpack(delta, delta->base, PROGRAM_BYTES, PROGRAM_BYTES - 1), -EFBIG);
    uint8_t *large = calloc(1, MAX_BYTES + 1);
    assert_int_equal(unpack(delta, large, MAX_BYTES + 1, MAX_BYTES), -EFBIG);
    free(large);
    // A delta that says it is none.
    delta->payload.base_version = NULL;
    assert_int_equal(unpack(delta, NULL, 0, MAX_BYTES), -EBADMSG);
    bench_free(delta);
}

// Each changed byte with the digest as it was: zstd does not get to see it. And with the digest
// made right: what zstd makes of it is not the program.
static void test_altered(void **state)
{
    unsigned refused = 0;
    (void)state;

    for (unsigned delta = 0; delta < 2; delta++) {
        struct bench *bench = make(delta);
        size_t step = bench->packed_bytes / 150 + 1;
        for (size_t at = 0; at < bench->packed_bytes; at += at < 32 ? 1 : step) {
            bench->packed[at] ^= 0x10;
            assert_int_equal(unpack(bench, bench->base, PROGRAM_BYTES, MAX_BYTES), -EBADMSG);
            assert_int_equal(bench->written, 0);
            package_digest(bench->packed, bench->packed_bytes, bench->payload.file.sha256);
            int rc = unpack(bench, bench->base, PROGRAM_BYTES, MAX_BYTES);
            if (rc != 0)  // a bit that means nothing leaves the program what it is
                assert_int_equal(rc, -EBADMSG);
            refused += rc != 0;
            bench->packed[at] ^= 0x10;
            describe(bench);
        }
        bench_free(bench);
    }
    printf("%u altered payloads were refused, digests of payload made right\n", refused);
    assert_true(refused > 250);
}

static void cut(struct bench *bench, size_t count, bool say_so)
{
    size_t was = bench->packed_bytes;

    bench->packed_bytes = count;
    if (say_so)
        describe(bench);
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    bench->packed_bytes = was;
    describe(bench);
}

static void test_cut(void **state)
{
    struct bench *bench = make(false);
    (void)state;

    for (size_t count = 0; count < bench->packed_bytes; count += 1 + bench->packed_bytes / 200) {
        cut(bench, count, false);
        cut(bench, count, true);
    }
    cut(bench, bench->packed_bytes - 1, true);
    bench_free(bench);
}

static void repack(struct bench *bench, const void *bytes, size_t count)
{
    free(bench->packed);
    bench->packed = malloc(count);
    memcpy(bench->packed, bytes, count);
    bench->packed_bytes = count;
    describe(bench);
}

// What the manifest promises is less, or more, than what there is.
static void test_promises(void **state)
{
    struct bench *bench = make(false);
    size_t count = bench->packed_bytes;
    uint8_t *twice = malloc(2 * count);
    (void)state;

    bench->manifest.program_bytes = PROGRAM_BYTES - 1;
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    bench->manifest.program_bytes = PROGRAM_BYTES + 1;
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    bench->manifest.program_bytes = MAX_BYTES + 1;
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EFBIG);
    describe(bench);
    bench->manifest.program_sha256[0] ^= 1;
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);

    memcpy(twice, bench->packed, count);
    memcpy(twice + count, bench->packed, count);
    repack(bench, twice, 2 * count);
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    repack(bench, twice, count + 1);
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    free(twice);
    bench_free(bench);
}

// A few bytes that become a gigabyte are stopped at what was promised; a frame that asks for a
// window of a gigabyte gets none.
static void test_bombs(void **state)
{
    struct bench *bench = make(false);
    size_t bomb_bytes = 64u << 20, capacity = ZSTD_compressBound(bomb_bytes);
    uint8_t *bomb = calloc(1, bomb_bytes), *packed = malloc(capacity);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_inBuffer in = {bomb, 1000, 0};
    ZSTD_outBuffer out = {packed, capacity, 0};
    (void)state;

    size_t count = ZSTD_compress(packed, capacity, bomb, bomb_bytes, 3);
    repack(bench, packed, count);
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    printf("%zu bytes that become %zu: stopped\n", count, bomb_bytes);

    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 30)));
    while (ZSTD_compressStream2(context, &out, &in, in.pos < in.size ? ZSTD_e_flush : ZSTD_e_end))
        ;
    ZSTD_compressStream2(context, &out, &in, ZSTD_e_end);
    repack(bench, packed, out.pos);
    assert_int_equal(unpack(bench, NULL, 0, MAX_BYTES), -EBADMSG);
    ZSTD_freeCCtx(context);
    free(bomb);
    free(packed);
    bench_free(bench);
}

static void test_measures(void **state)
{
    char sha256[PACKAGE_DIGEST_CHARS];
    uint64_t bytes;
    int fd = fd_of("abc", 3), none = fd_of("", 0);
    (void)state;

    // FIPS 180-2, appendix B.1.
    const char *abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_int_equal(package_measure(fd, &bytes, sha256, NULL), 0);
    assert_int_equal(bytes, 3);
    assert_string_equal(sha256, abc);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(package_copy(fd, none, 3, sha256, NULL), 0);
    assert_string_equal(sha256, abc);
    assert_int_equal(package_measure(none, &bytes, sha256, NULL), 0);
    assert_string_equal(sha256, abc);
    assert_int_equal(package_copy(none, -1, 1, sha256, NULL), -EBADMSG);
    close(fd);
    close(none);
}

// ---- Programs -----------------------------------------------------------------------------------

// What is put where in this program's own file.
static const struct {
    const char *what;
    size_t offset;
    uint8_t value;
} faults[] = {
    {"no magic", 0, 'e'},
    {"32 bits", EI_CLASS, ELFCLASS32},
    {"big-endian", EI_DATA, ELFDATA2MSB},
    {"a version to come", EI_VERSION, 2},
    {"another system's", EI_OSABI, ELFOSABI_FREEBSD},
    {"an object", offsetof(Elf64_Ehdr, e_type), ET_REL},
    {"a core", offsetof(Elf64_Ehdr, e_type), ET_CORE},
    {"RISC-V", offsetof(Elf64_Ehdr, e_machine), EM_RISCV},
    {"no segments", offsetof(Elf64_Ehdr, e_phnum), 0},
    {"many segments", offsetof(Elf64_Ehdr, e_phnum) + 1, 1},
    {"segments of another size", offsetof(Elf64_Ehdr, e_phentsize), 32},
    {"segments beyond the end", offsetof(Elf64_Ehdr, e_phoff) + 7, 0x70},
    {"segments beyond any end", offsetof(Elf64_Ehdr, e_phoff) + 7, 0xff},
    {"a start without code", offsetof(Elf64_Ehdr, e_entry) + 6, 1},
};

static int check_program(const void *bytes, size_t count)
{
    struct error err = {0};
    int fd = fd_of(bytes, count), rc = package_program_check(fd, &err);

    close(fd);
    assert_int_equal(rc == 0, err.message[0] == '\0');
    return rc;
}

static void test_program(void **state)
{
    uint8_t *bytes = malloc(64u << 20);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int64_t count = fd_read_full(fd, bytes, 64u << 20);
    (void)state;

    close(fd);
    assert_int_equal(check_program(bytes, (size_t)count), 0);
    for (size_t i = 0; i < BASE_COUNT_OF(faults); i++) {
        uint8_t was = bytes[faults[i].offset];
        bytes[faults[i].offset] = faults[i].value;
        if (check_program(bytes, (size_t)count) != -ENOEXEC)
            fail_msg("taken: %s", faults[i].what);
        bytes[faults[i].offset] = was;
    }
    for (size_t cut_bytes = 0; cut_bytes < 4096; cut_bytes += 61)
        assert_int_equal(check_program(bytes, cut_bytes), -ENOEXEC);
    assert_int_equal(check_program("#!/bin/sh\n", 10), -ENOEXEC);

    // Each segment's place and size in turn, beyond the file.
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)bytes;
    Elf64_Phdr *segments = (Elf64_Phdr *)(bytes + header->e_phoff);
    for (unsigned i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr was = segments[i];
        segments[i].p_offset = UINT64_MAX;
        assert_int_equal(check_program(bytes, (size_t)count), -ENOEXEC);
        segments[i] = was;
        segments[i].p_filesz = UINT64_MAX;
        assert_int_equal(check_program(bytes, (size_t)count), -ENOEXEC);
        segments[i] = was;
        segments[i].p_memsz = UINT64_MAX;
        if (was.p_type == PT_LOAD && was.p_vaddr)
            assert_int_equal(check_program(bytes, (size_t)count), -ENOEXEC);
        segments[i] = was;
        if (was.p_type == PT_INTERP) {
            segments[i].p_type = PT_NULL;  // a library
            assert_int_equal(check_program(bytes, (size_t)count), -ENOEXEC);
            segments[i] = was;
        }
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),    cmocka_unit_test(test_base),
        cmocka_unit_test(test_altered),  cmocka_unit_test(test_cut),
        cmocka_unit_test(test_promises), cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_measures), cmocka_unit_test(test_program),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
