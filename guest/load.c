// SPDX-License-Identifier: BSD-2-Clause
// load: keeps a guest's devices busy, at a pace, and checks all that comes back.
//
//   load disk DEVICE PAUSE_MS       writes and syncs blocks, reads others back; at the end, all
//   load tcp ADDRESS PORT PAUSE_MS  sends messages to a peer that sends them back
//   load echo PORT                  sends messages back to the peer that connects
//   load wake PAUSE_MS              on each hart a thread that the timer wakes, and that wakes one
//                                   on the next hart
//
// Each runs until SIGTERM and then says in a line of JSON what it has done, what was wrong, and a
// checksum that the host compares with its own. The peer on the host is tools/guest/busy.py.
#define _GNU_SOURCE  // CPU_SET, O_DIRECT
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#define BLOCK_BYTES 16384u
#define BLOCKS_MAX 65536u
#define MESSAGE_BYTES 8192u
#define WRITERS 4u
#define UNANSWERED_MAX 4u
#define HARTS_MAX 16u

static atomic_bool ending;
static uint32_t crc_table[256];

static void on_end(int signal)
{
    (void)signal;
    atomic_store(&ending, true);
}

static int fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    return 1;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void sleep_until(uint64_t us)
{
    struct timespec when = {.tv_sec = (time_t)(us / 1000000),
                            .tv_nsec = (long)(us % 1000000) * 1000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
        ;
}

// ---- What blocks and messages hold --------------------------------------------------------------

struct header {
    uint64_t number, generation;
    uint64_t crc;  // of what follows
};

// As zlib has it.
static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        crc_table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            crc_table[i] = (crc_table[i] >> 1) ^ (crc_table[i] & 1 ? 0xedb88320u : 0);
    }
}

static uint32_t crc32(uint32_t crc, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;

    for (crc = ~crc; count--; at++)
        crc = crc_table[(crc ^ *at) & 0xff] ^ (crc >> 8);
    return ~crc;
}

static void fill(void *bytes, size_t count, uint64_t number, uint64_t generation)
{
    struct header *header = bytes;
    uint64_t *words = (uint64_t *)(header + 1);
    size_t body = count - sizeof(*header);
    uint64_t x = (number << 32) + generation + 1;

    for (size_t i = 0; i < body / sizeof(*words); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = x;
    }
    *header = (struct header){number, generation, crc32(0, words, body)};
}

static bool is_right(const void *bytes, size_t count, uint64_t number, uint64_t generation)
{
    const struct header *header = bytes;

    return header->number == number && header->generation == generation &&
           header->crc == crc32(0, header + 1, count - sizeof(*header));
}

// ---- disk ---------------------------------------------------------------------------------------

struct disk {
    int fd;
    uint64_t blocks, pause_us;
    atomic_ulong written, read, wrong, failed, slowest_us;
    uint64_t generations[BLOCKS_MAX];  // 0: never written
};

struct writer {
    struct disk *disk;
    pthread_t thread;
    uint64_t first;  // and every WRITERS-th block after it
};

