// SPDX-License-Identifier: BSD-2-Clause
// The handle table's life of a slot and its growth, for Spin. handle.md says which line of the code
// each part stands for, what is left out, and why. One statement is one access to shared memory.
//
// Two workers alloc, resolve, release; a reader resolves or acquires what they share and what it
// guesses. What is checked are the assertions; MUTANT_... break the code in ways that they must find.

#define WORKERS 2
// Two sizes keep the number of states in bounds: one slot, that is there from the start, used again
// and again (REUSE); and growth to two levels with three leaves of one slot each.
#ifdef REUSE
#define LEAF_SLOTS 1
#define TOP_ENTRIES 1
#define ROUNDS 2
#else
#define LEAF_SLOTS 1
#define TOP_ENTRIES 3
#define ROUNDS 1
#endif
#define LEAVES 4      // tables that memory has room for: those, and what may lose a race
#define TOPS 2
#define OBJECTS (WORKERS * ROUNDS + 1) // object 0 is none

// The words of table.c: generation, type and, in a handle, the index or, in a tag, the holders.
#define WORD(g, t, low) ((g) * 32 + (t) * 8 + (low))
#define GENERATION(word) ((word) / 32)
#define TYPE(word) (((word) / 8) % 4)
#define LOW(word) ((word) % 8)
#define MATCH(tag, handle) ((tag) / 8 == (handle) / 8)

// root: 0, or 8 + leaf for one level, or 16 + top for two. An entry of a top: 0, or leaf + 1.
byte root;
byte entry[TOPS * TOP_ENTRIES];
byte unused[LEAVES]; // bits
byte fresh;          // words (here: leaves) that were ever allocated from
short tag[LEAVES * LEAF_SLOTS];
byte object[LEAVES * LEAF_SLOTS];

bool leaf_used[LEAVES]; // by memory's allocator
bool top_used[TOPS];
short shared[WORKERS];  // a handle of each worker's

// Ghosts: what no code knows, to say what is right.
bool owned[LEAVES * LEAF_SLOTS];
short name[OBJECTS];    // the handle that the object was given
bool retired[OBJECTS];  // handed to call_rcu,
bool awaited[OBJECTS];  // while the reader's section was open
byte objects = 1;
bool reading;           // the reader is in a read section
#define FREED(o) (retired[o] && !awaited[o])

// Values that no longer matter would only multiply the states.
inline forget() {
    d_step {
        r = 0; found = 0; new_leaf = 0; new_top = 0; word = 0; mask = 0;
        before = 0; after = 0; seen = 0
    }
}

// ---- handle_leaf_find: `found` is leaf + 1 or 0 -------------------------------------------------

inline find(index) {
    r = root;
    if
    :: r >= 16 -> found = entry[(r - 16) * TOP_ENTRIES + (index) / LEAF_SLOTS]
    :: r >= 8 && r < 16 && (index) < LEAF_SLOTS -> found = r - 8 + 1
    :: else -> found = 0
    fi
}

#define SLOT(index) ((found - 1) * LEAF_SLOTS + (index) % LEAF_SLOTS)

// ---- handle_table_resolve: `result` is an object or 0 -------------------------------------------

inline resolve(handle) {
    result = 0;
    find(LOW(handle));
    if
    :: found == 0
    :: else ->
        before = tag[SLOT(LOW(handle))];
        result = object[SLOT(LOW(handle))];
        after = tag[SLOT(LOW(handle))];
        if
#ifndef MUTANT_RESOLVE_SKIPS_FIRST_TAG
        :: !MATCH(before, handle) -> result = 0
#endif
#ifndef MUTANT_RESOLVE_SKIPS_LAST_TAG
        :: !MATCH(after, handle) -> result = 0
#endif
        :: else
        fi
    fi
}

// ---- Growth: hierarchy.c ------------------------------------------------------------------------

inline leaf_make() {
    atomic {
        new_leaf = 0;
        do
        :: new_leaf < LEAVES && leaf_used[new_leaf] -> new_leaf++
        :: else -> break
        od;
        assert(new_leaf < LEAVES);
        leaf_used[new_leaf] = true;
        unused[new_leaf] = (1 << LEAF_SLOTS) - 1
    }
}

inline top_make() {
    atomic {
        new_top = 0;
        do
        :: new_top < TOPS && top_used[new_top] -> new_top++
        :: else -> break
        od;
        assert(new_top < TOPS);
        top_used[new_top] = true
    }
}

