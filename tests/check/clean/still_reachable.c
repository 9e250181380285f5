// SPDX-License-Identifier: BSD-2-Clause
// What a static variable still points to at the end is no leak; nor what hangs on it.
// kind: none
#include "twin.h"
#include <stdlib.h>

struct node {
    struct node *next;
    void *data;
};

static struct node *list;
static _Thread_local void *own;
void *aligned;

int main(void)
{
    for (int i = 0; i < 10; i++) {
        struct node *node = malloc(sizeof(*node));
        node->next = list;
        node->data = malloc(100);
        list = HIDE(node);
    }
    own = malloc(10);
    return posix_memalign(&aligned, 1024, 50);
}
