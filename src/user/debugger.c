// SPDX-License-Identifier: BSD-2-Clause
// The program as what GDB debugs (gdb/gdb.h): one GDB thread a thread, by its id.
//
// The server is two threads that have a table of descriptors of their own, so that the program
// finds none in its own that it has not opened, and closes none of ours: one waits for the
// debugger, the other for the program. Both block all signals, and are none of the program's. The
// session is theirs under `session_lock`, which is taken before the process' lock.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "user/debug.h"

static void lock(struct user_debug *debug)
{
    pthread_mutex_lock(&debug->process->lock);
}

static void unlock(struct user_debug *debug)
{
    pthread_mutex_unlock(&debug->process->lock);
}

#define FOR_EACH_THREAD(debug, node) LIST_FOR_EACH(&(debug)->process->threads, node)

static struct user_thread *thread_at(struct list *node)
{
    return BASE_CONTAINER_OF(node, struct user_thread, node);
}

// Where one ends the process others may have to wait for that.
static void wait_for_all(struct user_debug *debug)
{
    while (!user_debug_all_wait(debug->process) && debug->end != USER_DEBUG_ENDS)
        pthread_cond_wait(&debug->changed, &debug->process->lock);
}

// ---- Threads ------------------------------------------------------------------------------------

// Threads are there as long as the program is stopped. One that begins has no number yet.
static struct user_thread *find_thread(struct user_debug *debug, uint64_t id)
{
    struct user_thread *found = NULL;

    lock(debug);
    FOR_EACH_THREAD(debug, node)
    if (id && (uint64_t)thread_at(node)->traced.id == id)
        found = thread_at(node);
    unlock(debug);
    return found;
}

static uint64_t next_thread(void *opaque, uint64_t after)
{
    struct user_debug *debug = opaque;
    uint64_t next = 0;

    lock(debug);
    FOR_EACH_THREAD(debug, node)
    {
        uint64_t id = (uint64_t)thread_at(node)->traced.id;
        if (id > after && (!next || id < next))
            next = id;
    }
    unlock(debug);
    return next;
}

static struct hart *hart_of(void *opaque, uint64_t id)
{
    const struct user_thread *thread = find_thread(opaque, id);
    return thread ? thread->traced.hart : NULL;
}

static bool is_busy(void *opaque, uint64_t id)
{
    const struct user_thread *thread = find_thread(opaque, id);
    return thread && thread->traced.calls;
}

static void describe_thread(void *opaque, uint64_t id, char *text, size_t capacity)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%d/comm", (int)id);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fd_read_full(fd, name, sizeof(name) - 1) < 0)
        name[0] = 0;
    if (fd >= 0)
        close(fd);
    name[strcspn(name, "\n")] = 0;
    snprintf(text, capacity, "%s%s", name, is_busy(opaque, id) ? ", in a system call" : "");
}

// ---- Memory -------------------------------------------------------------------------------------

// Addresses of checked programs carry identifiers.
static uint64_t gva_of(const struct user_debug *debug, uint64_t pointer)
{
    return debug->process->watch ? memory_pointer_gva(pointer) : pointer;
}

// How many of these bytes are the program's, whatever it may do with them.
static size_t mapped_bytes(const struct user_debug *debug, uint64_t gva, size_t count)
{
    size_t done = 0;
    while (done < count && gva + done < HART_FLAT_BYTES &&
           atomic_load(&debug->process->space.pages[(gva + done) / USER_PAGE_BYTES]))
        done += USER_PAGE_BYTES - (gva + done) % USER_PAGE_BYTES;
    return done < count ? done : count;
}

// By the host's file of our memory, through which also what the program may not write is written,
// and a page that vanishes is an error.
static size_t read_memory(void *opaque, uint64_t id, uint64_t pointer, void *bytes, size_t count)
{
    const struct user_debug *debug = opaque;
    uint64_t gva = gva_of(debug, pointer), hva = (uintptr_t)debug->process->space.hva + gva;

    (void)id;
    int64_t got = fd_pread_full(debug->memory_fd, bytes, mapped_bytes(debug, gva, count), hva);
    return got < 0 ? 0 : (size_t)got;
}

static size_t write_memory(void *opaque, uint64_t id, uint64_t pointer, const void *bytes,
                           size_t count)
{
    struct user_debug *debug = opaque;
    uint64_t gva = gva_of(debug, pointer), hva = (uintptr_t)debug->process->space.hva + gva;

    (void)id;
    ssize_t put = pwrite(debug->memory_fd, bytes, mapped_bytes(debug, gva, count), (off_t)hva);
    user_process_fence(debug->process, HART_FENCE_I);  // it may be code
    return put < 0 ? 0 : (size_t)put;
}

// ---- Breakpoints --------------------------------------------------------------------------------