inline level_add() {
    leaf_make();
    if
    :: r == 0 ->
        atomic {
            if
            :: root == r -> root = 8 + new_leaf
            :: else -> leaf_used[new_leaf] = false
            fi
        }
    :: else ->
        top_make();
        d_step { // private
            entry[new_top * TOP_ENTRIES + word] = new_leaf + 1;
#ifndef MUTANT_GROWTH_FORGETS_ZERO
            entry[new_top * TOP_ENTRIES] = r - 8 + 1
#endif
        }
        atomic {
            if
#ifdef MUTANT_GROWTH_STORES
            :: true -> root = 16 + new_top
#else
            :: root == r -> root = 16 + new_top
#endif
            :: else ->
                entry[new_top * TOP_ENTRIES] = 0;
                entry[new_top * TOP_ENTRIES + word] = 0;
                top_used[new_top] = false;
                leaf_used[new_leaf] = false
            fi
        }
    fi
}

inline branch_add() {
    leaf_make();
    atomic {
        if
        :: entry[(r - 16) * TOP_ENTRIES + word] == 0 ->
            entry[(r - 16) * TOP_ENTRIES + word] = new_leaf + 1
        :: else -> leaf_used[new_leaf] = false
        fi
    }
}

// Links the leaf of `word`, here the same as its number.
inline grow() {
    find(word * LEAF_SLOTS);
    do
    :: found != 0 -> break
    :: else ->
        r = root;
        if
        :: r == 0 || (r < 16 && word > 0) -> level_add()
        :: r >= 16 && entry[(r - 16) * TOP_ENTRIES + word] == 0 -> branch_add()
        :: else
        fi;
        find(word * LEAF_SLOTS)
    od
}

// ---- handle_unused_take: `index`, or NONE. Which word is tried, and when the table grows, are the
// hand's and the shards' to choose: here any choice is made.

#define NONE 7

inline take() {
    index = NONE;
    do
    :: fresh > 0 ->
        word = 0;
        do
        :: word + 1 < fresh -> word++
        :: break
        od;
        find(word * LEAF_SLOTS);
        assert(found != 0);
        atomic {
            if
            :: unused[found - 1] & 1 -> mask = 1
            :: !(unused[found - 1] & 1) && unused[found - 1] & 2 -> mask = 2
            :: else -> mask = 0
            fi
        }
        if
        :: mask == 0
        :: else ->
            atomic {
                if
                :: unused[found - 1] & mask ->
                    unused[found - 1] = unused[found - 1] & ~mask;
                    index = word * LEAF_SLOTS + mask / 2;
                    assert(!owned[SLOT(index)]);
                    owned[SLOT(index)] = true
                :: else
                fi
            }
            if
            :: index != NONE -> break
            :: else
            fi
        fi;
        forget()
    :: fresh < TOP_ENTRIES ->
        word = fresh;
        if
        :: word < TOP_ENTRIES ->
            grow();
            atomic {
                if
                :: fresh == word -> fresh = word + 1
                :: else
                fi
            }
        :: else
        fi;
        forget()
    :: break // the limit, or lack of memory
    od
}

// ---- handle_table_alloc: `handle` and its object `mine`, or handle 0 ----------------------------

inline alloc(type) {
    handle = 0;
    take();
    if
    :: index == NONE
    :: else ->
        handle = WORD(GENERATION(tag[SLOT(index)]) + 1, type, index);
        d_step {
            mine = objects;
            objects++;
            name[mine] = handle
        }
#ifdef MUTANT_ALLOC_STORES_TAG_FIRST
        tag[SLOT(index)] = WORD(GENERATION(handle), type, 0);
        object[SLOT(index)] = mine
#else
        object[SLOT(index)] = mine;
        tag[SLOT(index)] = WORD(GENERATION(handle), type, 0)
#endif
    fi
}

// ---- The end of a generation: slot_free, handle_table_put, handle_table_release -----------------

inline slot_free(handle) {
    mine = object[SLOT(LOW(handle))];
    d_step {
        assert(owned[SLOT(LOW(handle))]);
        owned[SLOT(LOW(handle))] = false;
        unused[found - 1] = unused[found - 1] | (1 << (LOW(handle) % LEAF_SLOTS))
    }
    d_step {
        assert(!retired[mine]);
        retired[mine] = true;
#ifndef MUTANT_RECLAIM_AT_ONCE
        awaited[mine] = reading
#endif
    }
}

