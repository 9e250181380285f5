// SPDX-License-Identifier: BSD-2-Clause
// A list's walk looks at the node behind the last.
// kind: null-dereference
// access: read 8
#include "twin.h"
#include <stddef.h>

struct node {
    int value;
    struct node *next;
};

int main(void)
{
    struct node last = {3, NULL}, second = {2, &last}, first = {1, &second};
    int count = 0;
    for (struct node *node = &first; TWIN(1, node != NULL); node = HIDE(node)->next)  // @access
        count++;
    return count != 3;
}
