// SPDX-License-Identifier: BSD-2-Clause
// A thread suspended in the middle of a change keeps no other from finishing. The room's sources
// are compiled into this program with each HANDLE_STEP a place where the victim thread can be
// stopped. Every operation is done once for each place that it passes; while the victim stands
// there, another thread does all that can be done to a table.
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <unistd.h>

static void step_reached(const char *name);
#define HANDLE_STEP(name) step_reached(name)
#include "../../src/handle/hierarchy.c"
#include "../../src/handle/reclaim.c"
#include "../../src/handle/table.c"
#include "../../src/handle/unused.c"
#include "handle_pin.h"
#include "unit.h"

enum { TYPE = 5, OTHERS = 700 };

struct scene;
typedef void act(struct scene *scene);

// What is done at each step: `before` by the one thread there is, then `act` by the victim.
struct operation {
    const char *name;
    uint32_t live;  // handles that there are before
    bool held;      // the last of them is acquired
    bool released;  // and released
    act *act;
};

struct scene {
    const struct operation *operation;
    struct handle_table *table;
    uint64_t *handles;  // operation->live of them, the last is the victim's
    uint64_t fresh;     // what the victim allocated
    unsigned stop_at;   // the number of the step at which the victim stops
    unsigned step;
    const char *stopped;  // the name of that step; NULL: the operation has fewer
    sem_t reached, go_on;
    int status;  // of a replace that meets a release
    void *old, *released;
};

static char objects[70000];
static _Thread_local struct scene *victim;  // set in the victim's thread only

static void step_reached(const char *name)
{
    struct scene *scene = victim;
    if (!scene || scene->step++ != scene->stop_at)
        return;
    scene->stopped = name;
    sem_post(&scene->reached);
    while (sem_wait(&scene->go_on) != 0)
        ;
}

// ---- What the victim does -----------------------------------------------------------------------

static uint64_t last_handle(const struct scene *scene)
{
    return scene->handles[scene->operation->live - 1];
}

static void act_alloc(struct scene *scene)
{
    assert_int_equal(handle_table_alloc(scene->table, objects, TYPE, &scene->fresh), 0);
}

static void act_release(struct scene *scene)
{
    assert_int_equal(handle_table_release(scene->table, last_handle(scene), TYPE, NULL), 0);
}

static void act_acquire(struct scene *scene)
{
    assert_non_null(handle_table_acquire(scene->table, last_handle(scene), TYPE));
}

static void act_put(struct scene *scene)
{
    assert_int_equal(handle_table_put(scene->table, last_handle(scene)), 0);
}

static void act_replace(struct scene *scene)
{
    void *old;
    assert_int_equal(
        handle_table_replace(scene->table, last_handle(scene), TYPE, objects + 1, &old), 0);
}

static void act_replace_contested(struct scene *scene)
{
    scene->status =
        handle_table_replace(scene->table, last_handle(scene), TYPE, objects + 60000, &scene->old);
}

static const struct operation operations[] = {
    {"alloc of the first handle", 0, false, false, act_alloc},
    {"alloc where there is room", 10, false, false, act_alloc},
    {"alloc that adds the second level", 256, false, false, act_alloc},
    {"alloc that adds a leaf", 512, false, false, act_alloc},
    {"alloc that adds the third level", 65536, false, false, act_alloc},
    {"release", 10, false, false, act_release},
    {"release of what is held", 10, true, false, act_release},
    {"acquire", 10, false, false, act_acquire},
    {"put", 10, true, false, act_put},
    {"put of what is released", 10, true, true, act_put},
    {"replace", 10, false, false, act_replace},
};

// ---- What another thread does meanwhile ---------------------------------------------------------

static int count_one(void *opaque, uint64_t handle, void *object)
{
    (void)handle, (void)object;
    ++*(uint32_t *)opaque;
    return 0;
}

// All handles but the victim's resolve; more can be allocated (through growth), acquired, replaced
// and released; what is stale stays so.
static void use_table(struct scene *scene)
{
    struct handle_table *table = scene->table;
    uint32_t steady = scene->operation->live ? scene->operation->live - 1 : 0, visited = 0;
    static uint64_t others[OTHERS];
    for (uint32_t i = 0; i < steady; i++)
        assert_ptr_equal(handle_table_resolve(table, scene->handles[i], TYPE), &objects[i]);
    for (unsigned i = 0; i < OTHERS; i++)
        assert_int_equal(handle_table_alloc(table, &objects[i], TYPE, &others[i]), 0);
    assert_int_equal(handle_table_for_each(table, count_one, &visited), 0);
    assert_in_range(visited, steady + OTHERS, steady + OTHERS + 2);
    for (unsigned i = 0; i < OTHERS; i++) {
        void *old = NULL;
        assert_ptr_equal(handle_table_acquire(table, others[i], TYPE), &objects[i]);
        assert_int_equal(handle_table_replace(table, others[i], TYPE, objects, &old), 0);
        assert_ptr_equal(old, &objects[i]);
        assert_ptr_equal(handle_table_resolve(table, others[i], TYPE), objects);
        assert_int_equal(handle_table_release(table, others[i], TYPE, NULL), 0);
        assert_int_equal(handle_table_put(table, others[i]), 0);
        assert_null(handle_table_resolve(table, others[i], TYPE));
    }
}

