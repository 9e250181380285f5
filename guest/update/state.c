// SPDX-License-Identifier: BSD-2-Clause
// What outlives a reboot: state.json, replaced as a whole, and log.jsonl, appended to.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "update.h"

#define STATE_BYTES_MAX 65536u
#define LOG_LINE_MAX 4096u

static const char *const phases[PHASE_COUNT] = {
#define DO(name, word) word,
    PHASES(DO)
#undef DO
};

const char *phase_name(enum phase phase)
{
    return phases[phase];
}

static bool take_record(const struct json *json, unsigned object, struct install_record *record)
{
    uint64_t unpacked;

    if (!json_string(json, object, "package", record->package, sizeof(record->package)) ||
        !json_string(json, object, "version", record->version, sizeof(record->version)) ||
        !json_string(json, object, "had", record->had, sizeof(record->had)) ||
        !json_number(json, object, "unpacked", &unpacked))
        return false;
    record->method = unpacked ? INSTALL_UNPACK : INSTALL_DPKG;
    return true;
}

static bool take_state(const struct json *json, struct state *state)
{
    char phase[32];
    uint64_t no_commit, outcome;
    unsigned records = json_member(json, 0, "records"), object;

    if (!json_string(json, 0, "phase", phase, sizeof(phase)) ||
        !json_string(json, 0, "version", state->version, sizeof(state->version)) ||
        !json_string(json, 0, "old", state->old, sizeof(state->old)) ||
        !json_string(json, 0, "manifest_sha256", state->manifest_sha256, SHA256_HEX) ||
        !json_string(json, 0, "why", state->why, sizeof(state->why)) ||
        !json_number(json, 0, "no_commit", &no_commit) ||
        !json_number(json, 0, "outcome", &outcome))
        return false;
    state->no_commit = no_commit != 0;
    state->outcome = (enum outcome)outcome;
    for (unsigned i = 0; (object = json_element(json, records, i)) != 0; i++)
        if (state->record_count == GUEST_MAX ||
            !take_record(json, object, &state->records[state->record_count++]))
            return false;
    while (state->phase < PHASE_COUNT && strcmp(phases[state->phase], phase) != 0)
        state->phase++;
    return state->phase < PHASE_COUNT;
}

int state_load(struct state *state, const char *folder, struct fault *fault)
{
    char path[PATH_BYTES];
    struct buffer text;

    *state = (struct state){.phase = PHASE_IDLE};
    if (join(path, folder, "state.json", fault))
        return -1;
    if (access(path, F_OK) && errno == ENOENT)
        return 0;
    if (read_file(path, STATE_BYTES_MAX, &text, fault))
        return -1;
    struct json *json = malloc(sizeof(*json));
    bool whole = json && json_parse(json, text.bytes, text.count) && take_state(json, state);
    free(json);
    free(text.bytes);
    return whole
               ? 0
               : fault_set(fault, OUTCOME_FAILED, "'%s' is damaged; remove it to begin anew", path);
}

static void print_member(FILE *file, const char *name, const char *text)
{
    json_print(file, name);
    fputc(':', file);
    json_print(file, text);
    fputc(',', file);
}

static void print_state(FILE *file, const struct state *state)
{
    fputc('{', file);
    print_member(file, "phase", phases[state->phase]);
    print_member(file, "version", state->version);
    print_member(file, "old", state->old);
    print_member(file, "manifest_sha256", state->manifest_sha256);
    print_member(file, "why", state->why);
    fprintf(file, "\"no_commit\":%u,\"outcome\":%u,\"records\":[", state->no_commit,
            state->outcome);
    for (unsigned i = 0; i < state->record_count; i++) {
        const struct install_record *record = &state->records[i];
        fputs(i > 0 ? ",{" : "{", file);
        print_member(file, "package", record->package);
        print_member(file, "version", record->version);
        print_member(file, "had", record->had);
        fprintf(file, "\"unpacked\":%u}", record->method == INSTALL_UNPACK);
    }
    fputs("]}\n", file);
}

int state_save(const struct state *state, const char *folder, struct fault *fault)
{
    char path[PATH_BYTES];
    char *text = NULL;
    size_t count = 0;
    FILE *file = open_memstream(&text, &count);

    if (!file)
        return fault_system(fault, OUTCOME_FAILED, "cannot write the state");
    print_state(file, state);
    fclose(file);
    int result =
        join(path, folder, "state.json", fault) || write_file(path, text, count, 0644, fault);
    free(text);
    return result ? -1 : 0;
}

// ---- The log -----------------------------------------------------------------------------------

// What a crash has left of a line would spoil the next one.
static int end_torn_line(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    char last = '\n';

    if (end > 0 && pread(fd, &last, 1, end - 1) != 1)
        return -1;
    return last == '\n' ? 0 : write_all(fd, "\n", 1);
}

// A log that cannot be written does not keep an update from going on.
void state_log(const char *folder, const char *event, const char *version, const char *message)
{
    char path[PATH_BYTES], when[32];
    char *text = NULL;
    size_t count = 0;
    time_t now = time(NULL);
    struct tm parts;
    struct fault ignored;
    FILE *line = open_memstream(&text, &count);

    if (!line)
        return;
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
    fputc('{', line);
    print_member(line, "time", when);
    print_member(line, "event", event);
    print_member(line, "version", version);
    fputs("\"text\":", line);
    json_print(line, message);
    fputs("}\n", line);
    fclose(line);
    if (join(path, folder, "log.jsonl", &ignored) == 0) {
        int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd >= 0 && end_torn_line(fd) == 0 && write_all(fd, text, count) == 0)
            fsync(fd);
        if (fd >= 0)
            close(fd);
    }
    free(text);
}

static void print_line(const char *line, struct json *json, bool as_json)
{
    char when[32], event[32], version[VERSION_MAX_BYTES], text[1024];

    // A line that was torn by a crash is passed over.
    if (!json_parse(json, line, strlen(line)))
        return;
    if (as_json)
        fputs(line, stdout);
    else if (json_string(json, 0, "time", when, sizeof(when)) &&
             json_string(json, 0, "event", event, sizeof(event)) &&
             json_string(json, 0, "version", version, sizeof(version)) &&
             json_string(json, 0, "text", text, sizeof(text)))
        printf("%s  %-12s %-10s %s\n", when, event, version, text);
}

int state_log_print(const char *folder, bool as_json, struct fault *fault)
{
    char path[PATH_BYTES], line[LOG_LINE_MAX];

    if (join(path, folder, "log.jsonl", fault))
        return -1;
    FILE *file = fopen(path, "re");
    struct json *json = malloc(sizeof(*json));
    if (!file && errno != ENOENT)
        fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", path);
    int result = file || errno == ENOENT ? 0 : -1;
    while (file && json && fgets(line, sizeof(line), file))
        print_line(line, json, as_json);
    if (file)
        fclose(file);
    free(json);
    return result;
}
