// SPDX-License-Identifier: BSD-2-Clause
// A program in an address space of this process, for the tests of what is taken over: a real heap,
// and a checker that writes down what it is asked.
#ifndef STRAKE_TESTS_TAKEOVER_FIXTURE_H
#define STRAKE_TESTS_TAKEOVER_FIXTURE_H

#include <signal.h>
#include <sys/mman.h>

#include "check/takeover_internal.h"
#include "check_program.h"

#define CODE 0x2a00000000ull
#define LANDING 0x100000ull
#define PLAIN 0x200000ull
#define STACK (CHECKER_STACKS + (1ull << 30))
#define STACK_BYTES 65536ull
#define RETURN 0x12344ull
#define ASKED_MAX 16u

struct asked {
    uint64_t pointer, bytes;
    enum hart_access access;
};

struct checker {
    uint8_t *hva;
    _Atomic uint8_t *pages;
    struct memory_identifiers identifiers;
    struct heap *heap;
    uint64_t heap_room_bytes;  // what may still be mapped
    bool go_on;                // after what is wrong
    // What was asked since `clear`.
    struct asked asked[ASKED_MAX];
    unsigned asked_count;
    // What was found.
    unsigned found;
    enum check_kind kind;
    struct heap_finding finding;
    uint64_t pointer, bytes;
    enum hart_access access;
    enum check_access check_access;
    // A fault.
    unsigned faults;
    uint64_t fault_pointer;
    enum hart_access fault_access;
};

struct checker_thread {
    struct checker checker;
    struct heap_thread *heap;
    struct hart *hart;
    struct hart_flat flat;
    struct takeover *takeover;
    uint64_t code_bytes;
    uint64_t exits_with;  // its stack pointer
    bool tries_few;
    unsigned few_done;  // by what is done at once
};

// ---- The checker --------------------------------------------------------------------------------

struct checker *checker_of(struct checker_thread *thread)
{
    return &thread->checker;
}

struct heap_thread *checker_heap_thread(struct checker_thread *thread)
{
    return thread->heap;
}

struct heap *checker_heap(struct checker *checker)
{
    return checker->heap;
}

void checker_exits(struct checker_thread *thread, const struct hart *hart)
{
    thread->exits_with = hart->x[2];
}

uint32_t checker_who(struct checker_thread *thread, struct hart *hart, uint64_t pc)
{
    (void)thread, (void)hart, (void)pc;
    return 7;
}

const struct memory_identifiers *checker_identifiers(const struct checker *checker, bool *exact)
{
    *exact = !checker->go_on;
    return &checker->identifiers;
}

// No answer: everything is asked for.
uint64_t checker_glance(struct checker *of, uint64_t pointer, uint64_t bytes)
{
    (void)of;
    (void)pointer;
    (void)bytes;
    return 0;
}

bool checker_range(struct checker_thread *thread, struct hart *hart, uint64_t pointer,
                   uint64_t bytes, enum hart_access access)
{
    struct checker *checker = &thread->checker;

    (void)hart;
    assert_true(bytes > 0);
    if (checker->asked_count < ASKED_MAX)
        checker->asked[checker->asked_count++] = (struct asked){pointer, bytes, access};
    if (heap_allows(checker->heap, pointer, bytes))
        return true;
    checker->found++;
    heap_diagnose(checker->heap, pointer, bytes, &checker->finding);
    checker->pointer = pointer;
    checker->bytes = bytes;
    checker->access = access;
    return checker->go_on;
}

bool checker_found_heap(struct checker_thread *thread, struct hart *hart,
                        const struct heap_finding *finding, enum check_access access,
                        uint64_t pointer, uint64_t bytes)
{
    struct checker *checker = &thread->checker;

    (void)hart;
    checker->found++;
    checker->finding = *finding;
    checker->check_access = access;
    checker->pointer = pointer;
    checker->bytes = bytes;
    return checker->go_on;
}

bool checker_found(struct checker_thread *thread, struct hart *hart, enum check_kind kind,
                   enum check_access access, uint64_t pointer, uint64_t bytes, const char *detail)
{
    struct checker *checker = &thread->checker;

    (void)hart, (void)detail;
    checker->found++;
    checker->kind = kind;
    checker->check_access = access;
    checker->pointer = pointer;
    checker->bytes = bytes;
    return checker->go_on;
}

// Of the checker's own files (checker_internal.h), for what is told of variables.
bool checker_tell(struct checker_thread *thread, struct hart *hart, struct check_finding *finding);
bool checker_tell(struct checker_thread *thread, struct hart *hart, struct check_finding *finding)
{
    return checker_found(thread, hart, finding->kind, finding->access, finding->gva, finding->bytes,
                         finding->detail);
}

void *checker_hva(struct checker *checker, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer);
    return bytes > HART_FLAT_BYTES || gva > HART_FLAT_BYTES - bytes ? NULL : checker->hva + gva;
}

