// SPDX-License-Identifier: BSD-2-Clause
// Allocators: malloc and its family, C++'s operators new and delete, and what the command line
// names, as calls of the heap.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/takeover_internal.h"

// ---- Objects begin ------------------------------------------------------------------------------

// 0: there is no memory for it.
static uint64_t allocate(struct takeover_call *call, uint64_t bytes, uint64_t alignment, bool zero)
{
    const struct heap_request request = {
        .bytes = bytes,
        .alignment = alignment,
        .family = call->function->family,
        .zero = zero,
        .who = checker_who(call->thread, call->hart, call->pc),
    };
    uint64_t pointer;

    return heap_allocate(checker_heap_thread(call->thread), &request, &pointer) == 0 ? pointer : 0;
}

// What a function of libc returns that has failed when it returns 0.
static bool give(struct takeover_call *call, uint64_t pointer)
{
    if (!pointer)
        takeover_set_errno(call, ENOMEM);
    return takeover_return(call, pointer);
}

// What does not fit is more than there is.
static uint64_t product(uint64_t a, uint64_t b)
{
    uint64_t bytes;
    return __builtin_mul_overflow(a, b, &bytes) ? UINT64_MAX : bytes;
}

// As glibc's memalign: the next power of two; 0 where there is none.
static uint64_t power_of_two(uint64_t alignment)
{
    uint64_t power = 1;

    while (power != 0 && power < alignment)
        power *= 2;
    return power;
}

static bool do_malloc(struct takeover_call *call)
{
    return give(call, allocate(call, takeover_argument(call, 0), 0, false));
}

static bool do_calloc(struct takeover_call *call)
{
    uint64_t bytes = product(takeover_argument(call, 0), takeover_argument(call, 1));
    return give(call, allocate(call, bytes, 0, true));
}

static bool give_aligned(struct takeover_call *call, uint64_t alignment, uint64_t bytes)
{
    uint64_t power = power_of_two(alignment);
    return give(call, power ? allocate(call, bytes, power, false) : 0);
}

static bool do_memalign(struct takeover_call *call)
{
    return give_aligned(call, takeover_argument(call, 0), takeover_argument(call, 1));
}

static bool do_valloc(struct takeover_call *call)
{
    return give_aligned(call, MEMORY_PAGE_BYTES, takeover_argument(call, 0));
}

static bool do_pvalloc(struct takeover_call *call)
{
    uint64_t bytes = takeover_argument(call, 0), over = bytes % MEMORY_PAGE_BYTES;
    uint64_t more = over ? MEMORY_PAGE_BYTES - over : 0;

    return give_aligned(call, MEMORY_PAGE_BYTES, bytes > UINT64_MAX - more ? bytes : bytes + more);
}

static bool do_posix_memalign(struct takeover_call *call)
{
    uint64_t out = takeover_argument(call, 0), alignment = takeover_argument(call, 1);

    if (alignment == 0 || alignment % sizeof(uint64_t) != 0 || (alignment & (alignment - 1)) != 0)
        return takeover_return(call, EINVAL);
    if (!checker_range(call->thread, call->hart, out, sizeof(uint64_t), HART_STORE))
        return false;
    uint64_t pointer = allocate(call, takeover_argument(call, 2), alignment, false);
    if (!pointer)
        return takeover_return(call, ENOMEM);
    if (checker_copy_out(call->checker, out, &pointer, sizeof(pointer)) < 0) {
        checker_fault(call->thread, call->hart, out, HART_STORE);
        return false;
    }
    return takeover_return(call, 0);
}

// ---- Objects end --------------------------------------------------------------------------------

// False: something is wrong with it, and it has not ended.
static bool has_ended(struct takeover_call *call, uint64_t pointer, struct heap_finding *finding)
{
    heap_expect_free(checker_heap(call->checker), pointer);
    uint32_t who = checker_who(call->thread, call->hart, call->pc);
    enum heap_family family = takeover_families(call->takeover) ? call->function->family : HEAP_ANY;

    return heap_free(checker_heap_thread(call->thread), pointer, family, who, finding) == 0;
}

// False: it was wrong to do so, and the program does not go on.
static bool end(struct takeover_call *call, uint64_t pointer)
{
    struct heap_finding finding;

    return has_ended(call, pointer, &finding) ||
           checker_found_heap(call->thread, call->hart, &finding, CHECK_ACCESS_FREE, pointer, 0);
}

// What free leaves in a0 is nobody's.
static bool do_free(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0);
    return pointer == 0 || end(call, pointer);
}