// ---- The scene ----------------------------------------------------------------------------------

static void scene_set(struct scene *scene, const struct operation *operation, unsigned stop_at)
{
    *scene = (struct scene){.operation = operation, .stop_at = stop_at};
    scene->handles = calloc(operation->live + 1, sizeof(*scene->handles));
    sem_init(&scene->reached, 0, 0);
    sem_init(&scene->go_on, 0, 0);
    assert_int_equal(handle_table_create(&scene->table, NULL), 0);
    for (uint32_t i = 0; i < operation->live; i++)
        assert_int_equal(handle_table_alloc(scene->table, &objects[i], TYPE, &scene->handles[i]),
                         0);
    if (operation->held)
        assert_non_null(handle_table_acquire(scene->table, last_handle(scene), TYPE));
    if (operation->released)
        assert_int_equal(handle_table_release(scene->table, last_handle(scene), TYPE, NULL), 0);
}

static void *victim_run(void *opaque)
{
    struct scene *scene = opaque;
    victim = scene;
    scene->operation->act(scene);
    if (!scene->stopped)
        sem_post(&scene->reached);
    return NULL;
}

static void check_end(const struct scene *scene)
{
    const struct operation *operation = scene->operation;
    uint32_t live = operation->live;
    if (operation->act == act_alloc) {
        live++;
        assert_ptr_equal(handle_table_resolve(scene->table, scene->fresh, TYPE), objects);
    }
    if ((operation->act == act_release && !operation->held) || operation->released)
        live--;
    struct handle_stats stats;
    handle_table_stats(scene->table, &stats);
    assert_int_equal(stats.live, live);
}

// Lets the victim begin, and another thread act when it stands at its step.
static void scene_play(struct scene *scene, act *meanwhile)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, victim_run, scene), 0);
    while (sem_wait(&scene->reached) != 0)
        ;
    if (scene->stopped) {
        meanwhile(scene);
        sem_post(&scene->go_on);
    }
    pthread_join(thread, NULL);
}

static void scene_end(struct scene *scene)
{
    handle_table_destroy(scene->table, NULL, NULL);
    free(scene->handles);
}

// Returns the name of the step at which the victim stood, or NULL when it passed fewer.
static const char *play(const struct operation *operation, unsigned stop_at)
{
    struct scene scene;
    scene_set(&scene, operation, stop_at);
    scene_play(&scene, use_table);
    check_end(&scene);
    scene_end(&scene);
    return scene.stopped;
}

static void others_finish_at_each_step(void **state)
{
    (void)state;
    unsigned places = 0;
    alarm(110);  // a thread that waits for the victim waits for ever
    for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        printf("%s:\n", operations[i].name);
        const char *name;
        unsigned stop_at = 0;
        for (; (name = play(&operations[i], stop_at)); stop_at++)
            printf("    stopped where %s: the others finished\n", name);
        assert_in_range(stop_at, 1, 20);
        places += stop_at;
    }
    alarm(0);
    assert_true(places >= 30);
    printf("%u places\n", places);
}

// ---- Replace and release of the same handle -----------------------------------------------------

static void act_release_contested(struct scene *scene)
{
    assert_int_equal(handle_table_release(scene->table, last_handle(scene), TYPE, &scene->released),
                     0);
}

// Either the replacement came first, and was released; or it failed. So each object has one owner.
static void replace_and_release_agree(void **state)
{
    (void)state;
    alarm(110);
    for (unsigned held = 0; held < 2; held++) {
        const struct operation contested = {"replace", 10, held, false, act_replace_contested};
        struct scene scene;
        unsigned stop_at = 0;
        for (;; stop_at++) {
            scene_set(&scene, &contested, stop_at);
            scene_play(&scene, act_release_contested);
            scene_end(&scene);
            if (!scene.stopped)
                break;
            printf("released while a replace stopped where %s: %s\n", scene.stopped,
                   scene.status ? "it failed" : "the new object was released");
            const char *last = &objects[contested.live - 1];
            assert_int_equal(scene.status, scene.released == last ? -ENOENT : 0);
            assert_ptr_equal(scene.old, scene.status ? NULL : last);
            assert_ptr_equal(scene.released, scene.status ? last : objects + 60000);
        }
        assert_in_range(stop_at, 1, 20);
        assert_int_equal(scene.status, 0);
    }
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(others_finish_at_each_step),
                                       cmocka_unit_test(replace_and_release_agree)};
    return cmocka_run_group_tests(tests, handle_pin, NULL);
}
