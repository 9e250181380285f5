// SPDX-License-Identifier: BSD-2-Clause
// Interceptors as their supervisor sees them: added, lost, found again, removed, with lifelines in
// monitors. Their processes and monitors are this very program, with a kind made for this: it
// holds a lock on FOLDER/lifeline for as long as anybody has its lifeline, is active while its
// partition runs, and does what files in FOLDER ask for.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leverage/internal.h"
#include "supervisor/leverage.h"
#include "unit.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // since Linux 6.5
#endif

#define WAIT_MS 60000u
#define TURN_MS 10u
#define SILENT_MS 5000u                  // in which a process starts, also on a loaded machine
#define VERSION_VARIABLE "TEST_VERSION"  // of processes that are started, when it is another

// ---- The kind -----------------------------------------------------------------------------------

struct fake {
    struct interceptor *it;
    unsigned views;
    int64_t kept;
};

static const char *folder_of(const struct fake *fake)
{
    const struct interceptor_definition *definition = fake->it->definition;
    return definition->path ? definition->path : definition->directory;
}

// Whether the test has put a file of that name there.
static bool is_asked(const struct fake *fake, const char *what)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder_of(fake), what);
    return access(path, F_OK) == 0;
}

static int create(void **out, struct interceptor *it, struct error *err)
{
    struct fake *fake = calloc(1, sizeof(*fake));
    struct descriptors fds = {0};
    *fake = (struct fake){.it = it, .kept = (int64_t)it->kept.count};
    *out = fake;
    if (is_asked(fake, "crash"))
        raise(SIGKILL);
    if (is_asked(fake, "refuse"))
        return error_set(err, -EINVAL, "it does not want to");
    assert_int_equal(descriptors_add(&fds, "kept", memfd_create("kept", MFD_CLOEXEC)), 0);
    assert_int_equal(interceptor_keep(it, &fds, NULL, NULL), 0);
    descriptors_close(&fds);
    return 0;
}

static void hold(struct fake *fake, const char *partition)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/lifeline", folder_of(fake));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    flock(fd, LOCK_SH | LOCK_NB);
    assert_int_equal(interceptor_hold(fake->it, partition, fd, NULL, NULL), 0);
    close(fd);
}

static void partition(void *opaque, const struct partition_view *view)
{
    struct fake *fake = opaque;
    fake->views++;
    if (view->state == PARTITION_UP) {
        hold(fake, view->name);
        interceptor_set_state(fake->it, INTERCEPTOR_ACTIVE, "by %s", view->vsock_path);
    } else {
        interceptor_set_state(fake->it, INTERCEPTOR_BYPASSED, "partition \"%s\" does not run",
                              view->name);
    }
}

static void reload(void *opaque)
{
    struct fake *fake = opaque;
    if (is_asked(fake, "end"))
        interceptor_ended(fake->it, "the test wants it to");
}

static void undo(void *opaque, interceptor_done *done, void *done_opaque)
{
    struct fake *fake = opaque;
    struct error err;
    if (is_asked(fake, "die")) {
        char path[128];
        snprintf(path, sizeof(path), "%s/die", folder_of(fake));
        unlink(path);
        raise(SIGKILL);
    }
    if (is_asked(fake, "fail")) {
        error_set(&err, -EIO, "the test wants it to fail");
        done(done_opaque, &err);
    } else {
        done(done_opaque, NULL);
    }
}

static json_t *stats(void *opaque)
{
    const struct fake *fake = opaque;
    return json_pack("{s:i,s:I}", "views", (int)fake->views, "kept", (json_int_t)fake->kept);
}

static const struct interceptor_ops fake_ops = {.kind = "fake",
                                                .create = create,
                                                .partition = partition,
                                                .reload = reload,
                                                .remove = undo,
                                                .stats = stats,
                                                .destroy = free};

static int be_interceptor(void)
{
    static const struct interceptor_ops *const kinds[INTERCEPTOR_KINDS] = {
        [INTERCEPTOR_FILES] = &fake_ops, [INTERCEPTOR_MOUNT] = &fake_ops};
    const struct worker_settings settings = {
        .kinds = kinds, .remove_ms = WAIT_MS, .version = getenv(VERSION_VARIABLE)};
    struct error err;
    return worker_run(INTERCEPTOR_CONTROL_FD, &settings, &err) < 0;
}

// ---- The supervisor -----------------------------------------------------------------------------

