// SPDX-License-Identifier: BSD-2-Clause
// The address of a member instead of its structure's.
// kind: interior-free
// object: 32 bytes, at 16
#include "twin.h"
#include <stddef.h>
#include <stdlib.h>

struct link {
    struct link *next, *previous;
};

struct job {
    long id, priority;
    struct link link;
};

int main(void)
{
    struct job *job = calloc(1, sizeof(*job));  // @allocated
    struct link *link = HIDE(&job->link);
    free(TWIN((char *)link, (char *)link - offsetof(struct job, link)));  // @access
    return 0;
}
