// SPDX-License-Identifier: BSD-2-Clause
// strake run: one partition in the foreground.
//
// Order: options are parsed and checked, host resources opened, then the partition is created; so a
// mistake in the last option leaves nothing behind. What has to be undone is undone in run_close,
// in reverse order, whatever the way out.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/stats.h"
#include "jit/jit.h"
#include "monitor/monitor.h"
#include "partition/partition.h"
#include "supervisor/supervisor.h"
#include "usernet/usernet.h"
#include "verify/verify.h"

#define FORWARDS_MAX 32
#define SYMBOL_FILES_MAX 16

struct run_disk {
    char path[PATH_MAX];
    bool read_only;
    enum virtio_blk_aio aio;
};

struct run_net {
    char tap[64];  // empty: user-mode networking
    uint8_t mac[6];
    bool mac_given;
    struct virtio_net_forward forwards[FORWARDS_MAX];
    size_t forward_count;
};

struct run_console {
    enum console_kind kind;
    const char *path;
};

struct run_vsock {
    bool given;
    uint64_t cid;
    const char *path;
};

struct run_options {
    const char *kernel, *initrd, *append, *firmware, *name, *gdb, *dump_dtb;
    const struct hart_engine *engine;
    const char *translator_option;  // the last one given that only the translator can follow
    uint64_t memory_bytes, jit_cache_bytes;
    unsigned cpus, mmu_levels;
    bool no_windows;
    bool no_reboot, log_jit, stats, perf_map;
    const char *symbols[SYMBOL_FILES_MAX];
    size_t symbols_count;
    struct run_console console;
    struct run_vsock vsock;
    struct run_disk disks[MACHINE_VIRTIO_SLOTS];
    struct run_net nets[MACHINE_VIRTIO_SLOTS];
    size_t disk_count, net_count;
};

// ---- Values of options
// ----------------------------------------------------------------------------

static int parse_disk(void *target, const char *value, struct error *err)
{
    static const struct {
        const char *suffix;
        bool read_only;
        enum virtio_blk_aio aio;
    } suffixes[] = {
        {",ro", true, VIRTIO_BLK_AIO_AUTO},
        {",aio=io_uring", false, VIRTIO_BLK_AIO_URING},
        {",aio=sync", false, VIRTIO_BLK_AIO_SYNC},
    };
    struct run_options *options = target;
    if (options->disk_count == BASE_COUNT_OF(options->disks))
        return error_set(err, -ENOSPC, "more disks than the machine has slots");
    struct run_disk *disk = &options->disks[options->disk_count++];
    if (snprintf(disk->path, sizeof(disk->path), "%s", value) >= (int)sizeof(disk->path))
        return error_set(err, -ENAMETOOLONG, "the name is too long");
    // Words are taken off the end, so that a file name may have commas.
    for (size_t i = 0; i < BASE_COUNT_OF(suffixes);) {
        size_t length = strlen(disk->path), suffix = strlen(suffixes[i].suffix);
        if (length <= suffix || strcmp(disk->path + length - suffix, suffixes[i].suffix) != 0) {
            i++;
            continue;
        }
        disk->path[length - suffix] = 0;
        disk->read_only |= suffixes[i].read_only;
        if (suffixes[i].aio != VIRTIO_BLK_AIO_AUTO)
            disk->aio = suffixes[i].aio;
        i = 0;
    }
    return *disk->path ? 0 : error_set(err, -EINVAL, "no file is named");
}

static int parse_forward(struct run_net *net, const char *text, struct error *err)
{
    if (net->forward_count == FORWARDS_MAX)
        return error_set(err, -ENOSPC, "more than %d port forwards", FORWARDS_MAX);
    return usernet_forward_parse(&net->forwards[net->forward_count++], text, err);
}

static int parse_mac(struct run_net *net, const char *text, struct error *err)
{
    const char *at = text;
    bool good = strlen(text) == strlen("XX:XX:XX:XX:XX:XX");
    for (int i = 0; good && i < 6; i++) {
        char *end;
        net->mac[i] = (uint8_t)strtoul(at, &end, 16);
        good = end == at + 2 && *end == (i < 5 ? ':' : 0);
        at = end + 1;
    }
    if (!good || (net->mac[0] & 1))
        return error_set(err, -EINVAL, "\"%s\" is not the MAC address of one station", text);
    net->mac_given = true;
    return 0;
}

