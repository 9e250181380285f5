// SPDX-License-Identifier: BSD-2-Clause
// What a guest can use up: time, connections, offers, bytes, lines of the audit log, and patience.
#include "update_channel_check.h"

static size_t audited(const struct scene *scene)
{
    return json_array_size(scene->bench.audit);
}

// Whether the last record but `back` is this event.
static void expect_audit_before(const struct scene *scene, size_t back, const char *event)
{
    assert_string_equal(json_string_value(bench_audited(&scene->bench, back, "event")), event);
}

static void test_silence(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    guest_connect(guest, &scene->bench, "web", true);
    bench_pass(&scene->bench, 60);
    assert_false(guest->finished);
    bench_pass(&scene->bench, 1);
    expect_error(scene, guest, UPDATE_REFUSAL_TOO_SLOW);
    assert_true(guest->finished);
    guest_disconnect(guest);
    // Nor do bytes that are no frame count as a word.
    guest_connect(guest, &scene->bench, "web", true);
    for (unsigned i = 0; i < 7 && !guest->finished; i++) {
        guest_raw(guest, "ST", 2);
        bench_pass(&scene->bench, 10);
    }
    assert_true(guest->finished);
}

// Between WRITEs; STATUS is none. What was received stays for who comes back.
static void test_slow_payload(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    offered(scene);
    for (unsigned i = 0; i < 5; i++) {
        guest_write(guest, 10 * i, 10);
        bench_pass(&scene->bench, 50);
    }
    assert_false(guest->finished);
    for (unsigned i = 0; i < 2; i++) {
        guest_say(guest, 7);
        expect(scene, guest, 0x87);
        bench_pass(&scene->bench, 6);
    }
    expect_error(scene, guest, UPDATE_REFUSAL_TOO_SLOW);
    assert_true(guest->finished);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "receiving", 50);
}

// A session without connection holds others off for ten minutes, not longer.
static void test_abandoned(void **state)
{
    struct scene *scene = *state;

    offered(scene);
    guest_write(&scene->guest, 0, 100);
    json_t *session = update_service_describe(scene->bench.service);
    assert_string_equal(json_string_value(json_object_get(session, "partition")), "web");
    assert_int_equal(json_integer_value(json_object_get(session, "offset")), 100);
    json_decref(session);
    guest_disconnect(&scene->guest);
    bench_pass(&scene->bench, UPDATE_LOST_SECONDS);
    greet(scene, &scene->other, "db");
    guest_offer(&scene->other, &good_offer);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_BUSY);
    assert_int_equal(update_service_refused(scene->bench.service, UPDATE_REFUSAL_BUSY), 1);
    assert_int_equal(update_service_refused(scene->bench.service, UPDATE_REFUSAL_HOST), 0);
    bench_pass(&scene->bench, 1);
    assert_null(update_service_describe(scene->bench.service));
    expect_audit(scene, "abandoned");
    assert_string_equal(json_string_value(bench_audited(&scene->bench, 0, "partition")), "web");
    assert_true(json_integer_value(bench_audited(&scene->bench, 0, "session_ns")) > 0);
    assert_int_equal(scene->bench.ended, 1);
    assert_int_equal(bench_staged(&scene->bench), 100);
    guest_offer(&scene->other, &good_offer);
    expect_session(scene, &scene->other, "receiving", 100);
}

static void test_no_commit(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    validated(scene);
    bench_pass(&scene->bench, UPDATE_VALIDATED_SECONDS);
    assert_false(guest->finished);
    bench_pass(&scene->bench, 1);
    expect(scene, guest, 0xff);
    assert_int_equal(answer_code(&scene->answer), UPDATE_REFUSAL_TOO_SLOW);
    expect_audit(scene, "abandoned");
    expect_audit_before(scene, 1, "refused");
    assert_int_equal(scene->bench.ended, 1);
}

// A guest that keeps within all other limits does not hold the session for ever.
static void test_long_session(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    struct offer offer = good_offer;
    uint64_t at = 0;

    offer.delta_bytes = 1000;
    offer.full_bytes = 1001;
    greet(scene, guest, "web");
    guest_offer(guest, &offer);
    expect(scene, guest, 0x82);
    for (; !guest->finished && at < 1000; at++) {
        guest_write(guest, at, 1);
        bench_pass(&scene->bench, 50);
    }
    assert_int_equal(at, UPDATE_SESSION_SECONDS / 50 + 1);
    expect_audit(scene, "abandoned");
}

