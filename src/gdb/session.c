// SPDX-License-Identifier: BSD-2-Clause
// One debugger's connection: packets, and what they ask of the target (appendix E).
//
// While GDB looks at the program it is stopped, so that registers and memory are read and written
// without locks.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "gdb/internal.h"

#define SEND_SECONDS 2
#define ACTIONS_MAX 64u
#define TRANSFER_BYTES 4096u  // of memory at a time
#define SIGNAL_INT 2
#define SIGNAL_TRAP 5

struct gdb_session {
    const struct gdb_target *target;
    void *opaque;
    int fd;  // -1: nobody is there

    bool stopped;     // the target is, on our behalf
    bool acks;        // until QStartNoAckMode
    uint64_t thread;  // selected for registers and memory (Hg)
    uint64_t last_thread;
    unsigned last_signal;

    char in[GDB_PACKET_BYTES];
    size_t in_used;
    char out[GDB_PACKET_BYTES];
    size_t out_used;
    char *description;
};

// ---- Replies ------------------------------------------------------------------------------------

static void put(struct gdb_session *session, const char *fmt, ...) BASE_PRINTF(2, 3);

// Appends to the reply; what does not fit is cut, and no reply is larger than the announced size.
static void put(struct gdb_session *session, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t space = sizeof(session->out) - session->out_used;
    int n = vsnprintf(session->out + session->out_used, space, fmt, args);
    va_end(args);
    if (n > 0)
        session->out_used += (size_t)n < space ? (size_t)n : space - 1;
}

static void put_hex(struct gdb_session *session, const void *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *byte = bytes;

    for (; count > 0 && sizeof(session->out) - session->out_used > 2; count--, byte++) {
        session->out[session->out_used++] = digits[*byte >> 4];
        session->out[session->out_used++] = digits[*byte & 15];
    }
}

// As binary data are: what has a meaning in packets is escaped. Stops where it is full.
static void put_binary(struct gdb_session *session, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count && sizeof(session->out) - session->out_used > 2; i++) {
        bool escape = bytes[i] && strchr("#$}*", bytes[i]);
        if (escape)
            session->out[session->out_used++] = '}';
        session->out[session->out_used++] = (char)(bytes[i] ^ (escape ? 0x20 : 0));
    }
}

static void send_bytes(struct gdb_session *session, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t n = send(session->fd, bytes, count, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            shutdown(session->fd, SHUT_RDWR);  // the next receive says that it is gone
            return;
        }
        bytes += n;
        count -= (size_t)n;
    }
}

// Sends what was put, as a packet.
static void send_packet(struct gdb_session *session)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < session->out_used; i++)
        sum += (uint8_t)session->out[i];
    char tail[4];
    snprintf(tail, sizeof(tail), "#%02x", sum);
    send_bytes(session, "$", 1);
    send_bytes(session, session->out, session->out_used);
    send_bytes(session, tail, 3);
    session->out_used = 0;
}

static void put_error(struct gdb_session *session, int rc)
{
    put(session, "E%02x", (unsigned)-rc & 0xff);
}

static void put_result(struct gdb_session *session, int rc)
{
    if (rc < 0)
        put_error(session, rc);
    else
        put(session, "OK");
}

static void put_stop(struct gdb_session *session, unsigned signal, uint64_t thread)
{
    session->last_signal = signal;
    session->last_thread = session->thread = thread;
    put(session, "T%02xthread:%llx;", gdb_signal_of_linux(signal), (unsigned long long)thread);
}

static void send_said(struct gdb_session *session, const char *text)
{
    while (*text) {
        size_t part = strnlen(text, TRANSFER_BYTES);
        put(session, "O");
        put_hex(session, text, part);
        send_packet(session);
        text += part;
    }
}

// ---- Parsing ------------------------------------------------------------------------------------

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// A hexadecimal number; moves *text behind it.
static uint64_t take_number(const char **text)
{
    uint64_t value = 0;
    for (int digit; (digit = hex_digit(**text)) >= 0; (*text)++)
        value = value << 4 | (uint64_t)digit;
    return value;
}

static bool take_char(const char **text, char c)
{
    bool there = **text == c;
    *text += there;
    return there;
}

