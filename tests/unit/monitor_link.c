// SPDX-License-Identifier: BSD-2-Clause
// Messages with descriptors: requests both ways, answers, events; and peers that do what they must
// not.
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/monitor.h"
#include "unit.h"

#define EIGHT "aaaaaaaa"
#define NAME_TOO_LONG EIGHT EIGHT EIGHT EIGHT EIGHT EIGHT EIGHT EIGHT
_Static_assert(sizeof(NAME_TOO_LONG) == DESCRIPTOR_NAME_BYTES + 1, "by one character");

struct side {
    struct fixture *f;
    struct link *link;
    unsigned requests, events, closed;
    struct error why;
    bool deaf;     // does not answer
    bool destroy;  // itself, in the midst of a callback
};

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct side sides[2];
    unsigned answers;
    struct error answer;
    char text[64];
    bool timed_out;
};

static void on_timeout(void *opaque)
{
    struct fixture *f = opaque;
    f->timed_out = true;
    loop_stop(f->loop);
}

static void on_request(void *opaque, uint64_t id, const char *op, json_t *message,
                       struct descriptors *fds)
{
    struct side *side = opaque;
    struct error err;
    side->requests++;
    if (side->destroy) {
        link_destroy(side->link);
        side->link = NULL;
        loop_stop(side->f->loop);
        return;
    }
    if (side->deaf)
        return;
    if (strcmp(op, "fail") == 0) {
        error_set(&err, -ENOTDIR, "it failed: %s",
                  json_string_value(json_object_get(message, "x")));
        link_fail(side->link, id, &err);
    } else if (strcmp(op, "large") == 0) {
        char *bytes = calloc(1, LINK_BYTES_MAX + 1);
        memset(bytes, 'x', LINK_BYTES_MAX);
        link_reply(side->link, id, json_pack("{s:s}", "text", bytes), NULL);
        free(bytes);
    } else {
        // Gives back what it got, and writes to it.
        int fd = descriptors_find(fds, "there");
        if (fd >= 0)
            assert_int_equal(write(fd, "hello", 5), 5);
        link_reply(side->link, id, json_pack("{s:s}", "was", op), fds);
    }
}

static void on_event(void *opaque, const char *event, json_t *message, struct descriptors *fds)
{
    struct side *side = opaque;
    (void)message, (void)fds;
    assert_string_equal(event, "news");
    side->events++;
    loop_stop(side->f->loop);
}

static void on_closed(void *opaque, const struct error *why)
{
    struct side *side = opaque;
    side->closed++;
    side->why = *why;
    loop_stop(side->f->loop);
}

static void on_answer(void *opaque, json_t *result, struct descriptors *fds,
                      const struct error *err)
{
    struct fixture *f = opaque;
    f->answers++;
    f->answer = err ? *err : (struct error){0};
    int fd = fds ? descriptors_find(fds, "there") : -1;
    if (fd >= 0) {
        ssize_t n = pread(fd, f->text, sizeof(f->text) - 1, 0);
        f->text[n > 0 ? n : 0] = 0;
    }
    (void)result;
    loop_stop(f->loop);
}

static void run(struct fixture *f)
{
    loop_timer_start(f->timer, 10000);
    loop_run(f->loop);
    loop_timer_stop(f->timer);
    assert_false(f->timed_out);
}

