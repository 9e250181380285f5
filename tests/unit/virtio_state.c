// SPDX-License-Identifier: BSD-2-Clause
// Saved state of the transport, the queues, and the devices console, rng and blk: what comes back
// in another device is what was saved, in the middle of work; what could do harm is refused, with
// section and field named. The layout of sections is written down again here.
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "virtio_driver.h"

#define DISK_BYTES (1u << 20)
enum { RECEIVE, TRANSMIT };

// ---- Devices -----------------------------------------------------------------------------------

static struct driver from, to;  // `to` is on the same RAM
static int ram_fd;
static struct driver_state saved;
static char output[4096];
static size_t output_count;
static atomic_uint rooms;

static void console_output(void *opaque, const void *bytes, size_t count)
{
    (void)opaque;
    if (count > sizeof(output) - output_count)
        output_count = 0;
    assert_true(count <= sizeof(output));
    memcpy(output + output_count, bytes, count);
    output_count += count;
}

static void console_room(void *opaque)
{
    (void)opaque;
    rooms++;
}

static int create_console(struct driver *driver)
{
    struct virtio_console_config config = {.output = console_output, .input_room = console_room};
    return virtio_console_create(&driver->device, &driver->wiring, &config, NULL);
}

static int create_rng(struct driver *driver)
{
    return virtio_rng_create(&driver->device, &driver->wiring, NULL);
}

static int create_disk(struct driver *driver, size_t bytes, bool read_only)
{
    struct virtio_blk_config config = {.fd = memfd_create("disk", MFD_CLOEXEC),
                                       .read_only = read_only,
                                       .aio = VIRTIO_BLK_AIO_SYNC};
    assert_int_equal(ftruncate(config.fd, (off_t)bytes), 0);
    return virtio_blk_create(&driver->device, &driver->wiring, &config, NULL);
}

static int create_blk(struct driver *driver)
{
    return create_disk(driver, DISK_BYTES, false);
}

typedef int create_fn(struct driver *driver);

static void open_from(create_fn *create)
{
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    driver_open_on(&from, dup(ram_fd));
    assert_int_equal(create(&from), 0);
    driver_attach(&from, from.device);
}

static void open_to(create_fn *create)
{
    driver_open_on(&to, dup(ram_fd));
    assert_int_equal(create(&to), 0);
}

static void save(void)
{
    free(saved.bytes);
    driver_pause(&from);
    saved = driver_save(&from);
}

// `to` goes on where `from` stopped.
static void move(create_fn *create)
{
    struct error err = {0};

    save();
    open_to(create);
    if (driver_load(to.device, &saved, &err))
        fail_msg("%s", err.message);
    driver_check_state(to.device, &saved);
    driver_close(&from);
    driver_move(&to, &from);
    from = (struct driver){0};
    driver_attach(&to, to.device);
}

static int setup(void **state)
{
    (void)state;
    from = to = (struct driver){0};
    output_count = 0;
    rooms = 0;
    ram_fd = -1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (from.device)
        driver_close(&from);
    if (to.device)
        driver_close(&to);
    free(saved.bytes);
    saved.bytes = NULL;
    close(ram_fd);
    return 0;
}

// ---- What comes back ---------------------------------------------------------------------------

