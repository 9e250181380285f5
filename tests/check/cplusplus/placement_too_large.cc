// SPDX-License-Identifier: BSD-2-Clause
// An object is made in place in a buffer too small for it.
// kind: heap-buffer-overflow
// access: write 8
// object: 32 bytes, at 32
#include "twin.h"
#include <cstdlib>
#include <new>

struct state {
    long values[4];
    long sum;
    explicit state(long first) : values{first}, sum(0)
    {
    }
};

int main()
{
    void *place = malloc(TWIN(sizeof(state::values), sizeof(state)));  // @allocated
    state *made = static_cast<state *>(HIDE(place));
    __asm__ volatile("" : : : "memory");
    made->sum = 5;  // @access
    free(place);
    return 0;
}