// Who is told a size is told that of the object: another one is the mark of an object that is
// deleted as one of a base class without a virtual destructor.
static bool do_free_sized(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0), bytes = takeover_argument(call, 1);
    uint64_t usable = heap_usable_bytes(checker_heap(call->checker), pointer);
    char detail[96];

    if (usable == 0 || usable == bytes)
        return do_free(call);
    snprintf(detail, sizeof(detail), "It is freed as an object of %llu bytes",
             (unsigned long long)bytes);
    return checker_found(call->thread, call->hart, CHECK_MISMATCHED_FREE, CHECK_ACCESS_FREE,
                         pointer, 0, detail) &&
           do_free(call);
}

// As heap_reallocate.
static int moves(struct takeover_call *call, uint64_t pointer, uint64_t bytes, uint64_t *moved,
                 struct heap_finding *finding)
{
    const struct heap_request request = {
        .bytes = bytes,
        .family = takeover_families(call->takeover) ? call->function->family : HEAP_ANY,
        .who = checker_who(call->thread, call->hart, call->pc),
    };

    return heap_reallocate(checker_heap_thread(call->thread), pointer, &request, moved, finding);
}

static bool reallocate(struct takeover_call *call, uint64_t pointer, uint64_t bytes)
{
    struct heap_finding finding;
    uint64_t moved;
    int rc = moves(call, pointer, bytes, &moved, &finding);

    if (rc != -EINVAL)
        return give(call, rc == 0 ? moved : 0);
    if (!checker_found_heap(call->thread, call->hart, &finding, CHECK_ACCESS_REALLOCATE, pointer,
                            bytes))
        return false;
    // The program goes on, with something that it can use.
    return give(call, allocate(call, bytes, 0, false));
}

// A size of 0 frees, as it does in glibc.
static bool realloc_to(struct takeover_call *call, uint64_t pointer, uint64_t bytes)
{
    if (pointer == 0)
        return give(call, allocate(call, bytes, 0, false));
    if (bytes != 0)
        return reallocate(call, pointer, bytes);
    return end(call, pointer) && takeover_return(call, 0);
}

static bool do_realloc(struct takeover_call *call)
{
    return realloc_to(call, takeover_argument(call, 0), takeover_argument(call, 1));
}

static bool do_reallocarray(struct takeover_call *call)
{
    uint64_t bytes = product(takeover_argument(call, 1), takeover_argument(call, 2));
    return realloc_to(call, takeover_argument(call, 0), bytes);
}

// A program may use all that it is told of, so it is told what it asked for.
static bool do_usable_size(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0);
    struct heap *heap = checker_heap(call->checker);
    uint64_t bytes = heap_usable_bytes(heap, pointer);
    struct heap_finding finding;

    if (bytes == 0 && memory_pointer_identifier(pointer) != MEMORY_IDENTIFIER_NONE) {
        heap_diagnose(heap, pointer, 1, &finding);
        bool ended =
            finding.fault == HEAP_USE_AFTER_FREE || finding.fault == HEAP_USE_AFTER_REALLOC;
        if (ended &&
            !checker_found_heap(call->thread, call->hart, &finding, CHECK_ACCESS_READ, pointer, 1))
            return false;
    }
    return takeover_return(call, bytes);
}

// ---- C++ ----------------------------------------------------------------------------------------

enum { NEW_ALIGNED = 1, NEW_NOTHROW = 2 };

// The one that throws goes on as it would itself where there is no memory: it asks malloc, which
// has none either, and calls the program's handler. What that may make room for comes from malloc.
static bool do_new(struct takeover_call *call)
{
    unsigned variant = call->function->variant;
    uint64_t alignment = variant & NEW_ALIGNED ? takeover_argument(call, 1) : 0;
    uint64_t pointer = allocate(call, takeover_argument(call, 0), alignment, false);

    if (pointer || (variant & NEW_NOTHROW))
        return takeover_return(call, pointer);
    takeover_families_end(call->takeover);
    const char *name = variant & NEW_ALIGNED ? "_ZnwmSt11align_val_t" : "_Znwm";
    return !takeover_original(call, takeover_function_pc(call->takeover, name)) &&
           takeover_return(call, 0);
}

// ---- At once ------------------------------------------------------------------------------------

// What fails is left to the functions above.
static bool few_malloc(struct takeover_call *call)
{
    uint64_t pointer = allocate(call, takeover_argument(call, 0), 0, false);
    return pointer && takeover_return(call, pointer);
}

