// SPDX-License-Identifier: BSD-2-Clause
// What is wrong with an access, a function's or a system call's memory, or a return; and what only
// looks so: dead frames are told from other stacks, and reads of whole words from errors.
#include "check/checker_internal.h"
#include "check/variables.h"

#include <stdio.h>
#include <string.h>

static struct checker_thread *thread_of(struct checker *checker, struct hart *hart)
{
    return checker->target.thread(checker->target.opaque, hart);
}

enum check_access checker_access_of(enum hart_access access)
{
    return access == HART_LOAD    ? CHECK_ACCESS_READ
           : access == HART_STORE ? CHECK_ACCESS_WRITE
                                  : CHECK_ACCESS_EXECUTE;
}

// ---- Stacks -------------------------------------------------------------------------------------

// Below sp, and on the stack that sp is on.
static bool is_dead_frame(const struct checker *checker, const struct hart *hart, uint64_t gva)
{
    const struct checker_target *target = &checker->target;
    uint64_t sp = hart->x[HART_SP];

    return gva < sp && checker_is_stack(checker, gva) && checker_is_stack(checker, sp) &&
           target->same_stack(target->opaque, gva, sp);
}

// ---- Ranges -------------------------------------------------------------------------------------

// The instruction at pc, or one that is illegal.
static void instruction_at(struct checker *checker, uint64_t pc, struct isa_insn *insn)
{
    uint16_t halves[2] = {0};

    // The second half may be on a page that is not there.
    if (checker_copy_in(checker, &halves[0], pc, sizeof(halves[0])) == 0)
        (void)!checker_copy_in(checker, &halves[1], pc + sizeof(halves[0]), sizeof(halves[1]));
    isa_decode(halves[0] | (uint32_t)halves[1] << 16, insn);
}

// libatomic in a static program. Looked up each time: few do this, and not often.
static bool is_atomic_function(struct checker *checker, uint64_t pc)
{
    enum { FRAMES_MAX = 4 };
    struct check_frame frames[FRAMES_MAX];
    size_t count = check_symbols_resolve(checker->symbols, pc, frames, FRAMES_MAX);
    const char *name = frames[count - 1].function;  // that the others are inlined into

    return name && (strncmp(name, "__atomic_", 9) == 0 || strncmp(name, "libat_", 6) == 0);
}

// Words that are read beyond what is needed of them: by string functions of libc that are not taken
// over, and what the dynamic loader has of its own; and to change a byte atomically, which there is
// no instruction for.
static bool takes_whole_words(struct checker *checker, const struct hart *hart,
                              enum hart_access kind)
{
    struct isa_insn insn;

    if (kind == HART_LOAD && checker_is_library(checker, hart->pc, false))
        return true;
    instruction_at(checker, hart->pc, &insn);
    return insn.op == ISA_LR_W || insn.op == ISA_LR_D || insn.op == ISA_SC_W ||
           insn.op == ISA_SC_D || (kind == HART_LOAD && is_atomic_function(checker, hart->pc));
}

// They are aligned, hold a byte of the object, and end in the granule that it ends in.
static bool is_whole_word(struct checker *checker, const struct hart *hart, uint64_t pointer,
                          uint64_t bytes, enum hart_access kind)
{
    uint64_t gva = memory_pointer_gva(pointer);
    struct heap_object object;

    if (gva % bytes != 0 || !heap_find(checker->heap, gva, &object) || !object.live ||
        object.identifier != memory_pointer_identifier(pointer) || gva < object.gva ||
        gva >= object.gva + object.bytes)
        return false;
    uint64_t last = object.gva + object.bytes - 1;
    return (gva + bytes - 1) / MEMORY_GRANULE_BYTES <= last / MEMORY_GRANULE_BYTES &&
           takes_whole_words(checker, hart, kind);
}

static bool is_heaps(const struct checker *checker, uint64_t pointer)
{
    const struct checker_target *target = &checker->target;
    return memory_pointer_identifier(pointer) != MEMORY_IDENTIFIER_NONE ||
           memory_pointer_gva(pointer) - target->objects < target->objects_bytes;
}

uint64_t checker_access_bytes(struct checker *checker, uint64_t pc)
{
    struct isa_insn insn;

    instruction_at(checker, pc, &insn);
    if (insn.op == ISA_CBO_ZERO)
        return HART_CACHE_BLOCK_BYTES;
    return isa_op_flags(insn.op) & (ISA_LOAD | ISA_STORE) ? isa_op_access_bytes(insn.op) : 1;
}

// gcc 12 saves registers of floating point before it makes room for them, where a frame is large,
// and restores them when the room is gone: such accesses are by the stack pointer itself, as those
// to frames that are gone never are.
static bool is_of_own_frame(struct checker *checker, const struct hart *hart)
{
    struct isa_insn insn;

    instruction_at(checker, hart->pc, &insn);
    return insn.rs1 == HART_SP && (isa_op_flags(insn.op) & (ISA_LOAD | ISA_STORE)) &&
           !(isa_op_flags(insn.op) & ISA_ATOMIC);
}

