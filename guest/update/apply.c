// SPDX-License-Identifier: BSD-2-Clause
// The order of an update (docs/guest-channel.md), in which each step is on the disk before the next
// one begins. Whatever interrupts it, a new connection that offers the same manifest is told how
// far the host is, and our state says how far the guest is.
//
//            host                    guest
//   sending     receives, validates
//   installing  validated               guest extensions are installed
//   committing  commits                 waits for it, through the host's own restart
//   restoring   did not commit          puts the earlier guest extensions back, withdraws
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "update.h"

#define LOSSES_MAX 50u  // connections that were lost in a row without anything gained
#define CHUNK_BYTES 65528u

// What SESSION says.
struct session {
    char phase[24];
    uint64_t payload, offset, bytes;
};

struct run {
    struct context *context;
    struct channel *channel;
    struct session session;
    bool patient;  // a host that does not answer is waited for
    unsigned losses;
    uint64_t reached;  // the furthest offset that was told
};

static void nap(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000},
              NULL);
}

static uint64_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static int enter(struct context *context, enum phase phase, struct fault *fault)
{
    context->state.phase = phase;
    return state_save(&context->state, context->folder, fault);
}

static void note(struct context *context, const char *event, const char *text)
{
    state_log(context->folder, event, context->state.version, text);
}

// ---- Requests ----------------------------------------------------------------------------------

static int say_hello(struct context *context, struct channel *channel, struct fault *fault)
{
    static const char hello[] = "{\"protocol\":1,\"agent\":\"strake-update " STRAKE_VERSION "\"}";
    char version[VERSION_MAX_BYTES];

    if (channel_send(channel, CHANNEL_HELLO, hello, strlen(hello), fault) ||
        channel_answer(channel, CHANNEL_HELLO | CHANNEL_ANSWER, &context->report, fault))
        return -1;
    if (!json_string(&channel->json, 0, "version", version, sizeof(version)))
        return fault_set(fault, OUTCOME_NO_HOST, "what answers does not say which version it is");
    // Which one was there before is known at the first time only.
    if (!*context->state.old)
        memcpy(context->state.old, version, sizeof(version));
    return 0;
}

static int offer(struct run *run, struct fault *fault)
{
    static char payload[4 + MANIFEST_BYTES_MAX + SIGNATURE_BYTES_MAX];
    struct context *context = run->context;
    struct channel *channel = run->channel;
    struct session *session = &run->session;
    size_t count = context->manifest_text.count;

    for (unsigned i = 0; i < 4; i++)
        payload[i] = (char)(count >> (8 * i));
    memcpy(payload + 4, context->manifest_text.bytes, count);
    memcpy(payload + 4 + count, context->signature.bytes, context->signature.count);
    channel->session = 0;
    if (channel_send(channel, CHANNEL_OFFER, payload, 4 + count + context->signature.count,
                     fault) ||
        channel_answer(channel, CHANNEL_OFFER | CHANNEL_ANSWER, &context->report, fault))
        return -1;
    channel->session = channel->frame.handle;
    *session = (struct session){.payload = 0};
    if (!json_string(&channel->json, 0, "phase", session->phase, sizeof(session->phase)))
        return fault_set(fault, OUTCOME_NO_HOST, "what answers does not keep to the protocol");
    json_number(&channel->json, 0, "payload", &session->payload);
    json_number(&channel->json, 0, "offset", &session->offset);
    json_number(&channel->json, 0, "bytes", &session->bytes);
    if (session->offset > run->reached) {
        run->losses = 0;
        run->reached = session->offset;
    }
    return 0;
}

static int request(struct run *run, enum channel_type type, struct fault *fault)
{
    return channel_send(run->channel, type, NULL, 0, fault) ||
                   channel_answer(run->channel, type | CHANNEL_ANSWER, &run->context->report, fault)
               ? -1
               : 0;
}

static int send_chunk(struct run *run, int fd, uint64_t offset, size_t count, struct fault *fault)
{
    static char payload[8 + CHUNK_BYTES];

    for (unsigned i = 0; i < 8; i++)
        payload[i] = (char)(offset >> (8 * i));
    if (pread(fd, payload + 8, count, (off_t)offset) != (ssize_t)count)
        return fault_system(fault, OUTCOME_FAILED, "cannot read the package");
    return channel_send(run->channel, CHANNEL_WRITE, payload, 8 + count, fault);
}

static uint64_t written(const struct channel *channel)
{
    uint64_t offset = 0;

    for (unsigned i = 8; i-- > 0;)
        offset = offset << 8 | (unsigned char)channel->frame.payload[i];
    return offset;
}

