// SPDX-License-Identifier: BSD-2-Clause
// A session's work: validating what a guest has sent, and making it what runs.
//
// Validating: a thread unpacks the payload into memory, checks digests and looks at the program;
// then, sealed, that tests itself, and has to be what the manifest says. It is these bytes that are
// executed later.
//
// Committing: a thread makes the slot durable. Then the version is pending, all partitions are
// handed over, and the supervisor executes the program. It confirms itself (update_proof.c);
// whatever goes wrong before that, the old version is current again.
//
// The thread has what it works on for itself, but for the store: update_store_open_program and
// _install may run beside all that the loop's thread does while a session is not over.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/update_internal.h"

#define SELF_TEST_MS 60000u

struct work {
    struct updates *updates;
    uint64_t session;
    bool over;  // the session has ended
    struct package_manifest *manifest;
    unsigned payload;
    char base[UPDATE_VERSION_BYTES];      // the slot of the delta's base; "": none, or it is this
                                          // program
    int payload_fd, base_fd, program_fd;  // the latter is sealed when it is validated
    bool validated;
    struct update_work given;  // committing: as long as the session is not over
    uint64_t start_ns;

    // What the thread does, what is to be done when it is done, and what it says.
    int (*run)(struct work *work);
    void (*then)(struct work *work);
    pthread_t thread;
    bool running;
    struct loop_wake *done;
    int rc;
    struct error why;

