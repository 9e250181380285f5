// SPDX-License-Identifier: BSD-2-Clause
// The guest channel when all goes well, and when it goes on after it did not: the whole exchange,
// resuming at each step, two partitions at once, what is repeated and what comes too early.
#include "update_channel_check.h"

static void test_whole(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    received(scene);
    assert_int_equal(scene->answer.bytes, 8);
    assert_int_equal(get_le(scene->answer.payload, 8), 300);
    expect_audit(scene, "received");
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(scene->bench.stages[0].data[i], payload_byte(i));
    guest_say(guest, 4);
    expect(scene, guest, 0x84);
    expect_text(scene, "\"sha256\":\"" OTHER_DIGEST "\"");
    expect_text(scene, "\"bytes\":3000");
    expect_audit(scene, "validated");
    assert_int_equal(scene->bench.commits, 0);
    guest_say(guest, 5);
    expect(scene, guest, 0x85);
    expect_text(scene, "\"old\":\"0.1.0\"");
    assert_int_equal(scene->answer.handle, guest->session);
    expect_audit(scene, "committed");
    assert_string_equal(json_string_value(bench_audited(&scene->bench, 0, "version")), "0.2.0");
    assert_string_equal(json_string_value(bench_audited(&scene->bench, 0, "agent")), "test 1");
    assert_string_equal(json_string_value(bench_audited(&scene->bench, 0, "key")),
                        "0123456789ABCDEF");
    assert_int_equal(scene->bench.ended, 1);
    assert_int_equal(bench_staged(&scene->bench), 0);
    expect_nothing(scene, guest);
}

static void test_hello(void **state)
{
    struct scene *scene = *state;
    const char *version, *architecture, *partition, *first;
    int protocol, epoch, saved, quota;

    greet(scene, &scene->guest, "web");
    json_t *json = answer_json(&scene->answer);
    assert_int_equal(json_unpack(json, "{s:i, s:s, s:i, s:s, s:i, s:s, s:i, s:[{s:s}, {}]}",
                                 "protocol", &protocol, "version", &version, "epoch", &epoch,
                                 "architecture", &architecture, "state", &saved, "partition",
                                 &partition, "quota_bytes", &quota, "programs", "sha256", &first),
                     0);
    assert_int_equal(protocol, 1);
    assert_string_equal(version, "0.1.0");
    assert_int_equal(epoch, 3);
    assert_string_equal(architecture, "x86_64");
    assert_int_equal(saved, 5);
    assert_string_equal(partition, "web");
    assert_int_equal(quota, 1 << 24);
    assert_string_equal(first, BASE_DIGEST);
    json_decref(json);
}

// Payloads of several MiB: WRITTEN comes once a MiB, and at the end.
static void test_written(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    struct offer offer = good_offer;
    const uint64_t bytes = (5u << 19) + 77;  // 2.5 MiB

    offer.delta_bytes = bytes;
    offer.full_bytes = bytes + 1;
    greet(scene, guest, "web");
    guest_offer(guest, &offer);
    expect(scene, guest, 0x82);
    unsigned answers = 0;
    for (uint64_t at = 0; at < bytes; at += 65528) {
        guest_write(guest, at, bytes - at < 65528 ? bytes - at : 65528);
        while (guest_take(guest, &scene->answer)) {
            assert_int_equal(scene->answer.type, 0x83);
            uint64_t there = get_le(scene->answer.payload, 8);
            answers++;
            if (answers < 3)
                assert_in_range(there, answers << 20, (answers << 20) + 65528);
            else
                assert_int_equal(there, bytes);
        }
    }
    assert_int_equal(answers, 3);
}

// The smallest payload whose base the host has is asked for.
static void test_payload_choice(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;
    struct offer offer = good_offer;

    greet(scene, guest, "web");
    offer.base = OTHER_DIGEST;
    guest_offer(guest, &offer);
    expect(scene, guest, 0x82);
    expect_text(scene, "\"payload\":0");
    expect_text(scene, "\"bytes\":700");
    guest_say(guest, 6);
    expect(scene, guest, 0x86);
    offer = good_offer;
    offer.delta_bytes = 701;
    guest_offer(guest, &offer);
    expect(scene, guest, 0x82);
    expect_text(scene, "\"payload\":0");
}

