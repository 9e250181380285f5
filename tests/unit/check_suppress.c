// SPDX-License-Identifier: BSD-2-Clause
// Suppressions: which findings they take, and which files are refused with which words.
#include "check/check.h"
#include "unit.h"

static const struct check_frame stack[] = {
    {.function = "memcpy", .module = "/lib/libc.so.6"},
    {.function = "shop::box<int>::operator[](int)",
     .module = "/usr/bin/till",
     .file = "/src/till/box.cc",
     .line = 12},
    {.function = "fill", .module = "/usr/bin/till", .file = "/src/till/fill.cc", .line = 40},
    {.module = "/usr/lib/libloop.so.1"},
    {.function = "main", .module = "/usr/bin/till", .file = "/src/till/main.cc", .line = 3},
};

static struct check_suppressions *suppressions_of(const char *text)
{
    struct check_suppressions *suppressions;
    struct error err = {0};

    assert_int_equal(check_suppressions_create(&suppressions), 0);
    if (check_suppressions_add(suppressions, "test.supp", text, &err) < 0)
        fail_msg("%s", err.message);
    return suppressions;
}

static bool takes(const char *text, enum check_kind kind)
{
    struct check_suppressions *suppressions = suppressions_of(text);
    bool taken = check_suppressions_match(suppressions, kind, stack, BASE_COUNT_OF(stack));

    check_suppressions_destroy(suppressions);
    return taken;
}

static void what_is_taken(void **state)
{
    static const struct {
        const char *text;
        bool taken;
    } cases[] = {
        {"suppress a\nkind heap-buffer-overflow\n", true},
        {"suppress a\nkind heap-*\n", true},
        {"suppress a\nkind leak-* double-free\n", false},
        {"suppress a\nkind leak-*\nkind *-overflow\n", true},
        {"suppress a\nframe memcpy\n", true},
        {"suppress a\nframe mem\n", false},
        {"suppress a\nframe mem?py\n", true},
        {"suppress a\nframe *\n", true},
        {"suppress a\nframe fill\n", false},
        {"suppress a\n...\nframe fill\n", true},
        {"suppress a\n...\nframe fill\nframe main\n", false},
        {"suppress a\n...\nframe fill\n...\nframe main\n", true},
        {"suppress a\n...\nframe fill\nframe *\nframe main\n", true},
        {"suppress a\n...\nframe main\n...\n", true},
        {"suppress a\n...\nframe main\nframe *\n", false},
        {"suppress a\nframe memcpy\nframe shop::box<*>::operator[](int)\n", true},
        {"suppress a\nframe memcpy in libc.so.*\n", true},
        {"suppress a\nframe memcpy in /lib/libc.so.6\n", true},
        {"suppress a\nframe memcpy in /usr/lib/*\n", false},
        {"suppress a\nframe memcpy in so.6\n", false},
        {"suppress a\nframe memcpy at *.c\n", false},
        {"suppress a\n...\nframe * at box.cc\n", true},
        {"suppress a\n...\nframe * at box.cc:12\n", true},
        {"suppress a\n...\nframe * at box.cc:13\n", false},
        {"suppress a\n...\nframe * in till at /src/*/fill.cc:40\n", true},
        {"suppress a\n...\nframe * in libloop*\nframe main\n", true},
        {"suppress a\nkind double-free\nframe memcpy\n", false},
        {"suppress a\nkind double-free\nsuppress b\nframe memcpy\n", true},
        {"# nothing but words\n\n  \t\r\n", false},
    };

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++)
        if (takes(cases[i].text, CHECK_HEAP_BUFFER_OVERFLOW) != cases[i].taken)
            fail_msg("%s: %s", cases[i].taken ? "not taken" : "taken", cases[i].text);
}

static void more_frames_than_there_are(void **state)
{
    struct check_suppressions *suppressions =
        suppressions_of("suppress a\nframe *\n...\nframe *\n");

    (void)state;
    assert_false(check_suppressions_match(suppressions, CHECK_DOUBLE_FREE, stack, 1));
    assert_false(check_suppressions_match(suppressions, CHECK_DOUBLE_FREE, stack, 0));
    assert_true(check_suppressions_match(suppressions, CHECK_DOUBLE_FREE, stack, 2));
    check_suppressions_destroy(suppressions);
}

static void refused(void **state)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"suppress\nkind *\n", "line 1: a suppression needs a name"},
        {"kind leak-*\n", "line 1: \"suppress NAME\" comes first"},
        {"suppress a\nkind heap-overflow\n", "line 2: there is no kind \"heap-overflow\""},
        {"suppress a\nkind\n", "line 2: which kind?"},
        {"suppress a\n\nframe\n", "line 3: a frame is"},
        {"suppress a\nframe  in libc\n", "line 2: a frame is"},
        {"suppress a\nframe f at a.c:0\n", "line 2: \"0\" is not the number of a line"},
        {"suppress a\nframe f at a.c:x\n", "line 2: \"x\" is not the number of a line"},
        {"suppress a\n... f\n", "line 2: \"...\" stands alone"},
        {"suppress a\nfun:f\n", "line 2: \"fun:f\" is none of"},
        {"suppress all\nsuppress b\nkind *\n", "\"all\" has neither a kind nor a frame"},
    };
    struct check_suppressions *suppressions = suppressions_of("suppress first\nkind double-free\n");

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct error err = {0};
        assert_int_equal(check_suppressions_add(suppressions, "odd.supp", cases[i].text, &err),
                         -EINVAL);
        if (!strstr(err.message, cases[i].part) || !strstr(err.message, "odd.supp"))
            fail_msg("\"%s\" instead of \"%s\"", err.message, cases[i].part);
    }
    // What was there is all that is.
    const char *name;
    uint64_t used;
    assert_false(check_suppressions_match(suppressions, CHECK_INVALID_FREE, stack, 5));
    assert_true(check_suppressions_match(suppressions, CHECK_DOUBLE_FREE, stack, 5));
    assert_true(check_suppressions_get(suppressions, 0, &name, &used));
    assert_string_equal(name, "first");
    assert_int_equal(used, 1);
    assert_false(check_suppressions_get(suppressions, 1, &name, &used));
    check_suppressions_destroy(suppressions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken),
        cmocka_unit_test(more_frames_than_there_are),
        cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
