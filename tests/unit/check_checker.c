// SPDX-License-Identifier: BSD-2-Clause
// The checker, of a program that is nothing but memory and a hart: what may be accessed, what is
// told of what may not, dead frames, whole words, leaks, going on and halting.
#include <jansson.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check/check.h"
#include "unit.h"

#define MIB (1ull << 20)
#define MEMORY_BYTES (512 * MIB)
#define HOLE (64 * MIB)  // a MiB that is not there
#define STACKS (128 * MIB)
#define STACK_BYTES (8 * MIB)
#define HEAP (192 * MIB)
#define OBJECTS (256 * MIB)
#define LIBRARY 0x10000ull
#define CODE 0x20000ull

enum { SP = HART_SP };

static uint8_t *memory;
static struct checker *checker;
static struct checker_thread *thread;
static struct hart *hart;
static _Atomic uint8_t *pages;
static int report_fd;
static unsigned halts;
static struct check_finding last;
static char last_detail[128];
static uint64_t roots[4];

// ---- The program --------------------------------------------------------------------------------

static void *at(uint64_t gva)
{
    return memory + gva;
}

static void *target_hva(void *opaque, uint64_t gva, uint64_t bytes)
{
    (void)opaque;
    bool within = bytes <= MEMORY_BYTES && gva <= MEMORY_BYTES - bytes;
    return within && (gva + bytes <= HOLE || gva >= HOLE + MIB) ? at(gva) : NULL;
}

static int target_attempt(void *opaque, void (*work)(void *argument), void *argument)
{
    (void)opaque;
    work(argument);
    return 0;
}

static int target_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    (void)opaque;
    memset(at(gva), 0, bytes);
    return 0;
}

static void target_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    (void)opaque;
    (void)gva;
    (void)bytes;
}

static struct checker_thread *target_thread(void *opaque, struct hart *of)
{
    (void)opaque;
    (void)of;
    return thread;
}

static bool target_same_stack(void *opaque, uint64_t a, uint64_t b)
{
    (void)opaque;
    return (a - STACKS) / STACK_BYTES == (b - STACKS) / STACK_BYTES;
}

static void target_halt(void *opaque, struct hart *of)
{
    (void)opaque;
    (void)of;
    halts++;
}

static void target_roots(void *opaque, struct checker *of)
{
    (void)opaque;
    for (unsigned i = 0; i < BASE_COUNT_OF(roots); i++)
        checker_root_word(of, roots[i]);
}

// How many findings were reported; the last one's members are in `last`.
static unsigned found(void)
{
    char text[65536], *line = text, *end;
    ssize_t length = pread(report_fd, text, sizeof(text) - 1, 0);
    unsigned count = 0;

    assert_true(length >= 0 && length < (ssize_t)sizeof(text) - 1);
    text[length] = 0;
    for (; (end = strchr(line, '\n')); line = end + 1, count++) {
        json_t *value = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(value);
        const char *kind = json_string_value(json_object_get(value, "kind"));
        const char *access = json_string_value(json_object_get(value, "access"));
        const char *detail = json_string_value(json_object_get(value, "detail"));
        last = (struct check_finding){
            .gva = strtoull(json_string_value(json_object_get(value, "address")), NULL, 16),
            .bytes = (uint64_t)json_integer_value(json_object_get(value, "bytes")),
            .objects = (uint64_t)json_integer_value(json_object_get(value, "objects")),
            .stack.thread = (unsigned)json_integer_value(json_object_get(value, "thread"))};
        while (strcmp(check_kind_name(last.kind), kind) != 0)
            last.kind++;
        while (strcmp(check_access_name(last.access), access) != 0)
            last.access++;
        snprintf(last_detail, sizeof(last_detail), "%s", detail ? detail : "");
        json_decref(value);
    }
    return count;
}

