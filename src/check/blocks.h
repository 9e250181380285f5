// SPDX-License-Identifier: BSD-2-Clause
// blocks: texts of the program, looked through 16 bytes at a time, by work that is given up at any
// instruction (libc.h). Units have 1 or 4 bytes.
//
// Where a text ends is not known before it is found: blocks that are read reach behind the end, but
// never into another page.
#ifndef STRAKE_CHECK_BLOCKS_H
#define STRAKE_CHECK_BLOCKS_H

#include <emmintrin.h>

#include "check/libc.h"

#define PAGE_BYTES 4096u
#define BLOCK_BYTES 16u

ALONE static inline uint32_t block_unit(const uint8_t *at, unsigned unit_bytes)
{
    uint32_t wide;

    if (unit_bytes == 1)
        return *at;
    __builtin_memcpy(&wide, at, sizeof(wide));
    return wide;
}

ALONE static inline __m128i block_of(uint32_t unit, unsigned unit_bytes)
{
    return unit_bytes == 1 ? _mm_set1_epi8((char)unit) : _mm_set1_epi32((int)unit);
}

// A bit for each byte of the units that are equal.
ALONE static inline unsigned block_equal(__m128i block, __m128i to, unsigned unit_bytes)
{
    __m128i same = unit_bytes == 1 ? _mm_cmpeq_epi8(block, to) : _mm_cmpeq_epi32(block, to);
    return (unsigned)_mm_movemask_epi8(same);
}

// The first byte of the first of the units, which are aligned, that is a or b; at least `bytes`:
// none is.
ALONE static inline uint64_t block_scan(const uint8_t *from, uint64_t bytes, unsigned unit_bytes,
                                        uint32_t unit_a, uint32_t unit_b)
{
    const __m128i a = block_of(unit_a, unit_bytes), b = block_of(unit_b, unit_bytes);
    unsigned before = (uintptr_t)from % BLOCK_BYTES;
    __m128i block = _mm_load_si128((const __m128i *)(from - before));
    unsigned found =
        (block_equal(block, a, unit_bytes) | block_equal(block, b, unit_bytes)) >> before;
    uint64_t done = BLOCK_BYTES - before;

    if (found)
        return (unsigned)__builtin_ctz(found);
    for (; done < bytes; done += BLOCK_BYTES) {
        block = _mm_load_si128((const __m128i *)(from + done));
        found = block_equal(block, a, unit_bytes) | block_equal(block, b, unit_bytes);
        if (found)
            return done + (unsigned)__builtin_ctz(found);
    }
    return bytes;
}

ALONE static inline uint64_t block_page_rest(const uint8_t *at)
{
    return PAGE_BYTES - (uintptr_t)at % PAGE_BYTES;
}

// The first byte of the blocks that differs, or begins the text's end; BLOCK_BYTES: there is none.
ALONE static inline unsigned block_stops_at(const uint8_t *from, const uint8_t *other, bool text,
                                            unsigned unit_bytes)
{
    __m128i a = _mm_loadu_si128((const __m128i *)from);
    unsigned stops = ~block_equal(a, _mm_loadu_si128((const __m128i *)other), 1) & 0xffff;

    if (text)
        stops |= block_equal(a, _mm_setzero_si128(), unit_bytes);
    return stops ? (unsigned)__builtin_ctz(stops) : BLOCK_BYTES;
}

// The first byte of the first of the units that differ, or of the text's end; `bytes`: there is
// none.
ALONE static inline uint64_t block_compare(const uint8_t *from, const uint8_t *other,
                                           uint64_t bytes, unsigned unit_bytes, bool text)
{
    uint64_t done = 0;

    while (done < bytes) {
        const uint8_t *a = from + done, *b = other + done;
        if (bytes - done >= BLOCK_BYTES && block_page_rest(a) >= BLOCK_BYTES &&
            block_page_rest(b) >= BLOCK_BYTES) {
            unsigned same = block_stops_at(a, b, text, unit_bytes);
            done += same;
            if (same < BLOCK_BYTES)
                return done - done % unit_bytes;
            continue;
        }
        uint32_t unit = block_unit(a, unit_bytes);
        if (unit != block_unit(b, unit_bytes) || (text && unit == 0))
            return done;
        done += unit_bytes;
    }
    return bytes;
}

#endif
