// SPDX-License-Identifier: BSD-2-Clause
// Each refusal: its code for the guest, its line in the audit log, and that nothing has changed.
#include "update_channel_check.h"

// Nothing is there that was not before, and the next good offer is taken from its beginning.
static void expect_unchanged(struct scene *scene)
{
    assert_int_equal(bench_staged(&scene->bench), 0);
    assert_int_equal(scene->bench.commits, 0);
    guest_offer(&scene->guest, &good_offer);
    expect_session(scene, &scene->guest, "offered", 0);
    guest_say(&scene->guest, 6);
    expect(scene, &scene->guest, 0x86);
}

// The host refuses the offer for what was made bad of it.
static void check_offer(struct scene *scene, const struct offer *offer, enum update_refusal refusal,
                        const char *text)
{
    print_message("%s\n", update_refusal_name(refusal));
    guest_offer(&scene->guest, offer);
    expect_error(scene, &scene->guest, refusal);
    expect_text(scene, text);
    assert_int_equal(strlen(json_string_value(bench_audited(&scene->bench, 0, "session"))), 64);
    expect_nothing(scene, &scene->guest);
    expect_unchanged(scene);
    bench_pass(&scene->bench, 2 * UPDATE_OFFER_SECONDS);
}

#define BAD(scene, field, value, refusal, text)                                                    \
    do {                                                                                           \
        struct offer bad_ = good_offer;                                                            \
        bad_.field = (value);                                                                      \
        check_offer(scene, &bad_, refusal, text);                                                  \
    } while (0)

static void test_offers(void **state)
{
    struct scene *scene = *state;

    greet(scene, &scene->guest, "web");
    BAD(scene, signature, "", UPDATE_REFUSAL_UNSIGNED, "no signature");
    BAD(scene, signature, "unknown", UPDATE_REFUSAL_UNKNOWN_KEY, "");
    BAD(scene, signature, "revoked", UPDATE_REFUSAL_REVOKED_KEY, "");
    BAD(scene, signature, "rubbish", UPDATE_REFUSAL_BAD_SIGNATURE, "");
    BAD(scene, signature, "host", UPDATE_REFUSAL_HOST, "reasons of its own");
    BAD(scene, product, "other", UPDATE_REFUSAL_WRONG_PRODUCT, "other");
    BAD(scene, architecture, "riscv64", UPDATE_REFUSAL_WRONG_ARCHITECTURE, "riscv64");
    BAD(scene, expires, "2026-12-31T23:59:59Z", UPDATE_REFUSAL_EXPIRED, "2026-12-31T23:59:59Z");
    BAD(scene, expires, "1969-12-31T23:59:59Z", UPDATE_REFUSAL_EXPIRED, "1969");
    BAD(scene, epoch, 2, UPDATE_REFUSAL_DOWNGRADE, "epoch 2");
    BAD(scene, version, "0.0.9", UPDATE_REFUSAL_DOWNGRADE, "0.0.9");
    BAD(scene, version, "0.1.0", UPDATE_REFUSAL_DOWNGRADE, "0.1.0");
    BAD(scene, state_oldest, 6, UPDATE_REFUSAL_STATE_VERSION, "6 to 6");
    BAD(scene, state_newest, 4, UPDATE_REFUSAL_STATE_VERSION, "4 to 4");
}

// What the form of a manifest may not be, and that nothing is looked at before the signature.
static void test_bad_manifest(void **state)
{
    struct scene *scene = *state;
    uint8_t payload[64] = {4};

    greet(scene, &scene->guest, "web");
    memcpy(payload + 4, "{\"a}good", 8);
    guest_send(&scene->guest, 2, 0, payload, 12);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_BAD_MANIFEST);
    expect_unchanged(scene);
    memcpy(payload + 4, "{\"a}bad!", 8);
    guest_send(&scene->guest, 2, 0, payload, 12);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_BAD_SIGNATURE);
    BAD(scene, state_oldest, 7, UPDATE_REFUSAL_BAD_MANIFEST, "");
    BAD(scene, program_bytes, 0, UPDATE_REFUSAL_BAD_MANIFEST, "bytes");
}