// Branches to itself.
static const uint32_t idle[] = {0x0000006f};

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct registry *registry;
    struct leverage *leverage;
    char folder[64];
    unsigned start_timeout_ms;
    struct error answer;
    json_t *result;
    bool answered;
};

static void on_timer(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->loop);
}

static void turn(struct fixture *f)
{
    loop_timer_start(f->timer, TURN_MS);
    loop_run(f->loop);
}

static void await_answer(struct fixture *f)
{
    for (unsigned i = 0; !f->answered && i < WAIT_MS / TURN_MS; i++)
        turn(f);
    if (!f->answered)
        fail_msg("no answer in %u s", WAIT_MS / 1000);
    f->answered = false;
}

static void on_done(void *opaque, struct interception *interception, const struct error *err)
{
    struct fixture *f = opaque;
    (void)interception;
    f->answer = err ? *err : (struct error){0};
    f->answered = true;
}

static void on_result(void *opaque, struct interception *interception, json_t *result,
                      const struct error *err)
{
    struct fixture *f = opaque;
    json_decref(f->result);
    f->result = json_incref(result);
    on_done(opaque, interception, err);
}

static void on_entry(void *opaque, struct entry *entry, const struct error *err)
{
    (void)entry;
    on_done(opaque, NULL, err);
}

static void good(struct fixture *f)
{
    await_answer(f);
    if (f->answer.code)
        fail_msg("%s", f->answer.message);
}

static void bad(struct fixture *f, int code, const char *words)
{
    await_answer(f);
    print_message("%s\n", f->answer.code ? f->answer.message : "it was done");
    assert_int_equal(f->answer.code, code);
    assert_non_null(strstr(f->answer.message, words));
}

static void on_settled(void *opaque)
{
    struct fixture *f = opaque;
    f->answered = true;
}

// Interceptors are not looked for yet.
static void begin_registry(struct fixture *f)
{
    const struct registry_config config = {.loop = f->loop,
                                           .state_dir = f->folder,
                                           .run_dir = f->folder,
                                           .restart_delay_ms = 1000,
                                           .start_timeout_ms = f->start_timeout_ms};
    struct error err = {0};
    if (registry_create(&f->registry, &config, &err) < 0)
        fail_msg("%s", err.message);
    const struct leverage_config leverage = {.registry = f->registry, .run_dir = f->folder};
    if (leverage_create(&f->leverage, &leverage, &err) < 0)
        fail_msg("%s", err.message);
    registry_set_leverage(f->registry, f->leverage);
    assert_int_equal(registry_load(f->registry, on_settled, f, &err), 0);
    await_answer(f);
}

static void begin(struct fixture *f)
{
    begin_registry(f);
    leverage_begin(f->leverage);
}

static void end(struct fixture *f)
{
    registry_set_leverage(f->registry, NULL);
    leverage_destroy(f->leverage);
    registry_release(f->registry);
    registry_destroy(f->registry);
}

static json_t *partition_definition(struct fixture *f, const char *name)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/firmware", f->folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, idle, sizeof(idle)), sizeof(idle));
    close(fd);
    return json_pack("{s:s,s:s,s:s}", "name", name, "firmware", path, "memory", "16M");
}

static struct entry *run_partition(struct fixture *f, const char *name)
{
    struct entry *entry;
    struct error err;
    json_t *definition = partition_definition(f, name);
    if (registry_add(f->registry, definition, &entry, &err) < 0)
        fail_msg("%s", err.message);
    json_decref(definition);
    entry_start(entry, false, on_entry, f);
    good(f);
    return entry;
}

static void add(struct fixture *f, const char *name, const char *module)
{
    json_t *definition = json_pack("{s:s,s:s,s:s,s:s,s:s}", "name", name, "kind", "files", "module",
                                   module, "path", f->folder, "fail", "open");
    leverage_add(f->leverage, definition, on_done, f);
    json_decref(definition);
}

static void add_mount(struct fixture *f)
{
    json_t *definition = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o}", "name", "disk", "kind", "mount",
                                   "module", "own", "image", f->folder, "directory", f->folder,
                                   "partition", partition_definition(f, "own"));
    leverage_add(f->leverage, definition, on_done, f);
    json_decref(definition);
}

static struct interception *find(struct fixture *f, const char *name)
{
    return leverage_find(f->leverage, name, NULL);
}

static pid_t pid_of(struct fixture *f, const char *name)
{
    json_t *object = interception_describe(find(f, name));
    pid_t pid = (pid_t)json_integer_value(json_object_get(object, "pid"));
    json_decref(object);
    return pid;
}

