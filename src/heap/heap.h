// SPDX-License-Identifier: BSD-2-Clause
// heap: the emulator's memory manager: what a checked program's malloc and free are, and what is
// known of its objects. docs/checked-memory.md tells the design.
//
// Threads: all calls from any thread, unless it says otherwise; of calls with a struct heap_thread
// one at a time. A call neither blocks signals nor may be interrupted by another call of the same
// thread. No pointer, size or alignment that a program makes up does harm.
#ifndef STRAKE_HEAP_H
#define STRAKE_HEAP_H

#include "base/base.h"
#include "memory/memory.h"

#define HEAP_CHUNK_BYTES 65536u
#define HEAP_BYTES_MAX (1ull << 37)  // of a space

// Where objects are: [gva, gva + bytes) of the program's addresses, multiples of HEAP_CHUNK_BYTES,
// in which nothing else is. Nothing is mapped there at first. The calls are made on the thread that
// allocates or frees, with locks of the heap held: they must not call it.
struct heap_space {
    uint64_t gva, bytes;
    // Maps a part, readable and writable, and zero. 0 or a negative errno: the heap is full.
    int (*map)(void *opaque, uint64_t gva, uint64_t bytes);
    // Of a part that `map` gave: the program cannot access it any more, its memory goes back.
    void (*unmap)(void *opaque, uint64_t gva, uint64_t bytes);
    // Contents, for calloc and realloc: the program may have changed protections or be unmapping it
    // behind the heap's back. 0 or -EFAULT.
    int (*zero)(void *opaque, uint64_t gva, uint64_t bytes);
    int (*copy)(void *opaque, uint64_t to, uint64_t from, uint64_t bytes);
    // The host address of a part that `map` gave, for the byte behind an object that ends within a
    // granule (MEMORY_IDENTIFIER_PARTIAL). Stores there may fault. NULL, or that it returns NULL:
    // there are no such entries.
    void *(*hva)(void *opaque, uint64_t gva, uint64_t bytes);
    // A heap that is not small asks `map` for as many bytes at a time, so that they may lie in huge
    // pages: a multiple of HEAP_CHUNK_BYTES. 0: only for what it needs.
    uint64_t step_bytes;
    void *opaque;
};

struct heap;
struct heap_thread;  // of the program: its caches of free memory

// The struct is copied; `identifiers` stays the caller's, must reach over all of the space, and has
// no other objects than the heap's. -EINVAL: the space is not as described; -ENOMEM; what
// fault_handler_add says.
BASE_NODISCARD int heap_create(struct heap **out, const struct heap_space *space,
                               const struct memory_identifiers *identifiers, struct error *err);
// With all its threads; when no thread calls any more. What is mapped stays. NULL is ignored.
void heap_destroy(struct heap *heap);

BASE_NODISCARD int heap_thread_create(struct heap *heap, struct heap_thread **out);
// What it has cached goes to the others. Its history is kept. NULL is ignored.
void heap_thread_destroy(struct heap_thread *thread);

// Around fork(), on the thread that makes it: between the two no other thread has the heap half
// changed. `thread` is that thread's; in the child (`child`) the others are gone, and what they had
// cached is lost to it.
void heap_fork_begin(struct heap *heap);
void heap_fork_end(struct heap_thread *thread, bool child);

// ---- Objects ------------------------------------------------------------------------------------

// Who may free an object.
enum heap_family {
    HEAP_MALLOC,     // free, realloc
    HEAP_NEW,        // operator delete
    HEAP_NEW_ARRAY,  // operator delete[]
    HEAP_NAMED,      // the first pair that the command line names; the others follow
    HEAP_NAMED_LAST = 31,
    HEAP_ANY,  // for heap_free: whoever allocated it
};

// Who called, and where: a number that means something to the caller (room check: a stack in its
// depot, and a thread). 0: not known.
#define HEAP_WHO_MAX ((1u << 26) - 1)

struct heap_request {
    uint64_t bytes;      // 0: an object without a byte, with an address of its own
    uint64_t alignment;  // a power of two; 0 and what is less than 16 are 16
    enum heap_family family;
    bool zero;
    uint32_t who;
};

struct heap_object {
    uint64_t gva, bytes;
    uint16_t identifier;
    enum heap_family family;
    bool live;
    bool reallocated;  // it ended by realloc
    uint32_t allocated_by, freed_by;
};

// What an access, or a free, is that is not allowed.
enum heap_fault {
    HEAP_FINE,
    HEAP_OVERFLOW,   // at or beyond the end of the pointer's object
    HEAP_UNDERFLOW,  // before its start
    HEAP_USE_AFTER_FREE,
    HEAP_USE_AFTER_REALLOC,
    HEAP_DOUBLE_FREE,
    HEAP_INTERIOR_FREE,    // not the start of a live object
    HEAP_INVALID_FREE,     // of what is no object
    HEAP_MISMATCHED_FREE,  // of another family's object
    HEAP_WILD,             // a pointer that belongs to nothing that is known
};

