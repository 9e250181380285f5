// SPDX-License-Identifier: BSD-2-Clause
// The update service in a supervisor, with a partition that runs: what guests may use of it, a
// commit that goes well and that is taken back, and what is found when a supervisor came to its end
// at any step. The guest is played by the test. The monitors are this very program; a version is a
// copy of it that says so in its last bytes, which answers the self-test by it.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "supervisor/update_internal.h"
#include "unit.h"

#define WAIT_MS 120000u
#define VERSION_BYTES 16
#define FRAME_BYTES 16u
#define NEW "9.9.1"

// t1 from 'a' to 'z' to the UART, about every 100 us, for ever.
static const uint32_t letters[] = {0x100002b7, 0x06100313, 0x07a00393, 0x00628023,
                                   0x00020e37, 0xfffe0e13, 0xfe0e1ee3, 0x00130313,
                                   0xfe63d6e3, 0x06100313, 0xfe5ff06f};

struct package {
    char *manifest, *signature;
    void *payload;
    size_t payload_bytes;
};

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct registry *registry;
    struct entry *entry;
    struct updates_config config;
    struct updates *updates;
    struct package_key *key;
    struct package package;
    char folder[64], trusted[96];
    int reexec_fd;  // what the supervisor is to go on as; -1: nothing
};

// ---- A version ----------------------------------------------------------------------------------

static int print_facts(void)
{
    char version[VERSION_BYTES + 1] = "";
    FILE *file = fopen("/proc/self/exe", "rb");
    if (!file || fseek(file, -VERSION_BYTES, SEEK_END) < 0 ||
        fread(version, 1, VERSION_BYTES, file) != VERSION_BYTES)
        return 1;
    fclose(file);
    printf("{\"version\": \"%s\", \"epoch\": 1, \"state\": {\"oldest\": 1, \"newest\": 99}}\n",
           version);
    return 0;
}

static char *read_own(size_t *count)
{
    FILE *file = fopen("/proc/self/exe", "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *count = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*count + VERSION_BYTES);
    assert_int_equal(fread(bytes, 1, *count, file), *count);
    fclose(file);
    return bytes;
}

// `version` NULL: this very program, which the manifest says is version NEW.
static struct package make_package(struct fixture *f, const char *version)
{
    struct package package = {0};
    struct package_payload payload = {.file.name = "monitor-full.zst"};
    size_t count;
    char *program = read_own(&count);
    struct error err = {0};
    if (version) {
        memset(program + count, 0, VERSION_BYTES);
        memcpy(program + count, version, strlen(version));
        count += VERSION_BYTES;
    }
    package.payload = malloc(ZSTD_compressBound(count));
    package.payload_bytes =
        ZSTD_compress(package.payload, ZSTD_compressBound(count), program, count, 1);
    payload.file.bytes = package.payload_bytes;
    package_digest(package.payload, package.payload_bytes, payload.file.sha256);
    struct package_manifest manifest = {.product = PACKAGE_PRODUCT,
                                        .architecture = PACKAGE_ARCHITECTURE,
                                        .version = version ? version : NEW,
                                        .epoch = 1,
                                        .state_oldest = 1,
                                        .state_newest = 99,
                                        .program_bytes = count,
                                        .payloads = &payload,
                                        .payload_count = 1,
                                        .expires_s = 4102444800,
                                        .notes = ""};
    package_digest(program, count, manifest.program_sha256);
    if (package_manifest_write(&manifest, &package.manifest, &err) < 0 ||
        package_sign(f->key, package.manifest, strlen(package.manifest), "test", &package.signature,
                     &err) < 0)
        fail_msg("%s", err.message);
    free(program);
    return package;
}

static void package_fini(struct package *package)
{
    free(package->manifest);
    free(package->signature);
    free(package->payload);
}

// ---- The loop -----------------------------------------------------------------------------------

static void on_timeout(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->loop);
}

static void run_for(struct fixture *f, unsigned ms)
{
    loop_timer_start(f->timer, ms);
    loop_run(f->loop);
    loop_timer_stop(f->timer);
}