// `count` bytes of hexadecimal pairs. False when there are fewer.
static bool take_bytes(const char **text, void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++, *text += 2) {
        int high = hex_digit((*text)[0]);
        int low = high < 0 ? -1 : hex_digit((*text)[1]);
        if (low < 0)
            return false;
        ((uint8_t *)bytes)[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

// A thread id. 0 (any) and -1 (all) give `any`. False for a thread that does not exist.
static bool take_thread(struct gdb_session *session, const char **text, uint64_t any,
                        uint64_t *thread)
{
    bool all = take_char(text, '-');
    uint64_t id = take_number(text);
    *thread = all || id == 0 ? any : id;
    return all || id == 0 || session->target->hart(session->opaque, id);
}

// ---- Registers ----------------------------------------------------------------------------------

static struct hart *selected(struct gdb_session *session)
{
    return session->target->hart(session->opaque, session->thread);
}

static int register_read(struct gdb_session *session, uint64_t number, uint64_t *value)
{
    struct hart *hart = selected(session);
    return hart ? gdb_register_read(hart, session->target->machine, number, value) : -ESRCH;
}

static int register_write(struct gdb_session *session, uint64_t number, uint64_t value)
{
    const struct gdb_target *target = session->target;
    struct hart *hart = selected(session);
    if (!hart)
        return -ESRCH;
    if (target->is_busy && target->is_busy(session->opaque, session->thread))
        return -EBUSY;
    return gdb_register_write(hart, target->machine, number, value);
}

static void read_all_registers(struct gdb_session *session, const char *args)
{
    (void)args;
    for (uint64_t number = 0; number <= GDB_REGISTER_PC; number++) {
        uint64_t value = 0;
        (void)!register_read(session, number, &value);
        put_hex(session, &value, sizeof(value));
    }
}

static void write_all_registers(struct gdb_session *session, const char *args)
{
    uint64_t value;
    uint64_t number = 0;
    int rc = 0;
    while (rc == 0 && number <= GDB_REGISTER_PC && take_bytes(&args, &value, sizeof(value)))
        rc = register_write(session, number++, value);
    put_result(session, rc == 0 && number <= GDB_REGISTER_PC ? -EINVAL : rc);
}

static void read_register(struct gdb_session *session, const char *args)
{
    uint64_t value;
    int rc = register_read(session, take_number(&args), &value);
    if (rc < 0)
        put_error(session, rc);
    else
        put_hex(session, &value, sizeof(value));
}

static void write_register(struct gdb_session *session, const char *args)
{
    uint64_t number = take_number(&args), value;
    bool good = take_char(&args, '=') && take_bytes(&args, &value, sizeof(value));
    put_result(session, good ? register_write(session, number, value) : -EINVAL);
}

// ---- Memory -------------------------------------------------------------------------------------

static void read_memory(struct gdb_session *session, const char *args)
{
    uint8_t bytes[TRANSFER_BYTES];
    uint64_t gva = take_number(&args);
    uint64_t count = take_char(&args, ',') ? take_number(&args) : 0;
    uint64_t done = 0;

    if (count > GDB_PACKET_BYTES / 2 - 16)
        count = GDB_PACKET_BYTES / 2 - 16;
    while (done < count) {
        size_t part = count - done < sizeof(bytes) ? count - done : sizeof(bytes);
        size_t got =
            session->target->read(session->opaque, session->thread, gva + done, bytes, part);
        put_hex(session, bytes, got);
        done += got;
        if (got < part)
            break;
    }
    if (done == 0)
        put_error(session, -EFAULT);
}

static void write_memory(struct gdb_session *session, const char *args)
{
    uint8_t bytes[GDB_PACKET_BYTES / 2];
    uint64_t gva = take_number(&args);
    uint64_t count = take_char(&args, ',') ? take_number(&args) : 0;
    bool good = take_char(&args, ':') && count <= sizeof(bytes) && take_bytes(&args, bytes, count);

    if (good)
        good = session->target->write(session->opaque, session->thread, gva, bytes, count) == count;
    put_result(session, good ? 0 : -EFAULT);
}

// ---- Breakpoints: Z0 and Z1 are the same to us, since no code is patched ------------------------

static void change_breakpoint(struct gdb_session *session, const char *args, bool add)
{
    bool known = take_char(&args, '0') || take_char(&args, '1');
    if (!known || !take_char(&args, ','))
        return;  // an empty reply: this kind is not supported
    put_result(session, session->target->breakpoint(session->opaque, take_number(&args), add));
}

static void add_breakpoint(struct gdb_session *session, const char *args)
{
    change_breakpoint(session, args, true);
}

static void remove_breakpoint(struct gdb_session *session, const char *args)
{
    change_breakpoint(session, args, false);
}

// ---- Running and stopping -----------------------------------------------------------------------

static void stop_all(struct gdb_session *session)
{
    if (!session->stopped)
        session->target->stop(session->opaque);
    session->stopped = true;
}

static void let_go(struct gdb_session *session)
{
    stop_all(session);
    session->stopped = false;
    session->target->let_go(session->opaque);
}

static void resume(struct gdb_session *session, const struct gdb_action *actions, size_t count)
{
    session->stopped = false;
    session->target->resume(session->opaque, actions, count);
}

void gdb_session_stopped(struct gdb_session *session, const struct gdb_stop *stop)
{
    session->stopped = true;
    if (stop->said)
        send_said(session, stop->said);
    put_stop(session, stop->signal, stop->thread);
    send_packet(session);
}

void gdb_session_ended(struct gdb_session *session, bool by_signal, unsigned status)
{
    put(session, "%c%02x", by_signal ? 'X' : 'W',
        (by_signal ? gdb_signal_of_linux(status) : status) & 0xff);
    send_packet(session);
}

// c, s, C and S: the thread that was selected, and with it all.
static void resume_as(struct gdb_session *session, bool step, unsigned signal)
{
    const struct gdb_action actions[] = {{session->thread, step, signal}, {0}};
    resume(session, actions, BASE_COUNT_OF(actions));
}

static void on_continue(struct gdb_session *session, const char *args)
{
    (void)args;
    resume_as(session, false, 0);
}

static void on_step(struct gdb_session *session, const char *args)
{
    (void)args;
    resume_as(session, true, 0);
}

static void on_continue_with(struct gdb_session *session, const char *args)
{
    resume_as(session, false, gdb_signal_to_linux((unsigned)take_number(&args)));
}

static void on_step_with(struct gdb_session *session, const char *args)
{
    resume_as(session, true, gdb_signal_to_linux((unsigned)take_number(&args)));
}

// One action[:thread] of vCont.
static bool take_action(struct gdb_session *session, const char **args, struct gdb_action *action)
{
    char kind = **args;
    *action = (struct gdb_action){.step = (kind | 0x20) == 's'};
    if (!action->step && (kind | 0x20) != 'c')
        return false;
    (*args)++;
    if (kind == 'S' || kind == 'C')
        action->signal = gdb_signal_to_linux((unsigned)take_number(args));
    return !take_char(args, ':') || take_thread(session, args, 0, &action->thread);
}

// vCont;action[:thread]...
static void on_vcont(struct gdb_session *session, const char *args)
{
    struct gdb_action actions[ACTIONS_MAX];
    size_t count = 0;
    bool good = true;

    while (good && take_char(&args, ';'))
        good = count < ACTIONS_MAX && take_action(session, &args, &actions[count++]);
    if (good && count > 0) {
        resume(session, actions, count);
        return;
    }
    put_error(session, -EINVAL);
    send_packet(session);
}

static void on_kill(struct gdb_session *session, const char *args)
{
    (void)args;
    session->target->kill(session->opaque);
}

// ---- Queries ------------------------------------------------------------------------------------

static void on_supported(struct gdb_session *session, const char *args)
{
    (void)args;
    put(session, "PacketSize=%x;QStartNoAckMode+;vContSupported+;qXfer:features:read+",
        GDB_PACKET_BYTES - 16);
    if (session->target->pass)
        put(session, ";QPassSignals+");
    if (session->target->object)
        put(session, ";qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:siginfo:read+");
}

static void on_vcont_query(struct gdb_session *session, const char *args)
{
    (void)args;
    put(session, "vCont;c;C;s;S");
}

static void on_no_acks(struct gdb_session *session, const char *args)
{
    (void)args;
    put(session, "OK");
    send_packet(session);
    session->acks = false;
}

static void on_pass(struct gdb_session *session, const char *args)
{
    uint64_t signals = 0;
    if (!session->target->pass)
        return;
    do {
        unsigned signal = gdb_signal_to_linux((unsigned)take_number(&args));
        signals |= signal ? 1ull << (signal - 1) : 0;
    } while (take_char(&args, ';'));
    session->target->pass(session->opaque, signals);
    put(session, "OK");
}

static void on_status(struct gdb_session *session, const char *args)
{
    (void)args;
    uint64_t thread = session->last_thread;
    if (!session->target->hart(session->opaque, thread))
        thread = session->target->next_thread(session->opaque, 0);
    put_stop(session, session->last_signal, thread);
}

static void on_select(struct gdb_session *session, const char *args)
{
    bool registers = take_char(&args, 'g');
    uint64_t thread;
    if (!registers && !take_char(&args, 'c'))
        return;
    bool good = take_thread(session, &args, session->thread, &thread);
    if (good && registers)
        session->thread = thread;
    put_result(session, good ? 0 : -EINVAL);
}

static void on_alive(struct gdb_session *session, const char *args)
{
    uint64_t thread;
    put_result(session, take_thread(session, &args, 0, &thread) ? 0 : -EINVAL);
}

static void on_first_threads(struct gdb_session *session, const char *args)
{
    uint64_t thread = 0;
    (void)args;
    while ((thread = session->target->next_thread(session->opaque, thread)))
        put(session, "%c%llx", session->out_used ? ',' : 'm', (unsigned long long)thread);
}

static void on_more_threads(struct gdb_session *session, const char *args)
{
    (void)args;
    put(session, "l");
}

static void on_thread_info(struct gdb_session *session, const char *args)
{
    uint64_t thread;
    char text[64] = "";
    if (!take_thread(session, &args, session->thread, &thread)) {
        put_error(session, -EINVAL);
        return;
    }
    session->target->describe_thread(session->opaque, thread, text, sizeof(text));
    put_hex(session, text, strlen(text));
}

static void on_current_thread(struct gdb_session *session, const char *args)
{
    if (*args)
        return;  // another packet, such as qCRC
    put(session, "QC%llx", (unsigned long long)session->thread);
}

static void on_attached(struct gdb_session *session, const char *args)
{
    (void)args;
    put(session, "1");
}

static int find_object(struct gdb_session *session, const char *name, const void **bytes,
                       size_t *count)
{
    const struct gdb_target *target = session->target;
    if (strcmp(name, "features") == 0) {
        *bytes = session->description;
        *count = strlen(session->description);
        return 0;
    }
    return target->object ? target->object(session->opaque, session->thread, name, bytes, count)
                          : -ENOENT;
}

// qXfer:object:read:annex:offset,length. An object has one annex only, whatever its name is.
static void on_transfer(struct gdb_session *session, const char *args)
{
    const void *bytes;
    char name[32];
    size_t length = strcspn(args, ":"), total;
    const char *annex = args + length + sizeof(":read:") - 1;

    if (length >= sizeof(name) || strncmp(args + length, ":read:", sizeof(":read:") - 1) != 0)
        return;
    memcpy(name, args, length);
    name[length] = 0;
    const char *range = strchr(annex, ':');
    if (!range || find_object(session, name, &bytes, &total) < 0) {
        put_error(session, -ENOENT);
        return;
    }
    range++;
    uint64_t offset = take_number(&range);
    uint64_t count = take_char(&range, ',') ? take_number(&range) : 0;
    if (offset > total) {
        put_error(session, -EINVAL);
        return;
    }
    if (count > GDB_PACKET_BYTES / 2 - 16)  // each byte may be escaped
        count = GDB_PACKET_BYTES / 2 - 16;
    bool last = count >= total - offset;
    put(session, "%c", last ? 'l' : 'm');
    put_binary(session, (const char *)bytes + offset, last ? total - offset : count);
}

// ---- Packets ------------------------------------------------------------------------------------

static void on_detach(struct gdb_session *session, const char *args)
{
    (void)args;
    put(session, "OK");
    send_packet(session);
    let_go(session);
}

// By prefix; the first that fits. `quiet` handlers send what there is to send themselves.
static const struct {
    const char *prefix;
    void (*handle)(struct gdb_session *session, const char *args);
    bool quiet;
} packets[] = {
    {"qSupported", on_supported, false},
    {"QStartNoAckMode", on_no_acks, true},
    {"QPassSignals:", on_pass, false},
    {"qXfer:", on_transfer, false},
    {"qfThreadInfo", on_first_threads, false},
    {"qsThreadInfo", on_more_threads, false},
    {"qThreadExtraInfo,", on_thread_info, false},
    {"qC", on_current_thread, false},
    {"qAttached", on_attached, false},
    {"vCont?", on_vcont_query, false},
    {"vCont", on_vcont, true},
    {"vKill", on_kill, true},
    {"?", on_status, false},
    {"H", on_select, false},
    {"T", on_alive, false},
    {"g", read_all_registers, false},
    {"G", write_all_registers, false},
    {"p", read_register, false},
    {"P", write_register, false},
    {"m", read_memory, false},
    {"M", write_memory, false},
    {"Z", add_breakpoint, false},
    {"z", remove_breakpoint, false},
    {"c", on_continue, true},
    {"s", on_step, true},
    {"C", on_continue_with, true},
    {"S", on_step_with, true},
    {"D", on_detach, true},
    {"k", on_kill, true},
};

static void handle_packet(struct gdb_session *session, const char *text)
{
    stop_all(session);  // GDB sends packets to a stopped target only; make sure of it
    for (size_t i = 0; i < BASE_COUNT_OF(packets); i++) {
        size_t length = strlen(packets[i].prefix);
        if (strncmp(text, packets[i].prefix, length) != 0)
            continue;
        packets[i].handle(session, text + length);
        if (!packets[i].quiet)
            send_packet(session);
        return;
    }
    send_packet(session);  // empty: not supported
}

static void interrupt(struct gdb_session *session)
{
    const struct gdb_target *target = session->target;
    if (session->stopped)
        return;
    stop_all(session);
    if (target->report(session->opaque))
        return;
    uint64_t thread = session->thread;
    if (!target->hart(session->opaque, thread))
        thread = target->next_thread(session->opaque, 0);
    put_stop(session, SIGNAL_INT, thread);
    send_packet(session);
}

// Takes one packet or acknowledgement off the input; the number of bytes used, 0 when incomplete.
static size_t take_packet(struct gdb_session *session)
{
    char *in = session->in;
    if (in[0] == 0x03) {
        interrupt(session);
        return 1;
    }
    if (in[0] != '$')
        return 1;  // an acknowledgement: a stream has lost nothing
    char *end = memchr(in, '#', session->in_used);
    if (!end || end + 3 > in + session->in_used)
        return 0;
    *end = 0;
    const char *tail = end + 1;
    uint8_t sum = 0, sent;
    for (const char *c = in + 1; c < end; c++)
        sum += (uint8_t)*c;
    bool good = take_bytes(&tail, &sent, 1) && sent == sum;
    if (session->acks)
        send_bytes(session, good ? "+" : "-", 1);
    if (good)
        handle_packet(session, in + 1);
    return (size_t)(end + 3 - in);
}

// ---- Life ---------------------------------------------------------------------------------------

int gdb_session_create(struct gdb_session **out, const struct gdb_target *target, void *opaque)
{
    struct gdb_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->target = target;
    session->opaque = opaque;
    session->fd = -1;
    session->stopped = true;
    session->description = gdb_description(target->machine);
    if (!session->description) {
        free(session);
        return -ENOMEM;
    }
    *out = session;
    return 0;
}

void gdb_session_destroy(struct gdb_session *session)
{
    if (!session)
        return;
    if (session->fd >= 0)
        close(session->fd);
    free(session->description);
    free(session);
}

void gdb_session_open(struct gdb_session *session, int fd)
{
    const struct timeval patience = {.tv_sec = SEND_SECONDS};
    int one = 1;
    // One that does not read its replies is dropped, or the end of the program would wait for it.
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    session->fd = fd;
    session->in_used = session->out_used = 0;
    session->acks = true;
    session->last_signal = SIGNAL_TRAP;
    stop_all(session);
    session->thread = session->last_thread = session->target->next_thread(session->opaque, 0);
}

bool gdb_session_receive(struct gdb_session *session)
{
    size_t space = sizeof(session->in) - session->in_used;
    // Asked for nothing, not every kind of socket returns at once.
    ssize_t n = space ? recv(session->fd, session->in + session->in_used, space, 0) : 0;
    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0) {  // gone, or a packet larger than we said we take
        let_go(session);
        close(session->fd);
        session->fd = -1;
        return false;
    }
    session->in_used += (size_t)n;
    for (size_t used; session->in_used > 0 && (used = take_packet(session)) > 0;) {
        session->in_used -= used;
        memmove(session->in, session->in + used, session->in_used);
    }
    return true;
}

int gdb_session_fd(const struct gdb_session *session)
{
    return session->fd;
}

bool gdb_session_is_waiting(const struct gdb_session *session)
{
    return session->fd >= 0 && !session->stopped;
}

void gdb_session_save(struct gdb_session *session, struct gdb_session_state *state)
{
    *state = (struct gdb_session_state){
        .stopped = session->stopped,
        .acks = session->acks,
        .thread = session->thread,
        .last_thread = session->last_thread,
        .last_signal = session->last_signal,
        .in = session->in,
        .in_bytes = session->in_used,
    };
}

void gdb_session_load(struct gdb_session *session, const struct gdb_session_state *state, int fd)
{
    session->fd = fd;
    session->stopped = state->stopped;
    session->acks = state->acks;
    session->thread = state->thread;
    session->last_thread = state->last_thread;
    session->last_signal = state->last_signal;
    session->in_used = state->in_bytes < sizeof(session->in) ? state->in_bytes : 0;
    if (session->in_used > 0)
        memcpy(session->in, state->in, session->in_used);
}