// The first error in the order of the page is the one that is told.
static void test_order(void **state)
{
    struct scene *scene = *state;
    struct offer offer = {.product = "other",
                          .version = "0.0.1",
                          .architecture = "riscv64",
                          .expires = "2020-01-01T00:00:00Z",
                          .base = OTHER_DIGEST,
                          .signature = "",
                          .epoch = 1,
                          .state_oldest = 8,
                          .state_newest = 9,
                          .program_bytes = UPDATE_PROGRAM_BYTES_MAX + 1ull,
                          .full_bytes = (1 << 24) + 1};

    greet(scene, &scene->guest, "web");
    scene->bench.stage_open_rc = -ENOSPC;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_UNSIGNED);
    offer.signature = "good";
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_WRONG_PRODUCT);
    offer.product = "strake";
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_WRONG_ARCHITECTURE);
    offer.architecture = "x86_64";
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_EXPIRED);
    offer.expires = "2028-01-01T00:00:00Z";
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_DOWNGRADE);
    offer.epoch = 4;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_DOWNGRADE);
    offer.version = "0.2.0";
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_STATE_VERSION);
    offer.state_oldest = 5;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_TOO_LARGE);
    offer.full_bytes = 1 << 24;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_TOO_LARGE);
    offer.program_bytes = UPDATE_PROGRAM_BYTES_MAX;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NO_SPACE);
    scene->bench.stage_open_rc = -EDQUOT;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_TOO_LARGE);
    scene->bench.stage_open_rc = -EIO;
    guest_offer(&scene->guest, &offer);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_HOST);
    assert_null(strstr(answer_text(&scene->answer), "secret"));
    assert_non_null(strstr(json_string_value(bench_audited(&scene->bench, 0, "why")), "/secret"));
    scene->bench.stage_open_rc = 0;
    guest_offer(&scene->guest, &offer);
    expect(scene, &scene->guest, 0x82);
}

// Claims beyond the quota.
static void test_too_large(void **state)
{
    struct scene *scene = *state;
    struct offer offer = good_offer;

    greet(scene, &scene->guest, "web");
    offer.delta_bytes = offer.full_bytes = (1 << 24) + 1;
    check_offer(scene, &offer, UPDATE_REFUSAL_TOO_LARGE, "16777217");
    offer = good_offer;
    offer.program_bytes = (1ull << 33) - 1;
    check_offer(scene, &offer, UPDATE_REFUSAL_TOO_LARGE, "8589934591");
    scene->bench.host.quota_bytes = 300;
    guest_offer(&scene->guest, &good_offer);
    expect_session(scene, &scene->guest, "offered", 0);
}

// A package of deltas only.
static void test_no_base(void **state)
{
    static const char head[] = "\"monitor\":[{";
    struct scene *scene = *state;
    uint8_t payload[8192];

    greet(scene, &scene->guest, "web");
    size_t bytes = make_offer(payload, sizeof(payload), &good_offer);
    payload[bytes] = '\0';
    // The entry without a base is taken out of the list.
    char *list = strstr((char *)payload + 4, head), *first = strstr(list, "{");
    assert_non_null(list);
    char *second = strstr(first + 1, ",{") + 1;
    size_t cut = (size_t)(second - first);
    memmove(first, second, bytes - (size_t)(second - (char *)payload));
    put_le(payload, get_le(payload, 4) - cut, 4);
    guest_send(&scene->guest, 2, 0, payload, bytes - cut);
    expect(scene, &scene->guest, 0x82);
    guest_say(&scene->guest, 6);
    expect(scene, &scene->guest, 0x86);
    strcpy(scene->bench.programs[0].sha256, OTHER_DIGEST);
    guest_send(&scene->guest, 2, 0, payload, bytes - cut);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NO_BASE);
}

static void test_downgrade_allowed(void **state)
{
    struct scene *scene = *state;
    struct offer offer = good_offer;

    scene->bench.host.allow_downgrade = true;
    greet(scene, &scene->guest, "web");
    offer.epoch = 1;
    offer.version = "0.0.1";
    guest_offer(&scene->guest, &offer);
    expect(scene, &scene->guest, 0x82);
}

static void test_not_permitted(void **state)
{
    struct scene *scene = *state;

    guest_connect(&scene->guest, &scene->bench, "web", false);
    guest_hello(&scene->guest);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NOT_PERMITTED);
    assert_true(scene->guest.finished);
    guest_offer(&scene->guest, &good_offer);
    expect_nothing(scene, &scene->guest);
    assert_string_equal(json_string_value(bench_audited(&scene->bench, 0, "partition")), "web");
}

static void test_protocol(void **state)
{
    static const char hello[] = "{\"protocol\":2}";
    struct scene *scene = *state;

    guest_connect(&scene->guest, &scene->bench, "web", true);
    guest_send(&scene->guest, 1, 0, hello, sizeof(hello) - 1);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_PROTOCOL);
    expect_text(scene, "protocol 1");
    assert_true(scene->guest.finished);
    guest_connect(&scene->other, &scene->bench, "db", true);
    guest_offer(&scene->other, &good_offer);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_PROTOCOL);
    assert_true(scene->other.finished);
}

