// SPDX-License-Identifier: BSD-2-Clause
// A list's head points to a node on the stack of the function that linked it.
// kind: dead-stack-use
// access: read 8
#include "twin.h"
#include <stdlib.h>

struct node {
    long value;
    struct node *next;
    long reserved[14];
};

__attribute__((noinline)) static void link_node(struct node **head, struct node *lasting)
{
    struct node local = {7, *head, {0}};
    *lasting = local;
    *head = TWIN(HIDE(&local), lasting);
}

int main(void)
{
    struct node lasting, *head = NULL;
    link_node(HIDE(&head), &lasting);
    USE(HIDE(head)->value);  // @access
    return 0;
}
