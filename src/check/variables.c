// SPDX-License-Identifier: BSD-2-Clause
// Identifiers that compiled code has chosen for variables. Of those on the stack nothing is kept
// but their granules' entries; static ones are kept, to be told apart in reports.
#include "check/variables.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/checker_internal.h"
#include "check/takeover_internal.h"

#define TAG_SHIFT 8u            // of an identifier
#define TAGS_CHOSEN 126u        // 1 to 126
#define BYTES_MAX (1ull << 30)  // of a variable
#define STATICS_MAX (1u << 20)  // that are kept
#define NEAR_GRANULES (4096 / MEMORY_GRANULE_BYTES)

struct variable {
    uint64_t gva, bytes;
    uint8_t tag;
};

struct variables {
    atomic_bool any;
    _Atomic uint8_t chosen;
    pthread_mutex_t lock;  // of the static ones
    struct variable *statics;
    size_t count, room;
};

int variables_create(struct variables **out)
{
    struct variables *variables = calloc(1, sizeof(*variables));

    if (!variables)
        return -ENOMEM;
    pthread_mutex_init(&variables->lock, NULL);
    *out = variables;
    return 0;
}

void variables_destroy(struct variables *variables)
{
    if (!variables)
        return;
    pthread_mutex_destroy(&variables->lock);
    free(variables->statics);
    free(variables);
}

void variables_lock(struct variables *variables)
{
    pthread_mutex_lock(&variables->lock);
}

void variables_unlock(struct variables *variables)
{
    pthread_mutex_unlock(&variables->lock);
}

// ---- Entries ------------------------------------------------------------------------------------

static uint16_t identifier_of(uint8_t tag)
{
    return (uint16_t)(tag << TAG_SHIFT);
}

static uint16_t entry_at(const struct checker *checker, uint64_t gva)
{
    return memory_identifiers_get(&checker->identifiers, gva);
}

// What entries are where there is no variable.
static uint16_t entry_of_none(const struct checker *checker, uint64_t gva)
{
    return checker_is_stack(checker, gva) ? MEMORY_IDENTIFIER_LOOK : MEMORY_IDENTIFIER_NONE;
}

static bool is_place(const struct checker *checker, uint64_t gva, uint64_t bytes)
{
    return gva % MEMORY_GRANULE_BYTES == 0 && bytes <= BYTES_MAX && gva < checker->target.heap &&
           bytes <= checker->target.heap - gva;
}

void variables_mark(struct checker *checker, uint64_t gva, uint64_t bytes, uint8_t tag)
{
    if (!is_place(checker, gva, bytes) || bytes % MEMORY_GRANULE_BYTES)
        return;
    atomic_store_explicit(&checker->variables->any, true, memory_order_relaxed);
    memory_identifiers_set(&checker->identifiers, gva, bytes,
                           tag ? identifier_of(tag) : entry_of_none(checker, gva));
}

uint8_t variables_choose(struct checker *checker)
{
    uint8_t last = atomic_fetch_add_explicit(&checker->variables->chosen, 1, memory_order_relaxed);
    return (uint8_t)(1 + last % TAGS_CHOSEN);
}

// ---- Static ones --------------------------------------------------------------------------------