static void begin(bool go_on)
{
    const struct checker_options options = {
        .format = CHECK_FORMAT_JSON, .fd = report_fd, .go_on = go_on, .leaks = CHECKER_LEAKS_FULL};
    const struct checker_target target = {.objects = OBJECTS,
                                          .objects_bytes = MEMORY_BYTES - OBJECTS,
                                          .stacks = STACKS,
                                          .heap = HEAP,
                                          .map = target_map,
                                          .unmap = target_unmap,
                                          .hva = target_hva,
                                          .attempt = target_attempt,
                                          .thread = target_thread,
                                          .same_stack = target_same_stack,
                                          .halt = target_halt,
                                          .roots = target_roots};
    static struct hart_flat flat;
    struct error err = {0};

    halts = 0;
    assert_int_equal(ftruncate(report_fd, 0), 0);
    lseek(report_fd, 0, SEEK_SET);
    memset(roots, 0, sizeof(roots));
    assert_int_equal(checker_create(&checker, &options, &target, &err), 0);
    assert_int_equal(checker_thread_create(&thread, checker, 3), 0);
    flat = (struct hart_flat){.hva = memory, .pages = pages, .check = checker_hart_check(checker)};
    assert_int_equal(hart_create_flat(&hart, 0, &flat, &hart_engine_interp, &err), 0);
    hart->pc = CODE;
    hart->x[SP] = STACKS + STACK_BYTES - 4096;
}

static void end(void)
{
    hart_destroy(hart);
    checker_thread_destroy(thread);
    checker_destroy(checker);
}

static uint64_t allocate(uint64_t bytes)
{
    const struct heap_request request = {
        .bytes = bytes, .family = HEAP_MALLOC, .who = checker_who(thread, hart, hart->pc)};
    uint64_t pointer;
    assert_int_equal(heap_allocate(checker_heap_thread(thread), &request, &pointer), 0);
    return pointer;
}

static void release(uint64_t pointer)
{
    assert_int_equal(heap_free(checker_heap_thread(thread), pointer, HEAP_MALLOC,
                               checker_who(thread, hart, hart->pc), NULL),
                     0);
}

static bool may(uint64_t pointer, uint64_t bytes)
{
    hart->pc += 4;  // each at a place of its own
    return checker_range(thread, hart, pointer, bytes, HART_STORE);
}

// That it is reported, as this.
static void is_wrong(uint64_t pointer, uint64_t bytes, enum check_kind kind)
{
    unsigned before = found();
    (void)may(pointer, bytes);
    assert_int_equal(found(), before + 1);
    assert_int_equal(last.kind, kind);
    assert_int_equal(last.gva, memory_pointer_gva(pointer));
    assert_int_equal(last.bytes, bytes);
}

// ---- Tests --------------------------------------------------------------------------------------

static void ranges_are_exact(void **state)
{
    (void)state;
    printf("ranges of objects: to the byte, before, behind, freed, of others; plain memory\n");
    begin(true);
    uint64_t first = allocate(21), second = allocate(21);
    for (uint64_t bytes = 0; bytes <= 21; bytes++)
        assert_true(may(first, bytes));
    assert_true(may(first + 20, 1));
    assert_true(may(first + 21, 0));
    assert_int_equal(found(), 0);
    is_wrong(first, 22, CHECK_HEAP_BUFFER_OVERFLOW);
    assert_int_equal(last.access, CHECK_ACCESS_WRITE);
    is_wrong(first + 21, 1, CHECK_HEAP_BUFFER_OVERFLOW);
    is_wrong(first - 1, 1, CHECK_HEAP_BUFFER_UNDERFLOW);
    is_wrong(first + (memory_pointer_gva(second) - memory_pointer_gva(first)), 1,
             memory_pointer_gva(second) > memory_pointer_gva(first) ? CHECK_HEAP_BUFFER_OVERFLOW
                                                                    : CHECK_HEAP_BUFFER_UNDERFLOW);
    assert_non_null(strstr(last_detail, "another object of 21 bytes"));
    release(first);
    is_wrong(first, 1, CHECK_HEAP_USE_AFTER_FREE);
    is_wrong(memory_pointer_gva(second), 1, CHECK_WILD_POINTER);
    assert_true(may(4096, 8 * MIB));
    end();
}