static bool few_calloc(struct takeover_call *call)
{
    uint64_t bytes = product(takeover_argument(call, 0), takeover_argument(call, 1));
    uint64_t pointer = allocate(call, bytes, 0, true);
    return pointer && takeover_return(call, pointer);
}

static bool few_realloc(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0), bytes = takeover_argument(call, 1), moved;

    return pointer && bytes && moves(call, pointer, bytes, &moved, NULL) == 0 &&
           takeover_return(call, moved);
}

static bool few_free(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0);
    return pointer == 0 || has_ended(call, pointer, NULL);
}

static bool few_free_sized(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0), bytes = takeover_argument(call, 1);

    return heap_usable_bytes(checker_heap(call->checker), pointer) == bytes && few_free(call);
}

// ---- The table ----------------------------------------------------------------------------------

#define ALLOCATOR(text, does)                                                                      \
    {                                                                                              \
        .name = text, .kind = TAKEOVER_ALLOCATOR, .perform = does, .family = HEAP_MALLOC           \
    }
// The same, which is mostly done at once.
#define AT_ONCE(text, does, at_first)                                                              \
    {                                                                                              \
        .name = text, .kind = TAKEOVER_ALLOCATOR, .perform = does, .few = at_first,                \
        .family = HEAP_MALLOC                                                                      \
    }
#define NEW(text, of, how)                                                                         \
    {                                                                                              \
        .name = text, .kind = TAKEOVER_OPERATOR, .perform = do_new,                                \
        .few = (how)&NEW_ALIGNED ? NULL : few_malloc, .family = of, .variant = how                 \
    }
#define DELETE(text, of)                                                                           \
    {                                                                                              \
        .name = text, .kind = TAKEOVER_OPERATOR, .perform = do_free, .few = few_free, .family = of \
    }
#define DELETE_SIZED(text, of)                                                                     \
    {                                                                                              \
        .name = text, .kind = TAKEOVER_OPERATOR, .perform = do_free_sized, .few = few_free_sized,  \
        .family = of                                                                               \
    }
#define TELLS(text, what)                                                                          \
    {                                                                                              \
        .name = text, .kind = what                                                                 \
    }

const struct takeover_function takeover_allocators[] = {
    AT_ONCE("malloc", do_malloc, few_malloc),
    AT_ONCE("calloc", do_calloc, few_calloc),
    AT_ONCE("realloc", do_realloc, few_realloc),
    ALLOCATOR("reallocarray", do_reallocarray),
    AT_ONCE("free", do_free, few_free),
    AT_ONCE("cfree", do_free, few_free),
    ALLOCATOR("free_sized", do_free_sized),
    ALLOCATOR("free_aligned_sized", do_free),
    ALLOCATOR("memalign", do_memalign),
    ALLOCATOR("aligned_alloc", do_memalign),
    ALLOCATOR("posix_memalign", do_posix_memalign),
    ALLOCATOR("valloc", do_valloc),
    ALLOCATOR("pvalloc", do_pvalloc),
    ALLOCATOR("malloc_usable_size", do_usable_size),
    AT_ONCE("__libc_malloc", do_malloc, few_malloc),
    AT_ONCE("__libc_calloc", do_calloc, few_calloc),
    AT_ONCE("__libc_realloc", do_realloc, few_realloc),
    ALLOCATOR("__libc_reallocarray", do_reallocarray),
    AT_ONCE("__libc_free", do_free, few_free),
    ALLOCATOR("__libc_memalign", do_memalign),
    ALLOCATOR("__libc_valloc", do_valloc),
    ALLOCATOR("__libc_pvalloc", do_pvalloc),
    ALLOCATOR("__posix_memalign", do_posix_memalign),

    // C++'s, with the names that the Itanium ABI gives them where size_t is unsigned long.
    NEW("_Znwm", HEAP_NEW, 0),
    NEW("_ZnwmRKSt9nothrow_t", HEAP_NEW, NEW_NOTHROW),
    NEW("_ZnwmSt11align_val_t", HEAP_NEW, NEW_ALIGNED),
    NEW("_ZnwmSt11align_val_tRKSt9nothrow_t", HEAP_NEW, NEW_ALIGNED | NEW_NOTHROW),
    NEW("_Znam", HEAP_NEW_ARRAY, 0),
    NEW("_ZnamRKSt9nothrow_t", HEAP_NEW_ARRAY, NEW_NOTHROW),
    NEW("_ZnamSt11align_val_t", HEAP_NEW_ARRAY, NEW_ALIGNED),
    NEW("_ZnamSt11align_val_tRKSt9nothrow_t", HEAP_NEW_ARRAY, NEW_ALIGNED | NEW_NOTHROW),
    DELETE("_ZdlPv", HEAP_NEW),
    DELETE_SIZED("_ZdlPvm", HEAP_NEW),
    DELETE("_ZdlPvRKSt9nothrow_t", HEAP_NEW),
    DELETE("_ZdlPvSt11align_val_t", HEAP_NEW),
    DELETE_SIZED("_ZdlPvmSt11align_val_t", HEAP_NEW),
    DELETE("_ZdlPvSt11align_val_tRKSt9nothrow_t", HEAP_NEW),
    DELETE("_ZdaPv", HEAP_NEW_ARRAY),
    DELETE_SIZED("_ZdaPvm", HEAP_NEW_ARRAY),
    DELETE("_ZdaPvRKSt9nothrow_t", HEAP_NEW_ARRAY),
    DELETE("_ZdaPvSt11align_val_t", HEAP_NEW_ARRAY),
    DELETE_SIZED("_ZdaPvmSt11align_val_t", HEAP_NEW_ARRAY),
    DELETE("_ZdaPvSt11align_val_tRKSt9nothrow_t", HEAP_NEW_ARRAY),

    TELLS("__errno_location", TAKEOVER_ERRNO),
    TELLS("__libc_start_main", TAKEOVER_START),
    TELLS("_ZSt15get_new_handlerv", TAKEOVER_RUNTIME),
    TELLS("dlsym", TAKEOVER_NEXT),
    TELLS("dlvsym", TAKEOVER_NEXT),
    TELLS("mmap", TAKEOVER_PAGES),
    TELLS("mmap64", TAKEOVER_PAGES),
    TELLS("sbrk", TAKEOVER_PAGES),
    TELLS("brk", TAKEOVER_PAGES),
};
const size_t takeover_allocators_count = BASE_COUNT_OF(takeover_allocators);