#define RUN_UNTIL(f, condition)                                                                    \
    for (unsigned waited_ms = 0; !(condition); waited_ms++) {                                      \
        if (waited_ms > WAIT_MS)                                                                   \
            fail_msg("never: %s", #condition);                                                     \
        run_for(f, 1);                                                                             \
    }

// ---- The guest ----------------------------------------------------------------------------------

struct guest {
    int fd;
    uint64_t handle;
};

struct frame {
    uint16_t magic, type;
    uint32_t bytes;
    uint64_t handle;
    char payload[UPDATE_FRAME_PAYLOAD_MAX + 1];
};

static struct guest connect_guest(struct fixture *f)
{
    struct guest guest = {.fd = updates_connect(f->updates, "web", true)};
    assert_true(guest.fd >= 0);
    return guest;
}

static void say(struct fixture *f, struct guest *guest, uint16_t type, const void *payload,
                size_t bytes)
{
    char frame[FRAME_BYTES + UPDATE_FRAME_PAYLOAD_MAX];
    const struct {
        uint16_t magic, type;
        uint32_t bytes;
        uint64_t handle;
    } header = {UPDATE_FRAME_MAGIC, type, (uint32_t)bytes,
                type == UPDATE_FRAME_HELLO || type == UPDATE_FRAME_OFFER ||
                        type == UPDATE_FRAME_STATUS
                    ? 0
                    : guest->handle};
    memcpy(frame, &header, FRAME_BYTES);
    if (bytes)
        memcpy(frame + FRAME_BYTES, payload, bytes);
    for (size_t done = 0; done < FRAME_BYTES + bytes;) {
        ssize_t n = send(guest->fd, frame + done, FRAME_BYTES + bytes - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            fail_msg("the host has closed the connection");
        done += n > 0 ? (size_t)n : 0;
        if (n < 0)
            run_for(f, 1);
    }
}

static void take(struct fixture *f, const struct guest *guest, void *bytes, size_t count)
{
    unsigned waited_ms = 0;
    for (size_t done = 0; done < count;) {
        ssize_t n = recv(guest->fd, (char *)bytes + done, count - done, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN) || waited_ms++ > WAIT_MS)
            fail_msg("no answer comes");
        done += n > 0 ? (size_t)n : 0;
        if (n < 0)
            run_for(f, 1);
    }
}

// The next answer that is no PROGRESS.
static struct frame *hear(struct fixture *f, struct guest *guest)
{
    static struct frame frame;
    do {
        take(f, guest, &frame, FRAME_BYTES);
        assert_true(frame.magic == UPDATE_FRAME_MAGIC && frame.bytes <= UPDATE_FRAME_PAYLOAD_MAX);
        take(f, guest, frame.payload, frame.bytes);
        frame.payload[frame.bytes] = 0;
    } while (frame.type == UPDATE_FRAME_PROGRESS);
    if (frame.type == UPDATE_FRAME_ERROR)
        print_message("  %u: %s\n", *(uint16_t *)frame.payload, frame.payload + 4);
    else if (frame.type != UPDATE_FRAME_WRITTEN)
        print_message("  %s\n", frame.payload);
    return &frame;
}

static struct frame *ask(struct fixture *f, struct guest *guest, uint16_t type, const void *payload,
                         size_t bytes)
{
    say(f, guest, type, payload, bytes);
    return hear(f, guest);
}

static void assert_error(const struct frame *frame, enum update_refusal refusal)
{
    assert_int_equal(frame->type, UPDATE_FRAME_ERROR);
    assert_int_equal(*(const uint16_t *)frame->payload, refusal);
}

static void assert_told(const struct frame *frame, uint16_t type, const char *text)
{
    assert_int_equal(frame->type, type);
    if (!strstr(frame->payload, text))
        fail_msg("\"%s\" does not say %s", frame->payload, text);
}

static void hello(struct fixture *f, struct guest *guest)
{
    static const char text[] = "{\"protocol\": 1}";
    assert_told(ask(f, guest, UPDATE_FRAME_HELLO, text, strlen(text)), UPDATE_FRAME_HELLO_ANSWER,
                "\"partition\":\"web\"");
}

static struct frame *offer(struct fixture *f, struct guest *guest, const struct package *package)
{
    char payload[UPDATE_FRAME_PAYLOAD_MAX];
    uint32_t bytes = (uint32_t)strlen(package->manifest);
    memcpy(payload, &bytes, sizeof(bytes));
    memcpy(payload + sizeof(bytes), package->manifest, bytes);
    memcpy(payload + sizeof(bytes) + bytes, package->signature, strlen(package->signature));
    struct frame *frame = ask(f, guest, UPDATE_FRAME_OFFER, payload,
                              sizeof(bytes) + bytes + strlen(package->signature));
    guest->handle = frame->handle;
    return frame;
}

static void write_payload(struct fixture *f, struct guest *guest, const struct package *package)
{
    char part[UPDATE_FRAME_PAYLOAD_MAX];
    const size_t most = sizeof(part) - sizeof(uint64_t);
    uint64_t there = 0;
    for (uint64_t at = 0; at < package->payload_bytes;) {
        size_t count = package->payload_bytes - at < most ? package->payload_bytes - at : most;
        memcpy(part, &at, sizeof(at));
        memcpy(part + sizeof(at), (const char *)package->payload + at, count);
        say(f, guest, UPDATE_FRAME_WRITE, part, sizeof(at) + count);
        at += count;
    }
    while (there < package->payload_bytes) {
        const struct frame *frame = hear(f, guest);
        assert_int_equal(frame->type, UPDATE_FRAME_WRITTEN);
        memcpy(&there, frame->payload, sizeof(there));
    }
}

// As far as VALIDATED.
static struct guest bring(struct fixture *f, const struct package *package)
{
    struct guest guest = connect_guest(f);
    hello(f, &guest);
    assert_told(offer(f, &guest, package), UPDATE_FRAME_SESSION, "\"offered\"");
    write_payload(f, &guest, package);
    assert_told(ask(f, &guest, UPDATE_FRAME_FINISH, NULL, 0), UPDATE_FRAME_VALIDATED, NEW);
    return guest;
}

// What was sent takes no room any more.
static void assert_nothing_staged(const struct fixture *f)
{
    char folder[96];
    snprintf(folder, sizeof(folder), "%s/update/staging", f->folder);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
}

// What the guest is told on a new connection has become of its package.
static void assert_outcome(struct fixture *f, const char *phase)
{
    struct guest guest = connect_guest(f);
    hello(f, &guest);
    assert_told(offer(f, &guest, &f->package), UPDATE_FRAME_SESSION, phase);
    close(guest.fd);
}

// ---- The supervisor -----------------------------------------------------------------------------

static void on_reexec(void *opaque, int program_fd)
{
    struct fixture *f = opaque;
    f->reexec_fd = dup(program_fd);
}

static void open_updates(struct fixture *f, bool reexecuted)
{
    struct error err;
    f->config.reexecuted = reexecuted;
    if (updates_create(&f->updates, &f->config, &err) < 0)
        fail_msg("%s", err.message);
    registry_set_updates(f->registry, f->updates);
}

// It dies here, but for partitions, which go on.
static void close_updates(struct fixture *f)
{
    updates_destroy(f->updates);
    registry_set_updates(f->registry, NULL);
    f->updates = NULL;
    if (f->reexec_fd >= 0)
        close(f->reexec_fd);
    f->reexec_fd = -1;
}

static const char *text_in(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static struct update_store *open_store(struct fixture *f)
{
    char folder[96];
    struct update_store *store;
    struct error err;
    snprintf(folder, sizeof(folder), "%s/update", f->folder);
    if (update_store_open(&store, folder, NULL, &err) < 0)
        fail_msg("%s", err.message);
    return store;
}

static const struct update_state *state_of(const struct fixture *f)
{
    return update_store_state(f->updates->store);
}

static void assert_current(const struct fixture *f, const char *current, bool pending)
{
    assert_string_equal(state_of(f)->current, current);
    assert_int_equal(*state_of(f)->pending.version != 0, pending);
}

// Whether the partition's monitor is this program.
static bool is_here(const struct fixture *f)
{
    char path[64];
    struct stat monitor, own;
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)process_pid(f->entry->process));
    if (stat(path, &monitor) < 0)  // it has ended, and its successor is not known yet
        return false;
    assert_int_equal(stat("/proc/self/exe", &own), 0);
    return monitor.st_dev == own.st_dev && monitor.st_ino == own.st_ino;
}