    struct program_test *test;
    bool committing;  // until the supervisor goes on as it, or does not
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

// When nothing of it is under way any more.
static void work_free(struct work *work)
{
    if (work->updates->work == work)
        work->updates->work = NULL;
    if (work->running)
        pthread_join(work->thread, NULL);
    program_test_cancel(work->test);
    loop_wake_close(work->done);
    package_manifest_destroy(work->manifest);
    close_fd(&work->payload_fd);
    close_fd(&work->base_fd);
    close_fd(&work->program_fd);
    free(work);
}

void work_ended(void *opaque, uint64_t session)
{
    struct updates *updates = opaque;
    struct work *work = updates->work;
    if (!work || work->session != session)
        return;
    work->over = true;
    if (!work->running && !work->committing)
        work_free(work);
}

bool work_is_under_way(const struct updates *updates)
{
    return updates->work && (updates->work->running || updates->work->committing);
}

void work_cancel(struct updates *updates)
{
    if (updates->work)
        work_free(updates->work);
}

static void refuse(struct work *work, enum update_refusal refusal, const char *why)
{
    // The session may end by this, and the work with it.
    update_service_refuse(work->updates->service, work->session, refusal, why);
}

// ---- The thread ---------------------------------------------------------------------------------

static void *thread_main(void *opaque)
{
    struct work *work = opaque;
    work->rc = work->run(work);
    loop_wake_signal(work->done);
    return NULL;
}

static void on_thread_done(void *opaque)
{
    struct work *work = opaque;
    pthread_join(work->thread, NULL);
    work->running = false;
    if (work->over)
        work_free(work);
    else
        work->then(work);
}

static int thread_begin(struct work *work, int (*run)(struct work *work),
                        void (*then)(struct work *work))
{
    work->run = run;
    work->then = then;
    int rc = -pthread_create(&work->thread, NULL, thread_main, work);
    work->running = rc == 0;
    return rc;
}

// ---- Validating ---------------------------------------------------------------------------------

static enum update_refusal unpack_refusal(int code)
{
    return code == -EBADMSG                     ? UPDATE_REFUSAL_BAD_DIGEST
           : code == -ENOENT                    ? UPDATE_REFUSAL_NO_BASE
           : code == -EFBIG                     ? UPDATE_REFUSAL_TOO_LARGE
           : code == -ENOEXEC                   ? UPDATE_REFUSAL_NO_PROGRAM
           : code == -ENOSPC || code == -EDQUOT ? UPDATE_REFUSAL_NO_SPACE
                                                : UPDATE_REFUSAL_HOST;
}

static int unpack(struct work *work)
{
    int rc = *work->base ? update_store_open_program(work->updates->store, work->base,
                                                     &work->base_fd, &work->why)
                         : 0;
    if (rc == -EBADMSG)  // somebody has changed it; where it is, is not for the guest
        rc = error_set(&work->why, -ENOENT, "the host's version \"%s\" is not what it was",
                       work->base);
    if (rc == 0)
        rc = package_unpack_program(work->manifest, &work->manifest->payloads[work->payload],
                                    work->payload_fd, work->base_fd, work->program_fd,
                                    UPDATE_PROGRAM_BYTES_MAX, &work->why);
    if (rc == 0)
        rc = package_program_check(work->program_fd, &work->why);
    int sealed_fd = rc < 0 ? rc : program_seal(work->program_fd, &work->why);
    if (sealed_fd < 0)
        return sealed_fd;
    close_fd(&work->program_fd);
    work->program_fd = sealed_fd;
    return 0;
}

static bool is_described(const struct package_manifest *manifest, const struct program_facts *facts)
{
    return strcmp(facts->version, manifest->version) == 0 && facts->epoch == manifest->epoch &&
           facts->state_oldest == manifest->state_oldest &&
           facts->state_newest == manifest->state_newest;
}

static void on_tested(void *opaque, const struct program_facts *facts, const struct error *err)
{
    struct work *work = opaque;
    work->test = NULL;
    if (work->over)
        work_free(work);
    else if (err)
        refuse(work, UPDATE_REFUSAL_SELF_TEST, err->message);
    else if (!is_described(work->manifest, facts))
        refuse(work, UPDATE_REFUSAL_SELF_TEST,
               "the program says that it is of another version, epoch or state than the manifest");
    else {
        work->validated = true;
        update_service_validated(work->updates->service, work->session);
    }
}

// Whether the host could not start a program, whatever that is.
static bool is_hosts_fault(int code)
{
    return code == -ENOMEM || code == -EAGAIN || code == -EMFILE || code == -ENFILE;
}

static void on_unpacked(struct work *work)
{
    struct updates *updates = work->updates;
    if (work->rc < 0) {
        refuse(work, unpack_refusal(work->rc), work->why.message);
        return;
    }
    update_service_progress(updates->service, work->session, "the program tests itself");
    int rc = program_test_begin(&work->test, updates->config.loop, work->program_fd, SELF_TEST_MS,
                                on_tested, work, &work->why);
    if (rc < 0)
        refuse(work, is_hosts_fault(rc) ? UPDATE_REFUSAL_HOST : UPDATE_REFUSAL_SELF_TEST,
               work->why.message);
}

// Finds the program that a delta is based on: this one, or a slot's. Neither: the unpacking says
// so.
static int find_base(struct work *work, const struct package_payload *payload, struct error *err)
{
    const struct updates *updates = work->updates;
    struct update_slot *slots;
    size_t count;
    if (!payload->base_version)
        return 0;
    if (strcmp(payload->base_sha256, updates->own_sha256) == 0)
        return work->base_fd = program_of(getpid(), err);
    int rc = update_store_slots(updates->store, &slots, &count, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < count; i++)
        if (strcmp(slots[i].program_sha256, payload->base_sha256) == 0)
            memcpy(work->base, slots[i].version, sizeof(work->base));
    free(slots);
    return 0;
}

static int begin(struct work *work, const struct update_work *given, struct error *err)
{
    int rc = package_manifest_parse(&work->manifest, given->manifest, given->manifest_bytes, err);
    if (rc < 0)
        return rc;
    if (given->payload >= work->manifest->payload_count)
        return error_set(err, -EINVAL, "the manifest has no such payload");
    work->payload = given->payload;
    rc = find_base(work, &work->manifest->payloads[work->payload], err);
    if (rc < 0)
        return rc;
    work->payload_fd = fcntl(update_stage_fd(given->stage), F_DUPFD_CLOEXEC, 0);
    work->program_fd = fd_program_create();
    if (work->payload_fd < 0 || lseek(work->payload_fd, 0, SEEK_SET) < 0 || work->program_fd < 0)
        return error_set_errno(err, -errno, "cannot unpack the program");
    rc = loop_wake_create(work->updates->config.loop, on_thread_done, work, &work->done);
    if (rc == 0)
        rc = thread_begin(work, unpack, on_unpacked);
    return rc < 0 ? error_set_errno(err, rc, "cannot unpack the program") : 0;
}

int work_validate(void *opaque, const struct update_work *given, struct error *err)
{
    struct updates *updates = opaque;
    if (*update_store_state(updates->store)->pending.version)  // which the store changes meanwhile
        return error_set(err, -EBUSY, "the host is going to another version");
    if (updates->work)  // it has failed, and the session is trying again
        work_free(updates->work);
    struct work *work = calloc(1, sizeof(*work));
    if (!work)
        return error_set_errno(err, -ENOMEM, "cannot unpack the program");
    *work = (struct work){.updates = updates,
                          .session = given->session,
                          .payload_fd = -1,
                          .base_fd = -1,
                          .program_fd = -1};
    int rc = begin(work, given, err);
    if (rc < 0)
        work_free(work);
    else
        updates->work = work;
    return rc;
}

// ---- Committing ---------------------------------------------------------------------------------

// All partitions are in the new version; now the supervisor.
static void hand_over_self(struct work *work, const json_t *result)
{
    struct updates *updates = work->updates;
    json_int_t count = 0;
    const json_t *member;
    size_t i;
    json_array_foreach(json_object_get(result, "partitions"), i, member)
    {
        const char *outcome = json_string_value(json_object_get(member, "outcome"));
        count += outcome && strcmp(outcome, "handed-over") == 0;
    }
    json_t *told =
        json_pack("{s:s,s:s,s:I,s:O,s:f}", "old", STRAKE_VERSION, "new", work->manifest->version,
                  "partitions", count, "blackout_ns", json_object_get(result, "blackout_ns"),
                  "seconds", (double)(clock_monotonic_ns() - work->start_ns) / 1e9);
    (void)!last_set(updates, UPDATE_PHASE_COMMITTING, told, NULL);
    // Whatever it hangs in, it is gone then; and the next start goes back.
    alarm(updates->config.confirm_within_s);
    updates->config.reexec(updates->config.opaque, work->program_fd);
}

static void on_handed_over(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    struct work *work = opaque;
    struct updates *updates = work->updates;
    const char *why = json_string_value(json_object_get(result, "why"));
    if (outcome == TRANSACTION_DONE) {
        hand_over_self(work, result);
    } else if (outcome != TRANSACTION_CANCELLED) {
        // Nothing runs in it but what could not be handed back.
        updates_revert(updates, why ? why : "");
        update_service_settled(updates->service);
    }
    work->committing = false;
    if (work->over)
        work_free(work);
}

static int make_pending(struct work *work, struct error *err)
{
    struct updates *updates = work->updates;
    const struct update_work *given = &work->given;
    uint64_t deadline_ns =
        clock_realtime_ns() + updates->config.confirm_within_s * UINT64_C(1000000000);
    int rc = last_begin(updates, given->digest, work->manifest->version, given->partition);
    if (rc < 0)
        error_set_errno(err, rc, "cannot keep what becomes of the update");
    else
        rc = update_store_make_pending(updates->store, work->manifest->version, deadline_ns,
                                       given->digest, err);
    if (rc < 0) {
        last_follow(updates, err->message);
        return rc;
    }
    rc = transaction_begin(updates->config.registry, work->program_fd, on_handed_over, work, err);
    if (rc < 0)
        updates_revert(updates, err->message);
    return rc;
}

// Whether something else is on its way to another version, or a partition cannot be.
static int check_alone(const struct updates *updates, struct error *err)
{
    struct registry *registry = updates->config.registry;
    const struct entry *silent = registry_silent(registry);
    if (registry_transaction(registry) || *update_store_state(updates->store)->pending.version)
        return error_set(err, -EBUSY, "all partitions are being handed over already");
    return silent ? error_set(err, -EBUSY, "partition \"%s\" does not answer", silent->name) : 0;
}

static enum update_refusal commit_refusal(int code)
{
    return code == -EBUSY                       ? UPDATE_REFUSAL_BUSY
           : code == -ENOSPC || code == -EDQUOT ? UPDATE_REFUSAL_NO_SPACE
                                                : UPDATE_REFUSAL_HOST;
}

static void on_installed(struct work *work)
{
    struct updates *updates = work->updates;
    int rc = work->rc;
    updates->listed = false;
    if (rc == 0)
        rc = check_alone(updates, &work->why);  // time has passed
    if (rc == 0)
        rc = make_pending(work, &work->why);
    if (rc == 0)
        return;
    work->committing = false;
    refuse(work, commit_refusal(rc), work->why.message);
}

static int install(struct work *work)
{
    const struct update_work *given = &work->given;
    return update_store_install(work->updates->store, work->program_fd, given->manifest,
                                given->manifest_bytes, given->signature, given->signature_bytes,
                                &work->why);
}

int work_commit(void *opaque, const struct update_work *given, struct error *err)
{
    struct updates *updates = opaque;
    struct work *work = updates->work;
    if (!work || work->session != given->session || !work->validated)
        return error_set(err, -ESRCH, "there is no validated program");
    if (check_alone(updates, err) < 0) {
        refuse(work, UPDATE_REFUSAL_BUSY, err->message);
        return 0;
    }
    work->start_ns = clock_monotonic_ns();
    work->given = *given;
    int rc = thread_begin(work, install, on_installed);
    work->committing = rc == 0;
    return rc < 0 ? error_set_errno(err, rc, "cannot install the program") : 0;
}
