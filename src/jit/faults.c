// SPDX-License-Identifier: BSD-2-Clause
// Accesses of translated code that may fault: through a memory window, or to a flat address space.
// One that does raises SIGSEGV or SIGBUS; the handler finds it by the host's pc, and goes on at its
// out-of-line code, where a helper does the access instead.
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "jit/internal.h"

// The translator whose code this thread executes. The handler has no other way to know.
static _Thread_local struct jit *running;

struct jit_site *jit_faults_find(const struct jit *jit, uint32_t at)
{
    const struct jit_part *part = &jit->parts[at / (jit->code_bytes / jit->part_count)];
    size_t low = part->access_first, high = part->access_used;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (jit->accesses[middle]->at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < part->access_used && jit->accesses[low]->at == at ? jit->accesses[low] : NULL;
}

static bool on_fault(const void *hva, void *context)
{
    greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    struct jit *jit = running;
    struct jit_site *site = NULL;

    (void)hva;
    if (jit && (uint64_t)*rip - (uintptr_t)(jit->code + jit->exec_offset) < jit->code_bytes)
        site = jit_faults_find(
            jit, (uint32_t)((uintptr_t)*rip - (uintptr_t)(jit->code + jit->exec_offset)));
    if (!site)
        return false;
    jit->stats.faults++;
    *rip = (greg_t)(uintptr_t)(jit->code + jit->exec_offset + site->slow);
    return true;
}

bool jit_has_fsgsbase(void)
{
    const unsigned long hwcap2_fsgsbase = 1 << 1;

    return getauxval(AT_HWCAP2) & hwcap2_fsgsbase;
}

// As many as code memory can hold, each with its check and what is out of line.
int jit_faults_create(struct jit *jit)
{
    const size_t code_bytes_min = 12;
    size_t max = jit->code_bytes / code_bytes_min;
    int status = fault_handler_add(on_fault);
    void *accesses;

    if (status != 0)
        return status;
    // An array of pointers: NOLINTNEXTLINE(bugprone-sizeof-expression)
    accesses = mmap(NULL, max * sizeof(*jit->accesses), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (accesses == MAP_FAILED)
        return -errno;
    jit->accesses = accesses;
    jit->access_max = max;
    return 0;
}

void jit_faults_destroy(struct jit *jit)
{
    if (jit->accesses)
        // NOLINTNEXTLINE(bugprone-sizeof-expression)
        munmap(jit->accesses, jit->access_max * sizeof(*jit->accesses));
}

const struct jit *jit_faults_running(void)
{
    return running;
}

void jit_faults_enter(struct jit *jit)
{
    running = jit;
}

void jit_faults_leave(void)
{
    running = NULL;
}
