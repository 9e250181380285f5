// SPDX-License-Identifier: BSD-2-Clause
// Allocators that are calls of the heap: malloc and its family, C++'s operators with their
// families, what the command line names; what is freed wrongly; and no memory.
#include "takeover_fixture.h"

static const char *const named[] = {"alloc=pool_get@2,free=pool_put@2,realloc=pool_grow,"
                                    "calloc=pool_zeroed"};
#define RUNTIME (CODE + (1ull << 24))

// errno is where glibc's dynamic one has it: at an offset from tp that is found in a table.
static const char pool[] = ".globl pool_get\n.type pool_get, @function\npool_get: ret\n"
                           ".type pool_put, @function\npool_put: ret\n"
                           ".globl pool_grow\n.type pool_grow, @function\npool_grow: ret\n"
                           ".globl pool_zeroed\n.type pool_zeroed, @function\npool_zeroed: ret\n"
                           ".globl __errno_location\n.type __errno_location, @function\n"
                           ".option norvc\n.balign 8\n__errno_location: auipc a0, 0\n"
                           "ld a0, 16(a0)\nadd a0, a0, tp\nret\n.dword 40\n";

static struct checker_thread program;

static int make_program(void **state)
{
    (void)state;
    folder_make();
    program_init(&program, named, BASE_COUNT_OF(named));
    make_library(in_folder("libc.so"), "libc.so.6", pool);
    make_library(in_folder("libstdc++.so"), "libstdc++.so.6", "");
    program_load_at(&program, in_folder("libstdc++.so"), RUNTIME);
    program_load(&program, in_folder("libc.so"));
    program.hart->x[4] = STACK;
    return 0;
}

static int remove_program(void **state)
{
    (void)state;
    program_fini(&program);
    folder_remove();
    return 0;
}

static uint64_t pc_of(const char *name)
{
    uint64_t pc =
        program_find_at(&program, name, name[0] == '_' && name[1] == 'Z' ? RUNTIME : CODE);

    if (!pc)
        fail_msg("%s is not taken over", name);
    return pc;
}

static bool call(const char *name, uint64_t a, uint64_t b, uint64_t c)
{
    return program_call_at(&program, pc_of(name), a, b, c, 0);
}

// What a function gives, which has to be an object of so many bytes.
static uint64_t object_of(const char *name, uint64_t a, uint64_t b, uint64_t c, uint64_t bytes)
{
    struct heap_object object;

    assert_true(call(name, a, b, c));
    uint64_t pointer = program.hart->x[10];
    assert_int_not_equal(memory_pointer_identifier(pointer), 0);
    assert_true(heap_find(program.checker.heap, memory_pointer_gva(pointer), &object));
    assert_true(object.live);
    assert_int_equal(object.gva, memory_pointer_gva(pointer));
    assert_int_equal(object.bytes, bytes);
    assert_int_equal(object.allocated_by, 7);
    return pointer;
}

// Of functions that are told a size.
static uint64_t bytes_of(uint64_t pointer)
{
    return heap_usable_bytes(program.checker.heap, pointer);
}

static void frees(const char *name, uint64_t pointer)
{
    if (!call(name, pointer, bytes_of(pointer), 0) || program.checker.found)
        fail_msg("%s does not free", name);
    assert_false(heap_allows(program.checker.heap, pointer, 1));
}

static void refuses(const char *name, uint64_t pointer, enum heap_fault fault)
{
    struct checker *checker = &program.checker;

    uint64_t bytes = bytes_of(pointer);
    if (call(name, pointer, bytes ? bytes : 10, 0) || checker->found != 1 ||
        checker->finding.fault != fault || checker->pointer != pointer)
        fail_msg("%s: %u found, fault %d instead of %d", name, checker->found,
                 checker->finding.fault, fault);
}

static int error_number(void)
{
    int value;
    memcpy(&value, program_hva(&program, STACK + 40), sizeof(value));
    return value;
}

static void set_error_number(int value)
{
    memcpy(program_hva(&program, STACK + 40), &value, sizeof(value));
}

static void test_family_of_malloc(void **state)
{
    (void)state;
    frees("free", object_of("malloc", 100, 0, 0, 100));
    frees("__libc_free", object_of("malloc", 0, 0, 0, 0));
    uint64_t zeroed = object_of("calloc", 10, 30, 0, 300);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(program_hva(&program, zeroed)[i], 0);
    program_hva(&program, zeroed)[9] = 5;
    uint64_t grown = object_of("realloc", zeroed, 3000, 0, 3000);
    assert_int_equal(program_hva(&program, grown)[9], 5);
    assert_false(heap_allows(program.checker.heap, zeroed, 1));
    grown = object_of("reallocarray", grown, 5, 8, 40);
    assert_true(call("malloc_usable_size", grown, 0, 0));
    assert_int_equal(program.hart->x[10], 40);
    frees("cfree", grown);
    frees("free_sized", object_of("realloc", 0, 5, 0, 5));
    frees("free", object_of("memalign", 256, 100, 0, 100));
    uint64_t aligned = object_of("aligned_alloc", 1024, 100, 0, 100);
    assert_int_equal(aligned % 1024, 0);
    frees("free_aligned_sized", aligned);
    assert_int_equal(object_of("memalign", 100, 8, 0, 8) % 128, 0);
    assert_int_equal(object_of("valloc", 8, 0, 0, 8) % MEMORY_PAGE_BYTES, 0);
    assert_int_equal(object_of("pvalloc", 8, 0, 0, 4096) % MEMORY_PAGE_BYTES, 0);
    assert_true(call("free", 0, 0, 0));
    assert_true(call("malloc_usable_size", 0, 0, 0));
    assert_int_equal(program.hart->x[10], 0);
    uint64_t gone = object_of("malloc", 7, 0, 0, 7);
    assert_true(call("realloc", gone, 0, 0));
    assert_int_equal(program.hart->x[10], 0);
    assert_false(heap_allows(program.checker.heap, gone, 1));
}