struct heap_finding {
    enum heap_fault fault;
    uint16_t pointer_identifier, memory_identifier;  // the latter 0: no object has that memory
    bool has_object, has_memory;
    struct heap_object object;  // that the pointer belongs, or belonged, to
    int64_t offset;             // of the pointer, from the start of `object`
    struct heap_object memory;  // that the address lies in, or lay in
};

// A new object; *pointer carries its identifier. 0, -EINVAL: the alignment is no power of two;
// -ENOMEM; -EFAULT: it cannot be zeroed.
BASE_NODISCARD int heap_allocate(struct heap_thread *thread, const struct heap_request *request,
                                 uint64_t *pointer);
// A free(pointer) by `who`; 0 and -EINVAL, with *finding (may be NULL) and nothing changed. A null
// pointer is fine.
BASE_NODISCARD int heap_free(struct heap_thread *thread, uint64_t pointer, enum heap_family family,
                             uint32_t who, struct heap_finding *finding);
// Such a call is about to be made: what it will look at is far apart, and is fetched into the
// processor's caches meanwhile.
void heap_expect_free(const struct heap *heap, uint64_t pointer);
// The object `pointer` as a new one, with as much of its contents as fits; the old one has ended,
// even when it lies where the new one does. A null pointer: heap_allocate. The request's alignment
// and `zero` do not count; HEAP_ANY as its family is the old one's. 0; -EINVAL as heap_free,
// -ENOMEM, -EFAULT with nothing changed.
BASE_NODISCARD int heap_reallocate(struct heap_thread *thread, uint64_t pointer,
                                   const struct heap_request *request, uint64_t *out,
                                   struct heap_finding *finding);

// ---- Looking ------------------------------------------------------------------------------------

// May `pointer` be used for an access to `bytes` from it on? Exact, for when the inline comparison
// has found a difference, for accesses that cross a granule, and for buffers of system calls.
bool heap_allows(struct heap *heap, uint64_t pointer, uint64_t bytes);
// What is wrong with such an access. Dear, and exact while the other threads are stopped.
void heap_diagnose(struct heap *heap, uint64_t pointer, uint64_t bytes,
                   struct heap_finding *finding);
// The object that has, or had last, the memory at the address. False: none.
bool heap_find(const struct heap *heap, uint64_t gva, struct heap_object *object);
// The bytes of the live object that starts at `pointer`; 0: there is none.
uint64_t heap_usable_bytes(const struct heap *heap, uint64_t pointer);

struct heap_stats {
    uint64_t live_objects, live_bytes;
    uint64_t held_bytes;     // of the space, in spans: what objects are, can be, and were made of
    uint64_t idle_bytes;     // of these, in spans without an object
    uint64_t retired_slots;  // in spans: all generations of them are used up
    uint64_t rounds;         // how often all addresses of the space have been used
};
void heap_get_stats(struct heap *heap, struct heap_stats *stats);

// ---- Leaks --------------------------------------------------------------------------------------
//
// While all other threads of the program are stopped. A word is a pointer to an object when it
// carries the object's identifier and its address, or the address alone, as programs have it that
// use the top bits themselves: that makes the object possibly lost only.

enum heap_leak {
    HEAP_LEAK_DEFINITE,  // nothing points to it
    HEAP_LEAK_INDIRECT,  // only what is lost points to it
    HEAP_LEAK_POSSIBLE,  // nothing points to its start
};

struct heap_scan;
// `read` copies `bytes` of the program's memory, of a multiple of 8; 0 or -EFAULT: none of it holds
// a pointer.
BASE_NODISCARD int heap_scan_create(struct heap *heap,
                                    int (*read)(void *opaque, uint64_t gva, void *to,
                                                uint64_t bytes),
                                    void *opaque, struct heap_scan **out);
// Roots: memory that is not the heap's, and registers. 0 or -ENOMEM.
BASE_NODISCARD int heap_scan_memory(struct heap_scan *scan, uint64_t gva, uint64_t bytes);
BASE_NODISCARD int heap_scan_word(struct heap_scan *scan, uint64_t word);
// After the last root: `found` is called for each object that is lost, in the order of addresses.
// 0 or -ENOMEM.
BASE_NODISCARD int heap_scan_leaks(struct heap_scan *scan,
                                   void (*found)(void *opaque, const struct heap_object *object,
                                                 enum heap_leak leak),
                                   void *opaque);
void heap_scan_destroy(struct heap_scan *scan);  // NULL is ignored

#endif
