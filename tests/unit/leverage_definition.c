// SPDX-License-Identifier: BSD-2-Clause
// Definitions of interceptors: what is taken, filled in, given back; what is refused, and why.
// Views of partitions and names of states likewise.
#include <stdio.h>

#include "leverage/leverage.h"
#include "unit.h"

static json_t *parse(const char *text)
{
    json_error_t error;
    char json[4096];
    size_t i = 0;
    for (; text[i] && i < sizeof(json) - 1; i++)
        json[i] = text[i] == '\'' ? '"' : text[i];
    json[i] = 0;
    json_t *object = json_loads(json, JSON_DECODE_ANY, &error);
    if (!object)
        fail_msg("%s: %s", text, error.text);
    return object;
}

// ---- What is taken ------------------------------------------------------------------------------

static const char *const good[] = {
    "{'name':'fw','kind':'net','module':['fw,run=firewall'],'fail':'closed','device':'eth0'}",
    "{'name':'chain','kind':'net','module':['fw,run=firewall,config=/etc/fw.nft',"
    "'fw,run=ips,pair=1','x.y,run=ips'],'verdict':'observe','fail':'open','time-limit':'500ms',"
    "'device':'eth0','match':'tcp dport 80','match-out':'udp dport 53'}",
    "{'name':'nat','kind':'net','module':['fw,run=firewall'],'fail':'closed','device':'eth0',"
    "'mode':'nat','forward':['tcp:8080-10.83.0.2:80','udp:53-10.83.0.3:5353'],'lan':'br0'}",
    "{'name':'scan','kind':'files','module':['av,run=clamav,port=3310'],'fail':'open',"
    "'time-limit':'90s','path':'/srv','infected':'quarantine','quarantine':'/var/q',"
    "'size-limit':'1G','log':'debug'}",
    "{'name':'m','kind':'mount','module':['m,run=mount'],'image':'/a.img','directory':'/"
    "mnt','disk':2,'part':3,"
    "'type':'f2fs','read-only':true,'passphrase-file':'/p',"
    "'partition':{'name':'m','kernel':'/Image','memory':'256M'}}",
};

static void definitions_come_back(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BASE_COUNT_OF(good); i++) {
        struct interceptor_definition definition;
        struct error err = {0};
        json_t *given = parse(good[i]);
        if (interceptor_definition_from_json(&definition, given, &err) < 0)
            fail_msg("%s: %s", good[i], err.message);
        json_t *back = interceptor_definition_to_json(&definition);
        char *text = json_dumps(back, JSON_COMPACT);
        printf("%s\n", text);
        assert_true(json_equal(given, back));
        free(text);
        json_decref(back);
        json_decref(given);
        interceptor_definition_fini(&definition);
    }
}

static void values_arrive(void **unused)
{
    (void)unused;
    struct interceptor_definition definition;
    json_t *given = parse(good[2]);
    assert_int_equal(interceptor_definition_from_json(&definition, given, NULL), 0);
    json_decref(given);
    assert_true(definition.nat && definition.fail == INTERCEPTOR_FAIL_CLOSED);
    assert_int_equal(definition.forward_count, 2);
    assert_true(definition.forwards[1].udp && !definition.forwards[0].udp);
    assert_int_equal(definition.forwards[0].port, 8080);
    assert_int_equal(definition.forwards[1].to_port, 5353);
    assert_int_equal(definition.forwards[1].address[3], 3);
    assert_true(interceptor_definition_names(&definition, "fw"));
    assert_false(interceptor_definition_names(&definition, "f"));
    interceptor_definition_fini(&definition);
}

// What follows from the kind, also when the kind comes last.
static void defaults_follow_from_the_kind(void **unused)
{
    (void)unused;
    static const struct {
        const char *text, *run;
        unsigned ms;
    } cases[] = {
        {"{'name':'a','module':'p','device':'e','fail':'open','kind':'net'}", "firewall", 2000},
        {"{'name':'a','module':'p','path':'/x','fail':'open','kind':'files'}", "clamav", 10000},
        {"{'name':'a','module':'p','image':'/x','directory':'/y','kind':'mount'}", "mount", 30000},
        {"{'name':'a','module':'p','time-limit':7,'device':'e','fail':'open','kind':'net'}",
         "firewall", 7000},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct interceptor_definition definition;
        json_t *given = parse(cases[i].text);
        assert_int_equal(interceptor_definition_from_json(&definition, given, NULL), 0);
        printf("%s: %s, %u ms\n", interceptor_kind_name(definition.kind), definition.modules[0].run,
               definition.time_limit_ms);
        assert_string_equal(definition.modules[0].run, cases[i].run);
        assert_int_equal(definition.time_limit_ms, cases[i].ms);
        assert_int_equal(definition.size_limit_bytes, 25u << 20);
        json_decref(given);
        interceptor_definition_fini(&definition);
    }
}

