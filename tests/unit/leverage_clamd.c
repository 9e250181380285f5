// SPDX-License-Identifier: BSD-2-Clause
// clamd's protocol against a peer that says what the test has it say: right, wrong, half, nothing.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/clamd.h"
#include "unit/unit.h"

#define SOON_NS 200000000u
#define LATER_NS 60000000000u  // never comes

// What the peer of one connection says after the greeting, and what it got before.
struct peer {
    char folder[64], path[80];
    int listener, end;
    pthread_t thread;
    const char *greeting, *answer;
    size_t answer_bytes;
    bool hold;  // it does not hang up before the test's end
    uint8_t got[1 << 18];
    size_t got_bytes, wanted_bytes;
};

// What is wanted, and all that comes then until nothing more does for a while.
static void take(int fd, struct peer *peer)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (peer->got_bytes < sizeof(peer->got) &&
           poll(&ready, 1, peer->got_bytes < peer->wanted_bytes ? 60000 : 100) > 0) {
        ssize_t n = read(fd, peer->got + peer->got_bytes, sizeof(peer->got) - peer->got_bytes);
        if (n <= 0)
            break;
        peer->got_bytes += (size_t)n;
    }
}

static void *serve(void *opaque)
{
    struct peer *peer = opaque;
    struct pollfd ready[] = {{.fd = peer->listener, .events = POLLIN},
                             {.fd = peer->end, .events = POLLIN}};
    char line[16];
    uint64_t one;
    poll(ready, 2, -1);
    int fd = accept(peer->listener, NULL, NULL);
    if (fd < 0)
        return NULL;
    if (recv(fd, line, strlen("CONNECT 3310\n"), MSG_WAITALL) > 0 && peer->greeting) {
        send(fd, peer->greeting, strlen(peer->greeting), MSG_NOSIGNAL);
        take(fd, peer);
        send(fd, peer->answer, peer->answer_bytes, MSG_NOSIGNAL);
        if (peer->hold)
            (void)!read(peer->end, &one, sizeof(one));
    }
    close(fd);
    return NULL;
}

static struct peer *begin(const char *greeting, const char *answer, size_t answer_bytes, bool hold)
{
    struct error err;
    struct peer *peer = calloc(1, sizeof(*peer));
    assert_non_null(peer);
    peer->greeting = greeting;
    peer->answer = answer;
    peer->answer_bytes = answer_bytes;
    peer->hold = hold;
    snprintf(peer->folder, sizeof(peer->folder), "/tmp/strake-unit-XXXXXX");
    assert_non_null(mkdtemp(peer->folder));
    snprintf(peer->path, sizeof(peer->path), "%s/vsock", peer->folder);
    peer->listener = unix_listen(peer->path, &err);
    peer->end = eventfd(0, EFD_CLOEXEC);
    assert_true(peer->listener >= 0 && peer->end >= 0);
    assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
    return peer;
}

static void join(struct peer *peer)
{
    uint64_t one = 1;
    (void)!write(peer->end, &one, sizeof(one));
    pthread_join(peer->thread, NULL);
}

static void end(struct peer *peer)
{
    close(peer->end);
    close(peer->listener);
    unlink(peer->path);
    rmdir(peer->folder);
    free(peer);
}

static int file_of(const void *content, size_t bytes)
{
    int fd = memfd_create("content", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, content, bytes) == (ssize_t)bytes);
    return fd;
}

// What a scan of `content` by the peer comes to.
static int scan(struct peer *peer, const void *content, size_t bytes, uint64_t time_ns,
                char signature[CLAMD_SIGNATURE_BYTES])
{
    struct clamd_address address = {.path = peer->path, .port = CLAMD_PORT};
    struct clamd clamd = {.fd = -1, .cancel_fd = -1};
    int file = file_of(content, bytes);
    *signature = 0;
    int rc = clamd_open(&clamd, &address, clock_monotonic_ns() + time_ns);
    if (rc == 0)
        rc = clamd_scan(&clamd, file, clock_monotonic_ns() + time_ns, signature);
    clamd_close(&clamd);
    close(file);
    join(peer);
    return rc;
}

#define SAYS(text) "OK 1\n", text, sizeof(text)

