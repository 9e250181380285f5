// SPDX-License-Identifier: BSD-2-Clause
// The translator's memory. One region of address space holds, in this order, struct jit, the arena
// and the code as it is executed, so that code reaches all of it relative to rip. The code is
// shared memory that is mapped a second time, elsewhere, to be written: no mapping is ever both
// writable and executable.
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jit/internal.h"

static size_t whole_pages(size_t bytes)
{
    return (bytes + MEMORY_PAGE_BYTES - 1) & ~(size_t)(MEMORY_PAGE_BYTES - 1);
}

// Maps the code at `exec` to be executed; returns where it is mapped to be written, or MAP_FAILED.
static uint8_t *map_code(uint8_t *exec, size_t bytes)
{
    int fd = memfd_create("strake-code", MFD_CLOEXEC);
    uint8_t *code = MAP_FAILED;

    if (fd < 0)
        return MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0 &&
        mmap(exec, bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
        code = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return code;
}

// As map_code, in memory without a name: perf looks at its map for no other. Some hosts allow
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
    code = anonymous ? map_anonymous_code(exec, arena_bytes) : map_code(exec, arena_bytes);
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

void jit_memory_destroy(struct jit *jit)
{
    munmap(jit->code, jit->code_bytes);
    munmap(jit, jit->region_bytes);
}
