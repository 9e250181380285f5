// SPDX-License-Identifier: BSD-2-Clause
// Every fuzz target is a libFuzzer target. Built with STRAKE_FUZZ_REPLAY, and without libFuzzer, it
// is a program that any compiler can build:
//
//     NAME [FILE | FOLDER]... [--random COUNT] [--seed SEED] [--bytes MAX]
//
// replays the inputs given and then COUNT generated ones of at most MAX bytes, the same for the
// same seed. An input that crashes it is saved as NAME-SEED-INDEX.bin.
#ifndef STRAKE_TESTS_FUZZ_REPLAY_H
#define STRAKE_TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#ifdef STRAKE_FUZZ_REPLAY

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPLAY_BYTES_MAX 65536u

// What runs now, for the signal handler that saves it.
static struct {
    const char *name;
    const uint8_t *bytes;
    size_t count;
    unsigned long seed, index;
} replay_current;

static void replay_save(int signal)
{
    char path[512];

    snprintf(path, sizeof(path), "%s-%lu-%lu.bin", replay_current.name, replay_current.seed,
             replay_current.index);
    FILE *file = fopen(path, "wb");
    if (file) {
        fwrite(replay_current.bytes, 1, replay_current.count, file);
        fclose(file);
        fprintf(stderr, "input saved as %s\n", path);
    }
    raise(signal);  // whose handler is the default again: SA_RESETHAND
}

static void replay_run(const uint8_t *bytes, size_t count)
{
    replay_current.bytes = bytes;
    replay_current.count = count;
    LLVMFuzzerTestOneInput(bytes, count);
    replay_current.index++;
}

static bool replay_file(const char *path)
{
    static uint8_t bytes[REPLAY_BYTES_MAX];
    FILE *file = fopen(path, "rb");

    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    size_t count = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    replay_run(bytes, count);
    return true;
}

static bool replay_path(const char *path)
{
    struct stat status;
    struct dirent **entries;
    bool ok = true;

    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        return replay_file(path);
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char inner[4096];
        snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            ok &= replay_file(inner);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return ok && count >= 0;
}

// xorshift64*
static uint64_t replay_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

static void replay_generated(unsigned long count, unsigned long seed, size_t max)
{
    static uint8_t bytes[REPLAY_BYTES_MAX];
    uint64_t state = seed * 0x9e3779b97f4a7c15ull | 1;

    for (unsigned long i = 0; i < count; i++) {
        size_t length = replay_random(&state) % (max + 1);
        for (size_t j = 0; j < length; j++)
            bytes[j] = (uint8_t)(replay_random(&state) >> 32);
        replay_run(bytes, length);
    }
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
    const struct sigaction save = {.sa_handler = replay_save, .sa_flags = (int)SA_RESETHAND};
    unsigned long count = 0, max = 2048;
    bool ok = true;

    replay_current.name = argv[0];
    replay_current.seed = 1;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &save, NULL);
    for (int i = 1; i < argc; i++) {
        unsigned long *option = strcmp(argv[i], "--random") == 0  ? &count
                                : strcmp(argv[i], "--seed") == 0  ? &replay_current.seed
                                : strcmp(argv[i], "--bytes") == 0 ? &max
                                                                  : NULL;
        if (option && i + 1 < argc)
            *option = strtoul(argv[++i], NULL, 0);
        else
            ok &= replay_path(argv[i]);
    }
    unsigned long replayed = replay_current.index;
    replay_current.index = 0;
    replay_generated(count, replay_current.seed, max < REPLAY_BYTES_MAX ? max : REPLAY_BYTES_MAX);
    printf("%lu inputs replayed, %lu generated (seed %lu)\n", replayed, count, replay_current.seed);
    return ok ? 0 : 1;
}

#endif
#endif
