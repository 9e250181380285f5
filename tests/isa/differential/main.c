// SPDX-License-Identifier: BSD-2-Clause
// isa-differential: random programs on an engine and on qemu-riscv64, until enough instructions
// were executed and compared, or a difference is found.
#include "differential.h"
#include "jit/jit.h"
#include "verify/verify.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Engines, for --engine.
static const struct hart_engine *const engines[] = {&hart_engine_interp, &hart_engine_jit,
                                                    &hart_engine_verify};

struct options {
    uint64_t instructions;
    uint64_t seed;
    unsigned turns;
    const struct hart_engine *engine;
};

static int usage(void)
{
    fprintf(stderr, "usage: isa-differential [--instructions N] [--seed S] [--turns N] "
                    "[--engine ENGINE]\n"
                    "  --instructions  how many to execute and compare (200000)\n"
                    "  --seed          the first program's; each next one adds 1 (1)\n"
                    "  --turns         the most that a loop may turn, 1 to 2000 (8)\n"
                    "  --engine        ours: interp (unless given) or jit\n");
    return 2;
}

static const struct hart_engine *find_engine(const char *name)
{
    for (size_t i = 0; i < BASE_COUNT_OF(engines); i++)
        if (!strcmp(engines[i]->name, name))
            return engines[i];
    return NULL;
}

static bool parse(int argc, char **argv, struct options *options)
{
    static const struct option table[] = {{"instructions", required_argument, NULL, 'i'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"turns", required_argument, NULL, 't'},
                                          {"engine", required_argument, NULL, 'e'},
                                          {0}};
    int c;

    *options = (struct options){
        .instructions = 200000, .seed = 1, .turns = 8, .engine = &hart_engine_interp};
    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (c == 'i')
            options->instructions = strtoull(optarg, NULL, 0);
        else if (c == 's')
            options->seed = strtoull(optarg, NULL, 0);
        else if (c == 't')
            options->turns = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'e')
            options->engine = find_engine(optarg);
        else
            return false;
    }
    return optind == argc && options->engine && options->turns >= 1 && options->turns <= 2000;
}

// A form of the table that the generator does not know, and that nobody excused.
static unsigned report_unknown_forms(void)
{
    unsigned count = 0;

    for (unsigned form = ISA_FORM_ILLEGAL + 1; form < ISA_FORM_COUNT; form++) {
        if (!program_exclusion(form) && !program_can_use(form)) {
            printf("%s is neither covered nor excluded\n", isa_form_mnemonic(form));
            count++;
        }
    }
    return count;
}

static unsigned report_coverage(const struct coverage *coverage)
{
    unsigned covered = 0, missing = 0;

    for (unsigned form = ISA_FORM_ILLEGAL + 1; form < ISA_FORM_COUNT; form++) {
        const char *why = program_exclusion(form);

        if (why)
            printf("left out: %s (%s)\n", isa_form_mnemonic(form), why);
        else if (coverage->forms[form])
            covered++;
        else
            missing++, printf("in no program: %s\n", isa_form_mnemonic(form));
    }
    printf("%u forms of the instruction table were in programs\n", covered);
    return missing;
}

// What the program's chunks executed: not what loads and checks its state.
static uint64_t executed(const struct program *program, const struct outcome *ours)
{
    return ours->verdict.instructions - program->entry_instructions - program->exit_instructions -
           ours->count * program->checkpoint_instructions;
}

static int run(const struct options *options, struct program *program)
{
    struct coverage coverage = {0};
    uint64_t instructions = 0, programs = 0, states = 0;

    while (instructions < options->instructions) {
        struct outcome ours, qemu;

        program_generate(program, options->seed + programs, options->turns, &coverage);
        const int ret = run_both(program, options->engine, 60, &ours, &qemu);
        if (ret) {
            fprintf(stderr, "isa-differential: cannot run the programs: %s\n", strerror(-ret));
            return 1;
        }
        if (!outcome_same(&ours, &qemu)) {
            report_difference(program, options->engine, &ours, &qemu);
            printf("Again: isa-differential --instructions 1 --turns %u --engine %s --seed %" PRIu64
                   "\n",
                   options->turns, options->engine->name, program->seed);
            outcome_free(&ours);
            outcome_free(&qemu);
            return 1;
        }
        programs++;
        states += ours.count;
        instructions += executed(program, &ours);
        outcome_free(&ours);
        outcome_free(&qemu);
    }
    // A few programs hold every form many times; one alone need not.
    if (report_coverage(&coverage) && programs >= 4)
        return 1;
    printf("%" PRIu64 " instructions executed and compared with qemu-riscv64 (engine %s, %" PRIu64
           " programs, %" PRIu64 " states, seeds from %" PRIu64 "): no difference\n",
           instructions, options->engine->name, programs, states, options->seed);
    return 0;
}

int main(int argc, char **argv)
{
    struct options options;

    if (!parse(argc, argv, &options))
        return usage();
    if (report_unknown_forms())
        return 1;
    struct program *program = malloc(sizeof(*program));
    const int status = program ? run(&options, program) : 1;
    free(program);
    return status;
}