// A connection lost at each phase: the same manifest says where to go on.
static void test_resume(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    offered(scene);
    guest_disconnect(guest);
    offered(scene);
    expect_audit(scene, "resumed");
    guest_write(guest, 0, 100);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "receiving", 100);
    guest_write(guest, 100, 200);
    expect(scene, guest, 0x83);
    scene->bench.validating = scene->bench.committing = WORK_WAITS;
    guest_say(guest, 4);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "validating", 300);
    guest_say(guest, 4);
    expect_nothing(scene, guest);
    update_service_progress(scene->bench.service, scene->bench.working, "thinking");
    expect(scene, guest, 0x88);
    expect_text(scene, "{\"doing\":\"thinking\"}");
    update_service_validated(scene->bench.service, scene->bench.working);
    expect(scene, guest, 0x84);
    assert_int_equal(guest->ready, 1);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "validated", 300);
    guest_say(guest, 5);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "committing", 300);
    guest_say(guest, 5);
    expect_nothing(scene, guest);
    bench_decide(&scene->bench, UPDATE_PHASE_COMMITTED);
    update_service_settled(scene->bench.service);
    expect(scene, guest, 0x85);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect(scene, guest, 0x82);
    expect_text(scene, "\"phase\":\"committed\"");
    expect_text(scene, "\"result\":{\"old\":\"0.1.0\"");
    assert_int_equal(scene->bench.validations, 1);
    assert_int_equal(scene->bench.commits, 1);
    assert_int_equal(scene->bench.ended, 1);
}

static void restart(struct scene *scene)
{
    guest_disconnect(&scene->guest);
    guest_disconnect(&scene->other);
    update_service_destroy(scene->bench.service);
    bench_start(&scene->bench);
}

// A supervisor that starts anew knows what is on its disk.
static void test_resume_after_restart(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    offered(scene);
    guest_write(guest, 0, 100);
    restart(scene);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "receiving", 100);
    guest_write(guest, 100, 200);
    expect(scene, guest, 0x83);
    guest_say(guest, 4);
    expect(scene, guest, 0x84);
    restart(scene);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "receiving", 300);
    guest_say(guest, 4);
    expect(scene, guest, 0x84);
    assert_int_equal(scene->bench.validations, 2);
    scene->bench.committing = WORK_WAITS;
    guest_say(guest, 5);
    restart(scene);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect(scene, guest, 0x82);
    expect_text(scene, "\"phase\":\"committing\"");
    guest_say(guest, 5);
    expect_nothing(scene, guest);
    // Meanwhile nobody else may offer another.
    greet(scene, &scene->other, "db");
    struct offer another = good_offer;
    another.version = "0.3.0";
    guest_offer(&scene->other, &another);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_BUSY);
    bench_decide(&scene->bench, UPDATE_PHASE_COMMITTED);
    update_service_settled(scene->bench.service);
    expect(scene, guest, 0x85);
    assert_int_equal(scene->bench.commits, 1);
    // What another partition has brought is there at once.
    guest_offer(&scene->other, &good_offer);
    expect(scene, &scene->other, 0x82);
    expect_text(scene, "\"phase\":\"committed\"");
}

static void test_rolled_back(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    validated(scene);
    scene->bench.committing = WORK_WAITS;
    guest_say(guest, 5);
    bench_decide(&scene->bench, UPDATE_PHASE_ROLLED_BACK);
    update_service_settled(scene->bench.service);
    expect_error(scene, guest, UPDATE_REFUSAL_ROLLED_BACK);
    expect_text(scene, "it crashed");
    assert_string_equal(json_string_value(bench_audited(&scene->bench, 1, "event")), "rolled-back");
    guest_say(guest, 5);
    expect_error(scene, guest, UPDATE_REFUSAL_ROLLED_BACK);
    guest_offer(guest, &good_offer);
    expect(scene, guest, 0x82);
    expect_text(scene, "\"phase\":\"rolled-back\"");
    expect_text(scene, "\"result\":{\"error\":25,\"why\":\"it crashed\"}");
    guest_say(guest, 7);
    expect(scene, guest, 0x87);
    expect_text(scene, "\"last\":{\"phase\":\"rolled-back\"");
    guest_say(guest, 6);
    expect(scene, guest, 0x86);
    expect_audit(scene, "withdrawn");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "offered", 0);
}

