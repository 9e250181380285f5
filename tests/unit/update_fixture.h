// SPDX-License-Identifier: BSD-2-Clause
// What tests of the update store share: a store in a new folder, and versions to put into it.
#ifndef STRAKE_TESTS_UPDATE_FIXTURE_H
#define STRAKE_TESTS_UPDATE_FIXTURE_H

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"
#include "update/update.h"

#define SESSION "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct store_fixture {
    char folder[64];
    struct update_store *store;
    struct update_store_config config;
};

static inline uint64_t fixed_clock(void)
{
    return UINT64_C(1795408211123456789);  // 2026-11-23T04:30:11.123456789Z
}

static inline int try_reopen(struct store_fixture *f, struct error *err)
{
    update_store_close(f->store);
    f->store = NULL;
    return update_store_open(&f->store, f->folder, &f->config, err);
}

static inline void reopen(struct store_fixture *f)
{
    struct error err = {0};
    if (try_reopen(f, &err) < 0)
        fail_msg("%s", err.message);
}

// It is refused, and why is told.
static inline void assert_refused(int rc, int code, const struct error *err, const char *why)
{
    print_message("  %s\n", err->message);
    assert_int_equal(rc, code);
    assert_int_equal(err->code, code);
    assert_non_null(strstr(err->message, why));
}

// A shell command on the store's folder.
static inline void meddle(const struct store_fixture *f, const char *command)
{
    char line[1024];
    snprintf(line, sizeof(line), "cd %s && { %s; }", f->folder, command);
    assert_int_equal(system(line), 0);
}

static inline char *program_of(const char *version)
{
    char *text = NULL;
    assert_true(asprintf(&text, "#!/bin/sh\necho strake %s%200000s\n", version, "") > 0);
    return text;
}

static inline int program_file(const char *text)
{
    FILE *file = tmpfile();
    fputs(text, file);
    fflush(file);
    int fd = dup(fileno(file));
    fclose(file);
    return fd;
}

static inline void manifest_of(char manifest[512], const char *version, unsigned epoch,
                               const char *program)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    char digest[UPDATE_DIGEST_BYTES];
    crypto_hash_sha256(hash, (const uint8_t *)program, strlen(program));
    sodium_bin2hex(digest, sizeof(digest), hash, sizeof(hash));
    snprintf(manifest, 512,
             "{\"version\": \"%s\", \"epoch\": %u, \"later\": [1], "
             "\"program\": {\"bytes\": %zu, \"sha256\": \"%s\"}}",
             version, epoch, strlen(program), digest);
}

static inline int try_install(struct store_fixture *f, const char *version, unsigned epoch,
                              struct error *err)
{
    char manifest[512];
    char *program = program_of(version);
    int fd = program_file(program);
    manifest_of(manifest, version, epoch, program);
    int rc = update_store_install(f->store, fd, manifest, strlen(manifest), "signed\n", 7, err);
    close(fd);
    free(program);
    return rc;
}

static inline void install(struct store_fixture *f, const char *version, unsigned epoch)
{
    struct error err = {0};
    if (try_install(f, version, epoch, &err) < 0)
        fail_msg("%s", err.message);
}

static inline void make_pending(struct store_fixture *f, const char *version)
{
    struct error err = {0};
    if (update_store_make_pending(f->store, version, 77, SESSION, &err) < 0)
        fail_msg("%s", err.message);
}

static inline void adopt(struct store_fixture *f, const char *version, unsigned epoch)
{
    install(f, version, epoch);
    make_pending(f, version);
    assert_int_equal(update_store_confirm(f->store, NULL), 0);
}

static inline void assert_state(const struct store_fixture *f, const char *current,
                                const char *previous, const char *pending, unsigned epoch)
{
    const struct update_state *state = update_store_state(f->store);
    assert_string_equal(state->current, current);
    assert_string_equal(state->previous, previous);
    assert_string_equal(state->pending.version, pending);
    assert_int_equal(state->epoch, epoch);
}

// The link says the same; "" stands for none.
static inline void assert_link(const struct store_fixture *f, const char *target)
{
    char path[128], there[64] = "";
    snprintf(path, sizeof(path), "%s/current", f->folder);
    if (readlink(path, there, sizeof(there) - 1) < 0)
        assert_int_equal(errno, ENOENT);
    assert_string_equal(there, target);
}

static inline bool has(const struct store_fixture *f, const char *name)
{
    char path[256];
    struct stat stat;
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    return lstat(path, &stat) == 0;
}

// How many records of an event the audit log has.
static inline size_t count_events(const struct store_fixture *f, const char *event)
{
    size_t i, found = 0;
    json_t *record, *records = update_store_history(f->store, SIZE_MAX, NULL);
    json_array_foreach(records, i, record) found +=
        strcmp(json_string_value(json_object_get(record, "event")), event) == 0;
    json_decref(records);
    return found;
}

static inline int setup_store(void **state)
{
    struct store_fixture *f = calloc(1, sizeof(*f));
    f->config = (struct update_store_config){.now_ns = fixed_clock};
    snprintf(f->folder, sizeof(f->folder), "/tmp/strake-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    log_set_level(LOG_ERROR);
    reopen(f);
    *state = f;
    return 0;
}

static inline int teardown_store(void **state)
{
    struct store_fixture *f = *state;
    char command[128];
    update_store_close(f->store);
    snprintf(command, sizeof(command), "rm -rf %s", f->folder);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

#define STORE_TEST(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

#endif
