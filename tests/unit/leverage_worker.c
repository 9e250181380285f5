// SPDX-License-Identifier: BSD-2-Clause
// The process of an interceptor, as a thread with a kind made for this, and the test in the role of
// its supervisors.
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "leverage/internal.h"
#include "unit.h"

#define PATIENCE_MS 60000u
#define QUIET_MS 50u  // in which what must not happen would
#define REMOVE_MS 300u

// ---- The kind -----------------------------------------------------------------------------------

enum act { NOTHING, STATE, SAME_STATE, HOLD, HOLD_TWICE, LET_GO, KEEP, KEEP_NONE, MANY, ONE, END };
enum removal { AT_ONCE, LATER, WITH_ERROR, NEVER };

struct fake {
    struct interceptor *it;
    enum act act;          // what `reload` does
    enum removal removal;  // how `remove` ends
    int fd;                // what is held and kept
    unsigned created, views, held, removals;
    _Atomic unsigned destroyed;
    struct error held_err, first_err;
    char last_view[64];
    size_t kept_count;
    uint64_t rights;
    bool no_new_rights;
    interceptor_done *done;
    void *done_opaque;
    struct loop_timer *timer;
};

// A kind gets nothing from its maker but the definition.
static struct fake *the_fake;

static uint64_t own_rights(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    assert_int_equal(syscall(SYS_capget, &header, sets), 0);
    return sets[0].permitted | (uint64_t)sets[1].permitted << 32;
}

static int fake_create(void **out, struct interceptor *it, struct error *err)
{
    struct fake *fake = the_fake;
    if (it->definition->match && strcmp(it->definition->match, "broken") == 0)
        return error_set(err, -ENODEV, "it is broken");
    fake->created++;
    fake->it = it;
    fake->kept_count = it->kept.count;
    fake->rights = own_rights();
    fake->no_new_rights = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
    counter_add(&it->counters.seen, 5);
    *out = fake;
    return 0;
}

static void fake_partition(void *kind, const struct partition_view *view)
{
    struct fake *fake = kind;
    const struct partition_view *known = interceptor_partition(fake->it, view->name);
    fake->views++;
    snprintf(fake->last_view, sizeof(fake->last_view), "%s %s %zu %s", view->name,
             view->state == PARTITION_UP ? "up" : "down", view->net_count,
             known == view ? "known" : "unknown");
}

static void on_held(void *opaque, const struct error *err)
{
    struct fake *fake = opaque;
    fake->held++;
    fake->held_err = err ? *err : (struct error){0};
    interceptor_event(fake->it, "held", NULL);
}

static void on_first(void *opaque, const struct error *err)
{
    struct fake *fake = opaque;
    fake->first_err = err ? *err : (struct error){0};
}

static void keep(struct fake *fake, bool any)
{
    struct descriptors fds = {.count = 2, .list = {{"a", fake->fd}, {"b", fake->fd}}};
    assert_int_equal(interceptor_keep(fake->it, any ? &fds : NULL, on_held, fake), 0);
}

static void fake_reload(void *kind)
{
    struct fake *fake = kind;
    struct interceptor *it = fake->it;
    switch (fake->act) {
    case NOTHING:
        break;
    case STATE:
        interceptor_set_state(it, INTERCEPTOR_BYPASSED, "guest %d is down", 7);
        assert_int_equal(interceptor_get_state(it), INTERCEPTOR_BYPASSED);
        break;
    case SAME_STATE:
        interceptor_set_state(it, INTERCEPTOR_ACTIVE, NULL);
        interceptor_set_state(it, INTERCEPTOR_ACTIVE, NULL);
        break;
    case HOLD:
        assert_int_equal(interceptor_hold(it, "q", fake->fd, on_held, fake), -ENOENT);
        assert_int_equal(interceptor_hold(it, "p", fake->fd, on_held, fake), 0);
        break;
    case HOLD_TWICE:
        assert_int_equal(interceptor_hold(it, "p", fake->fd, on_first, fake), 0);
        assert_int_equal(interceptor_hold(it, "p", fake->fd, on_held, fake), 0);
        assert_int_equal(fake->first_err.code, -ECANCELED);
        break;
    case LET_GO:
        assert_int_equal(interceptor_hold(it, "p", -1, NULL, NULL), 0);
        break;
    case KEEP:
        keep(fake, true);
        break;
    case KEEP_NONE:
        keep(fake, false);
        break;
    case MANY:
        for (int i = 0; i < 500; i++)
            interceptor_event(it, "infected", json_pack("{s:i}", "number", i));
        break;
    case ONE:
        interceptor_event(it, "infected", NULL);
        break;
    case END:
        interceptor_ended(it, "somebody unmounted it");
    }
}