// Options of a command line, one by one.
static void options_set_keys(void **unused)
{
    (void)unused;
    struct interceptor_definition definition;
    struct error err;
    interceptor_definition_init(&definition);
    assert_int_equal(interceptor_definition_set(&definition, "name", "x", &err), 0);
    assert_int_equal(interceptor_definition_set(&definition, "kind", "mount", &err), 0);
    assert_int_equal(interceptor_definition_set(&definition, "module", "p", &err), 0);
    assert_int_equal(interceptor_definition_set(&definition, "image", "/i", &err), 0);
    assert_int_equal(interceptor_definition_set(&definition, "directory", "/d", &err), 0);
    assert_int_equal(interceptor_definition_set(&definition, "read-only", "", &err), 0);
    assert_int_equal(interceptor_definition_set(&definition, "nothing", "", &err), -ENOENT);
    assert_int_equal(interceptor_definition_set(&definition, "type", "\xff", &err), -EINVAL);
    // What is refused leaves nothing behind.
    assert_int_equal(interceptor_definition_set(&definition, "module", "q,run=x,no", &err),
                     -EINVAL);
    assert_int_equal(definition.module_count, 1);
    assert_int_equal(interceptor_definition_check(&definition, &err), 0);
    assert_true(definition.read_only);
    interceptor_definition_fini(&definition);
}

static int rename_path(const char *key, char **path, struct error *err)
{
    (void)err;
    char *longer;
    if (strcmp(key, "image") == 0)
        return -ENOENT;
    assert_true(asprintf(&longer, "/root%s", *path) > 0);
    free(*path);
    *path = longer;
    return 0;
}

static void paths_are_visited(void **unused)
{
    (void)unused;
    struct interceptor_definition definition;
    json_t *given = parse(good[3]);
    assert_int_equal(interceptor_definition_from_json(&definition, given, NULL), 0);
    json_decref(given);
    assert_int_equal(interceptor_definition_each_path(&definition, rename_path, NULL), 0);
    assert_string_equal(definition.path, "/root/srv");
    assert_string_equal(definition.quarantine, "/root/var/q");
    interceptor_definition_fini(&definition);
    given = parse(good[1]);
    assert_int_equal(interceptor_definition_from_json(&definition, given, NULL), 0);
    json_decref(given);
    assert_int_equal(interceptor_definition_each_path(&definition, rename_path, NULL), 0);
    assert_string_equal(definition.modules[0].config, "/root/etc/fw.nft");
    interceptor_definition_fini(&definition);
    given = parse(good[4]);
    assert_int_equal(interceptor_definition_from_json(&definition, given, NULL), 0);
    json_decref(given);
    assert_int_equal(interceptor_definition_each_path(&definition, rename_path, NULL), -ENOENT);
    interceptor_definition_fini(&definition);
}

// ---- What is refused ----------------------------------------------------------------------------

#define NET_MEMBERS "'name':'a','kind':'net','module':'p','device':'e','fail':'open'"
#define FILES_MEMBERS "'name':'a','kind':'files','module':'p','path':'/x','fail':'open'"
#define MOUNT_MEMBERS "'name':'a','kind':'mount','module':'p','image':'/x','directory':'/y'"

