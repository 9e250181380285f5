// SPDX-License-Identifier: BSD-2-Clause
// strake with a kind of interceptors made for leverage.py, which has "files" in its place: what it
// does to the host is the file PATH/mark, with its process's number. While its partition runs
// PATH/lifeline is locked for as long as anybody has its lifeline, and it is active.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "leverage/internal.h"

#define REMOVE_MS 10000u

struct mark {
    struct interceptor *it;
    unsigned reloads;
    int64_t kept;
};

static void path_of(const struct mark *mark, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", mark->it->definition->path, name);
}

static int create(void **out, struct interceptor *it, struct error *err)
{
    struct mark *mark = calloc(1, sizeof(*mark));
    struct descriptors fds = {0};
    if (!mark || access(it->definition->path, F_OK) < 0) {
        free(mark);
        return error_set_errno(err, -errno, "cannot mark \"%s\"", it->definition->path);
    }
    *mark = (struct mark){.it = it, .kept = (int64_t)it->kept.count};
    *out = mark;
    int rc = descriptors_add(&fds, "kept", dup(STDERR_FILENO));
    if (rc == 0)
        rc = interceptor_keep(it, &fds, NULL, NULL);
    descriptors_close(&fds);
    return rc;
}

static void leave_mark(const struct mark *mark)
{
    char path[256];
    path_of(mark, "mark", path);
    FILE *file = fopen(path, "we");
    if (file) {
        fprintf(file, "%d\n", (int)getpid());
        fclose(file);
    }
}

static void hold(struct mark *mark, const char *partition)
{
    char path[256];
    path_of(mark, "lifeline", path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0 ||
        interceptor_hold(mark->it, partition, fd, NULL, NULL) < 0)
        log_line(LOG_ERROR, "no lifeline");
    if (fd >= 0)
        close(fd);
}

static void partition(void *opaque, const struct partition_view *view)
{
    struct mark *mark = opaque;
    leave_mark(mark);
    counter_add(&mark->it->counters.seen, 1);
    if (view->state == PARTITION_UP) {
        counters_latency(&mark->it->counters, 1000);
        hold(mark, view->name);
        interceptor_set_state(mark->it, INTERCEPTOR_ACTIVE, NULL);
    } else {
        interceptor_set_state(mark->it,
                              mark->it->definition->fail == INTERCEPTOR_FAIL_OPEN
                                  ? INTERCEPTOR_BYPASSED
                                  : INTERCEPTOR_SHUT,
                              "partition \"%s\" does not run", view->name);
    }
}

static void reload(void *opaque)
{
    struct mark *mark = opaque;
    mark->reloads++;
    interceptor_event(mark->it, "reloaded", json_pack("{s:i}", "count", (int)mark->reloads));
}

static void undo(void *opaque, interceptor_done *done, void *done_opaque)
{
    const struct mark *mark = opaque;
    char path[256];
    path_of(mark, "mark", path);
    unlink(path);
    done(done_opaque, NULL);
}

static json_t *stats(void *opaque)
{
    const struct mark *mark = opaque;
    return json_pack("{s:I}", "kept", (json_int_t)mark->kept);
}

static const struct interceptor_ops mark_ops = {.kind = "files",
                                                .create = create,
                                                .partition = partition,
                                                .reload = reload,
                                                .remove = undo,
                                                .stats = stats,
                                                .destroy = free};

int strake_main(int argc, char **argv);  // src/cli/main.c's

#undef main
int main(int argc, char **argv)
{
    static const struct interceptor_ops *const kinds[INTERCEPTOR_KINDS] = {[INTERCEPTOR_FILES] =
                                                                               &mark_ops};
    const struct worker_settings settings = {.kinds = kinds, .remove_ms = REMOVE_MS};
    struct error err;
    if (argc < 2 || strcmp(argv[1], "interceptor") != 0)
        return strake_main(argc, argv);
    return worker_run(INTERCEPTOR_CONTROL_FD, &settings, &err) < 0;
}
