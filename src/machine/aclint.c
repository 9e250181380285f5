// SPDX-License-Identifier: BSD-2-Clause
// Machine-level software interrupts (MSWI) and timers (MTIMER). Source: RISC-V ACLINT 1.0-rc4, with
// the register offsets of a SiFive CLINT, which it is backward compatible with (section 1.3).
//
// The registers' contents live in the harts. mtime is the host's monotonic clock: a write to it is
// ignored, since time_offset is fixed while harts run.
#include "machine/devices.h"

enum {
    ACLINT_MSIP = 0x0,         // 4 bytes a hart
    ACLINT_MTIMECMP = 0x4000,  // 8 bytes a hart
    ACLINT_MTIME = 0xbff8,
};

static uint64_t half_read(uint64_t value, uint64_t offset, unsigned width_bytes)
{
    return width_bytes == 8 ? value : (uint32_t)(value >> (offset & 4) * 8);
}

static uint64_t half_write(uint64_t old, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    unsigned shift = (offset & 4) * 8;

    return width_bytes == 8 ? value : (old & ~(0xffffffffull << shift)) | value << shift;
}

// The hart whose `stride_bytes` wide register is at `offset` from the first, or NULL.
static struct hart *hart_at(const struct aclint *aclint, uint64_t offset, unsigned stride_bytes)
{
    return offset / stride_bytes < aclint->count ? aclint->harts[offset / stride_bytes] : NULL;
}

static uint64_t aclint_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct aclint *aclint = device;
    struct hart *hart;

    if (offset >= ACLINT_MTIME)
        return offset < ACLINT_MTIME + 8
                   ? half_read(hart_time(aclint->harts[0]), offset, width_bytes)
                   : 0;
    if (offset >= ACLINT_MTIMECMP) {
        hart = hart_at(aclint, offset - ACLINT_MTIMECMP, 8);
        return hart ? half_read(atomic_load(&hart->mtimecmp), offset, width_bytes) : 0;
    }
    hart = hart_at(aclint, offset, 4);
    return hart && (atomic_load(&hart->mip_lines) & HART_IRQ_MSIP);
}

static void aclint_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct aclint *aclint = device;
    struct hart *hart;

    pthread_mutex_lock(&aclint->lock);
    if (offset >= ACLINT_MTIMECMP) {
        hart = hart_at(aclint, offset - ACLINT_MTIMECMP, 8);
        if (hart)
            hart_set_mtimecmp(hart,
                              half_write(atomic_load(&hart->mtimecmp), offset, width_bytes, value));
    } else {
        hart = hart_at(aclint, offset, 4);
        if (hart)
            hart_set_lines(hart, HART_IRQ_MSIP, value & 1);
    }
    pthread_mutex_unlock(&aclint->lock);
}

const struct memory_device_ops aclint_ops = {.read = aclint_read, .write = aclint_write};

void aclint_init(struct aclint *aclint, struct hart *const *harts, unsigned count)
{
    *aclint = (struct aclint){.harts = harts, .count = count};
    pthread_mutex_init(&aclint->lock, NULL);
}

void aclint_reset(void *device)
{
    struct aclint *aclint = device;

    for (unsigned i = 0; i < aclint->count; i++) {
        hart_set_lines(aclint->harts[i], HART_IRQ_MSIP, false);
        hart_set_mtimecmp(aclint->harts[i], UINT64_MAX);
    }
}

void aclint_fini(void *device)
{
    struct aclint *aclint = device;

    pthread_mutex_destroy(&aclint->lock);
}
