// SPDX-License-Identifier: BSD-2-Clause
// The event loop over libuv. What it adds: closing without callbacks (libuv frees a handle a turn
// later, so a handle here outlives its close until then), a call onto the loop's thread that waits,
// and a stop that any thread may ask for and that is never lost.
//
// Wakes are eventfds, not libuv's uv_async_t: there the loop's thread spins until the sender has
// left uv_async_send, and where both share a processor the sender does not get it meanwhile (seen
// to take milliseconds).
//
// Threading invariant: `uv` and everything hung on it is touched only by the thread in loop_run,
// or, while `running` is false, by whoever holds `lock`. `lock` guards `running`, `thread` and
// `calls`.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#include "base/base.h"

struct loop {
    uv_loop_t uv;
    struct loop_wake *doorbell;  // rung for `calls` and `stop`
    pthread_mutex_t lock;        // recursive: an inline loop_call may make another
    pthread_cond_t call_done;
    struct list calls;    // of struct loop_pending_call
    struct list handles;  // of struct loop_handle, open ones
    pthread_t thread;
    bool running;
    atomic_bool stop;
    struct {
        uv_prepare_t prepare;  // called before each wait
        uv_idle_t idle;        // while it is active, libuv looks for events and does not sleep
        uint64_t at_most_ns, ns;
        uint64_t waits_from_ns;  // when there was nothing more to do
        bool fired;              // there were events since
        uint64_t waited_ns;      // for the first of them
    } polling;
};

// A call that waits on its caller's stack.
struct loop_pending_call {
    struct list link;
    void (*fn)(void *opaque);
    void *opaque;
    bool done;
};

// Watch, wake and timer are one struct: they differ in the libuv handle alone.
struct loop_handle {
    struct list link;
    struct loop *loop;
    void (*fn)(void *opaque);
    void (*watch_fn)(void *opaque, unsigned events);
    void *opaque;
    int event_fd;      // of a wake, else -1
    atomic_bool rung;  // since the loop has last looked
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_timer_t timer;
    } uv;
};

