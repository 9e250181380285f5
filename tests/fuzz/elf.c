// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the loader of programs: the input is a program's file, or what is changed of a
// good one. What is taken has all its segments in their bounds and is mapped, nowhere else than in
// the address space.
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "replay.h"
#include "user/internal.h"

#define FILE_BYTES 16384u
#define GOOD_HEADERS 4u

// Four bytes for a byte of the good file.
struct change {
    uint8_t at[2];
    uint8_t value, kind;
};

struct file {
    Elf64_Ehdr header;
    Elf64_Phdr headers[GOOD_HEADERS];
    char interpreter[64];
};

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void make_good(uint8_t *bytes)
{
    const struct file file = {
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_type = ET_DYN,
                   .e_machine = EM_RISCV,
                   .e_version = EV_CURRENT,
                   .e_entry = 0x100,
                   .e_phoff = offsetof(struct file, headers),
                   .e_ehsize = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = GOOD_HEADERS},
        .headers =
            {{.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = 0x1000, .p_memsz = 0x1000},
             {.p_type = PT_LOAD,
              .p_flags = PF_R | PF_W,
              .p_offset = 0x1800,
              .p_vaddr = 0x2800,
              .p_filesz = 0x900,
              .p_memsz = 0x3000},
             {.p_type = PT_LOAD, .p_flags = PF_W, .p_vaddr = 0x9000, .p_memsz = 0x20000},
             {.p_type = PT_NOTE}},
        .interpreter = "/nonexistent"};
    memset(bytes, 0, FILE_BYTES);
    memcpy(bytes, &file, sizeof(file));
}

static void change(uint8_t *bytes, const uint8_t *input, size_t count)
{
    struct change change;
    make_good(bytes);
    for (; count >= sizeof(change); count -= sizeof(change), input += sizeof(change)) {
        memcpy(&change, input, sizeof(change));
        // Mostly where the numbers are.
        size_t at = (change.at[0] | (size_t)change.at[1] << 8) %
                    (change.kind & 1 ? FILE_BYTES : sizeof(struct file));
        bytes[at] = change.kind & 2 ? (uint8_t)(bytes[at] + change.value) : change.value;
    }
}

static void check_elf(const struct user_elf *elf)
{
    uint64_t end = elf->low;
    promise(elf->segment_count > 0 && elf->segment_count <= USER_ELF_SEGMENTS_MAX);
    promise(elf->low < elf->high && elf->high <= HART_FLAT_BYTES);
    promise(memchr(elf->interpreter, 0, sizeof(elf->interpreter)));
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct user_elf_segment *segment = &elf->segments[i];
        promise(segment->gva >= end && segment->bytes && segment->file_bytes <= segment->bytes);
        end = segment->gva + segment->bytes;
        promise(end <= elf->high);
    }
}

static void check_space(const struct user_space *space)
{
    for (size_t i = 0; i < space->mapping_count; i++) {
        const struct user_mapping *mapping = &space->mappings[i];
        promise(mapping->start < mapping->end && mapping->end <= HART_FLAT_BYTES);
        promise(i == 0 || mapping[-1].end <= mapping->start);
    }
}

static void load(int fd)
{
    struct user_process process = {0};
    struct hart hart = {0};
    struct user_thread *thread = calloc(1, sizeof(*thread));
    char *argv[] = {"program", "argument", NULL}, *envp[] = {"A=B", NULL};
    const struct user_program program = {.fd = fd, .path = "program", .argv = argv};

    promise(thread && user_memory_init() == 0);
    user_process_init(&process);
    thread->process = &process;
    thread->hart = &hart;
    promise(user_space_init(&process.space, &process, NULL) == 0);
    if (user_load(thread, &program, "program", envp, NULL) == 0)
        promise(hart.x[2] % 16 == 0 && hart.x[2] < process.stack_top);
    check_space(&process.space);
    user_space_fini(&process.space);
    free(thread);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t count)
{
    static uint8_t bytes[FILE_BYTES];
    struct user_elf *elf = malloc(sizeof(*elf));
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    promise(elf && fd >= 0);
    if (count && input[0] & 1) {
        change(bytes, input + 1, count - 1);
        promise(write(fd, bytes, FILE_BYTES) == FILE_BYTES);
    } else if (count) {
        promise(write(fd, input + 1, count - 1) == (ssize_t)count - 1);
    }
    if (user_elf_read(elf, fd, "program", NULL) == 0) {
        check_elf(elf);
        if (!elf->interpreter[0])  // of the host's files
            load(fd);
    }
    close(fd);
    free(elf);
    return 0;
}