static void test_posix_memalign(void **state)
{
    (void)state;
    uint64_t pointer = 1, out = STACK + 64;

    assert_true(call("posix_memalign", out, 64, 100));
    assert_int_equal(program.hart->x[10], 0);
    memcpy(&pointer, program_hva(&program, out), sizeof(pointer));
    assert_int_equal(pointer % 64, 0);
    assert_true(heap_allows(program.checker.heap, pointer, 100));
    frees("free", pointer);
    static const uint64_t wrong[] = {0, 3, 4, 24, 12};
    for (size_t i = 0; i < BASE_COUNT_OF(wrong); i++) {
        assert_true(call("posix_memalign", out, wrong[i], 100));
        assert_int_equal(program.hart->x[10], EINVAL);
    }
    assert_true(call("posix_memalign", out, 16, UINT64_MAX - 5));
    assert_int_equal(program.hart->x[10], ENOMEM);
    assert_false(call("posix_memalign", 0x1000, 16, 8));
    assert_int_equal(program.checker.faults, 1);
    // Where it is to go is no room for a pointer.
    uint64_t seven = object_of("malloc", 7, 0, 0, 7);
    assert_false(call("posix_memalign", seven, 16, 8));
    assert_int_equal(program.checker.found, 1);
}

static void test_no_memory(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t a, b, c;
    } cases[] = {
        {"malloc", UINT64_MAX, 0, 0},       {"malloc", INT64_MAX, 0, 0},
        {"malloc", 1ull << 38, 0, 0},       {"calloc", 1ull << 33, 1ull << 33, 0},
        {"realloc", 0, UINT64_MAX - 15, 0}, {"reallocarray", 0, 1ull << 62, 8},
        {"memalign", 1ull << 63, 8, 0},     {"memalign", UINT64_MAX, 8, 0},
        {"pvalloc", UINT64_MAX, 0, 0},      {"valloc", UINT64_MAX, 0, 0},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        set_error_number(0);
        assert_true(call(cases[i].name, cases[i].a, cases[i].b, cases[i].c));
        assert_int_equal(program.hart->x[10], 0);
        assert_int_equal(error_number(), ENOMEM);
    }
    uint64_t kept = object_of("malloc", 10, 0, 0, 10);
    assert_true(call("realloc", kept, INT64_MAX, 0));
    assert_int_equal(program.hart->x[10], 0);
    assert_true(heap_allows(program.checker.heap, kept, 10));
    // Without a place for errno, nothing is written anywhere.
    set_error_number(0);
    program.hart->x[4] = 0x50;
    assert_true(call("malloc", UINT64_MAX, 0, 0));
    assert_int_equal(error_number(), 0);
    program.hart->x[4] = STACK;
}

static void test_wrong_frees(void **state)
{
    (void)state;
    uint64_t pointer = object_of("malloc", 100, 0, 0, 100);

    refuses("free", pointer + 16, HEAP_INTERIOR_FREE);
    assert_int_equal(program.checker.check_access, CHECK_ACCESS_FREE);
    refuses("realloc", pointer + 8, HEAP_INTERIOR_FREE);
    assert_int_equal(program.checker.check_access, CHECK_ACCESS_REALLOCATE);
    refuses("free", STACK, HEAP_INVALID_FREE);
    frees("free", pointer);
    refuses("free", pointer, HEAP_DOUBLE_FREE);
    refuses("realloc", pointer, HEAP_DOUBLE_FREE);
    refuses("_ZdlPv", pointer, HEAP_DOUBLE_FREE);
    // Who goes on has something to go on with.
    program.checker.go_on = true;
    assert_true(call("free", pointer, 0, 0));
    object_of("realloc", pointer, 30, 0, 30);
    program.checker.go_on = false;
}