static void shell(const struct fixture *f, const char *command)
{
    char line[256];
    snprintf(line, sizeof(line), "cd %s && { %s; }", f->folder, command);
    assert_int_equal(system(line), 0);
}

// The store's state cannot be replaced: what is in the way is too deep to be removed.
static void break_store(const struct fixture *f)
{
    shell(f, "mkdir -p update/state.json.new/1/2/3/4/5/6/7/8/9/10/11");
}

static void mend_store(const struct fixture *f)
{
    shell(f, "rm -r update/state.json.new");
}

// As far as the supervisor is to go on as the new program.
static void commit(struct fixture *f)
{
    struct guest guest = bring(f, &f->package);
    say(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0);
    RUN_UNTIL(f, f->reexec_fd >= 0);
    close(guest.fd);
    run_for(f, 1);
    assert_current(f, NEW, true);
    assert_false(is_here(f));
}

// ---- Tests: what guests may use -----------------------------------------------------------------

static void test_connections_are_bounded(void **state)
{
    struct fixture *f = *state;
    int fds[100], open = 0;
    for (int i = 0; i < 100; i++) {
        int fd = updates_connect(f->updates, "web", i % 2);
        assert_true(fd >= 0 || fd == -EAGAIN);
        if (fd >= 0)
            fds[open++] = fd;
    }
    print_message("%d of 100 are let in\n", open);
    assert_true(open >= (int)UPDATE_CONNECTIONS_MAX && open <= 3 * (int)UPDATE_CONNECTIONS_MAX);
    while (open > 0)
        close(fds[--open]);
    run_for(f, 20);
    assert_true(list_empty(&f->updates->connections));
    fds[0] = updates_connect(f->updates, "web", true);
    assert_true(fds[0] >= 0);
    close(fds[0]);
}

