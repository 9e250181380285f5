// SPDX-License-Identifier: BSD-2-Clause
// The guest channel as a stream: however its bytes are split the answers are the same, and wherever
// it breaks off, on either side of any byte, a guest that starts anew gets its update, once.
#include "update_channel_check.h"

// An updater: what docs/guest-channel.md tells one to do. Its link carries so many bytes, in both
// directions together, before it breaks.
struct updater {
    struct scene *scene;
    struct guest *guest;
    size_t budget;
    bool restarts;  // the supervisor starts anew when the link breaks
    bool commits_over_restart;
};

static const struct offer small_offer = {.product = "strake",
                                         .version = "0.2.0",
                                         .architecture = "x86_64",
                                         .expires = "2027-11-22T00:00:00Z",
                                         .signature = "good",
                                         .epoch = 3,
                                         .state_oldest = 4,
                                         .state_newest = 6,
                                         .program_bytes = 3000,
                                         .full_bytes = 100};

static bool pass(struct updater *updater, size_t bytes)
{
    bool whole = bytes <= updater->budget;

    updater->budget -= whole ? bytes : updater->budget;
    return whole;
}

static bool say(struct updater *updater, unsigned type, uint64_t handle, const void *payload,
                size_t bytes)
{
    uint8_t frame[8192];
    size_t count = make_frame(frame, type, handle, payload, bytes), before = updater->budget;

    if (pass(updater, count)) {
        guest_raw(updater->guest, frame, count);
        return true;
    }
    guest_raw(updater->guest, frame, before);
    return false;
}

// An answer other than PROGRESS. Its bytes are counted as they arrive: the host has acted on the
// request by then.
static bool hear(struct updater *updater, unsigned type)
{
    struct answer *answer = &updater->scene->answer;

    if (!guest_take(updater->guest, answer) || !pass(updater, 16 + answer->bytes))
        return false;
    if (answer->type == 0xff)
        print_error("%s\n", answer_text(answer));
    assert_int_equal(answer->type, type);
    return true;
}

static bool send_rest(struct updater *updater, uint64_t offset)
{
    uint8_t payload[8 + 40];

    for (; offset < small_offer.full_bytes; offset += 40) {
        size_t part = small_offer.full_bytes - offset < 40 ? small_offer.full_bytes - offset : 40;
        put_le(payload, offset, 8);
        for (size_t i = 0; i < part; i++)
            payload[8 + i] = payload_byte(offset + i);
        if (!say(updater, 3, updater->guest->session, payload, 8 + part))
            return false;
    }
    return hear(updater, 0x83);
}

// Decides what waits after a restart, as a new supervisor does once it is healthy.
static void decide(struct scene *scene)
{
    if (scene->bench.outcome.phase == UPDATE_PHASE_COMMITTING) {
        bench_decide(&scene->bench, UPDATE_PHASE_COMMITTED);
        update_service_settled(scene->bench.service);
    }
}

// One connection. True when the guest knows that its update is committed.
static bool update_once(struct updater *updater)
{
    static const char hello[] = "{\"protocol\":1}";
    struct scene *scene = updater->scene;
    struct guest *guest = updater->guest;
    uint8_t offer[2048];
    const char *phase;
    int offset = 0;

    guest_connect(guest, &scene->bench, "web", true);
    if (!say(updater, 1, 0, hello, sizeof(hello) - 1) || !hear(updater, 0x81) ||
        !say(updater, 2, 0, offer, make_offer(offer, sizeof(offer), &small_offer)) ||
        !hear(updater, 0x82))
        return false;
    json_t *json = answer_json(&scene->answer);
    assert_int_equal(json_unpack(json, "{s:s, s?i}", "phase", &phase, "offset", &offset), 0);
    const bool committed = strcmp(phase, "committed") == 0;
    const bool commits = strcmp(phase, "committing") == 0;
    const bool receives = strcmp(phase, "offered") == 0 || strcmp(phase, "receiving") == 0;
    json_decref(json);
    if (committed)
        return true;
    if (receives && offset < (int)small_offer.full_bytes && !send_rest(updater, (uint64_t)offset))
        return false;
    if (!commits && (!say(updater, 4, guest->session, NULL, 0) || !hear(updater, 0x84)))
        return false;
    if (!say(updater, 5, guest->session, NULL, 0))
        return false;
    if (!updater->commits_over_restart || commits)
        decide(scene);
    return hear(updater, 0x85);
}

static void break_link(struct updater *updater)
{
    guest_disconnect(updater->guest);
    if (updater->restarts) {
        update_service_destroy(updater->scene->bench.service);
        bench_start(&updater->scene->bench);
    }
    updater->budget = SIZE_MAX;
}

