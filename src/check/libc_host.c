// SPDX-License-Identifier: BSD-2-Clause
// What the host does in libc's place, on the program's memory. Other threads of the program may
// change it meanwhile, and unmap it: then this is given up in the middle of an instruction, so
// nothing here calls anything, and sanitizers, who are not told of either, do not look.
//
// Where a text ends is not known before it is found: blocks that are read reach behind the end, but
// never into another page.
#include <emmintrin.h>
#include <string.h>

#include "check/libc.h"

#define PAGE_BYTES 4096u
#define BLOCK_BYTES 16u

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

ALONE static uint32_t unit_at(const uint8_t *at, unsigned unit_bytes)
{
    uint32_t wide;

    if (unit_bytes == 1)
        return *at;
    __builtin_memcpy(&wide, at, sizeof(wide));
    return wide;
}

ALONE static __m128i repeated(uint32_t unit, unsigned unit_bytes)
{
    return unit_bytes == 1 ? _mm_set1_epi8((char)unit) : _mm_set1_epi32((int)unit);
}

// A bit for each byte of the units that are equal.
ALONE static unsigned equal(__m128i block, __m128i to, unsigned unit_bytes)
{
    __m128i same = unit_bytes == 1 ? _mm_cmpeq_epi8(block, to) : _mm_cmpeq_epi32(block, to);
    return (unsigned)_mm_movemask_epi8(same);
}

// The first byte of the first of the units, which are aligned, that is a or b; at least `bytes`:
// none is.
ALONE static uint64_t scan_blocks(const uint8_t *from, uint64_t bytes,
                                  const struct takeover_work *work)
{
    const unsigned unit_bytes = work->unit_bytes;
    const __m128i a = repeated(work->a, unit_bytes), b = repeated(work->b, unit_bytes);
    unsigned before = (uintptr_t)from % BLOCK_BYTES;
    __m128i block = _mm_load_si128((const __m128i *)(from - before));
    unsigned found = (equal(block, a, unit_bytes) | equal(block, b, unit_bytes)) >> before;
    uint64_t done = BLOCK_BYTES - before;

    if (found)
        return (unsigned)__builtin_ctz(found);
    for (; done < bytes; done += BLOCK_BYTES) {
        block = _mm_load_si128((const __m128i *)(from + done));
        found = equal(block, a, unit_bytes) | equal(block, b, unit_bytes);
        if (found)
            return done + (unsigned)__builtin_ctz(found);
    }
    return bytes;
}

ALONE static uint64_t scan_units(const struct takeover_work *work)
{
    uint64_t i = 0;

    for (; i < work->units; i++) {
        uint32_t unit = unit_at(work->from + i * work->unit_bytes, work->unit_bytes);
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
    uint64_t found = (uintptr_t)from % work->unit_bytes
                         ? scan_units(work)
                         : scan_blocks(from, units * work->unit_bytes, work) / work->unit_bytes;
    if (found >= units)
        return;
    work->found = found;
    work->at_from = unit_at(from + found * work->unit_bytes, work->unit_bytes);
}

ALONE void takeover_work_scan_back(void *argument)
{
    struct takeover_work *work = argument;
    const unsigned unit_bytes = work->unit_bytes;
    const __m128i wanted = repeated(work->a, unit_bytes);
    uint64_t bytes = work->units * unit_bytes;

    for (; bytes >= BLOCK_BYTES; bytes -= BLOCK_BYTES) {
        const uint8_t *block = work->from + bytes - BLOCK_BYTES;
        unsigned found = equal(_mm_loadu_si128((const __m128i *)block), wanted, unit_bytes);
        if (found) {
            unsigned last = 31 - (unsigned)__builtin_clz(found);
            work->found = (bytes - BLOCK_BYTES + last) / unit_bytes;
            return;
        }
    }
    for (; bytes > 0; bytes -= unit_bytes)
        if (unit_at(work->from + bytes - unit_bytes, unit_bytes) == work->a) {
            work->found = bytes / unit_bytes - 1;
            return;
        }
    work->found = work->units;
}

// ---- Comparing ----------------------------------------------------------------------------------

ALONE static uint64_t page_rest(const uint8_t *at)
{
    return PAGE_BYTES - (uintptr_t)at % PAGE_BYTES;
}

// The first byte of the blocks that differs, or begins the text's end; BLOCK_BYTES: there is none.
ALONE static unsigned compare_block(const uint8_t *from, const uint8_t *other, bool text,
                                    unsigned unit_bytes)
{
    __m128i a = _mm_loadu_si128((const __m128i *)from);
    unsigned stops = ~equal(a, _mm_loadu_si128((const __m128i *)other), 1) & 0xffff;

    if (text)
        stops |= equal(a, _mm_setzero_si128(), unit_bytes);
    return stops ? (unsigned)__builtin_ctz(stops) : BLOCK_BYTES;
}

ALONE void takeover_work_compare(void *argument)
{
    struct takeover_work *work = argument;
    const unsigned unit_bytes = work->unit_bytes;
    uint64_t bytes = work->units * unit_bytes, done = 0;

    while (done < bytes) {
        const uint8_t *from = work->from + done, *other = work->other + done;
        if (bytes - done >= BLOCK_BYTES && page_rest(from) >= BLOCK_BYTES &&
            page_rest(other) >= BLOCK_BYTES) {
            unsigned same = compare_block(from, other, work->text, unit_bytes);
            done += same;
            if (same == BLOCK_BYTES)
                continue;
            done -= done % unit_bytes;
            from = work->from + done;
            other = work->other + done;
        }
        work->at_from = unit_at(from, unit_bytes);
        work->at_other = unit_at(other, unit_bytes);
        if (work->at_from != work->at_other || (work->text && work->at_from == 0))
            break;
        done += unit_bytes;
    }
    work->found = done < bytes ? done / unit_bytes : work->units;
}