static void write_block(struct disk *disk, void *bytes, uint64_t block)
{
    uint64_t begin = now_us();

    fill(bytes, BLOCK_BYTES, block, disk->generations[block] + 1);
    if (pwrite(disk->fd, bytes, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES ||
        fdatasync(disk->fd))
        disk->failed++;
    disk->generations[block]++;
    disk->written++;
    uint64_t took = now_us() - begin;
    if (took > disk->slowest_us)
        disk->slowest_us = took;
}

static void check_block(struct disk *disk, void *bytes, uint64_t block)
{
    if (!disk->generations[block])
        return;
    memset(bytes, 0, BLOCK_BYTES);
    if (pread(disk->fd, bytes, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES)
        disk->failed++;
    disk->read++;
    if (!is_right(bytes, BLOCK_BYTES, block, disk->generations[block]))
        disk->wrong++;
}

static void *write_blocks(void *opaque)
{
    struct writer *writer = opaque;
    struct disk *disk = writer->disk;
    uint64_t own = disk->blocks / WRITERS, chance = writer->first, when = now_us();
    void *bytes = aligned_alloc(4096, BLOCK_BYTES);

    for (uint64_t i = 0; bytes && !ending; i++) {
        write_block(disk, bytes, writer->first + WRITERS * (i % own));
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        check_block(disk, bytes, writer->first + WRITERS * ((chance >> 33) % own));
        sleep_until(when += disk->pause_us);
    }
    for (uint64_t i = 0; bytes && i < own; i++)
        check_block(disk, bytes, writer->first + WRITERS * i);
    free(bytes);
    return NULL;
}

static int load_disk(const char *path, uint64_t pause_us)
{
    static struct disk disk;
    struct writer writers[WRITERS];
    uint64_t bytes;

    disk.pause_us = pause_us;
    disk.fd = open(path, O_RDWR | O_DIRECT);
    if (disk.fd < 0 || ioctl(disk.fd, BLKGETSIZE64, &bytes))
        return fail(path);
    disk.blocks = bytes / BLOCK_BYTES < BLOCKS_MAX ? bytes / BLOCK_BYTES : BLOCKS_MAX;
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.disk = &disk, .first = i};
        if (pthread_create(&writers[i].thread, NULL, write_blocks, &writers[i]))
            return fail("thread");
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    printf("load: {\"load\":\"disk\",\"blocks\":%lu,\"written\":%lu,\"read\":%lu,\"wrong\":%lu,"
           "\"failed\":%lu,\"slowest_us\":%lu,\"crc\":%u}\n",
           disk.blocks, disk.written, disk.read, disk.wrong, disk.failed, disk.slowest_us,
           crc32(0, disk.generations, disk.blocks * sizeof(*disk.generations)));
    return 0;
}

// ---- tcp and echo -------------------------------------------------------------------------------

// Of all connections; the checksum and what has been sent and received are the last one's.
struct stream {
    uint64_t connections, sent, received, wrong, slowest_us;
    uint32_t crc;  // of all that was received
    char message[MESSAGE_BYTES];
};

static bool transfer(ssize_t (*move)(int, void *, size_t), int fd, char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t moved = move(fd, bytes, count);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return false;
        bytes += moved;
        count -= (size_t)moved;
    }
    return true;
}

static ssize_t send_some(int fd, void *bytes, size_t count)
{
    return send(fd, bytes, count, MSG_NOSIGNAL);
}

static ssize_t receive_some(int fd, void *bytes, size_t count)
{
    return recv(fd, bytes, count, 0);
}

static bool receive(struct stream *stream, int fd)
{
    if (!transfer(receive_some, fd, stream->message, MESSAGE_BYTES))
        return false;
    if (!is_right(stream->message, MESSAGE_BYTES, stream->received, 0))
        stream->wrong++;
    stream->crc = crc32(stream->crc, stream->message, MESSAGE_BYTES);
    stream->received++;
    return true;
}

static void begin_connection(struct stream *stream, int fd)
{
    const int yes = 1, idle_s = 2, probes = 3;

    // So that a peer that was lost without a word is noticed.
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &yes, sizeof(yes));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    stream->connections++;
    stream->sent = stream->received = stream->crc = 0;
}

// Sends and receives until the end, or until the connection is lost.
static void converse(struct stream *stream, int fd, uint64_t pause_us)
{
    uint64_t when = now_us();
    bool good = true;

    while (good && !ending) {
        uint64_t begin = now_us();
        fill(stream->message, MESSAGE_BYTES, stream->sent, 0);
        good = transfer(send_some, fd, stream->message, MESSAGE_BYTES);
        stream->sent += good;
        while (good && stream->sent - stream->received >= UNANSWERED_MAX)
            good = receive(stream, fd);
        if (now_us() - begin > stream->slowest_us)
            stream->slowest_us = now_us() - begin;
        sleep_until(when += pause_us);
    }
    while (good && stream->received < stream->sent)
        good = receive(stream, fd);
}

static void print_stream(const struct stream *stream, const char *name)
{
    printf("load: {\"load\":\"%s\",\"connections\":%lu,\"sent\":%lu,\"received\":%lu,\"wrong\":%lu,"
           "\"slowest_us\":%lu,\"crc\":%u}\n",
           name, stream->connections, stream->sent, stream->received, stream->wrong,
           stream->slowest_us, stream->crc);
}

