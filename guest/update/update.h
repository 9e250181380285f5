// SPDX-License-Identifier: BSD-2-Clause
// strake-update: hands an update of Strake, which a guest has received, down to the monitor
// beneath.
//
// file          what it holds
// main.c        options and commands
// apply.c       the order of an update, and how one that was interrupted goes on
// package.c     a package from a file, a folder or a URL, unpacked into our own folder and checked
// manifest.c    the manifest: what is where in a package
// channel.c     frames to and from the host (docs/guest-channel.md)
// install.c     guest extensions: installing them, and going back
// unpack.c      the same without dpkg
// state.c       what outlives a reboot: our state and our log
// http.c        a small client
// archive.c     tar and ar
// json.c, sha256.c, report.c, system.c
//
// Whether a package is to be trusted the host decides, not we. But packages come from outside: all
// that is read here is bounded, and no name in a package leads out of the folder it belongs to.
// Functions give 0, or -1 with the fault filled: one sentence, and the program's exit status.
#ifndef STRAKE_GUEST_UPDATE_H
#define STRAKE_GUEST_UPDATE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

// ---- Outcomes ---------------------------------------------------------------------------------

enum outcome {
    OUTCOME_DONE = 0,
    OUTCOME_FAILED = 1,  // something of the guest's own: a file, a download
    OUTCOME_USAGE = 2,
    OUTCOME_NO_HOST = 3,        // nobody answers beneath; nothing has changed
    OUTCOME_REFUSED = 4,        // by the host, which said why; nothing has changed
    OUTCOME_BAD_PACKAGE = 5,    // the package is damaged; nothing has changed
    OUTCOME_NOT_INSTALLED = 6,  // guest extensions cannot be installed: withdrawn, and put back
    OUTCOME_ROLLED_BACK = 7,    // the host went back to its old version, so did the guest
    OUTCOME_UNFINISHED = 8,     // interrupted: `strake-update resume` goes on
    OUTCOME_BUSY = 9,           // another strake-update works, or another update is unfinished
    OUTCOME_OLDER = 10,         // the Strake beneath is older than the one that was asked about
};

struct fault {
    enum outcome outcome;
    unsigned refusal;  // the host's code; 0: not the host's
    char message[512];
};

