// SPDX-License-Identifier: BSD-2-Clause
// Downloads over HTTP/1.1 (RFC 9110, 9112): one GET a connection, "Connection: close", no
// redirects. A download that was interrupted goes on where it ended (Range with If-Range, RFC 9110
// section 14.2). There is no TLS: what arrives is trusted by nobody before the host has verified
// its signature.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "resolve.h"
#include "update.h"

#define HEAD_BYTES_MAX 16384u
#define NEARLY_SILENT_BYTES 65536u  // what has to come in the time that a server may be silent

bool http_url_parse(const char *text, struct http_url *url)
{
    if (strncmp(text, "http://", 7) != 0)
        return false;
    text += 7;
    const char *open = *text == '[' ? text + 1 : text;  // around an IPv6 address
    size_t host = strcspn(open, open > text ? "]" : ":/");
    const char *at = open + host + (open > text && open[host] == ']');
    snprintf(url->port, sizeof(url->port), "80");
    if (*at == ':') {
        size_t digits = strspn(++at, "0123456789");
        if (digits == 0 || digits >= sizeof(url->port))
            return false;
        snprintf(url->port, sizeof(url->port), "%.*s", (int)digits, at);
        at += digits;
    }
    size_t path = strcspn(at, "#");
    for (size_t i = 0; i < host + path; i++)  // nothing that ends a line of the request
        if (!isgraph((unsigned char)(i < host ? open[i] : at[i - host])))
            return false;
    if (host == 0 || host >= sizeof(url->host) || path >= sizeof(url->path) || (*at && *at != '/'))
        return false;
    snprintf(url->host, sizeof(url->host), "%.*s", (int)host, open);
    snprintf(url->path, sizeof(url->path), "%.*s", path ? (int)path : 1, path ? at : "/");
    return true;
}

// A number of digits only, up to `end`.
static bool take_number(const char *text, char end, uint64_t *number)
{
    size_t digits = strspn(text, "0123456789");

    *number = strtoull(text, NULL, 10);
    return digits > 0 && digits < 19 && (text[digits] == end || !text[digits]);
}

static bool take_field(struct http_head *head, const char *name, const char *value)
{
    if (!strcasecmp(name, "content-length"))
        return head->has_length = take_number(value, 0, &head->length);
    if (!strcasecmp(name, "content-range"))
        return !strncasecmp(value, "bytes ", 6) && take_number(value + 6, '-', &head->from);
    if (!strcasecmp(name, "transfer-encoding") || !strcasecmp(name, "content-encoding"))
        head->encoded |= strcasecmp(value, "identity") != 0;  // which we did not ask for
    if (!strcasecmp(name, "etag") && strlen(value) < sizeof(head->etag))
        snprintf(head->etag, sizeof(head->etag), "%s", value);
    return true;
}

// "HTTP/1.1 200 OK"
static bool take_status(const char *line, unsigned *status)
{
    uint64_t number;

    if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12 || line[8] != ' ' ||
        !take_number(line + 9, ' ', &number) || number < 100 || number > 999)
        return false;
    *status = (unsigned)number;
    return true;
}

bool http_head_parse(const char *text, size_t count, struct http_head *head)
{
    char line[1024];
    const char *end = text + count;

    *head = (struct http_head){.status = 0};
    for (bool first = true; text < end; first = false) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((stop ? stop : end) - text);
        if (length >= sizeof(line) || memchr(text, 0, length))
            return false;
        snprintf(line, sizeof(line), "%.*s", (int)length, text);
        text += length + 1;
        while (length > 0 && isspace((unsigned char)line[length - 1]))
            line[--length] = 0;
        if (first) {
            if (!take_status(line, &head->status))
                return false;
            continue;
        }
        if (length == 0)
            break;
        char *value = strchr(line, ':');
        if (!value)
            return false;
        *value++ = 0;
        if (!take_field(head, line, value + strspn(value, " \t")))
            return false;
    }
    return head->status != 0;
}

// ---- One request -------------------------------------------------------------------------------