// From the offset that the host told. What it refuses on the way is noticed on the way.
static int send_from(struct run *run, int fd, struct fault *fault)
{
    struct report *report = &run->context->report;
    const struct session *session = &run->session;
    uint64_t offset = session->offset, there = offset;

    report_progress(report, "sending", offset, session->bytes);
    while (there < session->bytes) {
        uint64_t left = session->bytes - offset;
        if (left == 0 || channel_ready(run->channel)) {
            if (channel_answer(run->channel, CHANNEL_WRITTEN, report, fault))
                return -1;
            there = written(run->channel);
            run->losses = 0;
            continue;
        }
        size_t count = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        if (send_chunk(run, fd, offset, count, fault))
            return -1;
        offset += count;
        report_progress(report, "sending", offset, session->bytes);
    }
    return 0;
}

static int send_payload(struct run *run, struct fault *fault)
{
    struct context *context = run->context;
    const struct session *session = &run->session;
    const struct manifest *manifest = &context->manifest;
    char path[PATH_BYTES];

    if (session->payload >= manifest->monitor_count || session->offset > session->bytes ||
        session->bytes != manifest->monitor[session->payload].payload.bytes)
        return fault_set(fault, OUTCOME_NO_HOST, "what answers does not keep to the protocol");
    if (session->offset == session->bytes)
        return 0;
    if (package_path(context, manifest->monitor[session->payload].payload.file, path, fault))
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", path);
    int result = send_from(run, fd, fault);
    close(fd);
    return result;
}

// ---- Steps -------------------------------------------------------------------------------------

static bool is_phase(const struct run *run, const char *phase)
{
    return strcmp(run->session.phase, phase) == 0;
}

// Up to VALIDATED, or what the host already knows beyond it.
static int reach_validated(struct run *run, struct fault *fault)
{
    bool sending = is_phase(run, "offered") || is_phase(run, "receiving");

    if (sending && send_payload(run, fault))
        return -1;
    if (!sending && !is_phase(run, "validating"))
        return 0;
    report_line(&run->context->report, "Strake validates the update");
    if (request(run, CHANNEL_FINISH, fault))
        return -1;
    note(run->context, "validated", "");
    return 0;
}

static int install_extensions(struct context *context, struct fault *fault)
{
    if (context->state.phase >= PHASE_COMMITTING)
        return 0;
    if (enter(context, PHASE_INSTALLING, fault) || install_all(context, fault)) {
        // Also what failed for other reasons than the package's.
        fault->outcome = OUTCOME_NOT_INSTALLED;
        return -1;
    }
    note(context, "installed", "");
    return enter(context, PHASE_COMMITTING, fault);
}

// The phase of the host is then one of those that follow COMMIT.
static int commit(struct run *run, struct fault *fault)
{
    if (is_phase(run, "committed"))
        return 0;
    report_line(&run->context->report, "Strake commits the update");
    return request(run, CHANNEL_COMMIT, fault);
}

static void print_number(struct report *report, const struct json *json, unsigned result,
                         const char *name)
{
    uint64_t number;

    if (report->json && json_number(json, result, name, &number))
        printf(",\"%s\":%llu", name, (unsigned long long)number);
}

static void print_seconds(const struct json *json, unsigned result)
{
    unsigned value = json_member(json, result, "seconds");

    if (value && json->values[value].kind == JSON_NUMBER)
        printf(",\"seconds\":%.*s", (int)(json->values[value].end - json->values[value].start),
               json->text + json->values[value].start);
}

// What COMMITTED says, or the result in SESSION.
static void tell_committed(struct run *run)
{
    struct report *report = &run->context->report;
    const struct json *json = &run->channel->json;
    const struct state *state = &run->context->state;
    unsigned result = json_member(json, 0, "result");
    uint64_t blackout_ns = 0, partitions = 0;
    char old[VERSION_MAX_BYTES];
    struct sysinfo info = {.uptime = 0};

    sysinfo(&info);
    if (!json_string(json, result, "old", old, sizeof(old)))
        snprintf(old, sizeof(old), "%s", state->old);
    bool known = json_number(json, result, "blackout_ns", &blackout_ns) &&
                 json_number(json, result, "partitions", &partitions);
    if (report->json) {
        fputs("{\"event\":\"committed\",\"old\":", stdout);
        json_print(stdout, old);
        fputs(",\"new\":", stdout);
        json_print(stdout, state->version);
        print_number(report, json, result, "partitions");
        print_number(report, json, result, "blackout_ns");
        print_seconds(json, result);
        printf(",\"uptime_seconds\":%ld}\n", info.uptime);
        return;
    }
    report_line(report, "Strake %s is replaced by %s", old, state->version);
    if (known)
        report_line(report, "%llu partition%s ran on; the longest stood still for %.1f ms",
                    (unsigned long long)partitions, partitions == 1 ? "" : "s",
                    (double)blackout_ns / 1e6);
    report_line(report, "this guest has been up for %ld s", info.uptime);
}

