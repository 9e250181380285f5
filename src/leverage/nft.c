// SPDX-License-Identifier: BSD-2-Clause
// nft: libnftables, which takes what nft(8) takes, and says what is wrong with it in words.
#include <ctype.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/nft.h"

#define DESCRIPTORS_LOOKED_AT 1024

struct nft {
    struct nft_ctx *context;
    int socket_fd;  // of the context's, which has no accessor for it
    int events_fd;  // -1: none
    struct loop_watch *watch;
    void (*changed)(void *opaque);
    void *opaque;
};

static bool is_netfilter_socket(int fd)
{
    int domain = 0, protocol = 0;
    socklen_t bytes = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_NETLINK &&
           getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &bytes) == 0 &&
           protocol == NETLINK_NETFILTER;
}

// The context has one socket for all that it does; it is the one that was not there before.
static int context_create(struct nft *nft)
{
    bool before[DESCRIPTORS_LOOKED_AT];

    for (int fd = 0; fd < DESCRIPTORS_LOOKED_AT; fd++)
        before[fd] = is_netfilter_socket(fd);
    nft->context = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!nft->context)
        return -ENOMEM;
    for (int fd = 0; fd < DESCRIPTORS_LOOKED_AT; fd++)
        if (!before[fd] && is_netfilter_socket(fd))
            nft->socket_fd = fd;
    return nft->socket_fd < 0 ? -ENOTSUP : 0;
}