// Answers come in order, whatever is sent without waiting for them.
static void test_pipelined(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    offered(scene);
    scene->bench.validating = scene->bench.committing = WORK_WAITS;
    guest_write(guest, 0, 300);
    guest_say(guest, 4);
    guest_say(guest, 5);
    guest_say(guest, 5);
    guest_say(guest, 7);
    expect(scene, guest, 0x83);
    expect_nothing(scene, guest);
    assert_int_equal(guest->in_end - guest->in_start, 48);
    update_service_validated(scene->bench.service, scene->bench.working);
    guest_pump(guest);
    expect(scene, guest, 0x84);
    expect_nothing(scene, guest);
    assert_int_equal(guest->in_end - guest->in_start, 32);
    bench_decide(&scene->bench, UPDATE_PHASE_COMMITTED);
    update_service_settled(scene->bench.service);
    guest_pump(guest);
    expect(scene, guest, 0x85);
    expect(scene, guest, 0x85);  // twice the same, done once
    assert_int_equal(scene->bench.commits, 1);
    expect(scene, guest, 0x87);
    expect_text(scene, "\"last\":{\"phase\":\"committed\"");
}

static void test_repeated(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    validated(scene);
    guest_say(guest, 4);
    expect(scene, guest, 0x84);
    assert_int_equal(scene->bench.validations, 1);
    guest_say(guest, 5);
    expect(scene, guest, 0x85);
    guest_say(guest, 5);
    expect(scene, guest, 0x85);
    assert_int_equal(scene->bench.commits, 1);
    guest_say(guest, 6);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
    guest_say(guest, 4);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
    guest_write(guest, 0, 10);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
}

static void test_withdraw(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    validated(scene);
    guest_say(guest, 6);
    expect(scene, guest, 0x86);
    expect_audit(scene, "withdrawn");
    assert_int_equal(bench_staged(&scene->bench), 0);
    assert_int_equal(scene->bench.ended, 1);
    guest_say(guest, 6);
    expect_error(scene, guest, UPDATE_REFUSAL_NO_SESSION);
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "offered", 0);
}

// A guest that comes back and withdraws what is being worked on waits for that.
static void test_withdraw_while_working(void **state)
{
    struct scene *scene = *state;
    struct guest *guest = &scene->guest;

    received(scene);
    scene->bench.validating = WORK_WAITS;
    guest_say(guest, 4);
    guest_offer(guest, &good_offer);  // is not looked at before the answer to FINISH
    expect_nothing(scene, guest);
    guest_disconnect(guest);
    greet(scene, guest, "web");
    guest_offer(guest, &good_offer);
    expect_session(scene, guest, "validating", 300);
    guest_say(guest, 6);
    expect_nothing(scene, guest);
    update_service_refuse(scene->bench.service, scene->bench.working, UPDATE_REFUSAL_BAD_DIGEST,
                          NULL);
    expect(scene, guest, 0x86);
    expect_nothing(scene, guest);
    // Late and forged reports of work are ignored.
    update_service_validated(scene->bench.service, scene->bench.working);
    update_service_refuse(scene->bench.service, scene->bench.working, UPDATE_REFUSAL_HOST, NULL);
    update_service_progress(scene->bench.service, scene->bench.working, "nothing");
    update_service_validated(scene->bench.service, 12345);
    expect_nothing(scene, guest);
}