static void open_side(struct fixture *f, unsigned i, int fd)
{
    struct error err;
    struct side *side = &f->sides[i];
    const struct link_events events = {
        .request = on_request, .event = on_event, .closed = on_closed, .opaque = side};
    *side = (struct side){.f = f};
    assert_int_equal(link_create(&side->link, f->loop, fd, &events, &err), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    int ends[2];
    assert_int_equal(loop_create(&f->loop, &err), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timeout, f, &f->timer), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    open_side(f, 0, ends[0]);
    open_side(f, 1, ends[1]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    link_destroy(f->sides[0].link);
    link_destroy(f->sides[1].link);
    loop_destroy(f->loop);
    free(f);
    return 0;
}

static int open_files(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_talk(void **state)
{
    struct fixture *f = *state;
    struct descriptors fds = {0};
    print_message("requests are answered, both ways, with descriptors\n");
    FILE *file = tmpfile();
    assert_int_equal(descriptors_add(&fds, "there", dup(fileno(file))), 0);
    int before = open_files();
    link_request(f->sides[0].link, "echo", NULL, &fds, on_answer, f);
    run(f);
    assert_int_equal(f->answer.code, 0);
    assert_string_equal(f->text, "hello");
    link_request(f->sides[1].link, "fail", json_pack("{s:s}", "x", "so"), NULL, on_answer, f);
    run(f);
    assert_int_equal(f->answer.code, -ENOTDIR);
    assert_string_equal(f->answer.message, "it failed: so");
    link_event(f->sides[0].link, "news", NULL, NULL);
    run(f);
    assert_int_equal(f->sides[1].events, 1);
    link_request(f->sides[0].link, "large", NULL, NULL, on_answer, f);
    run(f);
    assert_int_equal(f->answer.code, -EMSGSIZE);
    assert_int_equal(open_files(), before);
    descriptors_close(&fds);
    fclose(file);
}

static void test_queue(void **state)
{
    struct fixture *f = *state;
    print_message("messages wait for a peer that reads late, none is lost\n");
    char bytes[30001];
    memset(bytes, 'y', 30000);
    bytes[30000] = 0;
    for (int i = 0; i < 100; i++)
        link_request(f->sides[0].link, "echo", json_pack("{s:s}", "more", bytes), NULL, on_answer,
                     f);
    while (f->answers < 100)
        run(f);
    assert_int_equal(f->sides[1].requests, 100);
    assert_int_equal(f->sides[0].closed + f->sides[1].closed, 0);
}

static void test_end(void **state)
{
    struct fixture *f = *state;
    print_message("a request whose peer goes away has failed, once\n");
    f->sides[1].deaf = true;
    link_request(f->sides[0].link, "echo", NULL, NULL, on_answer, f);
    while (f->sides[1].requests == 0) {
        loop_timer_start(f->timer, 10);
        loop_run(f->loop);
        f->timed_out = false;
    }
    link_destroy(f->sides[1].link);
    f->sides[1].link = NULL;
    while (f->sides[0].closed == 0)
        run(f);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->answer.code, -ECONNRESET);
    assert_int_equal(f->sides[0].why.code, -ECONNRESET);
    assert_false(link_is_open(f->sides[0].link));
    link_request(f->sides[0].link, "echo", NULL, NULL, on_answer, f);
    assert_int_equal(f->answers, 2);
}

static void test_destroy_within(void **state)
{
    struct fixture *f = *state;
    print_message("a link may be destroyed by what it calls\n");
    f->sides[1].destroy = true;
    link_request(f->sides[0].link, "echo", NULL, NULL, on_answer, f);
    link_request(f->sides[0].link, "echo", NULL, NULL, on_answer, f);
    while (f->answers < 2)
        run(f);
    assert_int_equal(f->sides[1].requests, 1);
}

static void test_own_end(void **state)
{
    struct fixture *f = *state;
    print_message("requests still out fail when their link is destroyed\n");
    link_request(f->sides[0].link, "echo", NULL, NULL, on_answer, f);
    link_destroy(f->sides[0].link);
    f->sides[0].link = NULL;
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->answer.code, -ECONNRESET);
}

// ---- Peers that do what they must not -----------------------------------------------------------

static void send_raw(int fd, const char *text, size_t bytes, unsigned fd_count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * 200)];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)text, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS,
                                          .cmsg_len = CMSG_LEN(sizeof(int) * fd_count)};
        for (unsigned i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &(int){STDOUT_FILENO},
                   sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &message, 0), bytes);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *what, *text;
        unsigned fds;
    } messages[] = {
        {"no JSON", "hello", 0},
        {"no object", "[1,2]", 0},
        {"cut", "{\"op\":\"echo\"", 0},
        {"no id", "{\"op\":\"echo\"}", 0},
        {"an id that is no number", "{\"op\":\"echo\",\"id\":\"1\"}", 0},
        {"an answer nobody waits for", "{\"id\":17}", 0},
        {"a descriptor without a name", "{\"op\":\"echo\",\"id\":1}", 1},
        {"fewer descriptors than names", "{\"op\":\"echo\",\"id\":1,\"fds\":[\"a\",\"b\"]}", 1},
        {"two of a name", "{\"op\":\"echo\",\"id\":1,\"fds\":[\"a\",\"a\"]}", 2},
        {"a name that is none", "{\"op\":\"echo\",\"id\":1,\"fds\":[1]}", 1},
        {"a name too long", "{\"op\":\"echo\",\"id\":1,\"fds\":[\"" NAME_TOO_LONG "\"]}", 1},
        {"more descriptors than are taken", "{\"op\":\"echo\",\"id\":1}", 200},
        {"a key twice", "{\"op\":\"echo\",\"op\":\"x\",\"id\":1}", 0},
        {"NULL", NULL, 0},
    };
    char *large = calloc(1, LINK_BYTES_MAX + 100);
    link_destroy(f->sides[1].link);
    f->sides[1].link = NULL;
    memset(large, ' ', LINK_BYTES_MAX + 100);
    for (size_t i = 0; i < BASE_COUNT_OF(messages); i++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        link_destroy(f->sides[0].link);
        open_side(f, 0, ends[0]);
        int before = open_files();
        print_message("refused: %s\n", messages[i].text ? messages[i].what : "too large");
        if (messages[i].text)
            send_raw(ends[1], messages[i].text, strlen(messages[i].text), messages[i].fds);
        else
            send_raw(ends[1], large, LINK_BYTES_MAX + 100, 0);
        run(f);
        assert_int_equal(f->sides[0].closed, 1);
        assert_int_equal(f->sides[0].why.code, -EPROTO);
        assert_int_equal(f->sides[0].requests, 0);
        assert_int_equal(open_files(), before - 1);  // the connection's
        close(ends[1]);
    }
    free(large);
}

