// SPDX-License-Identifier: BSD-2-Clause
// Handing a partition from one monitor to another, as its supervisor does it: it starts the new
// one, connects the two, and waits for what they say. They do the work (monitor/handover.h), and
// who owns the partition is decided between them by the status page, also when nobody is left to
// say so.
//
// What can be: the new one says that it runs the guest: it is the partition's monitor from now on.
// The old one says that it goes on, and why: the new one is ended. One is gone, or silent for too
// long: the new one is ended unless it owns the partition, then the old one finds that out and says
// so; an old one that is silent then, too, is ended.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/process.h"
#include "supervisor/program.h"

#define SECOND_WAIT_MS 10000u  // for the other one, after one was ended
#define RETIRE_WAIT_MS 60000u  // for disk I/O that the old one has under way

struct handover {
    struct process *process;  // NULL: it is told, or the process is destroyed
    unsigned answers;         // to come: it is freed with the last
    struct child *successor;
    struct loop_timer *timer;
    uint32_t epoch;
    bool second_wait;
    bool old_gone, new_gone;
    int old_status;
    struct error why;  // the first failure
    link_done *done;
    void *opaque;
};

struct retired {
    struct list node;
    struct process *process;
    struct child *child;
    struct loop_timer *timer;
};

// Once its process is told, or gone, a handover only waits for the answers that are still to come.
static void free_if_over(struct handover *handover)
{
    if (!handover->process && handover->answers == 0)
        free(handover);
}

static void answered(struct handover *handover)
{
    handover->answers--;
    free_if_over(handover);
}

// ---- Monitors that are no partition's any more --------------------------------------------------

static void retired_free(struct retired *retired, bool kill)
{
    list_remove(&retired->node);
    loop_timer_close(retired->timer);
    if (kill)
        child_end(retired->child, 0);
    else
        child_destroy(retired->child);
    free(retired);
}

static void on_retire_late(void *opaque)
{
    struct retired *retired = opaque;
    child_kill(retired->child);
}

static void retire(struct process *process, struct child *child, unsigned patience_ms)
{
    struct retired *retired = calloc(1, sizeof(*retired));
    if (!retired ||
        loop_timer_create(process->loop, on_retire_late, retired, &retired->timer) < 0) {
        free(retired);
        child_end(child, 0);
        return;
    }
    retired->process = process;
    retired->child = child;
    list_append(&process->retired, &retired->node);
    if (patience_ms == 0)
        child_kill(child);
    else
        loop_timer_start(retired->timer, patience_ms);
}

// ---- Outcomes -----------------------------------------------------------------------------------

// Ends the handover for its process. It is not to be used any more.
static void finish(struct handover *handover, json_t *result, const struct error *err)
{
    struct process *process = handover->process;
    loop_timer_close(handover->timer);
    handover->process = NULL;
    process->handover = NULL;
    process->busy++;
    if (handover->done)
        handover->done(handover->opaque, result, NULL, err);
    if (--process->busy == 0 && process->destroyed)
        free(process);
    free_if_over(handover);
}

static void succeed(struct handover *handover, json_t *result)
{
    struct process *process = handover->process;
    struct child *old = process->child;
    process->child = handover->successor;
    handover->successor = NULL;
    if (handover->old_gone)
        child_destroy(old);
    else
        retire(process, old, RETIRE_WAIT_MS);
    if (process->events.replaced)
        process->events.replaced(process->events.opaque);
    if (handover->process)
        finish(handover, result, NULL);
}

// The old monitor is gone, and the new one has not said that it runs the guest: from here on it
// cannot, or it has begun to and is gone, too.
static void revoke_ownership(const struct handover *handover)
{
    struct status_page *page;
    if (status_page_open(&page, handover->process->status_fd, NULL) < 0)
        return;
    (void)!status_page_move_owner(page, handover->epoch, OWNER_REVOKE);
    status_page_close(page);
}

static void note_failure(struct handover *handover, const struct error *err)
{
    if (handover->why.code == 0)
        handover->why = *err;
}

static bool successor_owns(const struct handover *handover)
{
    struct status_page page;
    process_status(handover->process, &page);
    return atomic_load(&page.owner) == handover->epoch + OWNER_TAKE;
}

static void end_successor(struct handover *handover)
{
    if (handover->new_gone)
        return;
    struct child *successor = handover->successor;
    handover->new_gone = true;
    handover->successor = NULL;
    retire(handover->process, successor, 0);
}

static void fail(struct handover *handover)
{
    struct process *process = handover->process;
    struct error why = handover->why;
    bool lost = handover->old_gone;
    int status = handover->old_status;
    if (handover->successor)
        retire(process, handover->successor, 0);
    handover->successor = NULL;
    if (lost)
        revoke_ownership(handover);
    process->busy++;
    finish(handover, NULL, &why);
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): counters say who still uses it
    if (lost && !process->destroyed) {
        struct child *child = process->child;
        process->child = NULL;
        process_tell_gone(process, status, &why);
        child_destroy(child);
    }
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): counters say who still uses it
    if (--process->busy == 0 && process->destroyed)
        free(process);
}

static void on_late(void *opaque)
{
    struct handover *handover = opaque;
    struct error err;
    error_set(&err, -ETIMEDOUT, "the handover took too long");
    note_failure(handover, &err);
    if (!handover->second_wait && !successor_owns(handover)) {
        end_successor(handover);
    } else if (handover->second_wait) {
        // Nobody says that he runs the guest.
        end_successor(handover);
        if (!handover->old_gone)
            child_kill(handover->process->child);
    }
    handover->second_wait = true;
    loop_timer_start(handover->timer, SECOND_WAIT_MS);
}

// ---- What they say ------------------------------------------------------------------------------