// Work is given its time, and so is the guest after it.
static void test_work_takes_time(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    received(scene);
    scene->bench.validating = scene->bench.committing = WORK_WAITS;
    guest_say(guest, 4);
    bench_pass(&scene->bench, UPDATE_SESSION_SECONDS / 2);
    assert_false(guest->finished);
    update_service_validated(scene->bench.service, scene->bench.working);
    expect(scene, guest, 0x84);
    expect_text(scene, "\"seconds\":7200.0");
    assert_int_equal(json_integer_value(bench_audited(&scene->bench, 0, "work_ns")),
                     UPDATE_SESSION_SECONDS / 2 * SECOND);
    guest_say(guest, 5);
    bench_pass(&scene->bench, UPDATE_SESSION_SECONDS);
    assert_false(guest->finished);
    guest_disconnect(guest);
    bench_pass(&scene->bench, UPDATE_SESSION_SECONDS);
    bench_decide(&scene->bench, UPDATE_PHASE_COMMITTED);
    update_service_settled(scene->bench.service);
    expect_audit(scene, "committed");
}

static void test_connections(void **state)
{
    struct scene *scene = *state;
    struct update_channel *channels[UPDATE_CONNECTIONS_MAX];
    const struct update_channel_config config = {.partition = "web",
                                                 .permitted = true,
                                                 .meter = &scene->guest.meter,
                                                 .send = guest_send_out,
                                                 .finish = guest_finish,
                                                 .ready = guest_ready,
                                                 .opaque = &scene->guest};

    for (unsigned i = 0; i < UPDATE_CONNECTIONS_MAX; i++)
        assert_int_equal(update_channel_open(&channels[i], scene->bench.service, &config), 0);
    guest_connect(&scene->guest, &scene->bench, "web", true);
    guest_hello(&scene->guest);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_BUSY);
    assert_true(scene->guest.finished);
    guest_disconnect(&scene->guest);
    update_channel_close(channels[0]);
    greet(scene, &scene->guest, "web");
    for (unsigned i = 1; i < UPDATE_CONNECTIONS_MAX; i++)
        update_channel_close(channels[i]);
}

// Connections that say nothing hold no more of the host than a few do.
static void test_many_connections(void **state)
{
    struct scene *scene = *state;
    struct update_channel *channels[UPDATE_CONNECTIONS_MAX + UPDATE_UNWELCOME_MAX], *none;
    const struct update_channel_config config = {.partition = "web",
                                                 .meter = &scene->guest.meter,
                                                 .send = guest_send_out,
                                                 .finish = guest_finish,
                                                 .ready = guest_ready,
                                                 .opaque = &scene->guest};

    for (unsigned i = 0; i < BASE_COUNT_OF(channels); i++)
        assert_int_equal(update_channel_open(&channels[i], scene->bench.service, &config), 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(update_channel_open(&none, scene->bench.service, &config), -EBUSY);
    update_channel_close(channels[0]);
    assert_int_equal(update_channel_open(&channels[0], scene->bench.service, &config), 0);
    for (unsigned i = 0; i < BASE_COUNT_OF(channels); i++)
        update_channel_close(channels[i]);
    assert_int_equal(scene->guest.meter.connections, 0);
}

// However often it connects anew; another partition is not affected.
static void test_offers(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    struct offer offer = good_offer;

    offer.signature = "bad";
    for (unsigned i = 0; i < UPDATE_OFFERS_BURST; i++) {
        greet(scene, guest, "web");
        guest_offer(guest, &offer);
        expect_error(scene, guest, UPDATE_REFUSAL_BAD_SIGNATURE);
        guest_disconnect(guest);
    }
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_error(scene, guest, UPDATE_REFUSAL_BUSY);
    expect_text(scene, "too often");
    greet(scene, &scene->other, "db");
    guest_offer(&scene->other, &offer);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_BAD_SIGNATURE);
    bench_pass(&scene->bench, UPDATE_OFFER_SECONDS);
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "offered", 0);
}

