// SPDX-License-Identifier: BSD-2-Clause
// Which function is at which address. The translator asks for each place that code is read at, and
// each call of malloc looks its function up, so there is a hash table without locks: a slot is one
// word, an address and the number of its function. What is no more stays as an address without a
// function, to be used again; tables that became too small stay until the end, since somebody may
// be looking there.
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check/takeover_internal.h"

#define SLOTS_FIRST 1024u
#define NUMBER_SHIFT MEMORY_POINTER_BITS
#define RESOLVER (1ull << 63)  // of a slot: an indirect function's resolver is there
#define LANDING_STEP 4u        // bytes between two places
#define FUNCTIONS_MAX (TAKEOVER_LANDING_BYTES / LANDING_STEP)

struct table {
    struct table *smaller;
    uint64_t mask;
    uint64_t used;  // slots that were ever
    _Atomic uint64_t slots[];
};

struct takeover {
    pthread_mutex_t lock;  // of changes
    struct table *_Atomic table;
    uint64_t low, high;  // all that is in the table is between
    uint64_t landing;
    atomic_bool families_end, nameless;
    bool own_operators;
    struct takeover_function *functions;  // sorted by name
    _Atomic uint64_t *places;             // of these, whether they are taken over or not
    size_t count;
    char **texts;  // that functions' names are in
    size_t texts_count;
};

// ---- The table ----------------------------------------------------------------------------------

static uint64_t slot_pc(uint64_t slot)
{
    return slot & MEMORY_POINTER_MASK;
}

static uint64_t slot_number(uint64_t slot)
{
    return (slot & ~RESOLVER) >> NUMBER_SHIFT;
}

static uint64_t first_index(const struct table *table, uint64_t pc)
{
    return (pc * 0x9e3779b97f4a7c15u >> 32) & table->mask;
}

static struct table *table_create(uint64_t slots)
{
    struct table *table = calloc(1, sizeof(*table) + slots * sizeof(table->slots[0]));

    if (table)
        table->mask = slots - 1;
    return table;
}

// 0: nothing is at pc.
static uint64_t table_find(const struct table *table, uint64_t pc)
{
    for (uint64_t i = first_index(table, pc);; i = (i + 1) & table->mask) {
        uint64_t slot = atomic_load_explicit(&table->slots[i], memory_order_acquire);
        if (slot == 0 || slot_pc(slot) == pc)
            return slot_number(slot) ? slot : 0;
    }
}

// There is room. Under the lock.
static void table_put(struct table *table, uint64_t slot)
{
    uint64_t i = first_index(table, slot_pc(slot)), unused = UINT64_MAX, there;

    for (; (there = table->slots[i]) && slot_pc(there) != slot_pc(slot); i = (i + 1) & table->mask)
        if (!slot_number(there) && unused == UINT64_MAX)
            unused = i;
    if (there == 0 && unused != UINT64_MAX)
        i = unused;
    else if (there == 0)
        table->used++;
    atomic_store_explicit(&table->slots[i], slot, memory_order_release);
}

static int make_room(struct takeover *takeover)
{
    struct table *table = takeover->table;

    if (table->used < table->mask / 2)
        return 0;
    struct table *larger = table_create(2 * (table->mask + 1));
    if (!larger)
        return -ENOMEM;
    for (uint64_t i = 0; i <= table->mask; i++)
        if (slot_number(table->slots[i]))
            table_put(larger, table->slots[i]);
    larger->smaller = table;
    atomic_store_explicit(&takeover->table, larger, memory_order_release);
    return 0;
}

static int put(struct takeover *takeover, const struct takeover_symbol *symbol)
{
    uint64_t number = (uint64_t)(symbol->function - takeover->functions) + 1;
    int rc = make_room(takeover);

    if (rc < 0)
        return rc;
    takeover->low = symbol->pc < takeover->low ? symbol->pc : takeover->low;
    takeover->high = symbol->pc > takeover->high ? symbol->pc : takeover->high;
    table_put(takeover->table,
              symbol->pc | number << NUMBER_SHIFT | (symbol->resolver ? RESOLVER : 0));
    return 0;
}

