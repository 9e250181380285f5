// SPDX-License-Identifier: BSD-2-Clause
// Reports: a finding in text, JSON, SARIF and HTML; each place once; what is suppressed; after a
// fork.
#include <jansson.h>
#include <sys/mman.h>

#include "check_program.h"

#define BASE 0x2a00000000ull

static const char source[] = "__asm__(\".globl in_use\\n.globl in_make\\n.globl in_main\");\n"
                             "__attribute__((noinline)) int use(int *at) {\n"
                             "    __asm__ volatile(\"in_use: nop\"); // use\n"
                             "    return at[4]; }\n"
                             "__attribute__((noinline)) int *make(void) {\n"
                             "    __asm__ volatile(\"in_make: nop\"); // make\n"
                             "    return (int *)64; }\n"
                             "int main(void) {\n"
                             "    __asm__ volatile(\"in_main: nop\"); // main\n"
                             "    return use(make()); }\n";

static struct check_symbols *symbols;
static uint64_t use_stack[2], make_stack[2];

static int set_up(void **state)
{
    (void)state;
    folder_make();
    const char *path = build("shop", source, "-O1 -g");
    assert_int_equal(check_symbols_create(&symbols, NULL), 0);
    tell_mapped(symbols, "/bin/shop", path, BASE);
    use_stack[0] = BASE + symbol_of(path, "in_use");
    make_stack[0] = BASE + symbol_of(path, "in_make");
    use_stack[1] = make_stack[1] = check_place_of_return(BASE + symbol_of(path, "in_main") + 2);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    check_symbols_destroy(symbols);
    folder_remove();
    return 0;
}

static const struct check_object object = {
    .gva = 0x11000,
    .bytes = 16,
    .allocated = {make_stack, 2, 3},
};

static const struct check_object freed = {
    .gva = 0x11000,
    .bytes = 16,
    .freed = true,
    .allocated = {make_stack, 2, 3},
    .freed_by = {use_stack, 2, 4},
};

static const struct check_finding overflow = {
    .kind = CHECK_HEAP_BUFFER_OVERFLOW,
    .access = CHECK_ACCESS_READ,
    .gva = 0x11010,
    .bytes = 4,
    .pointer_id = 17,
    .memory_id = 18,
    .stack = {use_stack, 2, 5},
    .object = &object,
};

static const struct check_finding leak = {
    .kind = CHECK_LEAK_DEFINITE,
    .gva = 0x11000,
    .bytes = 48,
    .objects = 3,
    .object = &object,
};

struct output {
    int fd;
    struct check_report *report;
    char *text;
};

static void open_output(struct output *output, enum check_format format,
                        struct check_suppressions *suppressions, bool suggest)
{
    output->fd = memfd_create("report", MFD_CLOEXEC);
    assert_true(output->fd >= 0);
    const struct check_report_options options = {.format = format,
                                                 .fd = output->fd,
                                                 .program = "/bin/shop",
                                                 .suppressions = suppressions,
                                                 .suggest = suggest};
    assert_int_equal(check_report_create(&output->report, symbols, &options), 0);
}

static const char *close_output(struct output *output)
{
    struct stat file;

    assert_int_equal(check_report_close(output->report), 0);
    assert_int_equal(fstat(output->fd, &file), 0);
    output->text = test_calloc(1, (size_t)file.st_size + 1);
    assert_int_equal(fd_pread_full(output->fd, output->text, (size_t)file.st_size, 0),
                     file.st_size);
    close(output->fd);
    return output->text;
}

static void contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in:\n%s", part, text);
}

static void as_text(void **state)
{
    struct output output;
    char line[256];

    (void)state;
    open_output(&output, CHECK_FORMAT_TEXT, NULL, true);
    assert_int_equal(check_report_add(output.report, &overflow), CHECK_REPORTED);
    const char *text = close_output(&output);
    contains(text, "ERROR: Strake: heap-buffer-overflow on address 0x000000011010\n");
    contains(text, "READ of size 4 at 0x000000011010 thread T5 (identifier of the pointer 0x0011, "
                   "of the memory 0x0012)\n");
    snprintf(line, sizeof(line), "    #0 0x%012llx in use %s/shop.c:%u:5\n",
             (unsigned long long)use_stack[0], folder.path, line_of(source, "// use"));
    contains(text, line);
    snprintf(line, sizeof(line), " in main %s/shop.c:%u", folder.path, line_of(source, "// main"));
    contains(text, line);
    contains(text, "0x000000011010 is located 0 bytes after 16-byte region "
                   "[0x000000011000,0x000000011010)\n");
    contains(text, "\nallocated by thread T3 here:\n    #0 ");
    contains(text, "\nsuppress NAME\n    kind heap-buffer-overflow\n    frame use in /bin/shop\n");
    contains(text, "1 reported, 0 more at the same places, 0 suppressed\n");
    snprintf(line, sizeof(line), "SUMMARY: Strake: heap-buffer-overflow %s/shop.c:%u:5 in use\n",
             folder.path, line_of(source, "// use"));
    contains(text, line);
    test_free(output.text);
}

