// SPDX-License-Identifier: BSD-2-Clause
// The engine: the dispatcher between translated blocks, and what the hart asks of an engine.
#include "jit/jit.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

#include "jit/disasm.h"
#include "jit/helpers.h"

static inline bool wanted(const struct hart *hart)
{
    return atomic_load_explicit(&hart->attention, memory_order_relaxed) != 0;
}

// ---- The engine

static unsigned cpu_features(void)
{
    unsigned a, b, c, d, features = 0;

    if (__get_cpuid(0x80000001, &a, &b, &c, &d) && c & bit_LZCNT)
        features |= JIT_CPU_LZCNT;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_BMI)
        features |= JIT_CPU_TZCNT;
    if (__get_cpuid(1, &a, &b, &c, &d) && c & bit_POPCNT)
        features |= JIT_CPU_POPCNT;
    if (__builtin_cpu_supports("aes"))
        features |= JIT_CPU_AES;
    if (__builtin_cpu_supports("pclmul"))
        features |= JIT_CPU_CLMUL;
    if (__builtin_cpu_supports("bmi2"))
        features |= JIT_CPU_BMI2;
    if (__builtin_cpu_supports("fma"))  // looks at the operating system too
        features |= JIT_CPU_FMA;
    return features;
}

static void destroy(struct hart *hart, void *state)
{
    struct jit *jit = state;

    jit_windows_destroy(jit);
    jit_faults_destroy(jit);
    free(jit->listing);
    hart_engine_interp.destroy(hart, jit->interp);
    jit_memory_destroy(jit);
}

// How translated code reaches memory.
static int create_windows(const struct hart *hart, struct jit *jit,
                          const struct jit_options *options)
{
    jit->flat = hart->flat;
    jit->check = hart->check;
    if (jit->check) {
        jit->entries = jit->check->identifiers->entries;
        jit->granules = jit->check->identifiers->bytes / MEMORY_GRANULE_BYTES;
    }
    if (jit->flat)
        return jit_flat_create(jit);
    if (!jit->check && !options->alone && !options->no_windows)
        jit_windows_create(jit, options);
    return 0;
}

static int create(struct hart *hart, void **state)
{
    static const struct jit_options usual;
    const struct jit_options *options = hart->engine->options ? hart->engine->options : &usual;
    size_t code_bytes = options->code_bytes ? options->code_bytes : JIT_CODE_BYTES;
    struct jit *jit;
    int status;

    if (code_bytes < JIT_CODE_BYTES_MIN || code_bytes > JIT_CODE_BYTES_MAX)
        return -EINVAL;
    status = jit_memory_create(&jit, code_bytes, options->perf_map);
    if (status)
        return status;
    status = hart_engine_interp.create(hart, &jit->interp);
    if (status) {
        jit_memory_destroy(jit);
        return status;
    }
    status = create_windows(hart, jit, options);
    if (!status && options->log && !(jit->listing = jit_listing_create()))
        status = -ENOMEM;
    if (status) {
        destroy(hart, jit);
        return status;
    }
    jit->counting = options->count;
    jit->cpu = cpu_features();
    jit->alone = options->alone;
    jit_fp_init(jit);
    jit_cache_init(jit);
    jit_thunks_emit(jit);
    jit_jumps_init(jit);
    jit->perf_map = options->perf_map;
    if (jit->perf_map)
        jit_perf_map_thunks(jit);
    *state = jit;
    return 0;
}

// `left`: how translated code came to hart->pc, where `block` is. Makes that way shorter.
static void note_way(const struct hart *hart, struct jit *jit, struct jit_link *left,
                     struct jit_block *block)
{
    if (jit->alone)
        return;
    if (left)
        jit_cache_link(jit, left, block);
    else
        jit_jumps_note(jit, hart->pc, block);
}

static struct jit_link *enter(struct hart *hart, struct jit *jit, const uint8_t *code)
{
    struct jit_link *left;

    hart->pc -= JIT_PAGE_OFFSET(hart->pc);
    jit->stats.dispatches++;
    if (jit->windows && jit_variant(hart, jit) & JIT_WINDOW)
        jit_windows_select(hart, jit);
    left = jit->thunks.enter(hart, code);
    if (jit->counting)
        jit_count_exit(hart, jit, left);
    return left;
}