static int done(struct context *context, struct fault *fault)
{
    context->state = (struct state){.phase = PHASE_IDLE};
    if (state_save(&context->state, context->folder, fault))
        return -1;
    package_drop(context);
    return 0;
}

// dpkg runs us, and must end before it can be told: a process that outlives us waits for that.
static int register_later(struct context *context, struct fault *fault)
{
    fflush(NULL);
    pid_t child = fork();

    if (child != 0)
        return child < 0 ? fault_system(fault, OUTCOME_FAILED, "cannot start a process") : 0;
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    struct fault why;
    if (install_register(context, &why) == 0 && done(context, &why) == 0)
        _exit(0);
    state_log(context->folder, "unregistered", context->state.version, why.message);
    _exit(1);
}

static int tidy_up(struct context *context, struct fault *fault)
{
    if (install_keep(context, fault))
        return -1;
    if (!install_registers(context))
        return done(context, fault);
    if (context->nested)
        return register_later(context, fault);
    return install_register(context, fault) ? -1 : done(context, fault);
}

// It is committed, and nothing that fails in the guest takes it back any more.
static int finish(struct context *context, struct fault *fault)
{
    struct fault why;

    if (enter(context, PHASE_REGISTERING, &why) == 0 && tidy_up(context, &why) == 0)
        return 0;
    note(context, "untidy", why.message);
    return fault_set(fault, OUTCOME_UNFINISHED,
                     "Strake is updated; `strake-update resume` is yet to tidy up: %.400s",
                     why.message);
}

// One connection, as far as it goes.
static int go_on(struct run *run, struct fault *fault)
{
    struct context *context = run->context;
    struct state *state = &context->state;

    if (say_hello(context, run->channel, fault) || offer(run, fault))
        return -1;
    if (is_phase(run, "rolled-back")) {
        if (state->phase == PHASE_COMMITTING) {
            char why[300] = "it does not say why";
            const struct json *json = &run->channel->json;
            json_string(json, json_member(json, 0, "result"), "why", why, sizeof(why));
            return fault_set(fault, OUTCOME_ROLLED_BACK, "Strake went back to %s: %s", state->old,
                             why);
        }
        // Of an earlier attempt: forgotten, so that it can be made again.
        if (request(run, CHANNEL_WITHDRAW, fault) || offer(run, fault))
            return -1;
    }
    run->patient = true;
    if (reach_validated(run, fault))
        return -1;
    if (state->no_commit && state->phase == PHASE_SENDING && !is_phase(run, "committed")) {
        report_line(&context->report,
                    "Strake has validated %s; nothing is installed or committed. The same "
                    "again without --no-commit goes on.",
                    state->version);
        return 0;
    }
    if (install_extensions(context, fault) || commit(run, fault))
        return -1;
    tell_committed(run);
    note(context, "committed", "");
    return finish(context, fault);
}

// ---- What goes wrong ---------------------------------------------------------------------------

// Is it worth another connection, or another OFFER?
static bool may_recover(struct run *run, const struct fault *fault)
{
    if (fault->outcome == OUTCOME_NO_HOST)
        return run->patient;
    if (fault->outcome != OUTCOME_REFUSED)
        return false;
    switch (fault->refusal) {
    case REFUSAL_BUSY:  // the host may not have noticed yet that our last connection has ended
    case REFUSAL_OUT_OF_ORDER:
    case REFUSAL_NO_SESSION:
    case REFUSAL_NOT_VALIDATED:
    case REFUSAL_TOO_SLOW:
        return run->patient;
    case REFUSAL_HOST:  // of an OFFER: of a session that we know to be there
        return run->patient && run->channel->session == 0;
    default:
        return false;
    }
}