// A driver half way through its set-up does not notice.
static void test_half_set_up(void **state)
{
    (void)state;
    open_from(create_console);
    driver_negotiate(&from, F_VERSION_1 | F_EVENT_IDX);
    driver_queue_place(&from, 1, 32);
    driver_write(&from, R_QUEUE_READY, 1);
    driver_queue_place(&from, 0, 16);
    driver_write(&from, R_DEVICE_FEATURES_SEL, 1);
    driver_write(&from, R_DRIVER_FEATURES_SEL, 7);
    move(create_console);
    driver_resume(&to);
    assert_int_equal(driver_read(&to, R_STATUS), S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    assert_int_equal(driver_read(&to, R_DEVICE_FEATURES), 1);
    assert_int_equal(driver_read(&to, R_QUEUE_READY), 0);  // of queue 0, which is selected
    driver_write(&to, R_QUEUE_READY, 1);
    assert_int_equal(driver_read(&to, R_QUEUE_READY), 1);
    driver_write(&to, R_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
    uint64_t gpa = driver_alloc(&to, 16);
    memcpy(driver_ram(&to, gpa), "hello", 5);
    struct driver_buffer buffer = {gpa, 5, false};
    driver_wait(&to, TRANSMIT, driver_send(&to, TRANSMIT, &buffer, 1));
    assert_memory_equal(output, "hello", 5);
}

static void type_on_loop(void *text)
{
    assert_int_equal(virtio_console_input(from.device, text, strlen(text)), strlen(text));
}

static void type_to_on_loop(void *text)
{
    virtio_console_input(to.device, text, strlen(text));
}

static void resize_on_loop(void *opaque)
{
    (void)opaque;
    virtio_console_resize(from.device, 132, 43);
}

// Input that waits, output that came while paused, the terminal's size, an interrupt that nobody
// has acknowledged, and the configuration's generation.
static void test_console(void **state)
{
    char text[] = "typed before", more[] = ", and after";

    (void)state;
    open_from(create_console);
    driver_start(&from, F_EVENT_IDX, 2, 128);
    for (unsigned i = 0; i < 547 * 128; i++) {  // the indices have wrapped
        struct driver_buffer buffer = {DRIVER_RAM_GPA + (1 << 20), 1, false};
        unsigned head = driver_chain(&from, TRANSMIT, &buffer, 1);
        driver_make_available(&from, TRANSMIT, head);
        if (i % 128 == 127) {
            driver_kick(&from, TRANSMIT);
            for (unsigned j = 0; j < 128; j++)
                driver_wait_any(&from, TRANSMIT);
        }
    }
    loop_call(from.loop, type_on_loop, text);
    loop_call(from.loop, resize_on_loop, NULL);
    uint32_t generation = driver_read(&from, R_CONFIG_GENERATION);
    uint32_t interrupt = driver_read(&from, R_INTERRUPT_STATUS);
    driver_pause(&from);
    output_count = 0;
    uint64_t gpa = driver_alloc(&from, 4096);
    memcpy(driver_ram(&from, gpa), "output", 6);
    struct driver_buffer out = {gpa, 6, false}, in = {gpa + 64, 64, true};
    unsigned out_head = driver_send(&from, TRANSMIT, &out, 1);
    driver_settle(&from);
    move(create_console);
    assert_int_equal(output_count, 0);
    assert_int_equal(driver_read(&to, R_CONFIG_GENERATION), generation);
    assert_int_equal(driver_read(&to, R_INTERRUPT_STATUS), interrupt);
    assert_int_equal(interrupt & 2, 2);
    assert_true(to.irq);
    assert_int_equal(driver_config(&to, 0, 2), 132);
    assert_int_equal(driver_config(&to, 2, 2), 43);

    // Until it runs the new device takes no input, and then asks for it.
    loop_call(to.loop, type_to_on_loop, more);
    assert_int_equal(rooms, 0);
    driver_resume(&to);
    assert_int_equal(rooms, 1);
    driver_wait(&to, TRANSMIT, out_head);
    assert_memory_equal(output, "output", 6);
    loop_call(to.loop, type_to_on_loop, more);
    unsigned in_head = driver_send(&to, RECEIVE, &in, 1);
    assert_int_equal(driver_wait(&to, RECEIVE, in_head), strlen(text) + strlen(more));
    assert_memory_equal(driver_ram(&to, gpa + 64), "typed before, and after", 23);
}

static void test_rng(void **state)
{
    (void)state;
    open_from(create_rng);
    driver_start(&from, F_EVENT_IDX | F_INDIRECT, 1, 8);
    struct driver_buffer buffer = {driver_alloc(&from, 4096), 16, true};
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(driver_wait(&from, 0, driver_send(&from, 0, &buffer, 1)), 16);
    driver_pause(&from);
    unsigned head = driver_send(&from, 0, &buffer, 1);
    driver_settle(&from);
    move(create_rng);
    driver_resume(&to);
    assert_int_equal(driver_wait(&to, 0, head), 16);
}

static void test_blk(void **state)
{
    (void)state;
    open_from(create_blk);
    driver_start(&from, 1 << 9, 1, 64);
    uint64_t gpa = driver_alloc(&from, 8192);
    struct driver_buffer buffers[] = {
        {gpa, 16, false}, {gpa + 4096, 512, true}, {gpa + 16, 1, true}};
    for (unsigned i = 0; i < 30; i++)
        assert_int_equal(driver_wait(&from, 0, driver_send(&from, 0, buffers, 3)), 513);
    driver_pause(&from);
    unsigned head = driver_send(&from, 0, buffers, 3);
    move(create_blk);
    driver_resume(&to);
    assert_int_equal(driver_wait(&to, 0, head), 513);
}

// A device that the driver has broken stays so, until the driver resets it.
static void test_broken(void **state)
{
    (void)state;
    open_from(create_rng);
    driver_start(&from, 0, 1, 8);
    struct driver_buffer nowhere = {4096, 16, true};
    driver_send(&from, 0, &nowhere, 1);
    driver_settle(&from);
    assert_true(driver_read(&from, R_STATUS) & S_NEEDS_RESET);
    move(create_rng);
    driver_resume(&to);
    assert_true(driver_read(&to, R_STATUS) & S_NEEDS_RESET);
    struct driver_buffer good = {driver_alloc(&to, 4096), 16, true};
    driver_send(&to, 0, &good, 1);
    driver_settle(&to);
    assert_int_equal(driver_used_index(&to, 0), 0);
    driver_start(&to, 0, 1, 8);
    assert_int_equal(driver_wait(&to, 0, driver_send(&to, 0, &good, 1)), 16);
}

// A queue that was used and given up starts from the beginning, in the copy as well.
static void test_queue_given_up(void **state)
{
    (void)state;
    open_from(create_rng);
    driver_start(&from, 0, 1, 8);
    struct driver_buffer buffer = {driver_alloc(&from, 4096), 16, true};
    driver_wait(&from, 0, driver_send(&from, 0, &buffer, 1));
    driver_write(&from, R_QUEUE_READY, 0);
    move(create_rng);
    driver_resume(&to);
    driver_queue_place(&to, 0, 8);
    driver_write(&to, R_QUEUE_READY, 1);
    assert_int_equal(driver_wait(&to, 0, driver_send(&to, 0, &buffer, 1)), 16);
}

// ---- What is refused ---------------------------------------------------------------------------

// The sections, as they are to be.
struct queue_image {
    bool ready;
    uint32_t size;
    uint64_t desc_gpa, driver_gpa, device_gpa;
    uint16_t avail_next, used_next;
};
static const struct state_field queue_fields[] = {
    STATE_FIELD(struct queue_image, ready, STATE_BOOL, 1, 0),
    STATE_FIELD(struct queue_image, size, STATE_U32, 1, 0),
    STATE_FIELD(struct queue_image, desc_gpa, STATE_U64, 1, 0),
    STATE_FIELD(struct queue_image, driver_gpa, STATE_U64, 1, 0),
    STATE_FIELD(struct queue_image, device_gpa, STATE_U64, 1, 0),
    STATE_FIELD(struct queue_image, avail_next, STATE_U16, 1, 0),
    STATE_FIELD(struct queue_image, used_next, STATE_U16, 1, 0),
    {.name = NULL},
};
static const struct state_schema queue_schema = {.name = "virtqueue",
                                                 .version = 1,
                                                 .struct_bytes = sizeof(struct queue_image),
                                                 .fields = queue_fields};

struct image {
    uint32_t device_id, status, interrupt_status, config_generation;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint64_t driver_features;
    struct state_list queues;
    struct queue_image queue[5];
    // blk's
    uint64_t capacity_sectors;
    bool read_only;
    struct state_list outstanding;
    uint16_t heads[300];
};
static const struct state_field transport_fields[] = {
    STATE_FIELD(struct image, device_id, STATE_U32, 1, 0),
    STATE_FIELD(struct image, status, STATE_U32, 1, 0),
    STATE_FIELD(struct image, interrupt_status, STATE_U32, 1, 0),
    STATE_FIELD(struct image, config_generation, STATE_U32, 1, 0),
    STATE_FIELD(struct image, device_features_sel, STATE_U32, 1, 0),
    STATE_FIELD(struct image, driver_features_sel, STATE_U32, 1, 0),
    STATE_FIELD(struct image, queue_sel, STATE_U32, 1, 0),
    STATE_FIELD(struct image, driver_features, STATE_U64, 1, 0),
    STATE_LIST_OF(struct image, queues, &queue_schema, 1, 0),
    {.name = NULL},
};
static const struct state_schema transport_schema = {.name = "virtio",
                                                     .version = 1,
                                                     .struct_bytes = sizeof(struct image),
                                                     .fields = transport_fields};

static const struct state_field head_fields[] = {
    {.name = "head", .count = 1, .type = STATE_U16, .since = 1},
    {.name = NULL},
};
static const struct state_schema head_schema = {
    .name = "request", .version = 1, .struct_bytes = sizeof(uint16_t), .fields = head_fields};
static const struct state_field blk_fields[] = {
    STATE_FIELD(struct image, capacity_sectors, STATE_U64, 1, 0),
    STATE_FIELD(struct image, read_only, STATE_BOOL, 1, 0),
    STATE_LIST_OF(struct image, outstanding, &head_schema, 1, 0),
    {.name = NULL},
};
static const struct state_schema blk_schema = {
    .name = "virtio-blk", .version = 1, .struct_bytes = sizeof(struct image), .fields = blk_fields};

// A good state of a block device with 32 entries in its queue, two of them outstanding.
static struct image image_good(void)
{
    return (struct image){
        .device_id = 2,
        .status = S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK,
        .driver_features = F_VERSION_1,
        .queues = {.count = 1},
        .queue = {{.ready = true,
                   .size = 32,
                   .desc_gpa = DRIVER_RAM_GPA,
                   .driver_gpa = DRIVER_RAM_GPA + 4096,
                   .device_gpa = DRIVER_RAM_GPA + 8192,
                   .avail_next = 1,
                   .used_next = 65535}},
        .capacity_sectors = DISK_BYTES / 512,
        .outstanding = {.count = 2},
        .heads = {5, 31},
    };
}

// The bytes are the caller's to free.
static struct driver_state image_state(struct image *image)
{
    struct state_writer *writer;
    struct driver_state it;
    const void *bytes;
    const int *fds;
    size_t fd_count;

    image->queues.elements = image->queue;
    image->outstanding.elements = image->heads;
    assert_int_equal(state_writer_create(&writer, false), 0);
    state_write(writer, &transport_schema, DRIVER_SLOT, image);
    state_write(writer, &blk_schema, DRIVER_SLOT, image);
    assert_int_equal(state_writer_finish(writer, &bytes, &it.length_bytes, &fds, &fd_count), 0);
    it.bytes = malloc(it.length_bytes);
    assert_non_null(it.bytes);
    memcpy(it.bytes, bytes, it.length_bytes);
    state_writer_destroy(writer);
    return it;
}

static void image_load(struct image *image, int expected, const char *field)
{
    struct driver_state it = image_state(image);
    struct error err = {0};

    int failure = driver_load(to.device, &it, &err);
    if (failure)
        print_message("%s\n", err.message);
    assert_int_equal(failure, expected);
    if (failure) {
        assert_non_null(strstr(err.message, "virtio"));
        assert_non_null(strstr(err.message, " 3 "));
        assert_non_null(strstr(err.message, field));
    } else {
        driver_check_state(to.device, &it);
    }
    free(it.bytes);
}

static void open_refusing(void)
{
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    open_to(create_blk);
}

#define REFUSED(change, field)                                                                     \
    do {                                                                                           \
        struct image image = image_good();                                                         \
        image.change;                                                                              \
        image_load(&image, -EINVAL, field);                                                        \
    } while (0)

static void test_refused(void **state)
{
    (void)state;
    open_refusing();
    REFUSED(device_id = 1, "device_id");
    REFUSED(status = 0x10, "status");
    REFUSED(status = 0x1ff, "status");
    REFUSED(status = S_DRIVER_OK, "status");
    REFUSED(status = 0, "queues[0]");
    REFUSED(interrupt_status = 4, "interrupt_status");
    REFUSED(driver_features = 0, "driver_features");
    REFUSED(driver_features = F_VERSION_1 | 1ull << 63, "driver_features");
    REFUSED(queues.count = 0, "queues");
    REFUSED(queues.count = 2, "queues");
    REFUSED(queues.count = 5, "queues");
    REFUSED(queue[0].size = 0, "queues[0]");
    REFUSED(queue[0].size = 33, "queues[0]");
    REFUSED(queue[0].size = 512, "queues[0]");
    REFUSED(queue[0].size = 0x80000000u, "queues[0]");
    REFUSED(queue[0].desc_gpa = 0, "queues[0]");
    REFUSED(queue[0].desc_gpa++, "queues[0]");
    REFUSED(queue[0].driver_gpa = DRIVER_RAM_GPA + DRIVER_RAM_BYTES - 4, "queues[0]");
    REFUSED(queue[0].device_gpa = UINT64_MAX - 3, "queues[0]");
    REFUSED(queue[0].avail_next = 32, "queues[0]");
    REFUSED(queue[0].avail_next = 65534, "queues[0]");
    REFUSED(capacity_sectors++, "capacity_sectors");
    REFUSED(read_only = true, "read_only");
    REFUSED(outstanding.count = 0, "outstanding");
    REFUSED(outstanding.count = 3, "outstanding");
    REFUSED(outstanding.count = 300, "outstanding");
    REFUSED(heads[0] = 32, "outstanding");
    REFUSED(heads[1] = 256, "outstanding");
    REFUSED(queue[0].ready = false, "avail_next");
    REFUSED(queue[0] = (struct queue_image){.used_next = 5}, "used_next");
    REFUSED(queue[0] = (struct queue_image){0}, "outstanding");

    // The device is as after a reset each time, so that a good state is still taken.
    struct image good = image_good();
    image_load(&good, 0, NULL);
    virtio_device_reset(to.device);
    // A hostile driver may have the same head with the device twice.
    good.heads[0] = 31;
    image_load(&good, 0, NULL);
    assert_int_equal(virtio_device_outstanding(to.device), 2);
    virtio_device_reset(to.device);
    assert_int_equal(virtio_device_outstanding(to.device), 0);
}

// A device that has refused a state works, as after a reset.
static void test_refused_then_used(void **state)
{
    (void)state;
    open_refusing();
    REFUSED(heads[0] = 32, "outstanding");
    driver_attach(&to, to.device);
    driver_resume(&to);
    driver_start(&to, 0, 1, 16);
    uint64_t gpa = driver_alloc(&to, 8192);
    struct driver_buffer buffers[] = {
        {gpa, 16, false}, {gpa + 4096, 512, true}, {gpa + 16, 1, true}};
    assert_int_equal(driver_wait(&to, 0, driver_send(&to, 0, buffers, 3)), 513);
}

// ---- States of the past ------------------------------------------------------------------------
//
// Files that versions so far have written. They are to load for ever. When a section gets another
// version, `unit-virtio_state FOLDER` writes what this program then makes, for a file with the new
// version in its name; those that are there stay.

static void make_console(void)
{
    char text[] = "typed before";

    open_from(create_console);
    driver_start(&from, F_EVENT_IDX, 2, 16);
    loop_call(from.loop, type_on_loop, text);
    loop_call(from.loop, resize_on_loop, NULL);
    save();
}

static void check_console(void)
{
    struct driver_buffer in = {driver_alloc(&to, 4096), 64, true};

    assert_int_equal(driver_read(&to, R_INTERRUPT_STATUS), 2);
    assert_int_equal(driver_config(&to, 0, 2), 132);
    assert_int_equal(driver_config(&to, 2, 2), 43);
    driver_start(&to, 0, 2, 16);
    assert_int_equal(driver_wait(&to, RECEIVE, driver_send(&to, RECEIVE, &in, 1)), 12);
    assert_memory_equal(driver_ram(&to, in.gpa), "typed before", 12);
}

static void make_rng(void)
{
    open_from(create_rng);
    driver_negotiate(&from, F_VERSION_1 | F_EVENT_IDX);
    driver_queue_place(&from, 0, 8);
    save();
}

static void check_rng(void)
{
    assert_int_equal(driver_read(&to, R_STATUS), S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    driver_write(&to, R_QUEUE_READY, 1);
    assert_int_equal(driver_read(&to, R_QUEUE_READY), 1);
    assert_int_equal(driver_read(&to, R_STATUS), S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
}

static void make_blk(void)
{
    struct image image = image_good();
    saved = image_state(&image);
}

static void check_blk(void)
{
    assert_int_equal(driver_read(&to, R_STATUS),
                     S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
    assert_int_equal(virtio_device_outstanding(to.device), 2);
}

static const struct past {
    const char *file;
    create_fn *create;
    void (*make)(void);  // NULL: an earlier version did
    void (*check)(void);
} pasts[] = {
    {"virtio-console-1.state", create_console, make_console, check_console},
    {"virtio-rng-1.state", create_rng, make_rng, check_rng},
    {"virtio-blk-1.state", create_blk, make_blk, check_blk},
};

static FILE *past_open(const char *folder, const struct past *past, const char *mode)
{
    char path[4096];
    assert_true(snprintf(path, sizeof(path), "%s/%s", folder, past->file) < (int)sizeof(path));
    FILE *file = fopen(path, mode);
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    return file;
}

static void past_write(const char *folder, const struct past *past)
{
    past->make();
    FILE *file = past_open(folder, past, "wb");
    assert_int_equal(fwrite(saved.bytes, 1, saved.length_bytes, file), saved.length_bytes);
    assert_int_equal(fclose(file), 0);
}

static void past_load(const struct past *past)
{
    FILE *file = past_open(STRAKE_SOURCE_DIR "/tests/fixtures/virtio", past, "rb");
    struct error err = {0};

    saved.bytes = malloc(1 << 16);
    assert_non_null(saved.bytes);
    saved.length_bytes = fread(saved.bytes, 1, 1 << 16, file);
    fclose(file);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    open_to(past->create);
    if (driver_load(to.device, &saved, &err))
        fail_msg("%s: %s", past->file, err.message);
    driver_attach(&to, to.device);
    if (past->create != create_blk)  // whose requests are in no ring
        driver_resume(&to);
    past->check();
}

static void test_past(void **state)
{
    for (size_t i = 0; i < BASE_COUNT_OF(pasts); i++) {
        setup(state);
        past_load(&pasts[i]);
        teardown(state);
    }
    setup(state);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < BASE_COUNT_OF(pasts); i++) {
        setup(NULL);
        if (pasts[i].make)
            past_write(argv[1], &pasts[i]);
        teardown(NULL);
    }
    if (argc == 2)
        return 0;
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_half_set_up), TEST(test_console),
        TEST(test_rng),         TEST(test_blk),
        TEST(test_broken),      TEST(test_queue_given_up),
        TEST(test_refused),     TEST(test_refused_then_used),
        TEST(test_past),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