// Takes out what is in [gva, last] and of one of the kinds.
static void drop(struct takeover *takeover, uint64_t gva, uint64_t last, unsigned kinds)
{
    struct table *table = takeover->table;

    for (uint64_t i = 0; i <= table->mask; i++) {
        uint64_t slot = table->slots[i], pc = slot_pc(slot), number = slot_number(slot);
        if (number && pc >= gva && pc <= last &&
            (kinds & 1u << takeover->functions[number - 1].kind))
            atomic_store_explicit(&table->slots[i], pc, memory_order_release);
    }
}

// ---- Creation -----------------------------------------------------------------------------------

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct takeover_function *)a)->name,
                  ((const struct takeover_function *)b)->name);
}

static int add_options(struct takeover *takeover, const struct takeover_options *options,
                       struct error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < options->allocators_count; i++) {
        size_t count = 0;
        rc = takeover_option_parse(options->allocators[i], takeover->functions + takeover->count,
                                   &count, &takeover->texts[i], err);
        takeover->texts_count = i + 1;
        takeover->count += count;
    }
    return rc;
}

// A name that the command line has comes first; all others of that name are left out.
static void keep_one_of_each(struct takeover *takeover)
{
    size_t kept = 0;

    for (size_t i = 0; i < takeover->count; i++) {
        struct takeover_function *function = &takeover->functions[i];
        struct takeover_function *last = kept ? &takeover->functions[kept - 1] : NULL;
        if (!last || strcmp(last->name, function->name) != 0)
            takeover->functions[kept++] = *function;
        else if (function->kind == TAKEOVER_NAMED)
            *last = *function;
    }
    takeover->count = kept;
}

// Functions that are taken over without being asked for, to takeover->functions unless that is
// NULL.
static size_t add_own(struct takeover *takeover)
{
    const struct {
        const struct takeover_function *functions;
        size_t count;
    } tables[] = {
        {takeover_allocators, takeover_allocators_count},
        {takeover_texts, takeover_texts_count},
        {takeover_fortified, takeover_fortified_count},
        {takeover_variables, takeover_variables_count},
    };
    size_t count = 0;

    for (size_t i = 0; i < BASE_COUNT_OF(tables); count += tables[i++].count)
        if (takeover->functions)
            memcpy(takeover->functions + count, tables[i].functions,
                   tables[i].count * sizeof(*takeover->functions));
    return count;
}

static int fill(struct takeover *takeover, const struct takeover_options *options,
                struct error *err)
{
    size_t own = add_own(takeover);
    size_t max = own + TAKEOVER_OPTION_FUNCTIONS * options->allocators_count;

    if (max > FUNCTIONS_MAX)
        return error_set(err, -EINVAL, "cannot take over so many allocators: at most %zu",
                         (FUNCTIONS_MAX - own) / TAKEOVER_OPTION_FUNCTIONS);
    takeover->landing = options->landing;
    takeover->low = UINT64_MAX;
    takeover->table = table_create(SLOTS_FIRST);
    takeover->functions = calloc(max, sizeof(*takeover->functions));
    takeover->places = calloc(max, sizeof(*takeover->places));
    takeover->texts = calloc(options->allocators_count + 1, sizeof(*takeover->texts));
    if (!takeover->table || !takeover->functions || !takeover->places || !takeover->texts)
        return error_set(err, -ENOMEM, "no memory for what is taken over of a program");
    takeover->count = add_own(takeover);
    int rc = add_options(takeover, options, err);
    if (rc < 0)
        return rc;
    qsort(takeover->functions, takeover->count, sizeof(*takeover->functions), by_name);
    keep_one_of_each(takeover);
    return 0;
}