static void test_deaf(void **state)
{
    struct fixture *f = *state;
    int ends[2];
    print_message("a peer that reads nothing is given up, its requests too\n");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    link_destroy(f->sides[0].link);
    open_side(f, 0, ends[0]);
    for (unsigned i = 0; i < 2000; i++)
        link_request(f->sides[0].link, "echo", NULL, NULL, on_answer, f);
    while (f->sides[0].closed == 0)
        run(f);
    assert_int_equal(f->sides[0].why.code, -EPROTO);
    assert_int_equal(f->answers, 2000);
    close(ends[1]);
}

static void test_descriptors(void **state)
{
    struct descriptors set = {0};
    (void)state;
    print_message("a set of descriptors keeps each name once, and closes what it has\n");
    int before = open_files();
    assert_int_equal(descriptors_add(&set, "a", dup(1)), 0);
    assert_int_equal(descriptors_add(&set, "b", dup(1)), 0);
    assert_int_equal(descriptors_add(&set, "a", dup(1)), -EEXIST);
    assert_int_equal(descriptors_add(&set, "none", -EBADF), -EBADF);
    assert_int_equal(descriptors_add(&set, NAME_TOO_LONG, dup(1)), -ENAMETOOLONG);
    assert_int_equal(open_files(), before + 2);
    int b = descriptors_find(&set, "b");
    assert_int_equal(descriptors_replace(&set, "b", dup(1)), 0);
    assert_int_equal(open_files(), before + 2);
    b = descriptors_take(&set, "b");
    assert_true(b >= 0);
    close(b);
    assert_int_equal(descriptors_take(&set, "b"), -1);
    assert_true(descriptors_find(&set, "a") >= 0);
    for (unsigned i = 1; i < DESCRIPTORS_MAX; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%u", i);
        assert_int_equal(descriptors_add(&set, name, dup(1)), 0);
    }
    assert_int_equal(descriptors_add(&set, "more", dup(1)), -ENOSPC);
    descriptors_close(&set);
    assert_int_equal(open_files(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_talk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_within, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deaf, setup, teardown),
        cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
