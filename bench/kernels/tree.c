// SPDX-License-Identifier: BSD-2-Clause
// tree: a search tree of nodes of three words is built, searched, halved, and taken down; then
// many small complete trees, as short-lived as those of a parser.
#include <stdlib.h>

#include "kernel.h"

enum { KEYS = 1 << 19, SMALL_DEPTH = 8, SMALL_TREES = 2000 };

struct node {
    struct node *child[2];
    uint64_t key;
};

static struct node *node_new(uint64_t key, struct node *left, struct node *right)
{
    struct node *node = malloc(sizeof(*node));

    if (!node)
        abort();
    *node = (struct node){.child = {left, right}, .key = key};
    return node;
}

// Where a node with the key is, or would be.
static struct node **find(struct node **link, uint64_t key)
{
    while (*link && (*link)->key != key)
        link = &(*link)->child[key > (*link)->key];
    return link;
}

static void take_out(struct node **link)
{
    struct node *node = *link, **next = &node->child[1];

    if (node->child[0] && node->child[1]) {
        while ((*next)->child[0])
            next = &(*next)->child[0];
        node->key = (*next)->key;
        link = next;
        node = *next;
    }
    *link = node->child[node->child[0] == NULL];
    free(node);
}

// Takes the tree down; what was in it.
static uint64_t take_down(struct node *node)
{
    uint64_t sum = 0;

    if (node) {
        sum = kernel_mix(take_down(node->child[0]), node->key) + take_down(node->child[1]);
        free(node);
    }
    return sum;
}

static struct node *complete(unsigned depth, uint64_t key)
{
    return depth == 0
               ? NULL
               : node_new(key, complete(depth - 1, 2 * key), complete(depth - 1, 2 * key + 1));
}

static uint64_t search_tree(uint64_t random)
{
    uint64_t start = random, found = 0;
    struct node *root = NULL;

    for (size_t i = 0; i < KEYS; i++) {
        uint64_t key = kernel_random(&random);
        struct node **link = find(&root, key);
        if (!*link)
            *link = node_new(key, NULL, NULL);
    }
    random = start;
    for (size_t i = 0; i < KEYS; i++) {
        struct node **link = find(&root, kernel_random(&random) ^ (i % 4 == 0));
        found += *link != NULL;
        if (*link && i % 2)
            take_out(link);
    }
    return kernel_mix(found, take_down(root));
}

uint64_t kernel_run(unsigned long rounds)
{
    uint64_t sum = 0;

    for (unsigned long round = 0; round < rounds; round++) {
        sum = kernel_mix(sum, search_tree(10 + round));
        for (unsigned i = 0; i < SMALL_TREES; i++)
            sum = kernel_mix(sum, take_down(complete(SMALL_DEPTH, i)));
    }
    return sum;
}