static bool refuse(struct checker_thread *thread, struct hart *hart, const char *call,
                   uint64_t pointer, uint64_t bytes, enum hart_access kind)
{
    struct heap_finding finding;
    uint8_t unused;

    heap_diagnose(thread->checker->heap, pointer, bytes, &finding);
    // Where nothing is the access faults, which the program may expect and handle.
    if (finding.fault == HEAP_WILD &&
        checker_copy_in(thread->checker, &unused, pointer, sizeof(unused)) < 0)
        return true;
    return checker_found_by_call(thread, hart, call, &finding, checker_access_of(kind), pointer,
                                 bytes);
}

// The detail has the names of calls with at most this many characters.
enum { DETAIL_BYTES = 96 };

static bool refuse_dead(struct checker_thread *thread, struct hart *hart, const char *call,
                        uint64_t pointer, uint64_t bytes, enum hart_access kind)
{
    char detail[DETAIL_BYTES];
    uint64_t sp = hart->x[HART_SP];

    snprintf(detail, sizeof(detail), "It is %llu bytes below the stack pointer%s%s",
             (unsigned long long)(sp - pointer), call ? ", for the system call " : "",
             call ? call : "");
    return checker_found(thread, hart, CHECK_DEAD_STACK_USE, checker_access_of(kind), pointer,
                         bytes, detail);
}

const struct memory_identifiers *checker_identifiers(const struct checker *checker, bool *exact)
{
    *exact = !checker->options.go_on;
    return &checker->identifiers;
}

uint64_t checker_glance(struct checker *checker, uint64_t pointer, uint64_t bytes)
{
    const uint64_t granule = MEMORY_GRANULE_BYTES;
    uint16_t identifier = memory_pointer_identifier(pointer), entry;
    uint64_t gva = memory_pointer_gva(pointer), at = gva - gva % granule, known = 0;
    uint64_t wanted = bytes < CHECKER_GLANCE_BYTES ? bytes : CHECKER_GLANCE_BYTES;
    uint8_t rest;

    if (!memory_identifier_is_valid(identifier) || gva >= checker->identifiers.bytes - wanted)
        return 0;
    for (; known < wanted; at += granule, known = at - gva) {
        entry = memory_identifiers_get(&checker->identifiers, at);
        if (entry == identifier)
            continue;
        if (!checker->options.go_on && memory_identifier_is_partial(entry, identifier) &&
            checker_copy_in(checker, &rest, at + granule - 1, 1) == 0 && at + rest > gva)
            known = at + rest - gva;
        break;
    }
    return known < wanted ? known : wanted;
}

static bool range(struct checker_thread *thread, struct hart *hart, const char *call,
                  uint64_t pointer, uint64_t bytes, enum hart_access kind)
{
    struct checker *checker = thread->checker;

    if (bytes == 0 || checker_glance(checker, pointer, bytes) == bytes)
        return true;
    if (variables_has(checker, pointer))
        return variables_extent(checker, pointer, bytes) == bytes ||
               variables_refuse(thread, hart, call, pointer, bytes, checker_access_of(kind));
    if (is_heaps(checker, pointer))
        return heap_allows(checker->heap, pointer, bytes) ||
               refuse(thread, hart, call, pointer, bytes, kind);
    return !is_dead_frame(checker, hart, pointer) ||
           refuse_dead(thread, hart, call, pointer, bytes, kind);
}

bool checker_range(struct checker_thread *thread, struct hart *hart, uint64_t pointer,
                   uint64_t bytes, enum hart_access access)
{
    return range(thread, hart, NULL, pointer, bytes, access);
}

bool checker_call_range(struct checker_thread *thread, struct hart *hart, const char *call,
                        uint64_t pointer, uint64_t bytes, enum hart_access access)
{
    return range(thread, hart, call, pointer, bytes, access);
}

bool checker_hook_access(void *opaque, struct hart *hart, uint64_t pointer, uint64_t bytes,
                         enum hart_access kind)
{
    struct checker *checker = opaque;

    if (variables_has(checker, pointer)) {
        if (variables_is_whole_word(checker, pointer, bytes) &&
            takes_whole_words(checker, hart, kind))
            return true;
    } else if (is_heaps(checker, pointer) && (heap_allows(checker->heap, pointer, bytes) ||
                                              is_whole_word(checker, hart, pointer, bytes, kind))) {
        return true;
    } else if (is_dead_frame(checker, hart, pointer) && is_of_own_frame(checker, hart)) {
        return true;
    }
    return range(thread_of(checker, hart), hart, NULL, pointer, bytes, kind);
}

// ---- Faults -------------------------------------------------------------------------------------

void checker_fault(struct checker_thread *thread, struct hart *hart, uint64_t pointer,
                   enum hart_access access)
{
    const struct checker_target *target = &thread->checker->target;
    target->fault(target->opaque, hart, memory_pointer_gva(pointer), access);
}

// ---- Returns ------------------------------------------------------------------------------------

bool checker_hook_returns(void *opaque, struct hart *hart, uint64_t expected)
{
    char detail[DETAIL_BYTES];
    uint64_t to = hart->x[HART_LINK];

    snprintf(detail, sizeof(detail),
             "The function was called from before 0x%llx, and is about to return to 0x%llx",
             (unsigned long long)expected, (unsigned long long)to);
    return checker_found(thread_of(opaque, hart), hart, CHECK_RETURN_ADDRESS_OVERWRITTEN,
                         CHECK_ACCESS_RETURN, to, sizeof(to), detail);
}