static void test_rate(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    struct offer offer = good_offer;
    uint64_t at = 0;

    scene->bench.host.quota_bytes = 1ull << 30;
    offer.delta_bytes = 200u << 20;
    offer.full_bytes = offer.delta_bytes + 1;
    greet(scene, guest, "web");
    guest_offer(guest, &offer);
    expect(scene, guest, 0x82);
    for (unsigned second = 0; second < 3; second++) {
        const unsigned ready = guest->ready;
        for (; guest->in_end == 0; at += 65528)
            guest_write(guest, at, 65528);
        while (guest_take(guest, &scene->answer))
            assert_int_equal(scene->answer.type, 0x83);
        assert_in_range(at, (second + 1) * (uint64_t)UPDATE_BYTES_RATE - (1 << 18),
                        (second + 1) * (uint64_t)UPDATE_BYTES_RATE + (1 << 18));
        bench_pass(&scene->bench, 1);
        assert_int_equal(guest->ready, ready + 1);
        guest_pump(guest);
    }
}

// Requests that are short are not read faster than long ones, whichever they are.
static void test_short_requests(void **state)
{
    const unsigned most = UPDATE_BYTES_RATE / UPDATE_FRAME_COST;
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    greet(scene, guest, "web");
    for (unsigned second = 0; second < 3; second++) {
        unsigned answers = 0;
        for (; guest->in_end == 0 && answers <= 2 * most; answers++) {
            guest_say(guest, 7);
            guest->out_start = guest->out_end = 0;
        }
        print_message("%u answers\n", answers);
        assert_in_range(answers, most - 2, most + 2);
        bench_pass(&scene->bench, 1);
        guest_pump(guest);
        guest->out_start = guest->out_end = 0;
    }
}

// Ten thousand frames of garbage, over as many connections as that takes: each connection ends
// soon, the audit log does not fill, and the session that another partition has goes on.
static void garbage(struct scene *scene, bool framed)
{
    struct guest *guest = &scene->other;
    const size_t before = audited(scene);
    uint64_t random = 1;
    unsigned frames = 0, connections = 0, seconds = 0;

    while (frames < 10000) {
        guest_connect(guest, &scene->bench, "db", true);
        connections++;
        if (connections % 2)
            guest_hello(guest);
        for (; !guest->finished && frames < 10000; frames++) {
            uint8_t frame[16 + 64];
            for (size_t i = 0; i < sizeof(frame); i++) {
                random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
                frame[i] = (uint8_t)(random >> 56);
            }
            if (framed)
                make_frame(frame, frame[2], frame[8], frame + 16, frame[4] % 65);
            guest_raw(guest, frame, 16 + (framed ? frame[4] : 64));
            if (guest->in_end > 0) {  // it is read no faster
                bench_pass(&scene->bench, 1);
                guest_pump(guest);
                seconds++;
            }
        }
        while (guest_take(guest, &scene->answer))
            ;
        guest_disconnect(guest);
    }
    print_message("%u connections, %u s, %zu records\n", connections, seconds,
                  audited(scene) - before);
    assert_true(connections >= 10000 / (UPDATE_MALFORMED_MAX + 200));
    assert_true(audited(scene) - before <= UPDATE_AUDIT_BURST + seconds / UPDATE_AUDIT_SECONDS + 1);
}

static void test_garbage(void **state)
{
    struct scene *scene = *state;

    offered(scene);
    guest_write(&scene->guest, 0, 100);
    garbage(scene, false);
    garbage(scene, true);
    guest_write(&scene->guest, 100, 200);
    expect(scene, &scene->guest, 0x83);
    assert_int_equal(scene->bench.commits, 0);
    // What was left out is counted in the next record.
    bench_pass(&scene->bench, UPDATE_AUDIT_SECONDS);
    guest_connect(&scene->other, &scene->bench, "db", false);
    guest_hello(&scene->other);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_NOT_PERMITTED);
    assert_true(json_integer_value(bench_audited(&scene->bench, 0, "suppressed")) > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        scene_test(test_silence),        scene_test(test_slow_payload),
        scene_test(test_abandoned),      scene_test(test_no_commit),
        scene_test(test_long_session),   scene_test(test_work_takes_time),
        scene_test(test_connections),    scene_test(test_many_connections),
        scene_test(test_offers),         scene_test(test_rate),
        scene_test(test_short_requests), scene_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
