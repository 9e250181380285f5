// SPDX-License-Identifier: BSD-2-Clause
// What the host does in libc's place, on the program's memory. Other threads of the program may
// change it meanwhile, and unmap it: then this is given up in the middle of an instruction, so
// nothing here calls anything, and sanitizers, who are not told of either, do not look.
#include <string.h>

#include "check/blocks.h"

// ---- Copying, filling ---------------------------------------------------------------------------

// All is read before anything is written, so overlaps do no harm.
#define COPY_ENDS(type, to, from, bytes)                                                           \
    do {                                                                                           \
        type first, last;                                                                          \
        __builtin_memcpy(&first, from, sizeof(first));                                             \
        __builtin_memcpy(&last, (from) + (bytes) - sizeof(last), sizeof(last));                    \
        __builtin_memcpy(to, &first, sizeof(first));                                               \
        __builtin_memcpy((to) + (bytes) - sizeof(last), &last, sizeof(last));                      \
    } while (0)

ALONE static void copy_few(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    if (bytes >= 16)
        COPY_ENDS(__m128i, to, from, bytes);
    else if (bytes >= 8)
        COPY_ENDS(uint64_t, to, from, bytes);
    else if (bytes >= 4)
        COPY_ENDS(uint32_t, to, from, bytes);
    else if (bytes >= 2)
        COPY_ENDS(uint16_t, to, from, bytes);
    else if (bytes == 1)
        *to = *from;
}

// From the end on, for what overlaps with what comes before it.
ALONE static void copy_back(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    for (; bytes > 2 * BLOCK_BYTES; bytes -= BLOCK_BYTES) {
        const uint8_t *block = from + bytes - BLOCK_BYTES;
        _mm_storeu_si128((__m128i *)(to + bytes - BLOCK_BYTES),
                         _mm_loadu_si128((const __m128i *)block));
    }
    copy_few(to, from, bytes);
}

ALONE void takeover_work_copy(void *argument)
{
    const struct takeover_work *work = argument;
    uint8_t *to = work->to;
    const uint8_t *from = work->from;
    uint64_t bytes = work->units * work->unit_bytes;

    if (bytes <= 2 * BLOCK_BYTES)
        copy_few(to, from, bytes);
    else if ((uint64_t)(to - from) < bytes)
        copy_back(to, from, bytes);
    else
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

ALONE void takeover_work_fill(void *argument)
{
    const struct takeover_work *work = argument;
    uint8_t *to = work->to;
    uint64_t units = work->units;

    if (work->unit_bytes == 1)
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(units) : "a"(work->a) : "memory");
    else
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(units) : "a"(work->a) : "memory");
}

// ---- Looking ------------------------------------------------------------------------------------

ALONE static uint64_t scan_units(const struct takeover_work *work)
{
    uint64_t i = 0;

    for (; i < work->units; i++) {
        uint32_t unit = block_unit(work->from + i * work->unit_bytes, work->unit_bytes);
        if (unit == work->a || unit == work->b)
            break;
    }
    return i;
}

ALONE void takeover_work_scan(void *argument)
{
    struct takeover_work *work = argument;
    const uint8_t *from = work->from;
    uint64_t units = work->units;

    work->found = units;
    if (units == 0)
        return;
    uint64_t found =
        (uintptr_t)from % work->unit_bytes
            ? scan_units(work)
            : block_scan(from, units * work->unit_bytes, work->unit_bytes, work->a, work->b) /
                  work->unit_bytes;
    if (found >= units)
        return;
    work->found = found;
    work->at_from = block_unit(from + found * work->unit_bytes, work->unit_bytes);
}

ALONE void takeover_work_scan_back(void *argument)
{
    struct takeover_work *work = argument;
    const unsigned unit_bytes = work->unit_bytes;
    const __m128i wanted = block_of(work->a, unit_bytes);
    uint64_t bytes = work->units * unit_bytes;

    for (; bytes >= BLOCK_BYTES; bytes -= BLOCK_BYTES) {
        const uint8_t *block = work->from + bytes - BLOCK_BYTES;
        unsigned found = block_equal(_mm_loadu_si128((const __m128i *)block), wanted, unit_bytes);
        if (found) {
            unsigned last = 31 - (unsigned)__builtin_clz(found);
            work->found = (bytes - BLOCK_BYTES + last) / unit_bytes;
            return;
        }
    }
    for (; bytes > 0; bytes -= unit_bytes)
        if (block_unit(work->from + bytes - unit_bytes, unit_bytes) == work->a) {
            work->found = bytes / unit_bytes - 1;
            return;
        }
    work->found = work->units;
}

// ---- Comparing ----------------------------------------------------------------------------------

ALONE void takeover_work_compare(void *argument)
{
    struct takeover_work *work = argument;
    const unsigned unit_bytes = work->unit_bytes;
    uint64_t bytes = work->units * unit_bytes;
    uint64_t same = block_compare(work->from, work->other, bytes, unit_bytes, work->text);

    work->found = same / unit_bytes;
    if (same == bytes)
        return;
    work->at_from = block_unit(work->from + same, unit_bytes);
    work->at_other = block_unit(work->other + same, unit_bytes);
}
