// SPDX-License-Identifier: BSD-2-Clause
// strake-serve FOLDER: serves a mounted file system on the connection that is its standard input.
//
// Each thread takes a request, does it, and replies. A second without a reply is filled by a frame
// that belongs to no request: the host knows by it that this guest still runs.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "server.h"

enum { THREADS = 4, CONNECTION = 0 };

static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER, writing = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char bytes[65536];  // that came together with what was read before
    size_t start, end;
} pending;

// ---- Requests -----------------------------------------------------------------------------------

static bool receive_more(void)
{
    if (pending.start == pending.end)
        pending.start = pending.end = 0;
    ssize_t bytes =
        read(CONNECTION, pending.bytes + pending.end, sizeof(pending.bytes) - pending.end);
    if (bytes > 0)
        pending.end += (size_t)bytes;
    return bytes > 0 || (bytes < 0 && errno == EINTR);
}

// What is pending first; what is long goes where it belongs at once.
static bool receive(char *to, size_t count)
{
    while (count > 0) {
        size_t part = pending.end - pending.start;
        if (part > 0) {
            part = part < count ? part : count;
            memcpy(to, pending.bytes + pending.start, part);
            pending.start += part;
        } else if (count >= sizeof(pending.bytes)) {
            ssize_t bytes = read(CONNECTION, to, count);
            if (bytes == 0 || (bytes < 0 && errno != EINTR))
                return false;
            part = bytes < 0 ? 0 : (size_t)bytes;
        } else if (!receive_more()) {
            return false;
        }
        to += part;
        count -= part;
    }
    return true;
}

static bool take_request(struct request *request)
{
    struct fuse_in_header *header = request->header;
    pthread_mutex_lock(&reading);
    bool taken = receive((char *)header, sizeof(*header)) && header->len >= sizeof(*header) &&
                 header->len < REQUEST_MAX;
    if (taken) {
        request->body_bytes = header->len - sizeof(*header);
        taken = receive(request->body, request->body_bytes);
    }
    pthread_mutex_unlock(&reading);
    request->reply_bytes = 0;
    if (taken)
        ((char *)request->body)[request->body_bytes] = 0;
    return taken;
}

// ---- Replies ------------------------------------------------------------------------------------

static bool send_all(struct iovec *parts, int count)
{
    while (count > 0) {
        ssize_t bytes = writev(CONNECTION, parts, count);
        if (bytes < 0 && errno != EINTR)
            return false;
        for (; count > 0 && bytes >= (ssize_t)parts->iov_len; count--)
            bytes -= (ssize_t)parts++->iov_len;
        if (count > 0 && bytes > 0) {
            parts->iov_base = (char *)parts->iov_base + bytes;
            parts->iov_len -= (size_t)bytes;
        }
    }
    return true;
}

static bool reply(uint64_t unique, int rc, void *bytes, size_t count)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof(header) + (rc < 0 ? 0 : count)), .error = rc, .unique = unique};
    struct iovec parts[] = {{.iov_base = &header, .iov_len = sizeof(header)},
                            {.iov_base = bytes, .iov_len = header.len - sizeof(header)}};
    pthread_mutex_lock(&writing);
    bool sent = send_all(parts, 2);
    pthread_mutex_unlock(&writing);
    return sent;
}

static void *serve(void *opaque)
{
    char *memory = malloc(REQUEST_MAX + DATA_MAX);
    struct request request = {.header = (void *)memory,
                              .body = memory + sizeof(struct fuse_in_header),
                              .reply = memory + REQUEST_MAX};
    bool connected = memory;
    (void)opaque;
    while (connected && take_request(&request)) {
        operation *operation = operation_of(request.header->opcode);
        int rc = operation ? operation(&request) : -ENOSYS;
        connected =
            rc == NO_REPLY || reply(request.header->unique, rc, request.reply, request.reply_bytes);
    }
    exit(memory ? 0 : 1);
}

int main(int argc, char **argv)
{
    struct rlimit most = {1u << 20, 1u << 20};
    int root = argc == 2 ? open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (root < 0) {
        fprintf(stderr, "strake-serve: cannot serve \"%s\": %s\n", argc == 2 ? argv[1] : "",
                strerror(errno));
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &most);  // one for each inode that the host knows
    umask(0);                         // the host's kernel has applied the caller's
    inodes_init(root);
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL) != 0)
            return 1;
    }
    while (reply(0, 0, NULL, 0))
        sleep(1);
    return 0;
}
