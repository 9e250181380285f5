// SPDX-License-Identifier: BSD-2-Clause
// handle: names for objects, resolved without a lock.
//
// A handle is a number that stands for an object: a request in flight, a connection, a session. It
// can be given to a kernel, a guest or another process, and when it comes back, late or forged, it
// resolves to the object that it was issued for or to nothing.
//
// The shape is that of US 7,031,971: a handle is made of indices, one a level, into a hierarchy of
// mapping tables. The lowest level holds pointers to objects, each higher level pointers to tables.
// When the hierarchy is full, a new top table takes the old hierarchy as its entry zero: a handle
// issued before has zero as its new uppermost index, so it stays what it was, and whoever resolves
// it needs to know nothing of the growth. Generation, type and reference count are ours.
//
//      63              30 29   24 23                     0
//     +------------------+-------+------------------------+
//     |    generation    | type  |   8   |   8   |   8    |  index at each level
//     +------------------+-------+------------------------+
//
// Threads: every function may be called from any thread at any time, unless it says otherwise;
// threads need not be registered. No function takes a lock, but where it says so: a thread that is
// suspended anywhere in here keeps no other from finishing.
//
// Reclamation: liburcu in its `bp` flavour. Who uses the result of handle_table_resolve does so
// between handle_read_lock and handle_read_unlock, which nest, cost some five nanoseconds
// together and never wait. An object must stay what it is until a grace period has passed since its
// release: until every read section that was open then has ended.
#ifndef STRAKE_INSTALLED_HANDLE_H
#define STRAKE_INSTALLED_HANDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HANDLE_NODISCARD __attribute__((warn_unused_result))

#define HANDLE_INDEX_BITS 24
#define HANDLE_TYPE_BITS 6
#define HANDLE_GENERATION_BITS 34

#define HANDLE_LIVE_MAX (UINT32_C(1) << HANDLE_INDEX_BITS)        // handles that a table can hold
#define HANDLE_TYPE_MAX ((1u << HANDLE_TYPE_BITS) - 1)            // types are 1 to this; 0 is none
#define HANDLE_HELD_MAX ((UINT32_C(1) << HANDLE_INDEX_BITS) - 2)  // acquires of one handle

static inline uint32_t handle_index(uint64_t handle)
{
    return handle & (HANDLE_LIVE_MAX - 1);
}

static inline unsigned handle_type(uint64_t handle)
{
    return handle >> HANDLE_INDEX_BITS & HANDLE_TYPE_MAX;
}

static inline uint64_t handle_generation(uint64_t handle)
{
    return handle >> (HANDLE_INDEX_BITS + HANDLE_TYPE_BITS);
}

// ---- Read sections ------------------------------------------------------------------------------

// Opens and closes a read section of the calling thread. They nest. What was resolved inside stays
// valid until the outermost section ends. Inside, do not wait for a grace period:
// handle_synchronize and handle_table_destroy never return there. A thread's first section
// registers it with liburcu, which takes a lock for that.
void handle_read_lock(void);
void handle_read_unlock(void);

// Waits until every read section that is open now has ended. Not inside a read section.
void handle_synchronize(void);

// ---- Tables -------------------------------------------------------------------------------------

struct handle_table;

// Room for reclamation inside an object, needed only for tables with `reclaim`. The table uses it
// from the release of the object until `reclaim` is called.
struct handle_deferred {
    void *reserved[3];
};

// Where a table's memory comes from. allocate: `bytes` of memory aligned to `alignment`, or NULL.
// Both are called by any thread that allocates a handle, several at once.
struct handle_allocator {
    void *(*allocate)(void *opaque, size_t alignment, size_t bytes);
    void (*deallocate)(void *opaque, void *memory);
    void *opaque;
};

struct handle_options {
    // Handles that may be live at once, 1 to HANDLE_LIVE_MAX; 0 is HANDLE_LIVE_MAX. Below that the
    // limit is exact, and costs an atomic operation on one shared word at each alloc and release.
    uint32_t live_max;
    // Called once for each released object, after a grace period and after the last put, on a
    // thread of liburcu's, never on the caller's stack. NULL: released objects are the caller's.
    void (*reclaim)(void *opaque, void *object);
    void *opaque;
    // With `reclaim`: where in each object its struct handle_deferred is.
    size_t deferred_offset_bytes;
    // NULL: the C library's. Must outlive the table.
    const struct handle_allocator *allocator;
};

