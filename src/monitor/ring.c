// SPDX-License-Identifier: BSD-2-Clause
// The console's ring, in memory that monitor and supervisor map.
//
// The writer announces (`reserved`) what it is going to overwrite, writes, and then tells the new
// end (`head`). A reader copies and looks at `reserved` afterwards: what had been announced by then
// may have been overwritten under its hands and is dropped. So readers need no lock, cost the
// writer nothing, and cannot hold it up.
//
// The reader trusts no number in the ring: positions are only ever used modulo the capacity, which
// it knows from the length of the file. A monitor that lies gives it wrong bytes, and no others
// than the ring's. One that shortens the file would kill a reader that has it mapped: so only what
// is sealed against that is mapped for reading, and all else is read from the file.
//
// Waiting is by futex on `changes`, which counts whatever a waiting writer may be waiting for; the
// futex is shared between processes.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/monitor.h"

#define RING_MAGIC 0x31676e69726b7473u  // "stkring1"
#define HEADER_BYTES 4096u

struct ring_header {
    uint64_t magic;
    // The writer's, bytes since the beginning; reserved >= head.
    _Atomic uint64_t reserved, head;
    _Atomic uint32_t wanted;  // a reader waits for the event
    // The reader's.
    _Atomic uint32_t throttle;
    _Atomic uint64_t consumed;
    _Atomic uint32_t changes;  // futex
};
_Static_assert(sizeof(struct ring_header) <= HEADER_BYTES, "the bytes follow the header's page");
_Static_assert(sizeof(_Atomic uint32_t) == 4, "a futex is 32 bits");

struct console_ring {
    struct ring_header *header;  // NULL: a reader of a file that may get shorter
    uint8_t *bytes;
    int fd;  // of such a file
    uint64_t capacity;
    pthread_mutex_t lock;  // of the writers
    _Atomic int event_fd;
    atomic_bool abandoned;
};

static bool capacity_is_good(uint64_t capacity)
{
    return capacity >= MEMORY_PAGE_BYTES && capacity <= 1u << 30 &&
           (capacity & (capacity - 1)) == 0;
}

int console_ring_create(int fd, uint64_t capacity_bytes, struct error *err)
{
    const struct ring_header header = {.magic = RING_MAGIC};
    if (!capacity_is_good(capacity_bytes))
        return error_set(err, -EINVAL, "a console ring of %llu bytes is not possible",
                         (unsigned long long)capacity_bytes);
    if (ftruncate(fd, (off_t)(HEADER_BYTES + capacity_bytes)) < 0 ||
        pwrite(fd, &header, sizeof(header), 0) != sizeof(header))
        return error_set_errno(err, -errno, "cannot make the console's ring");
    return 0;
}

// The capacity of the ring in a file, or -EINVAL.
static int64_t capacity_of(int fd)
{
    struct stat st;
    uint64_t magic;
    if (fstat(fd, &st) < 0)
        return -errno;
    bool good = S_ISREG(st.st_mode) && st.st_size > HEADER_BYTES &&
                capacity_is_good((uint64_t)st.st_size - HEADER_BYTES) &&
                pread(fd, &magic, sizeof(magic), 0) == sizeof(magic) && magic == RING_MAGIC;
    return good ? st.st_size - HEADER_BYTES : -EINVAL;
}

static int map_ring(struct console_ring *ring, int fd)
{
    void *map =
        mmap(NULL, HEADER_BYTES + ring->capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    ring->header = map;
    ring->bytes = (uint8_t *)map + HEADER_BYTES;
    return 0;
}

static bool is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK);
}

int console_ring_open(struct console_ring **out, int fd, bool writer, struct error *err)
{
    int64_t capacity = capacity_of(fd);
    struct console_ring *ring = capacity > 0 ? calloc(1, sizeof(*ring)) : NULL;
    int rc = capacity > 0 ? -ENOMEM : (int)capacity;
    if (!ring)
        return error_set_errno(err, rc, "cannot use the console's ring");
    *ring = (struct console_ring){.capacity = (uint64_t)capacity, .fd = -1, .event_fd = -1};
    pthread_mutex_init(&ring->lock, NULL);
    if (writer || is_sealed(fd))
        rc = map_ring(ring, fd);
    else
        rc = ring->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (rc < 0) {
        rc = error_set_errno(err, ring->fd < 0 && !writer ? -errno : rc,
                             "cannot use the console's ring");
        console_ring_close(ring);
        return rc;
    }
    *out = ring;
    return 0;
}

void console_ring_close(struct console_ring *ring)
{
    if (!ring)
        return;
    if (ring->header)
        munmap(ring->header, HEADER_BYTES + ring->capacity);
    if (ring->fd >= 0)
        close(ring->fd);
    pthread_mutex_destroy(&ring->lock);
    free(ring);
}

// ---- Writing ------------------------------------------------------------------------------------

void console_ring_set_event(struct console_ring *ring, int event_fd)
{
    // Not in the midst of a signal to the old one, which may be closed next.
    pthread_mutex_lock(&ring->lock);
    ring->event_fd = event_fd;
    pthread_mutex_unlock(&ring->lock);
}

// Bytes that may be written now, at least 1.
static uint64_t wait_for_room(struct console_ring *ring)
{
    struct ring_header *header = ring->header;
    for (;;) {
        uint32_t changes = atomic_load(&header->changes);
        if (atomic_load(&ring->abandoned) || !atomic_load(&header->throttle))
            return ring->capacity;
        uint64_t used = atomic_load(&header->head) - atomic_load(&header->consumed);
        if (used < ring->capacity)
            return ring->capacity - used;
        syscall(SYS_futex, &header->changes, FUTEX_WAIT, changes, NULL, NULL, 0);
    }
}

