// SPDX-License-Identifier: BSD-2-Clause
// clamd's protocol, over the guest's vsock (clamd(8), section COMMANDS).
//
// A connection is a session (zIDSESSION): 300 files a second with a connection each became 900, as
// the guest need not begin a process of the agent's and a thread's work for each. In it, each
// request gets a number, and answers begin with it. A file goes as zINSTREAM and pieces that each
// have their length in front, an empty one last; a small file leaves in one piece with all around
// it, so that the guest is woken once.
//
// What the scanner says is a guest's word: bounded, and not printed as it comes.
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/clamd.h"

#define PIECE_BYTES 65536u  // of a file, at a time
#define ANSWER_BYTES 1024u
#define BUSY_WAIT_MS 10  // the monitor has not accepted those that came before

// ---- Sockets that end in time -------------------------------------------------------------------

static int rest_ms(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t rest = now_ns < deadline_ns ? (deadline_ns - now_ns) / 1000000u + 1 : 0;
    return rest < 3600000u ? (int)rest : 3600000;
}

// Waits for `events` of `fd` (-1: only for the time to pass).
static int wait_for(int fd, short events, int cancel_fd, uint64_t deadline_ns)
{
    for (;;) {
        int rest = rest_ms(deadline_ns);
        struct pollfd fds[] = {{.fd = fd, .events = events}, {.fd = cancel_fd, .events = POLLIN}};
        int n = poll(fds, 2, rest);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0 && fds[1].revents)
            return -ECANCELED;
        if (n > 0)
            return 0;
        if (rest == 0)
            return -ETIMEDOUT;
    }
}