// What has changed is not looked at, nor whether some of it was lost (ENOBUFS).
static void readable(void *opaque, unsigned events)
{
    const struct nft *nft = opaque;
    char buffer[8192];
    ssize_t bytes;

    (void)events;
    do
        bytes = recv(nft->events_fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    while (bytes > 0 || (bytes < 0 && (errno == EINTR || errno == ENOBUFS)));
    nft->changed(nft->opaque);
}

static int events_open(struct nft *nft, struct loop *loop)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK,
                                        .nl_groups = 1u << (NFNLGRP_NFTABLES - 1)};

    nft->events_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (nft->events_fd < 0 ||
        bind(nft->events_fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return loop_watch_create(loop, nft->events_fd, LOOP_READABLE, readable, nft, &nft->watch);
}

int nft_create(struct nft **out, struct loop *loop, void (*changed)(void *opaque), void *opaque,
               struct error *err)
{
    struct nft *nft = calloc(1, sizeof(*nft));
    if (!nft)
        return error_set_errno(err, -ENOMEM, "cannot use the packet filter");
    *nft = (struct nft){.socket_fd = -1, .events_fd = -1, .changed = changed, .opaque = opaque};
    int failure = context_create(nft);
    if (!failure && (nft_ctx_buffer_output(nft->context) || nft_ctx_buffer_error(nft->context)))
        failure = -ENOMEM;
    if (!failure && changed)
        failure = events_open(nft, loop);
    if (failure) {
        nft_destroy(nft);
        return failure == -EPERM ? error_set(err, failure,
                                             "cannot use the packet filter: that needs root "
                                             "(CAP_NET_ADMIN)")
                                 : error_set_errno(err, failure, "cannot use the packet filter");
    }
    *out = nft;
    return 0;
}

void nft_destroy(struct nft *nft)
{
    if (!nft)
        return;
    loop_watch_close(nft->watch);
    if (nft->events_fd >= 0)
        close(nft->events_fd);
    if (nft->context)
        nft_ctx_free(nft->context);
    free(nft);
}

int nft_lifeline(const struct nft *nft)
{
    return nft->socket_fd;
}

// What libnftables says of a command, as one line: "Error: TEXT", and below it the command's line
// and another with `^` marks below what is meant. Reading it empties it.
static void complaint(const struct nft *nft, char *text, size_t capacity)
{
    const char *said = nft_ctx_get_error_buffer(nft->context);
    const char *start = said ? strstr(said, "Error: ") : NULL;

    start = start ? start + strlen("Error: ") : said ? said : "";
    int used = snprintf(text, capacity, "%.*s", (int)strcspn(start, "\n"), start);
    const char *command = strchr(start, '\n');
    const char *marks = command ? strchr(command + 1, '\n') : NULL;
    if (used < 0 || !*text || (size_t)used >= capacity || !marks)
        return;
    size_t column = strcspn(marks + 1, "^"), width = strspn(marks + 1 + column, "^");
    if (width && column + width <= (size_t)(marks - command - 1))
        snprintf(text + used, capacity - (size_t)used, ", at \"%.*s\"", (int)width,
                 command + 1 + column);
}

int nft_run(struct nft *nft, const char *commands, struct error *err)
{
    char said[ERROR_MESSAGE_BYTES / 2];

    if (nft_run_cmd_from_buffer(nft->context, commands) == 0)
        return 0;
    complaint(nft, said, sizeof(said));
    return error_set(err, -EINVAL, "cannot set up the packet filter: %s",
                     *said ? said : "nftables does not say why");
}

// ---- Expressions --------------------------------------------------------------------------------

// What would end the expression, and begin something else.
static bool is_one_expression(const char *text)
{
    int depth = 0;
    bool quoted = false;

    for (; *text; text++) {
        if (*text == '"')
            quoted = !quoted;
        if (iscntrl((unsigned char)*text) || *text == '\\' || (!quoted && strchr(";#$", *text)))
            return false;
        depth += quoted ? 0 : (*text == '{') - (*text == '}');
        if (depth < 0)
            return false;
    }
    return depth == 0 && !quoted;
}

int nft_check_expression(struct nft *nft, const char *key, const char *text, struct error *err)
{
    char said[ERROR_MESSAGE_BYTES / 2], *commands = NULL;

    if (!is_one_expression(text) || strspn(text, " ") == strlen(text))
        return error_set(err, -EINVAL, "\"%s\" has to be one expression of nftables, not \"%s\"",
                         key, text);
    // The counter behind it shows verdicts in it: nothing may follow one.
    if (asprintf(&commands,
                 "table netdev strake-check { chain check { type filter hook ingress device \"lo\" "
                 "priority 0; %s counter; }; }",
                 text) < 0)
        return error_set_errno(err, -ENOMEM, "cannot check \"%s\"", key);
    nft_ctx_set_dry_run(nft->context, true);
    int failure = nft_run_cmd_from_buffer(nft->context, commands);
    nft_ctx_set_dry_run(nft->context, false);
    free(commands);
    if (!failure)
        return 0;
    complaint(nft, said, sizeof(said));
    return error_set(err, -EINVAL, "\"%s\" is no expression of nftables: %s in \"%s\"", key, said,
                     text);
}

// ---- What there is ------------------------------------------------------------------------------

// As text: libnftables 1.0.6 shows the flags of a table in JSON from memory that it has freed.
int nft_each_table(struct nft *nft, nft_table_fn *fn, void *opaque, struct error *err)
{
    char name[256];
    int failure = nft_run(nft, "list tables netdev", err);

    if (failure)
        return failure;
    char *text = strdup(nft_ctx_get_output_buffer(nft->context));  // `fn` may list something else
    if (!text)
        return error_set_errno(err, -ENOMEM, "cannot read what the packet filter has");
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (sscanf(line, "table netdev %255s", name) == 1)
            fn(opaque, name);
    free(text);
    return 0;
}

// The answer to a command that lists something, as its array of objects. NULL: *err says why.
static json_t *list(struct nft *nft, const char *command, struct error *err)
{
    nft_ctx_output_set_flags(nft->context, NFT_CTX_OUTPUT_JSON);
    int failure = nft_run(nft, command, err);
    nft_ctx_output_set_flags(nft->context, 0);
    if (failure)
        return NULL;
    json_t *answer = json_loads(nft_ctx_get_output_buffer(nft->context), 0, NULL);
    json_t *objects = json_incref(json_object_get(answer, "nftables"));
    json_decref(answer);
    if (!objects)
        error_set(err, -EPROTO, "cannot read what the packet filter has");
    return objects;
}

int nft_each_counter(struct nft *nft, const char *table, nft_counter_fn *fn, void *opaque,
                     struct error *err)
{
    char command[256];
    json_t *object;
    size_t i;

    snprintf(command, sizeof(command), "list counters table netdev %s", table);
    json_t *objects = list(nft, command, err);
    if (!objects)
        return -EPROTO;
    json_array_foreach(objects, i, object)
    {
        json_t *counter = json_object_get(object, "counter");
        const char *name = json_string_value(json_object_get(counter, "name"));
        if (name)
            fn(opaque, name, (uint64_t)json_integer_value(json_object_get(counter, "packets")),
               (uint64_t)json_integer_value(json_object_get(counter, "bytes")));
    }
    json_decref(objects);
    return 0;
}