static void calls_are_named(void **state)
{
    (void)state;
    printf("system calls: a buffer longer than its object, and one that was freed\n");
    begin(true);
    uint64_t buffer = allocate(100);
    assert_true(checker_call_range(thread, hart, "read", buffer, 100, HART_STORE));
    assert_int_equal(found(), 0);
    assert_true(checker_call_range(thread, hart, "read", buffer, 101, HART_STORE));
    assert_int_equal(found(), 1);
    assert_int_equal(last.kind, CHECK_SYSCALL_BUFFER_OVERFLOW);
    assert_non_null(strstr(last_detail, "'read'"));
    release(buffer);
    hart->pc += 4;
    assert_true(checker_call_range(thread, hart, "read", buffer, 10, HART_STORE));
    assert_int_equal(found(), 2);
    assert_int_equal(last.kind, CHECK_HEAP_USE_AFTER_FREE);
    end();
}

static void halting_refuses(void **state)
{
    (void)state;
    printf("without going on: the first is reported, halts, and is refused, as is all behind it\n");
    begin(false);
    uint64_t pointer = allocate(8);
    assert_false(may(pointer, 9));
    assert_int_equal(halts, 1);
    assert_false(may(pointer, 10));
    assert_int_equal(found(), 1);
    assert_int_equal(halts, 1);
    assert_int_equal(checker_end(thread, 5, true), CHECKER_STATUS);
    end();
}

static void places_are_once(void **state)
{
    (void)state;
    printf("one place is reported once, and goes on; the status says that something was\n");
    begin(true);
    uint64_t pointer = allocate(8);
    assert_int_equal(checker_end(thread, 5, false), 5);
    end();
    begin(true);
    pointer = allocate(8);
    for (int i = 0; i < 3; i++)
        assert_true(checker_range(thread, hart, pointer, 9, HART_LOAD));
    assert_int_equal(found(), 1);
    assert_int_equal(last.stack.thread, 3);
    assert_int_equal(checker_end(thread, 5, false), CHECKER_STATUS);
    end();
}

static void frames_die(void **state)
{
    (void)state;
    uint64_t sp = STACKS + STACK_BYTES - 4096;

    printf(
        "dead frames: below sp on its stack, not above, not on another, not with sp elsewhere\n");
    begin(true);
    assert_true(may(sp, 8) && may(sp + 64, 8) && may(sp - STACK_BYTES, 8));
    assert_true(may(sp + STACK_BYTES - 64, 8));
    assert_int_equal(found(), 0);
    is_wrong(sp - 8, 8, CHECK_DEAD_STACK_USE);
    assert_non_null(strstr(last_detail, "8 bytes below"));
    hart->x[SP] = 4096;
    assert_true(may(sp - 8, 8));
    hart->x[SP] = allocate(4096) + 4096;
    assert_true(may(sp - 8, 8));
    assert_int_equal(found(), 1);
    end();
}

static bool loads(uint64_t pointer, uint64_t bytes, uint64_t pc)
{
    const struct hart_check *check = checker_hart_check(checker);
    unsigned before = found();
    hart->pc = pc;
    (void)check->access(check->opaque, hart, pointer, bytes, HART_LOAD);
    return found() == before;
}

