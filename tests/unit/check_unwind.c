// SPDX-License-Identifier: BSD-2-Clause
// Stacks of riscv64 programs that run: after each instruction compared with the calls and returns
// that were seen; by frame pointers where there is no call frame information; across a signal; and
// from registers and memory that make no sense.
#include <sys/mman.h>

#include "check_program.h"
#include "hart/hart.h"

#define PAGE 4096ull
#define BASE 0x10000000ull
#define STACK_END 0x20000000ull
#define STACK_BYTES (256 * PAGE)
#define REGION_BYTES (HART_FLAT_BYTES + 2 * HART_FLAT_GUARD_BYTES)
#define PAGES_BYTES (HART_FLAT_BYTES / PAGE)

enum { RA = 1, SP = 2, A7 = 17 };
enum { CALL_EXIT = 93, CALL_SIGNAL = 1000 };

static const char source[] =
    "#define STOP __asm__ volatile(\".option push\\n.option norvc\\nebreak\\n.option pop\")\n"
    "#define APART __attribute__((noinline, noclone, noipa))\n"
    "__asm__(\".globl _start\\n_start: .cfi_startproc\\n.cfi_undefined ra\\n\"\n"
    "        \"call begin\\nli a7, 93\\necall\\n.cfi_endproc\\n\"\n"
    "        \".balign 16\\nnop\\nnop\\n.option push\\n.option norvc\\n.globl restorer\\n\"\n"
    "        \"restorer: li a7, 139\\necall\\n.option pop\\n\");\n"
    "APART int leaf(int x) { STOP; return x + 1; }\n"
    "APART int middle(int x)\n"
    "{\n"
    "    volatile char big[3000];\n"
    "    big[x] = 1;\n"
    "    int got = leaf(x);\n"
    "    STOP;\n"
    "    return got + big[0];\n"
    "}\n"
    "APART int deep(int n) { return n ? deep(n - 1) * 3 : middle(n) * 2; }\n"
    "APART int varied(int n) { volatile char some[n * 100 + 100]; some[n] = 2;\n"
    "                          return middle(n) + some[n]; }\n"
    "APART int handler_calls(int x) { STOP; return x * 2; }\n"
    "APART void handler(void) { volatile int got = handler_calls(1); (void)got; }\n"
    "APART int interrupted(int x)\n"
    "{\n"
    "    __asm__ volatile(\"li a7, 1000\\necall\" ::: \"a7\", \"memory\");\n"
    "    return x + 1;\n"
    "}\n"
    "APART int begin(void)\n"
    "{\n"
    "    int (*volatile pointer)(int) = varied;\n"
    "    return deep(3) + pointer(2) + interrupted(4) * 2;\n"
    "}\n";

// ---- A program that runs ------------------------------------------------------------------------

struct program {
    struct hart_flat flat;
    uint8_t *region, *file;
    const char *path;
    struct hart *hart;
    struct check_symbols *symbols;
    struct check_unwinder *unwinder;
    struct check_memory memory;
    void (*stopped)(struct program *program);  // at an ebreak
    unsigned stops;
    uint64_t handler, restorer;
    uint64_t returns[64];  // of the calls that were seen, the outermost first
    size_t depth;
};

