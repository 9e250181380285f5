// SPDX-License-Identifier: BSD-2-Clause
// A partition, made of its definition and of descriptors; and confining the process around it.
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "monitor/internal.h"
#include "monitor/sandbox.h"

#define HEAP_BYTES (1ull << 30)         // of the process's own memory, apart from its harts'
#define HEAP_HART_BYTES (512ull << 20)  // and of each hart's, apart from its translated code
#define FILES 4096u

// ---- The console --------------------------------------------------------------------------------

static void console_output(void *opaque, const void *bytes, size_t count)
{
    const struct monitor *monitor = opaque;
    console_ring_write(monitor->console, bytes, count);
}

static void console_room(void *opaque)
{
    const struct monitor *monitor = opaque;
    console_input_room(monitor->input);
}

static void console_abandon(void *opaque)
{
    const struct monitor *monitor = opaque;
    console_ring_abandon(monitor->console);
}

// ---- The translator's map for perf --------------------------------------------------------------

static int add_symbols(struct monitor *monitor, size_t index, struct error *err)
{
    const char *path = monitor->definition.symbols[index];
    char name[DESCRIPTOR_NAME_BYTES];
    snprintf(name, sizeof(name), "symbols%zu", index);
    int rc = jit_perf_map_add_symbols(monitor->jit.perf_map, descriptors_find(&monitor->fds, name));
    if (rc == -ENOEXEC)
        return error_set(err, rc,
                         "cannot use symbols \"%s\": it is no ELF program with symbols and no list "
                         "as of nm",
                         path);
    return rc < 0 ? error_set_errno(err, rc, "cannot use symbols \"%s\"", path) : 0;
}

// Guests that are ELF programs bring their own symbols, if any.
static void add_image_symbols(struct monitor *monitor)
{
    static const char *const images[] = {"kernel", "firmware"};
    for (size_t i = 0; i < BASE_COUNT_OF(images); i++) {
        int fd = descriptors_find(&monitor->fds, images[i]);
        if (fd >= 0 && jit_perf_map_add_symbols(monitor->jit.perf_map, fd) < 0)
            log_line(LOG_INFO, "no symbols in the %s", images[i]);
    }
}

static int open_perf_map(struct monitor *monitor, struct error *err)
{
    int fd = descriptors_take(&monitor->fds, "perf-map");
    if (fd < 0)
        return 0;
    int rc = jit_perf_map_create(&monitor->jit.perf_map, fd);
    if (rc < 0) {
        close(fd);
        return error_set_errno(err, rc, "cannot write a map for perf");
    }
    add_image_symbols(monitor);
    for (size_t i = 0; rc == 0 && i < monitor->definition.symbols_count; i++)
        rc = add_symbols(monitor, i, err);
    return rc;
}

// ---- The machine --------------------------------------------------------------------------------

static void configure_engine(struct monitor *monitor)
{
    const struct definition *definition = &monitor->definition;
    monitor->engine = *definition->engine;
    if (definition->engine != &hart_engine_interp)
        monitor->engine.options = &monitor->jit;
    monitor->jit.code_bytes = definition->jit_cache_bytes;
    monitor->jit.log = definition->log_jit;
    monitor->jit.count = definition->stats;
    monitor->jit.no_windows = definition->no_windows;
    monitor->jit.window_maps = JIT_WINDOW_MAPS / definition->cpus;
}

static int numbered(const struct monitor *monitor, const char *what, size_t number)
{
    char name[DESCRIPTOR_NAME_BYTES];
    snprintf(name, sizeof(name), "%s%zu", what, number);
    return descriptors_find(&monitor->fds, name);
}

static int net_queue(const struct monitor *monitor, size_t number, unsigned queue)
{
    char name[DESCRIPTOR_NAME_BYTES];
    descriptors_name_net(name, number, queue);
    return descriptors_find(&monitor->fds, name);
}

static void configure_devices(struct monitor *monitor)
{
    const struct definition *definition = &monitor->definition;
    for (size_t i = 0; i < definition->disk_count; i++)
        monitor->disks[i] = (struct machine_disk){.fd = numbered(monitor, "disk", i),
                                                  .read_only = definition->disks[i].read_only,
                                                  .aio = definition->disks[i].aio};
    for (size_t i = 0; i < definition->net_count; i++) {
        struct virtio_net_config *net = &monitor->nets[i];
        *net = (struct virtio_net_config){.pairs = definition->nets[i].queues};
        for (unsigned queue = 0; queue < net->pairs; queue++)
            net->fds[queue] = net_queue(monitor, i, queue);
        definition_mac(definition, i, net->mac);
    }
    monitor->vsock =
        (struct virtio_vsock_config){.guest_cid = definition->vsock_cid,
                                     .listen_fd = descriptors_find(&monitor->fds, "vsock-listen"),
                                     .path = definition->vsock_path,
                                     .connect = vsock_asks_connect,
                                     .opaque = monitor};
}

