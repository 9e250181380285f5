// SPDX-License-Identifier: BSD-2-Clause
// A list of free blocks. strake_tag and strake_untag are all that it takes to have them checked; on
// the product they do nothing.
#include "pool.h"

#include "board.h"
#include "strake/guest.h"

union block {
    union block *next;  // while free
    _Alignas(16) unsigned char bytes[POOL_BLOCK_BYTES];
};

static union block blocks[POOL_BLOCKS], *first_free;
static unsigned free_count;

static void give(union block *block)
{
    uint64_t interrupts = board_interrupts_off();

    block->next = first_free;
    first_free = block;
    free_count++;
    board_interrupts_restore(interrupts);
}

static union block *take(void)
{
    uint64_t interrupts = board_interrupts_off();
    union block *block = first_free;

    if (block) {
        first_free = block->next;
        free_count--;
    }
    board_interrupts_restore(interrupts);
    return block;
}

void pool_init(void)
{
    for (unsigned i = 0; i < POOL_BLOCKS; i++)
        give(&blocks[i]);
}

void *pool_alloc(size_t bytes)
{
    union block *block = bytes <= POOL_BLOCK_BYTES ? take() : NULL;

    return block ? strake_tag(block, bytes) : NULL;
}

void pool_free(void *pointer)
{
    give(strake_untag(pointer));
}

unsigned pool_blocks_free(void)
{
    return free_count;
}
