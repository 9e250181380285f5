// SPDX-License-Identifier: BSD-2-Clause
// mount: a disk image, mounted by the kernel of a guest, appears in a folder of the host.
//
// The guest's agent is asked to mount the image (`mount`), and then for a connection to its server
// of files (`serve`); the host's kernel is given a FUSE file system whose requests go there
// (mount_relay.h). Nothing of the image is looked at on the host.
//
// The end, whoever brings it about:
// - somebody unmounts the folder (umount(8), `strake umount`): the kernel has written everything by
//   then; the guest unmounts the image, and the interceptor is over;
// - `remove`: the same, and what is busy loses the file system under its feet;
// - the guest is gone, or silent, or talks nonsense: the kernel fails what is asked of it, the
//   folder is unmounted though it be busy, and the interceptor is over;
// - this process dies: the kernel fails all requests; what stays in the folder until the next
//   process of the interceptor comes (it looks for that first), or somebody unmounts it, is a mount
//   that answers with errors. That process mounts the folder again.
//
// Unmounting writes what is cached, which this process has to relay: another process does it.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leverage/mount_host.h"
#include "leverage/mount_relay.h"

#define BOOT_MS 300000u     // for the guest's agent to be there
#define BOOT_RETRY_MS 20u   // between attempts
#define MOUNT_MS 600000u    // for a journal to be replayed, a key to be derived from a passphrase
#define UNMOUNT_MS 600000u  // for the guest to write what it has cached
#define LEAVE_MS 5000u      // these two within INTERCEPTOR_REMOVE_MS: for the host to unmount,
#define REMOVE_MS 4000u     // and the guest
#define ANSWER_MS 30000u

enum step {
    WAITING,     // for the partition
    ASKING,      // the guest to mount the image
    CONNECTING,  // to its server
    SERVING,     // the host has mounted
    LEAVING,     // the host unmounts
    CLOSING,     // the guest unmounts
    OVER,
};

struct mount {
    struct interceptor *it;
    const struct interceptor_definition *definition;
    enum step step;
    char folder[PATH_MAX];      // where it appears, without symbolic links
    char vsock_path[PATH_MAX];  // of the partition, while it is up
    struct guest_call *call;
    struct loop_timer *retry;
    uint64_t since_ns;  // when the partition came up
    bool guest_has_it;  // it has mounted the image
    bool read_only;     // in fact
    char type[32];
    struct mount_relay *relay;

    int leaver;  // the process that unmounts, while LEAVING
    struct loop_watch *leaver_watch;
    struct loop_timer *patience;

    interceptor_done *removed;  // NULL: nobody waits
    void *removed_opaque;
};

static void ask_to_mount(void *opaque);

// ---- The end ------------------------------------------------------------------------------------

static void forget_call(struct mount *mount)
{
    guest_cancel(mount->call);
    mount->call = NULL;
    if (mount->retry)
        loop_timer_stop(mount->retry);
}

// The host is as it was. `why`: what becomes of it when nobody has asked for its end.
static void finish(struct mount *mount, const char *why)
{
    interceptor_done *removed = mount->removed;
    mount->step = OVER;
    mount->removed = NULL;
    if (removed)
        removed(mount->removed_opaque, NULL);
    else
        interceptor_ended(mount->it, why);
}

static void fail(struct mount *mount, const char *why)
{
    forget_call(mount);
    mount->step = OVER;
    interceptor_set_state(mount->it, INTERCEPTOR_FAILED, "%s", why);
}

// What was written last may not be in the image.
static void tell_of_loss(struct mount *mount, const char *why)
{
    log_line(LOG_ERROR, "\"%s\" at \"%s\": %s", mount->definition->image, mount->folder, why);
    interceptor_event(mount->it, "lost",
                      json_pack("{s:s, s:s}", "directory", mount->folder, "why", why));
}

// The folder is free, but somebody has to know of it.
static void doubt(struct mount *mount, const char *why)
{
    tell_of_loss(mount, why);
    if (mount->removed)
        finish(mount, why);
    else
        fail(mount, why);
}