struct download {
    const char *path;       // what has arrived
    char mark[PATH_BYTES];  // beside it: of which content it is part
    struct http_url url;
    int connection, file;
    unsigned silence_s;
    uint64_t until_s;  // by when so many bytes have to come
    size_t came;       // of them
    uint64_t have;
    struct http_head head;
    char bytes[65536];
    size_t used;  // of what arrived behind the head
};

static int lost(struct fault *fault, const struct http_url *url)
{
    return fault_set(fault, OUTCOME_FAILED,
                     "cannot download from '%s': the server ended, or is silent or too slow",
                     url->host);
}

static uint64_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

// What arrives next, 0 at the end, -1 on failure or silence. A byte now and then is silence, too.
static ssize_t receive(struct download *download, char *bytes, size_t count)
{
    struct pollfd ready = {.fd = download->connection, .events = POLLIN};
    uint64_t now_s = seconds_now();

    if (download->until_s == 0 || download->came >= NEARLY_SILENT_BYTES) {
        download->until_s = now_s + download->silence_s;
        download->came = 0;
    }
    if (now_s >= download->until_s || poll(&ready, 1, (int)(download->until_s - now_s) * 1000) <= 0)
        return -1;
    ssize_t got = recv(download->connection, bytes, count, 0);
    download->came += got > 0 ? (size_t)got : 0;
    return got;
}

static int send_request(struct download *download, const char *etag, struct fault *fault)
{
    char request[PATH_BYTES + 1024], range[256] = "";
    bool six = strchr(download->url.host, ':') != NULL;  // RFC 3986 section 3.2.2

    if (download->have > 0)
        snprintf(range, sizeof(range), "Range: bytes=%llu-\r\nIf-Range: %s\r\n",
                 (unsigned long long)download->have, etag);
    // HTTP/1.0 in the request keeps chunked answers away (RFC 9112 section 6.1).
    int length =
        snprintf(request, sizeof(request),
                 "GET %s HTTP/1.0\r\nHost: %s%s%s:%s\r\nUser-Agent: strake-update/" STRAKE_VERSION
                 "\r\nAccept: */*\r\n%sConnection: close\r\n\r\n",
                 download->url.path, six ? "[" : "", download->url.host, six ? "]" : "",
                 download->url.port, range);
    for (int sent = 0; sent < length;) {
        ssize_t part =
            send(download->connection, request + sent, (size_t)(length - sent), MSG_NOSIGNAL);
        if (part <= 0)
            return lost(fault, &download->url);
        sent += (int)part;
    }
    return 0;
}

// Leaves in download->bytes what came behind the head.
static int receive_head(struct download *download, struct fault *fault)
{
    for (download->used = 0; download->used < HEAD_BYTES_MAX;) {
        ssize_t got =
            receive(download, download->bytes + download->used, HEAD_BYTES_MAX - download->used);
        if (got <= 0)
            return lost(fault, &download->url);
        download->used += (size_t)got;
        char *end = memmem(download->bytes, download->used, "\r\n\r\n", 4);
        if (!end)
            continue;
        size_t head = (size_t)(end + 4 - download->bytes);
        if (!http_head_parse(download->bytes, head, &download->head))
            break;
        download->used -= head;
        memmove(download->bytes, download->bytes + head, download->used);
        return 0;
    }
    return fault_set(fault, OUTCOME_FAILED, "cannot download from '%s': its answer is no HTTP",
                     download->url.host);
}

// What is there is in the way only: of a disk that is full, above all.
static int forget(struct download *download)
{
    unlink(download->path);
    unlink(download->mark);
    return -1;
}

static int too_large(struct download *download, struct fault *fault)
{
    fault_set(fault, OUTCOME_BAD_PACKAGE, "the package is larger than 1 GiB");
    return forget(download);
}

static int receive_body(struct download *download, struct report *report, struct fault *fault)
{
    uint64_t at = download->have;
    uint64_t total = download->head.has_length ? at + download->head.length : 0;

    if (total > FILE_BYTES_MAX)
        return too_large(download, fault);
    for (;;) {
        if (write_all(download->file, download->bytes, download->used)) {
            fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", download->path);
            return forget(download);
        }
        at += download->used;
        report_progress(report, "downloading", at, total);
        if (at > FILE_BYTES_MAX)
            return too_large(download, fault);
        if (total && at >= total)
            return 0;
        ssize_t got = receive(download, download->bytes, sizeof(download->bytes));
        if (got < 0 || (got == 0 && total))
            return lost(fault, &download->url);
        if (got == 0) {
            report_progress(report, "downloading", at, at);
            return 0;
        }
        download->used = (size_t)got;
    }
}

