// SPDX-License-Identifier: BSD-2-Clause
// search: words in a text, byte by byte, by Horspool's table of skips and by the Knuth-Morris-Pratt
// automaton; all three must find the same. Byte loads and branches that mostly go one way.
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { BYTES = 1 << 18, PATTERNS = 8, LONGEST = 16 };

static size_t count_naive(const uint8_t *text, const uint8_t *pattern, size_t length)
{
    size_t found = 0;

    for (size_t at = 0; at + length <= BYTES; at++) {
        size_t same = 0;
        while (same < length && text[at + same] == pattern[same])
            same++;
        found += same == length;
    }
    return found;
}

static size_t count_horspool(const uint8_t *text, const uint8_t *pattern, size_t length)
{
    size_t skips[256], found = 0;

    for (int byte = 0; byte < 256; byte++)
        skips[byte] = length;
    for (size_t i = 0; i + 1 < length; i++)
        skips[pattern[i]] = length - 1 - i;
    for (size_t at = 0; at + length <= BYTES; at += skips[text[at + length - 1]]) {
        size_t left = length;
        while (left > 0 && text[at + left - 1] == pattern[left - 1])
            left--;
        found += left == 0;
    }
    return found;
}

static size_t count_kmp(const uint8_t *text, const uint8_t *pattern, size_t length)
{
    size_t borders[LONGEST + 1], found = 0;

    borders[0] = 0;
    borders[1] = 0;
    for (size_t i = 1, border = 0; i < length; i++) {
        while (border > 0 && pattern[border] != pattern[i])
            border = borders[border];
        border += pattern[border] == pattern[i];
        borders[i + 1] = border;
    }
    for (size_t at = 0, same = 0; at < BYTES; at++) {
        while (same > 0 && (same == length || pattern[same] != text[at]))
            same = borders[same];
        same += pattern[same] == text[at];
        found += same == length;
    }
    return found;
}

// Letters and spaces, about as unequal in number as in a language.
static void fill(uint8_t *text, uint64_t *random)
{
    static const char letters[] = "      eeeeetttaaaooiinnsshrrdlucmfwypvbgk";

    for (size_t i = 0; i < BYTES; i++)
        text[i] = (uint8_t)letters[kernel_random(random) % (sizeof(letters) - 1)];
}

uint64_t kernel_run(unsigned long rounds)
{
    static uint8_t text[BYTES];
    uint64_t random = 4, sum = 0;

    fill(text, &random);
    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < PATTERNS; i++) {
            uint8_t pattern[LONGEST];
            size_t length = 3 + kernel_random(&random) % (LONGEST - 2);
            memcpy(pattern, text + kernel_random(&random) % (BYTES - LONGEST), length);
            size_t found = count_naive(text, pattern, length);
            if (count_horspool(text, pattern, length) != found ||
                count_kmp(text, pattern, length) != found)
                abort();
            sum = kernel_mix(sum, found << 8 | length);
        }
    }
    return sum;
}