static int load_tcp(const char *address, uint16_t port, uint64_t pause_us)
{
    static struct stream stream;
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port)};

    if (inet_pton(AF_INET, address, &peer.sin_addr) != 1)
        return fail(address);
    while (!ending) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&peer, sizeof(peer)) == 0) {
            begin_connection(&stream, fd);
            converse(&stream, fd, pause_us);
        }
        close(fd);
        usleep(10000);
    }
    print_stream(&stream, "tcp");
    return 0;
}

static int load_echo(uint16_t port)
{
    static struct stream stream;
    const int yes = 1;
    const struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
        bind(listener, (const struct sockaddr *)&own, sizeof(own)) || listen(listener, 4))
        return fail("listen");
    while (!ending) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;  // SIGTERM
        begin_connection(&stream, fd);
        while (receive(&stream, fd) &&
               transfer(send_some, fd, stream.message, sizeof(stream.message)))
            stream.sent++;
        close(fd);
    }
    print_stream(&stream, "echo");
    return 0;
}

// ---- wake ---------------------------------------------------------------------------------------

// A thread that the timer wakes, and the thread on the next hart that it wakes in turn.
struct pair {
    unsigned hart, next;
    uint64_t pause_us, ticks, woken, tick_late_us, wake_late_us;
    int pipe[2];
    pthread_t timed, other;
};

static void pin(unsigned hart)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(hart, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        fail("pin");
}

static void *tick(void *opaque)
{
    struct pair *pair = opaque;
    uint64_t when = now_us(), none = 0;

    pin(pair->hart);
    while (!ending) {
        sleep_until(when += pair->pause_us);
        uint64_t now = now_us();
        if (now - when > pair->tick_late_us)
            pair->tick_late_us = now - when;
        pair->ticks += write(pair->pipe[1], &now, sizeof(now)) == sizeof(now);
    }
    if (write(pair->pipe[1], &none, sizeof(none)) != sizeof(none))
        fail("pipe");
    return NULL;
}

static void *be_woken(void *opaque)
{
    struct pair *pair = opaque;
    uint64_t sent;

    pin(pair->next);
    while (read(pair->pipe[0], &sent, sizeof(sent)) == sizeof(sent) && sent) {
        uint64_t late = now_us() - sent;
        if (late > pair->wake_late_us)
            pair->wake_late_us = late;
        pair->woken++;
    }
    return NULL;
}

static int load_wake(uint64_t pause_us)
{
    struct pair pairs[HARTS_MAX] = {0};
    unsigned harts = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);

    for (unsigned i = 0; i < harts && i < HARTS_MAX; i++) {
        struct pair *pair = &pairs[i];
        *pair = (struct pair){.hart = i, .next = (i + 1) % harts, .pause_us = pause_us};
        if (pipe(pair->pipe) || pthread_create(&pair->timed, NULL, tick, pair) ||
            pthread_create(&pair->other, NULL, be_woken, pair))
            return fail("thread");
    }
    for (unsigned i = 0; i < harts && i < HARTS_MAX; i++) {
        struct pair *pair = &pairs[i];
        pthread_join(pair->timed, NULL);
        pthread_join(pair->other, NULL);
        printf("load: {\"load\":\"wake\",\"hart\":%u,\"ticks\":%lu,\"woken\":%lu,"
               "\"tick_late_us\":%lu,\"wake_late_us\":%lu}\n",
               i, pair->ticks, pair->woken, pair->tick_late_us, pair->wake_late_us);
    }
    return 0;
}

// -------------------------------------------------------------------------------------------------

static uint64_t number(const char *text)
{
    return strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    // Without SA_RESTART: accept is to return.
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_end}, NULL);
    make_crc_table();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 4 && strcmp(argv[1], "disk") == 0)
        return load_disk(argv[2], 1000 * number(argv[3]));
    if (argc == 5 && strcmp(argv[1], "tcp") == 0)
        return load_tcp(argv[2], (uint16_t)number(argv[3]), 1000 * number(argv[4]));
    if (argc == 3 && strcmp(argv[1], "echo") == 0)
        return load_echo((uint16_t)number(argv[2]));
    if (argc == 3 && strcmp(argv[1], "wake") == 0)
        return load_wake(1000 * number(argv[2]));
    fprintf(stderr, "usage: load disk|tcp|echo|wake ...\n");
    return 2;
}