// Tries until it is done, there is no hope, or the host has given us no session for too long.
static int run_through(struct run *run, struct fault *fault)
{
    struct context *context = run->context;
    uint64_t heard = seconds_now();

    for (;;) {
        int result = channel_open(run->channel, context->host, context->wait_s, fault);
        if (result == 0)
            result = go_on(run, fault);
        channel_close(run->channel);
        if (result == 0 || !may_recover(run, fault))
            return result;
        if (run->channel->session != 0) {
            heard = seconds_now();
            run->losses++;
        }
        if (seconds_now() - heard > context->wait_s || run->losses > LOSSES_MAX)
            return -1;
        nap(run->losses < 5 ? 50u << run->losses : 1000);
    }
}

// The host may know nothing of a session any more, or may not answer: it ends it by itself, then.
static void withdraw_from_host(struct run *run)
{
    struct fault ignored;

    if (channel_open(run->channel, run->context->host, run->context->wait_s, &ignored) == 0 &&
        say_hello(run->context, run->channel, &ignored) == 0 && offer(run, &ignored) == 0)
        request(run, CHANNEL_WITHDRAW, &ignored);
    channel_close(run->channel);
}

// The end of an update for which there is a fault to be told.
static int end_failed(struct context *context, struct fault *fault)
{
    struct fault why;

    if (done(context, &why))
        *fault = why;
    return -1;
}

// Puts the guest's part back, as the state says why; leaves that in fault.
static int restore(struct run *run, struct fault *fault)
{
    struct context *context = run->context;
    struct state *state = &context->state;
    struct fault why;

    if (install_restore(context, &why)) {
        note(context, "not-restored", why.message);
        return fault_set(fault, OUTCOME_UNFINISHED,
                         "%.200s; and the guest's part could not be put back: "
                         "%.200s",
                         state->why, why.message);
    }
    withdraw_from_host(run);
    fault_set(fault, state->outcome, "%s", state->why);
    note(context, state->outcome == OUTCOME_ROLLED_BACK ? "rolled-back" : "withdrawn", state->why);
    return end_failed(context, fault);
}

static int give_up(struct run *run, struct fault *fault)
{
    struct context *context = run->context;
    struct state *state = &context->state;

    if (state->phase == PHASE_IDLE || state->phase == PHASE_REGISTERING)
        return -1;
    if (may_recover(run, fault)) {
        note(context, "interrupted", fault->message);
        struct fault why = *fault;
        return fault_set(fault, OUTCOME_UNFINISHED, "%.400s; `strake-update resume` goes on later",
                         why.message);
    }
    if (state->phase == PHASE_SENDING) {
        note(context, "refused", fault->message);
        return end_failed(context, fault);
    }
    if (fault->refusal == REFUSAL_ROLLED_BACK)
        fault->outcome = OUTCOME_ROLLED_BACK;
    state->outcome = fault->outcome;
    snprintf(state->why, sizeof(state->why), "%s", fault->message);
    if (enter(context, PHASE_RESTORING, fault))
        return -1;
    return restore(run, fault);
}

static int run_phase(struct context *context, bool patient, struct fault *fault)
{
    struct channel *channel = malloc(sizeof(*channel));
    struct run run = {.context = context, .channel = channel, .patient = patient};
    int result;

    if (!channel)
        return fault_system(fault, OUTCOME_FAILED, "cannot begin");
    channel->fd = -1;
    if (context->state.phase == PHASE_REGISTERING)
        result = finish(context, fault);
    else if (context->state.phase == PHASE_RESTORING)
        result = restore(&run, fault);
    else
        result = run_through(&run, fault) ? give_up(&run, fault) : 0;
    free(channel);
    return result;
}

// ---- Commands ----------------------------------------------------------------------------------

int apply(struct context *context, struct fault *fault)
{
    struct state *state = &context->state;
    bool begun = state->phase != PHASE_IDLE;

    // What is only to be tidied up is none of the user's business any more.
    if (state->phase == PHASE_RESTORING || state->phase == PHASE_REGISTERING) {
        if (package_load(context, fault))
            return -1;
        run_phase(context, true, fault);
        if (state->phase != PHASE_IDLE)
            return -1;
        begun = false;
    }
    if (package_fetch(context, context->place, fault))
        return -1;
    snprintf(state->version, sizeof(state->version), "%s", context->manifest.version);
    state->no_commit = context->no_commit;
    if (!begun) {
        note(context, "applied", context->place);
        state->phase = PHASE_SENDING;
    }
    if (enter(context, state->phase, fault))
        return -1;
    return run_phase(context, begun && state->phase != PHASE_SENDING, fault);
}