static void test_guests_are_forgotten(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof(name), "gone%d", i);
        close(updates_connect(f->updates, name, true));
    }
    close(updates_connect(f->updates, "web", true));
    RUN_UNTIL(f, f->updates->guests.next->next == &f->updates->guests);
}

// Requests without end, and no answer is ever read: the host stops taking them, and others are
// served. When the connection has to end, it does, though what it was told was never read.
static void test_never_reads(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint16_t magic, type;
        uint32_t bytes;
        uint64_t handle;
    } status = {UPDATE_FRAME_MAGIC, UPDATE_FRAME_STATUS, 0, 0};
    struct guest deaf = connect_guest(f), other;
    size_t sent = 0;
    hello(f, &deaf);
    assert_told(offer(f, &deaf, &f->package), UPDATE_FRAME_SESSION, "\"offered\"");
    for (unsigned idle = 0; idle < 200;) {
        ssize_t n = send(deaf.fd, &status, sizeof(status), MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        if (n < 0)
            run_for(f, 1);
        assert_true(sent < 8u << 20);
    }
    print_message("%zu bytes of requests were taken\n", sent);
    other = connect_guest(f);
    hello(f, &other);
    assert_told(offer(f, &other, &f->package), UPDATE_FRAME_SESSION, "\"offered\"");
    RUN_UNTIL(f, f->updates->connections.next->next == &f->updates->connections);
    close(deaf.fd);
    close(other.fd);
}

// Who still talks when the host ends the connection finds what it was told, and then the end.
static void test_last_words(void **state)
{
    struct fixture *f = *state;
    struct guest guest = connect_guest(f);
    char rubbish[100000];
    memset(rubbish, 'x', sizeof(rubbish));
    assert_int_equal(send(guest.fd, rubbish, sizeof(rubbish), MSG_NOSIGNAL), sizeof(rubbish));
    assert_error(hear(f, &guest), UPDATE_REFUSAL_MALFORMED);
    run_for(f, 20);
    assert_int_equal(recv(guest.fd, rubbish, 1, 0), 0);
    close(guest.fd);
    run_for(f, 20);
    assert_true(list_empty(&f->updates->connections));
}

// ---- Tests: commits -----------------------------------------------------------------------------

static void test_goes_on(void **state)
{
    struct fixture *f = *state;
    struct stat monitor, program;
    char path[64];
    commit(f);
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)process_pid(f->entry->process));
    assert_int_equal(stat(path, &monitor), 0);
    assert_int_equal(fstat(f->reexec_fd, &program), 0);
    assert_true(monitor.st_ino == program.st_ino && monitor.st_dev == program.st_dev);
    assert_int_equal(fcntl(f->reexec_fd, F_GET_SEALS) & F_SEAL_WRITE, F_SEAL_WRITE);
    run_for(f, 2500);
    assert_current(f, NEW, true);  // who has made it pending does not confirm it
}

// The partition cannot be handed over: nothing has changed, and it can be tried again.
static void test_partition_stays(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package);
    process_handover_faults(f->entry->process, NULL, "hello:exit");
    assert_error(ask(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0), UPDATE_REFUSAL_ROLLED_BACK);
    process_handover_faults(f->entry->process, NULL, NULL);
    assert_current(f, UPDATE_INSTALLED, false);
    assert_true(is_here(f) && f->reexec_fd < 0);
    assert_int_equal(ask(f, &guest, UPDATE_FRAME_WITHDRAW, NULL, 0)->type, UPDATE_FRAME_WITHDRAWN);
    close(guest.fd);
    commit(f);
}

// All else was handed over, but the program cannot be executed.
static void test_reexec_fails(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package);
    struct error why;
    error_set(&why, -EBUSY, "it is not to be");
    say(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0);
    RUN_UNTIL(f, f->reexec_fd >= 0);
    updates_reexec_failed(f->updates, &why);
    assert_error(hear(f, &guest), UPDATE_REFUSAL_ROLLED_BACK);
    assert_current(f, UPDATE_INSTALLED, false);
    RUN_UNTIL(f, is_here(f) && !f->updates->going_back);
    updates_reexec_failed(f->updates, &why);  // of somebody else's wish
    assert_current(f, UPDATE_INSTALLED, false);
    close(guest.fd);
}

