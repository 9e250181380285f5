// SPDX-License-Identifier: BSD-2-Clause
// The life of a partition: started, stopped, ended, started again.
//
//             start                 started             ended
//   STOPPED --------> STARTING ----------------> RUNNING ------> STOPPED, FAILED or CRASHED
//      ^                  |                     /  |   ^  ...             |
//      |                  | could not be   stop/   |   | resume           | by policy
//      |                  v               v        v   |                  v
//      |               FAILED       STOPPING     PAUSED              RESTARTING --> STARTING
//
// The monitor's process is let go of in the turn of the loop after the end was told, as that is
// told from inside of it. Only then is what it held free for the next start, and only then do those
// who wait for the end hear of it.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/attach.h"
#include "supervisor/leverage.h"
#include "supervisor/question.h"
#include "supervisor/registry.h"
#include "supervisor/update.h"

#define HANDOVER_TIMEOUT_MS 60000u
#define CID_FIRST 3u  // those before are not for guests
#define ANSWER_TIMEOUT_MS 10000u
#define HEALTHY 60u  // times the first delay: so long a run is a good one, so long the last delay

// Somebody who waits for the end.
struct wait {
    struct list link;
    struct entry *entry;
    struct loop_timer *timer;
    unsigned timeout_ms;
    entry_done *done;
    void *opaque;
};

// Somebody who waits for the monitor's answer.
struct asked {
    struct question question;
    struct entry *entry;
    entry_answer *answer;
    void *opaque;
};

// Somebody who wants the monitor to do something that changes the state.
struct change {
    const char *what;
    enum entry_state state;
    entry_done *done;
    void *opaque;
};

static void answer(entry_done *done, void *opaque, struct entry *entry, const struct error *err)
{
    if (done)
        done(opaque, entry, err);
}

static void refuse(struct entry *entry, const char *what, entry_done *done, void *opaque)
{
    struct error err;
    error_set(&err, -EALREADY, "cannot %s partition \"%s\": it is %s", what, entry->name,
              entry_state_name(entry->state));
    answer(done, opaque, entry, &err);
}

static void set_state(struct entry *entry, enum entry_state state)
{
    struct leverage *leverage = registry_leverage(entry->registry);
    entry->state = state;
    entry->since_ns = clock_realtime_ns();
    if (leverage)
        leverage_tell(leverage, entry);
}

void entry_tell(struct entry *entry, const char *event, json_t *more)
{
    json_t *details = json_pack("{s:s,s:s}", "id", entry->id, "name", entry->name);
    if (details && more)
        json_object_update(details, more);
    json_decref(more);
    if (details)
        events_emit(registry_events(entry->registry), event, details);
}

static bool is_over(const struct entry *entry)
{
    return entry->state == ENTRY_STOPPED || entry->state == ENTRY_FAILED ||
           entry->state == ENTRY_CRASHED;
}

// ---- The end ------------------------------------------------------------------------------------

static void wait_over(struct wait *wait, const struct error *err)
{
    list_remove(&wait->link);
    loop_timer_close(wait->timer);
    answer(wait->done, wait->opaque, wait->entry, err);
    free(wait);
}

static void all_waits_over(struct entry *entry, const struct error *err)
{
    while (!list_empty(&entry->waits))
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list
        wait_over(BASE_CONTAINER_OF(entry->waits.next, struct wait, link), err);
}

static void start_over(struct entry *entry, const struct error *err)
{
    entry_done *done = entry->started;
    entry->started = NULL;
    answer(done, entry->started_opaque, entry, err);
}

static unsigned next_delay_ms(const struct entry *entry)
{
    unsigned first_ms = registry_restart_delay_ms(entry->registry);
    unsigned shift = entry->failures < 6 ? entry->failures : 6;
    return first_ms << shift < first_ms * HEALTHY ? first_ms << shift : first_ms * HEALTHY;
}