// Makes an empty table, without any mapping table yet. `options` may be NULL: all zero.
// Returns 0, -EINVAL (live_max out of range) or -ENOMEM; on failure *out is untouched.
// The first table with `reclaim` starts liburcu's thread.
HANDLE_NODISCARD int handle_table_create(struct handle_table **out,
                                         const struct handle_options *options);

// Frees the table. No other call on it may be under way or come after. Each object whose handle was
// not released, or is still held by an acquire (its handle then has type 0), is given to `leftover`
// first, when that is not NULL: it is the caller's. With `reclaim`, waits until what was released
// is reclaimed; not inside a read section, nor in `reclaim`. Returns the number left over. NULL is
// ignored.
uint32_t handle_table_destroy(struct handle_table *table,
                              void (*leftover)(void *opaque, uint64_t handle, void *object),
                              void *opaque);

// Issues a handle for `object` (not NULL, stays the caller's), of `type` 1 to HANDLE_TYPE_MAX. What
// was written to the object before is seen by whoever resolves the handle.
//
// No handle is issued twice: a slot whose generations are used up, after 2^34 - 2 handles, is never
// used again. A slot is used again late: only after all other slots of its mapping table have had
// their turn.
//
// Returns 0; -EINVAL; -ENOSPC when the limit is reached; -ENOMEM. On failure the table is as it was
// and *handle untouched. Lock-free, but for the allocator when the table grows.
HANDLE_NODISCARD int handle_table_alloc(struct handle_table *table, void *object, unsigned type,
                                        uint64_t *handle);

// Releases a handle: from now on it resolves to nothing. Its slot is free, and its object given to
// `reclaim`, as soon as nobody holds it by acquire; until then it counts as live. When two release
// the same handle, one succeeds.
//
// `object`, when not NULL, is set to the object. Of a table without `reclaim` it is now the
// caller's, who must still leave it alone for a grace period and until the last put; with
// `reclaim` it is valid only inside a read section that was open before the call.
//
// Returns 0, or -ENOENT and nothing is changed: the handle was released before, was never issued,
// or has another type. Lock-free.
int handle_table_release(struct handle_table *table, uint64_t handle, unsigned type, void **object);

// Resolves as handle_table_resolve, and holds the object: until handle_table_put it is not
// reclaimed, and its slot not used again. Needs no read section. Returns NULL also when the handle
// is held HANDLE_HELD_MAX times. Lock-free.
HANDLE_NODISCARD void *handle_table_acquire(struct handle_table *table, uint64_t handle,
                                            unsigned type);

// Undoes one acquire. Returns 0, or -ENOENT and nothing is changed: the handle is not held.
// Lock-free.
int handle_table_put(struct handle_table *table, uint64_t handle);

// Lets a live handle stand for another object. Returns 0 and the former object in *old, which is
// the caller's: it may be in use by resolvers for a grace period (handle_table_reclaim or
// handle_synchronize wait for them), and by whoever acquired it before. When another thread
// releases the handle at the same time, either that releases the new object or this fails. Returns
// -EINVAL
// (`object` is NULL) or -ENOENT as for release, and nothing is changed. Lock-free.
HANDLE_NODISCARD int handle_table_replace(struct handle_table *table, uint64_t handle,
                                          unsigned type, void *object, void **old);

// Gives an object that came out of handle_table_replace to the table's `reclaim` after a grace
// period. For tables with `reclaim` only, and objects that nobody holds by acquire any more.
void handle_table_reclaim(struct handle_table *table, void *object);

// Calls `visit` for the live handles, in a read section: once for each that is live throughout,
// perhaps for those that come and go meanwhile. `visit` may call anything on the table but destroy.
// When it returns other than 0, that ends the walk and is returned; else 0.
int handle_table_for_each(struct handle_table *table,
                          int (*visit)(void *opaque, uint64_t handle, void *object), void *opaque);

struct handle_stats {
    uint32_t live;      // handles issued and not free again
    uint32_t live_max;  // limit on that
    uint32_t capacity;  // slots in the mapping tables there are
    uint32_t levels;    // 0 before the first handle, 3 at most
    uint32_t tables;    // mapping tables, of all levels
    uint64_t bytes;     // what all of it occupies, less the allocator's own overhead
};

