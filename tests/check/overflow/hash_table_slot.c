// SPDX-License-Identifier: BSD-2-Clause
// The hash of a key was not reduced to the size of the table.
// kind: heap-buffer-overflow
// access: read 8
// object: 136 bytes
// missed-by: memcheck asan
#include "twin.h"
#include <stdlib.h>
#include <string.h>

#define SLOTS 17

struct table {
    const char *slots[SLOTS];
};

static unsigned hash(const char *key)
{
    unsigned value = 5381;
    while (*key)
        value = value * 33 + (unsigned char)*key++;
    return value % 1000;
}

static const char *table_find(struct table *table, const char *key)
{
    return HIDE(table)->slots[hash(key) TWIN(, % SLOTS)];  // @access
}

int main(void)
{
    char *before = calloc(1, 16384);
    struct table *table = calloc(1, sizeof(*table));  // @allocated
    char *behind = calloc(1, 16384);
    const char *found = table_find(table, HIDE("apricot"));
    USE(found);  // @access
    free(before);
    free(table);
    free(behind);
    return 0;
}