static int send_all(int fd, const void *bytes, size_t count, int cancel_fd, uint64_t deadline_ns)
{
    const char *next = bytes;
    while (count > 0) {
        ssize_t n = send(fd, next, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            next += n;
            count -= (size_t)n;
        } else if (errno == EAGAIN) {
            int rc = wait_for(fd, POLLOUT, cancel_fd, deadline_ns);
            if (rc < 0)
                return rc;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

// Takes text up to `end` out of the socket, and nothing of what follows; without the end, and
// printable. The length, -EMSGSIZE: it is too long, -ECONNRESET: the peer is gone.
static int receive_text(int fd, char end, char *text, size_t capacity, int cancel_fd,
                        uint64_t deadline_ns)
{
    size_t have = 0;
    for (;;) {
        ssize_t n = recv(fd, text + have, capacity - have, MSG_PEEK | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLIN, cancel_fd, deadline_ns);
            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ECONNRESET;
        char *last = memchr(text + have, end, (size_t)n);
        size_t bytes = last ? (size_t)(last + 1 - (text + have)) : (size_t)n;
        if (recv(fd, text + have, bytes, MSG_DONTWAIT) != (ssize_t)bytes)
            return -EIO;
        have += bytes;
        if (last)
            break;
        if (have == capacity)
            return -EMSGSIZE;
    }
    text[--have] = 0;
    for (size_t i = 0; i < have; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            text[i] = '?';
    return (int)have;
}

// ---- Connections --------------------------------------------------------------------------------

static int connect_path(const char *path, int cancel_fd, uint64_t deadline_ns)
{
    int fd;
    while ((fd = unix_connect(path, SOCK_STREAM)) == -EAGAIN || fd == -EINTR) {
        uint64_t soon_ns = clock_monotonic_ns() + BUSY_WAIT_MS * 1000000ull;
        int rc = wait_for(-1, 0, cancel_fd, soon_ns < deadline_ns ? soon_ns : deadline_ns);
        if (rc != -ETIMEDOUT || rest_ms(deadline_ns) == 0)
            return rc;
    }
    return fd;
}

// The device's greeting (virtio/virtio.h): the connection ends when nobody listens in the guest.
static int greet(int fd, uint32_t port, int cancel_fd, uint64_t deadline_ns)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "CONNECT %u\n", port);
    int rc = send_all(fd, text, (size_t)n, cancel_fd, deadline_ns);
    if (rc == 0)
        rc = receive_text(fd, '\n', text, sizeof(text), cancel_fd, deadline_ns);
    if (rc == -ECONNRESET || rc == -EPIPE)
        return -ECONNREFUSED;
    return rc < 0 ? rc : strncmp(text, "OK ", 3) == 0 ? 0 : -EPROTO;
}

static int dial(const struct clamd_address *address, int cancel_fd, uint64_t deadline_ns)
{
    int fd = connect_path(address->path, cancel_fd, deadline_ns);
    int rc = fd < 0 || !address->port ? 0 : greet(fd, address->port, cancel_fd, deadline_ns);
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

int clamd_open(struct clamd *clamd, const struct clamd_address *address, uint64_t deadline_ns)
{
    static const char session[] = "zIDSESSION";
    int fd = dial(address, clamd->cancel_fd, deadline_ns);
    if (fd < 0)
        return fd;
    int rc = send_all(fd, session, sizeof(session), clamd->cancel_fd, deadline_ns);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    clamd->fd = fd;
    clamd->scans = 0;
    return 0;
}

void clamd_close(struct clamd *clamd)
{
    if (clamd->fd >= 0)
        close(clamd->fd);
    clamd->fd = -1;
}

int clamd_ping(const struct clamd_address *address, int cancel_fd, uint64_t deadline_ns)
{
    static const char ping[] = "zPING";
    char text[64];
    int fd = dial(address, cancel_fd, deadline_ns);
    if (fd < 0)
        return fd;
    int rc = send_all(fd, ping, sizeof(ping), cancel_fd, deadline_ns);
    if (rc == 0)
        rc = receive_text(fd, 0, text, sizeof(text), cancel_fd, deadline_ns);
    close(fd);
    return rc < 0 ? rc : strcmp(text, "PONG") == 0 ? 0 : -EPROTO;
}

// ---- Scanning -----------------------------------------------------------------------------------

// Pieces with their lengths in front; what has gathered leaves when it is full, and at the end.
struct stream {
    struct clamd *clamd;
    uint64_t deadline_ns;
    size_t bytes;
    uint8_t out[16 + sizeof(uint32_t) + PIECE_BYTES + sizeof(uint32_t)];
};

static void stream_put(struct stream *stream, const void *bytes, size_t count)
{
    memcpy(stream->out + stream->bytes, bytes, count);
    stream->bytes += count;
}

static int stream_flush(struct stream *stream)
{
    int rc = send_all(stream->clamd->fd, stream->out, stream->bytes, stream->clamd->cancel_fd,
                      stream->deadline_ns);
    stream->bytes = 0;
    return rc;
}

static int stream_file(struct stream *stream, int file)
{
    uint64_t offset = 0;
    stream_put(stream, "zINSTREAM", 10);
    for (;;) {
        uint8_t *piece = stream->out + stream->bytes + sizeof(uint32_t);
        int64_t n = fd_pread_full(file, piece, PIECE_BYTES, offset);
        if (n < 0)
            return -EIO;
        uint32_t length = htonl((uint32_t)n);
        memcpy(stream->out + stream->bytes, &length, sizeof(length));
        stream->bytes += sizeof(length) + (size_t)n;
        offset += (uint64_t)n;
        if (n > 0 && n < PIECE_BYTES) {  // the end, most likely; else the next turn's empty piece
            uint8_t more;
            if (pread(file, &more, 1, (off_t)offset) == 0) {
                stream_put(stream, &(uint32_t){0}, sizeof(uint32_t));
                n = 0;
            }
        }
        int rc = stream_flush(stream);
        if (rc < 0 || n == 0)
            return rc;
        if (rest_ms(stream->deadline_ns) == 0)  // nor does a file that grows go on for ever
            return -ETIMEDOUT;
    }
}

// "NUMBER: stream: OK", "NUMBER: stream: NAME FOUND", "... ERROR".
static int take_verdict(char *text, char signature[CLAMD_SIGNATURE_BYTES])
{
    static const char stream[] = "stream: ", found[] = " FOUND";
    char *said = strstr(text, stream);
    said = said ? said + strlen(stream) : text;
    size_t length = strlen(said);
    if (strcmp(said, "OK") == 0)
        return CLAMD_CLEAN;
    bool infected = length > strlen(found) && strcmp(said + length - strlen(found), found) == 0;
    if (infected)
        said[length - strlen(found)] = 0;
    snprintf(signature, CLAMD_SIGNATURE_BYTES, "%.*s", (int)CLAMD_SIGNATURE_BYTES - 1, said);
    return infected                              ? CLAMD_FOUND
           : strstr(text, "size limit exceeded") ? CLAMD_TOO_LARGE
                                                 : -EREMOTEIO;
}

int clamd_scan(struct clamd *clamd, int file, uint64_t deadline_ns,
               char signature[CLAMD_SIGNATURE_BYTES])
{
    char text[ANSWER_BYTES];
    *signature = 0;
    struct stream *stream = malloc(sizeof(*stream));
    if (!stream)
        return -ENOMEM;
    stream->clamd = clamd;
    stream->deadline_ns = deadline_ns;
    stream->bytes = 0;
    int sent = stream_file(stream, file);
    free(stream);
    if (sent < 0 && sent != -EPIPE && sent != -ECONNRESET)
        return sent;
    // Who does not take any more of the file may have said why.
    int rc = receive_text(clamd->fd, 0, text, sizeof(text), clamd->cancel_fd, deadline_ns);
    if (rc < 0)
        return rc;
    clamd->scans++;
    rc = take_verdict(text, signature);
    return rc == CLAMD_CLEAN && sent < 0 ? -EPROTO : rc;
}

// ---- The agent ----------------------------------------------------------------------------------

static int send_file(int fd, int file, int cancel_fd, uint64_t deadline_ns)
{
    uint8_t *piece = malloc(PIECE_BYTES);
    uint64_t offset = 0;
    int64_t n = piece ? 1 : -ENOMEM;
    int rc = 0;
    while (n > 0 && rc == 0) {
        n = fd_pread_full(file, piece, PIECE_BYTES, offset);
        if (n > 0)
            rc = send_all(fd, piece, (size_t)n, cancel_fd, deadline_ns);
        offset += (uint64_t)(n > 0 ? n : 0);
    }
    free(piece);
    return n < 0 ? (int)n : rc;
}

static int take_answer(int fd, int cancel_fd, uint64_t deadline_ns, struct error *err)
{
    char text[ANSWER_BYTES];
    for (;;) {  // at most until the deadline
        int rc = receive_text(fd, '\n', text, sizeof(text), cancel_fd, deadline_ns);
        if (rc < 0)
            return error_set_errno(err, rc, "the guest's agent does not answer");
        if (strcmp(text, "ok") == 0)
            return 0;
        if (strncmp(text, "error", 5) == 0)
            return error_set(err, -EREMOTEIO, "the guest says: %s", text[5] ? text + 6 : text);
        if (strncmp(text, "- ", 2) != 0)
            return error_set(err, -EPROTO, "the guest's agent gives a wrong answer");
    }
}

int clamd_ask_agent(const struct clamd_address *address, const char *line, int payload,
                    int cancel_fd, uint64_t deadline_ns, struct error *err)
{
    int fd = dial(address, cancel_fd, deadline_ns);
    if (fd < 0)
        return error_set_errno(err, fd, "cannot reach the guest's agent at \"%s\"", address->path);
    int rc = send_all(fd, line, strlen(line), cancel_fd, deadline_ns);
    if (rc < 0)
        error_set_errno(err, rc, "cannot ask the guest's agent");
    else
        rc = take_answer(fd, cancel_fd, deadline_ns, err);
    if (rc == 0 && payload >= 0) {
        rc = send_file(fd, payload, cancel_fd, deadline_ns);
        // Who has heard enough may have said why.
        if (rc == 0 || rc == -EPIPE || rc == -ECONNRESET)
            rc = take_answer(fd, cancel_fd, deadline_ns, err);
        else
            error_set_errno(err, rc, "cannot send the guest what it needs");
    }
    close(fd);
    return rc;
}
