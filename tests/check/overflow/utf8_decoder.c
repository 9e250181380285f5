// SPDX-License-Identifier: BSD-2-Clause
// A decoder that trusts the length in a character's first byte.
// kind: heap-buffer-overflow
// access: read 1
// object: 4 bytes, at 4
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static unsigned decode(const unsigned char *at, size_t left)
{
    unsigned need = *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : *at >= 0xc0 ? 2 : 1;
    unsigned code = *at & 0x3f;
    if (TWIN(0, need > left))
        return 0xfffd;
    for (unsigned i = 1; i < need; i++)
        code = code << 6 | (HIDE(at)[i] & 0x3f);  // @access
    return code;
}

int main(void)
{
    unsigned char *text = malloc(4);  // @allocated
    memcpy(text, "ab\xe2\x82", 4);
    unsigned code = decode(HIDE(text) + 2, 2);
    USE(code);
    free(text);
    return 0;
}
