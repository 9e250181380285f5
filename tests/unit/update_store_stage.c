// SPDX-License-Identifier: BSD-2-Clause
// Payloads on their way: they go on where they were, whatever ends in between, within the quota.
#include "update_fixture.h"

#include "update_disk.h"

#define OTHER "aa112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define THIRD "bb112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define MIB (UINT64_C(1) << 20)

static struct update_stage *open_stage(struct store_fixture *f, const char *digest,
                                       unsigned payload, uint64_t bytes)
{
    struct update_stage *stage;
    struct error err = {0};
    if (update_store_stage_open(f->store, digest, payload, bytes, &stage, &err) < 0)
        fail_msg("%s", err.message);
    return stage;
}

static void fill(struct update_stage *stage, uint64_t bytes)
{
    uint8_t block[65528];
    struct error err = {0};
    while (bytes) {
        size_t count = bytes < sizeof(block) ? (size_t)bytes : sizeof(block);
        uint64_t offset = update_stage_offset(stage);
        for (size_t i = 0; i < count; i++)
            block[i] = (uint8_t)((offset + i) * 31 >> 3);
        if (update_stage_write(stage, offset, block, count, &err) < 0)
            fail_msg("%s", err.message);
        bytes -= count;
    }
}

static void assert_filled(struct update_stage *stage, uint64_t bytes)
{
    uint8_t *block = malloc((size_t)bytes + 1);
    assert_int_equal(fd_pread_full(update_stage_fd(stage), block, (size_t)bytes + 1, 0), bytes);
    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(block[i], (uint8_t)(i * 31 >> 3));
    free(block);
}

static void test_resume(void **state)
{
    struct store_fixture *f = *state;
    unsigned payload;
    uint64_t offset;
    assert_int_equal(update_store_stage_find(f->store, DIGEST, &payload, &offset), -ENOENT);
    struct update_stage *stage = open_stage(f, DIGEST, 2, 5 * MIB);
    assert_int_equal(update_stage_offset(stage), 0);
    fill(stage, 2 * MIB + 1000);
    assert_int_equal(update_store_stage_find(f->store, DIGEST, &payload, &offset), 0);
    print_message("of 2 MiB and 1000 bytes, %llu are kept for sure\n", (unsigned long long)offset);
    assert_int_equal(payload, 2);
    assert_true(offset <= 2 * MIB + 1000 && offset + UPDATE_STAGE_SYNC_BYTES > 2 * MIB + 1000);
    reopen(f);
    print_message("and all when it is closed\n");
    stage = open_stage(f, DIGEST, 2, 5 * MIB);
    offset = update_stage_offset(stage);
    assert_int_equal(offset, 2 * MIB + 1000);
    assert_filled(stage, offset);
    fill(stage, 1000);
    assert_int_equal(update_stage_sync(stage, NULL), 0);
    update_stage_close(stage);
    stage = open_stage(f, DIGEST, 2, 5 * MIB);
    assert_int_equal(update_stage_offset(stage), offset + 1000);
    print_message("the last byte is kept without being asked\n");
    fill(stage, 5 * MIB - offset - 1000);
    reopen(f);
    stage = open_stage(f, DIGEST, 2, 5 * MIB);
    assert_int_equal(update_stage_offset(stage), 5 * MIB);
    assert_filled(stage, 5 * MIB);
    update_stage_close(stage);
    print_message("another payload of the same manifest, or another size, begins anew\n");
    stage = open_stage(f, DIGEST, 1, 5 * MIB);
    assert_int_equal(update_stage_offset(stage), 0);
    fill(stage, 10);
    assert_int_equal(update_stage_sync(stage, NULL), 0);
    update_stage_close(stage);
    stage = open_stage(f, DIGEST, 1, 5 * MIB + 1);
    assert_int_equal(update_stage_offset(stage), 0);
    update_stage_close(stage);
    assert_int_equal(update_store_stage_discard(f->store, DIGEST, NULL), 0);
    assert_int_equal(update_store_stage_find(f->store, DIGEST, &payload, &offset), -ENOENT);
    assert_false(has(f, "staging/" DIGEST));
    assert_int_equal(update_store_stage_discard(f->store, DIGEST, NULL), 0);
}

static void test_order(void **state)
{
    struct store_fixture *f = *state;
    struct update_stage *other, *stage = open_stage(f, DIGEST, 0, 100);
    struct error err = {0};
    assert_refused(update_stage_write(stage, 1, "x", 1, &err), -ESPIPE, &err, "0 is next");
    assert_refused(update_stage_write(stage, UINT64_MAX, "x", 1, &err), -ESPIPE, &err, "order");
    fill(stage, 60);
    assert_refused(update_stage_write(stage, 0, "x", 1, &err), -ESPIPE, &err, "60 is next");
    assert_refused(update_stage_write(stage, 60, SESSION, 41, &err), -EFBIG, &err, "100");
    assert_refused(update_stage_write(stage, 60, SESSION, SIZE_MAX, &err), -EFBIG, &err, "100");
    assert_int_equal(update_stage_offset(stage), 60);
    assert_refused(update_store_stage_open(f->store, OTHER, 0, 1, &other, &err), -EBUSY, &err,
                   "another");
    assert_refused(update_store_stage_discard(f->store, DIGEST, &err), -EBUSY, &err, "staged");
    fill(stage, 40);
    assert_refused(update_stage_write(stage, 100, "x", 1, &err), -EFBIG, &err, "100");
    assert_filled(stage, 100);
    update_stage_close(stage);
    const char *const bad[] = {"", "..", "../slots", (OTHER "0"), ("A" THIRD)};
    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++)
        assert_refused(update_store_stage_open(f->store, bad[i], 0, 1, &other, &err), -EINVAL, &err,
                       "stage");
    assert_refused(update_store_stage_open(f->store, OTHER, 0, 0, &other, &err), -EINVAL, &err,
                   "stage");
}