int takeover_create(struct takeover **out, const struct takeover_options *options,
                    struct error *err)
{
    struct takeover *takeover = calloc(1, sizeof(*takeover));

    if (!takeover)
        return error_set(err, -ENOMEM, "no memory for what is taken over of a program");
    pthread_mutex_init(&takeover->lock, NULL);
    int rc = fill(takeover, options, err);
    if (rc < 0) {
        takeover_destroy(takeover);
        return rc;
    }
    *out = takeover;
    return 0;
}

void takeover_destroy(struct takeover *takeover)
{
    if (!takeover)
        return;
    for (struct table *table = takeover->table, *smaller; table; table = smaller) {
        smaller = table->smaller;
        free(table);
    }
    for (size_t i = 0; i < takeover->texts_count; i++)
        free(takeover->texts[i]);
    free(takeover->texts);
    free(takeover->functions);
    free((void *)takeover->places);
    pthread_mutex_destroy(&takeover->lock);
    free(takeover);
}

void takeover_lock(struct takeover *takeover)
{
    pthread_mutex_lock(&takeover->lock);
}

void takeover_unlock(struct takeover *takeover)
{
    pthread_mutex_unlock(&takeover->lock);
}

// ---- What is mapped -----------------------------------------------------------------------------

static bool is_taken_over(const struct takeover *takeover, const struct takeover_symbol *symbol)
{
    enum takeover_kind kind = symbol->function->kind;

    return kind == TAKEOVER_LIBC || kind == TAKEOVER_ALLOCATOR || kind == TAKEOVER_NAMED ||
           kind == TAKEOVER_VARIABLES || (kind == TAKEOVER_OPERATOR && !takeover->own_operators);
}

static int take(struct takeover *takeover, const struct takeover_file *file)
{
    int rc = 0;

    if (file->nameless)
        atomic_store_explicit(&takeover->nameless, true, memory_order_relaxed);
    if (file->own_operators && !takeover->own_operators) {
        takeover->own_operators = true;
        takeover_families_end(takeover);
        drop(takeover, 0, UINT64_MAX, 1u << TAKEOVER_OPERATOR);
    }
    for (size_t i = 0; i < file->count; i++) {
        const struct takeover_symbol *symbol = &file->symbols[i];
        if (symbol->resolver && !takeover->landing)
            continue;
        size_t number = (size_t)(symbol->function - takeover->functions);
        takeover->functions[number].found = true;
        takeover->places[number] = symbol->pc;
        if (rc == 0 && is_taken_over(takeover, symbol))
            rc = put(takeover, symbol);
    }
    return rc;
}

int takeover_map(struct takeover *takeover, uint64_t gva, uint64_t bytes, int fd, uint64_t offset)
{
    struct takeover_file file = {0};

    if (gva >= MEMORY_POINTER_BYTES || bytes > MEMORY_POINTER_BYTES - gva)
        return 0;
    takeover_unmap(takeover, gva, bytes);
    int rc = takeover_file_read(takeover, &file, gva, bytes, fd, offset);
    if (rc == 0) {
        takeover_lock(takeover);
        rc = take(takeover, &file);
        takeover_unlock(takeover);
    }
    takeover_file_fini(&file);
    return rc;
}

void takeover_unmap(struct takeover *takeover, uint64_t gva, uint64_t bytes)
{
    takeover_lock(takeover);
    if (bytes > 0 && gva <= takeover->high && gva + (bytes - 1) >= takeover->low) {
        drop(takeover, gva, gva + (bytes - 1), UINT_MAX);
        for (size_t i = 0; i < takeover->count; i++)
            if (takeover->places[i] - gva < bytes)
                takeover->places[i] = 0;
    }
    takeover_unlock(takeover);
}

void takeover_each_missing(struct takeover *takeover, void (*missing)(const char *name))
{
    takeover_lock(takeover);
    for (size_t i = 0; i < takeover->count; i++) {
        const struct takeover_function *function = &takeover->functions[i];
        if (function->kind == TAKEOVER_NAMED && !function->found)
            missing(function->name);
    }
    takeover_unlock(takeover);
}

