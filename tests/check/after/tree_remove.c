// SPDX-License-Identifier: BSD-2-Clause
// A node of a tree is freed while its parent still points to it.
// kind: heap-use-after-free
// access: read 4
// object: 24 bytes, at 16
#include "twin.h"
#include <stdlib.h>

struct tree {
    struct tree *left, *right;
    int key;
};

static struct tree *insert(struct tree *tree, int key)
{
    if (!tree) {
        tree = calloc(1, sizeof(*tree));  // @allocated
        tree->key = key;
    } else if (key < HIDE(tree)->key) {  // @access
        tree->left = insert(tree->left, key);
    } else {
        tree->right = insert(tree->right, key);
    }
    return tree;
}

static void drop_left(struct tree *tree)
{
    free(tree->left);  // @freed
    if (TWIN(0, 1))
        tree->left = NULL;
}

int main(void)
{
    struct tree *root = insert(insert(NULL, 10), 5);
    drop_left(HIDE(root));
    insert(root, 3);
    free(root->left);
    free(root);
    return 0;
}