// A partition that somebody else is handing over is waited for.
static void test_partition_on_its_way(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package);
    entry_handover(f->entry, -1, NULL, NULL);
    assert_true(process_is_handed_over(f->entry->process));
    say(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0);
    RUN_UNTIL(f, f->reexec_fd >= 0);
    assert_int_equal(f->entry->handovers, 2);
    assert_false(is_here(f));
    close(guest.fd);
}

static void ignore(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    (void)opaque, (void)outcome, (void)result;
}

// While all are handed over for another reason there is no commit, but one afterwards.
static void test_busy(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package);
    struct error err;
    assert_int_equal(transaction_begin(f->registry, -1, ignore, NULL, &err), 0);
    assert_error(ask(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0), UPDATE_REFUSAL_BUSY);
    RUN_UNTIL(f, !registry_transaction(f->registry));
    say(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0);
    RUN_UNTIL(f, f->reexec_fd >= 0);
    close(guest.fd);
}

// A partition that does not answer cannot be handed over, and does not just stay behind either.
static void test_silent_partition(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package);
    f->entry->hello = true;
    assert_error(ask(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0), UPDATE_REFUSAL_BUSY);
    f->entry->hello = false;
    say(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0);
    RUN_UNTIL(f, f->reexec_fd >= 0);
    close(guest.fd);
}

// The host has no descriptors left for the self-test, and has some later: it is tried again.
static void test_host_fails(void **state)
{
    enum { TOP = 100, LEFT = 3 };  // for payload, program, and what that is sealed into
    struct fixture *f = *state;
    struct guest guest = connect_guest(f);
    struct rlimit before, few = {.rlim_cur = TOP};
    int fds[TOP], count = 0;
    hello(f, &guest);
    (void)offer(f, &guest, &f->package);
    write_payload(f, &guest, &f->package);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    for (int fd; (fd = dup(STDERR_FILENO)) >= 0;)
        fds[count++] = fd;
    for (int i = 0; i < LEFT; i++)
        close(fds[--count]);
    const struct frame *frame = ask(f, &guest, UPDATE_FRAME_FINISH, NULL, 0);
    assert_error(frame, UPDATE_REFUSAL_HOST);
    assert_non_null(f->updates->work);  // it was begun
    while (count > 0)
        close(fds[--count]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_told(ask(f, &guest, UPDATE_FRAME_FINISH, NULL, 0), UPDATE_FRAME_VALIDATED, NEW);
    close(guest.fd);
}

// What is being told of the store meanwhile keeps the thread that installs company.
static void test_others_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package), other = connect_guest(f);
    unsigned answers = 0;
    hello(f, &other);
    say(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0);
    while (f->reexec_fd < 0) {
        struct error err;
        json_t *history = update_store_history(f->updates->store, 5, &err);
        json_t *record = json_pack("{s:s}", "event", "test");
        f->updates->listed = false;
        assert_int_equal(ask(f, &other, UPDATE_FRAME_STATUS, NULL, 0)->type,
                         UPDATE_FRAME_STATUS_ANSWER);
        updates_audit(f->updates, record);
        assert_true(json_array_size(history) > 0);
        json_decref(history);
        json_decref(record);
        answers++;
    }
    print_message("%u answers\n", answers);
    close(guest.fd);
    close(other.fd);
}

// ---- Tests: what is found after an end ----------------------------------------------------------

static void test_ends_before_exec(void **state)
{
    struct fixture *f = *state;
    commit(f);
    close_updates(f);
    open_updates(f, false);
    assert_current(f, UPDATE_INSTALLED, false);
    assert_int_equal(updates_program(f->updates), -1);
    updates_settled(f->updates);
    RUN_UNTIL(f, is_here(f) && !f->updates->going_back);
    assert_nothing_staged(f);
    assert_outcome(f, "\"rolled-back\"");
}

// Between the store's confirmation, or roll-back, and what is told to guests.
static void end_after_store(struct fixture *f, bool confirmed)
{
    struct error err;
    commit(f);
    close_updates(f);
    struct update_store *store = open_store(f);
    assert_int_equal(confirmed ? update_store_confirm(store, &err)
                               : update_store_rollback(store, "it is to be", &err),
                     0);
    update_store_close(store);
    open_updates(f, true);
    updates_settled(f->updates);
    assert_nothing_staged(f);
    assert_outcome(f, confirmed ? "\"committed\"" : "\"rolled-back\"");
}

static void test_ends_after_confirmation(void **state)
{
    end_after_store(*state, true);
}

static void test_ends_after_roll_back(void **state)
{
    struct fixture *f = *state;
    end_after_store(f, false);
    RUN_UNTIL(f, is_here(f) && !f->updates->going_back);
}