static void remove_later(void *opaque)
{
    struct fake *fake = opaque;
    fake->done(fake->done_opaque, NULL);
}

static void fake_remove(void *kind, interceptor_done *done, void *opaque)
{
    struct fake *fake = kind;
    const enum removal removal = fake->removal;  // the test may change it once it is answered
    struct error err;
    fake->removals++;
    fake->done = done;
    fake->done_opaque = opaque;
    if (removal == AT_ONCE)
        done(opaque, NULL);
    if (removal == WITH_ERROR) {
        error_set(&err, -EBUSY, "the host is busy");
        done(opaque, &err);
    }
    if (removal == LATER) {
        assert_int_equal(loop_timer_create(fake->it->loop, remove_later, fake, &fake->timer), 0);
        loop_timer_start(fake->timer, QUIET_MS);
    }
}

static json_t *fake_stats(void *kind)
{
    (void)kind;
    return json_pack("{s:i,s:i}", "tables", 3, "returned", 4);
}

static void fake_destroy(void *kind)
{
    struct fake *fake = kind;
    loop_timer_close(fake->timer);
    fake->destroyed++;
}

static const struct interceptor_ops fake_ops = {.kind = "net",
                                                .capabilities = 1ull << CAP_NET_ADMIN,
                                                .create = fake_create,
                                                .partition = fake_partition,
                                                .reload = fake_reload,
                                                .remove = fake_remove,
                                                .stats = fake_stats,
                                                .destroy = fake_destroy};

static const struct interceptor_ops *const kinds[INTERCEPTOR_KINDS] = {[INTERCEPTOR_NET] =
                                                                           &fake_ops};
static const struct worker_settings settings = {.kinds = kinds, .remove_ms = REMOVE_MS};

// ---- The supervisor -----------------------------------------------------------------------------

enum reaction { TAKE, REFUSE, SILENCE };

struct fixture {
    struct fake fake;
    pthread_t thread;
    int worker_fd, worker_rc;
    struct loop *loop;
    struct loop_timer *timer;
    bool timed_out;
    char folder[32], path[64];
    int listen_fd;
    struct link *link;
    unsigned closed;
    // Answers to requests of ours.
    unsigned answers;
    json_t *answer;
    struct error err;
    // What the interceptor asks for.
    enum reaction reaction;
    unsigned requests;
    char op[16];
    size_t fd_count;
    bool same_file;  // all descriptors were of fake.fd
    // What it tells.
    unsigned states, events, ends;
    json_t *state, *event;
};

static void on_timeout(void *opaque)
{
    struct fixture *f = opaque;
    f->timed_out = true;
    loop_stop(f->loop);
}

static bool is_same_file(int a, int b)
{
    struct stat first, second;
    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_ino == second.st_ino;
}

static void on_request(void *opaque, uint64_t id, const char *op, json_t *message,
                       struct descriptors *fds)
{
    struct fixture *f = opaque;
    struct error err;
    f->requests++;
    snprintf(f->op, sizeof(f->op), "%s", op);
    f->fd_count = fds->count;
    f->same_file = true;
    for (size_t i = 0; i < fds->count; i++)
        f->same_file &= is_same_file(fds->list[i].fd, f->fake.fd);
    if (strcmp(op, "hold") == 0) {
        assert_string_equal(json_string_value(json_object_get(message, "partition")), "p");
        assert_true(fds->count == 0 || descriptors_find(fds, "lifeline") >= 0);
    }
    error_set(&err, -ESRCH, "it does not run");
    if (f->reaction == TAKE)
        link_reply(f->link, id, NULL, NULL);
    else if (f->reaction == REFUSE)
        link_fail(f->link, id, &err);
    loop_stop(f->loop);
}

static void on_event(void *opaque, const char *event, json_t *message, struct descriptors *fds)
{
    struct fixture *f = opaque;
    (void)fds;
    bool state = strcmp(event, "state") == 0;
    f->states += state;
    f->events += strcmp(event, "event") == 0;
    f->ends += strcmp(event, "ended") == 0;
    json_t **kept = state ? &f->state : &f->event;
    json_decref(*kept);
    *kept = json_incref(message);
    loop_stop(f->loop);
}

static void on_closed(void *opaque, const struct error *why)
{
    struct fixture *f = opaque;
    (void)why;
    f->closed++;
    loop_stop(f->loop);
}

