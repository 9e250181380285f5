// SPDX-License-Identifier: BSD-2-Clause
// Functions whose last act is a call, which the compiler has made a jump, have no frame any more
// when they are asked for: where they were called from seems to have called what they jumped to.
// They are found by what is called there: where that is another function than the one that is
// executed, it has been left by a jump, and if only one of its jumps leads there it is that.
//
// Nothing is known of who was called through a register.
#include <string.h>

#include "check/internal.h"
#include "isa/isa.h"

#define DEPTH_MAX 8u       // functions, one behind the other, that were left by jumps
#define FUNCTIONS_MAX 64u  // that are looked at for one place
#define FRAMES_MAX 16u     // of a place
#define CODE_MAX 16384u    // bytes of a function that are looked at
#define JUMPS_MAX 32u      // out of a function
#define REGISTER_RA 1u

struct tails {
    struct check_symbols *symbols;  // locked
    const struct check_memory *memory;
};

struct function {
    uint64_t start, end;
};

struct search {
    const struct tails *tails;
    uint64_t inner;      // what is to be reached
    unsigned functions;  // that were looked at
};

struct jump {
    uint64_t place, target;
};

static bool contains(const struct function *function, uint64_t gva)
{
    return gva >= function->start && gva < function->end;
}

static bool fetch(const struct check_memory *memory, uint64_t gva, struct isa_insn *insn)
{
    uint16_t halves[2] = {0, 0};

    if (gva % 2 || memory->read(memory->opaque, gva, &halves[0], sizeof(halves[0])) < 0)
        return false;
    if ((halves[0] & 3) == 3 &&
        memory->read(memory->opaque, gva + 2, &halves[1], sizeof(halves[1])) < 0)
        return false;
    isa_decode(halves[0] | (uint32_t)halves[1] << 16, insn);
    return true;
}

static uint64_t plus(uint64_t gva, const struct isa_insn *insn)
{
    return gva + (uint64_t)(int64_t)insn->imm;
}

static bool function_at(const struct tails *tails, uint64_t gva, struct function *function)
{
    uint64_t address, start, bytes;
    struct check_module *module = check_symbols_find(tails->symbols, gva, &address);

    if (!module || !check_module_function(module, address, &start, &bytes) ||
        address - start >= bytes)
        return false;
    function->start = gva - (address - start);
    function->end = function->start + bytes;
    return true;
}

static size_t resolve(const struct tails *tails, uint64_t gva, struct check_strings *strings,
                      struct check_frame frames[static FRAMES_MAX])
{
    uint64_t address;
    struct check_module *module = check_symbols_find(tails->symbols, gva, &address);

    memset(frames, 0, FRAMES_MAX * sizeof(*frames));
    return module ? check_module_resolve(module, address, strings, frames, FRAMES_MAX) : 0;
}