static void test_writes(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    static const struct {
        uint64_t offset;
        size_t bytes;
        enum update_refusal refusal;
    } writes[] = {
        {101, 10, UPDATE_REFUSAL_OUT_OF_ORDER},        // a gap
        {99, 10, UPDATE_REFUSAL_OUT_OF_ORDER},         // an overlap
        {0, 100, UPDATE_REFUSAL_OUT_OF_ORDER},         // again
        {300, 1, UPDATE_REFUSAL_OUT_OF_ORDER},         // at the end
        {1u << 30, 1, UPDATE_REFUSAL_OUT_OF_ORDER},    // after the end
        {UINT64_MAX, 1, UPDATE_REFUSAL_OUT_OF_ORDER},  // and around it
        {100, 201, UPDATE_REFUSAL_TOO_LARGE},         {100, 65528, UPDATE_REFUSAL_TOO_LARGE},
    };

    offered(scene);
    guest_write(guest, 0, 100);
    for (size_t i = 0; i < BASE_COUNT_OF(writes); i++) {
        guest_write(guest, writes[i].offset, writes[i].bytes);
        expect_error(scene, guest, writes[i].refusal);
        assert_int_equal(bench_staged(&scene->bench), 100);
    }
    guest_say(guest, 4);
    expect_error(scene, guest, UPDATE_REFUSAL_OUT_OF_ORDER);
    scene->bench.stage_write_rc = -ENOSPC;
    guest_write(guest, 100, 100);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SPACE);
    scene->bench.stage_write_rc = -EIO;
    guest_write(guest, 100, 100);
    expect_error(scene, guest, UPDATE_REFUSAL_HOST);
    assert_null(strstr(answer_text(&scene->answer), "secret"));
    scene->bench.stage_write_rc = 0;
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "receiving", 100);
    guest_write(guest, 100, 200);
    expect(scene, guest, 0x83);
    guest_write(guest, 300, 1);
    expect_error(scene, guest, UPDATE_REFUSAL_TOO_LARGE);
    guest_say(guest, 4);
    expect(scene, guest, 0x84);
}

// Requests for sessions that are not there, or are another's.
static void test_no_session(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    greet(scene, guest, "web");
    for (unsigned type = 4; type <= 6; type++) {
        guest_say(guest, type);
        expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
    }
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "offered", 0);
    guest->session ^= UINT64_C(1) << 40;
    guest_write(guest, 0, 100);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
    guest_say(guest, 4);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
    assert_int_equal(bench_staged(&scene->bench), 0);
}

static void test_not_validated(void **state)
{
    struct scene *scene = *state;

    offered(scene);
    guest_say(&scene->guest, 5);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NOT_VALIDATED);
    guest_write(&scene->guest, 0, 300);
    expect(scene, &scene->guest, 0x83);
    guest_say(&scene->guest, 5);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NOT_VALIDATED);
    assert_int_equal(scene->bench.commits, 0);
    assert_int_equal(scene->bench.validations, 0);
}

// What validating finds ends the session, and what was received is gone.
static void test_validation(void **state)
{
    static const enum update_refusal refusals[] = {
        UPDATE_REFUSAL_BAD_DIGEST, UPDATE_REFUSAL_NO_BASE, UPDATE_REFUSAL_NO_PROGRAM,
        UPDATE_REFUSAL_SELF_TEST, UPDATE_REFUSAL_TOO_LARGE};
    struct scene *scene = *state;

    greet(scene, &scene->guest, "web");
    scene->bench.validating = WORK_IS_REFUSED;
    for (size_t i = 0; i < BASE_COUNT_OF(refusals); i++) {
        scene->bench.work_refusal = refusals[i];
        scene->bench.work_why = i % 2 ? "it is \"bad\"\x1b[31m\xff" : NULL;
        guest_offer(&scene->guest, &good_offer);
        expect_session(scene, &scene->guest, "offered", 0);
        guest_write(&scene->guest, 0, 300);
        expect(scene, &scene->guest, 0x83);
        guest_say(&scene->guest, 4);
        expect_error(scene, &scene->guest, refusals[i]);
        expect_text(scene, i % 2 ? "it is \"bad\"?[31m?" : update_refusal_sentence(refusals[i]));
        assert_int_equal(scene->bench.ended, 2 * i + 1);
        expect_unchanged(scene);
    }
}