// Makes the file ready for what the answer brings: the rest, or all of it.
static int begin_body(struct download *download, const char *url, struct fault *fault)
{
    const struct http_head *head = &download->head;
    char mark[PATH_BYTES + NAME_MAX_BYTES + 2];

    if (head->status >= 300 && head->status < 400)
        return fault_set(fault, OUTCOME_FAILED,
                         "cannot download '%s': the server sends us to another place (%u), which "
                         "has to be named itself",
                         url, head->status);
    if (head->encoded)
        return fault_set(fault, OUTCOME_FAILED,
                         "cannot download '%s': the server sends it encoded, not as it is", url);
    if (head->status != 200 && !(head->status == 206 && head->from == download->have))
        return fault_set(fault, OUTCOME_FAILED, "cannot download '%s': the server answers %u", url,
                         head->status);
    if (head->status == 200) {
        download->have = 0;
        if (ftruncate(download->file, 0))
            return fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", download->path);
        snprintf(mark, sizeof(mark), "%s\n%s\n", url, head->etag);
        if (write_file(download->mark, mark, strlen(mark), 0644, fault))
            return -1;
    }
    return lseek(download->file, 0, SEEK_END) < 0
               ? fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", download->path)
               : 0;
}

// What is there of an earlier download can be gone on with when it was of the same URL, and the
// server gave its content a strong name.
static void look_at_earlier(struct download *download, const char *url, char etag[NAME_MAX_BYTES])
{
    struct buffer mark = {NULL, 0};
    struct fault ignored;
    struct stat status;
    size_t length = strlen(url);

    download->have = 0;
    if (fstat(download->file, &status) || status.st_size == 0 ||
        read_file(download->mark, PATH_BYTES + NAME_MAX_BYTES, &mark, &ignored))
        return;
    mark.bytes[mark.count] = 0;
    const char *name = mark.bytes + length + 1;
    if (mark.count > length + 1 && !memcmp(mark.bytes, url, length) && mark.bytes[length] == '\n' &&
        *name == '"' && strlen(name) < NAME_MAX_BYTES) {
        snprintf(etag, NAME_MAX_BYTES, "%.*s", (int)strcspn(name, "\n"), name);
        download->have = (uint64_t)status.st_size;
    }
    free(mark.bytes);
}

static int get(struct download *download, const char *url, struct report *report,
               struct fault *fault)
{
    char etag[NAME_MAX_BYTES] = "";

    look_at_earlier(download, url, etag);
    download->connection = resolve_connect(download->url.host, download->url.port, fault);
    if (download->connection < 0)
        return -1;
    int result = send_request(download, etag, fault) || receive_head(download, fault);
    // All of it was there already.
    bool whole = !result && download->head.status == 416 && download->have > 0;
    if (!result && !whole)
        result = begin_body(download, url, fault) || receive_body(download, report, fault);
    close(download->connection);
    return result ? -1 : 0;
}

int http_download(const char *url, const char *path, unsigned silence_s, struct report *report,
                  struct fault *fault)
{
    struct download *download = calloc(1, sizeof(*download));
    int result = -1;

    if (!download)
        return fault_system(fault, OUTCOME_FAILED, "cannot download '%s'", url);
    download->path = path;
    download->silence_s = silence_s;
    download->file = -1;
    snprintf(download->mark, sizeof(download->mark), "%s.url", path);
    if (!http_url_parse(url, &download->url))
        fault_set(fault, OUTCOME_USAGE, "cannot download '%s': it is no http:// URL", url);
    else if ((download->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0)
        fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", path);
    else
        result = get(download, url, report, fault);
    if (download->file >= 0)
        close(download->file);
    free(download);
    return result;
}