static void copy_in(struct console_ring *ring, uint64_t position, const uint8_t *bytes,
                    uint64_t count)
{
    uint64_t at = position & (ring->capacity - 1), first = ring->capacity - at;
    if (first > count)
        first = count;
    memcpy(ring->bytes + at, bytes, first);
    memcpy(ring->bytes, bytes + first, count - first);
}

static void write_part(struct console_ring *ring, const uint8_t *bytes, uint64_t count)
{
    struct ring_header *header = ring->header;
    uint64_t head = atomic_load_explicit(&header->head, memory_order_relaxed);
    atomic_store_explicit(&header->reserved, head + count, memory_order_relaxed);
    // The announcement comes before the bytes, against the reader's fence between copy and look.
    atomic_thread_fence(memory_order_seq_cst);
    copy_in(ring, head, bytes, count);
    // Sequentially consistent, as is what the reader does in console_ring_await: either it sees the
    // new head, or its `wanted` is seen here.
    atomic_store(&header->head, head + count);
    uint64_t one = 1;
    if (atomic_exchange(&header->wanted, 0) && ring->event_fd >= 0)
        (void)!write(ring->event_fd, &one, sizeof(one));
}

void console_ring_write(struct console_ring *ring, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    pthread_mutex_lock(&ring->lock);
    while (count > 0) {
        uint64_t part = wait_for_room(ring);
        if (part > count)
            part = count;
        write_part(ring, from, part);
        from += part;
        count -= part;
    }
    pthread_mutex_unlock(&ring->lock);
}

static void wake_writer(struct ring_header *header)
{
    int saved = errno;
    atomic_fetch_add(&header->changes, 1);
    syscall(SYS_futex, &header->changes, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    errno = saved;
}

void console_ring_abandon(struct console_ring *ring)
{
    atomic_store(&ring->abandoned, true);
    wake_writer(ring->header);
}

// ---- Reading ------------------------------------------------------------------------------------

#define HEADER_FIELD(member) offsetof(struct ring_header, member)

// What the file does not have (any more) is zeros.
static void get(const struct console_ring *ring, uint64_t offset, void *bytes, size_t count)
{
    if (ring->header) {
        memcpy(bytes, (const uint8_t *)ring->header + offset, count);
        return;
    }
    int64_t n = fd_pread_full(ring->fd, bytes, count, offset);
    size_t got = n < 0 ? 0 : (size_t)n;
    memset((uint8_t *)bytes + got, 0, count - got);
}

static uint64_t get_count(const struct console_ring *ring, uint64_t field)
{
    if (ring->header)
        return atomic_load((_Atomic uint64_t *)((uint8_t *)ring->header + field));
    // The file's bytes are copied while they change: twice the same is one of the values.
    uint64_t value, again;
    get(ring, field, &value, sizeof(value));
    for (int i = 0; i < 8; i++, value = again) {
        get(ring, field, &again, sizeof(again));
        if (again == value)
            break;
    }
    return value;
}

static void set_word(struct console_ring *ring, uint64_t field, uint32_t value)
{
    if (ring->header)
        atomic_store((_Atomic uint32_t *)((uint8_t *)ring->header + field), value);
    else
        (void)!pwrite(ring->fd, &value, sizeof(value), (off_t)field);
    atomic_thread_fence(memory_order_seq_cst);
}

uint64_t console_ring_end(const struct console_ring *ring)
{
    return get_count(ring, HEADER_FIELD(head));
}

// Behind what may be overwritten at this moment.
uint64_t console_ring_start(const struct console_ring *ring)
{
    uint64_t reserved = get_count(ring, HEADER_FIELD(reserved));
    return reserved > ring->capacity ? reserved - ring->capacity : 0;
}

static void copy_out(const struct console_ring *ring, uint64_t position, uint8_t *bytes,
                     uint64_t count)
{
    uint64_t at = position & (ring->capacity - 1), first = ring->capacity - at;
    if (first > count)
        first = count;
    get(ring, HEADER_BYTES + at, bytes, first);
    get(ring, HEADER_BYTES, bytes + first, count - first);
}

size_t console_ring_read(const struct console_ring *ring, uint64_t *position, void *bytes,
                         size_t capacity)
{
    uint64_t end = console_ring_end(ring), start = console_ring_start(ring);
    if (*position < start || *position > end)
        *position = start;
    uint64_t count = *position < end ? end - *position : 0;
    if (count > capacity)
        count = capacity;
    if (count > ring->capacity)
        count = ring->capacity;
    copy_out(ring, *position, bytes, count);
    atomic_thread_fence(memory_order_seq_cst);
    start = console_ring_start(ring);
    uint64_t lost = start > *position ? start - *position : 0;
    if (lost > count)
        lost = count;
    memmove(bytes, (uint8_t *)bytes + lost, count - lost);
    *position += count;
    return count - lost;
}

bool console_ring_await(struct console_ring *ring, uint64_t position)
{
    set_word(ring, HEADER_FIELD(wanted), 1);
    return console_ring_end(ring) == position;
}

// Without a mapping there is no waking of writers, and none is to wait.
void console_ring_throttle(struct console_ring *ring, bool on)
{
    if (!ring->header)
        return;
    atomic_store(&ring->header->throttle, on);
    wake_writer(ring->header);
}

void console_ring_consumed(struct console_ring *ring, uint64_t position)
{
    if (ring->header && atomic_exchange(&ring->header->consumed, position) != position)
        wake_writer(ring->header);
}