// Before it is pending, with the intention on the disk.
static void test_ends_before_pending(void **state)
{
    struct fixture *f = *state;
    struct guest guest = bring(f, &f->package);
    break_store(f);
    assert_error(ask(f, &guest, UPDATE_FRAME_COMMIT, NULL, 0), UPDATE_REFUSAL_HOST);
    mend_store(f);
    close(guest.fd);
    assert_current(f, UPDATE_INSTALLED, false);
    json_object_set_new(f->updates->last, "phase", json_string("committing"));
    assert_int_equal(last_keep(f->updates), 0);
    close_updates(f);
    open_updates(f, false);
    updates_settled(f->updates);
    assert_outcome(f, "\"rolled-back\"");
}

// What cannot be taken back on the disk is not confirmed, nor started; and is taken back when it
// can be.
static void test_store_fails(void **state)
{
    struct fixture *f = *state;
    struct error why;
    error_set(&why, -EBUSY, "it is not to be");
    commit(f);
    break_store(f);
    updates_reexec_failed(f->updates, &why);
    assert_outcome(f, "\"rolled-back\"");
    run_for(f, 2500);
    assert_current(f, NEW, true);
    close_updates(f);

    for (int reexecuted = 0; reexecuted < 2; reexecuted++) {
        open_updates(f, reexecuted);
        assert_int_equal(updates_program(f->updates), -1);
        updates_settled(f->updates);
        run_for(f, 1500);
        assert_current(f, NEW, true);
        if (reexecuted)
            mend_store(f);
        else
            close_updates(f);
    }
    RUN_UNTIL(f, !*state_of(f)->pending.version);
    assert_current(f, UPDATE_INSTALLED, false);
    RUN_UNTIL(f, is_here(f) && !f->updates->going_back);
    assert_outcome(f, "\"rolled-back\"");
}

// ---- Tests: the new version's supervisor --------------------------------------------------------

// A store in which this very program is the pending version.
static void make_own_pending(struct fixture *f)
{
    struct package own = make_package(f, NULL);
    struct error err;
    int fd = program_of(getpid(), &err);
    close_updates(f);
    struct update_store *store = open_store(f);
    if (update_store_install(store, fd, own.manifest, strlen(own.manifest), own.signature,
                             strlen(own.signature), &err) < 0 ||
        update_store_make_pending(store, NEW, clock_realtime_ns(), "", &err) < 0)
        fail_msg("%s", err.message);
    update_store_close(store);
    package_fini(&own);
    close(fd);
}

static void test_proves_itself(void **state)
{
    struct fixture *f = *state;
    make_own_pending(f);
    open_updates(f, true);
    run_for(f, 1500);
    assert_current(f, NEW, true);  // the API does not answer yet
    updates_settled(f->updates);
    assert_current(f, NEW, false);
}

static void test_finds_not_all(void **state)
{
    struct fixture *f = *state;
    make_own_pending(f);
    open_updates(f, true);
    registry_lost(f->registry);
    updates_settled(f->updates);
    run_for(f, 2500);
    assert_current(f, NEW, true);
}

static void test_confirmation_fails(void **state)
{
    struct fixture *f = *state;
    make_own_pending(f);
    open_updates(f, true);
    break_store(f);
    updates_settled(f->updates);
    assert_current(f, NEW, true);
    mend_store(f);
    RUN_UNTIL(f, !*state_of(f)->pending.version);
    assert_current(f, NEW, false);
}

// Started anew, or another program: it takes the version back.
static void test_is_another(void **state)
{
    struct fixture *f = *state;
    make_own_pending(f);
    open_updates(f, false);
    assert_current(f, UPDATE_INSTALLED, false);
    updates_settled(f->updates);
    RUN_UNTIL(f, !f->updates->going_back);
    commit(f);
    close_updates(f);
    open_updates(f, true);
    assert_current(f, UPDATE_INSTALLED, false);
}

// ---- Tests: by hand -----------------------------------------------------------------------------

struct told {
    bool done;
    json_t *result;  // or what is in `err`
    struct error err;
};

static void on_rolled_back(void *opaque, json_t *result, const struct error *err)
{
    struct told *told = opaque;
    assert_false(told->done);
    told->done = true;
    told->result = json_incref(result);
    if (err)
        told->err = *err;
    print_message("  %s\n", err ? err->message : text_in(result, "outcome"));
}

static void assert_refuses(struct fixture *f, const char *version, int code, const char *words)
{
    struct told told = {0};
    updates_rollback(f->updates, version, on_rolled_back, &told);
    RUN_UNTIL(f, told.done);
    assert_int_equal(told.err.code, code);
    assert_non_null(strstr(told.err.message, words));
    assert_true(f->reexec_fd < 0);
}

