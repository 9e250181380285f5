// SPDX-License-Identifier: BSD-2-Clause
// Lifelines: descriptors of an interceptor's process that the monitor of a partition is to hold.
//
// The supervisor has them only until the monitor does: what lives by them is to end with those two
// processes. A monitor that hands over has been answered, and passes them on, or it has not, and
// its successor is asked again.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/leverage_internal.h"

#define AGAIN_MS 20u

struct hold {
    struct list link;
    struct interception *interception;  // NULL: its process is gone
    struct registry *registry;
    uint64_t id;
    char partition[STORE_NAME_MAX + 1], name[STORE_NAME_MAX + 1];
    int fd;      // -1: the monitor is to let go
    bool asked;  // the monitor's answer is to come
    struct loop_timer *again;
};

static void hold_free(struct hold *hold)
{
    list_remove(&hold->link);
    loop_timer_close(hold->again);
    if (hold->fd >= 0)
        close(hold->fd);
    free(hold);
}

static void answer(struct hold *hold, const struct error *err)
{
    struct interception *interception = hold->interception;
    struct link *link =
        interception && interception->child ? child_link(interception->child) : NULL;
    if (link && err)
        link_fail(link, hold->id, err);
    else if (link)
        link_reply(link, hold->id, NULL, NULL);
    hold_free(hold);
}

static void ask_monitor(void *opaque);

static void on_held(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct hold *hold = opaque;
    (void)result, (void)fds;
    hold->asked = false;
    // It has handed over, or is gone: which of them shows next time.
    if (err && err->code == -ECONNRESET && hold->interception)
        loop_timer_start(hold->again, AGAIN_MS);
    else
        answer(hold, err);
}

static void ask_monitor(void *opaque)
{
    struct hold *hold = opaque;
    const struct entry *entry = registry_find_name(hold->registry, hold->partition);
    struct process *process = entry ? entry->process : NULL;
    struct descriptors fds = {.count = hold->fd >= 0,
                              .list = {{.name = "lifeline", .fd = hold->fd}}};
    struct error err;
    if (!process && hold->fd < 0) {
        answer(hold, NULL);
    } else if (!process) {
        error_set(&err, -ESRCH, "partition \"%s\" does not run", hold->partition);
        answer(hold, &err);
    } else if (process_is_handed_over(process)) {
        loop_timer_start(hold->again, AGAIN_MS);
    } else {
        hold->asked = true;
        process_request(process, "hold", json_pack("{s:s}", "name", hold->name), &fds, on_held,
                        hold);
    }
}

// `fd` is taken, also on failure.
static int hold_begin(struct interception *interception, uint64_t id, const char *partition, int fd)
{
    struct registry *registry = interception->leverage->registry;
    struct hold *hold = calloc(1, sizeof(*hold));
    int rc = hold ? loop_timer_create(registry_loop(registry), ask_monitor, hold, &hold->again)
                  : -ENOMEM;
    if (rc < 0) {
        if (fd >= 0)
            close(fd);
        free(hold);
        return rc;
    }
    hold->interception = interception;
    hold->registry = registry;
    hold->id = id;
    hold->fd = fd;
    snprintf(hold->partition, sizeof(hold->partition), "%s", partition);
    snprintf(hold->name, sizeof(hold->name), "%s", interception->definition.name);
    list_append(&interception->holds, &hold->link);
    ask_monitor(hold);
    return 0;
}

void interception_hold(struct interception *interception, uint64_t id, json_t *message,
                       struct descriptors *fds)
{
    const char *partition = json_string_value(json_object_get(message, "partition"));
    struct error err;
    int rc = partition && interceptor_definition_names(&interception->definition, partition)
                 ? hold_begin(interception, id, partition, descriptors_take(fds, "lifeline"))
                 : -EINVAL;
    if (rc == 0)
        return;
    error_set_errno(&err, rc, "cannot have a lifeline held");
    link_fail(child_link(interception->child), id, &err);
}

void interception_let_go(struct interception *interception)
{
    const struct interceptor_definition *definition = &interception->definition;
    for (size_t i = 0; i < definition->module_count; i++)
        (void)!hold_begin(interception, 0, definition->modules[i].partition, -1);
}

void interception_forget_holds(struct interception *interception)
{
    LIST_FOR_EACH(&interception->holds, node)
    {
        struct hold *hold = BASE_CONTAINER_OF(node, struct hold, link);
        list_remove(&hold->link);
        hold->interception = NULL;
        if (!hold->asked)
            hold_free(hold);
    }
}
