// SPDX-License-Identifier: BSD-2-Clause
// Numbers and words as users write them.
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

// A decimal number that starts at `text`; *end is set behind it.
static int parse_number(const char *text, unsigned long long *number, char **end, struct error *err)
{
    bool digit = *text >= '0' && *text <= '9';
    *end = (char *)text;
    errno = 0;
    *number = digit ? strtoull(text, end, 10) : 0;
    if (digit && !errno)
        return 0;
    return error_set(err, digit ? -ERANGE : -EINVAL, "not a number in range");
}

int parse_unsigned(unsigned *out, const char *text, struct error *err)
{
    unsigned long long number;
    char *end;
    int rc = parse_number(text, &number, &end, err);
    if (rc < 0)
        return rc;
    if (*end || number > UINT_MAX)
        return error_set(err, -EINVAL, "not a number in range");
    *out = (unsigned)number;
    return 0;
}

static const char units[] = "KMGT";

int parse_bytes(uint64_t *out, const char *text, struct error *err)
{
    unsigned long long number;
    char *end;
    int rc = parse_number(text, &number, &end, err);
    if (rc == -EINVAL)
        return rc;
    const char *unit = strchr(units, *end ? *end & ~0x20 : 'M');
    if (!unit || (*end && end[1]))
        return error_set(err, -EINVAL, "not a size such as 512M or 2G");
    unsigned shift = 10 * (unsigned)(unit - units + 1);
    // What is absurd is so for whoever uses it, and is refused there.
    bool absurd = rc < 0 || number > UINT64_MAX >> shift;
    *out = absurd ? UINT64_MAX : (uint64_t)number << shift;
    return 0;
}

void format_bytes(char *text, size_t capacity, uint64_t bytes)
{
    const char *unit = units;
    uint64_t number = bytes >> 10;
    for (; unit[1] && number > 0 && number % 1024 == 0; unit++)
        number >>= 10;
    snprintf(text, capacity, "%" PRIu64 "%c", number, *unit);
}

int parse_mac(uint8_t mac[6], const char *text, struct error *err)
{
    uint8_t bytes[6];
    bool good = strlen(text) == MAC_TEXT_BYTES - 1;
    for (size_t i = 0; good && i < sizeof(bytes); i++) {
        const char *digits = text + 3 * i;
        char *end;
        bytes[i] = (uint8_t)strtoul(digits, &end, 16);
        good = isxdigit((unsigned char)*digits) && end == digits + 2 && *end == (i < 5 ? ':' : 0);
    }
    if (!good)
        return error_set(err, -EINVAL, "\"%s\" is no MAC address", text);
    memcpy(mac, bytes, sizeof(bytes));
    return 0;
}

void format_mac(char text[MAC_TEXT_BYTES], const uint8_t mac[6])
{
    snprintf(text, MAC_TEXT_BYTES, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
}
