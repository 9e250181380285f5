// SPDX-License-Identifier: BSD-2-Clause
// What every fuzz target includes, once. A target is one function over bytes,
// LLVMFuzzerTestOneInput, that does the same each time it is given the same bytes and that aborts
// when a promise is broken. With libFuzzer (FUZZ_LIBFUZZER is defined) that is all; without it,
// this header adds a main that anyone can run:
//
//     fuzz-TARGET [--random N] [--seed S] [FILE or FOLDER]...
//
// It replays the files, in the order of their names, then N inputs that are random or made from the
// files by a few random changes. When an input crashes, the number printed last and the seed give
// it again: `--only I` runs just the random input number I, `--save FILE` writes it there before.
#ifndef STRAKE_TESTS_FUZZ_REPLAY_H
#define STRAKE_TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#ifndef FUZZ_LIBFUZZER

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPLAY_BYTES_MAX 4096u
#define REPLAY_FILES_MAX 4096u
#define REPLAY_SECONDS 60u

struct replay_input {
    uint8_t *bytes;
    size_t count;
};

struct replay {
    struct replay_input files[REPLAY_FILES_MAX];
    const char *names[REPLAY_FILES_MAX];
    size_t file_count;
    unsigned long long random_count, seed, only;  // only: ULLONG_MAX for all
    const char *save;                             // NULL: nowhere
    uint64_t random;
    unsigned long long *reached;  // files, then random inputs; shared with the parent
};

// xorshift64*: the same numbers on every machine.
static uint64_t replay_random(struct replay *replay, uint64_t below)
{
    replay->random ^= replay->random >> 12;
    replay->random ^= replay->random << 25;
    replay->random ^= replay->random >> 27;
    return (replay->random * 0x2545f4914f6cdd1dull >> 32) % below;
}

static void replay_load(struct replay *replay, const char *path)
{
    FILE *file = fopen(path, "rb");
    struct replay_input input = {.bytes = malloc(1 << 20)};

    if (!file || !input.bytes || replay->file_count == REPLAY_FILES_MAX) {
        fprintf(stderr, "cannot read '%s'\n", path);
        exit(1);
    }
    input.count = fread(input.bytes, 1, 1 << 20, file);
    fclose(file);
    replay->names[replay->file_count] = strdup(path);
    replay->files[replay->file_count++] = input;
}

static void replay_add(struct replay *replay, const char *path)
{
    struct dirent **entries;
    struct stat status;

    if (stat(path, &status) || !S_ISDIR(status.st_mode)) {
        replay_load(replay, path);
        return;
    }
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char inside[PATH_MAX];
        snprintf(inside, sizeof(inside), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            replay_load(replay, inside);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

// Fresh bytes, or a file with some of its bytes changed, moved or cut off.
static size_t replay_make(struct replay *replay, uint8_t *bytes)
{
    size_t count = replay_random(replay, REPLAY_BYTES_MAX);

    if (replay->file_count == 0 || replay_random(replay, 2) == 0) {
        for (size_t i = 0; i < count; i++)
            bytes[i] = (uint8_t)replay_random(replay, 256);
        return count;
    }
    const struct replay_input *file = &replay->files[replay_random(replay, replay->file_count)];
    count = file->count < REPLAY_BYTES_MAX ? file->count : REPLAY_BYTES_MAX;
    memcpy(bytes, file->bytes, count);
    for (uint64_t changes = count ? 1 + replay_random(replay, 16) : 0; changes > 0; changes--) {
        size_t at = replay_random(replay, count), from = replay_random(replay, count);
        size_t run = 1 + replay_random(replay, count - (at > from ? at : from));
        switch (replay_random(replay, 8)) {
        case 0:
            memmove(bytes + at, bytes + from, run);
            break;
        case 1:
            count = at + 1;
            break;
        case 2:
            bytes[at] += (uint8_t)(replay_random(replay, 9) - 4);
            break;
        case 3:
            bytes[at] = 0xff;
            break;
        default:
            bytes[at] = (uint8_t)replay_random(replay, 256);
        }
    }
    return count;
}

static void replay_save(const char *path, const uint8_t *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file)) {
        fprintf(stderr, "cannot write '%s'\n", path);
        exit(1);
    }
}

// An input that hangs ends by the alarm.
static void replay_one(const uint8_t *bytes, size_t count)
{
    alarm(REPLAY_SECONDS);
    LLVMFuzzerTestOneInput(bytes, count);
}

static void replay_all(struct replay *replay)
{
    static uint8_t bytes[REPLAY_BYTES_MAX];

    for (size_t i = 0; replay->only == ULLONG_MAX && i < replay->file_count;
         i++, ++*replay->reached)
        replay_one(replay->files[i].bytes, replay->files[i].count);
    for (unsigned long long i = 0; i < replay->random_count; i++, ++*replay->reached) {
        if (replay->only != ULLONG_MAX && replay->only != i)
            continue;
        replay->random = (replay->seed * 1000003 + i) * 0x9e3779b97f4a7c15ull | 1;
        size_t count = replay_make(replay, bytes);
        if (replay->save)
            replay_save(replay->save, bytes, count);
        replay_one(bytes, count);
    }
}

static int replay_in_child(struct replay *replay)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        replay_all(replay);
        exit(0);
    }
    waitpid(child, &status, 0);
    if (child > 0 && status == 0) {
        printf("%zu files and %llu random inputs, seed %llu: no crash\n", replay->file_count,
               replay->random_count, replay->seed);
        return 0;
    }
    if (*replay->reached < replay->file_count)
        fprintf(stderr, "crashed or hung at '%s'\n", replay->names[*replay->reached]);
    else
        fprintf(stderr, "crashed or hung at --random %llu --seed %llu --only %llu\n",
                replay->random_count, replay->seed, *replay->reached - replay->file_count);
    return 1;
}

int main(int argc, char **argv)
{
    static struct replay replay = {.seed = 1, .only = ULLONG_MAX};

    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--random") == 0)
            replay.random_count = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            replay.seed = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--only") == 0)
            replay.only = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--save") == 0)
            replay.save = argv[++i];
        else
            replay_add(&replay, argv[i]);
    }
    replay.reached = mmap(NULL, sizeof(*replay.reached), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (replay.reached == MAP_FAILED)
        return 1;
    if (replay.only == ULLONG_MAX)
        return replay_in_child(&replay);
    replay_all(&replay);
    return 0;
}

#endif
#endif