static void as_text_of_freed_and_lost(void **state)
{
    struct check_finding finding = overflow;
    struct output output;

    (void)state;
    finding.kind = CHECK_DOUBLE_FREE;
    finding.access = CHECK_ACCESS_FREE;
    finding.gva = freed.gva;
    finding.object = &freed;
    open_output(&output, CHECK_FORMAT_TEXT, NULL, false);
    check_report_add(output.report, &finding);
    check_report_add(output.report, &leak);
    const char *text = close_output(&output);
    contains(text, "\nfree of 0x000000011000 by thread T5");
    contains(text, "located 0 bytes inside 16-byte region");
    contains(text, "\nfreed by thread T4 here:\n    #0 ");
    contains(text, "\npreviously allocated by thread T3 here:\n    #0 ");
    contains(text,
             "\n48 bytes in 3 objects, one of them at 0x000000011000, allocated by thread T3");
    test_free(output.text);
}

static json_t *only_line(const char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);

    if (!root)
        fail_msg("%s: %s", error.text, text);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    return root;
}

static void as_json(void **state)
{
    struct output output;
    const char *kind, *access, *address, *function, *file, *module, *object_state, *start;
    int bytes, pointer_id, memory_id, line, offset, made_line;
    size_t stack_count, freed_count;
    json_t *stack, *freed_frames;

    (void)state;
    open_output(&output, CHECK_FORMAT_JSON, NULL, false);
    check_report_add(output.report, &overflow);
    json_t *root = only_line(close_output(&output));
    assert_int_equal(
        json_unpack(root, "{s:s, s:s, s:i, s:s, s:i, s:i, s:o, s:{s:s, s:i, s:s, s:[{s:i}], s:o}}",
                    "kind", &kind, "access", &access, "bytes", &bytes, "address", &address,
                    "pointer_id", &pointer_id, "memory_id", &memory_id, "stack", &stack, "object",
                    "start", &start, "offset", &offset, "state", &object_state, "allocated", "line",
                    &made_line, "freed", &freed_frames),
        0);
    assert_string_equal(kind, "heap-buffer-overflow");
    assert_string_equal(access, "read");
    assert_string_equal(address, "0x11010");
    assert_string_equal(start, "0x11000");
    assert_string_equal(object_state, "live");
    assert_true(bytes == 4 && pointer_id == 17 && memory_id == 18 && offset == 16);
    assert_int_equal(made_line, line_of(source, "// make"));
    stack_count = json_array_size(stack);
    freed_count = json_array_size(freed_frames);
    assert_true(stack_count == 2 && freed_count == 0);
    assert_int_equal(json_unpack(json_array_get(stack, 0), "{s:s, s:s, s:i, s:s}", "function",
                                 &function, "file", &file, "line", &line, "module", &module),
                     0);
    assert_string_equal(function, "use");
    assert_string_equal(file, in_folder("shop.c"));
    assert_string_equal(module, "/bin/shop");
    assert_int_equal(line, line_of(source, "// use"));
    json_decref(root);
    test_free(output.text);
}

// Nothing is known but an address.
static void as_json_of_little(void **state)
{
    const uint64_t place = 0x4000;
    const struct check_finding wild = {.kind = CHECK_WILD_POINTER,
                                       .access = CHECK_ACCESS_WRITE,
                                       .gva = 0xffff000000000008,
                                       .bytes = 8,
                                       .stack = {&place, 1, 0}};
    struct output output;
    const char *address, *pc;

    (void)state;
    open_output(&output, CHECK_FORMAT_JSON, NULL, false);
    check_report_add(output.report, &wild);
    json_t *root = only_line(close_output(&output));
    assert_int_equal(json_unpack(root, "{s:s, s:[{s:s}]}", "address", &address, "stack", "pc", &pc),
                     0);
    assert_string_equal(address, "0xffff000000000008");
    assert_string_equal(pc, "0x4000");
    assert_null(json_object_get(root, "object"));
    json_decref(root);
    test_free(output.text);
}