static const struct {
    const char *text, *why;
} bad[] = {
    {"[]", "is a JSON object"},
    {"{}", "needs a name"},
    {"{'name':'a'}", "needs a kind"},
    {"{" NET_MEMBERS ",'color':'red'}", "\"color\" is no key"},
    {"{'name':'a','kind':'disk'}", "none of net, files, mount"},
    {"{'name':'../a'}", "a name has letters"},
    {"{'name':'-a'}", "a name has letters"},
    {"{'name':''}", "empty"},
    {"{'name':'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'}", "at most"},
    {"{'name':'a','kind':'net','device':'e','fail':'open'}", "needs a module"},
    {"{'name':'a','kind':'net','module':'p','fail':'open'}", "give --device"},
    {"{'name':'a','kind':'net','module':'p','device':'e'}", "give --fail"},
    {"{'name':'a','kind':'files','module':'p','fail':'open'}", "give --path"},
    {"{'name':'a','kind':'files','module':'p','path':'/x'}", "give --fail"},
    {"{'name':'a','kind':'mount','module':'p','image':'/x'}", "an image and a directory"},
    {"{" MOUNT_MEMBERS ",'fail':'open'}", "has no \"fail\""},
    {"{" MOUNT_MEMBERS ",'verdict':'observe'}", "has no \"verdict\""},
    {"{" NET_MEMBERS ",'path':'/x'}", "has no \"path\""},
    {"{" FILES_MEMBERS ",'device':'e'}", "has no \"device\""},
    {"{" FILES_MEMBERS ",'mode':'nat'}", "has no \"mode\""},
    {"{" NET_MEMBERS ",'size-limit':'2M'}", "has no \"size-limit\""},
    {"{" NET_MEMBERS ",'forward':'tcp:1-1.2.3.4:5'}", "need --mode nat"},
    {"{" NET_MEMBERS ",'lan':'br0'}", "need --mode nat"},
    {"{" NET_MEMBERS ",'mode':'nat','lan':'a/b'}", "is no name of a network device"},
    {"{" NET_MEMBERS ",'mode':'nat','lan':'sixteen-letters-'}", "is no name of a network device"},
    {"{" NET_MEMBERS ",'mode':'nat','forward':'tcp:1-1.2.3.4'}", ": not tcp:PORT-ADDR:PORT"},
    {"{" NET_MEMBERS ",'mode':'nat','forward':'tcp:0-1.2.3.4:5'}", ": not tcp:PORT-ADDR:PORT"},
    {"{" NET_MEMBERS ",'mode':'nat','forward':'tcp:65536-1.2.3.4:5'}", ": not tcp"},
    {"{" NET_MEMBERS ",'mode':'nat','forward':'sctp:1-1.2.3.4:5'}", ": not tcp"},
    {"{" NET_MEMBERS ",'mode':'nat','forward':'tcp:1-:5'}", ": not tcp"},
    {"{" NET_MEMBERS ",'time-limit':'5m'}", "not a time"},
    {"{" NET_MEMBERS ",'time-limit':'-1s'}", "not a time"},
    {"{" NET_MEMBERS ",'time-limit':'9ms'}", "10ms to 600s"},
    {"{" NET_MEMBERS ",'time-limit':'601s'}", "10ms to 600s"},
    {"{" NET_MEMBERS ",'time-limit':'99999999999999999999s'}", "10ms to 600s"},
    {"{" NET_MEMBERS ",'log':'loud'}", "\"log\" of"},
    {"{" NET_MEMBERS ",'verdict':'maybe'}", "none of enforce, observe"},
    {"{" NET_MEMBERS ",'fail':'safe'}", "none of open, closed"},
    {"{" NET_MEMBERS ",'device':7.5}", "a string is expected"},
    {"{" NET_MEMBERS ",'module':[7]}", "a list of strings is expected"},
    {"{" NET_MEMBERS ",'module':['a','a']}", "the same pair of network devices"},
    {"{" NET_MEMBERS ",'module':'p,port=3'}", "\"port\" is for"},
    {"{" NET_MEMBERS ",'module':'p,pair=4'}", "no partition has a pair 4"},
    {"{" NET_MEMBERS ",'module':'p,pair=x'}", "not a number"},
    {"{" NET_MEMBERS ",'module':'p,config='}", "empty"},
    {"{" NET_MEMBERS ",'module':',run=x'}", "empty"},
    {"{" NET_MEMBERS ",'module':['a','b','c','d','e','f','g','h','i']}", "more than 8 modules"},
    {"{" FILES_MEMBERS ",'module':'p,pair=1'}", "\"pair\" is for"},
    {"{" FILES_MEMBERS ",'infected':'quarantine'}", "go together"},
    {"{" FILES_MEMBERS ",'quarantine':'/q'}", "go together"},
    {"{" FILES_MEMBERS ",'size-limit':'big'}", "\"size-limit\" of"},
    {"{" MOUNT_MEMBERS ",'module':['a','b']}", "has one module"},
    {"{" MOUNT_MEMBERS ",'read-only':'yes'}", "true or false"},
    {"{" MOUNT_MEMBERS ",'part':'first'}", "\"part\""},
    {"{" MOUNT_MEMBERS ",'partition':'p'}", "an object is expected"},
    {"{" MOUNT_MEMBERS ",'partition':{'name':'p','colour':1}}", "\"colour\" is no key"},
    {"{" MOUNT_MEMBERS ",'partition':{'name':'q','kernel':'/I'}}", "not in the mount's own"},
};