static void restart_by_policy(struct entry *entry)
{
    enum definition_restart policy = entry->definition.restart;
    bool failure = entry->state != ENTRY_STOPPED;
    if (!entry->wanted || policy == DEFINITION_NEVER ||
        (policy == DEFINITION_ON_FAILURE && !failure)) {
        entry->wanted = false;
        return;
    }
    unsigned delay_ms = next_delay_ms(entry);
    entry->failures++;
    set_state(entry, ENTRY_RESTARTING);
    loop_timer_start(entry->retry, delay_ms);
    entry_tell(entry, "restarting", json_pack("{s:i}", "delay_ms", (int)delay_ms));
}

// What the end means for the entry, which has no process any more.
static void come_to_end(struct entry *entry, const struct process_end *end, pid_t pid)
{
    static const enum entry_state states[MONITOR_ENDS] = {
        [MONITOR_RUNNING] = ENTRY_STOPPED, [MONITOR_POWEROFF] = ENTRY_STOPPED,
        [MONITOR_REBOOT] = ENTRY_STOPPED,  [MONITOR_FAILED] = ENTRY_FAILED,
        [MONITOR_BROKEN] = ENTRY_FAILED,   [MONITOR_STOPPED] = ENTRY_STOPPED,
        [MONITOR_ERROR] = ENTRY_FAILED,    [MONITOR_CRASHED] = ENTRY_CRASHED,
    };
    uint64_t good_ns = registry_restart_delay_ms(entry->registry) * UINT64_C(1000000) * HEALTHY;
    if (entry->started_ns && clock_monotonic_ns() - entry->started_ns >= good_ns)
        entry->failures = 0;
    json_decref(entry->last_end);
    entry->last_end = report_end(entry, end, pid);
    set_state(entry, states[end->end]);
    entry_tell(entry, entry->state == ENTRY_STOPPED ? "ended" : entry_state_name(entry->state),
               json_deep_copy(entry->last_end));
    attach_wake(entry);
}

static void discard(struct entry *entry)
{
    struct process *dead = entry->dead;
    entry->dead = NULL;
    loop_timer_stop(entry->reap);
    process_destroy(dead, true);
    snapshot_close(entry->snapshot);
    entry->snapshot = NULL;
    supervisor_discard_resources(&entry->definition);
}

static void reap(void *opaque)
{
    struct entry *entry = opaque;
    struct error err;
    if (entry->dead)
        discard(entry);
    restart_by_policy(entry);
    registry_record(entry);
    error_set(&err, -EIO, "partition \"%s\" ended while it started", entry->name);
    start_over(entry, &err);
    all_waits_over(entry, NULL);
}

static void on_ended(void *opaque, const struct process_end *end)
{
    struct entry *entry = opaque;
    pid_t pid = process_pid(entry->process);
    loop_timer_stop(entry->patience);
    if (entry->state == ENTRY_STARTING && end->end == MONITOR_CRASHED)
        registry_lost(entry->registry);  // what starts anew fails by on_started
    entry->dead = entry->process;
    entry->process = NULL;
    come_to_end(entry, end, pid);
    loop_timer_start(entry->reap, 0);
}

// ---- Events of the monitor ----------------------------------------------------------------------

static void on_console(void *opaque)
{
    attach_wake(opaque);
}

static void on_replaced(void *opaque)
{
    (void)opaque;  // entry_handover's answer tells
}

static void on_event(void *opaque, const char *event, json_t *message)
{
    const struct entry *entry = opaque;
    (void)message;
    log_line(LOG_DEBUG, "partition \"%s\": event \"%.40s\"", entry->name, event);
}

static int on_update(void *opaque)
{
    struct entry *entry = opaque;
    struct updates *updates = registry_updates(entry->registry);
    return updates ? updates_connect(updates, entry->name, entry->definition.updates)
                   : -ECONNREFUSED;
}