static void on_adopted(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    struct handover *handover = opaque;
    (void)fds;
    if (handover->process && result) {
        succeed(handover, result);
    } else if (handover->process) {
        note_failure(handover, err);
        // The old one is told by the peer's end, and tells us.
        end_successor(handover);
        if (handover->old_gone)
            fail(handover);
    }
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): counters say who still uses it
    answered(handover);
}

static void on_given(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct handover *handover = opaque;
    (void)fds;
    // A connection that ended says nothing: what has become of the process is told by its end.
    if (handover->process && !result && err->code != -ECONNRESET) {
        // What the old one says is why the partition is still there.
        handover->why = *err;
        fail(handover);
    }
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): counters say who still uses it
    answered(handover);
}

void process_other_gone(struct process *process, struct child *child)
{
    struct handover *handover = process->handover;
    LIST_FOR_EACH(&process->retired, node)
    {
        struct retired *retired = BASE_CONTAINER_OF(node, struct retired, node);
        if (retired->child == child) {
            retired_free(retired, false);
            return;
        }
    }
    // Its unanswered request has failed before, and with it the handover: unless it was answered.
    if (handover && handover->successor == child)
        end_successor(handover);
}

bool process_handover_lost_old(struct process *process, int status)
{
    struct handover *handover = process->handover;
    if (!handover)
        return false;
    struct error err;
    error_set(&err, -ECHILD, "the old monitor ended");
    note_failure(handover, &err);
    handover->old_gone = true;
    handover->old_status = status;
    if (handover->new_gone)
        fail(handover);
    // Else the new one may have all that it needs, and will say so.
    return true;
}

// ---- The beginning ------------------------------------------------------------------------------

static int connect_peers(struct handover *handover, struct error *err)
{
    struct process *process = handover->process;
    struct descriptors to_old = {0}, to_new = {0};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, -errno, "cannot connect two monitors");
    (void)!descriptors_add(&to_old, "peer", ends[0]);
    (void)!descriptors_add(&to_new, "peer", ends[1]);
    (void)!descriptors_add(&to_new, "former", pidfd_open(process_pid(process), 0));
    handover->answers = 2;
    link_request(child_link(handover->successor), "adopt",
                 json_pack("{s:s*}", "fault", process->new_fault), &to_new, on_adopted, handover);
    link_request(child_link(process->child), "handover",
                 json_pack("{s:s*}", "fault", process->old_fault), &to_old, on_given, handover);
    descriptors_close(&to_old);
    descriptors_close(&to_new);
    return 0;
}

static int handover_begin(struct process *process, int binary_fd, unsigned timeout_ms,
                          struct error *err)
{
    struct handover *handover = process->handover;
    const struct child_events events = process_child_events(process);
    struct status_page page;
    process_status(process, &page);
    handover->epoch = atomic_load(&page.owner);
    int rc = loop_timer_create(process->loop, on_late, handover, &handover->timer);
    if (rc < 0)
        return error_set_errno(err, rc, "no timer");
    int program_fd = binary_fd < 0 ? -1 : program_seal(binary_fd, err);
    if (binary_fd >= 0 && program_fd < 0)
        return program_fd;
    rc = child_spawn(&handover->successor, process->loop, &child_monitor, program_fd, process->name,
                     process->run_dir, &events, err);
    if (program_fd >= 0)
        close(program_fd);
    if (rc < 0)
        return rc;
    loop_timer_start(handover->timer, timeout_ms);
    return connect_peers(handover, err);
}

bool process_is_handed_over(const struct process *process)
{
    return process->handover;
}

void process_handover_faults(struct process *process, const char *old_fault, const char *new_fault)
{
    process->old_fault = old_fault;
    process->new_fault = new_fault;
}

int process_handover(struct process *process, int binary_fd, unsigned timeout_ms, link_done *done,
                     void *opaque, struct error *err)
{
    if (process->handover)
        return error_set(err, -EBUSY, "partition \"%s\" is being handed over", process->name);
    if (!process->child || process->ended || process->started || !process->name)
        return error_set(err, -ESRCH, "partition \"%s\" does not run",
                         process->name ? process->name : "");
    struct handover *handover = calloc(1, sizeof(*handover));
    if (!handover)
        return error_set(err, -ENOMEM, "no memory");
    handover->process = process;
    process->handover = handover;
    int rc = handover_begin(process, binary_fd, timeout_ms, err);
    if (rc < 0) {
        process->handover = NULL;
        loop_timer_close(handover->timer);
        child_end(handover->successor, 0);
        free(handover);
        return rc;
    }
    handover->done = done;
    handover->opaque = opaque;
    return 0;
}

size_t process_handover_children(const struct process *process, int *pidfds, size_t most)
{
    size_t count = 0;
    if (process->handover && process->handover->successor && count < most)
        pidfds[count++] = child_pidfd(process->handover->successor);
    LIST_FOR_EACH(&process->retired, node)
    if (count < most)
        pidfds[count++] = child_pidfd(BASE_CONTAINER_OF(node, struct retired, node)->child);
    return count;
}

void process_handover_drop(struct process *process, bool kill)
{
    struct handover *handover = process->handover;
    if (handover) {
        process->handover = NULL;
        handover->process = NULL;
        loop_timer_close(handover->timer);
        struct error why;
        error_set(&why, -ECANCELED, "the partition was let go of");
        if (handover->done)
            handover->done(handover->opaque, NULL, NULL, &why);
        // Answers that are still to come come now, as failures.
        struct child *successor = handover->successor;
        handover->answers++;
        if (kill)
            child_end(successor, 0);
        else
            child_destroy(successor);
        answered(handover);
    }
    LIST_FOR_EACH(&process->retired, node)
    retired_free(BASE_CONTAINER_OF(node, struct retired, node), kill);
}
