// SPDX-License-Identifier: BSD-2-Clause
// The pointer goes through three levels of others before it is used.
// kind: heap-buffer-overflow
// access: write 1
// object: 50 bytes, at 60
#include "twin.h"
#include <stdlib.h>

struct inner {
    char *bytes;
};

struct outer {
    struct inner *inner;
    size_t at;
};

__attribute__((noinline)) static void sink(struct outer **outer)
{
    HIDE((*outer)->inner)->bytes[(*outer)->at] = 1;  // @access
}

int main(void)
{
    struct inner inner = {malloc(50)};  // @allocated
    struct outer outer = {&inner, TWIN(60, 40)}, *pointer = &outer;
    sink(HIDE(&pointer));
    free(inner.bytes);
    return 0;
}
