// SPDX-License-Identifier: BSD-2-Clause
// The engine: one block at a time, first translated code on copies of memory, then the interpreter
// on memory itself, with all it does recorded. README.md says why that is enough.
#include "verify/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "verify/internal.h"

// ---- Running either side

// Executes a block of translated code under `tap`. What asks for attention meanwhile waits: a block
// that is left at its entry would be no progress. False: nothing more may be executed for now.
static bool run_translated(struct hart *hart, struct verify *verify, const struct hart_tap *tap)
{
    const struct hart_engine *engine = hart->engine;
    uint64_t position = verify_position(hart);
    unsigned held = 0;

    hart->tap = tap;
    hart->engine = &verify->jit_engine;
    hart->engine_state = verify->jit;
    hart->trap_cause = 0;
    do {
        held |= atomic_exchange(&hart->attention, 0);
        verify->run_block(hart, verify->jit);
    } while (verify_position(hart) == position && hart->trap_cause != HART_CAUSE_LEAVE &&
             atomic_load(&hart->attention));
    hart->engine = engine;
    hart->engine_state = verify;
    hart->tap = &verify_tap_none;
    held |= atomic_fetch_or(&hart->attention, held);
    return !held && verify_position(hart) != position;
}

// One instruction of the interpreter, for good. An atomic is repeated until no other hart was
// quicker.
static void record_step(struct hart *hart, struct verify *verify)
{
    unsigned recorded = verify->recorded;

    hart_state_save(hart, &verify->step);
    hart->tap = &verify_tap_record;
    verify->stepping = true;
    hart_engine_interp.step(hart, verify->interp);
    while (!verify_cell_store(verify)) {
        verify->recorded = recorded;
        hart_state_restore(hart, &verify->step);
        hart_engine_interp.step(hart, verify->interp);
    }
    verify->stepping = false;
    hart->tap = &verify_tap_none;
}

// The interpreter, for good, until it has come to `position` or a little further, or the journal is
// full.
static void record_until(struct hart *hart, struct verify *verify, uint64_t position)
{
    while (verify_position(hart) < position && !verify_journal_full(verify)) {
        uint64_t before = verify_position(hart);

        hart->tap = &verify_tap_record;
        hart_interp_block(hart, verify->interp);
        hart->tap = &verify_tap_none;
        if (verify_position(hart) == before)
            record_step(hart, verify);
    }
}

bool verify_interp_replay_step(struct hart *hart, struct verify *verify)
{
    uint64_t position = verify_position(hart);

    hart->tap = &verify_tap_replay;
    hart_engine_interp.step(hart, verify->interp);
    hart->tap = &verify_tap_none;
    verify_cell_check(verify);
    return verify_position(hart) != position && !verify->differs;
}

// ---- Comparing

// Translated code on copies, until it has come to `position` or cannot go on there.
static void run_on_copies(struct hart *hart, struct verify *verify, uint64_t position)
{
    verify->cut = false;
    while (run_translated(hart, verify, &verify_tap_copies) && !verify->cut &&
           verify_position(hart) < position)
        verify->stats.blocks++;
    verify->stats.blocks++;
}

// From `start`, where the hart is. Now and then once more with all pages in the TLB that were used
// the first time, so that every way to memory is taken.
static void translate_on_copies(struct hart *hart, struct verify *verify, uint64_t position)
{
    run_on_copies(hart, verify, position);
    if (verify->page_count && verify->stats.runs % verify->warm_one_in == 0) {
        hart_state_restore(hart, &verify->start);
        verify_copies_again(verify);
        run_on_copies(hart, verify, position);
    }
    verify_copies_hide(verify);
    hart_state_save(hart, &verify->translated);
}

static bool same_states(const struct verify *verify)
{
    return hart_state_same(hart_state_view(&verify->translated),
                           hart_state_view(&verify->reference));
}

// Translated code from `start` with the journal for its outside world. The two may stop at
// different places: whoever is behind goes on. True: they come to the same.
static bool replay_agrees(struct hart *hart, struct verify *verify)
{
    const struct hart *translated = hart_state_view(&verify->translated);
    const struct hart *reference = hart_state_view(&verify->reference);

    verify->translated = verify->start;
    verify->replayed = 0;
    verify->differs = false;
    while (verify_position(translated) != verify_position(reference)) {
        uint64_t position = verify_position(translated);

        if (position > verify_position(reference)) {
            hart_state_restore(hart, &verify->reference);
            record_until(hart, verify, position);
            hart_state_save(hart, &verify->reference);
            continue;
        }
        hart_state_restore(hart, &verify->translated);
        run_translated(hart, verify, &verify_tap_replay);
        verify_cell_check(verify);
        hart_state_save(hart, &verify->translated);
        if (verify->differs || verify_position(translated) == position)
            return false;
    }
    return verify->replayed == verify->recorded && same_states(verify);
}

