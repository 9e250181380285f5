// SPDX-License-Identifier: BSD-2-Clause
// An index comes from a peer.
// kind: heap-buffer-overflow
// access: write 4
// object: 40 bytes, at 80
#include "twin.h"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(void)
{
    int ends[2];
    char text[16] = "20";
    int *counts = calloc(10, sizeof(int));  // @allocated
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || send(ends[0], text, 2, 0) != 2)
        return 1;
    memset(text, 0, sizeof(text));
    if (recv(ends[1], text, sizeof(text) - 1, 0) != 2)
        return 2;
    int index = atoi(text);
    if (index >= 0 && TWIN(1, index < 10))
        HIDE(counts)[index] = 1;  // @access
    free(counts);
    return 0;
}
