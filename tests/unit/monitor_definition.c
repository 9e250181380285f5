// SPDX-License-Identifier: BSD-2-Clause
// A partition's definition: from options and from JSON, to JSON and back, and what is refused.
#include <stdio.h>

#include "monitor/monitor.h"
#include "unit.h"

static char *json_of(const struct definition *definition)
{
    json_t *object = definition_to_json(definition);
    assert_non_null(object);
    char *text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(object);
    return text;
}

static int parse(struct definition *definition, const char *text, struct error *err)
{
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    int rc = definition_from_json(definition, object, err);
    json_decref(object);
    return rc;
}

static void test_round_trip(void **state)
{
    static const struct {
        const char *key, *value;
    } given[] = {
        {"name", "web"},
        {"kernel", "/boot/Image"},
        {"initrd", "initrd \"quoted\""},
        {"append", "quiet console=hvc0"},
        {"firmware", "fw.bin"},
        {"memory", "1536M"},
        {"cpus", "4"},
        {"disk", "a,b.img,ro"},
        {"disk", "c.img,aio=sync"},
        {"disk", "d.img"},
        {"net", "user,hostfwd=tcp::8080-:80,hostfwd=udp:0.0.0.0:53-10.0.2.20:53"},
        {"net", "tap=tap0,mac=02:00:00:0a:0B:0c"},
        {"net", "tap=tap1,queues=4"},
        {"vsock", "7,/run/vsock"},
        {"engine", "verify"},
        {"jit-cache", "64M"},
        {"windows", "off"},
        {"mmu", "sv48"},
        {"gdb", ":1234"},
        {"no-reboot", ""},
        {"stats", ""},
        {"perf-map", ""},
        {"perf-map", "System.map"},
        {"log", "info,jit"},
        {"restart", "on-failure"},
        {"autostart", ""},
        {"updates", ""},
    };
    struct definition definition, again;
    struct error err;
    (void)state;
    print_message("every key, set as an option, comes out as JSON that means the same\n");
    definition_init(&definition);
    for (size_t i = 0; i < BASE_COUNT_OF(given); i++)
        if (definition_set(&definition, given[i].key, given[i].value, &err) < 0)
            fail_msg("%s: %s", given[i].key, err.message);
    assert_int_equal(definition_check(&definition, &err), 0);
    char *text = json_of(&definition);
    print_message("%s\n", text);
    if (parse(&again, text, &err) < 0)
        fail_msg("%s", err.message);
    char *text_again = json_of(&again);
    assert_string_equal(text, text_again);
    for (size_t i = 0; i < BASE_COUNT_OF(given); i++) {
        char quoted[64];
        snprintf(quoted, sizeof(quoted), "\"%s\":", given[i].key);
        assert_non_null(strstr(text, quoted));
    }
    assert_int_equal(again.memory_bytes, 1536ull << 20);
    assert_int_equal(again.mmu_levels, 4);
    assert_string_equal(again.disks[0].path, "a,b.img");
    assert_true(again.disks[0].read_only && !again.disks[1].read_only);
    assert_int_equal(again.nets[0].forward_count, 2);
    assert_int_equal(again.nets[0].forwards[0].guest_port, 80);
    assert_int_equal(again.nets[1].mac[5], 0x0c);
    assert_int_equal(again.nets[1].queues, 1);
    assert_int_equal(again.nets[2].queues, 4);
    assert_int_equal(again.restart, DEFINITION_ON_FAILURE);
    definition_fini(&definition);
    definition_fini(&again);
    free(text);
    free(text_again);
}

