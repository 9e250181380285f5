// SPDX-License-Identifier: BSD-2-Clause
// A list is freed by looking for the next node in the one that was just freed.
// kind: heap-use-after-free
// access: read 8
// object: 16 bytes, at 0
#include "twin.h"
#include <stdlib.h>

struct node {
    struct node *next;
    int value;
};

static void list_free(struct node *node)
{
    while (node) {
        struct node *next = HIDE(node)->next;
        free(HIDE(node));                     // @freed
        node = TWIN(HIDE(node)->next, next);  // @access
    }
}

int main(void)
{
    struct node *head = NULL;
    for (int i = 0; i < 3; i++) {
        struct node *node = malloc(sizeof(*node));  // @allocated
        node->next = head;
        node->value = i;
        head = node;
    }
    list_free(head);
    return 0;
}
