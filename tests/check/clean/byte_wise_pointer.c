// SPDX-License-Identifier: BSD-2-Clause
// A pointer is copied byte by byte, and sent through a pipe.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    long *value = malloc(sizeof(long)), *copy, *received;
    int ends[2];
    *value = 7;
    for (size_t i = 0; i < sizeof(value); i++)
        HIDE((char *)&copy)[i] = HIDE((char *)&value)[i];
    if (pipe(ends) || write(ends[1], &copy, sizeof(copy)) != sizeof(copy) ||
        read(ends[0], &received, sizeof(received)) != sizeof(received))
        return 1;
    *HIDE(received) += 1;
    int wrong = *value != 8 || received != value;
    free(received);
    return wrong;
}
