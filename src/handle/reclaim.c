// SPDX-License-Identifier: BSD-2-Clause
// Read sections and deferred reclamation: all that we use of liburcu, in its `bp` flavour.
//
// Why bp: its threads need not be registered, so that handles can be resolved on threads that
// belong to a library or to the program. What that costs, and the other flavours, is in
// docs/handles.md.
#if defined(__has_feature)
#define CLANG_HAS(feature) __has_feature(feature)
#else
#define CLANG_HAS(feature) 0
#endif

// liburcu allows its read_lock and read_unlock to be inlined in any program. Inlined here, a read
// section costs its caller 3.5 ns, or 5.1 in the shared library; else 11.
// UndefinedBehaviorSanitizer, which we use with AddressSanitizer, finds liburcu's record of a
// reader less aligned than its type says, so there they are called.
#if !defined(__SANITIZE_ADDRESS__) && !CLANG_HAS(address_sanitizer)
#define _LGPL_SOURCE
#endif

#include <assert.h>
#include <urcu/urcu-bp.h>

#include "internal.h"

// ThreadSanitizer does not see into liburcu, so it is told what liburcu guarantees.
#if defined(__SANITIZE_THREAD__) || CLANG_HAS(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
static const char sections;  // stands for the end of any read section or reclamation
#define ORDER_BEFORE(what) __tsan_release((void *)(what))
#define ORDER_AFTER(what) __tsan_acquire((void *)(what))
#else
#define ORDER_BEFORE(what) ((void)0)
#define ORDER_AFTER(what) ((void)0)
#endif

// What a struct handle_deferred holds.
struct deferred {
    struct rcu_head head;
    struct handle_table *table;
};
static_assert(sizeof(struct deferred) == sizeof(struct handle_deferred),
              "the public size is right");

void handle_read_lock(void)
{
    urcu_bp_read_lock();
}

void handle_read_unlock(void)
{
    ORDER_BEFORE(&sections);
    urcu_bp_read_unlock();
}

void handle_synchronize(void)
{
    urcu_bp_synchronize_rcu();
    ORDER_AFTER(&sections);
}

static void reclaim_now(struct rcu_head *head)
{
    ORDER_AFTER(&sections);
    ORDER_AFTER(head);
    struct handle_table *table = ((struct deferred *)head)->table;
    const struct handle_options *options = &table->options;
    options->reclaim(options->opaque, (char *)head - options->deferred_offset_bytes);
    ORDER_BEFORE(&sections);
}

void handle_table_reclaim(struct handle_table *table, void *object)
{
    char *memory = (char *)object + table->options.deferred_offset_bytes;
    struct deferred *deferred = (struct deferred *)memory;
    deferred->table = table;
    ORDER_BEFORE(&deferred->head);
    urcu_bp_call_rcu(&deferred->head, reclaim_now);
}

// liburcu starts its thread at the first call_rcu, and ends the process when it cannot: better
// here, where the program still sets up, than in the middle of its work.
void handle_reclaim_start(void)
{
    (void)urcu_bp_get_default_call_rcu_data();
}

void handle_reclaim_finish(void)
{
    urcu_bp_barrier();
    ORDER_AFTER(&sections);
}