static void wait_state(struct fixture *f, const char *name, enum interceptor_state state)
{
    for (unsigned i = 0; i < WAIT_MS / TURN_MS; i++) {
        if (find(f, name) && interception_state(find(f, name)) == state && pid_of(f, name) > 0)
            return;
        turn(f);
    }
    fail_msg("\"%s\" does not become %s", name, interceptor_state_name(state));
}

static void wait_gone(struct fixture *f, const char *name)
{
    for (unsigned i = 0; find(f, name) && i < WAIT_MS / TURN_MS; i++)
        turn(f);
    assert_null(find(f, name));
}

static json_int_t counted(struct fixture *f, const char *name, const char *what)
{
    // A process that has only just taken over from a dead one cannot be asked yet.
    for (unsigned i = 0; i < WAIT_MS / TURN_MS; i++) {
        interception_ask(find(f, name), "stats", WAIT_MS, on_result, f);
        await_answer(f);
        if (f->answer.code != -EALREADY)
            break;
        turn(f);
    }
    if (f->answer.code)
        fail_msg("%s", f->answer.message);
    return json_integer_value(json_object_get(f->result, what));
}

// How often it was told of its partition, as soon as it can be asked.
static json_int_t counted_views(struct fixture *f)
{
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    return counted(f, "first", "views");
}

// Kills the process, and waits for its successor.
static void lose(struct fixture *f, const char *name)
{
    unsigned restarts = interception_restarts(find(f, name));
    kill(pid_of(f, name), SIGKILL);
    for (unsigned i = 0; i < WAIT_MS / TURN_MS; i++) {
        turn(f);
        if (interception_restarts(find(f, name)) > restarts && pid_of(f, name) > 0)
            return;
    }
    fail_msg("\"%s\" is not started again", name);
}

static void ask_for(struct fixture *f, const char *what, bool wanted)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", f->folder, what);
    if (!wanted) {
        unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

// Whether anybody has a lifeline.
static bool is_held(struct fixture *f)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/lifeline", f->folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool free_ = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return !free_;
}