// Counts. Takes time in proportion to the capacity; exact when nothing else goes on.
void handle_table_stats(struct handle_table *table, struct handle_stats *stats);

// ---- Resolving ----------------------------------------------------------------------------------
//
// Resolving is in this header, because a call would cost as much again as the work. What follows is
// thus part of the library's binary interface; read it, but use only handle_table_resolve.

#define HANDLE_LEVEL_BITS 8
#define HANDLE_FANOUT (1u << HANDLE_LEVEL_BITS)
#define HANDLE_HELD_MASK ((UINT64_C(1) << HANDLE_INDEX_BITS) - 1)
#define HANDLE_TYPE_MASK ((uint64_t)HANDLE_TYPE_MAX << HANDLE_INDEX_BITS)
// The word for one handle. `tag` is as the handle, with the number of acquires in place of the
// index; its type is 0 from release until the next alloc, which takes the next generation.
struct handle_slot {
    uint64_t tag;
    void *object;
};

// A table of the lowest level. A set bit of `unused`, which is on a line that no resolver reads, is
// a slot that may be allocated.
struct handle_leaf {
    struct handle_slot slots[HANDLE_FANOUT];
    uint64_t unused[HANDLE_FANOUT / 64];
    uint64_t padding[8 - HANDLE_FANOUT / 64];
};

// What resolvers need of a table: the address of the top table, with the number of levels in its
// lowest bits, so that one load gives both. NULL is one level without its leaf.
struct handle_root {
    char *root;
};
#define HANDLE_ROOT_2 1u  // the bit is set: two levels
#define HANDLE_ROOT_3 2u  // three levels

// The entry of an upper table: a load-acquire, which pairs with the compare-and-swap that linked
// the table below. What the table held then is seen, or newer.
static inline void *handle_entry(const void *table, uint32_t at)
{
    return __atomic_load_n((void *const *)table + (at & (HANDLE_FANOUT - 1)), __ATOMIC_ACQUIRE);
}

// The leaf that holds `index`, or NULL.
static inline struct handle_leaf *handle_leaf_find(const struct handle_root *table, uint32_t index)
{
    char *root = __atomic_load_n(&table->root, __ATOMIC_ACQUIRE);
    uintptr_t levels = (uintptr_t)root & (HANDLE_ROOT_2 | HANDLE_ROOT_3);
    if (levels == 0)
        return index >> 8 ? NULL : (struct handle_leaf *)root;
    if (levels == HANDLE_ROOT_2)
        return index >> 16 ? NULL
                           : (struct handle_leaf *)handle_entry(root - HANDLE_ROOT_2, index >> 8);
    void *middle = handle_entry(root - HANDLE_ROOT_3, index >> 16);
    return middle ? (struct handle_leaf *)handle_entry(middle, index >> 8) : NULL;
}

// The object that `handle` was issued for, when it is live and of `type`, else NULL. Any number is
// allowed as handle. Call it, and use the result, inside a read section. Wait-free: at most six
// loads, and no store.
//
// The tag is read on both sides of the object, because a slot may be released and used again at any
// time. That both are the handle's means that the object between them is the handle's also:
// - the first is read with acquire, so the object read after it is this generation's or later;
// - a later object is stored (release) only after the tag has left this generation. Whoever reads
//   that object (acquire) cannot read the earlier tag after it.
// The generation does not come back, so there is nothing to try again.
static inline void *handle_table_resolve(const struct handle_table *table, uint64_t handle,
                                         unsigned type)
{
    uint32_t index = handle_index(handle);
    struct handle_leaf *leaf = handle_leaf_find((const struct handle_root *)table, index);
    if (!leaf)
        return NULL;

    struct handle_slot *slot = &leaf->slots[index % HANDLE_FANOUT];
    uint64_t before = __atomic_load_n(&slot->tag, __ATOMIC_ACQUIRE);
    void *object = __atomic_load_n(&slot->object, __ATOMIC_ACQUIRE);
    uint64_t after = __atomic_load_n(&slot->tag, __ATOMIC_RELAXED);
    if ((before ^ handle) > HANDLE_HELD_MASK || (after ^ handle) > HANDLE_HELD_MASK)
        return NULL;
    return handle_type(handle) == type && type != 0 ? object : NULL;
}

#ifdef __cplusplus
}
#endif

#endif