static void detach(const struct mount *mount)
{
    struct error err;
    if (host_detach(mount->folder, &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
}

static void lose(struct mount *mount, const char *why)
{
    forget_call(mount);
    detach(mount);
    tell_of_loss(mount, why);
    finish(mount, why);
}

// ---- The guest unmounts -------------------------------------------------------------------------

static void guest_has_unmounted(void *opaque, struct guest_answer *answer, const struct error *err)
{
    struct mount *mount = opaque;
    struct error why;
    (void)answer;
    mount->call = NULL;
    if (!err) {
        finish(mount, "it was unmounted");
        return;
    }
    error_set(&why, err->code, "%s", err->message);
    error_prefix(&why, "the guest did not unmount the image");
    doubt(mount, why.message);
}

static void ask_to_unmount(struct mount *mount)
{
    struct guest_request request;
    mount->step = CLOSING;
    mount->guest_has_it = false;
    guest_request_init(&request, "umount");
    mount->call = guest_ask(mount->it->loop, mount->vsock_path, &request,
                            mount->removed ? REMOVE_MS : UNMOUNT_MS, guest_has_unmounted, mount);
    if (!mount->call)
        doubt(mount, "there is no memory to have the image unmounted");
}

// ---- The host unmounts --------------------------------------------------------------------------

// By now it is unmounted, or what was cached is written, or there is no more time.
static void has_left(void *opaque)
{
    struct mount *mount = opaque;
    loop_timer_stop(mount->patience);
    loop_watch_close(mount->leaver_watch);
    mount->leaver_watch = NULL;
    mount_relay_destroy(mount->relay);
    mount->relay = NULL;
    detach(mount);
    ask_to_unmount(mount);
}

static void leaver_ended(void *opaque, unsigned events)
{
    struct mount *mount = opaque;
    (void)events;
    waitid(P_PIDFD, (id_t)mount->leaver, &(siginfo_t){0}, WEXITED);
    has_left(mount);
}

static void begin_to_leave(struct mount *mount)
{
    mount->step = LEAVING;
    pid_t pid = host_unmount_start(mount->folder);
    if (mount->leaver >= 0)
        close(mount->leaver);
    mount->leaver = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (mount->leaver < 0 || loop_watch_create(mount->it->loop, mount->leaver, LOOP_READABLE,
                                               leaver_ended, mount, &mount->leaver_watch) < 0) {
        log_line(LOG_ERROR, "\"%s\" is unmounted at once: no process can be started",
                 mount->folder);
        has_left(mount);
        return;
    }
    loop_timer_start(mount->patience, LEAVE_MS);
}

static void relay_ended(void *opaque, const struct error *err)
{
    struct mount *mount = opaque;
    if (mount->step != SERVING)
        return;  // LEAVING: the process that unmounts gets done now
    if (err) {
        lose(mount, err->message);
        return;
    }
    // It was aborted, if it is still there (umount -f, of what is in use).
    detach(mount);
    ask_to_unmount(mount);
}

// ---- The host mounts ----------------------------------------------------------------------------

static void relay_ready(void *opaque)
{
    struct mount *mount = opaque;
    host_read_ahead(mount->folder);
    interceptor_set_state(mount->it, INTERCEPTOR_ACTIVE,
                          mount->read_only && !mount->definition->read_only
                              ? "the guest's driver can only read this %s file system"
                              : NULL,
                          mount->type);
}

static void server_answered(void *opaque, struct guest_answer *answer, const struct error *err)
{
    static const struct mount_relay_events events = {.ready = relay_ready, .ended = relay_ended};
    struct mount *mount = opaque;
    const struct interceptor_definition *definition = mount->definition;
    struct error why;
    mount->call = NULL;
    if (err) {
        fail(mount, err->message);
        return;
    }
    int fuse_fd = host_mount(definition->image, mount->folder, mount->read_only, &why);
    if (fuse_fd < 0) {
        fail(mount, why.message);
        return;
    }
    int guest_fd = answer->fd;
    answer->fd = -1;
    mount->step = SERVING;
    if (mount_relay_create(&mount->relay, mount->it->loop, fuse_fd, guest_fd,
                           definition->time_limit_ms, &mount->it->counters, &events, mount) < 0)
        lose(mount, "there is no memory for it");
}

static void ask_for_server(struct mount *mount)
{
    struct guest_request request;
    mount->step = CONNECTING;
    guest_request_init(&request, "serve");
    mount->call =
        guest_ask(mount->it->loop, mount->vsock_path, &request, ANSWER_MS, server_answered, mount);
    if (!mount->call)
        fail(mount, "there is no memory to talk with the guest");
}

// ---- The guest mounts ---------------------------------------------------------------------------

// What it says of the file system: type=f2fs read-only=0.
static void take_description(struct mount *mount, const struct guest_answer *answer)
{
    char value[8];
    for (size_t i = 0; i < answer->line_count; i++) {
        if (!guest_line_value(answer->lines[i], "type", mount->type, sizeof(mount->type)))
            snprintf(mount->type, sizeof(mount->type), "unknown");
        mount->read_only |=
            !guest_line_value(answer->lines[i], "read-only", value, sizeof(value)) || *value != '0';
    }
}

// The agent is not there yet; as long as the partition is up that is a matter of time.
static bool is_too_early(const struct mount *mount, const struct error *err)
{
    return err->code != -EREMOTEIO && err->code != -EMSGSIZE &&
           clock_monotonic_ns() - mount->since_ns < BOOT_MS * 1000000ull;
}

static void guest_has_mounted(void *opaque, struct guest_answer *answer, const struct error *err)
{
    struct mount *mount = opaque;
    mount->call = NULL;
    if (!err) {
        mount->guest_has_it = true;
        take_description(mount, answer);
        ask_for_server(mount);
    } else if (is_too_early(mount, err)) {
        loop_timer_start(mount->retry, BOOT_RETRY_MS);
        interceptor_set_state(mount->it, INTERCEPTOR_STARTING,
                              "the guest of \"%s\" has not mounted the image yet: %s",
                              mount->definition->modules[0].partition, err->message);
    } else {
        fail(mount, err->message);
    }
}

static void add_words(struct guest_request *request, const struct mount *mount)
{
    const struct interceptor_definition *definition = mount->definition;
    guest_request_init(request, "mount");
    guest_request_add(request, "disk", "%u", definition->disk);
    if (definition->part)
        guest_request_add(request, "part", "%u", definition->part);
    if (definition->type)
        guest_request_add(request, "type", "%s", definition->type);
    if (definition->read_only)
        guest_request_add(request, "read-only", "1");
}

static void ask_to_mount(void *opaque)
{
    struct mount *mount = opaque;
    struct guest_request request;
    struct error err = {-ENOMEM, "there is no memory to talk with the guest"};
    char *passphrase = NULL;
    size_t bytes;
    mount->step = ASKING;
    add_words(&request, mount);
    if (mount->definition->passphrase_file) {
        if (guest_payload_read(mount->definition->passphrase_file, &passphrase, &bytes, &err) < 0) {
            fail(mount, err.message);
            return;
        }
        guest_request_payload(&request, passphrase, bytes);
    }
    mount->call =
        guest_ask(mount->it->loop, mount->vsock_path, &request, MOUNT_MS, guest_has_mounted, mount);
    if (passphrase)
        explicit_bzero(passphrase, bytes);
    free(passphrase);
    if (!mount->call)
        fail(mount, err.message);
}

// ---- The kind -----------------------------------------------------------------------------------

static void destroy(void *kind)
{
    struct mount *mount = kind;
    forget_call(mount);
    mount_relay_destroy(mount->relay);
    if (mount->step == SERVING || mount->step == LEAVING)
        detach(mount);
    loop_watch_close(mount->leaver_watch);
    if (mount->leaver >= 0)
        close(mount->leaver);
    loop_timer_close(mount->retry);
    loop_timer_close(mount->patience);
    free(mount);
}

static int create(void **out, struct interceptor *it, struct error *err)
{
    const struct interceptor_definition *definition = it->definition;
    struct mount *mount = calloc(1, sizeof(*mount));
    if (!mount)
        return error_set_errno(err, -ENOMEM, "cannot mount \"%s\"", definition->image);
    *mount = (struct mount){
        .it = it, .definition = definition, .read_only = definition->read_only, .leaver = -1};
    int rc = 0;
    if (!realpath(definition->directory, mount->folder))
        rc = error_set_errno(err, -errno, "cannot mount at \"%s\"", definition->directory);
    else if (loop_timer_create(it->loop, ask_to_mount, mount, &mount->retry) < 0 ||
             loop_timer_create(it->loop, has_left, mount, &mount->patience) < 0)
        rc = error_set_errno(err, -ENOMEM, "cannot mount \"%s\"", definition->image);
    if (rc < 0)
        destroy(mount);
    else
        *out = mount;
    return rc;
}

static void partition_came(struct mount *mount, const struct partition_view *view)
{
    struct error err;
    if (!view->vsock_path) {
        error_set(&err, -ENODEV, "partition \"%s\" has no vsock device", view->name);
        fail(mount, err.message);
        return;
    }
    snprintf(mount->vsock_path, sizeof(mount->vsock_path), "%s", view->vsock_path);
    mount->since_ns = clock_monotonic_ns();
    interceptor_set_state(mount->it, INTERCEPTOR_STARTING, NULL);
    ask_to_mount(mount);
}

static void partition_went(struct mount *mount, const struct partition_view *view)
{
    struct error err;
    mount->guest_has_it = false;
    switch (mount->step) {
    case ASKING:
    case CONNECTING:
        error_set(&err, -ECONNRESET, "the guest of \"%s\" has ended before it mounted the image",
                  view->name);
        fail(mount, err.message);
        break;
    case SERVING:
        mount_relay_destroy(mount->relay);
        mount->relay = NULL;
        lose(mount, "the guest is gone");
        break;
    case CLOSING:
        forget_call(mount);
        doubt(mount, "the guest was gone before it had unmounted the image");
        break;
    default:
        break;  // LEAVING: the relay notices
    }
}

static void partition(void *kind, const struct partition_view *view)
{
    struct mount *mount = kind;
    bool left = mount->step == WAITING && host_remove_stale(mount->folder);
    if (mount->step == WAITING && view->state == PARTITION_UP)
        partition_came(mount, view);
    else if (left)
        finish(mount, "its processes and its guest were gone");
    else if (mount->step == WAITING)
        interceptor_set_state(mount->it, INTERCEPTOR_STARTING, "partition \"%s\" does not run",
                              view->name);
    else if (view->state == PARTITION_DOWN)
        partition_went(mount, view);
}

static void remove_mount(void *kind, interceptor_done *done, void *opaque)
{
    struct mount *mount = kind;
    mount->removed = done;
    mount->removed_opaque = opaque;
    switch (mount->step) {
    case SERVING:
        begin_to_leave(mount);
        break;
    case LEAVING:
    case CLOSING:
        break;  // it is about to be over
    default:
        forget_call(mount);
        host_remove_stale(mount->folder);
        if (mount->guest_has_it)
            ask_to_unmount(mount);
        else
            finish(mount, "");
    }
}

static json_t *stats(void *kind)
{
    const struct mount *mount = kind;
    return json_pack("{s:s, s:b}", "type", mount->type, "read-only", mount->read_only);
}

const struct interceptor_ops mount_ops = {
    .kind = "mount",
    // To mount, to enter others' folders, and to read the file with the passphrase. The process of
    // an ordinary user has none of them, and has fusermount3, which is set-uid, do it.
    .capabilities = 1ull << CAP_SYS_ADMIN | 1ull << CAP_DAC_OVERRIDE,
    .gains_rights = true,
    .create = create,
    .partition = partition,
    .remove = remove_mount,
    .stats = stats,
    .destroy = destroy,
};