static void go_to(struct fixture *f, const char *version, const char *outcome)
{
    struct told told = {0};
    updates_rollback(f->updates, version, on_rolled_back, &told);
    assert_refuses(f, version, -EBUSY, "already");
    RUN_UNTIL(f, told.done);
    assert_string_equal(text_in(told.result, "outcome"), outcome);
    json_decref(told.result);
}

// A version that was taken back is kept; the host is at the installed one.
static void keep_new(struct fixture *f)
{
    struct error why;
    error_set(&why, -EBUSY, "it is not to be");
    commit(f);
    updates_reexec_failed(f->updates, &why);
    RUN_UNTIL(f, is_here(f) && !f->updates->going_back);
    close(f->reexec_fd);
    f->reexec_fd = -1;
}

static void test_by_hand(void **state)
{
    struct fixture *f = *state;
    assert_refuses(f, NULL, -EALREADY, "no version before");
    assert_refuses(f, NEW, -ESRCH, NEW);
    keep_new(f);
    assert_refuses(f, UPDATE_INSTALLED, -EALREADY, "current already");
    go_to(f, NEW, "done");
    assert_true(f->reexec_fd >= 0 && !is_here(f));
    assert_current(f, NEW, true);
    assert_string_equal(state_of(f)->pending.session, "");
    assert_string_equal(state_of(f)->previous, UPDATE_INSTALLED);
    print_message("its supervisor ends before it has proved itself\n");
    close_updates(f);
    open_updates(f, false);
    assert_current(f, UPDATE_INSTALLED, false);
    updates_settled(f->updates);
    RUN_UNTIL(f, is_here(f) && !f->updates->going_back);
}

static void test_by_hand_partition_stays(void **state)
{
    struct fixture *f = *state;
    keep_new(f);
    process_handover_faults(f->entry->process, NULL, "hello:exit");
    go_to(f, NEW, "rolled-back");
    assert_current(f, UPDATE_INSTALLED, false);
    assert_true(is_here(f) && f->reexec_fd < 0);
}

// Where the installed program is, which is another than this one.
static void install_other(struct fixture *f)
{
    char path[96];
    size_t count;
    char *bytes = read_own(&count);
    memcpy(bytes + count, "9.9.0\0\0\0\0\0\0\0\0\0\0", VERSION_BYTES);
    snprintf(path, sizeof(path), "%s/installed", f->folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, count + VERSION_BYTES, 1, file), 1);
    assert_int_equal(fclose(file) + chmod(path, 0755) + setenv("STRAKE_INSTALLED", path, 1), 0);
    free(bytes);
}

// What the guest was told of its update changes with the version.
static void test_by_hand_to_installed(void **state)
{
    struct fixture *f = *state;
    install_other(f);
    make_own_pending(f);
    open_updates(f, true);
    assert_int_equal(last_begin(f->updates, "00", NEW, "web"), 0);
    updates_settled(f->updates);
    assert_current(f, NEW, false);
    assert_string_equal(text_in(f->updates->last, "phase"), "committed");
    go_to(f, NULL, "done");
    assert_true(f->reexec_fd >= 0 && !is_here(f));
    assert_current(f, UPDATE_INSTALLED, true);
    assert_string_equal(state_of(f)->previous, NEW);
    assert_string_equal(text_in(f->updates->last, "phase"), "committed");
    close_updates(f);
    open_updates(f, true);
    updates_settled(f->updates);
    assert_current(f, UPDATE_INSTALLED, false);
    assert_string_equal(text_in(f->updates->last, "phase"), "rolled-back");
    json_t *described = updates_describe(f->updates),
           *counts = json_object_get(described, "outcomes");
    assert_string_equal(text_in(described, "previous"), NEW);
    assert_int_equal(json_integer_value(json_object_get(counts, "committed")), 1);
    assert_int_equal(json_integer_value(json_object_get(counts, "rolled-back")), 1);
    json_decref(described);
}

// From a version that has not proved itself.
static void test_by_hand_from_pending(void **state)
{
    struct fixture *f = *state;
    install_other(f);
    keep_new(f);
    make_own_pending(f);
    open_updates(f, true);
    assert_refuses(f, NEW, -EALREADY, "current already");
    go_to(f, NULL, "done");
    assert_true(f->reexec_fd >= 0 && !is_here(f));
    assert_current(f, UPDATE_INSTALLED, false);
    assert_string_equal(state_of(f)->previous, "");
}

