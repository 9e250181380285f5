// SPDX-License-Identifier: BSD-2-Clause
// Mapping, and knowing what is mapped. Pieces are in an array; two sparse tables give the piece at
// an address, one a page for pieces that are not of whole 2 MiB blocks, one a block for those that
// are. Both are address space that the host backs where it is used only.
#include "window/window.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE_SHIFT 12
#define BLOCK_SHIFT 21
#define PAGES (WINDOW_BYTES >> PAGE_SHIFT)
#define BLOCKS (WINDOW_BYTES >> BLOCK_SHIFT)
#define BLOCK_PAGES (1u << (BLOCK_SHIFT - PAGE_SHIFT))

// One more than the index of a piece; 0: none.
struct tables {
    uint32_t page[PAGES];
    uint32_t block[BLOCKS];
    uint16_t small[BLOCKS];  // pages that page[] has something for
};

struct window {
    uint8_t *base;
    struct tables *tables;
    struct window_map *maps;
    uint32_t count, max;
};

static void *reserve(size_t bytes, int protection)
{
    return mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

int window_create(struct window **out, size_t maps_max)
{
    struct window *window = calloc(1, sizeof(*window));
    uint8_t *range;

    if (!window || maps_max > UINT32_MAX - 1 ||
        !(window->maps = calloc(maps_max, sizeof(*window->maps)))) {
        free(window);
        return -ENOMEM;
    }
    window->max = (uint32_t)maps_max;
    range = reserve(WINDOW_BYTES + 2 * WINDOW_GUARD_BYTES, PROT_NONE);
    window->tables = reserve(sizeof(*window->tables), PROT_READ | PROT_WRITE);
    window->base = range + WINDOW_GUARD_BYTES;
    if (range != MAP_FAILED && window->tables != MAP_FAILED) {
        *out = window;
        return 0;
    }
    if (range != MAP_FAILED)
        munmap(range, WINDOW_BYTES + 2 * WINDOW_GUARD_BYTES);
    if (window->tables != MAP_FAILED)
        munmap(window->tables, sizeof(*window->tables));
    free(window->maps);
    free(window);
    return -ENOMEM;
}

void window_destroy(struct window *window)
{
    if (!window)
        return;
    munmap(window->base - WINDOW_GUARD_BYTES, WINDOW_BYTES + 2 * WINDOW_GUARD_BYTES);
    munmap(window->tables, sizeof(*window->tables));
    free(window->maps);
    free(window);
}

uint8_t *window_base(const struct window *window)
{
    return window->base;
}

size_t window_count(const struct window *window)
{
    return window->count;
}

const struct window_map *window_piece(const struct window *window, size_t number)
{
    return &window->maps[number];
}

static bool of_blocks(const struct window_map *map)
{
    return ((map->offset | map->bytes) & ((1ull << BLOCK_SHIFT) - 1)) == 0;
}

// Makes the tables say `entry` wherever `map` is.
static void index_map(struct window *window, const struct window_map *map, uint32_t entry)
{
    struct tables *tables = window->tables;
    uint64_t first = map->offset >> PAGE_SHIFT, end = first + (map->bytes >> PAGE_SHIFT);

    if (of_blocks(map)) {
        for (uint64_t block = first / BLOCK_PAGES; block < end / BLOCK_PAGES; block++)
            tables->block[block] = entry;
        return;
    }
    for (uint64_t page = first; page < end; page++) {
        tables->small[page / BLOCK_PAGES] += !tables->page[page];
        tables->page[page] = entry;
        tables->small[page / BLOCK_PAGES] -= !entry;
    }
}

// The index of the piece at `offset`, plus one.
static uint32_t entry_at(const struct window *window, uint64_t offset)
{
    uint32_t entry = window->tables->block[offset >> BLOCK_SHIFT];

    if (entry || !window->tables->small[offset >> BLOCK_SHIFT])
        return entry;
    return window->tables->page[offset >> PAGE_SHIFT];
}

const struct window_map *window_find(const struct window *window, uint64_t offset)
{
    uint32_t entry = entry_at(window, offset);

    return entry ? &window->maps[entry - 1] : NULL;
}

static bool hide(struct window *window, uint64_t offset, uint64_t bytes)
{
    return mmap(window->base + offset, bytes, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

static void forget(struct window *window, uint32_t index)
{
    struct window_map *map = &window->maps[index], *last = &window->maps[window->count - 1];

    index_map(window, map, 0);
    if (map != last) {
        *map = *last;
        index_map(window, map, index + 1);
    }
    window->count--;
}

void window_drop(struct window *window, uint64_t offset)
{
    uint32_t entry = entry_at(window, offset);

    if (!entry)
        return;
    // Hiding a part may need more mappings than the process is allowed; hiding all never does.
    if (hide(window, window->maps[entry - 1].offset, window->maps[entry - 1].bytes))
        forget(window, entry - 1);
    else
        window_clear(window);
}

// Block by block, and page by page where a block has pages.
static void drop_range(struct window *window, uint64_t offset, uint64_t bytes)
{
    const uint64_t block_bytes = 1ull << BLOCK_SHIFT, page_bytes = 1ull << PAGE_SHIFT;
    uint64_t end = offset + bytes, step;

    for (; offset < end; offset += step) {
        window_drop(window, offset);
        step = window->tables->small[offset >> BLOCK_SHIFT] ? page_bytes
                                                            : block_bytes - offset % block_bytes;
    }
}

int window_add(struct window *window, const struct window_map *map)
{
    const uint64_t populate_max = 1ull << 16;
    int flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
    int protection = PROT_READ | (map->writable ? PROT_WRITE : 0);

    drop_range(window, map->offset, map->bytes);
    if (window->count == window->max)
        return -ENOSPC;
    if (map->bytes <= populate_max)
        flags |= MAP_POPULATE;
    if (mmap(window->base + map->offset, map->bytes, protection, flags, map->fd,
             (off_t)map->fd_offset) == MAP_FAILED) {
        int status = -errno;
        if (!hide(window, map->offset, map->bytes))
            window_clear(window);
        return status;
    }
    window->maps[window->count++] = *map;
    index_map(window, map, window->count);
    return 0;
}

void window_clear(struct window *window)
{
    // What is shown must not stay, and the range must not be free for others: nothing to go on
    // with.
    if (!hide(window, 0, WINDOW_BYTES))
        abort();
    for (uint32_t i = 0; i < window->count; i++)
        index_map(window, &window->maps[i], 0);
    window->count = 0;
}

void window_filter(struct window *window, bool (*keep)(void *opaque, const struct window_map *map),
                   void *opaque)
{
    for (uint32_t i = window->count; i-- > 0;)
        if (i < window->count && !keep(opaque, &window->maps[i]))
            window_drop(window, window->maps[i].offset);
}
