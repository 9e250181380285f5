// SPDX-License-Identifier: BSD-2-Clause
// A list whose links are neighbours' addresses combined, walked with a wrong neighbour.
// kind: wild-pointer or heap-buffer-overflow or heap-buffer-underflow or null-dereference
// access: read 8
// missed-by: memcheck asan
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

struct node {
    uintptr_t both;
    long value;
};

int main(void)
{
    struct node *nodes[3];
    for (int i = 0; i < 3; i++)
        nodes[i] = calloc(1, sizeof(struct node));
    nodes[0]->both = (uintptr_t)nodes[1];
    nodes[1]->both = (uintptr_t)nodes[0] ^ (uintptr_t)nodes[2];
    nodes[2]->both = (uintptr_t)nodes[1];
    uintptr_t before = TWIN((uintptr_t)nodes[2] + 0x1000000000, (uintptr_t)nodes[0]);
    struct node *next = (struct node *)(nodes[1]->both ^ before);
    USE(HIDE(next)->value);  // @access
    for (int i = 0; i < 3; i++)
        free(nodes[i]);
    return 0;
}