static void *reserve(uint64_t bytes, int protection)
{
    void *memory =
        mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

static void allow(struct program *program, uint64_t gva, uint64_t bytes)
{
    assert_int_equal(mprotect(program->flat.hva + gva, bytes, PROT_READ | PROT_WRITE), 0);
    for (uint64_t page = gva / PAGE; page < (gva + bytes) / PAGE; page++)
        program->flat.pages[page] = HART_PAGE_READ | HART_PAGE_WRITE | HART_PAGE_EXEC;
}

static void load_segment(void *opaque, uint64_t gva, const Elf64_Phdr *segment)
{
    struct program *program = opaque;
    uint64_t start = gva & ~(PAGE - 1), end = (gva + segment->p_memsz + PAGE - 1) & ~(PAGE - 1);

    allow(program, start, end - start);
    memcpy(program->flat.hva + gva, program->file + segment->p_offset, segment->p_filesz);
}

static int read_guest(void *opaque, uint64_t gva, void *bytes, size_t count)
{
    const struct program *program = opaque;

    for (uint64_t at = gva; at < gva + count; at++)
        if (at >= HART_FLAT_BYTES || !program->flat.pages[at / PAGE])
            return -EFAULT;
    memcpy(bytes, program->flat.hva + gva, count);
    return 0;
}

// As the kernel: siginfo, ucontext up to its registers, which begin with pc.
static void deliver_signal(struct program *program)
{
    struct hart *hart = program->hart;
    uint64_t frame = (hart->x[SP] - 1088) & ~15ull;

    memcpy(program->flat.hva + frame + 128 + 176, hart->x, sizeof(hart->x));
    memcpy(program->flat.hva + frame + 128 + 176, &hart->pc, sizeof(hart->pc));
    hart->x[SP] = frame;
    hart->x[RA] = program->restorer;
    hart->pc = program->handler;
}

static void return_from_signal(struct program *program)
{
    struct hart *hart = program->hart;

    memcpy(hart->x, program->flat.hva + hart->x[SP] + 128 + 176, sizeof(hart->x));
    hart->pc = hart->x[0];
    hart->x[0] = 0;
}

static void on_trap(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    struct program *program = opaque;

    (void)tval;
    if (cause == HART_CAUSE_BREAKPOINT && program->stopped)
        program->stopped(program);
    else if (cause != HART_CAUSE_BREAKPOINT)
        assert_int_equal(cause, HART_CAUSE_ECALL_U);
    program->stops += cause == HART_CAUSE_BREAKPOINT;
    hart->pc += 4;
    if (cause != HART_CAUSE_ECALL_U)
        return;
    if (hart->x[A7] == CALL_EXIT)
        hart_stop(hart);
    else if (hart->x[A7] == CALL_SIGNAL)
        deliver_signal(program);
    else
        return_from_signal(program);
}

static void on_poke(void *opaque, struct hart *hart)
{
    (void)opaque, (void)hart;
}

static struct program *load(const char *name, const char *flags)
{
    struct program *program = test_calloc(1, sizeof(*program));
    char all[256];
    size_t count;

    snprintf(all, sizeof(all), "-nostdlib -static-pie -fPIE -fno-builtin %s", flags);
    program->path = build(name, source, all);
    program->file = read_file(program->path, &count);
    program->region = reserve(REGION_BYTES, PROT_NONE);
    program->flat = (struct hart_flat){.hva = program->region + HART_FLAT_GUARD_BYTES,
                                       .pages = reserve(PAGES_BYTES, PROT_READ | PROT_WRITE),
                                       .trap = on_trap,
                                       .poked = on_poke,
                                       .opaque = program};
    program->memory = (struct check_memory){read_guest, program};
    each_segment(program->path, BASE, load_segment, program);
    allow(program, STACK_END - STACK_BYTES, STACK_BYTES);
    assert_int_equal(check_symbols_create(&program->symbols, NULL), 0);
    tell_mapped(program->symbols, program->path, program->path, BASE);
    assert_int_equal(check_unwinder_create(&program->unwinder, program->symbols), 0);
    assert_int_equal(hart_create_flat(&program->hart, 1, &program->flat, &hart_engine_interp, NULL),
                     0);
    program->hart->pc = BASE + symbol_of(program->path, "_start");
    program->hart->x[SP] = STACK_END;
    program->handler = BASE + symbol_of(program->path, "handler");
    program->restorer = BASE + symbol_of(program->path, "restorer");
    return program;
}

static void finish(struct program *program)
{
    hart_destroy(program->hart);
    check_unwinder_destroy(program->unwinder);
    check_symbols_destroy(program->symbols);
    munmap(program->region, REGION_BYTES);
    munmap((void *)program->flat.pages, PAGES_BYTES);
    free(program->file);
    test_free(program);
}

static size_t unwind(struct program *program, uint64_t *places, size_t max)
{
    struct check_registers registers = {.pc = program->hart->pc};

    memcpy(registers.x, program->hart->x, sizeof(registers.x));
    return check_unwind(program->unwinder, &registers, &program->memory, places, max);
}

// ---- After each instruction ---------------------------------------------------------------------

static void check_stack(struct program *program)
{
    uint64_t places[CHECK_STACK_MAX];
    size_t count = unwind(program, places, CHECK_STACK_MAX);

    if (count != program->depth + 1)
        fail_msg("at 0x%llx: %zu frames instead of %zu",
                 (unsigned long long)(program->hart->pc - BASE), count, program->depth + 1);
    assert_int_equal(places[0], program->hart->pc);
    for (size_t i = 1; i < count; i++)
        assert_int_equal(check_place_pc(places[i]), program->returns[program->depth - i]);
    // No more than there is room for, and these.
    uint64_t fewer[3];
    size_t some = unwind(program, fewer, 3);
    assert_int_equal(some, count < 3 ? count : 3);
    assert_memory_equal(fewer, places, some * sizeof(fewer[0]));
}

// What the instruction that comes next will do to the stack of calls.
static void watch_calls(struct program *program, uint64_t pc)
{
    uint32_t insn = 0;

    assert_int_equal(read_guest(program, pc, &insn, 4), 0);
    unsigned rd = insn >> 7 & 31, rs1 = insn >> 15 & 31, opcode = insn & 0x7f;
    bool wide = (insn & 3) == 3, jumps = wide && (opcode == 0x6f || opcode == 0x67);
    uint16_t narrow = (uint16_t)insn;
    bool calls = (jumps && rd == RA) || (!wide && (narrow & 0xf07f) == 0x9002 && narrow != 0x9002);
    bool returns = (wide && opcode == 0x67 && rd == 0 && rs1 == RA) || narrow == 0x8082;

    if (calls)
        program->returns[program->depth++] = pc + (wide ? 4 : 2);
    if (returns)
        program->depth--;
}

static void each_instruction(const char *name, const char *flags)
{
    struct program *program = load(name, flags);
    enum hart_exit exit;
    unsigned steps = 0;

    do {
        check_stack(program);
        watch_calls(program, program->hart->pc);
        program->hart->debug_step = true;
        exit = hart_run(program->hart);
        steps++;
    } while (exit == HART_EXIT_STEPPED && program->hart->pc != program->handler);
    assert_int_equal(exit, HART_EXIT_STEPPED);
    assert_in_range(steps, 80, 2000);
    print_message("%s: %u instructions, %u stops\n", flags, steps, program->stops);
    assert_int_equal(program->stops, 4);
    finish(program);
}

static void optimised(void **state)
{
    (void)state;
    each_instruction("fast", "-O2 -fasynchronous-unwind-tables");
}

static void not_optimised(void **state)
{
    (void)state;
    each_instruction("slow", "-O0 -fasynchronous-unwind-tables");
}

static void small(void **state)
{
    (void)state;
    each_instruction("small", "-Os -fno-omit-frame-pointer -fasynchronous-unwind-tables");
}

// Not in what is loaded, but among what a debugger reads.
static void by_debug_frame(void **state)
{
    (void)state;
    each_instruction("debugged", "-O1 -g -fno-asynchronous-unwind-tables -fno-unwind-tables");
}

// ---- At a few places ----------------------------------------------------------------------------

static void check_names(struct program *program, const char *const *names)
{
    uint64_t places[CHECK_STACK_MAX];
    size_t count = unwind(program, places, CHECK_STACK_MAX);

    for (size_t i = 0; i < count; i++) {
        struct check_frame frame;
        check_symbols_resolve(program->symbols, places[i], &frame, 1);
        if (!names[i] || !frame.function || strcmp(frame.function, names[i]) != 0)
            fail_msg("stop %u: frame %zu is \"%s\" instead of \"%s\"", program->stops, i,
                     frame.function ? frame.function : "(none)", names[i] ? names[i] : "(none)");
    }
    if (names[count])
        fail_msg("stop %u: the stack ends before \"%s\"", program->stops, names[count]);
}

static void stopped_where_expected(struct program *program)
{
    static const char *const stacks[][10] = {
        {"leaf", "middle", "deep", "deep", "deep", "deep", "begin", "_start"},
        {"middle", "deep", "deep", "deep", "deep", "begin", "_start"},
        {"leaf", "middle", "varied", "begin", "_start"},
        {"middle", "varied", "begin", "_start"},
        {"handler_calls", "handler", "restorer", "interrupted", "begin", "_start"},
    };

    assert_in_range(program->stops, 0, BASE_COUNT_OF(stacks) - 1);
    check_names(program, stacks[program->stops]);
}

static void each_stop(const char *name, const char *flags)
{
    struct program *program = load(name, flags);

    program->stopped = stopped_where_expected;
    assert_int_equal(hart_run(program->hart), HART_EXIT_STOPPED);
    assert_int_equal(program->stops, 5);
    finish(program);
}

static void across_a_signal(void **state)
{
    (void)state;
    each_stop("signal-fast", "-O1 -g");
    each_stop("signal-slow", "-O0 -g");
}

static void by_frame_pointers(void **state)
{
    (void)state;
    each_stop("frames-slow", "-O0 -fno-omit-frame-pointer -fno-asynchronous-unwind-tables "
                             "-fno-unwind-tables");
    each_stop("frames-fast", "-O1 -fno-omit-frame-pointer -fno-asynchronous-unwind-tables "
                             "-fno-unwind-tables");
}

// ---- Nonsense -----------------------------------------------------------------------------------

static int read_nothing(void *opaque, uint64_t gva, void *bytes, size_t count)
{
    (void)opaque, (void)gva, (void)bytes, (void)count;
    return -EFAULT;
}

static int read_noise(void *opaque, uint64_t gva, void *bytes, size_t count)
{
    unsigned *seed = opaque;

    (void)gva;
    for (size_t i = 0; i < count; i += 8) {
        uint64_t word = (uint64_t)rand_r(seed) << 32 | (unsigned)rand_r(seed);
        if (rand_r(seed) % 2)
            word = BASE + word % 0x3000;
        memcpy((uint8_t *)bytes + i, &word, count - i < 8 ? count - i : 8);
    }
    return rand_r(seed) % 8 ? 0 : -EFAULT;
}

static void nonsense(void **state)
{
    struct program *program = load("nonsense", "-O2 -g");
    struct check_memory nothing = {read_nothing, NULL};
    uint64_t places[CHECK_STACK_MAX + 1];
    unsigned seed = 3, deepest = 0;

    (void)state;
    for (int turn = 0; turn < 1000; turn++) {
        struct check_memory noise = {read_noise, &seed};
        struct check_registers registers;
        read_noise(&seed, 0, &registers, sizeof(registers));
        places[CHECK_STACK_MAX] = 17;
        size_t count = check_unwind(program->unwinder, &registers, &noise, places, CHECK_STACK_MAX);
        assert_in_range(count, 1, CHECK_STACK_MAX);
        assert_int_equal(places[0], registers.pc & ~1ull);
        assert_int_equal(places[CHECK_STACK_MAX], 17);
        deepest = count > deepest ? (unsigned)count : deepest;
        assert_int_equal(check_unwind(program->unwinder, &registers, &noise, places, 0), 0);
        assert_in_range(check_unwind(program->unwinder, &registers, &nothing, places, 2), 1, 2);
    }
    print_message("the deepest of them: %u\n", deepest);
    assert_true(deepest > 2);
    finish(program);
}

// What an unwinder remembers is of what was mapped then.
static void mapped_again(void **state)
{
    struct program *program = load("again", "-O2 -g");
    uint64_t places[4], call = symbol_of(program->path, "leaf");
    struct check_registers registers = {.pc = BASE + call};

    (void)state;
    registers.x[RA] = BASE + symbol_of(program->path, "middle") + 8;
    registers.x[SP] = STACK_END - 8192;
    struct check_memory nothing = {read_nothing, NULL};
    assert_int_equal(check_unwind(program->unwinder, &registers, &nothing, places, 4), 2);
    assert_int_equal(check_symbols_map(program->symbols, BASE, 16 * PAGE, NULL, NULL, 0), 0);
    assert_int_equal(check_unwind(program->unwinder, &registers, &nothing, places, 4), 1);
    finish(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimised),       cmocka_unit_test(not_optimised),
        cmocka_unit_test(small),           cmocka_unit_test(by_debug_frame),
        cmocka_unit_test(across_a_signal), cmocka_unit_test(by_frame_pointers),
        cmocka_unit_test(nonsense),        cmocka_unit_test(mapped_again),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