static void bad_definitions_are_refused(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++) {
        struct interceptor_definition definition;
        struct error err = {0};
        // Of a key that is there twice, jansson takes the later one.
        json_t *given = parse(bad[i].text);
        int rc = interceptor_definition_from_json(&definition, given, &err);
        printf("%s\n", err.message);
        if (rc >= 0 || !strstr(err.message, bad[i].why))
            fail_msg("%s: %d, \"%s\", not \"%s\"", bad[i].text, rc, err.message, bad[i].why);
        json_decref(given);
    }
}

static void what_is_too_large_is_refused(void **unused)
{
    (void)unused;
    struct interceptor_definition definition;
    struct error err = {0};
    char *text = calloc(1, INTERCEPTOR_BYTES_MAX);
    memset(text, 'x', INTERCEPTOR_BYTES_MAX - 1);
    json_t *given = parse("{" NET_MEMBERS "}");
    json_object_set_new(given, "match", json_string(text));
    assert_int_equal(interceptor_definition_from_json(&definition, given, &err), -ERANGE);
    printf("%s\n", err.message);
    json_decref(given);
    free(text);
}

// ---- Views and states ---------------------------------------------------------------------------

static void views_come_back(void **unused)
{
    (void)unused;
    static const char *const views[] = {
        "{'name':'fw','state':'up','vsock':'/run/v','nets':[{'tap':'fw0','mac':"
        "'02:00:00:00:00:01'},{'mac':'02:00:00:00:00:ff'}]}",
        "{'name':'fw','state':'down','nets':[]}",
    };
    static const char *const none[] = {
        "{}",
        "[]",
        "{'name':'fw','nets':[]}",
        "{'name':'fw','state':'asleep','nets':[]}",
        "{'name':'fw','state':'up','nets':[{}]}",
        "{'name':'fw','state':'up','nets':[{'mac':'02:00:00:00:00'}]}",
        "{'name':'fw','state':'up','nets':[{'mac':'02:00:00:00:00:01x'}]}",
        "{'name':'fw','state':'up','nets':[{'mac':'02:00:00:00:00:01','tap':'0123456789abcdef'}]}",
        "{'name':'fw','state':'up','nets':[1,2,3,4,5,6,7,8,9]}",
    };
    struct partition_view view;
    for (size_t i = 0; i < BASE_COUNT_OF(views); i++) {
        json_t *given = parse(views[i]);
        assert_int_equal(partition_view_from_json(&view, given), 0);
        json_t *back = partition_view_to_json(&view);
        assert_true(json_equal(given, back));
        json_decref(back);
        json_decref(given);
    }
    for (size_t i = 0; i < BASE_COUNT_OF(none); i++) {
        printf("%s\n", none[i]);
        json_t *given = parse(none[i]);
        assert_int_equal(partition_view_from_json(&view, given), -EINVAL);
        json_decref(given);
    }
}

static void states_have_names(void **unused)
{
    (void)unused;
    for (enum interceptor_state state = 0; state < INTERCEPTOR_STATES; state++)
        assert_int_equal(interceptor_state_from_name(interceptor_state_name(state)), state);
    assert_int_equal(interceptor_state_from_name("gone"), INTERCEPTOR_STATES);
    assert_int_equal(interceptor_state_from_name(NULL), INTERCEPTOR_STATES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(definitions_come_back),
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(defaults_follow_from_the_kind),
        cmocka_unit_test(options_set_keys),
        cmocka_unit_test(paths_are_visited),
        cmocka_unit_test(bad_definitions_are_refused),
        cmocka_unit_test(what_is_too_large_is_refused),
        cmocka_unit_test(views_come_back),
        cmocka_unit_test(states_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
