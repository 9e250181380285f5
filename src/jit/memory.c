// SPDX-License-Identifier: BSD-2-Clause
// The translator's memory. One region of address space holds, in this order, struct jit, the arena
// and the code as it is executed, so that code reaches all of it relative to rip. The code is a
// memfd that is mapped a second time, elsewhere, to be written: no mapping is ever both writable
// and executable.
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jit/internal.h"

static size_t whole_pages(size_t bytes)
{
    return (bytes + MEMORY_PAGE_BYTES - 1) & ~(size_t)(MEMORY_PAGE_BYTES - 1);
}

// A memfd mapped at `exec` to be executed; returns where it is mapped to be written, or MAP_FAILED.
static uint8_t *map_code(int fd, uint8_t *exec, size_t bytes)
{
    if (ftruncate(fd, (off_t)bytes) ||
        mmap(exec, bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return MAP_FAILED;
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

int jit_memory_create(struct jit **out, size_t code_bytes)
{
    size_t head_bytes = whole_pages(sizeof(struct jit)), arena_bytes = whole_pages(code_bytes);
    size_t region_bytes = head_bytes + 2 * arena_bytes;
    int fd = memfd_create("strake-code", MFD_CLOEXEC), status;
    uint8_t *region = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *exec = region + head_bytes + arena_bytes, *code = MAP_FAILED;
    struct jit *jit = (struct jit *)region;

    if (fd >= 0 && region != MAP_FAILED)
        code = map_code(fd, exec, arena_bytes);
    if (code == MAP_FAILED) {
        status = -errno;
        if (region != MAP_FAILED)
            munmap(region, region_bytes);
        if (fd >= 0)
            close(fd);
        return status;
    }
    jit->code_fd = fd;
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
    int fd = jit->code_fd;

    munmap(jit->code, jit->code_bytes);
    munmap(jit, jit->region_bytes);
    close(fd);
}
