// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the unpacking of payloads and for the look at programs. The input's first byte
// says whether the rest is a payload as it is, changes to a good one (whole, or a delta), or a
// program. The digest of a payload is made right, as the key's owner would have signed it: nothing
// is written beyond what the manifest promises, and what is taken is the program.
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "package/package.h"
#include "replay.h"

#define PROGRAM_BYTES 3000u
#define PAYLOAD_MAX_BYTES (1u << 17)

enum mode { MODE_RAW, MODE_WHOLE, MODE_DELTA, MODE_PROGRAM, MODES };

// A change to the good payload or program.
struct change {
    uint8_t at[2];
    uint8_t kind, value;
};

struct bench {
    uint8_t program[PROGRAM_BYTES], base[PROGRAM_BYTES], payload[PAYLOAD_MAX_BYTES];
    size_t payload_bytes;
};

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static int file_of(const void *bytes, size_t count)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    promise(fd >= 0 && fd_write_full(fd, bytes, count) == (int64_t)count);
    promise(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static void fill(struct bench *bench)
{
    for (unsigned i = 0; i < PROGRAM_BYTES; i++) {
        bench->base[i] = (uint8_t)(i % 7 ? i * i : i / 7);
        bench->program[i] = i > 500 && i < 600 ? (uint8_t)i : bench->base[i];
    }
}

static void pack(struct bench *bench, bool delta)
{
    void *packed;
    size_t count;

    promise(package_pack_program(bench->program, PROGRAM_BYTES, bench->base,
                                 delta ? PROGRAM_BYTES : 0, &packed, &count, NULL) == 0);
    promise(count <= PAYLOAD_MAX_BYTES);
    memcpy(bench->payload, packed, count);
    bench->payload_bytes = count;
    free(packed);
}

static void change_all(uint8_t *bytes, size_t *length, const uint8_t *input, size_t count)
{
    for (; count >= sizeof(struct change); count -= 4, input += 4) {
        const struct change *change = (const struct change *)input;
        size_t at = (size_t)(change->at[1] << 8 | change->at[0]) % *length;
        if (change->kind % 8 == 7)
            *length = at + 1;
        else
            bytes[at] = change->kind % 8 < 4 ? change->value : bytes[at] ^ change->value;
    }
}

static void unpack(const struct bench *bench, bool delta)
{
    struct package_manifest manifest = {.program_bytes = PROGRAM_BYTES};
    struct package_payload payload = {.file = {.name = "x", .bytes = bench->payload_bytes},
                                      .base_version = delta ? "0.1.0" : NULL};
    struct error err = {0};
    uint8_t out[PROGRAM_BYTES + 1];

    package_digest(bench->program, PROGRAM_BYTES, manifest.program_sha256);
    package_digest(bench->payload, bench->payload_bytes, payload.file.sha256);
    package_digest(bench->base, PROGRAM_BYTES, payload.base_sha256);
    int payload_fd = file_of(bench->payload, bench->payload_bytes),
        base_fd = file_of(bench->base, PROGRAM_BYTES), out_fd = file_of("", 0);
    int rc = package_unpack_program(&manifest, &payload, payload_fd, base_fd, out_fd, PROGRAM_BYTES,
                                    &err);
    int64_t count = fd_pread_full(out_fd, out, sizeof(out), 0);
    promise(count >= 0 && count <= (int64_t)PROGRAM_BYTES);
    promise(rc == 0 || (rc == -EBADMSG && err.message[0]));
    promise(rc < 0 || memcmp(out, bench->program, PROGRAM_BYTES) == 0);
    close(payload_fd);
    close(base_fd);
    close(out_fd);
}

// Two segments, of which one is code.
static size_t make_program(uint8_t *bytes)
{
    const Elf64_Ehdr header = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = 0x400100,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 2};
    const Elf64_Phdr segments[] = {{.p_type = PT_LOAD,
                                    .p_flags = PF_R | PF_X,
                                    .p_vaddr = 0x400000,
                                    .p_filesz = 512,
                                    .p_memsz = 512},
                                   {.p_type = PT_LOAD,
                                    .p_flags = PF_R | PF_W,
                                    .p_offset = 512,
                                    .p_vaddr = 0x600000,
                                    .p_filesz = 88,
                                    .p_memsz = 4096}};

    memset(bytes, 0, 600);
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), segments, sizeof(segments));
    return 600;
}

static void look_at(const uint8_t *bytes, size_t count, bool good)
{
    struct error err = {0};
    int fd = file_of(bytes, count), rc = package_program_check(fd, &err);

    promise(rc == 0 ? !err.message[0] : rc == -ENOEXEC && err.message[0]);
    promise(rc == 0 || !good);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t count)
{
    if (count == 0 || count > PAYLOAD_MAX_BYTES)
        return 0;
    enum mode mode = *input++ % MODES;
    struct bench *bench = calloc(1, sizeof(*bench));
    promise(bench);
    count--;
    fill(bench);
    if (mode == MODE_PROGRAM) {
        bench->payload_bytes = make_program(bench->payload);
        look_at(bench->payload, bench->payload_bytes, true);
        change_all(bench->payload, &bench->payload_bytes, input, count);
        look_at(bench->payload, bench->payload_bytes, false);
        look_at(input, count, false);
    } else if (mode == MODE_RAW) {
        memcpy(bench->payload, input, count);
        bench->payload_bytes = count;
        unpack(bench, false);
        unpack(bench, true);
    } else {
        pack(bench, mode == MODE_DELTA);
        change_all(bench->payload, &bench->payload_bytes, input, count);
        unpack(bench, mode == MODE_DELTA);
    }
    free(bench);
    return 0;
}