static void loop_do_calls(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    while (!list_empty(&loop->calls)) {
        struct loop_pending_call *call =
            BASE_CONTAINER_OF(loop->calls.next, struct loop_pending_call, link);
        list_remove(&call->link);
        pthread_mutex_unlock(&loop->lock);
        call->fn(call->opaque);
        pthread_mutex_lock(&loop->lock);
        call->done = true;
        pthread_cond_broadcast(&loop->call_done);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void doorbell_rung(void *opaque)
{
    struct loop *loop = opaque;
    loop_do_calls(loop);
    if (atomic_load(&loop->stop))
        uv_stop(&loop->uv);
}

// ---- Polling ------------------------------------------------------------------------------------

// A descriptor is ready.
static void event(struct loop *loop)
{
    if (!loop->polling.at_most_ns || loop->polling.fired)
        return;
    loop->polling.fired = true;
    loop->polling.waited_ns = clock_monotonic_ns() - loop->polling.waits_from_ns;
}

static void polls(uv_idle_t *idle)
{
    (void)idle;
}

static void before_wait(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    uint64_t now_ns = clock_monotonic_ns();
    if (loop->polling.fired) {
        loop->polling.ns = thread_adapt_polling(loop->polling.ns, loop->polling.waited_ns,
                                                loop->polling.at_most_ns);
        loop->polling.waits_from_ns = now_ns;
        loop->polling.fired = false;
    }
    if (now_ns - loop->polling.waits_from_ns < loop->polling.ns)
        uv_idle_start(&loop->polling.idle, polls);
    else
        uv_idle_stop(&loop->polling.idle);
}

void loop_set_polling(struct loop *loop, uint64_t at_most_ns)
{
    loop->polling.at_most_ns = at_most_ns;
    loop->polling.ns = 0;
    uv_idle_stop(&loop->polling.idle);
    if (at_most_ns)
        uv_prepare_start(&loop->polling.prepare, before_wait);
    else
        uv_prepare_stop(&loop->polling.prepare);
}

// ---- The loop -----------------------------------------------------------------------------------

int loop_create(struct loop **out, struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return error_set_errno(err, -ENOMEM, "cannot create an event loop");
    int rc = uv_loop_init(&loop->uv);
    if (rc < 0) {
        free(loop);
        return error_set_errno(err, rc, "cannot create an event loop");
    }
    list_init(&loop->calls);
    list_init(&loop->handles);
    uv_prepare_init(&loop->uv, &loop->polling.prepare);  // neither of the two fails
    uv_idle_init(&loop->uv, &loop->polling.idle);
    loop->polling.prepare.data = loop;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&loop->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    pthread_cond_init(&loop->call_done, NULL);
    rc = loop_wake_create(loop, doorbell_rung, loop, &loop->doorbell);
    if (rc < 0) {
        loop_destroy(loop);
        return error_set_errno(err, rc, "cannot create an event loop");
    }
    *out = loop;
    return 0;
}

static void handle_free(struct loop_handle *handle)
{
    if (handle->event_fd >= 0)
        close(handle->event_fd);
    free(handle);
}

static void handle_freed(uv_handle_t *uv)
{
    handle_free(uv->data);
}

static void handle_close(struct loop_handle *handle)
{
    if (!handle)
        return;
    list_remove(&handle->link);
    uv_close(&handle->uv.any, handle_freed);
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    LIST_FOR_EACH(&loop->handles, node)
    handle_close(BASE_CONTAINER_OF(node, struct loop_handle, link));
    uv_close((uv_handle_t *)&loop->polling.prepare, NULL);
    uv_close((uv_handle_t *)&loop->polling.idle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);  // lets libuv finish the closes
    uv_loop_close(&loop->uv);
    pthread_cond_destroy(&loop->call_done);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void loop_run(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->running = true;
    loop->thread = pthread_self();
    pthread_mutex_unlock(&loop->lock);

    while (!atomic_load(&loop->stop))
        uv_run(&loop->uv, UV_RUN_DEFAULT);

    // Whoever queued a call before `running` fell waits for it; later ones run theirs inline.
    pthread_mutex_lock(&loop->lock);
    loop_do_calls(loop);
    loop->running = false;
    atomic_store(&loop->stop, false);
    pthread_mutex_unlock(&loop->lock);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    loop_wake_signal(loop->doorbell);
}

void loop_call(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    pthread_mutex_lock(&loop->lock);
    if (loop->running && pthread_equal(loop->thread, pthread_self())) {
        pthread_mutex_unlock(&loop->lock);
        fn(opaque);
        return;
    }
    if (!loop->running) {
        fn(opaque);
        pthread_mutex_unlock(&loop->lock);
        return;
    }
    struct loop_pending_call call = {.fn = fn, .opaque = opaque};
    list_append(&loop->calls, &call.link);
    loop_wake_signal(loop->doorbell);
    while (!call.done)
        pthread_cond_wait(&loop->call_done, &loop->lock);
    pthread_mutex_unlock(&loop->lock);
}

static struct loop_handle *handle_new(struct loop *loop, void *opaque)
{
    struct loop_handle *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return NULL;
    handle->loop = loop;
    handle->opaque = opaque;
    handle->event_fd = -1;
    return handle;
}

// Ends a constructor: `rc` is what libuv's init said.
static int handle_finish(struct loop_handle *handle, int rc, struct loop_handle **out)
{
    if (rc < 0) {
        handle_free(handle);
        return rc;
    }
    handle->uv.any.data = handle;
    list_append(&handle->loop->handles, &handle->link);
    *out = handle;
    return 0;
}

// ---- Watches ------------------------------------------------------------------------------------

static void watch_fired(uv_poll_t *poll, int status, int events)
{
    struct loop_handle *handle = poll->data;
    unsigned set = 0;
    event(handle->loop);
    if (status < 0)
        set = LOOP_READABLE | LOOP_WRITABLE;
    if (events & (UV_READABLE | UV_DISCONNECT))
        set |= LOOP_READABLE;
    if (events & UV_WRITABLE)
        set |= LOOP_WRITABLE;
    handle->watch_fn(handle->opaque, set);
}

int loop_watch_create(struct loop *loop, int fd, unsigned events,
                      void (*fn)(void *opaque, unsigned events), void *opaque,
                      struct loop_watch **out)
{
    struct loop_handle *handle = handle_new(loop, opaque);
    if (!handle)
        return -ENOMEM;
    handle->watch_fn = fn;
    int rc = handle_finish(handle, uv_poll_init(&loop->uv, &handle->uv.poll, fd), &handle);
    if (rc < 0)
        return rc;
    *out = (struct loop_watch *)handle;
    loop_watch_set(*out, events);
    return 0;
}

void loop_watch_set(struct loop_watch *watch, unsigned events)
{
    struct loop_handle *handle = (struct loop_handle *)watch;
    int set =
        (events & LOOP_READABLE ? UV_READABLE : 0) | (events & LOOP_WRITABLE ? UV_WRITABLE : 0);
    // Neither fails for an initialised, open handle.
    if (set)
        uv_poll_start(&handle->uv.poll, set, watch_fired);
    else
        uv_poll_stop(&handle->uv.poll);
}

void loop_watch_close(struct loop_watch *watch)
{
    handle_close((struct loop_handle *)watch);
}

// ---- Wakes --------------------------------------------------------------------------------------

static void wake_fired(uv_poll_t *poll, int status, int events)
{
    struct loop_handle *handle = poll->data;
    eventfd_t count;
    (void)status;
    (void)events;
    event(handle->loop);
    (void)!eventfd_read(handle->event_fd, &count);
    // An exchange: it reads what happened before a signal that found `rung` set.
    (void)atomic_exchange(&handle->rung, false);
    handle->fn(handle->opaque);
}

int loop_wake_create(struct loop *loop, void (*fn)(void *opaque), void *opaque,
                     struct loop_wake **out)
{
    struct loop_handle *handle = handle_new(loop, opaque);
    if (!handle)
        return -ENOMEM;
    handle->fn = fn;
    handle->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int rc = handle->event_fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = uv_poll_init(&loop->uv, &handle->uv.poll, handle->event_fd);
    rc = handle_finish(handle, rc, &handle);
    if (rc < 0)
        return rc;
    uv_poll_start(&handle->uv.poll, UV_READABLE, wake_fired);
    *out = (struct loop_wake *)handle;
    return 0;
}

void loop_wake_signal(struct loop_wake *wake)
{
    struct loop_handle *handle = (struct loop_handle *)wake;
    if (!atomic_exchange(&handle->rung, true))
        (void)!eventfd_write(handle->event_fd, 1);
}

void loop_wake_close(struct loop_wake *wake)
{
    handle_close((struct loop_handle *)wake);
}

// ---- Timers -------------------------------------------------------------------------------------

static void timer_fired(uv_timer_t *timer)
{
    struct loop_handle *handle = timer->data;
    handle->fn(handle->opaque);
}

int loop_timer_create(struct loop *loop, void (*fn)(void *opaque), void *opaque,
                      struct loop_timer **out)
{
    struct loop_handle *handle = handle_new(loop, opaque);
    if (!handle)
        return -ENOMEM;
    handle->fn = fn;
    int rc = handle_finish(handle, uv_timer_init(&loop->uv, &handle->uv.timer), &handle);
    if (rc == 0)
        *out = (struct loop_timer *)handle;
    return rc;
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms)
{
    struct loop_handle *handle = (struct loop_handle *)timer;
    // libuv counts from the start of the loop's turn, which may be long ago.
    uv_update_time(&handle->loop->uv);
    uv_timer_start(&handle->uv.timer, timer_fired, delay_ms, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&((struct loop_handle *)timer)->uv.timer);
}

void loop_timer_close(struct loop_timer *timer)
{
    handle_close((struct loop_handle *)timer);
}
