// SPDX-License-Identifier: BSD-2-Clause
// GDB server: the GDB Remote Serial Protocol over TCP, all-stop, one GDB thread a hart (thread n is
// hart n-1). Source: Debugging with GDB, appendix E.
//
// While GDB looks at the partition it is paused, so registers and memory are read and written
// without locks. A step runs one hart alone. Memory is guest-virtual as the selected hart sees it,
// RAM only: reading device registers has side effects that a debugger's user does not expect.
//
// Threading invariant: everything belongs to the server's thread but `hits` and `quit`, which harts
// and gdb_server_destroy set before they signal `event_fd`.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/internal.h"

#define PACKET_BYTES 16384u
#define SEND_SECONDS 2
#define SIGNAL_INT 2
#define SIGNAL_TRAP 5

// GDB's numbers of RISC-V registers (gdb/riscv-tdep.h): x0..x31, pc, f0..f31, then CSRs by number.
enum {
    REG_PC = 32,
    REG_F0 = 33,
    REG_CSR0 = 65,
    REG_PRIV = 4161,
};

struct gdb_server {
    struct partition *partition;
    unsigned cpus;
    pthread_t thread;
    int listen_fd, client_fd, event_fd;
    atomic_uint hits;  // a bit a hart that stopped by itself and was not reported yet
    atomic_bool quit;
    bool serving;  // the thread is there
    bool leaving;  // to another process: the debugger is not to know

    bool stopped;   // the partition is paused on our behalf
    bool acks;      // until QStartNoAckMode
    unsigned hart;  // selected for registers and memory (Hg)
    unsigned last_signal, last_hart;

    char in[PACKET_BYTES];
    size_t in_used;
    char out[PACKET_BYTES];
    size_t out_used;
    char *features;  // target description
};

static struct hart *hart_at(struct gdb_server *server, unsigned id)
{
    return machine_hart(partition_machine(server->partition), id);
}

// ---- Replies ------------------------------------------------------------------------------------

static void put(struct gdb_server *server, const char *fmt, ...) BASE_PRINTF(2, 3);

// Appends to the reply; what does not fit is cut, and no reply is larger than the announced size.
static void put(struct gdb_server *server, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t space = sizeof(server->out) - server->out_used;
    int n = vsnprintf(server->out + server->out_used, space, fmt, args);
    va_end(args);
    if (n > 0)
        server->out_used += (size_t)n < space ? (size_t)n : space - 1;
}

static void put_hex(struct gdb_server *server, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put(server, "%02x", ((const uint8_t *)bytes)[i]);
}

static void send_bytes(struct gdb_server *server, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t n = send(server->client_fd, bytes, count, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            shutdown(server->client_fd, SHUT_RDWR);  // the next receive says that it is gone
            return;
        }
        bytes += n;
        count -= (size_t)n;
    }
}

// Sends what was put, as a packet.
static void send_packet(struct gdb_server *server)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < server->out_used; i++)
        sum += (uint8_t)server->out[i];
    char tail[4];
    snprintf(tail, sizeof(tail), "#%02x", sum);
    send_bytes(server, "$", 1);
    send_bytes(server, server->out, server->out_used);
    send_bytes(server, tail, 3);
    server->out_used = 0;
}

static void put_error(struct gdb_server *server, int rc)
{
    put(server, "E%02x", (unsigned)-rc & 0xff);
}

static void put_result(struct gdb_server *server, int rc)
{
    if (rc < 0)
        put_error(server, rc);
    else
        put(server, "OK");
}