// Translated code from `start` on copies of memory as the interpreter saw it. Where that cannot be
// made, because it changed meanwhile, or where translated code comes further, it is replayed.
static bool copies_agree(struct hart *hart, struct verify *verify)
{
    uint64_t position = verify_position(hart_state_view(&verify->reference));

    hart_state_restore(hart, &verify->start);
    if (!verify_copies_rewind(hart, verify))
        return replay_agrees(hart, verify);
    translate_on_copies(hart, verify, position);
    if (verify_position(hart) != position)
        return replay_agrees(hart, verify);
    return same_states(verify) && verify_copies_match(verify);
}

// The interpreter from `start` to `position`, with what it did itself for its outside world. False:
// it does something else.
static bool replay_interp(struct hart *hart, struct verify *verify, uint64_t position)
{
    hart_state_restore(hart, &verify->start);
    verify->replayed = 0;
    verify->differs = false;
    while (verify_position(hart) < position)
        if (!verify_interp_replay_step(hart, verify))
            return false;
    return true;
}

// Whether the interpreter comes to `reference` again when it decodes its code anew. If not, the
// guest's code was changed without a fence.i of this hart, and either is right.
static bool reproducible(struct hart *hart, struct verify *verify)
{
    const struct hart *reference = hart_state_view(&verify->reference);

    hart->engine->fence_i(hart, verify);
    return replay_interp(hart, verify, verify_position(reference)) &&
           hart_state_same(hart, reference);
}

// Compares some blocks, or less than one. Afterwards the hart is where the interpreter came to.
static bool compare(struct hart *hart, struct verify *verify)
{
    const struct hart *translated = hart_state_view(&verify->translated);
    uint64_t position = verify_position(hart);
    bool good;

    verify->stats.runs++;
    verify_journal_reset(verify);
    verify_copies_reset(verify);
    hart_state_save(hart, &verify->start);
    translate_on_copies(hart, verify, position + verify->batch);
    hart_state_restore(hart, &verify->start);
    if (verify_position(translated) == position)
        record_step(hart, verify);
    else
        record_until(hart, verify, verify_position(translated));
    if (!verify->outside && hart_state_same(hart, translated) && verify_copies_match(verify))
        return true;

    hart_state_save(hart, &verify->reference);
    if (verify->outside || verify_position(hart) > verify_position(translated)) {
        verify->stats.replays++;
        good = replay_agrees(hart, verify);
    } else {
        verify->stats.races++;
        good = copies_agree(hart, verify);
    }
    if (!good && !reproducible(hart, verify)) {
        verify->stats.unstable++;
        good = true;
    }
    hart_state_restore(hart, &verify->reference);
    return good;
}

// ---- A difference

// The interpreter from `start`, from the journal, until it takes a jump or an exception, or comes
// to `end`.
static void replay_interp_block(struct hart *hart, struct verify *verify, uint64_t end)
{
    uint64_t pc;

    hart_state_restore(hart, &verify->start);
    verify->replayed = 0;
    verify->differs = false;
    do
        pc = hart->pc;
    while (verify_position(hart) < end && verify_interp_replay_step(hart, verify) &&
           hart->pc - pc - 1 < 4);
}

// Whether one block of translated code from `start` agrees with the interpreter, either way. Sets
// `reference` to where the interpreter is then, and `recorded` to how much of the journal that
// took.
static bool block_agrees(struct hart *hart, struct verify *verify, uint64_t end)
{
    uint64_t start = verify_position(hart_state_view(&verify->start)), position;

    hart_state_restore(hart, &verify->start);
    verify->replayed = 0;
    verify->differs = false;
    run_translated(hart, verify, &verify_tap_replay);
    verify_cell_check(verify);
    position = verify_position(hart);
    if (verify->differs || position == start || position > end ||
        !replay_interp(hart, verify, position))
        replay_interp_block(hart, verify, end);
    hart_state_save(hart, &verify->reference);
    verify->recorded = verify->replayed;
    return position != start && replay_agrees(hart, verify) && copies_agree(hart, verify);
}

// Moves `start` on to the block that makes the difference.
static void narrow(struct hart *hart, struct verify *verify)
{
    uint64_t end = verify_position(hart_state_view(&verify->reference));
    unsigned left = verify->recorded;

    while (verify_position(hart_state_view(&verify->start)) < end &&
           block_agrees(hart, verify, end)) {
        verify->start = verify->reference;
        left -= verify->recorded;
        memmove(verify->journal, verify->journal + verify->recorded,
                left * sizeof(verify->journal[0]));
        verify->recorded = left;
    }
}

