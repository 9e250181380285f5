// SPDX-License-Identifier: BSD-2-Clause
// A node of a list that was allocated without room for its payload.
// kind: heap-buffer-overflow
// access: write 8
// object: 8 bytes, at 8
#include "twin.h"
#include <stdlib.h>

struct node {
    struct node *next;
    long payload;
};

int main(void)
{
    struct node *head = NULL;
    for (int i = 0; i < 5; i++) {
        size_t bytes =
            HIDE(i) == 3 ? TWIN(sizeof(void *), sizeof(struct node)) : sizeof(struct node);
        struct node *node = malloc(bytes);  // @allocated
        node->next = head;
        HIDE(node)->payload = i;  // @access
        head = node;
    }
    while (head) {
        struct node *next = head->next;
        free(head);
        head = next;
    }
    return 0;
}