static int parse_net_word(struct run_net *net, char *word, bool first, bool *kind_given,
                          struct error *err)
{
    if (first && strcmp(word, "user") == 0) {
        *kind_given = true;
        return 0;
    }
    if (first && strncmp(word, "tap=", 4) == 0 && word[4]) {
        snprintf(net->tap, sizeof(net->tap), "%s", word + 4);
        *kind_given = true;
        return 0;
    }
    if (!first && strncmp(word, "mac=", 4) == 0)
        return parse_mac(net, word + 4, err);
    if (!first && strncmp(word, "hostfwd=", 8) == 0 && !*net->tap)
        return parse_forward(net, word + 8, err);
    return error_set(err, -EINVAL, "\"%s\" is not understood", word);
}

static int parse_net(void *target, const char *value, struct error *err)
{
    struct run_options *options = target;
    if (options->net_count == BASE_COUNT_OF(options->nets))
        return error_set(err, -ENOSPC, "more network devices than the machine has slots");
    struct run_net *net = &options->nets[options->net_count++];
    char *copy = strdup(value);
    if (!copy)
        return error_set_errno(err, -ENOMEM, "cannot parse");
    bool kind_given = false, first = true;
    int rc = 0;
    char *rest = copy, *word;
    while (rc == 0 && (word = strsep(&rest, ","))) {
        rc = parse_net_word(net, word, first, &kind_given, err);
        first = false;
    }
    free(copy);
    return rc;
}

static int parse_vsock(void *target, const char *value, struct error *err)
{
    struct run_vsock *vsock = target;
    char *end;
    errno = 0;
    vsock->cid = strtoull(value, &end, 10);
    if (end == value || *end != ',' || !end[1] || errno)
        return error_set(err, -EINVAL, "not CID,PATH");
    if (vsock->cid < 3 || vsock->cid >= UINT32_MAX)
        return error_set(err, -EINVAL, "a guest's CID is from 3 to %u", UINT32_MAX - 1);
    vsock->path = end + 1;
    vsock->given = true;
    return 0;
}

static int parse_console(void *target, const char *value, struct error *err)
{
    struct run_console *console = target;
    *console = (struct run_console){.kind = CONSOLE_STDIO};
    if (strcmp(value, "stdio") == 0)
        return 0;
    const char *path = strchr(value, '=');
    if (strcmp(value, "pty") == 0)
        console->kind = CONSOLE_PTY;
    else if (strncmp(value, "file=", 5) == 0 && path[1])
        console->kind = CONSOLE_FILE;
    else if (strncmp(value, "unix=", 5) == 0 && path[1])
        console->kind = CONSOLE_UNIX;
    else
        return error_set(err, -EINVAL, "not stdio, pty, file=PATH or unix=PATH");
    console->path = path ? path + 1 : NULL;
    return 0;
}

static int parse_engine(void *target, const char *value, struct error *err)
{
    static const struct hart_engine *const engines[] = {&hart_engine_interp, &hart_engine_jit,
                                                        &hart_engine_verify};
    for (size_t i = 0; i < BASE_COUNT_OF(engines); i++) {
        if (strcmp(engines[i]->name, value) == 0) {
            *(const struct hart_engine **)target = engines[i];
            return 0;
        }
    }
    return error_set(err, -EINVAL, "there is no such engine (there are: interp, jit, verify)");
}

static int parse_jit_cache(void *target, const char *value, struct error *err)
{
    struct run_options *options = target;
    options->translator_option = "jit-cache";
    return cli_parse_bytes(&options->jit_cache_bytes, value, err);
}

static int parse_mmu(void *target, const char *value, struct error *err)
{
    static const char *const modes[] = {"sv39", "sv48", "sv57"};
    for (unsigned i = 0; i < BASE_COUNT_OF(modes); i++) {
        if (strcmp(modes[i], value) == 0) {
            *(unsigned *)target = 3 + i;
            return 0;
        }
    }
    return error_set(err, -EINVAL, "there is no such mode (there are: sv39, sv48, sv57)");
}