static void test_two_partitions(void **state)
{
    struct scene *scene = *state;

    offered(scene);
    guest_write(&scene->guest, 0, 100);
    greet(scene, &scene->other, "db");
    guest_offer(&scene->other, &good_offer);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_BUSY);
    // Nor can it use the session of the first, whose handle it has guessed.
    scene->other.session = scene->guest.session;
    guest_write(&scene->other, 100, 100);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_NO_SESSION);
    guest_say(&scene->other, 6);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_NO_SESSION);
    guest_say(&scene->other, 7);
    expect(scene, &scene->other, 0x87);
    expect_text(scene, "\"busy\":true");
    expect_text(scene, "\"session\":null");
    guest_write(&scene->guest, 100, 200);
    expect(scene, &scene->guest, 0x83);
    guest_say(&scene->guest, 7);
    expect(scene, &scene->guest, 0x87);
    expect_text(scene, "\"busy\":false");
    expect_text(scene, "\"session\":{\"phase\":\"receiving\"");
    guest_say(&scene->guest, 6);
    expect(scene, &scene->guest, 0x86);
    guest_offer(&scene->other, &good_offer);
    expect_session(scene, &scene->other, "offered", 0);
}

// Two connections of one partition: the later one with the same manifest has the session.
static void test_taken_over(void **state)
{
    struct scene *scene = *state;
    struct offer another = good_offer;

    another.version = "0.3.0";
    offered(scene);
    guest_write(&scene->guest, 0, 100);
    greet(scene, &scene->other, "web");
    guest_offer(&scene->other, &another);
    expect_error(scene, &scene->other, UPDATE_REFUSAL_BUSY);
    guest_offer(&scene->other, &good_offer);
    expect_session(scene, &scene->other, "receiving", 100);
    expect(scene, &scene->guest, 0xff);
    assert_int_equal(answer_code(&scene->answer), UPDATE_REFUSAL_NO_SESSION);
    assert_true(scene->guest.finished);
    guest_disconnect(&scene->guest);
    guest_write(&scene->other, 100, 200);
    expect(scene, &scene->other, 0x83);
    guest_disconnect(&scene->other);
    // Without a connection the session makes way for another manifest of its partition.
    greet(scene, &scene->guest, "web");
    guest_offer(&scene->guest, &another);
    expect(scene, &scene->guest, 0x82);
    expect_text(scene, "\"version\":\"0.3.0\"");
    assert_int_equal(scene->bench.ended, 1);
    assert_int_equal(bench_staged(&scene->bench), 300);
}

// A key may be revoked, or a package expire, between two offers of one manifest.
static void test_revoked_meanwhile(void **state)
{
    struct scene *scene = *state;
    struct offer revoked = good_offer;

    revoked.signature = "revoked";
    offered(scene);
    guest_write(&scene->guest, 0, 100);
    guest_offer(&scene->guest, &revoked);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_REVOKED_KEY);
    assert_int_equal(bench_staged(&scene->bench), 0);
    guest_write(&scene->guest, 100, 100);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NO_SESSION);
}

// Or between the last offer and COMMIT.
static void test_expired_meanwhile(void **state)
{
    struct scene *scene = *state;

    offered(scene);
    guest_write(&scene->guest, 0, 300);
    expect(scene, &scene->guest, 0x83);
    guest_say(&scene->guest, 4);
    expect(scene, &scene->guest, 0x84);
    scene->bench.wall_ns = 4102444800 * SECOND;  // 2100
    guest_say(&scene->guest, 5);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_EXPIRED);
    assert_int_equal(scene->bench.commits, 0);
    assert_int_equal(bench_staged(&scene->bench), 0);
    guest_say(&scene->guest, 5);
    expect_error(scene, &scene->guest, UPDATE_REFUSAL_NO_SESSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        scene_test(test_whole),
        scene_test(test_hello),
        scene_test(test_written),
        scene_test(test_payload_choice),
        scene_test(test_resume),
        scene_test(test_resume_after_restart),
        scene_test(test_rolled_back),
        scene_test(test_pipelined),
        scene_test(test_repeated),
        scene_test(test_withdraw),
        scene_test(test_withdraw_while_working),
        scene_test(test_two_partitions),
        scene_test(test_taken_over),
        scene_test(test_revoked_meanwhile),
        scene_test(test_expired_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
