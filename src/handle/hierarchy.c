// SPDX-License-Identifier: BSD-2-Clause
// The hierarchy of mapping tables. It only grows, so a table that was found once may be used until
// the end.
//
// What is missing (a leaf, with the tables between it and what is there already) is built where
// nobody sees it and then linked by one compare-and-swap, in an empty entry or as the new top. So
// lack of memory leaves nothing half done; who loses a race frees what it built, and finds the
// winner's; and resolvers see the hierarchy before or after, and resolve the same in both.
#include <string.h>

#include "internal.h"

static unsigned entry_of(uint32_t index, unsigned level)
{
    return index >> HANDLE_LEVEL_BITS * (level - 1) & (HANDLE_FANOUT - 1);
}

static unsigned levels_of(const char *root)
{
    uintptr_t bits = (uintptr_t)root;
    return bits & HANDLE_ROOT_3 ? 3 : bits & HANDLE_ROOT_2 ? 2 : bits ? 1 : 0;
}

static unsigned root_bits(unsigned levels)
{
    return levels == 3 ? HANDLE_ROOT_3 : levels == 2 ? HANDLE_ROOT_2 : 0;
}

static void *top_of(char *root)
{
    return root - root_bits(levels_of(root));
}

static void *table_make(struct handle_table *table, size_t bytes)
{
    const struct handle_allocator *allocator = &table->allocator;
    void *memory = allocator->allocate(allocator->opaque, HANDLE_LINE_BYTES, bytes);
    return memory ? memset(memory, 0, bytes) : NULL;
}

static void table_free(struct handle_table *table, void *memory)
{
    table->allocator.deallocate(table->allocator.opaque, memory);
}

static struct handle_leaf *leaf_make(struct handle_table *table)
{
    struct handle_leaf *leaf = table_make(table, sizeof(*leaf));
    if (leaf)
        memset(leaf->unused, 0xff, sizeof(leaf->unused));
    return leaf;
}

// Frees what branch_make made.
static void branch_free(struct handle_table *table, void *top, unsigned levels, uint32_t index)
{
    for (; levels > 1; levels--) {
        void *below = ((void **)top)[entry_of(index, levels)];
        table_free(table, top);
        top = below;
    }
    table_free(table, top);
}

// `levels` tables, each the only entry of the one above; the lowest is the leaf for `index`.
static void *branch_make(struct handle_table *table, unsigned levels, uint32_t index)
{
    void *top = leaf_make(table);
    for (unsigned level = 2; top && level <= levels; level++) {
        void **above = table_make(table, HANDLE_FANOUT * sizeof(*above));
        if (above)
            above[entry_of(index, level)] = top;
        else
            branch_free(table, top, level - 1, index);
        top = above;
    }
    return top;
}

// Puts a new top table above `root`, which becomes its entry zero. The swap releases: who sees the
// new root sees the tables filled.
static bool level_add(struct handle_table *table, char *root, uint32_t index)
{
    unsigned levels = levels_of(root) + 1;
    void **top = branch_make(table, levels, index);
    if (!top)
        return false;
    if (levels > 1)
        top[0] = top_of(root);
    HANDLE_STEP("a new level is built");
    if (!__atomic_compare_exchange_n(&table->root.root, &root, (char *)top + root_bits(levels),
                                     false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        branch_free(table, top, levels, index);
    HANDLE_STEP("a new level is linked");
    return true;
}

// Puts a new branch of `levels` levels in an empty entry. The swap releases, as above.
static bool branch_add(struct handle_table *table, void **entry, unsigned levels, uint32_t index)
{
    void *empty = NULL;
    void *branch = branch_make(table, levels, index);
    if (!branch)
        return false;
    HANDLE_STEP("a new branch is built");
    if (!__atomic_compare_exchange_n(entry, &empty, branch, false, __ATOMIC_RELEASE,
                                     __ATOMIC_RELAXED))
        branch_free(table, branch, levels, index);
    HANDLE_STEP("a new branch is linked");
    return true;
}

// Adds what keeps `index` from having a leaf, or finds that another thread just did.
static bool grow_once(struct handle_table *table, uint32_t index)
{
    char *root = __atomic_load_n(&table->root.root, __ATOMIC_ACQUIRE);
    unsigned levels = levels_of(root);
    if (levels == 0 || index >> HANDLE_LEVEL_BITS * levels)
        return level_add(table, root, index);

    void **tables = top_of(root);
    for (unsigned level = levels; level > 1; level--) {
        void **entry = &tables[entry_of(index, level)];
        tables = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
        if (!tables)
            return branch_add(table, entry, level - 1, index);
    }
    return true;
}

struct handle_leaf *handle_hierarchy_grow(struct handle_table *table, uint32_t index)
{
    struct handle_leaf *leaf = handle_leaf_find(&table->root, index);
    while (!leaf && grow_once(table, index))
        leaf = handle_leaf_find(&table->root, index);
    return leaf;
}

void *handle_hierarchy_find(const struct handle_table *table, unsigned level, uint32_t index)
{
    char *root = __atomic_load_n(&table->root.root, __ATOMIC_ACQUIRE);
    unsigned levels = levels_of(root);
    if (level > levels || index >> HANDLE_LEVEL_BITS * levels)
        return NULL;

    void *found = top_of(root);
    for (; found && levels > level; levels--)
        found = __atomic_load_n((void **)found + entry_of(index, levels), __ATOMIC_ACQUIRE);
    return found;
}

unsigned handle_hierarchy_levels(const struct handle_table *table)
{
    return levels_of(__atomic_load_n(&table->root.root, __ATOMIC_ACQUIRE));
}

// From the leaves up: to find a table takes only those above it.
void handle_hierarchy_free(struct handle_table *table)
{
    for (unsigned level = 1; level <= handle_hierarchy_levels(table); level++) {
        uint32_t index = 0;
        for (void *old; (old = handle_hierarchy_find(table, level, index));
             index += 1u << HANDLE_LEVEL_BITS * level)
            table_free(table, old);
    }
}