bool takeover_is_nameless(const struct takeover *takeover)
{
    return atomic_load_explicit(&takeover->nameless, memory_order_relaxed);
}

// ---- Functions ----------------------------------------------------------------------------------

const struct takeover_function *takeover_function_find(const struct takeover *takeover,
                                                       const char *name)
{
    const struct takeover_function wanted = {.name = name};

    return bsearch(&wanted, takeover->functions, takeover->count, sizeof(wanted), by_name);
}

uint64_t takeover_function_pc(const struct takeover *takeover, const char *name)
{
    const struct takeover_function *function = takeover_function_find(takeover, name);

    return function ? takeover->places[function - takeover->functions] : 0;
}

bool takeover_families(const struct takeover *takeover)
{
    return !atomic_load_explicit(&takeover->families_end, memory_order_relaxed);
}

void takeover_families_end(struct takeover *takeover)
{
    atomic_store_explicit(&takeover->families_end, true, memory_order_relaxed);
}

// What is at an address, and whether it is the resolver of it.
static const struct takeover_function *function_at(const struct takeover *takeover, uint64_t pc,
                                                   bool *resolver)
{
    uint64_t landed = (pc - takeover->landing) / LANDING_STEP;
    bool landing = takeover->landing && pc >= takeover->landing && landed < takeover->count &&
                   pc % LANDING_STEP == 0;
    uint64_t slot =
        landing || pc >= MEMORY_POINTER_BYTES
            ? 0
            : table_find(atomic_load_explicit(&takeover->table, memory_order_acquire), pc);

    *resolver = slot & RESOLVER;
    return landing ? &takeover->functions[landed]
           : slot  ? &takeover->functions[slot_number(slot) - 1]
                   : NULL;
}

bool takeover_has(const struct takeover *takeover, uint64_t pc)
{
    bool resolver;
    return function_at(takeover, pc, &resolver);
}

const void *takeover_few_at(const struct takeover *takeover, uint64_t pc)
{
    bool resolver;
    const struct takeover_function *function = function_at(takeover, pc, &resolver);
    return function && function->few && !resolver ? function : NULL;
}

bool takeover_few(struct takeover *takeover, struct checker_thread *thread, struct hart *hart,
                  const void *what, uint64_t pc)
{
    struct takeover_call call = {
        .takeover = takeover,
        .function = what,
        .thread = thread,
        .checker = checker_of(thread),
        .hart = hart,
        .pc = pc,
    };

    return call.function->few(&call);
}

const char *takeover_name(const struct takeover *takeover, uint64_t pc)
{
    bool resolver;
    const struct takeover_function *function = function_at(takeover, pc, &resolver);
    return function ? function->name : NULL;
}

static bool resolve(struct takeover_call *call)
{
    uint64_t number = (uint64_t)(call->function - call->takeover->functions);
    return takeover_return(call, call->takeover->landing + number * LANDING_STEP);
}

static bool perform(struct takeover_call *call)
{
    if (call->function->at_once)
        return call->function->perform(call);
    bool executing = hart_stop_executing(call->hart);
    bool returns = call->function->perform(call);
    hart_resume_executing(call->hart, executing);
    return returns;
}

void takeover_call(struct takeover *takeover, struct checker_thread *thread, struct hart *hart)
{
    bool resolver;
    struct takeover_call call = {
        .takeover = takeover,
        .function = function_at(takeover, hart->pc, &resolver),
        .thread = thread,
        .checker = checker_of(thread),
        .hart = hart,
        .pc = hart->pc,
    };

    // Another thread has unmapped it just now: the next fetch says so.
    if (!call.function)
        return;
    bool returns = resolver ? resolve(&call) : perform(&call);
    if (returns)
        hart->pc = hart->x[1] & MEMORY_POINTER_MASK & ~1ull;
}
