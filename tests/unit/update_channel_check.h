// SPDX-License-Identifier: BSD-2-Clause
// What tests of the guest channel expect of answers and of the audit log.
#ifndef STRAKE_TESTS_UPDATE_CHANNEL_CHECK_H
#define STRAKE_TESTS_UPDATE_CHANNEL_CHECK_H

#include "unit.h"
#include "update_channel.h"

struct scene {
    struct bench bench;
    struct guest guest, other;  // of the partitions "web" and "db"
    struct answer answer;       // the last
};

static inline int scene_create(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    bench_init(&scene->bench);
    *state = scene;
    return 0;
}

static inline int scene_destroy(void **state)
{
    struct scene *scene = *state;

    guest_disconnect(&scene->guest);
    guest_disconnect(&scene->other);
    bench_fini(&scene->bench);
    free(scene);
    return 0;
}

#define scene_test(f) cmocka_unit_test_setup_teardown(f, scene_create, scene_destroy)

#define expect(scene, guest, expected)                                                             \
    do {                                                                                           \
        assert_true(guest_take(guest, &(scene)->answer));                                          \
        if ((scene)->answer.type == 0xff && (expected) != 0xff)                                    \
            print_error("error: %s\n", (char *)(scene)->answer.payload + 4);                       \
        assert_int_equal((scene)->answer.type, expected);                                          \
    } while (0)

#define expect_nothing(scene, guest) assert_false(guest_take(guest, &(scene)->answer))

// An error, and that the newest record of the audit log tells of it.
#define expect_error(scene, guest, code)                                                           \
    do {                                                                                           \
        expect(scene, guest, 0xff);                                                                \
        assert_int_equal(answer_code(&(scene)->answer), code);                                     \
        expect_audit(scene, "refused");                                                            \
        assert_int_equal(json_integer_value(bench_audited(&(scene)->bench, 0, "code")), code);     \
        assert_string_equal(json_string_value(bench_audited(&(scene)->bench, 0, "refusal")),       \
                            update_refusal_name(code));                                            \
        assert_non_null(json_string_value(bench_audited(&(scene)->bench, 0, "why")));              \
    } while (0)

#define expect_audit(scene, event)                                                                 \
    assert_string_equal(json_string_value(bench_audited(&(scene)->bench, 0, "event")), event)

// SESSION with this phase, payload number 1 and this offset.
#define expect_session(scene, guest, phase, offset)                                                \
    do {                                                                                           \
        expect(scene, guest, 0x82);                                                                \
        assert_int_not_equal((scene)->answer.handle, 0);                                           \
        check_session(&(scene)->answer, phase, offset);                                            \
    } while (0)

static inline void check_session(const struct answer *answer, const char *phase, uint64_t offset)
{
    const char *is_phase, *version, *manifest;
    int payload, is_offset, bytes;
    json_t *json = answer_json(answer);

    assert_int_equal(json_unpack(json, "{s:s, s:s, s:s, s:i, s:i, s:i}", "phase", &is_phase,
                                 "version", &version, "manifest", &manifest, "payload", &payload,
                                 "offset", &is_offset, "bytes", &bytes),
                     0);
    assert_string_equal(is_phase, phase);
    assert_string_equal(version, "0.2.0");
    assert_int_equal(strlen(manifest), 64);
    assert_int_equal(payload, 1);
    assert_int_equal(is_offset, offset);
    json_decref(json);
}

// Whether the answer's text has `text` in it.
#define expect_text(scene, text) assert_non_null(strstr(answer_text(&(scene)->answer), text))

static inline const char *answer_text(const struct answer *answer)
{
    return (const char *)answer->payload + (answer->type == 0xff ? 4 : 0);
}

static const struct offer good_offer = OFFER_GOOD;

static inline void greet(struct scene *scene, struct guest *guest, const char *partition)
{
    guest_connect(guest, &scene->bench, partition, true);
    guest_hello(guest);
    expect(scene, guest, 0x81);
}

// To a session with nothing received.
static inline void offered(struct scene *scene)
{
    greet(scene, &scene->guest, "web");
    guest_offer(&scene->guest, &good_offer);
    expect_session(scene, &scene->guest, "offered", 0);
}

static inline void received(struct scene *scene)
{
    offered(scene);
    guest_write(&scene->guest, 0, 300);
    expect(scene, &scene->guest, 0x83);
}

static inline void validated(struct scene *scene)
{
    received(scene);
    guest_say(&scene->guest, 4);
    expect(scene, &scene->guest, 0x84);
}

#endif