static void fail(struct hart *hart, struct verify *verify)
{
    struct hart_state reference = verify->reference;

    narrow(hart, verify);
    verify->on_copies = replay_agrees(hart, verify);
    if (verify->on_copies)
        copies_agree(hart, verify);
    verify_report_write(hart, verify);
    if (verify->report)
        log_text(verify->report, strlen(verify->report));
    hart_state_restore(hart, &reference);
    atomic_fetch_or(&hart->attention, HART_ATTENTION_FAIL);
}

// ---- The engine

static void log_stats(const struct hart *hart, const struct verify_stats *stats)
{
    log_line(LOG_INFO,
             "hart %u: verified %" PRIu64 " blocks, %" PRIu64 " instructions, in %" PRIu64
             " comparisons (%" PRIu64 " replayed, %" PRIu64 " raced, %" PRIu64 " unstable)",
             hart->id, stats->blocks, stats->instructions, stats->runs, stats->replays,
             stats->races, stats->unstable);
}

static void destroy(struct hart *hart, void *state)
{
    struct verify *verify = state;

    log_stats(hart, &verify->stats);
    if (verify->interp)
        hart_engine_interp.destroy(hart, verify->interp);
    if (verify->jit)
        verify->jit_engine.destroy(hart, verify->jit);
    hart->tap = NULL;
    free(verify->copies);
    free(verify->report);
    free(verify);
}

static int create_pages(struct verify *verify)
{
    verify->copies = aligned_alloc(MEMORY_PAGE_BYTES, 3 * VERIFY_PAGES * MEMORY_PAGE_BYTES);
    if (!verify->copies)
        return -ENOMEM;
    for (size_t i = 0; i < VERIFY_PAGES; i++) {
        uint8_t *three = verify->copies + 3 * i * MEMORY_PAGE_BYTES;
        verify->pages[i] = (struct verify_page){.copy = three,
                                                .before = three + MEMORY_PAGE_BYTES,
                                                .after = three + 2 * MEMORY_PAGE_BYTES};
    }
    return 0;
}

static int create_engines(struct hart *hart, struct verify *verify)
{
    const struct hart_engine *engine = hart->engine;
    int status = hart_engine_interp.create(hart, &verify->interp);

    if (status)
        return status;
    if (engine->options)
        verify->jit_options = *(const struct jit_options *)engine->options;
    verify->jit_options.alone = true;
    verify->run_block = jit_run_block;
    verify->jit_engine = hart_engine_jit;
    verify->jit_engine.options = &verify->jit_options;
    hart->engine = &verify->jit_engine;
    status = verify->jit_engine.create(hart, &verify->jit);
    hart->engine = engine;
    return status;
}

static int create(struct hart *hart, void **state)
{
    struct verify *verify = calloc(1, sizeof(*verify));
    int status;

    if (!verify)
        return -ENOMEM;
    verify->generation = 1;
    verify->batch = VERIFY_BATCH;
    verify->warm_one_in = VERIFY_WARM_ONE_IN;
    status = create_pages(verify);
    if (!status)
        status = create_engines(hart, verify);
    if (status) {
        destroy(hart, verify);
        return status;
    }
    hart->tap = &verify_tap_none;
    hart->tap_state = verify;
    *state = verify;
    return 0;
}

static void run(struct hart *hart, void *state)
{
    struct verify *verify = state;

    if (hart->breakpoint_count) {
        hart_engine_interp.run(hart, verify->interp);
        return;
    }
    while (!atomic_load_explicit(&hart->attention, memory_order_relaxed)) {
        uint64_t position = verify_position(hart);

        if (!compare(hart, verify))
            fail(hart, verify);
        verify->stats.instructions += verify_position(hart) - position;
    }
}

static void step(struct hart *hart, void *state)
{
    hart_engine_interp.step(hart, ((struct verify *)state)->interp);
}

static void fence_i(struct hart *hart, void *state)
{
    struct verify *verify = state;

    hart_engine_interp.fence_i(hart, verify->interp);
    verify->jit_engine.fence_i(hart, verify->jit);
}

static void flush_translations(struct hart *hart, void *state, const struct hart_flush *flush)
{
    struct verify *verify = state;

    verify->generation++;
    hart_engine_interp.flush_translations(hart, verify->interp, flush);
    verify->jit_engine.flush_translations(hart, verify->jit, flush);
}

static void breakpoints_changed(struct hart *hart, void *state)
{
    struct verify *verify = state;

    hart_engine_interp.breakpoints_changed(hart, verify->interp);
    verify->jit_engine.breakpoints_changed(hart, verify->jit);
}

void verify_stats(const void *state, struct verify_stats *stats)
{
    *stats = ((const struct verify *)state)->stats;
}

const char *verify_report(const void *state)
{
    return ((const struct verify *)state)->report;
}

const struct hart_engine hart_engine_verify = {
    .name = "verify",
    .create = create,
    .destroy = destroy,
    .run = run,
    .step = step,
    .fence_i = fence_i,
    .flush_translations = flush_translations,
    .breakpoints_changed = breakpoints_changed,
};
