// SPDX-License-Identifier: BSD-2-Clause
// A decoder of runs that believes its input about how much it makes.
// kind: heap-buffer-overflow
// access: write 1
// object: 20 bytes, at 20
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static size_t unpack(const char *packed, char *out, size_t room)
{
    size_t used = 0;
    for (; packed[0]; packed += 2)
        for (int i = 0; i < packed[0] - '0'; i++) {
            if (TWIN(0, used == room))
                return used;
            HIDE(out)[used++] = packed[1];  // @access
        }
    return used;
}

int main(void)
{
    char *out = malloc(20);  // @allocated
    size_t used = unpack(HIDE("3a5b9c8d"), out, 20);
    USE(used);
    free(out);
    return 0;
}