static bool same_text(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

// Whether both are of one function (compilers put parts of one apart from each other), and, if
// `lines`, in the same line.
static bool are_alike(const struct tails *tails, uint64_t a, uint64_t b, bool lines)
{
    struct check_strings strings = {0};
    struct check_frame of_a[FRAMES_MAX], of_b[FRAMES_MAX];
    size_t count_a = resolve(tails, a, &strings, of_a), count_b = resolve(tails, b, &strings, of_b);
    bool alike =
        count_a && count_b && same_text(of_a[count_a - 1].function, of_b[count_b - 1].function) &&
        (!lines ||
         (of_a[0].line && of_a[0].line == of_b[0].line && same_text(of_a[0].file, of_b[0].file)));

    check_strings_fini(&strings);
    return alike;
}

// Where it goes on from an address: calls of other files go by way of the linkage table, with the
// address in a table of the dynamic linker's.
static uint64_t follow(const struct tails *tails, uint64_t gva)
{
    struct isa_insn insn[3];
    uint64_t at = gva, target;

    for (unsigned i = 0; i < BASE_COUNT_OF(insn); at += insn[i++].length)
        if (!fetch(tails->memory, at, &insn[i]))
            return gva;
    if (insn[0].op != ISA_AUIPC || insn[1].op != ISA_LD || insn[1].rs1 != insn[0].rd ||
        insn[2].op != ISA_JALR || insn[2].rs1 != insn[1].rd || insn[2].rd == REGISTER_RA)
        return gva;
    uint64_t entry = plus(plus(gva, &insn[0]), &insn[1]);
    return tails->memory->read(tails->memory->opaque, entry, &target, sizeof(target)) < 0 ? gva
                                                                                          : target;
}

uint64_t check_callee(const struct check_memory *memory, uint64_t back)
{
    struct isa_insn call, upper;

    if (!fetch(memory, back - 4, &call) || call.length != 4 || call.rd != REGISTER_RA)
        return 0;
    if (call.op == ISA_JAL)
        return plus(back - 4, &call);
    if (call.op == ISA_JALR && fetch(memory, back - 8, &upper) && upper.op == ISA_AUIPC &&
        upper.rd == call.rs1)
        return plus(plus(back - 8, &upper), &call);
    return 0;
}

// What the call before `gva` leads to; 0: not known.
static uint64_t called_before(const struct tails *tails, uint64_t gva)
{
    uint64_t callee = check_callee(tails->memory, gva);

    return callee ? follow(tails, callee) : 0;
}

static size_t jumps_of(const struct tails *tails, const struct function *function,
                       struct jump jumps[static JUMPS_MAX])
{
    struct isa_insn insn, before = {0};
    uint64_t end =
        function->end - function->start > CODE_MAX ? function->start + CODE_MAX : function->end;
    size_t count = 0;

    for (uint64_t gva = function->start; gva < end && count < JUMPS_MAX; gva += insn.length) {
        uint64_t target = 0;
        if (!fetch(tails->memory, gva, &insn))
            return 0;
        if (insn.op == ISA_JAL && insn.rd == 0)
            target = plus(gva, &insn);
        else if (insn.op == ISA_JALR && insn.rd == 0 && before.op == ISA_AUIPC &&
                 before.rd == insn.rs1)
            target = plus(plus(gva - 4, &before), &insn);
        if (target && !contains(function, target))
            jumps[count++] = (struct jump){gva, follow(tails, target)};
        before = insn;
    }
    return count;
}

// By which jumps the function that starts at `start` has been left to reach `inner`, the last one
// first; how many. 0: it is not known, or there are several ways.
static size_t way(struct search *search, uint64_t start,  // NOLINT(misc-no-recursion): DEPTH_MAX
                  unsigned depth, uint64_t places[static DEPTH_MAX])
{
    const struct tails *tails = search->tails;
    struct function function, target;
    struct jump jumps[JUMPS_MAX];
    uint64_t tried[DEPTH_MAX];
    size_t length = 0;

    if (search->functions++ == FUNCTIONS_MAX || !function_at(tails, start, &function) ||
        function.start != start)
        return 0;
    size_t count = jumps_of(tails, &function, jumps);
    for (size_t i = 0; i < count; i++) {
        bool direct =
            jumps[i].target == search->inner ||
            (function_at(tails, jumps[i].target, &target) && contains(&target, search->inner));
        size_t further = direct || depth + 1 == DEPTH_MAX || search->functions >= FUNCTIONS_MAX
                             ? 0
                             : way(search, jumps[i].target, depth + 1, tried);
        if (!direct && further == 0)
            continue;
        // Compilers may write one call several times.
        if (length &&
            (length != further + 1 || memcmp(places, tried, further * sizeof(*places)) != 0 ||
             !are_alike(tails, places[further], jumps[i].place, true)))
            return 0;
        memcpy(places, tried, further * sizeof(*places));
        places[further] = jumps[i].place;
        length = further + 1;
    }
    return length;
}

// Between a place and what it is said to have been called from.
static size_t left_out(const struct tails *tails, uint64_t inner, uint64_t caller,
                       uint64_t places[static DEPTH_MAX])
{
    uint64_t called = caller & 1 ? called_before(tails, check_place_pc(caller)) : 0;
    struct function function;

    struct search search = {.tails = tails, .inner = inner & ~1ull};

    if (!called || called == search.inner || !function_at(tails, called, &function) ||
        contains(&function, search.inner) || are_alike(tails, called, search.inner, false))
        return 0;
    return way(&search, called, 0, places);
}

size_t check_tails(struct check_symbols *symbols, const struct check_memory *memory,
                   const struct check_stack *stack, uint64_t places[static CHECK_STACK_MAX])
{
    const struct tails tails = {.symbols = symbols, .memory = memory};
    size_t count = 0;

    check_symbols_lock(symbols);
    for (size_t i = 0; i < stack->count && count < CHECK_STACK_MAX; i++) {
        uint64_t more[DEPTH_MAX];
        size_t length = i ? left_out(&tails, stack->places[i - 1], stack->places[i], more) : 0;
        for (size_t j = 0; j < length && count < CHECK_STACK_MAX; j++)
            places[count++] = more[j];
        if (count < CHECK_STACK_MAX)
            places[count++] = stack->places[i];
    }
    check_symbols_unlock(symbols);
    return count;
}