static void as_sarif(void **state)
{
    struct output output;
    const char *version, *rule, *uri, *rule_id, *message;
    struct check_finding again = overflow;
    json_t *results, *rules;
    int line, index;

    (void)state;
    again.kind = CHECK_DOUBLE_FREE;
    again.access = CHECK_ACCESS_FREE;
    again.gva = freed.gva;
    again.bytes = 0;
    again.object = &freed;
    again.detail = "It is said why";
    open_output(&output, CHECK_FORMAT_SARIF, NULL, false);
    check_report_add(output.report, &overflow);
    check_report_add(output.report, &leak);
    check_report_add(output.report, &again);
    json_t *root = json_loads(close_output(&output), 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_unpack(root, "{s:s, s:[{s:{s:{s:o}}, s:o}]}", "version", &version, "runs",
                                 "tool", "driver", "rules", &rules, "results", &results),
                     0);
    assert_string_equal(version, "2.1.0");
    assert_int_equal(json_array_size(rules), CHECK_KIND_COUNT);
    assert_int_equal(json_array_size(results), 3);
    assert_int_equal(json_unpack(json_array_get(results, 0),
                                 "{s:s, s:i, s:[{s:{s:{s:s}, s:{s:i}}}]}", "ruleId", &rule,
                                 "ruleIndex", &index, "locations", "physicalLocation",
                                 "artifactLocation", "uri", &uri, "region", "startLine", &line),
                     0);
    assert_string_equal(rule, "heap-buffer-overflow");
    assert_int_equal(json_unpack(json_array_get(rules, (size_t)index), "{s:s}", "id", &rule_id), 0);
    assert_string_equal(rule_id, rule);
    assert_int_equal(strncmp(uri, "file:///tmp/strake-check-", 25), 0);
    assert_int_equal(line, line_of(source, "// use"));
    assert_int_equal(json_array_size(json_object_get(json_array_get(results, 0), "stacks")), 2);
    assert_int_equal(
        json_unpack(json_array_get(results, 2), "{s:{s:s}}", "message", "text", &message), 0);
    assert_string_equal(message, "double-free: free at 0x11000, 0 bytes inside an object of 16 "
                                 "bytes that has been freed. It is said why");
    json_decref(root);
    test_free(output.text);
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;

    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

static void as_html(void **state)
{
    struct check_finding finding = overflow;
    struct output output;
    char line[256];

    (void)state;
    finding.detail = "of <b>\"that\" & 'this'";
    open_output(&output, CHECK_FORMAT_HTML, NULL, false);
    check_report_add(output.report, &finding);
    check_report_add(output.report, &leak);
    const char *text = close_output(&output);
    assert_int_equal(strncmp(text, "<!DOCTYPE html>", 15), 0);
    assert_int_equal(count_of(text, "<!DOCTYPE"), 1);
    assert_int_equal(count_of(text, "<article>"), 2);
    contains(text, "<title>Memory errors of /bin/shop</title>");
    contains(text, "<p>of &lt;b&gt;&quot;that&quot; &amp; &#39;this&#39;.");
    contains(text, "<h3>Read by thread T5</h3>");
    contains(text, "<h3>Allocated by thread T3</h3>");
    contains(text, "located 0 bytes after 16-byte region");
    contains(text, "<h2>leak-definite</h2>");
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "http://"));
    assert_null(strstr(text, "https://"));
    // Each stack has two frames with sources, of which the first is open.
    assert_int_equal(count_of(text, "<details"), 6);
    assert_int_equal(count_of(text, "<details open>"), 3);
    snprintf(line, sizeof(line),
             "<span class=\"hit\"><i>%5u </i>    __asm__ volatile(&quot;in_use: nop&quot;); // use",
             line_of(source, "// use"));
    contains(text, line);
    snprintf(line, sizeof(line), "<span><i>%5u </i>    return at[4]; }</span>",
             line_of(source, "return at"));
    contains(text, line);
    test_free(output.text);
}