static void configure_machine(struct monitor *monitor)
{
    const struct definition *definition = &monitor->definition;
    monitor->ram_base = (struct memory_base){.fd = descriptors_find(&monitor->fds, "ram-base"),
                                             .map_fd = descriptors_find(&monitor->fds, "ram-map")};
    monitor->machine = (struct machine_config){
        .memory_bytes = definition->memory_bytes,
        .cpus = definition->cpus,
        .mmu_levels = definition->mmu_levels,
        .engine = &monitor->engine,
        .version = STRAKE_VERSION,
        .kernel_fd = descriptors_find(&monitor->fds, "kernel"),
        .initrd_fd = descriptors_find(&monitor->fds, "initrd"),
        .firmware_fd = descriptors_find(&monitor->fds, "firmware"),
        .ram_fd = descriptors_find(&monitor->fds, "ram"),
        .ram_base = monitor->ram_base.fd < 0 ? NULL : &monitor->ram_base,
        .kernel_name = definition->kernel,
        .initrd_name = definition->initrd,
        .firmware_name = definition->firmware,
        .append = definition->append,
        .disks = monitor->disks,
        .disk_count = definition->disk_count,
        .nets = monitor->nets,
        .net_count = definition->net_count,
        .vsock = definition->vsock_cid ? &monitor->vsock : NULL,
        .rng = true,
        .virtio_console = true,
        .power_button = true,
    };
}

// ---- Building -----------------------------------------------------------------------------------

int monitor_leave_host(struct monitor *monitor, struct error *err)
{
    const struct sandbox_limits limits = {.files = FILES};
    if (monitor->left_host)
        return 0;
    monitor->left_host = true;
    int rc = sandbox_leave_host(&limits, err);
    return rc < 0 ? rc : 0;
}

// Memory that a guest can make its monitor take, other than its RAM.
static int limit_heap(const struct definition *definition, struct error *err)
{
    uint64_t hart_bytes = HEAP_HART_BYTES + 2 * definition->jit_cache_bytes;
    return sandbox_limit_heap(HEAP_BYTES + definition->cpus * hart_bytes, err);
}

static int take_descriptors(struct monitor *monitor, struct descriptors *fds, struct error *err)
{
    monitor->fds = *fds;
    fds->count = 0;
    int rc = status_page_open(&monitor->status, descriptors_find(&monitor->fds, "status"), err);
    if (rc < 0)
        return rc;
    rc =
        console_ring_open(&monitor->console, descriptors_find(&monitor->fds, "console"), true, err);
    if (rc == 0)
        console_ring_set_event(monitor->console, descriptors_find(&monitor->fds, "console-event"));
    return rc;
}

static int create_partition(struct monitor *monitor, struct error *err)
{
    const struct partition_config config = {
        .name = monitor->definition.name,
        .machine = monitor->machine,
        .no_reboot = monitor->definition.no_reboot,
        .console_output = console_output,
        .console_room = console_room,
        .console_abandon = console_abandon,
        .opaque = monitor,
    };
    int rc = partition_create(&monitor->partition, &config, err);
    // The partition's own from now on: whoever takes it over next is given that.
    int ram_fd = descriptors_take(&monitor->fds, "ram");
    if (ram_fd >= 0)
        close(ram_fd);
    return rc < 0 ? rc : console_input_create(&monitor->input, monitor->partition, err);
}

int monitor_build(struct monitor *monitor, json_t *definition, struct descriptors *fds,
                  struct error *err)
{
    int rc = definition_from_json(&monitor->definition, definition, err);
    if (rc < 0)
        return rc;
    monitor->definition_json = json_incref(definition);
    log_set_level(monitor->definition.log_level);
    if (descriptors_find(fds, "control-listen") >= 0)
        log_set_name(monitor->definition.name);  // one of several
    rc = take_descriptors(monitor, fds, err);
    if (rc == 0)
        rc = monitor_leave_host(monitor, err);
    if (rc == 0)
        rc = limit_heap(&monitor->definition, err);
    if (rc == 0) {
        configure_engine(monitor);
        configure_devices(monitor);
        configure_machine(monitor);
        rc = open_perf_map(monitor, err);
    }
    if (rc == 0)
        rc = vsock_asks_init(monitor, err);
    if (rc == 0)
        rc = create_partition(monitor, err);
    // All threads, and the rings of disks, are there; what comes next is to be looked at by a
    // process that can do nothing more.
    return rc == 0 ? sandbox_lock(err) : rc;
}

void monitor_demolish(struct monitor *monitor)
{
    if (monitor->console)
        console_ring_abandon(monitor->console);
    gdb_server_destroy(monitor->gdb);
    console_input_destroy(monitor->input);
    partition_destroy(monitor->partition);
    vsock_asks_fini(monitor);
    jit_perf_map_destroy(monitor->jit.perf_map);
    console_ring_close(monitor->console);
    descriptors_close(&monitor->fds);
    definition_fini(&monitor->definition);
    json_decref(monitor->definition_json);
}
