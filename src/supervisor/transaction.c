// SPDX-License-Identifier: BSD-2-Clause
// Handing all partitions over, or none.
//
// Forward, one after the other, until none is left or one fails; then those that were handed over
// go back, the last first. Each step has a turn of the loop of its own: what has become of a
// partition whose monitor is gone is known by then. One that has ended by itself meanwhile is
// nobody's failure. Partitions are named by their ids in between, as they may be removed.
//
// What somebody else is handing over is waited for, as that ends by itself.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/program.h"
#include "supervisor/transaction.h"

#define BUSY_POLL_MS 20u

enum member_outcome { HANDED_OVER, FAILED, ENDED, RETURNED, KEPT };

struct member {
    struct list link;
    char id[sizeof(((struct entry *)0)->id)], name[STORE_NAME_MAX + 1];
    int former_fd;  // what it ran in before
    enum member_outcome outcome;
    json_int_t blackout_ns, return_blackout_ns;
    struct error why;  // FAILED, KEPT
};

struct transaction {
    struct registry *registry;
    int program_fd;  // sealed
    struct loop_timer *turn;
    struct list members;       // in the order in which they were handed over
    struct member *under_way;  // NULL: none
    struct error why;          // it goes back; code 0: it does not
    bool gathers;              // each by itself, but those that are here
    bool kept, over;
    uint64_t start_ns;
    transaction_done *done;
    void *opaque;
};

// ---- The result ---------------------------------------------------------------------------------

static json_t *describe_member(const struct member *member)
{
    static const char *const names[] = {[HANDED_OVER] = "handed-over",
                                        [FAILED] = "failed",
                                        [ENDED] = "ended",
                                        [RETURNED] = "returned",
                                        [KEPT] = "kept"};
    json_t *object = json_pack("{s:s,s:s,s:s}", "id", member->id, "name", member->name, "outcome",
                               names[member->outcome]);
    if (object && member->blackout_ns)
        json_object_set_new(object, "blackout_ns", json_integer(member->blackout_ns));
    if (object && member->return_blackout_ns)
        json_object_set_new(object, "return_blackout_ns", json_integer(member->return_blackout_ns));
    if (object && member->why.code)
        json_object_set_new(object, "why", json_string(member->why.message));
    return object;
}

static json_t *describe(const struct transaction *transaction, enum transaction_outcome outcome)
{
    static const char *const names[] = {[TRANSACTION_DONE] = "done",
                                        [TRANSACTION_ROLLED_BACK] = "rolled-back",
                                        [TRANSACTION_INCOMPLETE] = "incomplete",
                                        [TRANSACTION_CANCELLED] = "cancelled"};
    json_t *list = json_array();
    json_int_t longest_ns = 0;
    LIST_FOR_EACH(&transaction->members, node)
    {
        const struct member *member = BASE_CONTAINER_OF(node, struct member, link);
        longest_ns = member->blackout_ns > longest_ns ? member->blackout_ns : longest_ns;
        json_array_append_new(list, describe_member(member));
    }
    return json_pack("{s:s,s:s?,s:I,s:I,s:o}", "outcome", names[outcome], "why",
                     transaction->why.code ? transaction->why.message : NULL, "blackout_ns",
                     longest_ns, "duration_ns",
                     (json_int_t)(clock_monotonic_ns() - transaction->start_ns), "partitions",
                     list);
}

static void transaction_free(struct transaction *transaction)
{
    LIST_FOR_EACH(&transaction->members, node)
    {
        struct member *member = BASE_CONTAINER_OF(node, struct member, link);
        list_remove(node);
        if (member->former_fd >= 0)
            close(member->former_fd);
        free(member);
    }
    loop_timer_close(transaction->turn);
    if (transaction->program_fd >= 0)
        close(transaction->program_fd);
    free(transaction);
}

// A handover that is under way answers still; the transaction is freed then.
static void come_to_end(struct transaction *transaction, enum transaction_outcome outcome)
{
    json_t *result = describe(transaction, outcome);
    transaction->over = true;
    registry_set_transaction(transaction->registry, NULL);
    transaction->done(transaction->opaque, outcome, result);
    json_decref(result);
    if (!transaction->under_way)
        transaction_free(transaction);
}

// ---- Forward and back ---------------------------------------------------------------------------

static bool runs(const struct entry *entry)
{
    return entry->state == ENTRY_RUNNING || entry->state == ENTRY_PAUSED;
}

// Whether it runs in this very program.
static bool is_here(const struct entry *entry)
{
    char path[64];
    struct stat monitor, own;
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)process_pid(entry->process));
    return stat(path, &monitor) == 0 && stat("/proc/self/exe", &own) == 0 &&
           monitor.st_dev == own.st_dev && monitor.st_ino == own.st_ino;
}

static json_int_t last_blackout_ns(const struct entry *entry)
{
    return json_integer_value(json_object_get(entry->last_handover, "blackout_ns"));
}

// The member that has answered. NULL: nobody waits for it any more, and the transaction is gone.
static struct member *take_answer(struct transaction *transaction)
{
    struct member *member = transaction->under_way;
    transaction->under_way = NULL;
    if (transaction->over) {
        transaction_free(transaction);
        return NULL;
    }
    loop_timer_start(transaction->turn, 0);
    return member;
}

static void on_handed_over(void *opaque, struct entry *entry, const struct error *err)
{
    struct member *member = take_answer(opaque);
    if (!member)
        return;
    member->outcome = !err ? HANDED_OVER : err->code == -ESRCH ? ENDED : FAILED;
    if (err)
        member->why = *err;
    else
        member->blackout_ns = last_blackout_ns(entry);
}

