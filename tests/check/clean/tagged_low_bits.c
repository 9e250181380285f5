// SPDX-License-Identifier: BSD-2-Clause
// The lowest bits of pointers hold something else.
// kind: none
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

enum { LEAF = 1, RED = 2, BITS = 7 };

struct node {
    uintptr_t left, right;
    long value;
};

static struct node *node_of(uintptr_t word)
{
    return (struct node *)(word & ~(uintptr_t)BITS);
}

int main(void)
{
    struct node *root = calloc(1, sizeof(*root)), *child = calloc(1, sizeof(*child));
    root->left = (uintptr_t)child | LEAF | RED;
    child->value = 5;
    if (!(root->left & RED) || node_of(HIDE(root->left))->value != 5)
        return 1;
    free(node_of(root->left));
    free(root);
    return 0;
}