int fault_set(struct fault *fault, enum outcome outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// With the reason of errno behind it.
int fault_system(struct fault *fault, enum outcome outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// ---- Bounds: none is below the format's (docs/manifest.schema.json), but for the size of files --

#define MANIFEST_BYTES_MAX 61440u  // what an OFFER takes
#define SIGNATURE_BYTES_MAX 4092u
#define FILE_BYTES_MAX (UINT64_C(1) << 30)
#define MONITOR_MAX 16u
#define GUEST_MAX 64u
#define NAME_MAX_BYTES 129u
#define VERSION_MAX_BYTES 129u
#define PATH_BYTES 1024u

// ---- sha256.c: FIPS 180-4 ---------------------------------------------------------------------

#define SHA256_HEX 65u

struct sha256 {
    uint32_t state[8];
    uint64_t count;
    uint8_t block[64];
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *bytes, size_t count);
void sha256_hex(struct sha256 *hash, char hex[SHA256_HEX]);

// ---- json.c: RFC 8259, bounded ----------------------------------------------------------------

#define JSON_VALUES_MAX 2048u  // a manifest with all that may be in it has some 1100
#define JSON_DEPTH_MAX 16u

enum json_kind { JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_NUMBER, JSON_WORD };

struct json_value {
    enum json_kind kind;
    unsigned start, end;  // of its text; a string's without its quotes
    unsigned next;        // the value after it and all that is in it
};

// Values in the order of their text. Those of an object are names and values in turns.
struct json {
    const char *text;
    unsigned count;
    struct json_value values[JSON_VALUES_MAX];
};

// False for what is no JSON value, or has too many or too deep ones. The text must outlive the
// parser.
bool json_parse(struct json *json, const char *text, size_t count);
// Number of the member's value, or 0 when `object` is no object or has none: 0 is the whole, never
// a member.
unsigned json_member(const struct json *json, unsigned object, const char *name);
// Element `index` of an array, or 0.
unsigned json_element(const struct json *json, unsigned array, unsigned index);
// Copies a string member; false unless it is there and fits.
bool json_string(const struct json *json, unsigned object, const char *name, char *text,
                 size_t text_bytes);
bool json_number(const struct json *json, unsigned object, const char *name, uint64_t *number);
// Writes text as a JSON string, with its quotes.
void json_print(FILE *file, const char *text);

// ---- archive.c --------------------------------------------------------------------------------

enum tar_kind { TAR_FILE, TAR_FOLDER, TAR_LINK };

struct tar {
    int fd;
    uint64_t left;     // bytes of the entry not read yet
    unsigned padding;  // behind them
};

struct tar_entry {
    enum tar_kind kind;
    unsigned mode;
    uint64_t bytes;
    char name[PATH_BYTES];  // never empty or absolute, and without "." and ".."; a folder's may be
                            // "."
    char target[PATH_BYTES];  // of a symbolic link
};

// 1: entry is filled; 0: the end; -1: fault. What was not read of the last entry is passed over.
int tar_next(struct tar *tar, struct tar_entry *entry, struct fault *fault);
// Bytes of the entry, 0 at its end, -1: fault.
ssize_t tar_read(struct tar *tar, void *bytes, size_t count, struct fault *fault);

// Leaves fd at the bytes of the first member whose name begins with `prefix`, and copies its name.
int ar_find(int fd, const char *prefix, char name[17], uint64_t *bytes, struct fault *fault);

// ---- manifest.c -------------------------------------------------------------------------------

struct manifest_file {
    char file[NAME_MAX_BYTES];
    uint64_t bytes;
    char sha256[SHA256_HEX];
};

struct manifest_monitor {
    struct manifest_file payload;
    char base[SHA256_HEX];  // the program that a delta is against; "": none
};

struct manifest_guest {
    struct manifest_file payload;
    char package[NAME_MAX_BYTES], version[VERSION_MAX_BYTES], architecture[NAME_MAX_BYTES];
};

struct manifest {
    char version[VERSION_MAX_BYTES];
    unsigned monitor_count, guest_count;
    struct manifest_monitor monitor[MONITOR_MAX];
    struct manifest_guest guest[GUEST_MAX];
};

int manifest_parse(struct manifest *manifest, const char *text, size_t count, struct fault *fault);
// Is it a version: numbers with dots?
bool version_is(const char *text);
// Like strcmp() for versions.
int version_compare(const char *a, const char *b);
// A file's entry, or NULL.
const struct manifest_file *manifest_find(const struct manifest *manifest, const char *file);

// ---- report.c: what the user sees -------------------------------------------------------------

struct report {
    bool json, terminal;
    bool bar;           // an unfinished line is on the terminal
    unsigned per_cent;  // shown last
};

void report_init(struct report *report, bool json);
void report_line(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
// total 0: not known.
void report_progress(struct report *report, const char *doing, uint64_t done, uint64_t total);
void report_fault(struct report *report, const struct fault *fault);

// ---- http.c -----------------------------------------------------------------------------------

struct http_url {
    char host[256], port[6], path[PATH_BYTES];
};

struct http_head {
    unsigned status;
    bool has_length, encoded;  // encoded: the bytes are not those of the file
    uint64_t length, from;     // from: where the bytes belong, of a 206
    char etag[NAME_MAX_BYTES];
};

bool http_url_parse(const char *text, struct http_url *url);
// The head of an answer, up to its empty line.
bool http_head_parse(const char *text, size_t count, struct http_head *head);
// Downloads to a file, or the rest of what an earlier call has left there; what cannot be gone on
// with is removed. silence_s: how long a server may be silent, or nearly so.
int http_download(const char *url, const char *path, unsigned silence_s, struct report *report,
                  struct fault *fault);

// ---- state.c ----------------------------------------------------------------------------------

// What the guest does about an update, in this order. Each is on the disk before it begins.
#define PHASES(DO)                                                                                 \
    DO(IDLE, "idle")                                                                               \
    DO(SENDING, "sending")         /* until validated; nothing of the guest has changed */         \
    DO(INSTALLING, "installing")   /* validated; guest extensions may have changed */              \
    DO(COMMITTING, "committing")   /* all are installed, and the host is told or will be */        \
    DO(RESTORING, "restoring")     /* the update failed: the earlier ones are put back */          \
    DO(REGISTERING, "registering") /* committed; to be tidied up, and dpkg told */

enum phase {
#define DO(name, word) PHASE_##name,
    PHASES(DO)
#undef DO
        PHASE_COUNT
};

enum install_method { INSTALL_DPKG, INSTALL_UNPACK };

// One guest extension that was or is being installed.
struct install_record {
    char package[NAME_MAX_BYTES], version[VERSION_MAX_BYTES];
    char had[VERSION_MAX_BYTES];  // the version before; "": none
    enum install_method method;
};

struct state {
    enum phase phase;
    char version[VERSION_MAX_BYTES], old[VERSION_MAX_BYTES];  // of Strake
    char manifest_sha256[SHA256_HEX];
    bool no_commit;
    enum outcome outcome;  // why it is being restored
    char why[512];
    unsigned record_count;
    struct install_record records[GUEST_MAX];
};

const char *phase_name(enum phase phase);
int state_load(struct state *state, const char *folder, struct fault *fault);
int state_save(const struct state *state, const char *folder, struct fault *fault);
// Appends to the log.
void state_log(const char *folder, const char *event, const char *version, const char *message);
int state_log_print(const char *folder, bool json, struct fault *fault);

// ---- system.c: files and programs -------------------------------------------------------------

struct buffer {
    char *bytes;
    size_t count;
};

int join(char path[PATH_BYTES], const char *folder, const char *name, struct fault *fault);
int make_folder(const char *path, struct fault *fault);
// Folders of the path before its last slash, too.
int make_folders(const char *path, struct fault *fault);
int remove_tree(const char *path, struct fault *fault);
int sync_folder(const char *path, struct fault *fault);
int sync_folder_of(const char *path, struct fault *fault);
int write_all(int fd, const void *bytes, size_t count);
// A file that has the old content or the new one, whatever happens: begun beside its place, and
// synced and put there by file_finish() when all was written. That takes the descriptor.
int file_begin(const char *path, unsigned mode, char beside[PATH_BYTES], struct fault *fault);
int file_finish(int fd, bool written, const char *beside, const char *path, struct fault *fault);
int write_file(const char *path, const void *bytes, size_t count, unsigned mode,
               struct fault *fault);
int copy_file(const char *from, const char *to, unsigned mode, struct fault *fault);
int read_file(const char *path, size_t max_bytes, struct buffer *buffer, struct fault *fault);
// Runs a program and waits. Input and output are descriptors, or -1: /dev/null; errors go to the
// output. Gives its exit status, or -1.
int run_program(const char *const *argv, int input, int output);
// While it is held, a signal that would end us waits, so that what the guest has is not left
// half-way.
void hold_signals(bool held);
// Starts one whose output is read from the descriptor given; wait_program() ends it.
int start_program(const char *const *argv, int input, int *output, pid_t *child);
int wait_program(pid_t child);
// Is there such a program in PATH?
bool have_program(const char *name);

// ---- Where an update happens ------------------------------------------------------------------

struct context {
    const char *host;        // "unix:PATH", "tcp:HOST:PORT", or NULL: the host's vsock port
    const char *root;        // under which guest extensions are installed; "/"
    const char *folder;      // our own
    const char *place;       // of the package to apply
    const char *wanted;      // the version to check for
    unsigned wait_s;         // for a host that does not answer
    bool no_commit, nested;  // nested: a maintainer script of dpkg runs us
    struct report report;
    struct state state;
    struct manifest manifest;
    struct buffer manifest_text, signature;
};

// ---- package.c --------------------------------------------------------------------------------

// Brings the package at `place` into our folder, checked, and reads its manifest. While an update
// is unfinished only the same package is taken (OUTCOME_BUSY).
int package_fetch(struct context *context, const char *place, struct fault *fault);
// Reads the manifest of the package in our folder.
int package_load(struct context *context, struct fault *fault);
void package_drop(struct context *context);
int package_path(const struct context *context, const char *file, char path[PATH_BYTES],
                 struct fault *fault);

// ---- install.c, unpack.c ----------------------------------------------------------------------

// Installs what fits this guest. What was there can be put back by install_restore(), also after a
// reboot at any moment of either.
int install_all(struct context *context, struct fault *fault);
int install_restore(struct context *context, struct fault *fault);
// After a commit: keeps the packages for going back from the next ones.
int install_keep(struct context *context, struct fault *fault);
// Tells dpkg, when it has time, what was unpacked beneath it.
int install_register(struct context *context, struct fault *fault);
// Is there something to tell?
bool install_registers(const struct context *context);

// before: the package that was unpacked earlier, whose other files are removed; or NULL.
int unpack_install(const struct context *context, const char *package, const char *deb,
                   const char *before, struct fault *fault);
int unpack_restore(const struct context *context, const char *package, struct fault *fault);
int unpack_forget(const struct context *context, const char *package, struct fault *fault);

// ---- channel.c --------------------------------------------------------------------------------

#define CHANNEL_PORT 5354u
#define CHANNEL_PAYLOAD_MAX 65536u

enum channel_type {
    CHANNEL_HELLO = 1,
    CHANNEL_OFFER = 2,
    CHANNEL_WRITE = 3,
    CHANNEL_FINISH = 4,
    CHANNEL_COMMIT = 5,
    CHANNEL_WITHDRAW = 6,
    CHANNEL_STATUS = 7,
    CHANNEL_ANSWER = 0x80,  // set in answers
    CHANNEL_WRITTEN = 0x83,
    CHANNEL_PROGRESS = 0x88,
    CHANNEL_ERROR = 0xff,
};

enum channel_refusal {
    REFUSAL_BUSY = 4,
    REFUSAL_OUT_OF_ORDER = 17,
    REFUSAL_NO_SESSION = 22,
    REFUSAL_NOT_VALIDATED = 23,
    REFUSAL_TOO_SLOW = 24,
    REFUSAL_ROLLED_BACK = 25,
    REFUSAL_HOST = 26,
};

struct channel_frame {
    unsigned type, length;
    uint64_t handle;
    char payload[CHANNEL_PAYLOAD_MAX + 1];  // ends with a NUL
};

struct channel {
    int fd;
    unsigned wait_s;
    uint64_t session;
    struct channel_frame frame;  // received last
    struct json json;            // its payload, when that is JSON
};

// A fault with OUTCOME_NO_HOST: the connection is lost or never was. One with OUTCOME_REFUSED: the
// host's refusal.
int channel_open(struct channel *channel, const char *host, unsigned wait_s, struct fault *fault);
void channel_close(struct channel *channel);
int channel_send(struct channel *channel, unsigned type, const void *payload, size_t count,
                 struct fault *fault);
// The answer of this type; progress that comes before it is shown.
int channel_answer(struct channel *channel, unsigned type, struct report *report,
                   struct fault *fault);
// Is something there to be received?
bool channel_ready(const struct channel *channel);

// ---- apply.c ----------------------------------------------------------------------------------

int apply(struct context *context, struct fault *fault);
int resume(struct context *context, struct fault *fault);
int withdraw(struct context *context, struct fault *fault);
int status(struct context *context, struct fault *fault);
// Is the Strake beneath of the wanted version or newer?
int check(struct context *context, struct fault *fault);

#endif