static sigjmp_buf attempt_failed;
static volatile sig_atomic_t attempting;
static const uint8_t *attempt_hva;  // of the program's address 0

// Only what lies within the program's addresses may be tried.
static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (!attempting || (uintptr_t)info->si_addr - (uintptr_t)attempt_hva >= HART_FLAT_BYTES)
        abort();
    siglongjmp(attempt_failed, 1);
}

int checker_attempt(struct checker *checker, void (*work)(void *argument), void *argument)
{
    // cmocka handles it, too, anew for each test.
    const struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

    attempt_hva = checker_hva(checker, 0, 1);
    if (sigsetjmp(attempt_failed, 1)) {
        attempting = 0;
        return -EFAULT;
    }
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    attempting = 1;
    work(argument);
    attempting = 0;
    return 0;
}

int checker_copy_in(struct checker *checker, void *to, uint64_t pointer, uint64_t bytes)
{
    struct takeover_work work = {
        .to = to, .from = checker_hva(checker, pointer, bytes), .units = bytes, .unit_bytes = 1};
    return work.from ? checker_attempt(checker, takeover_work_copy, &work) : -EFAULT;
}

int checker_copy_out(struct checker *checker, uint64_t pointer, const void *from, uint64_t bytes)
{
    struct takeover_work work = {
        .to = checker_hva(checker, pointer, bytes), .from = from, .units = bytes, .unit_bytes = 1};
    return work.to ? checker_attempt(checker, takeover_work_copy, &work) : -EFAULT;
}

void checker_fault(struct checker_thread *thread, struct hart *hart, uint64_t pointer,
                   enum hart_access access)
{
    (void)hart;
    thread->checker.faults++;
    thread->checker.fault_pointer = pointer;
    thread->checker.fault_access = access;
}

// Variables' functions belong to the real one.
const struct takeover_function takeover_variables[] = {{.name = ""}};
const size_t takeover_variables_count = 0;

// ---- The program --------------------------------------------------------------------------------

static inline void program_protect(struct checker *checker, uint64_t gva, uint64_t bytes,
                                   int protection)
{
    assert_int_equal(mprotect(checker->hva + gva, bytes, protection), 0);
    memset((void *)(checker->pages + gva / MEMORY_PAGE_BYTES),
           (protection & PROT_READ ? HART_PAGE_READ : 0) |
               (protection & PROT_WRITE ? HART_PAGE_WRITE : 0),
           bytes / MEMORY_PAGE_BYTES);
}

static int program_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    struct checker *checker = opaque;

    if (bytes > checker->heap_room_bytes)
        return -ENOMEM;
    checker->heap_room_bytes -= bytes;
    program_protect(checker, gva, bytes, PROT_READ | PROT_WRITE);
    return 0;
}

static void program_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    program_protect(opaque, gva, bytes, PROT_NONE);
}

static int program_zero(void *opaque, uint64_t gva, uint64_t bytes)
{
    memset(((struct checker *)opaque)->hva + gva, 0, bytes);
    return 0;
}

static int program_copy(void *opaque, uint64_t to, uint64_t from, uint64_t bytes)
{
    struct checker *checker = opaque;
    memcpy(checker->hva + to, checker->hva + from, bytes);
    return 0;
}