// The link breaks after `bytes`; the guest tries again until it is done. False when the link did
// not break before the end.
static bool update_broken_at(size_t bytes, bool restarts, bool over_restart)
{
    void *state;
    scene_create(&state);
    struct scene *scene = state;
    struct updater updater = {.scene = scene,
                              .guest = &scene->guest,
                              .budget = bytes,
                              .restarts = restarts,
                              .commits_over_restart = over_restart};

    scene->bench.committing = WORK_WAITS;
    bool first = update_once(&updater), done = first;
    for (unsigned i = 0; !done && i < 3; i++) {
        break_link(&updater);
        done = update_once(&updater);
    }
    assert_true(done);
    assert_int_equal(scene->bench.commits, 1);
    assert_int_equal(scene->bench.outcome.phase, UPDATE_PHASE_COMMITTED);
    assert_in_range(scene->bench.validations, 1, 2);
    scene_destroy(&state);
    return !first;
}

static void test_broken_everywhere(void **state)
{
    size_t bytes = 0;

    (void)state;
    while (update_broken_at(bytes, false, false))
        bytes++;
    print_message("broken at each of %zu bytes\n", bytes);
    assert_true(bytes > 1000);
    for (bytes = 0; update_broken_at(bytes, true, false); bytes++)
        ;
    print_message("broken, and the host's service with it, at each of %zu bytes\n", bytes);
    assert_true(bytes > 1000);
}

// The usual case: the supervisor executes itself anew in the midst of COMMIT.
static void test_commit_over_restart(void **state)
{
    (void)state;
    assert_true(update_broken_at(SIZE_MAX, true, true));
}

// ---- Splits -------------------------------------------------------------------------------------

// All that a guest sends, in one piece: handles are known, since a service gives out the same.
static size_t record(uint8_t *bytes, uint64_t session)
{
    static const char hello[] = "{\"protocol\":1,\"agent\":\"split\"}";
    uint8_t payload[4096];
    size_t count = make_frame(bytes, 1, 0, hello, sizeof(hello) - 1);

    count += make_frame(bytes + count, 2, 0, payload,
                        make_offer(payload, sizeof(payload), &small_offer));
    for (uint64_t at = 0; at < 100; at += 50) {
        put_le(payload, at, 8);
        count += make_frame(bytes + count, 3, session, payload, 58);
    }
    count += make_frame(bytes + count, 9, session, NULL, 0);
    count += make_frame(bytes + count, 4, session, NULL, 0);
    count += make_frame(bytes + count, 5, session, NULL, 0);
    count += make_frame(bytes + count, 7, 0, NULL, 0);
    memcpy(bytes + count, "not a frame at all", 18);
    return count + 18;
}

// Feeds pieces: up to `first`, then of `each`. What came back is left in the guest's buffer.
static void feed(struct scene *scene, const uint8_t *bytes, size_t count, size_t first, size_t each)
{
    struct guest *guest = &scene->guest;

    bench_init(&scene->bench);
    guest_connect(guest, &scene->bench, "web", true);
    for (size_t at = 0, part = first; at < count; at += part, part = each) {
        if (part > count - at)
            part = count - at;
        guest_raw(guest, bytes + at, part);
    }
    assert_true(guest->finished);
    guest_disconnect(guest);
    bench_fini(&scene->bench);
    memset(&guest->meter, 0, sizeof(guest->meter));
}

static void test_splits(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    struct guest *guest = &scene->guest;
    static uint8_t bytes[8192], whole[16384];

    (void)state;
    bench_init(&scene->bench);
    greet(scene, guest, "web");
    guest_offer(guest, &small_offer);
    expect(scene, guest, 0x82);
    const uint64_t session = guest->session;
    guest_disconnect(guest);
    bench_fini(&scene->bench);
    memset(&guest->meter, 0, sizeof(guest->meter));

    const size_t count = record(bytes, session);
    feed(scene, bytes, count, count, count);
    const size_t answered = guest->out_end;
    assert_in_range(answered, 500, sizeof(whole));
    memcpy(whole, guest->out, answered);
    static const unsigned types[] = {0x81, 0x82, 0x83, 0xff, 0x84, 0x85, 0x87, 0xff};
    for (size_t i = 0; i < BASE_COUNT_OF(types); i++)
        expect(scene, guest, types[i]);
    expect_nothing(scene, guest);

    for (size_t first = 1; first < count; first++) {
        feed(scene, bytes, count, first, count);
        assert_int_equal(guest->out_end, answered);
        assert_memory_equal(guest->out, whole, answered);
    }
    for (size_t each = 1; each < 70; each++) {
        feed(scene, bytes, count, each, each);
        assert_int_equal(guest->out_end, answered);
        assert_memory_equal(guest->out, whole, answered);
    }
    print_message("%zu bytes split everywhere\n", count);
    free(scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_everywhere),
        cmocka_unit_test(test_commit_over_restart),
        cmocka_unit_test(test_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