static void put_stop(struct gdb_server *server, unsigned signal, unsigned hart)
{
    server->last_signal = signal;
    server->last_hart = server->hart = hart;
    put(server, "T%02xthread:%x;", signal, hart + 1);
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

// A thread id. 0 (any) and -1 (all) give `any`. False for a hart that does not exist.
static bool take_thread(struct gdb_server *server, const char **text, unsigned any, unsigned *hart)
{
    bool all = take_char(text, '-');
    uint64_t id = take_number(text);
    *hart = all || id == 0 ? any : (unsigned)(id - 1);
    return all || id == 0 || id <= server->cpus;
}

// ---- Registers ----------------------------------------------------------------------------------

static int register_read(struct hart *hart, uint64_t number, uint64_t *value)
{
    if (number < REG_PC)
        *value = hart->x[number];
    else if (number == REG_PC)
        *value = hart->pc;
    else if (number < REG_CSR0)
        *value = hart->f[number - REG_F0];
    else if (number == REG_PRIV)
        *value = hart->privilege;
    else if (number < REG_PRIV)
        return hart_csr_peek(hart, (unsigned)number - REG_CSR0, value);
    else
        return -ENOENT;
    return 0;
}

static int register_write(struct hart *hart, uint64_t number, uint64_t value)
{
    if (number == 0)
        return 0;
    if (number < REG_PC)
        hart->x[number] = value;
    else if (number == REG_PC)
        hart->pc = value & ~1ull;
    else if (number < REG_CSR0)
        hart->f[number - REG_F0] = value;
    else if (number < REG_PRIV)
        return hart_csr_poke(hart, (unsigned)number - REG_CSR0, value);
    else
        return -ENOENT;
    return 0;
}

static void read_all_registers(struct gdb_server *server, const char *args)
{
    (void)args;
    for (uint64_t number = 0; number <= REG_PC; number++) {
        uint64_t value = 0;
        register_read(hart_at(server, server->hart), number, &value);
        put_hex(server, &value, sizeof(value));
    }
}

static void write_all_registers(struct gdb_server *server, const char *args)
{
    uint64_t value;
    uint64_t number = 0;
    while (number <= REG_PC && take_bytes(&args, &value, sizeof(value)))
        register_write(hart_at(server, server->hart), number++, value);
    put_result(server, number > REG_PC ? 0 : -EINVAL);
}

static void read_register(struct gdb_server *server, const char *args)
{
    uint64_t value;
    int rc = register_read(hart_at(server, server->hart), take_number(&args), &value);
    if (rc < 0)
        put_error(server, rc);
    else
        put_hex(server, &value, sizeof(value));
}

static void write_register(struct gdb_server *server, const char *args)
{
    uint64_t number = take_number(&args), value;
    bool good = take_char(&args, '=') && take_bytes(&args, &value, sizeof(value));
    put_result(server,
               good ? register_write(hart_at(server, server->hart), number, value) : -EINVAL);
}

// ---- Memory -------------------------------------------------------------------------------------

// The host address of guest-virtual `gva`, and how many bytes of its page follow.
static uint8_t *memory_at(struct gdb_server *server, uint64_t gva, size_t *left)
{
    uint64_t gpa;
    *left = MEMORY_PAGE_BYTES - gva % MEMORY_PAGE_BYTES;
    if (hart_debug_translate(hart_at(server, server->hart), gva, &gpa) < 0)
        return NULL;
    return memory_ram_hva(machine_memory(partition_machine(server->partition)), gpa, *left);
}

static void read_memory(struct gdb_server *server, const char *args)
{
    uint64_t gva = take_number(&args);
    uint64_t count = take_char(&args, ',') ? take_number(&args) : 0;
    if (count > PACKET_BYTES / 2 - 16)
        count = PACKET_BYTES / 2 - 16;
    uint64_t done = 0;
    while (done < count) {
        size_t left;
        const uint8_t *bytes = memory_at(server, gva + done, &left);
        if (!bytes)
            break;
        size_t part = left < count - done ? left : count - done;
        put_hex(server, bytes, part);
        done += part;
    }
    if (done == 0)
        put_error(server, -EFAULT);
}

static void write_memory(struct gdb_server *server, const char *args)
{
    uint64_t gva = take_number(&args);
    uint64_t count = take_char(&args, ',') ? take_number(&args) : 0;
    bool good = take_char(&args, ':');
    for (uint64_t i = 0; good && i < count; i++) {
        size_t left;
        uint8_t *byte = memory_at(server, gva + i, &left);
        good = byte && take_bytes(&args, byte, 1);
    }
    // What was written may be code.
    for (unsigned i = 0; i < server->cpus; i++) {
        struct hart *hart = hart_at(server, i);
        hart_fence_remote(NULL, &hart, 1, HART_FENCE_I);
    }
    put_result(server, good ? 0 : -EFAULT);
}

// ---- Breakpoints: Z0 and Z1 are the same to us, since no guest code is patched ------------------

static void change_breakpoint(struct gdb_server *server, const char *args, bool add)
{
    bool known = take_char(&args, '0') || take_char(&args, '1');
    if (!known || !take_char(&args, ','))
        return;  // an empty reply: this kind is not supported
    uint64_t gva = take_number(&args);
    int rc = 0;
    for (unsigned i = 0; i < server->cpus && rc == 0; i++) {
        struct hart *hart = hart_at(server, i);
        rc = add ? hart_breakpoint_add(hart, gva) : hart_breakpoint_remove(hart, gva);
        if (rc == -EEXIST || rc == -ENOENT)
            rc = 0;  // GDB may repeat itself
    }
    put_result(server, rc);
}

static void add_breakpoint(struct gdb_server *server, const char *args)
{
    change_breakpoint(server, args, true);
}

static void remove_breakpoint(struct gdb_server *server, const char *args)
{
    change_breakpoint(server, args, false);
}

static void remove_all_breakpoints(struct gdb_server *server)
{
    for (unsigned i = 0; i < server->cpus; i++) {
        struct hart *hart = hart_at(server, i);
        while (hart->breakpoint_count > 0)
            if (hart_breakpoint_remove(hart, hart->breakpoints[0]) < 0)
                break;
    }
}

// ---- Running and stopping -----------------------------------------------------------------------

static void stop_all(struct gdb_server *server)
{
    if (!server->stopped)
        partition_pause(server->partition);
    server->stopped = true;
}

static void go_on(struct gdb_server *server)
{
    if (server->stopped) {
        server->stopped = false;
        partition_resume(server->partition);
    }
}

// Reports a hart that stopped by itself; false when there is none.
static bool report_hit(struct gdb_server *server)
{
    unsigned hits = atomic_load(&server->hits);
    if (!hits)
        return false;
    unsigned hart = (unsigned)__builtin_ctz(hits);
    atomic_fetch_and(&server->hits, ~(1u << hart));
    stop_all(server);
    put_stop(server, SIGNAL_TRAP, hart);
    send_packet(server);
    return true;
}

// Two harts can hit breakpoints at once: the second is reported when GDB wants to go on from the
// first.
static void continue_all(struct gdb_server *server)
{
    if (!report_hit(server))
        go_on(server);
}

static void step_hart(struct gdb_server *server, unsigned hart)
{
    // A hart that was not started yet has no instruction to execute.
    if (!hart_is_parked(hart_at(server, hart)))
        partition_step(server->partition, hart);
    put_stop(server, SIGNAL_TRAP, hart);
    send_packet(server);
}

static void on_continue(struct gdb_server *server, const char *args)
{
    (void)args;
    continue_all(server);
}

static void on_step(struct gdb_server *server, const char *args)
{
    (void)args;
    step_hart(server, server->hart);
}

// vCont;action[:thread]... The first step decides; with it, other harts wait (all-stop, and a step
// that others can not disturb); else everything continues.
static void on_vcont(struct gdb_server *server, const char *args)
{
    while (take_char(&args, ';')) {
        char action = *args ? *args++ : 0;
        if (action == 'S' || action == 'C')
            take_number(&args);  // a signal, which a hart can not take
        unsigned hart = server->hart;
        if (take_char(&args, ':') && !take_thread(server, &args, server->hart, &hart)) {
            put_error(server, -EINVAL);
            send_packet(server);
            return;
        }
        if (action == 's' || action == 'S') {
            step_hart(server, hart);
            return;
        }
    }
    continue_all(server);
}

static void on_kill(struct gdb_server *server, const char *args)
{
    (void)args;
    partition_stop(server->partition);
}

// ---- Queries ------------------------------------------------------------------------------------

static void on_supported(struct gdb_server *server, const char *args)
{
    (void)args;
    put(server, "PacketSize=%x;QStartNoAckMode+;vContSupported+;qXfer:features:read+",
        PACKET_BYTES - 16);
}

static void on_vcont_query(struct gdb_server *server, const char *args)
{
    (void)args;
    put(server, "vCont;c;C;s;S");
}

static void on_no_acks(struct gdb_server *server, const char *args)
{
    (void)args;
    put(server, "OK");
    send_packet(server);
    server->acks = false;
}

static void on_status(struct gdb_server *server, const char *args)
{
    (void)args;
    put_stop(server, server->last_signal, server->last_hart);
}

static void on_select(struct gdb_server *server, const char *args)
{
    bool registers = take_char(&args, 'g');
    unsigned hart;
    if (!registers && !take_char(&args, 'c'))
        return;
    bool good = take_thread(server, &args, server->hart, &hart);
    if (good && registers)
        server->hart = hart;
    put_result(server, good ? 0 : -EINVAL);
}

static void on_alive(struct gdb_server *server, const char *args)
{
    unsigned hart;
    put_result(server, take_thread(server, &args, 0, &hart) ? 0 : -EINVAL);
}

static void on_first_threads(struct gdb_server *server, const char *args)
{
    (void)args;
    for (unsigned i = 0; i < server->cpus; i++)
        put(server, "%c%x", i ? ',' : 'm', i + 1);
}

static void on_more_threads(struct gdb_server *server, const char *args)
{
    (void)args;
    put(server, "l");
}

static void on_thread_info(struct gdb_server *server, const char *args)
{
    unsigned hart;
    char text[64];
    if (!take_thread(server, &args, 0, &hart)) {
        put_error(server, -EINVAL);
        return;
    }
    snprintf(text, sizeof(text), "hart %u%s", hart,
             hart_is_parked(hart_at(server, hart)) ? " (not started)" : "");
    put_hex(server, text, strlen(text));
}

static void on_current_thread(struct gdb_server *server, const char *args)
{
    (void)args;
    put(server, "QC%x", server->hart + 1);
}

static void on_attached(struct gdb_server *server, const char *args)
{
    (void)args;
    put(server, "1");
}

static void on_features(struct gdb_server *server, const char *args)
{
    uint64_t offset = take_number(&args);
    uint64_t count = take_char(&args, ',') ? take_number(&args) : 0;
    uint64_t total = strlen(server->features);
    if (offset > total) {
        put_error(server, -EINVAL);
        return;
    }
    if (count > PACKET_BYTES - 32)
        count = PACKET_BYTES - 32;
    bool last = count >= total - offset;
    put(server, "%c%.*s", last ? 'l' : 'm', (int)(last ? total - offset : count),
        server->features + offset);
}

// The target description (appendix G), CSRs from the table of CSRs.
static int make_features(struct gdb_server *server)
{
    size_t bytes;
    FILE *xml = open_memstream(&server->features, &bytes);
    if (!xml)
        return -ENOMEM;
    fprintf(xml, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
                 "<target version=\"1.0\"><architecture>riscv:rv64</architecture>"
                 "<feature name=\"org.gnu.gdb.riscv.cpu\">");
    for (int i = 0; i < REG_PC; i++)
        fprintf(xml, "<reg name=\"x%d\" bitsize=\"64\" regnum=\"%d\" type=\"%s\"/>", i, i,
                i == 1             ? "code_ptr"
                : i >= 2 && i <= 4 ? "data_ptr"
                                   : "int");
    fprintf(xml,
            "<reg name=\"pc\" bitsize=\"64\" regnum=\"%d\" type=\"code_ptr\"/></feature>"
            "<feature name=\"org.gnu.gdb.riscv.fpu\">",
            REG_PC);
    for (int i = 0; i < 32; i++)
        fprintf(xml, "<reg name=\"f%d\" bitsize=\"64\" regnum=\"%d\" type=\"ieee_double\"/>", i,
                REG_F0 + i);
    // GDB wants these three with the FPU.
    static const char *const fp_csrs[] = {"fflags", "frm", "fcsr"};
    for (int i = 0; i < 3; i++)
        fprintf(xml, "<reg name=\"%s\" bitsize=\"64\" regnum=\"%d\" type=\"int\"/>", fp_csrs[i],
                REG_CSR0 + isa_csr_number(fp_csrs[i]));
    fprintf(xml, "</feature><feature name=\"org.gnu.gdb.riscv.csr\">");
    for (unsigned number = 4; number < REG_PRIV - REG_CSR0; number++)
        if (isa_csr_name(number))
            fprintf(xml, "<reg name=\"%s\" bitsize=\"64\" regnum=\"%u\"/>", isa_csr_name(number),
                    REG_CSR0 + number);
    fprintf(xml,
            "</feature><feature name=\"org.gnu.gdb.riscv.virtual\">"
            "<reg name=\"priv\" bitsize=\"64\" regnum=\"%d\"/></feature></target>",
            REG_PRIV);
    return fclose(xml) == 0 ? 0 : -ENOMEM;
}

// ---- Packets ------------------------------------------------------------------------------------

static void on_detach(struct gdb_server *server, const char *args)
{
    (void)args;
    remove_all_breakpoints(server);
    put(server, "OK");
    send_packet(server);
    go_on(server);
}

// By prefix; the first that fits. `quiet` handlers send what there is to send themselves.
static const struct {
    const char *prefix;
    void (*handle)(struct gdb_server *server, const char *args);
    bool quiet;
} packets[] = {
    {"qSupported", on_supported, false},
    {"QStartNoAckMode", on_no_acks, true},
    {"qXfer:features:read:target.xml:", on_features, false},
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
    {"D", on_detach, true},
    {"k", on_kill, true},
};

static void handle_packet(struct gdb_server *server, const char *text)
{
    stop_all(server);  // GDB sends packets to a stopped target only; make sure of it
    for (size_t i = 0; i < BASE_COUNT_OF(packets); i++) {
        size_t length = strlen(packets[i].prefix);
        if (strncmp(text, packets[i].prefix, length) != 0)
            continue;
        packets[i].handle(server, text + length);
        if (!packets[i].quiet)
            send_packet(server);
        return;
    }
    send_packet(server);  // empty: not supported
}

static void interrupt(struct gdb_server *server)
{
    if (server->stopped)
        return;
    stop_all(server);
    if (report_hit(server))
        return;
    put_stop(server, SIGNAL_INT, server->hart);
    send_packet(server);
}

// Takes one packet or acknowledgement off the input; the number of bytes used, 0 when incomplete.
static size_t take_packet(struct gdb_server *server)
{
    char *in = server->in;
    if (in[0] == 0x03) {
        interrupt(server);
        return 1;
    }
    if (in[0] != '$')
        return 1;  // an acknowledgement: TCP has lost nothing
    char *end = memchr(in, '#', server->in_used);
    if (!end || end + 3 > in + server->in_used)
        return 0;
    *end = 0;
    const char *tail = end + 1;
    uint8_t sum = 0, sent;
    for (const char *c = in + 1; c < end; c++)
        sum += (uint8_t)*c;
    bool good = take_bytes(&tail, &sent, 1) && sent == sum;
    if (server->acks)
        send_bytes(server, good ? "+" : "-", 1);
    if (good)
        handle_packet(server, in + 1);
    return (size_t)(end + 3 - in);
}

static void drop_client(struct gdb_server *server)
{
    stop_all(server);
    remove_all_breakpoints(server);
    atomic_store(&server->hits, 0);
    close(server->client_fd);
    server->client_fd = -1;
    go_on(server);
}

static void receive(struct gdb_server *server)
{
    size_t space = sizeof(server->in) - server->in_used;
    ssize_t n = recv(server->client_fd, server->in + server->in_used, space, 0);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        drop_client(server);  // gone, or a packet larger than we said we take
        return;
    }
    server->in_used += (size_t)n;
    for (size_t used; server->in_used > 0 && (used = take_packet(server)) > 0;) {
        server->in_used -= used;
        memmove(server->in, server->in + used, server->in_used);
    }
}