static void on_answer(void *opaque, json_t *result, struct descriptors *fds,
                      const struct error *err)
{
    struct fixture *f = opaque;
    (void)fds;
    f->answers++;
    json_decref(f->answer);
    f->answer = json_incref(result);
    f->err = err ? *err : (struct error){0};
    loop_stop(f->loop);
}

static void wait_for(struct fixture *f, const unsigned *counter, unsigned value)
{
    loop_timer_start(f->timer, PATIENCE_MS);
    while (*counter < value && !f->timed_out)
        loop_run(f->loop);
    loop_timer_stop(f->timer);
    assert_false(f->timed_out);
}

// Lets things happen that should not.
static void be_quiet(struct fixture *f)
{
    loop_timer_start(f->timer, QUIET_MS);
    while (!f->timed_out)
        loop_run(f->loop);
    f->timed_out = false;
}

static void connect_link(struct fixture *f, int fd)
{
    const struct link_events events = {
        .request = on_request, .event = on_event, .closed = on_closed, .opaque = f};
    assert_int_equal(link_create(&f->link, f->loop, fd, &events, NULL), 0);
}

static int request_with(struct fixture *f, const char *op, json_t *arguments,
                        const struct descriptors *fds)
{
    unsigned before = f->answers;
    link_request(f->link, op, arguments, fds, on_answer, f);
    wait_for(f, &f->answers, before + 1);
    if (f->err.code)
        printf("%s: %s\n", op, f->err.message);
    return f->err.code;
}

static int request(struct fixture *f, const char *op)
{
    return request_with(f, op, NULL, NULL);
}

static void act(struct fixture *f, enum act act)
{
    f->fake.act = act;
    assert_int_equal(request(f, "reload"), 0);
}

static void *be_worker(void *opaque)
{
    struct fixture *f = opaque;
    struct error err;
    f->worker_rc = worker_run(f->worker_fd, &settings, &err);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    int ends[2];
    the_fake = &f->fake;
    f->fake.fd = memfd_create("lifeline", MFD_CLOEXEC);
    assert_int_equal(loop_create(&f->loop, &err), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timeout, f, &f->timer), 0);
    strcpy(f->folder, "/tmp/worker-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/control", f->folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, f->path);
    f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(f->listen_fd, 4), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    connect_link(f, ends[0]);
    f->worker_fd = ends[1];
    assert_int_equal(pthread_create(&f->thread, NULL, be_worker, f), 0);
    *state = f;
    return 0;
}

// A supervisor that comes while the former one is there, or is not.
static void connect_again(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, f->path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    connect_link(f, fd);
}

static void leave(struct fixture *f)
{
    link_destroy(f->link);
    f->link = NULL;
}

// The worker ends when nobody can come any more.
static void join(struct fixture *f)
{
    pthread_join(f->thread, NULL);
    assert_int_equal(f->worker_rc, 0);
    assert_int_equal(f->fake.destroyed, f->fake.created);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    leave(f);
    close(f->listen_fd);
    unlink(f->path);
    rmdir(f->folder);
    json_decref(f->answer);
    json_decref(f->state);
    json_decref(f->event);
    loop_destroy(f->loop);
    close(f->fake.fd);
    free(f);
    return 0;
}

// ---- Start --------------------------------------------------------------------------------------

static json_t *view(const char *state)
{
    return json_pack("{s:s,s:s,s:s,s:[{s:s,s:s}]}", "name", "p", "state", state, "vsock", "/v",
                     "nets", "tap", "t0", "mac", "02:00:00:00:00:01");
}

static json_t *start_message(const char *match)
{
    return json_pack("{s:{s:s,s:s,s:[s,s],s:s,s:s,s:s},s:[o]}", "definition", "name", "it", "kind",
                     "net", "module", "p,run=firewall", "other,run=ips", "device", "eth0", "fail",
                     "open", "match", match, "partitions", view("up"));
}

static int start(struct fixture *f, bool listening)
{
    struct descriptors fds = {.count = 2,
                              .list = {{"kept", f->fake.fd}, {"control-listen", f->listen_fd}}};
    fds.count -= !listening;
    return request_with(f, "start", start_message("ip"), &fds);
}

static const char *state_of(const json_t *message)
{
    return json_string_value(json_object_get(message, "state"));
}

