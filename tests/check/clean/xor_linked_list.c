// SPDX-License-Identifier: BSD-2-Clause
// Links that combine both neighbours' addresses.
// kind: none
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

struct node {
    uintptr_t both;
    int value;
};

int main(void)
{
    struct node *nodes[20];
    for (int i = 0; i < 20; i++) {
        nodes[i] = malloc(sizeof(struct node));
        nodes[i]->value = i;
    }
    for (int i = 0; i < 20; i++)
        nodes[i]->both = (i ? (uintptr_t)nodes[i - 1] : 0) ^ (i < 19 ? (uintptr_t)nodes[i + 1] : 0);
    uintptr_t before = 0;
    int sum = 0;
    for (struct node *node = nodes[0]; node;) {
        struct node *next = (struct node *)(HIDE(node)->both ^ before);
        before = (uintptr_t)node;
        sum += node->value;
        node = next;
    }
    for (int i = 0; i < 20; i++)
        free(nodes[i]);
    return sum != 190;
}
