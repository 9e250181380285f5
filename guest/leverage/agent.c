// SPDX-License-Identifier: BSD-2-Clause
// strake-agent: what a guest offers its host, an inetd for vsock.
//
// /etc/strake/agent.conf has one service a line; # begins a comment:
//
//   PORT exec COMMAND ARGUMENT...   a connection is a process' standard input and output
//   PORT unix PATH                  a connection's bytes go to and from a Unix socket
//
// Each connection is a process of its own (two, for `unix`), so that one that hangs or crashes
// concerns no other, and there are at most CONNECTIONS_MAX: those beyond wait in the kernel until
// one ends. Only the host is listened to: a program of this guest reaches services here in other
// ways.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>  // needs <sys/socket.h> before it

#include "../stream.h"

#define CONFIG "/etc/strake/agent.conf"
#define SERVICES_MAX 16
#define CONNECTIONS_MAX 256
#define WORDS_MAX 32
#define LINE_MAX_BYTES 1024

struct service {
    unsigned port;
    bool is_unix;
    char text[LINE_MAX_BYTES];
    char *words[WORDS_MAX + 1];  // in text: the command, or the path alone; NULL after the last
};

struct agent {
    struct service services[SERVICES_MAX];
    struct pollfd
        fds[SERVICES_MAX + 1];  // a listening socket each, and last the children's signals
    unsigned count, connections;
};

static void split_words(struct service *service)
{
    char *rest = service->text;
    unsigned count = 0;

    service->text[strcspn(rest, "#\n")] = '\0';
    for (char *word; count < WORDS_MAX && (word = strtok_r(rest, " \t", &rest));)
        service->words[count++] = word;
}

// A line of the configuration; false unless it is a service.
static bool parse_service(struct service *service)
{
    char *end;

    if (!service->words[1] || !service->words[2])
        return false;
    unsigned long port = strtoul(service->words[0], &end, 10);
    service->is_unix = strcmp(service->words[1], "unix") == 0;
    if (*end || port == 0 || port >= VMADDR_PORT_ANY ||
        (!service->is_unix && strcmp(service->words[1], "exec") != 0) ||
        (service->is_unix &&
         strlen(service->words[2]) >= sizeof(((struct sockaddr_un *)0)->sun_path)))
        return false;
    service->port = (unsigned)port;
    memmove(service->words, service->words + 2, sizeof(service->words) - 2 * sizeof(char *));
    return true;
}

static bool read_services(struct agent *agent, const char *path)
{
    FILE *file = fopen(path, "re");
    unsigned line = 0;

    if (!file) {
        fprintf(stderr, "strake-agent: cannot read \"%s\": %s\n", path, strerror(errno));
        return false;
    }
    while (agent->count < SERVICES_MAX) {
        struct service *service = &agent->services[agent->count];
        memset(service, 0, sizeof(*service));
        if (!fgets(service->text, sizeof(service->text), file))
            break;
        line++;
        split_words(service);
        if (!service->words[0])
            continue;
        if (!parse_service(service)) {
            fprintf(stderr, "strake-agent: \"%s\", line %u, is no service\n", path, line);
            fclose(file);
            return false;
        }
        agent->count++;
    }
    bool whole = agent->count < SERVICES_MAX || fgetc(file) == EOF;
    if (!whole)
        fprintf(stderr, "strake-agent: \"%s\" has more than %d services\n", path, SERVICES_MAX);
    fclose(file);
    return whole;
}

static int listen_on(unsigned port)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, SOMAXCONN)) {
        fprintf(stderr, "strake-agent: cannot listen on vsock port %u: %s\n", port,
                strerror(errno));
        return -1;
    }
    return fd;
}

// One direction, until its end, which is passed on. When nobody takes the bytes any more, the other
// direction is ended, too.
static void pump(int from, int to)
{
    char bytes[65536];
    ssize_t count;

    while ((count = read(from, bytes, sizeof(bytes))) > 0) {
        if (!write_all(to, bytes, (size_t)count)) {
            shutdown(from, SHUT_RDWR);
            break;
        }
    }
    shutdown(to, SHUT_WR);
}

// Two processes, one a direction: neither can be kept waiting by the other.
static int relay(int peer, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memcpy(address.sun_path, path, strlen(path) + 1);  // it fits: parse_service
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        fprintf(stderr, "strake-agent: cannot connect to \"%s\": %s\n", path, strerror(errno));
        return 1;
    }
    pid_t child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        pump(fd, peer);
        return 0;
    }
    pump(peer, fd);
    waitpid(child, NULL, 0);
    return 0;
}

static int serve(const struct service *service, int peer)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (service->is_unix) {
        signal(SIGPIPE, SIG_IGN);
        return relay(peer, service->words[0]);
    }
    if (dup2(peer, 0) < 0 || dup2(peer, 1) < 0)
        return 1;
    execv(service->words[0], service->words);
    fprintf(stderr, "strake-agent: cannot run \"%s\": %s\n", service->words[0], strerror(errno));
    return 127;
}

static void accept_one(struct agent *agent, unsigned index)
{
    struct sockaddr_vm from = {0};
    socklen_t length = sizeof(from);
    int peer = accept4(agent->fds[index].fd, (struct sockaddr *)&from, &length, SOCK_CLOEXEC);

    if (peer < 0)
        return;
    pid_t child = from.svm_cid == VMADDR_CID_HOST ? fork() : -1;
    if (child == 0)
        _exit(serve(&agent->services[index], peer));
    if (child > 0)
        agent->connections++;
    close(peer);
}

static void reap(struct agent *agent)
{
    struct signalfd_siginfo signals[16];

    if (read(agent->fds[agent->count].fd, signals, sizeof(signals)) < 0)
        return;
    // As many signals may have become one.
    while (waitpid(-1, NULL, WNOHANG) > 0)
        agent->connections--;
}

static void run(struct agent *agent)
{
    struct pollfd *children = &agent->fds[agent->count];

    for (;;) {
        bool full = agent->connections >= CONNECTIONS_MAX;
        for (unsigned i = 0; i < agent->count; i++)
            agent->fds[i].events = full ? 0 : POLLIN;
        if (poll(agent->fds, agent->count + 1, -1) < 0 && errno != EINTR)
            return;
        if (children->revents)
            reap(agent);
        for (unsigned i = 0; i < agent->count && agent->connections < CONNECTIONS_MAX; i++) {
            if (agent->fds[i].revents & POLLIN)
                accept_one(agent, i);
        }
    }
}

int main(int argc, char **argv)
{
    struct agent agent = {0};
    sigset_t child;

    if (!read_services(&agent, argc > 1 ? argv[1] : CONFIG))
        return 1;
    for (unsigned i = 0; i < agent.count; i++) {
        agent.fds[i].fd = listen_on(agent.services[i].port);
        if (agent.fds[i].fd < 0)
            return 1;
    }
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    agent.fds[agent.count] =
        (struct pollfd){.fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN};
    if (agent.fds[agent.count].fd < 0)
        return 1;
    fprintf(stderr, "strake-agent: %u service%s\n", agent.count, agent.count == 1 ? "" : "s");
    run(&agent);
    return 1;
}