// What is the host's own failure can be tried again.
static void test_host_fails(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    received(scene);
    scene->bench.validating = WORK_FAILS;
    guest_say(guest, 4);
    expect_error(scene, guest, UPDATE_REFUSAL_HOST);
    assert_null(strstr(answer_text(&scene->answer), "secret"));
    scene->bench.validating = WORK_IS_REFUSED;
    scene->bench.work_refusal = UPDATE_REFUSAL_NO_SPACE;
    guest_say(guest, 4);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SPACE);
    scene->bench.validating = WORK_SUCCEEDS;
    guest_say(guest, 4);
    expect(scene, guest, 0x84);
    scene->bench.committing = WORK_FAILS;
    guest_say(guest, 5);
    expect_error(scene, guest, UPDATE_REFUSAL_HOST);
    scene->bench.committing = WORK_IS_REFUSED;
    guest_say(guest, 5);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SPACE);
    scene->bench.committing = WORK_SUCCEEDS;
    guest_say(guest, 5);
    expect(scene, guest, 0x85);
    assert_int_equal(scene->bench.ended, 1);
}

// What cannot be removed is said in the audit log, and changes nothing else.
static void test_discard_fails(void **state)
{
    struct scene *scene = *state;

    received(scene);
    scene->bench.stage_discard_rc = -EIO;
    guest_say(&scene->guest, 6);
    expect(scene, &scene->guest, 0x86);
    assert_int_equal(json_integer_value(bench_audited(&scene->bench, 0, "code")),
                     UPDATE_REFUSAL_HOST);
}

static void test_malformed(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    static uint8_t zeros[UPDATE_FRAME_PAYLOAD_MAX];
    static const uint8_t none[4] = {0}, beyond[8] = {5, 0, 0, 0, 1, 1, 1, 1}, big[4] = {1, 0xf0};
    static const struct {
        unsigned type;
        const void *payload;
        size_t bytes;
    } frames[] = {
        {0, NULL, 0},        {8, NULL, 0},  {0x81, NULL, 0}, {0xff, NULL, 0},
        {0xffff, zeros, 10}, {1, NULL, 0},  {1, "[1]", 3},   {1, "{\"protocol\":\"1\"}", 16},
        {2, NULL, 0},        {2, none, 3},  {2, none, 4},    {2, beyond, 8},
        {3, zeros, 8},       {4, zeros, 1}, {7, zeros, 1},
    };

    offered(scene);
    assert_int_equal(BASE_COUNT_OF(frames), UPDATE_MALFORMED_MAX);
    for (size_t i = 0; i < BASE_COUNT_OF(frames); i++) {
        guest_send(guest, frames[i].type, guest->session, frames[i].payload, frames[i].bytes);
        expect_error(scene, guest, UPDATE_REFUSAL_MALFORMED);
        assert_false(guest->finished);
    }
    guest_write(guest, 0, 300);
    expect(scene, guest, 0x83);
    memcpy(zeros, big, 4);  // a manifest of 61,441 bytes
    guest_send(guest, 2, 0, zeros, sizeof(zeros));
    expect_error(scene, guest, UPDATE_REFUSAL_MALFORMED);
    assert_true(guest->finished);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "receiving", 300);
}

// A header after which nobody knows where the next frame begins: refused before its payload comes.
static void test_lost(void **state)
{
    static const uint32_t lengths[] = {65537, 1u << 20, UINT32_MAX, 10};
    struct scene *scene = *state;
    uint8_t header[16];

    for (size_t i = 0; i < BASE_COUNT_OF(lengths); i++) {
        greet(scene, &scene->guest, "web");
        make_frame(header, 7, 0, NULL, lengths[i]);
        header[0] ^= lengths[i] == 10;  // a wrong magic
        guest_raw(&scene->guest, header, 15);
        expect_nothing(scene, &scene->guest);
        guest_raw(&scene->guest, header + 15, 1);
        expect_error(scene, &scene->guest, UPDATE_REFUSAL_MALFORMED);
        assert_true(scene->guest.finished);
        guest_disconnect(&scene->guest);
    }
    greet(scene, &scene->guest, "web");
    make_frame(header, 7, 0, NULL, 65536);
    guest_raw(&scene->guest, header, 16);
    expect_nothing(scene, &scene->guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        scene_test(test_offers),        scene_test(test_bad_manifest),
        scene_test(test_order),         scene_test(test_too_large),
        scene_test(test_no_base),       scene_test(test_downgrade_allowed),
        scene_test(test_not_permitted), scene_test(test_protocol),
        scene_test(test_writes),        scene_test(test_no_session),
        scene_test(test_not_validated), scene_test(test_validation),
        scene_test(test_host_fails),    scene_test(test_discard_fails),
        scene_test(test_malformed),     scene_test(test_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