static void test_quota(void **state)
{
    struct store_fixture *f = *state;
    struct update_stage *stage;
    struct error err = {0};
    unsigned payload;
    uint64_t offset;
    f->config.quota_bytes = 1000;
    reopen(f);
    assert_refused(update_store_stage_open(f->store, DIGEST, 0, 1001, &stage, &err), -EDQUOT, &err,
                   "the limit is 1000");
    assert_refused(update_store_stage_open(f->store, DIGEST, 0, UINT64_MAX, &stage, &err), -EDQUOT,
                   &err, "the limit is 1000");
    assert_false(has(f, "staging/" DIGEST));
    print_message("abandoned stages keep their room until it is needed, the oldest goes first\n");
    update_stage_close(open_stage(f, DIGEST, 0, 400));
    update_stage_close(open_stage(f, OTHER, 0, 600));
    assert_int_equal(update_store_stage_find(f->store, DIGEST, &payload, &offset), 0);
    meddle(f, "touch -d '2020-01-01' staging/" OTHER "/payload");
    update_stage_close(open_stage(f, THIRD, 0, 1));
    assert_int_equal(update_store_stage_find(f->store, OTHER, &payload, &offset), -ENOENT);
    assert_int_equal(update_store_stage_find(f->store, DIGEST, &payload, &offset), 0);
    update_stage_close(open_stage(f, THIRD, 0, 1000));
    assert_int_equal(update_store_stage_find(f->store, DIGEST, &payload, &offset), -ENOENT);
    print_message("its own room does not count twice\n");
    update_stage_close(open_stage(f, THIRD, 0, 1000));
    update_stage_close(open_stage(f, THIRD, 1, 999));
}

static void test_damage(void **state)
{
    static const char *const damages[] = {
        "echo garbage > stage.json",
        "sed -i s/300/301/ stage.json",
        "sed -i s/1000/299/ stage.json",
        "truncate -s 299 payload",
        "rm payload",
        "rm payload && ln -s /etc/passwd payload",
        "rm payload && mkfifo payload",
        "chmod o+w payload",
        "rm stage.json && mkdir stage.json",
    };
    struct store_fixture *f = *state;
    for (size_t i = 0; i < BASE_COUNT_OF(damages); i++) {
        char command[256];
        struct update_stage *stage = open_stage(f, DIGEST, 0, 1000);
        fill(stage, 300);
        assert_int_equal(update_stage_sync(stage, NULL), 0);
        print_message("%s\n", damages[i]);
        snprintf(command, sizeof(command), "cd staging/" DIGEST " && %s", damages[i]);
        meddle(f, command);
        reopen(f);
        print_message("  begins anew\n");
        stage = open_stage(f, DIGEST, 0, 1000);
        assert_int_equal(update_stage_offset(stage), 0);
        update_stage_close(stage);
        assert_int_equal(update_store_stage_discard(f->store, DIGEST, NULL), 0);
    }
    print_message("what the file has beyond what was kept is cut off\n");
    struct update_stage *stage = open_stage(f, DIGEST, 0, 1000);
    fill(stage, 300);
    assert_int_equal(update_stage_sync(stage, NULL), 0);
    update_stage_close(stage);
    meddle(f, "head -c 500 /dev/zero >> staging/" DIGEST "/payload");
    stage = open_stage(f, DIGEST, 0, 1000);
    assert_filled(stage, 300);
}

static void test_full_disk(void **state)
{
    struct disk *disk = disk_new();
    const struct update_files files = disk_files(disk);
    struct store_fixture f = {.config = {.files = &files, .now_ns = fixed_clock}, .folder = "disk"};
    struct update_stage *stage;
    struct error err = {0};
    (void)state;
    reopen(&f);
    update_stage_close(open_stage(&f, OTHER, 0, 4000));
    disk->room_bytes = MIB + 5000;
    print_message("a payload for which the disk has no room is refused, and nothing is left\n");
    assert_refused(update_store_stage_open(f.store, DIGEST, 0, 10000, &stage, &err), -ENOSPC, &err,
                   "10000 bytes");
    assert_int_equal(disk_node_of(disk, "staging/" DIGEST), -ENOENT);
    stage = open_stage(&f, DIGEST, 0, 4000);
    fill(stage, 1000);
    print_message("a disk that is full by others: part of a write is taken, the rest later\n");
    disk->room_bytes = 500;
    uint8_t bytes[1000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)((1000 + i) * 31 >> 3);
    assert_refused(update_stage_write(stage, 1000, bytes, 1000, &err), -ENOSPC, &err, "stage");
    assert_int_equal(update_stage_offset(stage), 1500);
    disk->room_bytes = SIZE_MAX;
    fill(stage, 2500);
    for (uint64_t i = 0; i < 4000; i++) {
        assert_int_equal(disk_read(disk, update_stage_fd(stage), bytes, 1, i), 1);
        assert_int_equal(bytes[0], (uint8_t)(i * 31 >> 3));
    }
    update_store_close(f.store);
    disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_resume), STORE_TEST(test_order),           STORE_TEST(test_quota),
        STORE_TEST(test_damage), cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
