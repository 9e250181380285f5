// SPDX-License-Identifier: BSD-2-Clause
// The translator's memory. One region of address space holds, in this order, struct jit, the arena
// and the code as it is executed, so that code reaches all of it relative to rip. The code is
// shared memory that is mapped a second time, elsewhere, to be written: no mapping is ever both
// writable and executable.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jit/internal.h"

static size_t whole_pages(size_t bytes)
{
    return (bytes + MEMORY_PAGE_BYTES - 1) & ~(size_t)(MEMORY_PAGE_BYTES - 1);
}

// A file for code, or -errno.
static int create_code(size_t bytes)
{
    int fd = memfd_create("strake-code", MFD_CLOEXEC | MFD_ALLOW_SEALING), status;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) == 0)
        return fd;
    status = -errno;
    close(fd);
    return status;
}

// Maps the code at `exec` to be executed; returns where it is mapped to be written, which is `at`
// unless that is NULL, or MAP_FAILED. Whoever opens the file later, by /proc/self/map_files, cannot
// write to it; hosts without such seals are before Linux 5.1.
static uint8_t *map_code(int fd, uint8_t *exec, uint8_t *at, size_t bytes)
{
    const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
    uint8_t *code;

    if (mmap(exec, bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return MAP_FAILED;
    code = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
    (void)fcntl(fd, F_ADD_SEALS, seals);
    return code;
}

static uint8_t *map_new_code(uint8_t *exec, size_t bytes)
{
    int fd = create_code(bytes);
    uint8_t *code;

    if (fd < 0)
        return MAP_FAILED;
    code = map_code(fd, exec, NULL, bytes);
    close(fd);
    return code;
}

// As map_new_code, in memory without a name: perf looks at its map for no other. Some hosts allow
// executable memory only if it is a file's, so this is not the usual way. A length of 0 has mremap
// map shared memory a second time (mremap(2)).
static uint8_t *map_anonymous_code(uint8_t *exec, size_t bytes)
{
    uint8_t *code;

    if (mmap(exec, bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        return MAP_FAILED;
    code = mremap(exec, 0, bytes, MREMAP_MAYMOVE);
    if (code != MAP_FAILED && mprotect(code, bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(code, bytes);
        return MAP_FAILED;
    }
    return code;
}

int jit_memory_create(struct jit **out, size_t code_bytes, bool anonymous)
{
    size_t head_bytes = whole_pages(sizeof(struct jit)), arena_bytes = whole_pages(code_bytes);
    size_t region_bytes = head_bytes + 2 * arena_bytes;
    uint8_t *region = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *exec = region + head_bytes + arena_bytes, *code;
    struct jit *jit = (struct jit *)region;
    int status;

    if (region == MAP_FAILED)
        return -errno;
    code = anonymous ? map_anonymous_code(exec, arena_bytes) : map_new_code(exec, arena_bytes);
    if (code == MAP_FAILED) {
        status = -errno;
        munmap(region, region_bytes);
        return status;
    }
    jit->code = code;
    jit->code_bytes = arena_bytes;
    jit->exec_offset = exec - code;
    jit->region_bytes = region_bytes;
    jit->arena = region + head_bytes;
    jit->arena_bytes = arena_bytes;
    *out = jit;
    return 0;
}

static bool copy_part(const struct jit *jit, const struct jit_part *part, int fd)
{
    size_t first = part == jit->parts ? 0 : part->code_first, bytes = part->code_used - first;

    return pwrite(fd, jit->code + first, bytes, (off_t)first) == (ssize_t)bytes;
}

// What is in code memory, to `fd`. False: the other process wrote to it meanwhile.
static bool copy_code(const struct jit *jit, int fd)
{
    for (unsigned i = 0; i < jit->part_count; i++)
        if (!copy_part(jit, &jit->parts[i], fd))
            return false;
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(jit_memory_writes(jit)) == jit->writes;
}

int jit_memory_part(struct jit *jit, bool *kept)
{
    int fd = create_code(jit->code_bytes), status = 0;

    if (fd < 0)
        return fd;
    *kept = copy_code(jit, fd);
    if (map_code(fd, jit->code + jit->exec_offset, jit->code, jit->code_bytes) == MAP_FAILED)
        status = -errno;
    close(fd);
    return status;
}

void jit_memory_destroy(struct jit *jit)
{
    munmap(jit->code, jit->code_bytes);
    munmap(jit, jit->region_bytes);
}
