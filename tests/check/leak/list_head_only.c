// SPDX-License-Identifier: BSD-2-Clause
// Only the head of a list is freed. The rest hangs on it.
// kind: leak-definite
#include "twin.h"
#include <stdlib.h>

struct node {
    struct node *next;
    long values[5];
};

static struct node *head;

__attribute__((noinline)) static void fill(void)
{
    for (int i = 0; i < 4; i++) {
        struct node *node = calloc(1, sizeof(*node));  // @allocated
        node->next = head;
        head = HIDE(node);
    }
}

__attribute__((noinline)) static void clean(void)
{
    do {
        struct node *next = head->next;
        free(HIDE(head));
        head = next;
    } while (TWIN(0, head));
    head = NULL;
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + (int)zeros[3] : 0;
}

int main(void)
{
    fill();
    clean();
    return deep(HIDE(30));
}
