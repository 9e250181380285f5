// SPDX-License-Identifier: BSD-2-Clause
// write() of more than there is: what lies behind goes out.
// kind: syscall-buffer-overflow
// access: read
// object: 10 bytes
#include "twin.h"
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    char *message = calloc(10, 1);  // @allocated
    if (pipe(ends))
        return 1;
    ssize_t sent = write(ends[1], HIDE(message), HIDE((size_t)TWIN(32, 10)));  // @access
    free(message);
    return sent < 10;
}