static int run_dir_of(const struct entry *entry, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s/%s", registry_run_dir(entry->registry), entry->name);
    return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static struct process_config process_config_of(struct entry *entry, const char *run_dir)
{
    return (struct process_config){
        .loop = registry_loop(entry->registry),
        .events = {.console = on_console,
                   .ended = on_ended,
                   .event = on_event,
                   .update = on_update,
                   .replaced = on_replaced,
                   .opaque = entry},
        .run_dir = run_dir,
        .binary_fd = -1,
    };
}

// A mapping of our own: the process takes its own away when it goes.
static void open_console(struct entry *entry, const char *run_dir)
{
    char path[PATH_MAX + 16];
    struct error err;
    snprintf(path, sizeof(path), "%s/console", run_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    console_ring_close(entry->console);
    entry->console = NULL;
    if (fd < 0)
        error_set_errno(&err, -errno, "cannot open \"%s\"", path);
    if (fd < 0 || console_ring_open(&entry->console, fd, false, &err) < 0)
        log_line(LOG_ERROR, "partition \"%s\" has no console: %s", entry->name, err.message);
    if (fd >= 0)
        close(fd);
}

// ---- Starting -----------------------------------------------------------------------------------

static void start_failed(struct entry *entry, const struct error *err)
{
    struct process_end end = {.end = MONITOR_ERROR};
    snprintf(end.why, sizeof(end.why), "%s", err->message);
    entry->wanted &= !entry->started;  // who asked for it is told: no second try
    entry->dead = entry->process;
    entry->process = NULL;
    come_to_end(entry, &end, -1);
    start_over(entry, err);
    loop_timer_start(entry->reap, 0);
}

static void on_start_timeout(void *opaque)
{
    struct entry *entry = opaque;
    struct error err;
    error_set(&err, -ETIMEDOUT, "cannot start partition \"%s\": its monitor does not answer",
              entry->name);
    if (entry->state == ENTRY_STARTING && entry->process)
        start_failed(entry, &err);
}

static void on_started(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    struct entry *entry = opaque;
    (void)result;
    (void)fds;
    if (entry->state != ENTRY_STARTING)
        return;  // it has ended before, or was killed
    loop_timer_stop(entry->patience);
    if (err) {
        start_failed(entry, err);
        return;
    }
    entry->started_ns = clock_monotonic_ns();
    set_state(entry, entry->start_paused ? ENTRY_PAUSED : ENTRY_RUNNING);
    entry_tell(
        entry, "started",
        json_pack("{s:i,s:i}", "run", (int)entry->runs, "pid", (int)process_pid(entry->process)));
    registry_record(entry);
    start_over(entry, NULL);
}

static bool is_cid_taken(const struct entry *entry, uint64_t cid)
{
    LIST_FOR_EACH(registry_entries(entry->registry), node)
    {
        const struct entry *other = BASE_CONTAINER_OF(node, struct entry, link);
        if (other != entry && other->definition.vsock_cid == cid)
            return true;
    }
    return false;
}

// What may update, or has an interceptor's module, has a vsock device, whatever its definition
// says.
static bool needs_vsock(const struct entry *entry)
{
    const struct leverage *leverage = registry_leverage(entry->registry);
    return entry->definition.updates || (entry->from_snapshot && entry->vsock_restored) ||
           (leverage && leverage_names(leverage, entry->name));
}

static int complete_vsock(struct entry *entry, const char *run_dir, struct error *err)
{
    struct definition *definition = &entry->definition;
    char value[PATH_MAX + 32];
    uint64_t cid = CID_FIRST;
    if (!needs_vsock(entry) || definition->vsock_cid)
        return 0;
    while (is_cid_taken(entry, cid))
        cid++;
    snprintf(value, sizeof(value), "%llu,%s/vsock", (unsigned long long)cid, run_dir);
    entry->vsock_chosen = true;
    return definition_set(definition, "vsock", value, err);
}

static int launch(struct entry *entry, struct error *err)
{
    char run_dir[PATH_MAX];
    struct descriptors fds = {0};
    int rc = registry_refresh(entry, err);
    if (rc < 0)
        return rc;
    if (run_dir_of(entry, run_dir) < 0 || (mkdir(run_dir, 0700) < 0 && errno != EEXIST))
        return error_set_errno(err, -errno, "cannot create \"%s\"", run_dir);
    rc = complete_vsock(entry, run_dir, err);
    if (rc == 0)
        rc = supervisor_open_resources(&entry->definition, &fds, err);
    if (rc == 0 && entry->from_snapshot)
        rc = snapshot_add_descriptors(entry->snapshot, &fds, err);
    entry->from_snapshot = false;
    if (rc < 0) {
        descriptors_close(&fds);
        return rc;
    }
    struct process_config config = process_config_of(entry, run_dir);
    rc = process_launch(&entry->process, &config, &entry->definition, &fds, entry->start_paused,
                        on_started, entry, err);
    if (rc < 0) {
        entry->process = NULL;
        supervisor_discard_resources(&entry->definition);
        return rc;
    }
    entry->runs++;
    entry->adopted = false;
    entry->started_ns = 0;
    set_state(entry, ENTRY_STARTING);
    loop_timer_start(entry->patience, registry_start_timeout_ms(entry->registry));
    open_console(entry, run_dir);
    attach_wake(entry);
    return 0;
}

static void launch_failed(struct entry *entry, const struct error *err)
{
    struct process_end end = {.end = MONITOR_ERROR};
    snprintf(end.why, sizeof(end.why), "%s", err->message);
    come_to_end(entry, &end, -1);
    restart_by_policy(entry);
    registry_record(entry);
}

// The policy's next try.
static void retry(void *opaque)
{
    struct entry *entry = opaque;
    struct error err;
    entry->restarts++;
    entry->start_paused = false;
    if (launch(entry, &err) < 0)
        launch_failed(entry, &err);
}

void entry_start(struct entry *entry, bool paused, entry_done *done, void *opaque)
{
    struct error err;
    if (entry->dead) {
        discard(entry);
        all_waits_over(entry, NULL);
    }
    if (!is_over(entry) && entry->state != ENTRY_RESTARTING) {
        refuse(entry, "start", done, opaque);
        return;
    }
    loop_timer_stop(entry->retry);
    entry->failures = 0;
    entry->start_paused = paused;
    entry->wanted = false;
    if (launch(entry, &err) < 0) {
        launch_failed(entry, &err);
        error_prefix(&err, "cannot start partition \"%s\"", entry->name);
        answer(done, opaque, entry, &err);
        return;
    }
    entry->wanted = true;
    entry->started = done;
    entry->started_opaque = opaque;
    registry_record(entry);
}

// ---- Stopping -----------------------------------------------------------------------------------

// There is no run to stop but the one to come.
static void forget_retry(struct entry *entry)
{
    static const char failed[] = "failed", crashed[] = "crashed";
    const char *end = json_string_value(json_object_get(entry->last_end, "end"));
    loop_timer_stop(entry->retry);
    entry->wanted = false;
    set_state(entry, end && strcmp(end, crashed) == 0  ? ENTRY_CRASHED
                     : end && strcmp(end, failed) == 0 ? ENTRY_FAILED
                                                       : ENTRY_STOPPED);
    registry_record(entry);
}

static void on_wait_timeout(void *opaque)
{
    struct wait *wait = opaque;
    struct error err;
    error_set(&err, -ETIMEDOUT, "partition \"%s\" has not ended within %u.%u s (it may be killed)",
              wait->entry->name, wait->timeout_ms / 1000, wait->timeout_ms % 1000 / 100);
    if (wait->entry->state == ENTRY_STOPPING)
        set_state(wait->entry, ENTRY_RUNNING);
    wait_over(wait, &err);
}

static int wait_for_end(struct entry *entry, unsigned timeout_ms, entry_done *done, void *opaque)
{
    struct wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return -ENOMEM;
    *wait = (struct wait){.entry = entry, .timeout_ms = timeout_ms, .done = done, .opaque = opaque};
    int rc = loop_timer_create(registry_loop(entry->registry), on_wait_timeout, wait, &wait->timer);
    if (rc < 0) {
        free(wait);
        return rc;
    }
    list_append(&entry->waits, &wait->link);
    loop_timer_start(wait->timer, timeout_ms);
    return 0;
}

static void on_button(void *opaque, struct entry *entry, json_t *result, const struct error *err)
{
    struct error failed;
    (void)opaque;
    (void)result;
    if (!err || entry->state != ENTRY_STOPPING)
        return;
    failed = *err;
    error_prefix(&failed, "cannot press the power button of partition \"%s\"", entry->name);
    set_state(entry, ENTRY_RUNNING);
    all_waits_over(entry, &failed);
}

void entry_stop(struct entry *entry, unsigned timeout_ms, entry_done *done, void *opaque)
{
    struct error err;
    if (entry->state == ENTRY_RESTARTING) {
        forget_retry(entry);
        answer(done, opaque, entry, NULL);
        return;
    }
    if (entry->state != ENTRY_RUNNING && entry->state != ENTRY_STOPPING) {
        refuse(entry, "stop", done, opaque);
        return;
    }
    int rc = wait_for_end(entry, timeout_ms, done, opaque);
    if (rc < 0) {
        error_set_errno(&err, rc, "cannot stop partition \"%s\"", entry->name);
        answer(done, opaque, entry, &err);
        return;
    }
    entry->wanted = false;
    set_state(entry, ENTRY_STOPPING);
    registry_record(entry);
    entry_ask(entry, "stop", NULL, ANSWER_TIMEOUT_MS, on_button, NULL);
}

void entry_kill(struct entry *entry, entry_done *done, void *opaque)
{
    static const struct process_end killed = {.end = MONITOR_STOPPED, .why = "it was killed"};
    if (entry->state == ENTRY_RESTARTING) {
        forget_retry(entry);
        answer(done, opaque, entry, NULL);
        return;
    }
    if (!entry->process) {
        refuse(entry, "kill", done, opaque);
        return;
    }
    pid_t pid = process_pid(entry->process);
    loop_timer_stop(entry->patience);
    entry->wanted = false;
    entry->dead = entry->process;
    entry->process = NULL;
    come_to_end(entry, &killed, pid);
    reap(entry);
    answer(done, opaque, entry, NULL);
}

struct restart {
    entry_done *done;
    void *opaque;
};

static void on_stopped_to_restart(void *opaque, struct entry *entry, const struct error *err)
{
    struct restart restart = *(struct restart *)opaque;
    free(opaque);
    if (err)
        answer(restart.done, restart.opaque, entry, err);
    else
        entry_start(entry, false, restart.done, restart.opaque);
}

void entry_restart(struct entry *entry, unsigned timeout_ms, entry_done *done, void *opaque)
{
    struct error err;
    if (is_over(entry) || entry->state == ENTRY_RESTARTING) {
        entry_start(entry, false, done, opaque);
        return;
    }
    struct restart *restart = malloc(sizeof(*restart));
    if (!restart) {
        error_set_errno(&err, -ENOMEM, "cannot restart partition \"%s\"", entry->name);
        answer(done, opaque, entry, &err);
        return;
    }
    *restart = (struct restart){.done = done, .opaque = opaque};
    entry_stop(entry, timeout_ms, on_stopped_to_restart, restart);
}

// ---- What the monitor is asked for --------------------------------------------------------------

static void on_answer(struct question *question, json_t *result, const struct error *err)
{
    const struct asked *asked = BASE_CONTAINER_OF(question, struct asked, question);
    asked->answer(asked->opaque, asked->entry, result, err);
}

void entry_ask(struct entry *entry, const char *op, json_t *arguments, unsigned timeout_ms,
               entry_answer *answered, void *opaque)
{
    struct error err;
    struct asked *asked = malloc(sizeof(*asked));
    if (asked)
        *asked = (struct asked){
            .question = {.over = on_answer, .silence = "its monitor does not answer"},
            .entry = entry,
            .answer = answered,
            .opaque = opaque};
    if (!asked ||
        question_begin(&asked->question, registry_loop(entry->registry), timeout_ms) < 0) {
        error_set_errno(&err, -ENOMEM, "cannot ask its monitor");
        json_decref(arguments);
        free(asked);
        answered(opaque, entry, NULL, &err);
        return;
    }
    process_request(entry->process, op, arguments, NULL, question_answered, &asked->question);
}

static void on_changed(void *opaque, struct entry *entry, json_t *result, const struct error *err)
{
    struct change change = *(struct change *)opaque;
    struct error failed;
    (void)result;
    free(opaque);
    if (err) {
        failed = *err;
        error_prefix(&failed, "cannot %s partition \"%s\"", change.what, entry->name);
        answer(change.done, change.opaque, entry, &failed);
        return;
    }
    if (entry->state == ENTRY_RUNNING || entry->state == ENTRY_PAUSED) {
        set_state(entry, change.state);
        entry_tell(entry, change.state == ENTRY_PAUSED ? "paused" : "resumed", NULL);
    }
    answer(change.done, change.opaque, entry, NULL);
}

static void ask_change(struct entry *entry, const char *what, enum entry_state state,
                       entry_done *done, void *opaque)
{
    struct change *change = malloc(sizeof(*change));
    struct error err;
    if (!change) {
        error_set_errno(&err, -ENOMEM, "cannot %s partition \"%s\"", what, entry->name);
        answer(done, opaque, entry, &err);
        return;
    }
    *change = (struct change){.what = what, .state = state, .done = done, .opaque = opaque};
    entry_ask(entry, what, NULL, ANSWER_TIMEOUT_MS, on_changed, change);
}

void entry_pause(struct entry *entry, entry_done *done, void *opaque)
{
    if (entry->state == ENTRY_RUNNING)
        ask_change(entry, "pause", ENTRY_PAUSED, done, opaque);
    else
        refuse(entry, "pause", done, opaque);
}

void entry_resume(struct entry *entry, entry_done *done, void *opaque)
{
    if (entry->state == ENTRY_PAUSED)
        ask_change(entry, "resume", ENTRY_RUNNING, done, opaque);
    else
        refuse(entry, "resume", done, opaque);
}

struct handing {
    struct entry *entry;
    entry_done *done;
    void *opaque;
};

static void on_handed_over(void *opaque, json_t *result, struct descriptors *fds,
                           const struct error *err)
{
    struct handing handing = *(struct handing *)opaque;
    struct entry *entry = handing.entry;
    struct error failed;
    (void)fds;
    free(opaque);
    if (err) {
        failed = *err;
        entry_tell(entry, "handover-failed", json_pack("{s:s}", "why", err->message));
        error_prefix(&failed, "cannot hand partition \"%s\" over", entry->name);
        answer(handing.done, handing.opaque, entry, &failed);
        return;
    }
    entry->handovers++;
    json_decref(entry->last_handover);
    entry->last_handover = json_deep_copy(result);
    if (json_is_object(entry->last_handover))
        json_object_set_new(entry->last_handover, "time", events_time(clock_realtime_ns()));
    entry_tell(entry, "handover", json_deep_copy(entry->last_handover));
    registry_record(entry);
    attach_wake(entry);
    answer(handing.done, handing.opaque, entry, NULL);
}

void entry_handover(struct entry *entry, int binary_fd, entry_done *done, void *opaque)
{
    struct error err;
    if (entry->state != ENTRY_RUNNING && entry->state != ENTRY_PAUSED) {
        refuse(entry, "hand over", done, opaque);
        return;
    }
    struct handing *handing = malloc(sizeof(*handing));
    if (!handing) {
        error_set_errno(&err, -ENOMEM, "cannot hand partition \"%s\" over", entry->name);
        answer(done, opaque, entry, &err);
        return;
    }
    *handing = (struct handing){.entry = entry, .done = done, .opaque = opaque};
    int rc = process_handover(entry->process, binary_fd, HANDOVER_TIMEOUT_MS, on_handed_over,
                              handing, &err);
    if (rc < 0) {
        free(handing);
        error_prefix(&err, "cannot hand partition \"%s\" over", entry->name);
        answer(done, opaque, entry, &err);
    }
}

// ---- A supervisor's start and end ---------------------------------------------------------------

static bool is_own_vsock(const struct entry *entry, const char *vsock)
{
    char path[PATH_MAX], own[PATH_MAX + 8];
    const char *comma = strchr(vsock, ',');
    if (!comma || run_dir_of(entry, path) < 0)
        return false;
    snprintf(own, sizeof(own), "%s/vsock", path);
    return strcmp(comma + 1, own) == 0;
}

static void on_hello(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct entry *entry = opaque;
    (void)fds;
    if (entry->hello) {
        entry->hello = false;
        registry_adopted(entry->registry);
    }
    if (err && err->code != -ECONNRESET)
        registry_lost(entry->registry);
    if (err || entry->state != ENTRY_STARTING)
        return;  // the end is told
    const char *vsock =
        json_string_value(json_object_get(json_object_get(result, "partition"), "vsock"));
    struct error unused;
    // That of its definition may be for the next start only; and it may have none. What is said to
    // have been chosen is to be where it is chosen to be.
    if (vsock && !entry->definition.vsock_cid && is_own_vsock(entry, vsock))
        entry->vsock_chosen = definition_set(&entry->definition, "vsock", vsock, &unused) == 0;
    const char *state = json_string_value(json_object_get(result, "state"));
    bool paused = state && strcmp(state, "paused") == 0;
    entry->wanted = true;
    entry->adopted = true;
    entry->started_ns = clock_monotonic_ns();
    set_state(entry, paused ? ENTRY_PAUSED : ENTRY_RUNNING);
    entry_tell(entry, "adopted", json_pack("{s:i}", "pid", (int)process_pid(entry->process)));
    attach_wake(entry);
}

bool entry_adopt(struct entry *entry)
{
    char run_dir[PATH_MAX];
    struct error err;
    if (run_dir_of(entry, run_dir) < 0)
        return false;
    struct process_config config = process_config_of(entry, run_dir);
    entry->hello = true;
    set_state(entry, ENTRY_STARTING);
    int rc = process_adopt(&entry->process, &config, on_hello, entry, &err);
    if (rc == 0) {
        open_console(entry, run_dir);
        return true;
    }
    if (rc != -ENOENT)
        log_line(LOG_ERROR, "partition \"%s\": %s", entry->name, err.message);
    entry->process = NULL;
    entry->hello = false;
    set_state(entry, ENTRY_STOPPED);
    return false;
}

int entry_init(struct entry *entry, struct registry *registry)
{
    struct loop *loop = registry_loop(registry);
    list_init(&entry->waits);
    list_init(&entry->followers);
    int rc = loop_timer_create(loop, retry, entry, &entry->retry);
    if (rc == 0)
        rc = loop_timer_create(loop, reap, entry, &entry->reap);
    return rc < 0 ? rc : loop_timer_create(loop, on_start_timeout, entry, &entry->patience);
}

void entry_fini(struct entry *entry)
{
    struct error err;
    error_set(&err, -ECANCELED, "the supervisor is ending");
    loop_timer_close(entry->retry);
    loop_timer_close(entry->reap);
    loop_timer_close(entry->patience);
    if (entry->dead)
        process_destroy(entry->dead, true);
    struct process *process = entry->process;
    entry->process = NULL;
    process_destroy(process, false);
    start_over(entry, &err);
    all_waits_over(entry, &err);
    attach_end(entry);
    snapshot_close(entry->snapshot);
    console_ring_close(entry->console);
}