// The source is written anew, with what is not to be shown as it is.
static void as_html_of_odd_source(void **state)
{
    const char *path = in_folder("shop.c");
    struct output output;

    (void)state;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (unsigned line = 1; line < line_of(source, "// use"); line++)
        fputs("</pre><script>\n", file);
    fputs("a\tb\033[31m\xff<i>\n", file);
    for (int i = 0; i < 119; i++)
        fputs("xx", file);
    fputs("x\xc3\xa9TAIL\n", file);  // the character does not fit
    assert_int_equal(fclose(file), 0);
    open_output(&output, CHECK_FORMAT_HTML, NULL, false);
    check_report_add(output.report, &overflow);
    const char *text = close_output(&output);
    assert_null(strstr(text, "<script"));
    contains(text, "&lt;/pre&gt;&lt;script&gt;</span>");
    contains(text, "</i>a       b?[31m?&lt;i&gt;</span>");
    contains(text, "xxx</span>");
    assert_null(strstr(text, "TAIL"));
    test_free(output.text);

    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);  // is not waited for
    open_output(&output, CHECK_FORMAT_HTML, NULL, false);
    check_report_add(output.report, &overflow);
    assert_null(strstr(close_output(&output), "<details"));
    contains(output.text, "/shop.c:");
    assert_int_equal(unlink(path), 0);
    test_free(output.text);
}

static void each_place_once(void **state)
{
    struct check_finding finding = overflow;
    uint64_t elsewhere[2] = {use_stack[0], use_stack[1] + 2};
    struct output output;

    (void)state;
    open_output(&output, CHECK_FORMAT_JSON, NULL, false);
    assert_int_equal(check_report_add(output.report, &finding), CHECK_REPORTED);
    finding.gva += 4;
    assert_int_equal(check_report_add(output.report, &finding), CHECK_REPEATED);
    finding.kind = CHECK_HEAP_USE_AFTER_FREE;
    assert_int_equal(check_report_add(output.report, &finding), CHECK_REPORTED);
    finding.stack.places = elsewhere;
    assert_int_equal(check_report_add(output.report, &finding), CHECK_REPORTED);
    assert_int_equal(check_report_add(output.report, &leak), CHECK_REPORTED);
    assert_int_equal(check_report_add(output.report, &leak), CHECK_REPEATED);
    assert_int_equal(check_report_count(output.report, CHECK_REPORTED), 4);
    assert_int_equal(check_report_count(output.report, CHECK_REPEATED), 2);
    close_output(&output);
    test_free(output.text);
}

static void suppressed(void **state)
{
    struct check_suppressions *suppressions;
    struct output output;

    (void)state;
    assert_int_equal(check_suppressions_create(&suppressions), 0);
    assert_int_equal(check_suppressions_add(suppressions, "supp",
                                            "suppress known\nkind leak-*\nframe make in shop\n",
                                            NULL),
                     0);
    open_output(&output, CHECK_FORMAT_JSON, suppressions, false);
    assert_int_equal(check_report_add(output.report, &leak), CHECK_SUPPRESSED);
    assert_int_equal(check_report_add(output.report, &leak), CHECK_REPEATED);
    assert_int_equal(check_report_add(output.report, &overflow), CHECK_REPORTED);
    json_decref(only_line(close_output(&output)));
    test_free(output.text);
    check_suppressions_destroy(suppressions);
}

static void after_a_fork(void **state)
{
    struct output output;
    json_t *results;

    (void)state;
    open_output(&output, CHECK_FORMAT_SARIF, NULL, false);
    check_report_add(output.report, &overflow);
    check_report_forked(output.report);
    assert_int_equal(check_report_count(output.report, CHECK_REPORTED), 0);
    assert_int_equal(check_report_add(output.report, &overflow), CHECK_REPEATED);
    check_report_add(output.report, &leak);
    json_t *root = json_loads(close_output(&output), 0, NULL);
    assert_int_equal(json_unpack(root, "{s:[{s:o}]}", "runs", "results", &results), 0);
    assert_int_equal(json_array_size(results), 1);
    json_decref(root);
    test_free(output.text);
}

static void nowhere_to_write(void **state)
{
    const struct check_report_options options = {
        .format = CHECK_FORMAT_TEXT, .fd = -1, .program = "/bin/shop"};
    struct check_report *report;

    (void)state;
    assert_int_equal(check_report_create(&report, symbols, &options), 0);
    assert_int_equal(check_report_add(report, &overflow), CHECK_REPORTED);
    assert_int_equal(check_report_close(report), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_text),
        cmocka_unit_test(as_text_of_freed_and_lost),
        cmocka_unit_test(as_json),
        cmocka_unit_test(as_json_of_little),
        cmocka_unit_test(as_sarif),
        cmocka_unit_test(each_place_once),
        cmocka_unit_test(suppressed),
        cmocka_unit_test(after_a_fork),
        cmocka_unit_test(nowhere_to_write),
        cmocka_unit_test(as_html),
        cmocka_unit_test(as_html_of_odd_source),  // the last: it changes the source
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