inline put(handle) {
    find(LOW(handle));
    seen = tag[SLOT(LOW(handle))];
    done = false;
    do
    :: GENERATION(seen) != GENERATION(handle) || LOW(seen) == 0 -> break
    :: else ->
        atomic {
            if
            :: tag[SLOT(LOW(handle))] == seen -> tag[SLOT(LOW(handle))] = seen - 1; done = true
            :: else -> seen = tag[SLOT(LOW(handle))]
            fi
        }
        if
        :: done -> break
        :: else
        fi
    od;
    if
    :: done && TYPE(seen) == 0 && LOW(seen) == 1 -> slot_free(handle)
    :: else
    fi
}

inline release(handle) {
    find(LOW(handle));
    done = false;
    if
    :: found == 0
    :: else ->
        seen = tag[SLOT(LOW(handle))];
        do
        :: !MATCH(seen, handle) -> break
        :: else ->
#ifdef MUTANT_RELEASE_FREES_FIRST
            d_step {
                owned[SLOT(LOW(handle))] = false;
                unused[found - 1] = unused[found - 1] | (1 << (LOW(handle) % LEAF_SLOTS))
            }
#endif
            atomic {
                if
                :: tag[SLOT(LOW(handle))] == seen ->
                    tag[SLOT(LOW(handle))] =
                        WORD(GENERATION(seen), 0, LOW(seen) + (LOW(seen) > 0 -> 1 : 0));
                    done = true
                :: else -> seen = tag[SLOT(LOW(handle))]
                fi
            }
            if
            :: done -> break
            :: else
            fi
        od;
        if
        :: !done
#ifdef MUTANT_RELEASE_IGNORES_HOLDERS
        :: done -> slot_free(handle)
#else
        :: done && LOW(seen) == 0 -> slot_free(handle)
        :: done && LOW(seen) > 0 -> put(handle); done = true
#endif
        fi
    fi
}

// ---- handle_table_acquire: `result` is an object or 0 -------------------------------------------

inline acquire(handle) {
    result = 0;
    done = false;
    find(LOW(handle));
    if
    :: found == 0
    :: else ->
        seen = tag[SLOT(LOW(handle))];
        do
        :: !MATCH(seen, handle) || LOW(seen) == 6 -> break
        :: else ->
            atomic {
                if
                :: tag[SLOT(LOW(handle))] == seen -> tag[SLOT(LOW(handle))] = seen + 1; done = true
                :: else -> seen = tag[SLOT(LOW(handle))]
                fi
            }
            if
            :: done -> break
            :: else
            fi
        od;
        if
        :: done -> result = object[SLOT(LOW(handle))]
        :: else
        fi
    fi
}

// ---- Who does it --------------------------------------------------------------------------------

// What workers allocated resolves while the table grows. Released once, it cannot be again.
proctype worker(byte me) {
    byte r, found, new_leaf, new_top, word, mask, index, mine, result, round;
    short handle, before, after, seen;
    bool done;
    for (round : 1 .. ROUNDS) {
        alloc(me + 1);
        forget();
        if
        :: handle == 0
        :: else ->
            shared[me] = handle;
#ifdef REUSE
            release(handle);
            assert(done);
            forget();
            release(handle);
            assert(!done);
#else
            resolve(handle);
            assert(result == mine);
            forget();
            handle = shared[1 - me];
            resolve(handle);
            assert(handle == 0 || (result != 0 && name[result] == handle));
#endif
            forget();
            handle = 0;
            mine = 0;
            index = 0
        fi
    }
}

// What a reader gets is the object that was given that very handle, and is not freed while it reads
// or holds it. It tries handles that were shared, and some that it makes up.
proctype reader() {
    byte r, found, mine, result;
    short handle, before, after, seen;
    bool done;
    if
    :: handle = shared[0]
    :: handle = WORD(2, 1, 0)
    :: handle = WORD(2, 2, 0)
    fi;
    if
    :: TYPE(handle) == 0
    :: TYPE(handle) != 0 ->
        reading = true;
        resolve(handle);
        assert(result == 0 || (name[result] == handle && !FREED(result)));
        d_step {
            assert(result == 0 || !FREED(result));
            reading = false;
            for (r : 0 .. OBJECTS - 1) {
                awaited[r] = false
            }
        }
    :: TYPE(handle) != 0 ->
        acquire(handle);
        assert(result == 0 || (name[result] == handle && !FREED(result)));
        if
        :: result != 0 ->
            assert(!FREED(result));
            put(handle);
            assert(done)
        :: else
        fi
    fi
}

init {
    atomic {
#ifdef REUSE
        root = 8;
        unused[0] = 1;
        leaf_used[0] = true;
        fresh = 1;
        run reader();
#endif
        run worker(0);
        run worker(1)
    }
}