static void test_operators(void **state)
{
    (void)state;
    static const struct {
        const char *make, *frees[6], *wrong[4];
        uint64_t alignment;
    } cases[] = {
        {"_Znwm",
         {"_ZdlPv", "_ZdlPvm", "_ZdlPvRKSt9nothrow_t", "_ZdlPvSt11align_val_t",
          "_ZdlPvmSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t"},
         {"_ZdaPv", "_ZdaPvm", "free", "realloc"},
         0},
        {"_Znam",
         {"_ZdaPv", "_ZdaPvm", "_ZdaPvRKSt9nothrow_t", "_ZdaPvSt11align_val_t",
          "_ZdaPvmSt11align_val_t", "_ZdaPvSt11align_val_tRKSt9nothrow_t"},
         {"_ZdlPv", "_ZdlPvm", "free", "realloc"},
         0},
        {"_ZnwmRKSt9nothrow_t", {"_ZdlPv"}, {"_ZdaPv"}, 0},
        {"_ZnamRKSt9nothrow_t", {"_ZdaPv"}, {"_ZdlPv"}, 0},
        {"_ZnwmSt11align_val_t", {"_ZdlPvSt11align_val_t"}, {"free"}, 512},
        {"_ZnamSt11align_val_t", {"_ZdaPvSt11align_val_t"}, {"free"}, 512},
        {"_ZnwmSt11align_val_tRKSt9nothrow_t", {"_ZdlPv"}, {"_ZdaPv"}, 64},
        {"_ZnamSt11align_val_tRKSt9nothrow_t", {"_ZdaPv"}, {"_ZdlPv"}, 64},
        {"malloc", {"free"}, {"_ZdlPv", "_ZdaPv", "_ZdlPvm"}, 0},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        uint64_t alignment = cases[i].alignment;
        for (size_t j = 0; j < 6 && cases[i].frees[j]; j++) {
            uint64_t pointer = object_of(cases[i].make, 24, alignment, 0, 24);
            assert_true(alignment == 0 || pointer % alignment == 0);
            for (size_t k = 0; k < 4 && cases[i].wrong[k]; k++)
                refuses(cases[i].wrong[k], pointer, HEAP_MISMATCHED_FREE);
            frees(cases[i].frees[j], pointer);
        }
    }
}

static void test_sized(void **state)
{
    (void)state;
    static const char *const makes[] = {"_Znwm", "_Znam", "malloc"};
    static const char *const frees_sized[] = {"_ZdlPvm", "_ZdaPvm", "free_sized"};

    for (size_t i = 0; i < BASE_COUNT_OF(makes); i++) {
        uint64_t pointer = object_of(makes[i], 24, 0, 0, 24);
        assert_false(call(frees_sized[i], pointer, 8, 0));
        assert_int_equal(program.checker.found, 1);
        assert_int_equal(program.checker.kind, CHECK_MISMATCHED_FREE);
        frees(frees_sized[i], pointer);
    }
}

static void test_named(void **state)
{
    (void)state;
    uint64_t pointer = object_of("pool_get", 1, 40, 0, 40);

    refuses("free", pointer, HEAP_MISMATCHED_FREE);
    program.checker.go_on = true;
    assert_true(call("pool_put", 1, pointer, 0));
    assert_int_equal(program.checker.found, 0);
    assert_true(call("pool_put", 1, pointer, 0));
    assert_int_equal(program.checker.finding.fault, HEAP_DOUBLE_FREE);
    program.checker.go_on = false;
    pointer = object_of("pool_zeroed", 4, 10, 0, 40);
    pointer = object_of("pool_grow", pointer, 100, 0, 100);
    assert_true(call("pool_put", 1, pointer, 0));
    assert_int_equal(program.checker.found, 0);
}

// An operator new that has no memory goes on behind its own first instruction, which moves the
// stack pointer here; or gives 0 when that is none that can be done.
static void test_new_without_memory(void **state)
{
    (void)state;
    uint64_t pc = pc_of("_Znwm");
    const uint32_t move_sp = 0xfe010113, ecall = 0x00000073;

    assert_true(call("_ZnwmRKSt9nothrow_t", INT64_MAX, 0, 0));
    assert_int_equal(program.hart->x[10], 0);
    assert_true(takeover_families(program.takeover));
    memcpy(program_hva(&program, pc), &ecall, sizeof(ecall));
    assert_true(call("_Znam", INT64_MAX, 0, 0));
    assert_int_equal(program.hart->x[10], 0);
    memcpy(program_hva(&program, pc), &move_sp, sizeof(move_sp));
    assert_false(call("_Znam", INT64_MAX, 0, 0));
    assert_int_equal(program.hart->pc, pc + 4);
    assert_int_equal(program.hart->x[2], STACK + STACK_BYTES / 2 - 32);
    assert_int_equal(program.hart->x[10], INT64_MAX);
    assert_int_equal(program.hart->x[1], RETURN);
    // It may get memory from malloc now, which its delete is to be able to free.
    frees("_ZdlPv", object_of("malloc", 8, 0, 0, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_family_of_malloc),   cmocka_unit_test(test_posix_memalign),
        cmocka_unit_test(test_no_memory),          cmocka_unit_test(test_wrong_frees),
        cmocka_unit_test(test_operators),          cmocka_unit_test(test_named),
        cmocka_unit_test(test_new_without_memory), cmocka_unit_test(test_sized),
    };

    return cmocka_run_group_tests(tests, make_program, remove_program);
}