static void check_answers(void **state)
{
    static char endless[4096];
    static const struct {
        const char *what, *greeting, *answer;
        size_t bytes;
        bool hold;
        int rc;
        const char *signature;
    } cases[] = {
        {"nothing found", SAYS("1: stream: OK"), true, CLAMD_CLEAN, ""},
        {"outside of a session", SAYS("stream: OK"), true, CLAMD_CLEAN, ""},
        {"a signature", SAYS("1: stream: Some.Name FOUND"), true, CLAMD_FOUND, "Some.Name"},
        {"one that is no text", SAYS("1: stream: \001\"\n\377 FOUND"), true, CLAMD_FOUND, "?\"??"},
        {"no name", SAYS("1: stream:  FOUND"), true, -EREMOTEIO, " FOUND"},
        {"too large", SAYS("INSTREAM size limit exceeded. ERROR"), true, CLAMD_TOO_LARGE,
         "INSTREAM size limit exceeded. ERROR"},
        {"cannot", SAYS("1: stream: no memory ERROR"), true, -EREMOTEIO, "no memory ERROR"},
        {"nothing at all", SAYS(""), true, -EREMOTEIO, ""},
        {"almost", SAYS("1: stream: OKAY"), true, -EREMOTEIO, "OKAY"},
        {"half of it", "OK 1\n", "1: stream: O", 12, false, -ECONNRESET, ""},
        {"without an end", "OK 1\n", endless, sizeof(endless), true, -EMSGSIZE, ""},
        {"the end", "OK 1\n", "", 0, false, -ECONNRESET, ""},
        {"silence", "OK 1\n", "", 0, true, -ETIMEDOUT, ""},
        {"nobody in the guest", NULL, "", 0, false, -ECONNREFUSED, ""},
        {"no greeting", "NO\n", "", 0, true, -EPROTO, ""},
        {"half a greeting", "OK", "", 0, true, -ETIMEDOUT, ""},
    };
    (void)state;
    memset(endless, 'x', sizeof(endless));
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        char signature[CLAMD_SIGNATURE_BYTES];
        struct peer *peer =
            begin(cases[i].greeting, cases[i].answer, cases[i].bytes, cases[i].hold);
        bool waits = cases[i].rc == -ETIMEDOUT;
        int rc = scan(peer, "content", 7, waits ? SOON_NS : LATER_NS, signature);
        print_message("%s: %d \"%s\"\n", cases[i].what, rc, signature);
        assert_int_equal(rc, cases[i].rc);
        assert_string_equal(signature, cases[i].signature);
        end(peer);
    }
}

static void check_stream(void **state)
{
    static uint8_t content[150000];
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 150000};
    (void)state;
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t i = 0; i < BASE_COUNT_OF(sizes); i++) {
        static const char head[] = "zIDSESSION\0zINSTREAM";
        char signature[CLAMD_SIGNATURE_BYTES];
        struct peer *peer = begin(SAYS("1: stream: OK"), true);
        peer->wanted_bytes = sizeof(head) + sizes[i] + 4 * ((sizes[i] + 65535) / 65536 + 1);
        assert_int_equal(scan(peer, content, sizes[i], LATER_NS, signature), CLAMD_CLEAN);
        assert_memory_equal(peer->got, head, sizeof(head));
        size_t at = sizeof(head), have = 0, piece;
        do {
            const uint8_t *length = peer->got + at;
            piece = (size_t)length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3];
            at += 4;
            assert_true(piece <= sizes[i] - have);
            assert_memory_equal(peer->got + at, content + have, piece);
            at += piece;
            have += piece;
        } while (piece > 0);
        print_message("a file of %zu bytes goes in %zu\n", sizes[i], at);
        assert_int_equal(have, sizes[i]);
        assert_int_equal(at, peer->got_bytes);
        end(peer);
    }
}

static void check_cancel(void **state)
{
    (void)state;
    struct peer *peer = begin("OK 1\n", "", 0, true);
    struct clamd_address address = {.path = peer->path, .port = CLAMD_PORT};
    int cancel = eventfd(1, EFD_CLOEXEC);
    assert_int_equal(clamd_ping(&address, cancel, clock_monotonic_ns() + LATER_NS), -ECANCELED);
    join(peer);
    close(cancel);
    end(peer);
}

static void check_agent(void **state)
{
    static const struct {
        const char *what, *answer;
        int rc;
    } cases[] = {
        {"done", "- a line\nok\nok\n", 0},
        {"refused at once", "error no\n", -EREMOTEIO},
        {"refused afterwards", "ok\nerror no\n", -EREMOTEIO},
        {"half", "ok\n", -ECONNRESET},
        {"wrong", "maybe\n", -EPROTO},
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct error err = {0};
        struct peer *peer = begin("OK 1\n", cases[i].answer, strlen(cases[i].answer), false);
        struct clamd_address address = {.path = peer->path, .port = CLAMD_PORT};
        int payload = file_of("payload", 7);
        peer->wanted_bytes = 11;
        int rc = clamd_ask_agent(&address, "verb key=1\n", payload, -1,
                                 clock_monotonic_ns() + LATER_NS, &err);
        join(peer);
        print_message("%s: %d %s\n", cases[i].what, rc, err.message);
        assert_int_equal(rc, cases[i].rc);
        assert_memory_equal(peer->got, "verb key=1\n", 11);
        close(payload);
        end(peer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_answers),
        cmocka_unit_test(check_stream),
        cmocka_unit_test(check_cancel),
        cmocka_unit_test(check_agent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