static int change_breakpoint(void *opaque, uint64_t gva, bool add)
{
    struct user_debug *debug = opaque;
    unsigned at = 0;
    int rc = 0;

    lock(debug);
    while (at < debug->breakpoint_count && debug->breakpoints[at] != gva)
        at++;
    if (add && at == HART_BREAKPOINTS)
        rc = -ENOSPC;
    else if (add && at == debug->breakpoint_count)
        debug->breakpoints[debug->breakpoint_count++] = gva;
    else if (!add && at < debug->breakpoint_count)
        debug->breakpoints[at] = debug->breakpoints[--debug->breakpoint_count];
    debug->generation++;
    unlock(debug);
    return rc;
}

// ---- Stopping and going on ----------------------------------------------------------------------

static void stop(void *opaque)
{
    struct user_debug *debug = opaque;

    lock(debug);
    debug->running = false;
    user_debug_stop_all(debug->process);
    wait_for_all(debug);
    unlock(debug);
}

// What its hart finds again when it goes on need not be told.
static void forget(struct user_thread *thread)
{
    thread->traced.hit = false;
    thread->traced.hart->breakpoint_pc = 1;  // none
}

static struct user_thread *take_hit(struct user_debug *debug)
{
    FOR_EACH_THREAD(debug, node)
    {
        struct user_thread *thread = thread_at(node);
        if (thread->traced.hit) {
            thread->traced.hit = false;
            return thread;
        }
    }
    return NULL;
}

static bool report(void *opaque)
{
    struct user_debug *debug = opaque;
    struct gdb_stop what = {0};
    char *said = NULL;

    lock(debug);
    struct user_thread *thread = take_hit(debug);
    if (thread) {
        wait_for_all(debug);
        debug->running = false;
        said = thread->traced.said;
        thread->traced.said = NULL;
        what = (struct gdb_stop){(uint64_t)thread->traced.id,
                                 (unsigned)thread->traced.info.si_signo, said};
    }
    unlock(debug);
    if (thread)
        gdb_session_stopped(debug->session, &what);
    free(said);
    return thread;
}

static void act_on(struct user_thread *thread, const struct gdb_action *actions, size_t count)
{
    struct user_traced *traced = &thread->traced;
    size_t i = 0;

    while (i < count && actions[i].thread && actions[i].thread != (uint64_t)thread->traced.id)
        i++;
    traced->held = i == count;
    traced->step = i < count && actions[i].step;
    if (i < count && actions[i].signal && !traced->calls)
        traced->deliver = actions[i].signal;
}

// What stopped together with what was told, and does not come again by itself, is told now.
static void resume(void *opaque, const struct gdb_action *actions, size_t count)
{
    struct user_debug *debug = opaque;
    bool more = false;

    lock(debug);
    FOR_EACH_THREAD(debug, node)
    {
        struct user_thread *thread = thread_at(node);
        act_on(thread, actions, count);
        if (thread->traced.hit && thread->traced.again)
            forget(thread);
        more = more || thread->traced.hit;
    }
    debug->stopped = more;
    debug->running = !more;
    pthread_cond_broadcast(&debug->changed);
    unlock(debug);
    if (more)
        report(debug);
}

static void let_go(void *opaque)
{
    struct user_debug *debug = opaque;

    lock(debug);
    debug->breakpoint_count = 0;
    debug->generation++;
    FOR_EACH_THREAD(debug, node)
    {
        struct user_thread *thread = thread_at(node);
        struct user_traced *traced = &thread->traced;
        if (traced->hit && !traced->again && traced->info.si_signo != SIGTRAP)
            traced->deliver = (unsigned)traced->info.si_signo;
        traced->held = traced->step = traced->hit = false;
    }
    debug->stopped = false;
    debug->running = true;
    pthread_cond_broadcast(&debug->changed);
    unlock(debug);
}

static void kill_program(void *opaque)
{
    (void)opaque;
    kill(getpid(), SIGKILL);
}

static void pass(void *opaque, uint64_t signals)
{
    struct user_debug *debug = opaque;

    lock(debug);
    debug->passed = signals;
    unlock(debug);
}

static int object(void *opaque, uint64_t id, const char *name, const void **bytes, size_t *count)
{
    struct user_debug *debug = opaque;
    const struct user_process *process = debug->process;
    const struct user_thread *thread = find_thread(debug, id);

    if (strcmp(name, "auxv") == 0) {
        *bytes = process->auxv;
        *count = process->auxv_words * sizeof(process->auxv[0]);
    } else if (strcmp(name, "exec-file") == 0 && process->exe) {
        *bytes = process->exe;
        *count = strlen(process->exe);
    } else if (strcmp(name, "siginfo") == 0 && thread) {
        debug->info = thread->traced.info;
        *bytes = &debug->info;
        *count = sizeof(debug->info);
    } else {
        return -ENOENT;
    }
    return 0;
}

static const struct gdb_target target = {
    .next_thread = next_thread,
    .describe_thread = describe_thread,
    .hart = hart_of,
    .is_busy = is_busy,
    .read = read_memory,
    .write = write_memory,
    .breakpoint = change_breakpoint,
    .stop = stop,
    .report = report,
    .resume = resume,
    .let_go = let_go,
    .kill = kill_program,
    .pass = pass,
    .object = object,
};

