// SPDX-License-Identifier: BSD-2-Clause
// nft: the host's packet filter, through libnftables. Private to this room.
//
// Threads: one at a time.
#ifndef STRAKE_LEVERAGE_NFT_H
#define STRAKE_LEVERAGE_NFT_H

#include <jansson.h>

#include "base/base.h"

struct nft;

// `changed` (NULL: of no interest) is called when anybody may have changed something.
BASE_NODISCARD int nft_create(struct nft **out, struct loop *loop, void (*changed)(void *opaque),
                              void *opaque, struct error *err);
void nft_destroy(struct nft *nft);  // NULL is ignored

// Tables with `flags owner` that were made here last as long as this descriptor, or one made of it
// by dup or passed to another process, is open. It is the owner's; it is of no other use.
int nft_lifeline(const struct nft *nft);

// Runs commands of nft(8) as one transaction: all of it is done, or nothing.
BASE_NODISCARD int nft_run(struct nft *nft, const char *commands, struct error *err);

// Whether `text`, the value of the option `key`, is an expression that packets can be matched by.
// Nothing is changed.
BASE_NODISCARD int nft_check_expression(struct nft *nft, const char *key, const char *text,
                                        struct error *err);

// Names of tables of the family netdev.
typedef void nft_table_fn(void *opaque, const char *name);
BASE_NODISCARD int nft_each_table(struct nft *nft, nft_table_fn *fn, void *opaque,
                                  struct error *err);
// Named counters of a table of the family netdev.
typedef void nft_counter_fn(void *opaque, const char *name, uint64_t packets, uint64_t bytes);
BASE_NODISCARD int nft_each_counter(struct nft *nft, const char *table, nft_counter_fn *fn,
                                    void *opaque, struct error *err);

#endif
