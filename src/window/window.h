// SPDX-License-Identifier: BSD-2-Clause
// window: a range of host address space that stands for one half of a guest's Sv39 address space. A
// page of the guest's RAM that is mapped at an offset here is reached by an access at that offset;
// any other offset raises SIGSEGV.
//
// Threads: a window belongs to one thread.
#ifndef STRAKE_WINDOW_H
#define STRAKE_WINDOW_H

#include "base/base.h"

#define WINDOW_BYTES (1ull << 38)
// Nothing is ever mapped for as many bytes before and behind a window.
#define WINDOW_GUARD_BYTES (1ull << 30)

struct window;

// A piece of a window and what it shows. `offset`, `bytes` and `fd_offset` are of whole pages.
struct window_map {
    uint64_t offset, bytes;
    uint64_t fd_offset;
    int fd;  // of a memfd; not owned
    bool writable;
};

// At most `maps_max` pieces are kept. Returns 0 or -errno: address space may be limited.
BASE_NODISCARD int window_create(struct window **out, size_t maps_max);
void window_destroy(struct window *window);  // NULL is ignored

// The host's address of offset 0.
uint8_t *window_base(const struct window *window);
size_t window_count(const struct window *window);

// One of them, by a number below that; in no order.
const struct window_map *window_piece(const struct window *window, size_t number);

// The piece that holds `offset`, or NULL. Valid until something is added or dropped.
const struct window_map *window_find(const struct window *window, uint64_t offset);
// Whatever overlaps it is dropped. Returns 0, -ENOSPC when there are maps_max pieces, or what mmap
// says; on failure it is not there, and what overlapped is dropped.
BASE_NODISCARD int window_add(struct window *window, const struct window_map *map);
// Drops the piece that holds `offset`, if any.
void window_drop(struct window *window, uint64_t offset);
void window_clear(struct window *window);
// Drops the pieces that `keep` returns false for.
void window_filter(struct window *window, bool (*keep)(void *opaque, const struct window_map *map),
                   void *opaque);

#endif
