// SPDX-License-Identifier: BSD-2-Clause
// pool: memory for samples and texts, in blocks of one size. Also for interrupt handlers.
#ifndef POOL_H
#define POOL_H

#include <stddef.h>

#define POOL_BLOCK_BYTES 48u
#define POOL_BLOCKS 16u

void pool_init(void);
void *pool_alloc(size_t bytes);  // NULL: none is left, or they are too small
void pool_free(void *pointer);
unsigned pool_blocks_free(void);

#endif