// ---- The command line's -------------------------------------------------------------------------

static const struct {
    const char *role;
    bool (*perform)(struct takeover_call *call);
} roles[TAKEOVER_OPTION_FUNCTIONS] = {
    {"alloc", do_malloc},
    {"calloc", do_calloc},
    {"realloc", do_realloc},
    {"free", do_free},
};

// "ROLE=NAME@N". 0 or -EINVAL.
static int parse_function(const char *option, char *text, struct takeover_function *function,
                          struct error *err)
{
    char *name = strchr(text, '='), *position;
    unsigned role = 0;

    if (name)
        *name++ = 0;
    while (role < BASE_COUNT_OF(roles) && strcmp(text, roles[role].role) != 0)
        role++;
    if (!name || !name[0] || role == BASE_COUNT_OF(roles))
        return error_set(err, -EINVAL,
                         "cannot take over the allocator \"%s\": \"%s\" is not one of alloc=NAME, "
                         "calloc=NAME, realloc=NAME, free=NAME",
                         option, text);
    position = strchr(name, '@');
    if (position && (position[1] < '1' || position[1] > '7' || position[2] || position == name))
        return error_set(err, -EINVAL,
                         "cannot take over the allocator \"%s\": what follows \"@\" is the number "
                         "of an argument, from 1 to 7",
                         option);
    *function = (struct takeover_function){
        .name = name,
        .kind = TAKEOVER_NAMED,
        .perform = roles[role].perform,
        .argument = (uint8_t)(position ? position[1] - '1' : 0),
        .family = HEAP_NAMED,
    };
    if (position)
        *position = 0;
    return 0;
}

int takeover_option_parse(const char *option, struct takeover_function *functions, size_t *count,
                          char **text, struct error *err)
{
    char *rest = *text = strdup(option), *part;
    bool allocates = false;

    *count = 0;
    if (!rest)
        return error_set(err, -ENOMEM, "no memory for the allocator \"%s\"", option);
    while ((part = strsep(&rest, ","))) {
        if (*count == TAKEOVER_OPTION_FUNCTIONS)
            return error_set(err, -EINVAL,
                             "cannot take over the allocator \"%s\": more than %u functions",
                             option, TAKEOVER_OPTION_FUNCTIONS);
        int rc = parse_function(option, part, &functions[*count], err);
        if (rc < 0)
            return rc;
        allocates |= functions[*count].perform != do_free;
        ++*count;
    }
    return allocates ? 0
                     : error_set(err, -EINVAL,
                                 "cannot take over the allocator \"%s\": nothing in it allocates",
                                 option);
}
