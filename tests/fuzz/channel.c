// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the guest channel: two partitions' guests send frames, good ones, bad ones and
// bytes that are none, connect and go away, while the host works, restarts and lets time pass. The
// input is a list of such steps. The host of the unit tests aborts when it is asked for what has
// not been validated, or is outside of a stage; here is checked that answers are whole frames of
// the host's, and that the service still serves at the end.
#include "../unit/update_channel.h"
#include "replay.h"

enum step_kind {
    STEP_HELLO,
    STEP_OFFER,    // which of the offers
    STEP_WRITE,    // how far from the offset that is next, how many bytes
    STEP_REQUEST,  // type
    STEP_BYTES,    // how many of the input's
    STEP_FRAME,    // type, how many of the input's as payload
    STEP_CONNECT,  // who, anew
    STEP_WORK,     // how it ends
    STEP_TIME,     // seconds
    STEP_RESTART,  // of the service
    STEP_MODE,     // whether work waits
    STEP_VERDICT,  // what the store says from now on
    STEP_KINDS
};

struct input {
    const uint8_t *bytes;
    size_t count;
};

static struct bench bench;
static struct guest guests[2];

static uint8_t take(struct input *input)
{
    if (input->count == 0)
        return 0;
    input->count--;
    return *input->bytes++;
}

// Frames of the host's only, and whole ones.
static void take_answers(struct guest *guest)
{
    static struct answer answer;

    while (guest_take(guest, &answer))
        MUST(answer.type >= 0x81 && (answer.type <= 0x88 || answer_code(&answer) > 0));
    MUST(guest->out_start == guest->out_end);
}

static void connect_guest(struct guest *guest)
{
    guest_disconnect(guest);
    guest_connect(guest, &bench, guest == guests ? "web" : "db", true);
}

static void offer(struct guest *guest, uint8_t which)
{
    static const char *const signatures[] = {"good", "good", "good", "bad", "", "revoked", "host"};
    struct offer made = OFFER_GOOD;

    made.signature = signatures[which % BASE_COUNT_OF(signatures)];
    made.version = which & 16 ? "0.2.0" : "0.3.0";
    made.epoch = which & 32 ? 3 : 2;
    made.delta_bytes = which & 64 ? 300 : 0;
    made.base = which & 128 ? BASE_DIGEST : OTHER_DIGEST;
    guest_offer(guest, &made);
}

static void end_work(uint8_t how)
{
    if (how < 64)
        update_service_validated(bench.service, bench.working);
    else if (how < 128)
        update_service_refuse(bench.service, bench.working, 1 + how % 26, how & 32 ? "why" : NULL);
    else if (bench.outcome.version[0])
        bench_decide(&bench, how < 192 ? UPDATE_PHASE_COMMITTED : UPDATE_PHASE_ROLLED_BACK);
    update_service_settled(bench.service);
    update_service_progress(bench.service, bench.working, "doing");
}

static void restart(void)
{
    guest_disconnect(&guests[0]);
    guest_disconnect(&guests[1]);
    update_service_destroy(bench.service);
    bench_start(&bench);
    connect_guest(&guests[0]);
    connect_guest(&guests[1]);
}

static size_t part(const struct input *input, uint8_t wanted)
{
    return wanted < input->count ? wanted : input->count;
}

// What a guest sends.
static void send_step(struct input *input, struct guest *guest, enum step_kind kind)
{
    const uint8_t argument = kind == STEP_HELLO ? 0 : take(input);
    size_t count;

    switch (kind) {
    case STEP_HELLO:
        guest_hello(guest);
        break;
    case STEP_OFFER:
        offer(guest, argument);
        break;
    case STEP_WRITE:
        guest_write(guest, bench_staged(&bench) + (uint64_t)(int8_t)argument, take(input));
        break;
    case STEP_REQUEST:
        guest_say(guest, argument % 8);
        break;
    case STEP_BYTES:
        count = part(input, argument);
        guest_raw(guest, input->bytes, count);
        input->bytes += count;
        input->count -= count;
        break;
    default:
        count = part(input, take(input));
        guest_send(guest, argument, guest->session, input->bytes, count);
        input->bytes += count;
        input->count -= count;
    }
}

static void step(struct input *input)
{
    const uint8_t kind = take(input), rcs[] = {0, 0, ENOSPC, EDQUOT, EIO};
    struct guest *guest = &guests[kind / 128];

    // Requests that wait behind work are not piled up for ever, and a connection that the host has
    // ended is no good.
    if (guest->in_end > sizeof(guest->in) / 2 || guest->finished)
        connect_guest(guest);
    switch (kind % STEP_KINDS) {
    case STEP_CONNECT:
        connect_guest(guest);
        break;
    case STEP_WORK:
        end_work(take(input));
        break;
    case STEP_TIME:
        bench_pass(&bench, take(input) * 8u);
        break;
    case STEP_RESTART:
        restart();
        break;
    case STEP_MODE:
        bench.validating = take(input) % 4;
        bench.committing = take(input) % 4;
        bench.work_refusal = 1 + take(input) % 26;
        break;
    case STEP_VERDICT:
        bench.stage_open_rc = -rcs[take(input) % sizeof(rcs)];
        bench.stage_write_rc = -rcs[take(input) % sizeof(rcs)];
        bench.stage_discard_rc = -rcs[take(input) % sizeof(rcs)];
        break;
    default:
        send_step(input, guest, kind % STEP_KINDS);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!guests[i].finished)
            guest_pump(&guests[i]);
        take_answers(&guests[i]);
    }
}

// After all that a guest with a good update still gets it.
static void expect_service(void)
{
    static const struct offer good = OFFER_GOOD;
    static struct answer answer;
    struct guest *guest = &guests[0];

    bench.validating = bench.committing = WORK_SUCCEEDS;
    bench.stage_open_rc = bench.stage_write_rc = bench.stage_discard_rc = 0;
    bench_clear_outcome(&bench);
    bench.host.committing = false;
    restart();
    bench_pass(&bench, 60);
    guest_hello(guest);
    MUST(guest_take(guest, &answer) && answer.type == 0x81);
    guest_offer(guest, &good);
    MUST(guest_take(guest, &answer) && answer.type == 0x82);
    guest_say(guest, 6);
    MUST(guest_take(guest, &answer) && answer.type == 0x86);
    guest_offer(guest, &good);
    MUST(guest_take(guest, &answer) && answer.type == 0x82);
    guest_write(guest, 0, 300);
    guest_say(guest, 4);
    guest_say(guest, 5);
    for (unsigned type = 0x83; type <= 0x85; type++)
        MUST(guest_take(guest, &answer) && answer.type == type);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct input input = {bytes, count};

    bench_init(&bench);
    for (unsigned i = 0; i < 2; i++) {
        memset(&guests[i].meter, 0, sizeof(guests[i].meter));
        connect_guest(&guests[i]);
    }
    while (input.count > 0)
        step(&input);
    expect_service();
    guest_disconnect(&guests[0]);
    guest_disconnect(&guests[1]);
    bench_fini(&bench);
    return 0;
}
