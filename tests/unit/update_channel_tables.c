// SPDX-License-Identifier: BSD-2-Clause
// docs/guest-channel.md is what updaters are written against: its tables of frames, errors and
// phases are those of the code, and its limits those that are kept.
#include <stdio.h>

#include "unit.h"
#include "update/update.h"

static char *page;

static int read_page(void **state)
{
    FILE *file = fopen(STRAKE_SOURCE_DIR "/docs/guest-channel.md", "r");
    size_t bytes = 0;

    (void)state;
    assert_non_null(file);
    assert_true(getdelim(&page, &bytes, '\0', file) > 0);
    fclose(file);
    return 0;
}

static int free_page(void **state)
{
    (void)state;
    free(page);
    return 0;
}

// Whether a line of the page begins with `start`, once.
static bool page_has(const char *start)
{
    char line[512];

    snprintf(line, sizeof(line), "\n%s", start);
    const char *at = strstr(page, line);
    if (!at || strstr(at + 1, line)) {
        print_error("not there, or twice: %s\n", start);
        return false;
    }
    return true;
}

// Lines of a table whose rows begin with a `|`, behind the line that begins with `head`.
static unsigned page_rows(const char *head)
{
    unsigned rows = 0;
    const char *at = strstr(page, head);

    assert_non_null(at);
    while ((at = strchr(at, '\n')) && *++at == '|')
        rows++;
    return rows - 1;  // the line under the head
}

static void test_refusals(void **state)
{
    unsigned count = 0;

    (void)state;
#define X(symbol, number, name, sentence)                                                          \
    assert_true(page_has("| " #number " | " name " | " sentence " | "));                           \
    assert_string_equal(update_refusal_name(number), name);                                        \
    assert_string_equal(update_refusal_sentence(number), sentence);                                \
    assert_int_equal(number, ++count);
    UPDATE_REFUSALS(X)
#undef X
    assert_int_equal(page_rows("| code | name |"), count);
    assert_string_equal(update_refusal_name(0), "?");
    assert_string_equal(update_refusal_sentence(count + 1), "?");
}

static void test_frames(void **state)
{
    unsigned count = 0;

    (void)state;
#define X(symbol, number, name, from)                                                              \
    assert_true(page_has("| " #number " | " name " | " from " | "));                               \
    count++;
    UPDATE_FRAMES(X)
#undef X
    assert_int_equal(page_rows("| type | name |"), count);
}

static void test_phases(void **state)
{
    unsigned count = 0;

    (void)state;
#define X(symbol, name)                                                                            \
    assert_true(page_has("| `" name "` | "));                                                      \
    assert_string_equal(update_phase_name(UPDATE_PHASE_##symbol), name);                           \
    count++;
    UPDATE_PHASES(X)
#undef X
    assert_int_equal(page_rows("| phase | means |"), count);
    assert_string_equal(update_phase_name(count), "?");
}

static void test_limits(void **state)
{
    char line[256];

    (void)state;
    assert_int_equal(UPDATE_FRAME_PAYLOAD_MAX, 65536);
    assert_true(page_has("| payload of a frame | 65,536 bytes | "));
    snprintf(line, sizeof(line), "| frames that are malformed | %u a connection | ",
             UPDATE_MALFORMED_MAX);
    assert_true(page_has(line));
    snprintf(
        line, sizeof(line),
        "| connections of a partition | %u | *busy*, the connection ends; of more than %u it is ",
        UPDATE_CONNECTIONS_MAX, UPDATE_CONNECTIONS_MAX + UPDATE_UNWELCOME_MAX);
    assert_true(page_has(line));
    snprintf(line, sizeof(line), "| offers of a partition | %u at once, then one in %u seconds | ",
             UPDATE_OFFERS_BURST, UPDATE_OFFER_SECONDS);
    assert_true(page_has(line));
    snprintf(
        line, sizeof(line),
        "| bytes received | %u MiB at once, then %u MiB a second, of a partition; a frame counts "
        "for %u KiB at least | ",
        UPDATE_BYTES_RATE >> 20, UPDATE_BYTES_RATE >> 20, UPDATE_FRAME_COST >> 10);
    assert_true(page_has(line));
    snprintf(line, sizeof(line), "| silence before an OFFER is accepted | %u seconds | ",
             UPDATE_SILENCE_SECONDS);
    assert_true(page_has(line));
    snprintf(line, sizeof(line), "| silence while a payload is being sent | %u seconds | ",
             UPDATE_SILENCE_SECONDS);
    assert_true(page_has(line));
    snprintf(line, sizeof(line), "| from VALIDATED to COMMIT | %u minutes | ",
             UPDATE_VALIDATED_SECONDS / 60);
    assert_true(page_has(line));
    snprintf(line, sizeof(line), "| a session from its first OFFER | %u hours | ",
             UPDATE_SESSION_SECONDS / 3600);
    assert_true(page_has(line));
    snprintf(line, sizeof(line), "| a session without connection | %u minutes | ",
             UPDATE_LOST_SECONDS / 60);
    assert_true(page_has(line));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, read_page, free_page);
}