static void on_handed_back(void *opaque, struct entry *entry, const struct error *err)
{
    struct member *member = take_answer(opaque);
    if (!member)
        return;
    member->outcome = err ? KEPT : RETURNED;
    if (err)
        member->why = *err;
    else
        member->return_blackout_ns = last_blackout_ns(entry);
}

static struct entry *entry_of(const struct transaction *transaction, const struct member *member)
{
    struct entry *entry;
    struct error err;
    return registry_find_id(transaction->registry, member->id, &entry, &err) == 0 ? entry : NULL;
}

static bool is_member(const struct transaction *transaction, const struct entry *entry)
{
    LIST_FOR_EACH(&transaction->members, node)
    if (strcmp(BASE_CONTAINER_OF(node, struct member, link)->id, entry->id) == 0)
        return true;
    return false;
}

static void hand_over(struct transaction *transaction, struct entry *entry)
{
    struct member *member = calloc(1, sizeof(*member));
    struct error err;
    if (!member) {
        error_set_errno(&transaction->why, -ENOMEM, "cannot hand partition \"%s\" over",
                        entry->name);
        if (transaction->gathers)
            come_to_end(transaction, TRANSACTION_INCOMPLETE);
        else
            loop_timer_start(transaction->turn, 0);
        return;
    }
    memcpy(member->id, entry->id, sizeof(member->id));
    memcpy(member->name, entry->name, sizeof(member->name));
    member->former_fd = program_of(process_pid(entry->process), &err);
    list_append(&transaction->members, &member->link);
    transaction->under_way = member;
    if (member->former_fd < 0) {
        error_prefix(&err, "cannot hand partition \"%s\" over", entry->name);
        on_handed_over(transaction, entry, &err);
    } else {
        entry_handover(entry, transaction->program_fd, on_handed_over, transaction);
    }
}

// A failure may be the partition's own end.
static void look_at_failures(struct transaction *transaction)
{
    LIST_FOR_EACH(&transaction->members, node)
    {
        struct member *member = BASE_CONTAINER_OF(node, struct member, link);
        const struct entry *entry = entry_of(transaction, member);
        if (member->outcome != FAILED)
            continue;
        if (entry && entry->state != ENTRY_STOPPED)
            transaction->why = member->why;
        else
            member->outcome = ENDED;
    }
}

static void go_forward(struct transaction *transaction)
{
    LIST_FOR_EACH(registry_entries(transaction->registry), node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (!runs(entry) || is_member(transaction, entry))
            continue;
        if (process_is_handed_over(entry->process))
            loop_timer_start(transaction->turn, BUSY_POLL_MS);
        else if (transaction->gathers && is_here(entry))
            continue;
        else
            hand_over(transaction, entry);
        return;
    }
    come_to_end(transaction, transaction->why.code ? TRANSACTION_INCOMPLETE : TRANSACTION_DONE);
}

static void go_back(struct transaction *transaction)
{
    for (struct list *node = transaction->members.prev; node != &transaction->members;
         node = node->prev) {
        struct member *member = BASE_CONTAINER_OF(node, struct member, link);
        struct entry *entry = entry_of(transaction, member);
        transaction->kept |= member->outcome == KEPT;
        if (member->outcome == HANDED_OVER && entry && runs(entry)) {
            if (process_is_handed_over(entry->process)) {
                loop_timer_start(transaction->turn, BUSY_POLL_MS);
                return;
            }
            transaction->under_way = member;
            entry_handover(entry, member->former_fd, on_handed_back, transaction);
            return;
        }
        if (member->outcome == HANDED_OVER)
            member->outcome = ENDED;
    }
    come_to_end(transaction, transaction->kept ? TRANSACTION_INCOMPLETE : TRANSACTION_ROLLED_BACK);
}

static void on_turn(void *opaque)
{
    struct transaction *transaction = opaque;
    if (!transaction->why.code)
        look_at_failures(transaction);
    if (transaction->why.code && !transaction->gathers)
        go_back(transaction);
    else
        go_forward(transaction);
}

// ---- Begin and end ------------------------------------------------------------------------------

static int begin(struct registry *registry, int program_fd, bool gathers, transaction_done *done,
                 void *opaque, struct error *err)
{
    if (registry_transaction(registry))
        return error_set(err, -EBUSY, "all partitions are being handed over already");
    struct transaction *transaction = calloc(1, sizeof(*transaction));
    if (!transaction)
        return error_set_errno(err, -ENOMEM, "cannot hand all partitions over");
    *transaction = (struct transaction){.registry = registry,
                                        .program_fd = -1,
                                        .gathers = gathers,
                                        .start_ns = clock_monotonic_ns(),
                                        .done = done,
                                        .opaque = opaque};
    list_init(&transaction->members);
    int rc = loop_timer_create(registry_loop(registry), on_turn, transaction, &transaction->turn);
    if (rc < 0)
        error_set_errno(err, rc, "cannot hand all partitions over");
    else if (program_fd >= 0)
        rc = transaction->program_fd = program_seal(program_fd, err);
    if (rc < 0) {
        transaction_free(transaction);
        return rc;
    }
    registry_set_transaction(registry, transaction);
    loop_timer_start(transaction->turn, 0);
    return 0;
}

int transaction_begin(struct registry *registry, int program_fd, transaction_done *done,
                      void *opaque, struct error *err)
{
    return begin(registry, program_fd, false, done, opaque, err);
}

int transaction_gather(struct registry *registry, transaction_done *done, void *opaque,
                       struct error *err)
{
    return begin(registry, -1, true, done, opaque, err);
}

void transaction_cancel(struct transaction *transaction)
{
    if (transaction)
        come_to_end(transaction, TRANSACTION_CANCELLED);
}
