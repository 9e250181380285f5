// SPDX-License-Identifier: BSD-2-Clause
// The console's ring: order, wrap, overrun, throttle, the event, files that get shorter; and the
// status page.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/monitor.h"
#include "unit.h"

#define CAPACITY 4096u

struct fixture {
    int fd, event_fd;
    struct console_ring *writer, *reader;
};

static struct fixture open_ring(bool sealed)
{
    struct fixture f = {.fd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                        .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    struct error err;
    assert_int_equal(console_ring_create(f.fd, CAPACITY, &err), 0);
    if (sealed)
        assert_int_equal(fcntl(f.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(console_ring_open(&f.writer, f.fd, true, &err), 0);
    assert_int_equal(console_ring_open(&f.reader, f.fd, false, &err), 0);
    console_ring_set_event(f.writer, f.event_fd);
    return f;
}

static void close_ring(struct fixture *f)
{
    console_ring_close(f->writer);
    console_ring_close(f->reader);
    close(f->fd);
    close(f->event_fd);
}

// The byte at a position, as tests write them.
static uint8_t byte_at(uint64_t position)
{
    return (uint8_t)(position * 7 + (position >> 8));
}

static void write_bytes(struct console_ring *ring, uint64_t *position, size_t count)
{
    uint8_t bytes[4 * CAPACITY];
    for (size_t i = 0; i < count; i++)
        bytes[i] = byte_at(*position + i);
    console_ring_write(ring, bytes, count);
    *position += count;
}

// Reads what there is and checks it; returns the bytes.
static size_t read_bytes(struct console_ring *ring, uint64_t *position, size_t capacity)
{
    uint8_t bytes[4 * CAPACITY];
    size_t count = console_ring_read(ring, position, bytes, capacity);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(bytes[i], byte_at(*position - count + i));
    return count;
}

static void test_order(void **state)
{
    (void)state;
    print_message(
        "what is written is read, over many turns of the ring, mapped and from the file\n");
    for (int sealed = 0; sealed < 2; sealed++) {
        struct fixture f = open_ring(sealed);
        uint64_t written = 0, read = 0, late = 0;
        for (size_t turn = 0; turn < 100; turn++) {
            write_bytes(f.writer, &written, turn * 37 % CAPACITY);
            assert_int_equal(read_bytes(f.reader, &read, SIZE_MAX), turn * 37 % CAPACITY);
            assert_int_equal(read, written);
        }
        assert_int_equal(console_ring_end(f.reader), written);
        assert_int_equal(read_bytes(f.reader, &read, SIZE_MAX), 0);
        assert_int_equal(console_ring_start(f.reader), written - CAPACITY);
        assert_int_equal(read_bytes(f.reader, &late, SIZE_MAX), CAPACITY);
        close_ring(&f);
    }
}

static void test_overrun(void **state)
{
    (void)state;
    print_message("a reader that is late gets what there still is, and no writer waits for it\n");
    struct fixture f = open_ring(true);
    uint64_t written = 0, read = 0;
    write_bytes(f.writer, &written, 100);
    assert_int_equal(read_bytes(f.reader, &read, 10), 10);
    write_bytes(f.writer, &written, 3 * CAPACITY + 5);
    assert_int_equal(read_bytes(f.reader, &read, SIZE_MAX), CAPACITY);
    assert_int_equal(read, written);
    uint64_t nonsense = UINT64_MAX - 3;
    assert_int_equal(read_bytes(f.reader, &nonsense, SIZE_MAX), CAPACITY);
    close_ring(&f);
}

static uint64_t event_count(const struct fixture *f)
{
    uint64_t count = 0;
    (void)!read(f->event_fd, &count, sizeof(count));
    return count;
}

static void test_event(void **state)
{
    (void)state;
    print_message("the event comes once for each time that it was asked for\n");
    for (int sealed = 0; sealed < 2; sealed++) {
        struct fixture f = open_ring(sealed);
        uint64_t written = 0;
        write_bytes(f.writer, &written, 1);
        assert_int_equal(event_count(&f), 0);
        assert_false(console_ring_await(f.reader, 0));  // there is more
        assert_true(console_ring_await(f.reader, written));
        write_bytes(f.writer, &written, 1);
        write_bytes(f.writer, &written, 1);
        assert_int_equal(event_count(&f), 1);
        close_ring(&f);
    }
}

struct throttled {
    struct fixture f;
    uint64_t total;
};

static void *throttled_writer(void *opaque)
{
    struct throttled *t = opaque;
    uint64_t written = 0;
    while (written < t->total)
        write_bytes(t->f.writer, &written, 999);
    return NULL;
}

static void test_throttle(void **state)
{
    (void)state;
    print_message("with throttle a slow reader misses nothing\n");
    struct throttled t = {.f = open_ring(true), .total = 64 * CAPACITY};
    pthread_t thread;
    uint64_t read = 0, before;
    console_ring_throttle(t.f.reader, true);
    assert_int_equal(pthread_create(&thread, NULL, throttled_writer, &t), 0);
    while (read < t.total) {
        before = read;
        size_t count = read_bytes(t.f.reader, &read, 500);
        assert_int_equal(read - before, count);  // none was skipped
        if (count == 0)
            usleep(100);
        console_ring_consumed(t.f.reader, read);
    }
    print_message("and a writer that waits is let go\n");
    console_ring_abandon(t.f.writer);
    pthread_join(thread, NULL);
    close_ring(&t.f);

    t = (struct throttled){.f = open_ring(true), .total = 64 * CAPACITY};
    console_ring_throttle(t.f.reader, true);
    assert_int_equal(pthread_create(&thread, NULL, throttled_writer, &t), 0);
    while (console_ring_end(t.f.reader) < CAPACITY)
        usleep(100);
    console_ring_throttle(t.f.reader, false);
    pthread_join(thread, NULL);
    close_ring(&t.f);
}

// Writes as fast as it can until told to end.
struct racer {
    struct fixture f;
    atomic_bool end;
};

static void *racing_writer(void *opaque)
{
    struct racer *racer = opaque;
    uint64_t written = 0;
    while (!atomic_load(&racer->end))
        write_bytes(racer->f.writer, &written, 1 + written % 700);
    return NULL;
}

static void test_race(void **state)
{
    (void)state;
    print_message("a reader never sees bytes of two turns mixed\n");
    struct racer racer = {.f = open_ring(true)};
    pthread_t thread;
    uint64_t read = 0, total = 0;
    assert_int_equal(pthread_create(&thread, NULL, racing_writer, &racer), 0);
    for (int i = 0; i < 20000; i++)
        total += read_bytes(racer.f.reader, &read, SIZE_MAX);
    // On a busy machine the writer may not have begun.
    const uint64_t until_ns = clock_monotonic_ns() + 60000000000u;
    while (total == 0 && clock_monotonic_ns() < until_ns) {
        sched_yield();
        total += read_bytes(racer.f.reader, &read, SIZE_MAX);
    }
    atomic_store(&racer.end, true);
    pthread_join(thread, NULL);
    print_message("%llu of %llu bytes were read\n", (unsigned long long)total,
                  (unsigned long long)console_ring_end(racer.f.reader));
    assert_true(total > 0);
    close_ring(&racer.f);
}

static void test_hostile(void **state)
{
    (void)state;
    print_message("a writer that lies or cuts the file gives the reader wrong bytes and no harm\n");
    struct fixture f = open_ring(false);
    uint64_t position = 0, header[8];
    uint8_t bytes[2 * CAPACITY];
    for (int i = 0; i < 64; i++) {
        memset(header, i * 37 + 200, sizeof(header));
        assert_int_equal(pwrite(f.fd, header, sizeof(header) - 8, 8), sizeof(header) - 8);
        assert_true(console_ring_read(f.reader, &position, bytes, sizeof(bytes)) <= CAPACITY);
        (void)console_ring_await(f.reader, position);
    }
    for (off_t length = 4096 + 100; length >= 0; length -= 2098) {
        assert_int_equal(ftruncate(f.fd, length), 0);
        assert_true(console_ring_read(f.reader, &position, bytes, sizeof(bytes)) <= CAPACITY);
        console_ring_consumed(f.reader, position);
    }
    close_ring(&f);

    struct console_ring *ring;
    struct error err;
    int fd = memfd_create("none", MFD_CLOEXEC);
    static const off_t lengths[] = {0, 4096, 8192, 4096 + 3 * 4096, 4096 + 100};
    for (size_t i = 0; i < BASE_COUNT_OF(lengths); i++) {
        assert_int_equal(ftruncate(fd, lengths[i]), 0);
        assert_int_equal(console_ring_open(&ring, fd, true, &err), -EINVAL);
        assert_int_equal(console_ring_open(&ring, fd, false, &err), -EINVAL);
    }
    assert_int_equal(console_ring_create(fd, 5000, &err), -EINVAL);
    close(fd);
}

static void test_status(void **state)
{
    (void)state;
    print_message(
        "the first end is the end; what a reader gets is text; what is no page is refused\n");
    int fd = memfd_create("status", MFD_CLOEXEC);
    struct status_page *page, copy;
    struct error err;
    assert_int_equal(status_page_read(&copy, fd), -EINVAL);
    assert_int_equal(status_page_create(fd, &err), 0);
    assert_int_equal(status_page_open(&page, fd, &err), 0);
    assert_int_equal(status_page_read(&copy, fd), 0);
    assert_int_equal(copy.end, MONITOR_RUNNING);
    status_page_end(page, MONITOR_ERROR, 7, "some\nreason");
    status_page_end(page, MONITOR_CRASHED, 11, NULL);
    assert_int_equal(status_page_read(&copy, fd), 0);
    assert_int_equal(copy.end, MONITOR_ERROR);
    assert_int_equal(copy.code, 7);
    assert_string_equal(copy.why, "some?reason");
    memset(page->why, 'x', sizeof(page->why));
    assert_int_equal(status_page_read(&copy, fd), 0);
    assert_int_equal(strlen(copy.why), STATUS_WHY_BYTES - 1);
    assert_string_equal(monitor_end_name(MONITOR_CRASHED), "crashed");
    assert_string_equal(monitor_end_name((enum monitor_end)1000), "unknown");
    status_page_close(page);
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(status_page_read(&copy, fd), -EINVAL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),  cmocka_unit_test(test_overrun),
        cmocka_unit_test(test_event),  cmocka_unit_test(test_throttle),
        cmocka_unit_test(test_race),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
