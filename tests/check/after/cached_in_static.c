// SPDX-License-Identifier: BSD-2-Clause
// A cache in a static variable outlives what it shows.
// kind: heap-use-after-free
// access: read 8
// object: 32 bytes, at 24
#include "twin.h"
#include <stdlib.h>

struct entry {
    long key[3];
    long value;
};

static struct entry *cached;

static struct entry *entry_make(long key)
{
    struct entry *entry = calloc(1, sizeof(*entry));  // @allocated
    entry->key[0] = key;
    cached = HIDE(entry);
    return entry;
}

static void entry_drop(struct entry *entry)
{
    free(entry);  // @freed
    if (TWIN(0, 1))
        cached = NULL;
}

int main(void)
{
    entry_drop(entry_make(HIDE(5L)));
    if (cached) {
        long value = HIDE(cached)->value;  // @access
        USE(value);                        // @access
    }
    return 0;
}
