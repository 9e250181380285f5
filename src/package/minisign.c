// SPDX-License-Identifier: BSD-2-Clause
// Lines of minisign's files.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "package/minisign.h"

#define LINE_MAX_CHARS 512u  // the longest, a secret key, has 212

const char *minisign_line(struct minisign_reader *reader, const char *prefix, size_t *length)
{
    const char *line = reader->at, *end = memchr(line, '\n', (size_t)(reader->end - line));
    size_t before = strlen(prefix);

    if (!end || (size_t)(end - line) < before || memcmp(line, prefix, before) != 0)
        return NULL;
    *length = (size_t)(end - line) - before;
    if (memchr(line, '\0', (size_t)(end - line)) || memchr(line, '\r', (size_t)(end - line)))
        return NULL;
    reader->at = end + 1;
    return line + before;
}

bool minisign_line_bytes(struct minisign_reader *reader, void *bytes, size_t length)
{
    char again[LINE_MAX_CHARS];
    size_t chars, got;
    const char *line = minisign_line(reader, "", &chars);

    if (!line || chars >= sizeof(again) ||
        sodium_base642bin(bytes, length, line, chars, NULL, &got, NULL,
                          sodium_base64_VARIANT_ORIGINAL) < 0 ||
        got != length)
        return false;
    // libsodium 1.0.18 takes some bytes above 127 for letters; there is one way to write a key.
    minisign_encode(again, sizeof(again), bytes, length);
    bool same = strlen(again) == chars && memcmp(again, line, chars) == 0;
    sodium_memzero(again, sizeof(again));
    return same;
}

void minisign_encode(char *text, size_t capacity, const void *bytes, size_t length)
{
    sodium_bin2base64(text, capacity, bytes, length, sodium_base64_VARIANT_ORIGINAL);
}

// As minisign prints it: a little-endian number.
void minisign_id_format(char text[PACKAGE_KEY_ID_CHARS], const uint8_t id[MINISIGN_ID_BYTES])
{
    uint64_t number = 0;

    for (unsigned i = 0; i < MINISIGN_ID_BYTES; i++)
        number |= (uint64_t)id[i] << 8 * i;
    snprintf(text, PACKAGE_KEY_ID_CHARS, "%016" PRIX64, number);
}
