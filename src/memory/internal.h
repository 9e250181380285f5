// SPDX-License-Identifier: BSD-2-Clause
// Inside the memory room: RAM that is shared with other partitions until it is written.
#ifndef STRAKE_MEMORY_INTERNAL_H
#define STRAKE_MEMORY_INTERNAL_H

#include "memory/memory.h"

struct memory_share;

// Maps what is still shared of `base` over ram->hva, which is mapped from ram->fd all over. Both
// descriptors pass to the share on success. 0 or a negative errno.
BASE_NODISCARD int memory_share_create(struct memory_share **out, const struct memory_ram *ram,
                                       const struct memory_base *base);
void memory_share_destroy(struct memory_share *share);  // NULL is ignored
// As destroy, but the descriptors stay open.
void memory_share_abandon(struct memory_share *share);
// Makes all of [offset, offset + length) own.
void memory_share_end(struct memory_share *share, uint64_t offset, uint64_t length_bytes);
// Grows [*start, *end), of the RAM, over own chunks only, around the chunk at `offset`, which is
// made own.
void memory_share_run(struct memory_share *share, uint64_t offset, uint64_t *start, uint64_t *end);
// The file that holds what is at `offset`, and in *length_bytes, which it cuts, how much of it.
int memory_share_file(const struct memory_share *share, uint64_t offset, uint64_t *length_bytes);
void memory_share_settle(struct memory_share *share);
// Nothing is shared any more: what was own is without meaning, the caller clears it.
void memory_share_drop(struct memory_share *share);

#endif