static int parse_windows(void *target, const char *value, struct error *err)
{
    struct run_options *options = target;
    options->translator_option = "windows";
    options->no_windows = strcmp(value, "off") == 0;
    return options->no_windows || strcmp(value, "on") == 0 ? 0
                                                           : error_set(err, -EINVAL, "on or off");
}

static int parse_perf_map(void *target, const char *value, struct error *err)
{
    struct run_options *options = target;
    options->translator_option = "perf-map";
    options->perf_map = true;
    if (!*value)
        return 0;
    if (options->symbols_count == SYMBOL_FILES_MAX)
        return error_set(err, -ENOSPC, "more than %d files of symbols", SYMBOL_FILES_MAX);
    options->symbols[options->symbols_count++] = value;
    return 0;
}

// Words with commas between them: a level, "jit".
static int parse_log(void *target, const char *value, struct error *err)
{
    struct run_options *options = target;
    char words[32], *rest = words, *word;
    bool good = snprintf(words, sizeof(words), "%s", value) < (int)sizeof(words);
    while (good && (word = strsep(&rest, ","))) {
        bool jit = strcmp(word, "jit") == 0;
        if (jit)
            options->translator_option = "log jit";
        options->log_jit |= jit;
        good = jit || cli_parse_log_level(NULL, word, NULL) == 0;
    }
    return good ? 0 : error_set(err, -EINVAL, "not one of error, warn, info, debug, and jit");
}

#define OPTION(name, value, member, parse, help)                                                   \
    {                                                                                              \
        name, value, help, parse, offsetof(struct run_options, member)                             \
    }
// For options that add to a list: the parser gets the whole struct.
#define OPTION_LIST(name, value, parse, help)                                                      \
    {                                                                                              \
        name, value, help, parse, 0                                                                \
    }

static const struct cli_option run_option_table[] = {
    OPTION("kernel", "FILE", kernel, cli_parse_string, "Linux Image, or an ELF program"),
    OPTION("initrd", "FILE", initrd, cli_parse_string, "initial RAM disk for the kernel"),
    OPTION("append", "TEXT", append, cli_parse_string, "kernel command line"),
    OPTION("firmware", "FILE", firmware, cli_parse_string,
           "M-mode firmware (raw or ELF) instead of the built-in SBI"),
    OPTION("memory", "SIZE", memory_bytes, cli_parse_bytes,
           "RAM, 16M to 64G (default 512M; a plain number is MiB)"),
    OPTION("cpus", "N", cpus, cli_parse_unsigned, "harts, 1 to 16 (default 1)"),
    OPTION_LIST("disk", "FILE[,ro][,aio=io_uring|sync]", parse_disk,
                "raw disk image or block device; repeat for more"),
    OPTION_LIST("net", "user[,hostfwd=tcp:ADDR:PORT-:PORT]|tap=IF", parse_net,
                "network device, user-mode (guest is 10.0.2.15, host 10.0.2.2)\n"
                "or on a tap interface; ,mac=XX:XX:XX:XX:XX:XX sets its address;\n"
                "repeat for more"),
    OPTION("vsock", "CID,PATH", vsock, parse_vsock,
           "sockets between guest and host: the guest's port P is\n"
           "PATH_P on the host, the host connects to PATH"),
    OPTION("console", "stdio|pty|file=PATH|unix=PATH", console, parse_console,
           "where the guest's console is (default stdio)"),
    OPTION("engine", "interp|jit|verify", engine, parse_engine,
           "what executes instructions: an interpreter, a translator (default), or\n"
           "both, compared with each other"),
    OPTION_LIST("jit-cache", "SIZE", parse_jit_cache,
                "translated code that each hart may keep, 128K to 256M\n"
                "(default 32M; a plain number is MiB)"),
    OPTION_LIST("windows", "on|off", parse_windows,
                "reach the guest's memory through the host's MMU (default on)"),
    OPTION("mmu", "sv39|sv48|sv57", mmu_levels, parse_mmu,
           "the largest address spaces that guests may have (default sv39,\n"
           "which the translator is fastest with)"),
    OPTION("gdb", "ADDR:PORT", gdb, cli_parse_string, "wait for a debugger before starting"),
    OPTION("dump-dtb", "FILE", dump_dtb, cli_parse_string, "write the device tree and exit"),
    OPTION("name", "NAME", name, cli_parse_string, "the partition's name, in messages"),
    OPTION("no-reboot", NULL, no_reboot, cli_parse_flag, "end when the guest reboots"),
    OPTION_LIST("perf-map", "[=FILE]", parse_perf_map,
                "write /tmp/perf-PID.map, from which Linux' perf names translated\n"
                "code; FILE (ELF, System.map, kallsyms) has the guest's functions;\n"
                "repeat for more"),
    OPTION("stats", NULL, stats, cli_parse_flag,
           "when the partition ends, print what its harts have counted"),
    OPTION_LIST("log", "LEVEL[,jit]", parse_log,
                "error, warn (default), info or debug; jit: each translation,\n"
                "guest and host code side by side"),
    {0},
};