// The interpreter is seldom asked: only then is it told that translations changed.
static void catch_up(struct hart *hart, struct jit *jit)
{
    static const struct hart_flush all = {.scope = HART_FLUSH_ALL};

    if (jit->interp_behind)
        hart_engine_interp.flush_translations(hart, jit->interp, &all);
    jit->interp_behind = false;
}

static void step(struct hart *hart, void *state)
{
    struct jit *jit = state;

    catch_up(hart, jit);
    jit_fp_leave(hart, jit);
    hart_engine_interp.step(hart, jit->interp);
}

// Executes translated code from hart->pc, which it came to as `left` says, until it leaves; returns
// the link that it left by.
static struct jit_link *find_and_enter(struct hart *hart, struct jit *jit, struct jit_link *left)
{
    uint64_t drops = jit->stats.drops;
    struct jit_block *block;

    if (!jit_cache_find(hart, jit, &block)) {
        take_pending(hart);
        return NULL;
    }
    if (!block) {
        step(hart, jit);
        return NULL;
    }
    note_way(hart, jit, jit->stats.drops == drops ? left : NULL, block);
    return enter(hart, jit, block->body);
}

// As find_and_enter, by the jump cache if that has hart->pc.
static struct jit_link *execute(struct hart *hart, struct jit *jit, struct jit_link *left)
{
    const struct jit_jump *jump;

    if (jit_is_foreign(hart)) {
        step(hart, jit);
        return NULL;
    }
    jit_jumps_choose(hart, jit);
    jump = &jit->jumps[JIT_JUMP_INDEX(hart->pc)];
    if (!left && jump->pc == hart->pc)
        return enter(hart, jit, jump->entry);
    return find_and_enter(hart, jit, left);
}

static void run(struct hart *hart, void *state)
{
    struct jit *jit = state;
    struct jit_link *left = NULL;

    if (hart->breakpoint_count) {
        catch_up(hart, jit);
        hart_engine_interp.run(hart, jit->interp);
        return;
    }
    jit_warm_settle(hart, jit);
    if (jit->flat)
        jit_flat_enter(jit);
    else
        jit_windows_enter(hart, jit);
    while (!wanted(hart))
        left = execute(hart, jit, left);
    jit_fp_leave(hart, jit);
    jit_faults_leave();
}

void jit_run_block(struct hart *hart, void *state)
{
    struct jit *jit = state;

    execute(hart, jit, NULL);
    jit_fp_leave(hart, jit);
}

void jit_print_block(struct hart *hart, void *state, FILE *out)
{
    struct jit_block *block;

    if (jit_cache_find(hart, state, &block) && block)
        jit_disasm_host(out, block->entry, block->code_bytes, (uintptr_t)block->entry);
}

static void fence_i(struct hart *hart, void *state)
{
    struct jit *jit = state;

    jit->epoch++;
    jit->generation++;
    jit_cache_unlink(jit);
    jit_jumps_forget(jit);
    hart_engine_interp.fence_i(hart, jit->interp);
}

static void flush_translations(struct hart *hart, void *state, const struct hart_flush *flush)
{
    struct jit *jit = state;

    jit->generation++;
    jit->interp_behind = true;
    jit_jumps_flush(jit, flush);
    jit_windows_flush(hart, jit, flush);
}

static void breakpoints_changed(struct hart *hart, void *state)
{
    struct jit *jit = state;

    hart_engine_interp.breakpoints_changed(hart, jit->interp);
}

void jit_stats(const void *state, struct jit_stats *stats)
{
    const struct jit *jit = state;

    *stats = jit->stats;
    stats->code_bytes = jit->thunks_bytes;
    for (unsigned i = 0; i < jit->part_count; i++)
        stats->code_bytes += jit->parts[i].code_used - jit->parts[i].code_first;
    stats->code_bytes_bound = jit->code_bytes;
}

const struct hart_engine hart_engine_jit = {
    .name = "jit",
    .create = create,
    .destroy = destroy,
    .run = run,
    .step = step,
    .fence_i = fence_i,
    .flush_translations = flush_translations,
    .breakpoints_changed = breakpoints_changed,
    .hot = jit_warm_hot,
    .warm = jit_warm_warm,
    .settle = jit_warm_settle,
    .forked = jit_flat_forked,
};