static void interceptors_start(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(request(f, "hello"), -ESRCH);
    assert_int_equal(request(f, "nothing"), -EOPNOTSUPP);
    assert_int_equal(start(f, false), 0);
    assert_string_equal(state_of(f->answer), "starting");
    assert_int_equal(f->fake.kept_count, 1);
    assert_int_equal(f->fake.views, 2);
    printf("the other one: %s\n", f->fake.last_view);
    assert_string_equal(f->fake.last_view, "other down 0 known");
    printf("rights: %llx\n", (unsigned long long)f->fake.rights);
    assert_int_equal(f->fake.rights & ~(1ull << CAP_NET_ADMIN), 0);
    assert_true(f->fake.no_new_rights);
    assert_int_equal(start(f, false), -EBUSY);

    assert_int_equal(request(f, "hello"), 0);
    const json_t *definition = json_object_get(f->answer, "definition");
    assert_string_equal(json_string_value(json_object_get(definition, "name")), "it");
    assert_int_equal(json_integer_value(json_object_get(f->answer, "pid")), getpid());
    assert_int_equal(request(f, "stats"), 0);
    assert_int_equal(json_integer_value(json_object_get(f->answer, "seen")), 5);
    assert_int_equal(json_integer_value(json_object_get(f->answer, "returned")), 4);
    assert_int_equal(json_integer_value(json_object_get(f->answer, "tables")), 3);
    leave(f);
    join(f);
}

static void bad_starts_are_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(request(f, "start"), -EINVAL);
    json_t *files = json_pack("{s:{s:s,s:s,s:s,s:s,s:s}}", "definition", "name", "x", "kind",
                              "files", "module", "p", "path", "/", "fail", "open");
    assert_int_equal(request_with(f, "start", files, NULL), -EOPNOTSUPP);
    assert_int_equal(request(f, "stats"), -ESRCH);
    leave(f);
    join(f);
}

static void what_cannot_be_made_ends(void **state)
{
    struct fixture *f = *state;
    struct descriptors fds = {.count = 1, .list = {{"control-listen", f->listen_fd}}};
    assert_int_equal(request_with(f, "start", start_message("broken"), &fds), -ENODEV);
    assert_string_equal(f->err.message, "it is broken");
    leave(f);  // though another could come
    join(f);
    assert_int_equal(f->fake.created, 0);
}

// ---- What happens -------------------------------------------------------------------------------

static void partitions_come_and_go(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, false), 0);
    assert_int_equal(request_with(f, "partition", json_pack("{s:o}", "view", view("down")), NULL),
                     0);
    assert_string_equal(f->fake.last_view, "p down 1 known");
    assert_int_equal(request_with(f, "partition", json_pack("{s:o}", "view", view("up")), NULL), 0);
    assert_string_equal(f->fake.last_view, "p up 1 known");
    unsigned views = f->fake.views;
    json_t *stranger = json_pack("{s:{s:s,s:s}}", "view", "name", "stranger", "state", "up");
    assert_int_equal(request_with(f, "partition", stranger, NULL), 0);
    assert_int_equal(request(f, "partition"), -EINVAL);
    assert_int_equal(f->fake.views, views);
    leave(f);
    join(f);
}

static void states_are_told_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, false), 0);
    act(f, STATE);
    wait_for(f, &f->states, 1);
    assert_string_equal(state_of(f->state), "bypassed");
    assert_string_equal(json_string_value(json_object_get(f->state, "why")), "guest 7 is down");
    act(f, SAME_STATE);
    wait_for(f, &f->states, 2);
    assert_string_equal(state_of(f->state), "active");
    assert_null(json_object_get(f->state, "why"));
    be_quiet(f);
    assert_int_equal(f->states, 2);
    leave(f);
    join(f);
}

static void events_are_limited(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, false), 0);
    act(f, MANY);
    wait_for(f, &f->events, 32);
    be_quiet(f);
    printf("500 events in no time: %u arrive\n", f->events);
    assert_true(f->events < 100);
    assert_string_equal(json_string_value(json_object_get(f->event, "name")), "infected");
    assert_int_equal(request(f, "hello"), 0);
    leave(f);
    join(f);
}

static void ends_are_told(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, false), 0);
    act(f, END);
    wait_for(f, &f->ends, 1);
    assert_int_equal(request(f, "hello"), 0);
    assert_string_equal(json_string_value(json_object_get(f->answer, "ended")),
                        "somebody unmounted it");
    leave(f);
    join(f);
}

// ---- Lifelines and kept descriptors -------------------------------------------------------------