static void words_of_libraries(void **state)
{
    (void)state;
    static const uint32_t lr_w = 0x1005a52f, lw = 0x0005a503;  // lr.w a0, (a1); lw a0, 0(a1)

    printf("whole words: libc reads them, aligned, in the last granule; lr does; others do not\n");
    begin(true);
    uint64_t text = allocate(19);
    checker_map(checker, LIBRARY, 4096, true, -1, "/lib/libc.so.6", "/none", 0);
    memset(at(CODE), 0, 4096);
    assert_true(loads(text + 16, 8, LIBRARY));
    assert_true(loads(text + 16, 4, LIBRARY + 8));
    assert_false(loads(text + 24, 8, LIBRARY + 16));  // holds nothing of the object
    assert_false(loads(text + 18, 4, LIBRARY + 24));  // not aligned
    assert_false(loads(text + 19, 1, LIBRARY + 32));
    assert_false(loads(text + 16, 8, CODE + 64));
    memcpy(at(CODE + 128), &lr_w, 4);
    memcpy(at(CODE + 256), &lw, 4);
    assert_true(loads(text + 16, 4, CODE + 128));
    assert_false(loads(text + 20, 4, CODE + 128));
    assert_false(loads(text + 16, 4, CODE + 256));
    end();
}

static void libraries_come_and_go(void **state)
{
    (void)state;
    printf("a library that is loaded where it was before takes no place of another's\n");
    begin(true);
    uint64_t text = allocate(19);
    for (unsigned i = 0; i < 100; i++)
        checker_map(checker, LIBRARY, 4096, true, -1, "/lib/libatomic.so.1", "/none", 0);
    checker_map(checker, 2 * LIBRARY, 4096, true, -1, "/lib/libc.so.6", "/none", 0);
    assert_true(loads(text + 16, 8, LIBRARY));
    assert_true(loads(text + 16, 8, 2 * LIBRARY));
    end();
}

static void leaks_are_grouped(void **state)
{
    (void)state;
    uint64_t kept[3];

    printf(
        "leaks: none of what roots lead to; definite ones of one stack together, then possible\n");
    begin(true);
    for (unsigned i = 0; i < BASE_COUNT_OF(kept); i++)
        kept[i] = allocate(32);
    memcpy(at(memory_pointer_gva(kept[0])), &kept[1], sizeof(kept[1]));
    roots[0] = kept[0];
    roots[1] = kept[2] + 16;
    hart->pc += 4;
    for (unsigned i = 0; i < 5; i++)
        (void)allocate(10);
    assert_int_equal(checker_end(thread, 0, true), CHECKER_STATUS);
    assert_int_equal(found(), 2);
    assert_int_equal(last.kind, CHECK_LEAK_POSSIBLE);
    assert_int_equal(last.objects, 1);
    assert_int_equal(last.bytes, 32);
    end();
    char text[65536];
    ssize_t length = pread(report_fd, text, sizeof(text) - 1, 0);
    assert_true(length > 0);
    text[length] = 0;
    const char *definite = strstr(text, "\"kind\":\"leak-definite\"");
    assert_non_null(definite);
    assert_non_null(strstr(definite, "\"bytes\":50"));
    assert_non_null(strstr(definite, "\"objects\":5"));
}

static void faults_are_left(void **state)
{
    (void)state;
    printf("a pointer to where nothing is, with an identifier or without, faults by itself\n");
    begin(true);
    assert_true(may(HOLE | 0xffffull << 48, 8));
    assert_true(may(MEMORY_BYTES * 2 | 0x1234ull << 48, 8));
    assert_int_equal(found(), 0);
    is_wrong(4096 | 0x1234ull << 48, 8, CHECK_NULL_DEREFERENCE);
    is_wrong(MIB | 0x1234ull << 48, 8, CHECK_WILD_POINTER);
    end();
}

static int set_up(void **state)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    (void)state;
    memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    pages = mmap(NULL, HART_FLAT_BYTES / MEMORY_PAGE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    report_fd = memfd_create("reports", MFD_CLOEXEC);
    assert_true(memory != MAP_FAILED && pages != MAP_FAILED && report_fd >= 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_are_exact),
        cmocka_unit_test(calls_are_named),
        cmocka_unit_test(halting_refuses),
        cmocka_unit_test(places_are_once),
        cmocka_unit_test(frames_die),
        cmocka_unit_test(words_of_libraries),
        cmocka_unit_test(libraries_come_and_go),
        cmocka_unit_test(leaks_are_grouped),
        cmocka_unit_test(faults_are_left),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