// The first that is at `gva` or above.
static size_t place_of(const struct variables *variables, uint64_t gva)
{
    size_t first = 0, end = variables->count;

    while (first < end) {
        size_t middle = first + (end - first) / 2;
        if (variables->statics[middle].gva < gva)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

static bool has_room(struct variables *variables)
{
    size_t room = variables->room;

    if (variables->count < room)
        return true;
    struct variable *larger = room < STATICS_MAX
                                  ? reallocarray(variables->statics, 2 * room + 64, sizeof(*larger))
                                  : NULL;
    if (!larger)
        return false;
    variables->statics = larger;
    variables->room = 2 * room + 64;
    return true;
}

// Sorted by address; another library's may have been there before. Where memory is short, reports
// say less.
static void keep(struct variables *variables, const struct variable *variable)
{
    pthread_mutex_lock(&variables->lock);
    size_t at = place_of(variables, variable->gva);
    struct variable *there = variables->statics + at;
    bool replaces = at < variables->count && there->gva == variable->gva;

    if (replaces) {
        *there = *variable;
    } else if (has_room(variables)) {
        there = variables->statics + at;
        memmove(there + 1, there, (variables->count - at) * sizeof(*there));
        *there = *variable;
        variables->count++;
    }
    pthread_mutex_unlock(&variables->lock);
}

void variables_add(struct checker *checker, uint64_t gva, uint64_t bytes, uint8_t tag)
{
    uint8_t rest = bytes % MEMORY_GRANULE_BYTES;
    uint64_t whole = bytes - rest, last = gva + whole;
    uint16_t identifier = identifier_of(tag);

    if (!is_place(checker, gva, bytes) || tag == 0)
        return;
    variables_mark(checker, gva, whole, tag);
    keep(checker->variables, &(struct variable){.gva = gva, .bytes = bytes, .tag = tag});
    if (rest == 0)
        return;
    // Compilers leave the granule's rest unused. Where it cannot be written to, nothing tells how
    // many bytes count, and it is looked up.
    bool told = checker_copy_out(checker, last + MEMORY_GRANULE_BYTES - 1, &rest, 1) == 0;
    memory_identifiers_put(&checker->identifiers, last,
                           told ? identifier ^ MEMORY_IDENTIFIER_PARTIAL : MEMORY_IDENTIFIER_LOOK);
}

// The one that has the address; false: there is none.
static bool static_at(struct variables *variables, uint64_t gva, struct variable *found)
{
    pthread_mutex_lock(&variables->lock);
    size_t behind = place_of(variables, gva + 1);
    bool any = behind > 0;
    if (any)
        *found = variables->statics[behind - 1];
    pthread_mutex_unlock(&variables->lock);
    return any && gva - found->gva < found->bytes;
}

// The nearest one with this identifier; false: there is none.
static bool find_static(struct variables *variables, uint64_t gva, uint8_t tag,
                        struct variable *found)
{
    uint64_t nearest = UINT64_MAX;

    pthread_mutex_lock(&variables->lock);
    for (size_t i = 0; i < variables->count; i++) {
        const struct variable *variable = &variables->statics[i];
        uint64_t distance = variable->gva > gva ? variable->gva - gva : gva - variable->gva;
        if (variable->tag == tag && distance < nearest) {
            nearest = distance;
            *found = *variable;
        }
    }
    pthread_mutex_unlock(&variables->lock);
    return nearest != UINT64_MAX;
}

// ---- Accesses -----------------------------------------------------------------------------------

bool variables_has(const struct checker *checker, uint64_t pointer)
{
    uint16_t identifier = memory_pointer_identifier(pointer);

    return identifier && identifier % (1u << TAG_SHIFT) == 0 &&
           memory_pointer_gva(pointer) < checker->target.heap &&
           atomic_load_explicit(&checker->variables->any, memory_order_relaxed);
}

// How many bytes of the granule at `gva` are those of this identifier's variable.
static uint64_t bytes_in_granule(struct checker *checker, uint64_t gva, uint16_t identifier)
{
    uint16_t entry = entry_at(checker, gva);
    struct variable variable;
    uint8_t rest;

    if (entry == identifier)
        return MEMORY_GRANULE_BYTES;
    if (entry == (identifier ^ MEMORY_IDENTIFIER_PARTIAL) &&
        checker_copy_in(checker, &rest, gva + MEMORY_GRANULE_BYTES - 1, 1) == 0)
        return rest < MEMORY_GRANULE_BYTES ? rest : 0;
    // One that is never written to.
    return entry == MEMORY_IDENTIFIER_LOOK && !checker_is_stack(checker, gva) &&
                   static_at(checker->variables, gva, &variable) &&
                   identifier_of(variable.tag) == identifier
               ? variable.gva + variable.bytes - gva
               : 0;
}

uint64_t variables_extent(struct checker *checker, uint64_t pointer, uint64_t bytes)
{
    uint16_t identifier = memory_pointer_identifier(pointer);
    uint64_t start = memory_pointer_gva(pointer), at = start & ~(MEMORY_GRANULE_BYTES - 1ull);

    for (uint64_t extent = 0; at < checker->target.heap; at += MEMORY_GRANULE_BYTES) {
        uint64_t part = bytes_in_granule(checker, at, identifier);
        extent = at + part > start ? at + part - start : extent;
        if (part < MEMORY_GRANULE_BYTES || extent >= bytes)
            return extent < bytes ? extent : bytes;
    }
    return 0;
}

bool variables_is_whole_word(struct checker *checker, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer);

    return gva % bytes == 0 && variables_extent(checker, pointer, 1) == 1 &&
           gva / MEMORY_GRANULE_BYTES == (gva + bytes - 1) / MEMORY_GRANULE_BYTES;
}

// ---- What is wrong ------------------------------------------------------------------------------

// The variable on the stack that is nearest to the granule at `gva`; false: none is near.
static bool find_near(const struct checker *checker, uint64_t gva, uint16_t identifier,
                      struct check_object *object)
{
    const uint64_t step = MEMORY_GRANULE_BYTES;
    uint64_t at = 0;

    for (uint64_t i = 1; i < NEAR_GRANULES && !at; i++)
        if (entry_at(checker, gva - i * step) == identifier)
            at = gva - i * step;
        else if (entry_at(checker, gva + i * step) == identifier)
            at = gva + i * step;
    if (!at)
        return false;
    *object = (struct check_object){.gva = at, .bytes = step};
    for (; object->bytes < BYTES_MAX && entry_at(checker, object->gva - step) == identifier;
         object->bytes += step)
        object->gva -= step;
    while (object->bytes < BYTES_MAX &&
           entry_at(checker, object->gva + object->bytes) == identifier)
        object->bytes += step;
    return true;
}

bool variables_refuse(struct checker_thread *thread, struct hart *hart, const char *call,
                      uint64_t pointer, uint64_t bytes, enum check_access access)
{
    struct checker *checker = thread->checker;
    uint16_t identifier = memory_pointer_identifier(pointer);
    // The first byte that is not the variable's.
    uint64_t gva = memory_pointer_gva(pointer) + variables_extent(checker, pointer, bytes);
    uint64_t granule = gva & ~(MEMORY_GRANULE_BYTES - 1ull);
    struct check_finding finding = {.kind = CHECK_GLOBAL_BUFFER_OVERFLOW,
                                    .access = access,
                                    .gva = memory_pointer_gva(pointer),
                                    .bytes = bytes,
                                    .pointer_id = identifier,
                                    .memory_id = entry_at(checker, granule)};
    struct check_object object;
    struct variable variable;
    char detail[96];

    if (finding.memory_id == MEMORY_IDENTIFIER_LOOK)
        finding.memory_id = MEMORY_IDENTIFIER_NONE;
    else if (finding.memory_id == (identifier ^ MEMORY_IDENTIFIER_PARTIAL))
        finding.memory_id = identifier;
    if (checker_is_stack(checker, gva)) {
        bool near = find_near(checker, granule, identifier, &object);
        finding.kind = near ? CHECK_STACK_BUFFER_OVERFLOW : CHECK_DEAD_STACK_USE;
        finding.object = near ? &object : NULL;
        finding.detail = near ? NULL : "The variable that was there is none any more";
    } else if (find_static(checker->variables, gva, (uint8_t)(identifier >> TAG_SHIFT),
                           &variable)) {
        object = (struct check_object){.gva = variable.gva, .bytes = variable.bytes};
        finding.object = &object;
    }
    if (call) {
        checker_call_detail(call, detail, sizeof(detail));
        finding.detail = detail;
        if (finding.kind != CHECK_DEAD_STACK_USE)
            finding.kind = CHECK_SYSCALL_BUFFER_OVERFLOW;
    }
    return checker_tell(thread, hart, &finding);
}

// ---- What programs call -------------------------------------------------------------------------

static bool do_choose(struct takeover_call *call)
{
    return takeover_return(call, variables_choose(call->checker));
}

static bool do_mark(struct takeover_call *call)
{
    variables_mark(call->checker, memory_pointer_gva(takeover_argument(call, 0)),
                   takeover_argument(call, 2), (uint8_t)takeover_argument(call, 1));
    return true;
}

// Where a static variable is, from the descriptor on, its bytes, and its tag at the top: LLVM's
// compiler-rt, hwasan_globals.h.
struct descriptor {
    int32_t distance;
    uint32_t bytes_and_tag;
};

static bool do_add(struct takeover_call *call)
{
    uint64_t at = memory_pointer_gva(takeover_argument(call, 0));
    uint64_t end = memory_pointer_gva(takeover_argument(call, 1));
    struct descriptor descriptor;

    for (unsigned i = 0; i < STATICS_MAX && at < end; i++, at += sizeof(descriptor)) {
        if (checker_copy_in(call->checker, &descriptor, at, sizeof(descriptor)) < 0)
            break;
        variables_add(call->checker, at + (uint64_t)(int64_t)descriptor.distance,
                      descriptor.bytes_and_tag & 0xffffff,
                      (uint8_t)(descriptor.bytes_and_tag >> 24));
    }
    return true;
}

const struct takeover_function takeover_variables[] = {
    {.name = "__hwasan_generate_tag", .kind = TAKEOVER_VARIABLES, .perform = do_choose},
    {.name = "__hwasan_tag_memory", .kind = TAKEOVER_VARIABLES, .perform = do_mark},
    {.name = "__strake_add_variables", .kind = TAKEOVER_VARIABLES, .perform = do_add},
};
const size_t takeover_variables_count = BASE_COUNT_OF(takeover_variables);