static void lifelines_are_held(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, false), 0);
    act(f, HOLD);
    wait_for(f, &f->events, 1);
    assert_string_equal(f->op, "hold");
    assert_true(f->fd_count == 1 && f->same_file);
    assert_int_equal(f->fake.held_err.code, 0);

    f->reaction = REFUSE;
    act(f, HOLD);
    wait_for(f, &f->events, 2);
    assert_int_equal(f->fake.held_err.code, -ESRCH);

    printf("a partition that starts again is given it again\n");
    f->reaction = TAKE;
    unsigned before = f->requests;
    assert_int_equal(request_with(f, "partition", json_pack("{s:o}", "view", view("down")), NULL),
                     0);
    assert_int_equal(request_with(f, "partition", json_pack("{s:o}", "view", view("up")), NULL), 0);
    wait_for(f, &f->requests, before + 1);
    assert_int_equal(f->fd_count, 1);

    printf("a second one takes the place of the first\n");
    act(f, HOLD_TWICE);
    wait_for(f, &f->events, 3);
    assert_int_equal(f->fake.held_err.code, 0);

    before = f->requests;
    act(f, LET_GO);
    wait_for(f, &f->requests, before + 1);
    assert_int_equal(f->fd_count, 0);
    leave(f);
    join(f);
}

static void descriptors_are_kept(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, false), 0);
    act(f, KEEP);
    wait_for(f, &f->events, 1);
    assert_string_equal(f->op, "keep");
    assert_true(f->fd_count == 2 && f->same_file);
    act(f, KEEP_NONE);
    wait_for(f, &f->events, 2);
    assert_int_equal(f->fd_count, 0);
    leave(f);
    join(f);
}

// ---- Supervisors come and go --------------------------------------------------------------------

static void the_next_supervisor_is_told(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, true), 0);
    act(f, KEEP);
    wait_for(f, &f->events, 1);
    act(f, STATE);
    wait_for(f, &f->states, 1);
    printf("one that dies before it has answered\n");
    f->reaction = SILENCE;
    unsigned before = f->requests;
    act(f, HOLD);
    wait_for(f, &f->requests, before + 1);
    leave(f);
    be_quiet(f);
    assert_int_equal(f->fake.held, 1);

    f->reaction = TAKE;
    before = f->requests;
    connect_again(f);
    assert_int_equal(request(f, "hello"), 0);
    assert_string_equal(state_of(f->answer), "bypassed");
    wait_for(f, &f->requests, before + 2);
    wait_for(f, &f->events, 2);
    assert_int_equal(f->fake.held, 2);
    assert_int_equal(f->fake.held_err.code, 0);

    printf("one that comes while there is one\n");
    struct link *former = f->link;
    unsigned closed = f->closed;
    connect_again(f);
    wait_for(f, &f->closed, closed + 1);
    assert_false(link_is_open(former));
    link_destroy(former);
    assert_int_equal(request(f, "stats"), 0);
    assert_int_equal(request(f, "remove"), 0);
    leave(f);
    join(f);
}

// ---- Remove -------------------------------------------------------------------------------------

static void interceptors_are_removed(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, true), 0);
    f->fake.removal = WITH_ERROR;
    assert_int_equal(request(f, "remove"), -EBUSY);
    assert_string_equal(state_of(f->state), "failed");
    assert_string_equal(json_string_value(json_object_get(f->state, "why")), "the host is busy");
    printf("once more, late\n");
    f->fake.removal = NEVER;
    assert_int_equal(request(f, "remove"), -ETIMEDOUT);
    assert_string_equal(state_of(f->state), "removing");
    leave(f);
    printf("the next one waits for what is under way\n");
    connect_again(f);
    unsigned before = f->answers;
    link_request(f->link, "remove", NULL, NULL, on_answer, f);
    assert_int_equal(request(f, "hello"), 0);
    assert_int_equal(f->answers, before + 1);
    assert_string_equal(state_of(f->answer), "removing");
    assert_int_equal(f->fake.removals, 2);
    loop_call(f->fake.it->loop, remove_later, &f->fake);
    wait_for(f, &f->answers, before + 2);
    assert_int_equal(f->err.code, 0);
    assert_int_equal(request(f, "remove"), 0);
    leave(f);
    join(f);
}

static void removal_takes_its_time(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, true), 0);
    f->fake.removal = LATER;
    assert_int_equal(request(f, "remove"), 0);
    assert_int_equal(f->fake.destroyed, 0);
    leave(f);  // and nobody else is waited for
    join(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(interceptors_start),
        TEST(bad_starts_are_refused),
        TEST(what_cannot_be_made_ends),
        TEST(partitions_come_and_go),
        TEST(states_are_told_once),
        TEST(events_are_limited),
        TEST(ends_are_told),
        TEST(lifelines_are_held),
        TEST(descriptors_are_kept),
        TEST(the_next_supervisor_is_told),
        TEST(interceptors_are_removed),
        TEST(removal_takes_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