// ---- The server ---------------------------------------------------------------------------------

static bool has_hit(struct user_debug *debug)
{
    FOR_EACH_THREAD(debug, node)
    if (thread_at(node)->traced.hit)
        return true;
    return false;
}

static void set_connected(struct user_debug *debug, bool connected)
{
    lock(debug);
    debug->connected = connected;
    pthread_cond_broadcast(&debug->changed);
    unlock(debug);
}

// Once it is told the process is gone.
static void tell_end(struct user_debug *debug)
{
    gdb_session_ended(debug->session, debug->by_signal, (unsigned)debug->status);
    lock(debug);
    debug->end = USER_DEBUG_TOLD;
    pthread_cond_broadcast(&debug->changed);
    unlock(debug);
}

// Whatever it was that happened while the debugger waits is told to it.
static void tell(struct user_debug *debug)
{
    pthread_mutex_lock(&debug->session_lock);
    if (gdb_session_is_waiting(debug->session) && !report(debug)) {
        lock(debug);
        bool ends = debug->end == USER_DEBUG_ENDS;
        unlock(debug);
        if (ends)
            tell_end(debug);
    }
    pthread_mutex_unlock(&debug->session_lock);
}

static void *wait_for_program(void *opaque)
{
    struct user_debug *debug = opaque;

    for (;;) {
        lock(debug);
        while (!debug->connected || !debug->running ||
               (!has_hit(debug) && debug->end != USER_DEBUG_ENDS))
            pthread_cond_wait(&debug->changed, &debug->process->lock);
        unlock(debug);
        tell(debug);
    }
    return NULL;
}

static void take_client(struct user_debug *debug)
{
    int fd = accept4(debug->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    set_connected(debug, true);
    gdb_session_open(debug->session, fd);
}

static void serve(struct user_debug *debug)
{
    int client_fd = gdb_session_fd(debug->session);
    struct pollfd from = {.fd = client_fd < 0 ? debug->listen_fd : client_fd, .events = POLLIN};

    if (poll(&from, 1, -1) < 0)
        return;
    pthread_mutex_lock(&debug->session_lock);
    if (client_fd < 0)
        take_client(debug);
    else if (!gdb_session_receive(debug->session))
        set_connected(debug, false);
    pthread_mutex_unlock(&debug->session_lock);
}

// A table with nothing in it but what the server needs: a pipe's end that the program closes is
// not to be open here.
static int take_descriptors(struct user_debug *debug)
{
    int listening = unshare(CLONE_FILES) < 0 ? -1 : fcntl(debug->listen_fd, F_DUPFD_CLOEXEC, 4);

    if (listening < 0 || close_range(0, (unsigned)listening - 1, 0) < 0 ||
        close_range((unsigned)listening + 1, ~0u, 0) < 0)
        return -errno;
    debug->listen_fd = listening;
    for (int stream = 0; stream < 3; stream++)  // no socket is to have a stream's number
        if (open("/dev/null", O_RDWR | O_CLOEXEC) < 0)
            return -errno;
    debug->memory_fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    return debug->memory_fd < 0 ? -errno : 0;
}

static void *wait_for_debugger(void *opaque)
{
    struct user_debug *debug = opaque;

    pthread_setname_np(pthread_self(), "gdb");
    debug->failure = take_descriptors(debug);
    if (debug->failure == 0)
        debug->failure = user_host_thread_start(wait_for_program, debug);
    bool failed = debug->failure < 0;
    sem_post(&debug->ready);  // *debug may be gone where it failed
    if (failed)
        return NULL;
    for (;;)
        serve(debug);
}

static int start_server(struct user_debug *debug)
{
    int rc = gdb_session_create(&debug->session, &target, debug);
    if (rc == 0)
        rc = user_host_thread_start(wait_for_debugger, debug);
    if (rc < 0)
        return rc;
    while (sem_wait(&debug->ready) < 0)
        ;
    return debug->failure;
}

int user_debug_start(struct user_thread *thread, const char *address, struct error *err)
{
    struct user_process *process = thread->process;
    int listen_fd = gdb_listen(address, err);
    if (listen_fd < 0)
        return listen_fd;
    struct user_debug *debug = calloc(1, sizeof(*debug));
    if (!debug) {
        close(listen_fd);
        return error_set_errno(err, -ENOMEM, "cannot wait for a debugger");
    }
    debug->process = process;
    debug->stopped = true;
    debug->listen_fd = listen_fd;
    pthread_cond_init(&debug->changed, NULL);
    pthread_mutex_init(&debug->session_lock, NULL);
    sem_init(&debug->ready, 0, 0);
    process->debug = debug;
    thread->traced.id = thread->tid;
    thread->traced.hart = thread->hart;
    user_signal_hold(thread);  // for the server's threads
    int rc = start_server(debug);
    close(listen_fd);
    if (rc < 0)  // the process ends
        return error_set_errno(err, rc, "cannot wait for a debugger");
    user_signal_set_actions(process);
    user_signal_release(thread);
    return 0;
}
