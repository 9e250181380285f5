// SPDX-License-Identifier: BSD-2-Clause
// A failed search gives NULL, which is read.
// kind: null-dereference
// access: read 4
#include "twin.h"
#include <stddef.h>

struct entry {
    int key, value;
};

static struct entry *find(struct entry *entries, int count, int key)
{
    for (int i = 0; i < count; i++)
        if (entries[i].key == key)
            return &entries[i];
    return NULL;
}

int main(void)
{
    struct entry entries[] = {{1, 10}, {2, 20}};
    struct entry *found = find(entries, 2, HIDE(TWIN(3, 2)));
    USE(HIDE(found)->value);  // @access
    return 0;
}