static inline void program_init(struct checker_thread *thread, const char *const *allocators,
                                size_t allocators_count)
{
    struct checker *checker = &thread->checker;
    struct error err;

    *thread = (struct checker_thread){.checker.heap_room_bytes = UINT64_MAX};
    checker->hva =
        mmap(NULL, HART_FLAT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    checker->pages = mmap(NULL, HART_FLAT_BYTES / MEMORY_PAGE_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(checker->hva, MAP_FAILED);
    assert_ptr_not_equal((void *)checker->pages, MAP_FAILED);
    struct heap_space space = {.gva = CHECKER_HEAP,
                               .bytes = 1ull << 32,
                               .map = program_map,
                               .unmap = program_unmap,
                               .zero = program_zero,
                               .copy = program_copy,
                               .opaque = checker};
    assert_int_equal(memory_identifiers_init(&checker->identifiers, HART_FLAT_BYTES, &err), 0);
    assert_int_equal(heap_create(&checker->heap, &space, &checker->identifiers, &err), 0);
    assert_int_equal(heap_thread_create(checker->heap, &thread->heap), 0);
    program_protect(checker, STACK, STACK_BYTES, PROT_READ | PROT_WRITE);
    thread->flat = (struct hart_flat){.hva = checker->hva, .pages = checker->pages};
    thread->hart = calloc(1, sizeof(*thread->hart));
    assert_non_null(thread->hart);
    thread->hart->flat = &thread->flat;
    const struct takeover_options options = {
        .allocators = allocators, .allocators_count = allocators_count, .landing = LANDING};
    assert_int_equal(takeover_create(&thread->takeover, &options, &err), 0);
}

static inline void program_fini(struct checker_thread *thread)
{
    struct checker *checker = &thread->checker;

    takeover_destroy(thread->takeover);
    free(thread->hart);
    heap_thread_destroy(thread->heap);
    heap_destroy(checker->heap);
    memory_identifiers_fini(&checker->identifiers);
    munmap(checker->hva, HART_FLAT_BYTES);
    munmap((void *)checker->pages, HART_FLAT_BYTES / MEMORY_PAGE_BYTES);
}

static inline void program_clear(struct checker_thread *thread)
{
    struct checker *checker = &thread->checker;
    checker->asked_count = checker->found = checker->faults = 0;
}

// Maps the executable part of a file, and has its functions taken over.
static inline void program_load_at(struct checker_thread *thread, const char *path, uint64_t gva)
{
    size_t count;
    uint8_t *bytes = read_file(path, &count);
    const Elf64_Ehdr *header = (const void *)bytes;
    const Elf64_Phdr *segment = (const void *)(bytes + header->e_phoff);

    while (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
        segment++;
    uint64_t offset = segment->p_offset / MEMORY_PAGE_BYTES * MEMORY_PAGE_BYTES;
    uint64_t length = segment->p_offset + segment->p_filesz - offset;
    thread->code_bytes = (length + MEMORY_PAGE_BYTES - 1) / MEMORY_PAGE_BYTES * MEMORY_PAGE_BYTES;
    program_protect(&thread->checker, gva, thread->code_bytes, PROT_READ | PROT_WRITE);
    memcpy(thread->checker.hva + gva, bytes + offset, length);
    free(bytes);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(takeover_map(thread->takeover, gva, thread->code_bytes, fd, offset), 0);
    close(fd);
}

static inline void program_load(struct checker_thread *thread, const char *path)
{
    program_load_at(thread, path, CODE);
}

// Where a function of that name is, in what was loaded at `gva`; 0: nowhere.
static inline uint64_t program_find_at(struct checker_thread *thread, const char *name,
                                       uint64_t gva)
{
    for (uint64_t pc = gva; pc < gva + thread->code_bytes; pc += 2) {
        const char *there = takeover_name(thread->takeover, pc);
        if (there && strcmp(there, name) == 0)
            return pc;
    }
    return 0;
}

static inline uint64_t program_find(struct checker_thread *thread, const char *name)
{
    return program_find_at(thread, name, CODE);
}

// A library of this assembly.
static inline void assemble_library(const char *path, const char *soname, const char *text)
{
    char source[160];

    snprintf(source, sizeof(source), "%s.s", path);
    write_file(source, text, strlen(text));
    run(CROSS "gcc -shared -nostdlib -Wl,-soname,%s -o '%s' '%s'", soname, path, source);
}

// A library of all functions that may be taken over, each of 4 bytes; `more` is further assembly.
static inline void make_library(const char *path, const char *soname, const char *more)
{
    char *text;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    assert_non_null(out);
    const struct takeover_function *tables[] = {takeover_allocators, takeover_texts};
    const size_t counts[] = {takeover_allocators_count, takeover_texts_count};

    fprintf(out, ".text\n");
    for (size_t i = 0; i < BASE_COUNT_OF(tables); i++)
        for (size_t j = 0; j < counts[i]; j++)
            if (tables[i][j].perform)
                fprintf(out,
                        ".globl %1$s\n.type %1$s, @function\n%1$s: .option push\n"
                        ".option norvc\nret\n.option pop\n.size %1$s, 4\n",
                        tables[i][j].name);
    fprintf(out, "%s\n", more);
    assert_int_equal(fclose(out), 0);
    assemble_library(path, soname, text);
    free(text);
}

// Calls a function by its address, with up to four arguments; x[1] is RETURN. Where `thread` says
// so as translated code does, which tries what is done at once before.
static inline bool program_call_at(struct checker_thread *thread, uint64_t pc, uint64_t a,
                                   uint64_t b, uint64_t c, uint64_t d)
{
    struct hart *hart = thread->hart;
    const void *few = thread->tries_few ? takeover_few_at(thread->takeover, pc) : NULL;

    program_clear(thread);
    hart->pc = pc;
    hart->x[1] = RETURN;
    hart->x[2] = STACK + STACK_BYTES / 2;
    hart->x[10] = a;
    hart->x[11] = b;
    hart->x[12] = c;
    hart->x[13] = d;
    if (few && takeover_few(thread->takeover, thread, hart, few, pc)) {
        thread->few_done++;
        hart->pc = RETURN;
        return true;
    }
    takeover_call(thread->takeover, thread, hart);
    return hart->pc == RETURN;
}

static inline uint8_t *program_hva(struct checker_thread *thread, uint64_t pointer)
{
    return thread->checker.hva + memory_pointer_gva(pointer);
}

#endif