static bool is_on_disk(struct fixture *f, const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/interceptors/%s.json", f->folder, name);
    return access(path, F_OK) == 0;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->folder, sizeof(f->folder), "/tmp/strake-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timer, f, &f->timer), 0);
    begin(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[96];
    LIST_FOR_EACH(leverage_list(f->leverage), node)
    if (pid_of(f, interception_name(interception_of_link(node))) > 0)
        kill(pid_of(f, interception_name(interception_of_link(node))), SIGKILL);
    LIST_FOR_EACH(registry_entries(f->registry), node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (entry->process)
            entry_kill(entry, NULL, NULL);
    }
    end(f);
    json_decref(f->result);
    loop_timer_close(f->timer);
    loop_destroy(f->loop);
    snprintf(command, sizeof(command), "rm -r %s", f->folder);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_life(void **state)
{
    struct fixture *f = *state;
    struct entry *entry = run_partition(f, "guest");
    print_message("an interceptor is told of its partition, and has a lifeline held in it\n");
    add(f, "first", "guest");
    good(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_true(is_held(f));
    assert_true(is_on_disk(f, "first"));
    print_message("a handover is nothing to it\n");
    json_int_t views = counted(f, "first", "views");
    pid_t pid = pid_of(f, "first");
    entry_handover(entry, -1, on_entry, f);
    good(f);
    assert_true(counted(f, "first", "views") == views && pid_of(f, "first") == pid);
    print_message("when its process dies, the monitor holds on, and the next has what was kept\n");
    assert_int_equal(counted(f, "first", "kept"), 0);
    lose(f, "first");
    assert_true(is_held(f));
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_equal(counted(f, "first", "kept"), 1);
    print_message("a partition that ends and comes again is told\n");
    entry_kill(entry, on_entry, f);
    good(f);
    wait_state(f, "first", INTERCEPTOR_BYPASSED);
    entry_start(entry, false, on_entry, f);
    good(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_equal(counted(f, "first", "views"), 3);
    print_message("it has a vsock device now, by which its guest is spoken to\n");
    assert_non_null(entry->definition.vsock_path);
    struct error err;
    entry_kill(entry, on_entry, f);
    good(f);
    assert_int_equal(registry_remove(entry, &err), -EBUSY);
    print_message("%s\n", err.message);
    assert_non_null(strstr(err.message, "interceptor \"first\""));
    print_message("nothing is left when it is removed\n");
    pid = pid_of(f, "first");
    interception_remove(find(f, "first"), on_done, f);
    good(f);
    assert_null(find(f, "first"));
    assert_false(is_held(f) || is_on_disk(f, "first"));
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(registry_remove(entry, &err), 0);
}

static void test_supervisors(void **state)
{
    struct fixture *f = *state;
    run_partition(f, "guest");
    add(f, "first", "guest");
    good(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    pid_t pid = pid_of(f, "first");
    json_int_t views = counted(f, "first", "views");
    print_message("the next supervisor finds its process as it was\n");
    end(f);
    assert_int_equal(kill(pid, 0), 0);
    assert_true(is_held(f));
    begin(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_equal(pid_of(f, "first"), pid);
    assert_true(counted(f, "first", "views") <= views + 1);
    assert_true(is_held(f));
    print_message("which has kept for it what it is to keep\n");
    lose(f, "first");
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_equal(counted(f, "first", "kept"), 1);
    print_message("one that died meanwhile is started again\n");
    pid = pid_of(f, "first");
    end(f);
    kill(pid, SIGKILL);
    begin(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_not_equal(pid_of(f, "first"), pid);
    print_message("one whose partition has ended and was started again meanwhile is told\n");
    struct entry *entry = registry_find_name(f->registry, "guest");
    pid_t monitor = process_pid(entry->process);
    views = counted(f, "first", "views");
    end(f);
    kill(monitor, SIGKILL);
    begin_registry(f);
    entry_start(registry_find_name(f->registry, "guest"), false, on_entry, f);
    good(f);
    leverage_begin(f->leverage);
    while (counted_views(f) < views + 2)
        turn(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_true(is_held(f));
    interception_remove(find(f, "first"), on_done, f);
    good(f);
}

// What the kernel knows of a connection's other end as a process.
static bool can_find_listeners(void)
{
    int ends[2], pidfd;
    socklen_t bytes = sizeof(pidfd);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    bool can = getsockopt(ends[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) == 0;
    if (can)
        close(pidfd);
    close(ends[0]);
    close(ends[1]);
    return can;
}

static void test_silent(void **state)
{
    struct fixture *f = *state;
    if (!can_find_listeners())
        skip();
    run_partition(f, "guest");
    add(f, "first", "guest");
    good(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    print_message("one that never answers the next supervisor is killed, and another takes over\n");
    pid_t pid = pid_of(f, "first");
    end(f);
    kill(pid, SIGSTOP);
    f->start_timeout_ms = SILENT_MS;
    begin(f);
    assert_int_equal(pid_of(f, "first"), 0);  // nobody knows it
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_not_equal(pid_of(f, "first"), pid);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(is_held(f));
    interception_remove(find(f, "first"), on_done, f);
    good(f);
    assert_false(is_held(f) || is_on_disk(f, "first"));
}

static void test_versions(void **state)
{
    struct fixture *f = *state;
    run_partition(f, "guest");
    setenv(VERSION_VARIABLE, "0.0.1", true);
    add(f, "first", "guest");
    good(f);
    add_mount(f);
    good(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    wait_state(f, "disk", INTERCEPTOR_ACTIVE);
    unsetenv(VERSION_VARIABLE);
    pid_t pid = pid_of(f, "first"), mount = pid_of(f, "disk");
    print_message("a supervisor of another version has a process of that take over\n");
    end(f);
    begin(f);
    assert_false(leverage_found_all(f->leverage));
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_not_equal(pid_of(f, "first"), pid);
    assert_true(leverage_found_all(f->leverage));
    assert_int_equal(counted(f, "first", "kept"), 1);
    assert_int_equal(interception_restarts(find(f, "first")), 0);
    assert_true(is_held(f));
    print_message("but not of what could not go on\n");
    wait_state(f, "disk", INTERCEPTOR_ACTIVE);
    assert_int_equal(pid_of(f, "disk"), mount);
    print_message("and one of its own version stays\n");
    pid = pid_of(f, "first");
    end(f);
    begin(f);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_int_equal(pid_of(f, "first"), pid);
    print_message("where that cannot start, it is not taken to be found\n");
    setenv(VERSION_VARIABLE, "0.0.1", true);
    lose(f, "first");
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    unsetenv(VERSION_VARIABLE);
    end(f);
    ask_for(f, "refuse", true);
    begin(f);
    for (unsigned i = 0; interception_state(find(f, "first")) != INTERCEPTOR_FAILED; i++) {
        assert_true(i < WAIT_MS / TURN_MS);
        turn(f);
    }
    assert_false(leverage_found_all(f->leverage));
    ask_for(f, "refuse", false);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
    assert_true(leverage_found_all(f->leverage));
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    print_message("what cannot be is not kept\n");
    add(f, "first", "nobody");
    bad(f, -EINVAL, "there is no partition \"nobody\"");
    run_partition(f, "guest");
    add(f, "not a name", "guest");
    bad(f, -EINVAL, "name");
    ask_for(f, "refuse", true);
    add(f, "first", "guest");
    bad(f, -EINVAL, "cannot add interceptor \"first\": it does not want to");
    assert_false(is_on_disk(f, "first"));
    assert_null(find(f, "first"));
    ask_for(f, "refuse", false);
    ask_for(f, "crash", true);
    add(f, "first", "guest");
    bad(f, -EINVAL, "SIGKILL");
    assert_false(is_on_disk(f, "first"));
    ask_for(f, "crash", false);
    add(f, "first", "guest");
    good(f);
    add(f, "first", "guest");
    bad(f, -EEXIST, "there is an interceptor \"first\" already");
    print_message("one that cannot start later on fails, and is tried again\n");
    ask_for(f, "refuse", true);
    kill(pid_of(f, "first"), SIGKILL);
    for (unsigned i = 0; interception_state(find(f, "first")) != INTERCEPTOR_FAILED; i++) {
        assert_true(i < WAIT_MS / TURN_MS);
        turn(f);
    }
    ask_for(f, "refuse", false);
    wait_state(f, "first", INTERCEPTOR_ACTIVE);
}

static void test_removal(void **state)
{
    struct fixture *f = *state;
    run_partition(f, "guest");
    add(f, "first", "guest");
    good(f);
    print_message("what cannot be undone stays, and may be asked for again\n");
    ask_for(f, "fail", true);
    interception_remove(find(f, "first"), on_done, f);
    bad(f, -EIO, "cannot remove interceptor \"first\": the test wants it to fail");
    assert_true(is_on_disk(f, "first"));
    ask_for(f, "fail", false);
    print_message("when its process dies of it, the next one undoes it\n");
    ask_for(f, "die", true);
    interception_remove(find(f, "first"), on_done, f);
    interception_remove(find(f, "first"), NULL, NULL);  // -EBUSY
    good(f);
    assert_null(find(f, "first"));
    assert_false(is_on_disk(f, "first") || is_held(f));
    print_message("one that is over by itself is removed\n");
    add(f, "second", "guest");
    good(f);
    ask_for(f, "end", true);
    interception_ask(find(f, "second"), "reload", WAIT_MS, on_result, f);
    good(f);
    wait_gone(f, "second");
    assert_false(is_on_disk(f, "second"));
}

static void test_own_partition(void **state)
{
    struct fixture *f = *state;
    print_message("a partition of its own comes and goes with it\n");
    add_mount(f);
    good(f);
    wait_state(f, "disk", INTERCEPTOR_ACTIVE);
    struct entry *entry = registry_find_name(f->registry, "own");
    assert_int_equal(entry->state, ENTRY_RUNNING);
    add(f, "other", "own");
    bad(f, -EBUSY, "another interceptor's own");
    interception_remove(find(f, "disk"), on_done, f);
    good(f);
    assert_null(registry_find_name(f->registry, "own"));
    print_message("one of that name that was there stays\n");
    entry = run_partition(f, "own");
    add_mount(f);
    bad(f, -EINVAL, "there is a partition \"own\" already");
    assert_ptr_equal(registry_find_name(f->registry, "own"), entry);
    entry_kill(entry, on_entry, f);
    good(f);
    struct error err;
    assert_int_equal(registry_remove(entry, &err), 0);
    print_message("a supervisor that finds neither process nor mount removes both\n");
    add_mount(f);
    good(f);
    pid_t pid = pid_of(f, "disk"),
          monitor = process_pid(registry_find_name(f->registry, "own")->process);
    end(f);
    kill(pid, SIGKILL);
    kill(monitor, SIGKILL);
    begin(f);
    wait_gone(f, "disk");
    assert_null(registry_find_name(f->registry, "own"));
    assert_false(is_on_disk(f, "disk"));
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main();
    if (argc > 1 && strcmp(argv[1], "interceptor") == 0)
        return be_interceptor();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_supervisors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_partition, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