// ---- Running ------------------------------------------------------------------------------------

// What run_close undoes.
struct run {
    struct run_options options;
    struct jit_options jit;
    struct hart_engine engine;  // as chosen, with its options
    struct partition *partition;
    bool ran;
    struct console *console;
    struct gdb_server *gdb;
    struct machine_disk disks[MACHINE_VIRTIO_SLOTS];
    struct virtio_net_config nets[MACHINE_VIRTIO_SLOTS];
    struct usernet_process usernets[MACHINE_VIRTIO_SLOTS];
    size_t usernet_count;
    struct virtio_vsock_config vsock;
    struct machine_config machine;
};

// For signal handlers, which get no argument.
static struct partition *_Atomic signalled_partition;
static volatile sig_atomic_t signal_taken;

static void on_end_signal(int signal)
{
    signal_taken = signal;
    struct partition *partition = signalled_partition;
    if (partition)
        partition_stop(partition);
}

static void on_crash_signal(int signal)
{
    console_restore_terminal();
    raise(signal);  // SA_RESETHAND: with its default action now
}

static void install_signals(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    static const int crashes[] = {SIGQUIT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction end = {.sa_handler = on_end_signal};
    struct sigaction crash = {.sa_handler = on_crash_signal, .sa_flags = SA_RESETHAND | SA_NODEFER};
    for (size_t i = 0; i < BASE_COUNT_OF(ends); i++)
        sigaction(ends[i], &end, NULL);
    for (size_t i = 0; i < BASE_COUNT_OF(crashes); i++)
        sigaction(crashes[i], &crash, NULL);
}

static void on_escape(void *opaque)
{
    struct run *run = opaque;
    partition_stop(run->partition);
}

static int check_options(const struct run_options *options, struct error *err)
{
    if (!options->kernel && !options->firmware)
        return error_set(err, -EINVAL, "nothing to run: give --kernel or --firmware");
    if (!options->kernel && (options->initrd || options->append))
        return error_set(err, -EINVAL, "--initrd and --append need --kernel");
    if (options->translator_option && options->engine == &hart_engine_interp)
        return error_set(err, -EINVAL, "--%s needs the translator: --engine jit",
                         options->translator_option);
    return 0;
}

static int check_ranges(const struct run_options *options, struct error *err)
{
    if (options->memory_bytes < MACHINE_MEMORY_MIN_BYTES ||
        options->memory_bytes > MACHINE_MEMORY_MAX_BYTES)
        return error_set(err, -ERANGE,
                         "cannot give a guest %llu MiB of memory: 16M to 64G is possible",
                         (unsigned long long)options->memory_bytes >> 20);
    if (options->cpus < 1 || options->cpus > HART_MAX)
        return error_set(err, -ERANGE, "cannot give a guest %u cpus: 1 to %d is possible",
                         options->cpus, HART_MAX);
    if (options->jit_cache_bytes < JIT_CODE_BYTES_MIN ||
        options->jit_cache_bytes > JIT_CODE_BYTES_MAX)
        return error_set(err, -ERANGE,
                         "cannot keep %llu KiB of translated code: 128K to 256M is possible",
                         (unsigned long long)options->jit_cache_bytes >> 10);
    return 0;
}

// A locally administered address made of the partition's name and the device's number, so that it
// is the same in every run and differs between partitions on one bridge.
static void make_mac(const char *name, size_t index, uint8_t mac[6])
{
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    hash = (hash ^ index) * 0x100000001b3u;
    mac[0] = 0x02;
    for (int i = 1; i < 6; i++)
        mac[i] = (uint8_t)(hash >> (8 * i));
}

static int open_optional(const char *path, const char *what, int *fd, struct error *err)
{
    *fd = path ? supervisor_open_image(path, what, err) : -1;
    return path && *fd < 0 ? *fd : 0;
}

static int open_images(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;
    struct machine_config *machine = &run->machine;
    int rc = open_optional(options->firmware, "firmware", &machine->firmware_fd, err);
    if (rc == 0)
        rc = open_optional(options->kernel, "kernel", &machine->kernel_fd, err);
    if (rc == 0)
        rc = open_optional(options->initrd, "initrd", &machine->initrd_fd, err);
    return rc;
}

static int open_disks(struct run *run, struct error *err)
{
    for (size_t i = 0; i < run->options.disk_count; i++) {
        const struct run_disk *disk = &run->options.disks[i];
        int fd = supervisor_open_disk(disk->path, disk->read_only, err);
        if (fd < 0)
            return fd;
        run->disks[run->machine.disk_count++] =
            (struct machine_disk){.fd = fd, .read_only = disk->read_only, .aio = disk->aio};
    }
    return 0;
}

static int open_net(struct run *run, const struct run_net *net, struct error *err)
{
    if (*net->tap)
        return supervisor_open_tap(net->tap, err);
    struct usernet_process *process = &run->usernets[run->usernet_count];
    int rc = usernet_launch(process, net->forwards, net->forward_count, err);
    if (rc < 0)
        return rc;
    run->usernet_count++;
    return process->fd;
}

static int open_nets(struct run *run, struct error *err)
{
    for (size_t i = 0; i < run->options.net_count; i++) {
        struct run_net *net = &run->options.nets[i];
        int fd = open_net(run, net, err);
        if (fd < 0)
            return fd;
        if (!net->mac_given)
            make_mac(run->options.name, i, net->mac);
        struct virtio_net_config *config = &run->nets[run->machine.net_count++];
        *config = (struct virtio_net_config){.fd = fd};
        memcpy(config->mac, net->mac, sizeof(config->mac));
    }
    return 0;
}

static int open_vsock(struct run *run, struct error *err)
{
    const struct run_vsock *vsock = &run->options.vsock;
    if (!vsock->given)
        return 0;
    int fd = unix_listen(vsock->path, err);
    if (fd < 0)
        return error_prefix(err, "cannot give the guest vsock"), fd;
    run->vsock =
        (struct virtio_vsock_config){.guest_cid = vsock->cid, .listen_fd = fd, .path = vsock->path};
    run->machine.vsock = &run->vsock;
    return 0;
}

static int add_symbols(struct run *run, const char *path, struct error *err)
{
    int fd = supervisor_open_image(path, "symbols", err);
    if (fd < 0)
        return fd;
    int rc = jit_perf_map_add_symbols(run->jit.perf_map, fd);
    close(fd);
    if (rc == -ENOEXEC)
        return error_set(err, rc,
                         "cannot use symbols \"%s\": it is no ELF program with symbols and no list "
                         "as of nm",
                         path);
    return rc < 0 ? error_set_errno(err, rc, "cannot use symbols \"%s\"", path) : 0;
}

// Guests that are ELF programs bring their own symbols, if any.
static void add_image_symbols(struct run *run)
{
    const int fds[] = {run->machine.kernel_fd, run->machine.firmware_fd};
    for (size_t i = 0; i < BASE_COUNT_OF(fds); i++)
        if (fds[i] >= 0 && jit_perf_map_add_symbols(run->jit.perf_map, fds[i]) < 0)
            log_line(LOG_INFO, "no symbols in the %s", i ? "firmware" : "kernel");
}

static int open_perf_map(struct run *run, struct error *err)
{
    if (!run->options.perf_map)
        return 0;
    int fd = supervisor_open_perf_map(err);
    if (fd < 0)
        return fd;
    int rc = jit_perf_map_create(&run->jit.perf_map, fd);
    if (rc < 0) {
        close(fd);
        return error_set_errno(err, rc, "cannot write a map for perf");
    }
    add_image_symbols(run);
    for (size_t i = 0; rc == 0 && i < run->options.symbols_count; i++)
        rc = add_symbols(run, run->options.symbols[i], err);
    return rc;
}

static int create_partition(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;
    int rc = console_open(&run->console, options->console.kind, options->console.path, on_escape,
                          run, err);
    if (rc < 0)
        return rc;
    const struct partition_config config = {
        .name = options->name,
        .machine = run->machine,
        .no_reboot = options->no_reboot,
        .console_output = console_output,
        .console_room = console_room,
        .console_abandon = console_abandon,
        .opaque = run->console,
    };
    return partition_create(&run->partition, &config, err);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

// What was opened for the partition, which has copies once it is created.
static void close_resources(struct run *run)
{
    close_fd(run->machine.kernel_fd);
    close_fd(run->machine.initrd_fd);
    close_fd(run->machine.firmware_fd);
    for (size_t i = 0; i < run->machine.disk_count; i++)
        close_fd(run->disks[i].fd);
    for (size_t i = 0; i < run->machine.net_count; i++)
        close_fd(run->nets[i].fd);
    if (run->machine.vsock)
        close_fd(run->vsock.listen_fd);
}

static int run_open(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;
    run->engine = *options->engine;
    if (options->engine != &hart_engine_interp)
        run->engine.options = &run->jit;
    run->jit =
        (struct jit_options){.code_bytes = options->jit_cache_bytes,
                             .log = options->log_jit,
                             .count = options->stats,
                             .no_windows = options->no_windows,
                             .window_maps = options->cpus ? JIT_WINDOW_MAPS / options->cpus : 0};
    run->machine = (struct machine_config){
        .memory_bytes = options->memory_bytes,
        .cpus = options->cpus,
        .mmu_levels = options->mmu_levels,
        .engine = &run->engine,
        .version = STRAKE_VERSION,
        .kernel_fd = -1,
        .initrd_fd = -1,
        .firmware_fd = -1,
        .ram_fd = -1,
        .kernel_name = options->kernel,
        .initrd_name = options->initrd,
        .firmware_name = options->firmware,
        .append = options->append,
        .disks = run->disks,
        .nets = run->nets,
        .rng = true,
        .power_button = true,
        .virtio_console = true,
    };
    int rc = check_ranges(options, err);
    if (rc == 0)
        rc = open_images(run, err);
    if (rc == 0)
        rc = open_disks(run, err);
    if (rc == 0)
        rc = open_nets(run, err);
    if (rc == 0)
        rc = open_vsock(run, err);
    if (rc == 0)
        rc = open_perf_map(run, err);
    if (rc == 0)
        rc = create_partition(run, err);
    close_resources(run);
    return rc;
}

static void run_close(struct run *run)
{
    signalled_partition = NULL;
    gdb_server_destroy(run->gdb);
    console_close(run->console);
    partition_destroy(run->partition);
    for (size_t i = 0; i < run->usernet_count; i++)
        usernet_reap(&run->usernets[i]);
    jit_perf_map_destroy(run->jit.perf_map);
    if (run->jit.perf_map && !run->ran)
        supervisor_discard_perf_map();
    if (run->machine.vsock)
        unlink(run->vsock.path);
}

static void warn_unused(void *opaque, const char *kind, unsigned slot, bool driver_ok)
{
    (void)opaque;
    // Those that the user asked for; the others are there for whoever wants them.
    if (!driver_ok && strcmp(kind, "rng") != 0 && strcmp(kind, "console") != 0 &&
        strcmp(kind, "input") != 0)
        log_line(LOG_WARN, "no driver in the guest took the %s device in slot %u", kind, slot);
}

static int end_status(struct run *run, enum partition_end end, unsigned code, struct error *err)
{
    if (end == PARTITION_FAILED) {
        error_set(err, -EIO, "partition \"%s\" reported failure with code %u", run->options.name,
                  code);
        return cli_failed(err);
    }
    if (end == PARTITION_BROKEN) {
        error_set(err, -EIO, "partition \"%s\" was stopped: engine '%s' found a difference",
                  run->options.name, run->engine.name);
        return cli_failed(err);
    }
    if (end == PARTITION_STOPPED)
        return signal_taken ? 128 + signal_taken : CLI_EXIT_OK;
    machine_for_each_virtio(partition_machine(run->partition), warn_unused, NULL);
    return CLI_EXIT_OK;
}

static int dump_device_tree(struct run *run, struct error *err)
{
    const char *path = run->options.dump_dtb;
    int rc = partition_start(run->partition, true, err);
    if (rc < 0)
        return rc;
    size_t bytes;
    const void *tree = machine_device_tree(partition_machine(run->partition), &bytes);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot write \"%s\"", path);
    int64_t n = fd_write_full(fd, tree, bytes);
    if (close(fd) < 0 && n >= 0)
        n = -errno;
    return n < 0 ? error_set_errno(err, (int)n, "cannot write \"%s\"", path) : 0;
}

static int run_guest(struct run *run, int *status, struct error *err)
{
    const char *gdb = run->options.gdb;
    int rc = partition_start(run->partition, true, err);
    if (rc < 0)
        return rc;
    // Only now: what is typed before power-on would be lost in it.
    console_attach(run->console, run->partition);
    if (gdb)
        rc = gdb_server_create(&run->gdb, gdb, run->partition, err);
    else
        partition_resume(run->partition);
    if (rc < 0)
        return rc;
    run->ran = true;
    uint64_t start_ns = clock_monotonic_ns();
    signalled_partition = run->partition;
    if (signal_taken)
        partition_stop(run->partition);
    enum partition_end end;
    unsigned code = 0;
    rc = partition_wait(run->partition, &end, &code, err);
    if (rc < 0)
        return rc;
    // The terminal is the user's again before anything more is said.
    console_restore_terminal();
    if (run->options.stats)
        cli_print_stats(stderr, run->partition, run->options.engine == &hart_engine_jit,
                        clock_monotonic_ns() - start_ns);
    *status = end_status(run, end, code, err);
    return 0;
}

static int run_command(const struct cli_command *command, int argc, char **argv)
{
    struct run *run = calloc(1, sizeof(*run));
    struct error err = {0};
    if (!run) {
        error_set_errno(&err, -ENOMEM, "cannot start");
        return cli_failed(&err);
    }
    run->options = (struct run_options){.name = "guest",
                                        .engine = &hart_engine_jit,
                                        .memory_bytes = 512ull << 20,
                                        .cpus = 1,
                                        .jit_cache_bytes = JIT_CODE_BYTES};
    int status = CLI_EXIT_OK;
    int next = cli_parse(command, argc, argv, &run->options, &err);
    if (next > argc) {
        free(run);
        return CLI_EXIT_OK;
    }
    if (next >= 0 && next < argc)
        next = error_set(&err, -EINVAL, "\"%s\" is no option", argv[next]);
    if (next < 0 || check_options(&run->options, &err) < 0) {
        free(run);
        return cli_misused(command, &err);
    }
    install_signals();
    int rc = run_open(run, &err);
    if (rc == 0)
        rc = run->options.dump_dtb ? dump_device_tree(run, &err) : run_guest(run, &status, &err);
    run_close(run);
    free(run);
    return rc < 0 ? cli_failed(&err) : status;
}

const struct cli_command cli_run = {
    .name = "run",
    .usage = "--kernel FILE [OPTIONS]",
    .summary = "Run one partition in the foreground",
    .details = "On a terminal, Ctrl-A x ends the partition and Ctrl-A h shows what else there is.\n"
               "The exit status is 0 when the guest switched itself off, 1 when it could not be\n"
               "started or reported failure, 2 when the command line is wrong, and 128 plus the\n"
               "signal's number when a signal ended it.",
    .options = run_option_table,
    .run = run_command,
};