static void take_client(struct gdb_server *server)
{
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int one = 1;
    // One that does not read its replies is dropped, or the end of the partition would wait for it.
    const struct timeval patience = {.tv_sec = SEND_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    server->client_fd = fd;
    server->in_used = server->out_used = 0;
    server->acks = true;
    server->last_signal = SIGNAL_TRAP;
    stop_all(server);
}

static void *serve(void *opaque)
{
    struct gdb_server *server = opaque;
    while (!atomic_load(&server->quit)) {
        struct pollfd fds[] = {
            {.fd = server->event_fd, .events = POLLIN},
            {.fd = server->client_fd < 0 ? server->listen_fd : server->client_fd, .events = POLLIN},
        };
        if (poll(fds, BASE_COUNT_OF(fds), -1) < 0)
            continue;
        if (fds[0].revents) {
            uint64_t count;
            (void)!read(server->event_fd, &count, sizeof(count));
            if (server->client_fd >= 0 && !server->stopped)
                report_hit(server);
        }
        if (fds[1].revents && server->client_fd < 0)
            take_client(server);
        else if (fds[1].revents)
            receive(server);
    }
    if (server->client_fd >= 0 && !server->stopped && !server->leaving) {
        put(server, "W00");
        send_packet(server);
    }
    return NULL;
}

static void notify(struct gdb_server *server)
{
    uint64_t one = 1;
    (void)!write(server->event_fd, &one, sizeof(one));
}

// On the hart's thread.
static void on_hart_stopped(void *opaque, unsigned hart, enum hart_exit why)
{
    struct gdb_server *server = opaque;
    (void)why;
    atomic_fetch_or(&server->hits, 1u << hart);
    notify(server);
}

static void server_free(struct gdb_server *server)
{
    if (server->client_fd >= 0)
        close(server->client_fd);
    if (server->event_fd >= 0)
        close(server->event_fd);
    free(server->features);
    free(server);
}

// One that does not serve yet.
static int server_create(struct gdb_server **out, int listen_fd, struct partition *partition,
                         struct error *err)
{
    struct gdb_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set_errno(err, -ENOMEM, "cannot start the GDB server");
    *server = (struct gdb_server){.partition = partition,
                                  .cpus = machine_cpus(partition_machine(partition)),
                                  .listen_fd = listen_fd,
                                  .client_fd = -1,
                                  .event_fd = eventfd(0, EFD_CLOEXEC)};
    int rc = server->event_fd < 0 ? -errno : make_features(server);
    if (rc < 0) {
        server_free(server);
        return error_set_errno(err, rc, "cannot start the GDB server");
    }
    partition_set_debug(partition, on_hart_stopped, server);
    *out = server;
    return 0;
}

int gdb_server_run(struct gdb_server *server, struct error *err)
{
    server->leaving = false;
    atomic_store(&server->quit, false);
    // A breakpoint that was hit just before the process changed.
    if (server->client_fd >= 0 && !server->stopped)
        atomic_fetch_or(&server->hits, partition_held(server->partition));
    notify(server);
    int rc = -pthread_create(&server->thread, NULL, serve, server);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot start the GDB server");
    pthread_setname_np(server->thread, "gdb");
    server->serving = true;
    return 0;
}

static void stop_serving(struct gdb_server *server)
{
    if (!server->serving)
        return;
    atomic_store(&server->quit, true);
    notify(server);
    pthread_join(server->thread, NULL);
    server->serving = false;
}

int gdb_server_create(struct gdb_server **out, int listen_fd, struct partition *partition,
                      struct error *err)
{
    int rc = server_create(out, listen_fd, partition, err);
    if (rc < 0)
        return rc;
    (*out)->stopped = true;
    rc = gdb_server_run(*out, err);
    if (rc < 0) {
        partition_set_debug(partition, NULL, NULL);
        server_free(*out);
        *out = NULL;
    }
    return rc;
}

void gdb_server_destroy(struct gdb_server *server)
{
    if (!server)
        return;
    stop_serving(server);
    server_free(server);
}

// ---- Handover -----------------------------------------------------------------------------------

struct gdb_state {
    int client_fd;
    bool stopped, acks;
    uint32_t hart, last_signal, last_hart, hits;
    struct state_blob in;  // what has come of a packet
};

static const struct state_field gdb_fields[] = {
    STATE_FIELD(struct gdb_state, client_fd, STATE_FD, 1, 0),
    STATE_FIELD(struct gdb_state, stopped, STATE_BOOL, 1, 0),
    STATE_FIELD(struct gdb_state, acks, STATE_BOOL, 1, 0),
    STATE_FIELD(struct gdb_state, hart, STATE_U32, 1, HART_MAX - 1),
    STATE_FIELD(struct gdb_state, last_signal, STATE_U32, 1, 255),
    STATE_FIELD(struct gdb_state, last_hart, STATE_U32, 1, HART_MAX - 1),
    STATE_FIELD(struct gdb_state, hits, STATE_U32, 1, (1u << HART_MAX) - 1),
    STATE_FIELD(struct gdb_state, in, STATE_BLOB, 1, PACKET_BYTES),
    {0},
};

static const struct state_schema gdb_schema = {
    .name = "gdb", .version = 1, .struct_bytes = sizeof(struct gdb_state), .fields = gdb_fields};

void gdb_server_save(struct gdb_server *server, struct state_writer *writer)
{
    server->leaving = true;
    stop_serving(server);
    const struct gdb_state state = {
        .client_fd = server->client_fd,
        .stopped = server->stopped,
        .acks = server->acks,
        .hart = server->hart,
        .last_signal = server->last_signal,
        .last_hart = server->last_hart,
        .hits = atomic_load(&server->hits),
        .in = {.bytes = server->in, .length_bytes = server->in_used},
    };
    state_write(writer, &gdb_schema, 0, &state);
}

static int take_state(struct gdb_server *server, const struct gdb_state *state, struct error *err)
{
    unsigned cpus = server->cpus;
    if (state->hart >= cpus || state->last_hart >= cpus || state->hits >> cpus)
        return error_set(err, -EINVAL, "section \"gdb\" names a hart that there is not");
    server->stopped = state->stopped;
    server->acks = state->acks;
    server->hart = state->hart;
    server->last_signal = state->last_signal;
    server->last_hart = state->last_hart;
    atomic_store(&server->hits, state->hits);
    server->in_used = state->in.length_bytes;
    if (server->in_used > 0)
        memcpy(server->in, state->in.bytes, server->in_used);
    if (state->client_fd < 0)
        return 0;
    server->client_fd = fcntl(state->client_fd, F_DUPFD_CLOEXEC, 0);
    return server->client_fd < 0 ? error_set_errno(err, -errno, "cannot keep the debugger") : 0;
}

int gdb_server_load(struct gdb_server **out, int listen_fd, struct partition *partition,
                    struct state_reader *reader, struct error *err)
{
    struct gdb_state state = {.client_fd = -1};
    int rc = server_create(out, listen_fd, partition, err);
    if (rc < 0)
        return rc;
    rc = state_read(reader, &gdb_schema, 0, &state, err);
    if (rc == 0)
        rc = take_state(*out, &state, err);
    if (rc < 0) {
        partition_set_debug(partition, NULL, NULL);
        server_free(*out);
        *out = NULL;
    }
    return rc;
}