int resume(struct context *context, struct fault *fault)
{
    const struct state *state = &context->state;

    if (state->phase == PHASE_IDLE || (state->no_commit && state->phase == PHASE_SENDING)) {
        report_line(&context->report, "there is nothing to go on with");
        return 0;
    }
    report_line(&context->report, "the update to %s goes on: %s", state->version,
                phase_name(state->phase));
    note(context, "resumed", phase_name(state->phase));
    return package_load(context, fault) ? -1 : run_phase(context, true, fault);
}

static int withdraw_all(struct run *run, struct fault *fault)
{
    struct context *context = run->context;
    struct fault ignored;
    bool known = package_load(context, &ignored) == 0;

    if (install_restore(context, fault))
        return -1;
    // A session that cannot be named any more the host ends by itself.
    if (known)
        withdraw_from_host(run);
    note(context, "withdrawn", "by the user");
    return done(context, fault);
}

int withdraw(struct context *context, struct fault *fault)
{
    struct channel *channel = malloc(sizeof(*channel));
    struct run run = {.context = context, .channel = channel};
    struct state *state = &context->state;
    int result = -1;

    if (!channel)
        return fault_system(fault, OUTCOME_FAILED, "cannot begin");
    if (state->phase >= PHASE_COMMITTING)
        fault_set(fault, OUTCOME_BUSY,
                  "cannot withdraw the update to %s: it is %s, and `strake-update "
                  "resume` brings it to its end",
                  state->version, phase_name(state->phase));
    else if (state->phase == PHASE_IDLE)
        result = fault_set(fault, OUTCOME_FAILED, "there is no update to withdraw");
    else
        result = withdraw_all(&run, fault);
    free(channel);
    return result;
}

// ---- Status ------------------------------------------------------------------------------------

static void tell_guest(const struct state *state)
{
    if (state->phase != PHASE_IDLE)
        printf("in this guest: %s, to %s\n", phase_name(state->phase), state->version);
    else
        printf("in this guest: no update is under way\n");
}

static void tell_host(const struct json *json)
{
    char version[VERSION_MAX_BYTES] = "", phase[24] = "";
    unsigned session = json_member(json, 0, "session"), last = json_member(json, 0, "last");

    json_string(json, 0, "version", version, sizeof(version));
    printf("Strake beneath: %s\n", version);
    if (json_string(json, session, "phase", phase, sizeof(phase)) &&
        json_string(json, session, "version", version, sizeof(version)))
        printf("its session: %s, to %s\n", phase, version);
    if (json_string(json, last, "phase", phase, sizeof(phase)) &&
        json_string(json, last, "version", version, sizeof(version)))
        printf("its last update: %s, to %s\n", phase, version);
}

int status(struct context *context, struct fault *fault)
{
    struct channel *channel = malloc(sizeof(*channel));
    struct run run = {.context = context, .channel = channel};

    if (!channel)
        return fault_system(fault, OUTCOME_FAILED, "cannot begin");
    if (!context->report.json)
        tell_guest(&context->state);
    int result = channel_open(channel, context->host, context->wait_s, fault) ||
                 say_hello(context, channel, fault) || request(&run, CHANNEL_STATUS, fault);
    if (result == 0 && context->report.json) {
        printf("{\"guest\":{\"phase\":\"%s\",\"version\":", phase_name(context->state.phase));
        json_print(stdout, context->state.version);
        printf("},\"host\":%s}\n", channel->frame.payload);
    } else if (result == 0) {
        tell_host(&channel->json);
    }
    channel_close(channel);
    free(channel);
    return result ? -1 : 0;
}

int check(struct context *context, struct fault *fault)
{
    const struct state *state = &context->state;
    struct channel *channel;

    // What dpkg is yet to be told is committed.
    if (state->phase != PHASE_IDLE && state->phase != PHASE_REGISTERING)
        return fault_set(fault, OUTCOME_UNFINISHED,
                         "the update to %s is unfinished: `strake-update resume` goes on with it",
                         state->version);
    channel = malloc(sizeof(*channel));
    if (!channel)
        return fault_system(fault, OUTCOME_FAILED, "cannot begin");
    *context->state.old = 0;
    int result = channel_open(channel, context->host, context->wait_s, fault) ||
                 say_hello(context, channel, fault);
    channel_close(channel);
    free(channel);
    if (result)
        return -1;
    if (version_compare(state->old, context->wanted) < 0)
        return fault_set(fault, OUTCOME_OLDER, "Strake %s runs beneath, which is older than %s",
                         state->old, context->wanted);
    report_line(&context->report, "Strake %s runs beneath", state->old);
    return 0;
}
