// SPDX-License-Identifier: BSD-2-Clause
// What is mapped where: ranges, sorted and apart from each other, each of a module. A module is
// made once for a file, however often it is mapped, and stays, since frames point to its strings.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check/internal.h"

struct mapping {
    uint64_t gva, end, offset;
    struct module_node *node;
};

struct module_node {
    struct list list;
    struct check_module *module;
};

struct check_symbols {
    pthread_mutex_t lock;
    atomic_uint generation;
    char *sysroot;
    struct mapping *mappings;
    size_t count, room;
    struct list modules;
    struct check_strings strings;
};

int check_symbols_create(struct check_symbols **out, const char *sysroot)
{
    struct check_symbols *symbols = calloc(1, sizeof(*symbols));

    if (!symbols)
        return -ENOMEM;
    symbols->sysroot = sysroot ? strdup(sysroot) : NULL;
    if (sysroot && !symbols->sysroot) {
        free(symbols);
        return -ENOMEM;
    }
    pthread_mutex_init(&symbols->lock, NULL);
    list_init(&symbols->modules);
    *out = symbols;
    return 0;
}

void check_symbols_destroy(struct check_symbols *symbols)
{
    if (!symbols)
        return;
    LIST_FOR_EACH(&symbols->modules, list)
    {
        struct module_node *node = BASE_CONTAINER_OF(list, struct module_node, list);
        check_module_destroy(node->module);
        free(node);
    }
    check_strings_fini(&symbols->strings);
    pthread_mutex_destroy(&symbols->lock);
    free(symbols->mappings);
    free(symbols->sysroot);
    free(symbols);
}

void check_symbols_lock(struct check_symbols *symbols)
{
    pthread_mutex_lock(&symbols->lock);
}

void check_symbols_unlock(struct check_symbols *symbols)
{
    LIST_FOR_EACH(&symbols->modules, list)
    {
        check_module_close(BASE_CONTAINER_OF(list, struct module_node, list)->module);
    }
    pthread_mutex_unlock(&symbols->lock);
}

unsigned check_symbols_generation(const struct check_symbols *symbols)
{
    return atomic_load_explicit(&symbols->generation, memory_order_acquire);
}

static struct module_node *module_for(struct check_symbols *symbols, const char *name,
                                      const char *path)
{
    LIST_FOR_EACH(&symbols->modules, list)
    {
        struct module_node *node = BASE_CONTAINER_OF(list, struct module_node, list);
        if (check_module_is(node->module, name, path))
            return node;
    }
    struct module_node *node = calloc(1, sizeof(*node));
    if (!node || check_module_create(&node->module, name, path, symbols->sysroot) < 0) {
        free(node);
        return NULL;
    }
    list_append(&symbols->modules, &node->list);
    return node;
}

// The first mapping that ends above an address.
static size_t mapping_above(const struct check_symbols *symbols, uint64_t gva)
{
    size_t low = 0, high = symbols->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (symbols->mappings[middle].end > gva)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

// Puts `count` mappings in the place of [first, last). There is room.
static void replace(struct check_symbols *symbols, size_t first, size_t last,
                    const struct mapping *by, size_t count)
{
    memmove(symbols->mappings + first + count, symbols->mappings + last,
            (symbols->count - last) * sizeof(*by));
    memcpy(symbols->mappings + first, by, count * sizeof(*by));
    symbols->count += count - (last - first);
}

static void map_over(struct check_symbols *symbols, const struct mapping *added)
{
    size_t first = mapping_above(symbols, added->gva), last = first, count = 0;
    struct mapping by[3];

    while (last < symbols->count && symbols->mappings[last].gva < added->end)
        last++;
    if (first < last && symbols->mappings[first].gva < added->gva) {
        by[count] = symbols->mappings[first];
        by[count++].end = added->gva;
    }
    if (added->node)
        by[count++] = *added;
    if (first < last && symbols->mappings[last - 1].end > added->end) {
        by[count] = symbols->mappings[last - 1];
        by[count].offset += added->end - by[count].gva;
        by[count++].gva = added->end;
    }
    replace(symbols, first, last, by, count);
}

static int make_room(struct check_symbols *symbols)
{
    if (symbols->room >= symbols->count + 2)
        return 0;
    size_t room = 2 * symbols->room + 16;
    void *mappings = reallocarray(symbols->mappings, room, sizeof(*symbols->mappings));
    if (!mappings)
        return -ENOMEM;
    symbols->mappings = mappings;
    symbols->room = room;
    return 0;
}

int check_symbols_map(struct check_symbols *symbols, uint64_t gva, uint64_t bytes, const char *name,
                      const char *path, uint64_t offset)
{
    struct mapping added = {.gva = gva, .end = gva + bytes, .offset = offset};

    if (bytes > UINT64_MAX - gva)
        return -EINVAL;
    if (bytes == 0)
        return 0;
    check_symbols_lock(symbols);
    added.node = name ? module_for(symbols, name, path) : NULL;
    int rc = name && !added.node ? -ENOMEM : make_room(symbols);
    if (rc == 0) {
        map_over(symbols, &added);
        atomic_fetch_add_explicit(&symbols->generation, 1, memory_order_release);
    }
    check_symbols_unlock(symbols);
    return rc;
}

struct check_module *check_symbols_find(struct check_symbols *symbols, uint64_t gva,
                                        uint64_t *address)
{
    size_t index = mapping_above(symbols, gva);

    if (index == symbols->count || symbols->mappings[index].gva > gva)
        return NULL;
    const struct mapping *mapping = &symbols->mappings[index];
    struct check_module *module = mapping->node->module;
    uint64_t offset = gva - mapping->gva + mapping->offset;
    // Of a file that is no program, its offsets are the addresses.
    if (!check_module_address(module, offset, address))
        *address = offset;
    return module;
}

size_t check_symbols_resolve(struct check_symbols *symbols, uint64_t place,
                             struct check_frame *frames, size_t max)
{
    uint64_t address, pc = check_place_pc(place);

    memset(frames, 0, max * sizeof(*frames));
    check_symbols_lock(symbols);
    struct check_module *module = check_symbols_find(symbols, place, &address);
    size_t count =
        module ? check_module_resolve(module, address, &symbols->strings, frames, max) : 0;
    count = count ? count : 1;
    for (size_t i = 0; i < count; i++) {
        struct check_frame *frame = &frames[i];
        frame->pc = pc;
        frame->function = check_strings_clean(&symbols->strings, frame->function);
        frame->file = check_strings_clean(&symbols->strings, frame->file);
        frame->module =
            module ? check_strings_clean(&symbols->strings, check_module_name(module)) : NULL;
        frame->module_offset = module ? address + (pc - place) : 0;
    }
    check_symbols_unlock(symbols);
    return count;
}