static void test_by_hand_bad_program(void **state)
{
    struct fixture *f = *state;
    make_own_pending(f);
    open_updates(f, true);
    updates_settled(f->updates);
    setenv("STRAKE_INSTALLED", "/bin/false", 1);
    assert_refuses(f, NULL, -ENOEXEC, "does not work");
    setenv("STRAKE_INSTALLED", "/nonsense", 1);
    assert_refuses(f, NULL, -ENOENT, "/nonsense");
    unsetenv("STRAKE_INSTALLED");
    assert_refuses(f, NULL, -ENOENT, "not known");
    assert_current(f, NEW, false);
    assert_true(is_here(f));
}

static void test_confirmed_by_hand(void **state)
{
    struct fixture *f = *state;
    struct error err;
    assert_int_equal(updates_confirm(f->updates, &err), -EALREADY);
    make_own_pending(f);
    open_updates(f, true);
    registry_lost(f->registry);
    updates_settled(f->updates);
    assert_current(f, NEW, true);
    assert_int_equal(updates_confirm(f->updates, &err), 0);
    assert_current(f, NEW, false);
}

// ---- Set-up -------------------------------------------------------------------------------------

static void on_started(void *opaque, struct entry *entry, const struct error *err)
{
    struct fixture *f = opaque;
    (void)entry;
    if (err)
        fail_msg("%s", err->message);
    loop_stop(f->loop);
}

static void start_partition(struct fixture *f)
{
    char path[96];
    struct error err = {0};
    snprintf(path, sizeof(path), "%s/firmware", f->folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(letters, sizeof(letters), 1, file), 1);
    fclose(file);
    json_t *definition =
        json_pack("{s:s,s:s,s:s}", "name", "web", "firmware", path, "memory", "16M");
    if (registry_add(f->registry, definition, &f->entry, &err) < 0)
        fail_msg("%s", err.message);
    json_decref(definition);
    entry_start(f->entry, false, on_started, f);
    run_for(f, WAIT_MS);
    assert_int_equal(f->entry->state, ENTRY_RUNNING);
}

static void make_key(struct fixture *f)
{
    char path[112], *text;
    snprintf(f->trusted, sizeof(f->trusted), "%s/trusted", f->folder);
    assert_int_equal(mkdir(f->trusted, 0700), 0);
    assert_int_equal(package_key_generate(&f->key, NULL), 0);
    assert_int_equal(package_key_public_text(f->key, &text), 0);
    snprintf(path, sizeof(path), "%s/key.pub", f->trusted);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(text);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    f->reexec_fd = -1;
    snprintf(f->folder, sizeof(f->folder), "/tmp/strake-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timeout, f, &f->timer), 0);
    const struct registry_config registry = {
        .loop = f->loop, .state_dir = f->folder, .run_dir = f->folder, .restart_delay_ms = 1000};
    if (registry_create(&f->registry, &registry, &err) < 0)
        fail_msg("%s", err.message);
    start_partition(f);
    make_key(f);
    f->package = make_package(f, NEW);
    f->config = (struct updates_config){.loop = f->loop,
                                        .registry = f->registry,
                                        .state_dir = f->folder,
                                        .trusted_dir = f->trusted,
                                        .keep = 1,
                                        .confirm_within_s = 3600,
                                        .reexec = on_reexec,
                                        .opaque = f};
    open_updates(f, false);
    updates_settled(f->updates);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    alarm(0);
    if (f->entry->process)
        entry_kill(f->entry, NULL, NULL);
    registry_release(f->registry);
    close_updates(f);
    registry_destroy(f->registry);
    loop_timer_close(f->timer);
    loop_destroy(f->loop);
    package_fini(&f->package);
    package_key_destroy(f->key);
    snprintf(command, sizeof(command), "rm -r %s", f->folder);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(argv[1], "monitor") == 0 && strcmp(argv[2], "--self-test") == 0)
        return print_facts();
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main();
    const struct CMUnitTest tests[] = {
        TEST(test_connections_are_bounded),
        TEST(test_guests_are_forgotten),
        TEST(test_never_reads),
        TEST(test_last_words),
        TEST(test_goes_on),
        TEST(test_partition_stays),
        TEST(test_reexec_fails),
        TEST(test_partition_on_its_way),
        TEST(test_busy),
        TEST(test_silent_partition),
        TEST(test_host_fails),
        TEST(test_others_meanwhile),
        TEST(test_ends_before_exec),
        TEST(test_ends_after_confirmation),
        TEST(test_ends_after_roll_back),
        TEST(test_ends_before_pending),
        TEST(test_store_fails),
        TEST(test_proves_itself),
        TEST(test_finds_not_all),
        TEST(test_confirmation_fails),
        TEST(test_is_another),
        TEST(test_by_hand),
        TEST(test_by_hand_partition_stays),
        TEST(test_by_hand_to_installed),
        TEST(test_by_hand_from_pending),
        TEST(test_by_hand_bad_program),
        TEST(test_confirmed_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