static void test_defaults(void **state)
{
    static const char text[] = "{\"name\": \"x\", \"kernel\": \"k\", \"memory\": 64, \"cpus\": 2,\n"
                               " \"disk\": \"one.img\", \"perf-map\": false, \"stats\": true}";
    struct definition definition;
    struct error err;
    uint8_t first[6], second[6];
    (void)state;
    print_message("numbers, single elements and booleans are taken; the rest has defaults\n");
    if (parse(&definition, text, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(definition.memory_bytes, 64u << 20);
    assert_int_equal(definition.cpus, 2);
    assert_int_equal(definition.disk_count, 1);
    assert_false(definition.perf_map);
    assert_true(definition.stats);
    assert_ptr_equal(definition.engine, &hart_engine_jit);
    assert_int_equal(definition.jit_cache_bytes, JIT_CODE_BYTES);
    assert_int_equal(definition.restart, DEFINITION_NEVER);
    definition_mac(&definition, 0, first);
    definition_mac(&definition, 1, second);
    assert_memory_not_equal(first, second, 6);
    assert_int_equal(first[0], 2);
    definition_fini(&definition);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *names;  // what the message has to name
    } wrong[] = {
        {"[]", "object"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"colour\": \"red\"}", "\"colour\""},
        {"{\"name\": \"x\", \"kernel\": 5.5}", "\"kernel\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"tap=t,queues=0\"}", "1 to 8 queues"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"tap=t,queues=9\"}", "1 to 8 queues"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"user,queues=2\"}", "\"queues=2\""},
        {"{\"name\": \"x\", \"kernel\": null}", "\"kernel\""},
        {"{\"name\": \"x\", \"kernel\": \"\"}", "\"kernel\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"cpus\": -1}", "\"cpus\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"cpus\": 99}", "99 cpus"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"cpus\": true}", "\"cpus\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"memory\": \"4Q\"}", "\"memory\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"memory\": \"1M\"}", "1 MiB"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"disk\": [5]}", "\"disk\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"disk\": [[\"a\"]]}", "\"disk\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"disk\": {}}", "\"disk\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"disk\": "
         "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}",
         "slots"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": [\"pigeon\"]}", "pigeon"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"user,mac=01:00:00:00:00:00\"}", "MAC"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"user,mac=02:00:00:00:00:-1\"}", "MAC"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"user,mac=02:00:00:00:00: 1\"}", "MAC"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"net\": \"user,mac=02:00:00:00:00:1\"}", "MAC"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"vsock\": \"2,path\"}", "\"vsock\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"engine\": \"steam\"}", "steam|interp"},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"no-reboot\": \"yes\"}", "\"no-reboot\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"restart\": \"perhaps\"}", "\"restart\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"log\": \"loud\"}", "\"log\""},
        {"{\"name\": \"x\", \"kernel\": \"k\", \"engine\": \"interp\", \"windows\": \"on\"}",
         "--windows"},
        {"{\"name\": \"x\"}", "--kernel"},
        {"{\"kernel\": \"k\"}", "name"},
        {"{\"name\": \"x\", \"firmware\": \"f\", \"append\": \"a\"}", "--append"},
    };
    struct definition definition;
    struct error err;
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(wrong); i++) {
        assert_true(parse(&definition, wrong[i].text, &err) < 0);
        print_message("%s: %s\n", wrong[i].text, err.message);
        char names[64], *rest = names, *name;
        bool named = false;
        snprintf(names, sizeof(names), "%s", wrong[i].names);
        while ((name = strsep(&rest, "|")))
            named |= strstr(err.message, name) != NULL;
        assert_true(named);
        definition_fini(&definition);  // nothing is left to free, and it does no harm
    }
}

static void test_too_large(void **state)
{
    struct definition definition;
    struct error err;
    (void)state;
    print_message("what does not fit into a message is refused where it is given\n");
    definition_init(&definition);
    char *text = calloc(1, DEFINITION_APPEND_MAX + 2);
    memset(text, 'x', DEFINITION_APPEND_MAX + 1);
    assert_int_equal(definition_set(&definition, "name", "x", &err), 0);
    assert_int_equal(definition_set(&definition, "kernel", "k", &err), 0);
    assert_int_equal(definition_set(&definition, "append", text, &err), 0);
    assert_int_equal(definition_check(&definition, &err), -ERANGE);
    text[DEFINITION_APPEND_MAX] = 0;
    assert_int_equal(definition_set(&definition, "append", text, &err), 0);
    assert_int_equal(definition_check(&definition, &err), 0);
    memset(text, 1, DEFINITION_APPEND_MAX);  // six bytes each in JSON
    assert_int_equal(definition_set(&definition, "append", text, &err), 0);
    assert_int_equal(definition_check(&definition, &err), -ERANGE);
    print_message("%s\n", err.message);
    assert_int_equal(definition_set(&definition, "kernel", "\xff", &err), -EINVAL);
    assert_int_equal(definition_set(&definition, "colour", "red", &err), -ENOENT);
    definition_fini(&definition);
    free(text);
}

static int move_path(const char *key, char **path, struct error *err)
{
    char *moved;
    if (strcmp(*path, "stop") == 0)
        return error_set(err, -EINVAL, "%s", key);
    assert_true(asprintf(&moved, "%s:%s", key, *path) > 0);
    free(*path);
    *path = moved;
    return 0;
}

static void test_paths(void **state)
{
    static const char *const given[] = {"kernel", "initrd", "firmware", "disk", "disk", "perf-map"};
    struct definition definition;
    struct error err;
    (void)state;
    print_message("each path is shown with its key, and what may be no path is not\n");
    definition_init(&definition);
    assert_int_equal(definition_each_path(&definition, move_path, &err), 0);
    for (size_t i = 0; i < BASE_COUNT_OF(given); i++)
        assert_int_equal(definition_set(&definition, given[i], "f", &err), 0);
    assert_int_equal(definition_set(&definition, "vsock", "7,f", &err), 0);
    assert_int_equal(definition_set(&definition, "gdb", ":1", &err), 0);
    assert_int_equal(definition_set(&definition, "name", "f", &err), 0);
    assert_int_equal(definition_each_path(&definition, move_path, &err), 0);
    char *text = json_of(&definition);
    print_message("%s\n", text);
    assert_string_equal(
        text,
        "{\"cpus\":1,\"disk\":[\"disk:f\",\"disk:f\"],\"firmware\":\"firmware:f\",\"gdb\":\":1\","
        "\"initrd\":\"initrd:f\",\"kernel\":\"kernel:f\",\"memory\":\"512M\",\"name\":\"f\","
        "\"perf-map\":[\"perf-map:f\"],\"vsock\":\"7,vsock:f\"}");
    free(text);
    print_message("and no more of them behind an error\n");
    assert_int_equal(definition_set(&definition, "initrd", "stop", &err), 0);
    assert_int_equal(definition_each_path(&definition, move_path, &err), -EINVAL);
    assert_string_equal(err.message, "initrd");
    assert_string_equal(definition.kernel, "kernel:kernel:f");
    assert_string_equal(definition.firmware, "firmware:f");
    definition_fini(&definition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
