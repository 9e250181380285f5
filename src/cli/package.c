// SPDX-License-Identifier: BSD-2-Clause
// strake package: keys, signing, verifying and showing; package_build.c builds.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cli/package.h"
#include "state/state.h"

#define KEY_FILE_MAX_BYTES 4096u
#define PASSWORD_MAX_BYTES 1024

enum verb { KEYGEN = 1, BUILD = 2, SIGN = 4, VERIFY = 8, SHOW = 16 };

// ---- Files --------------------------------------------------------------------------------------

// -EFBIG when there are more than `max_bytes`.
static int64_t read_all(int fd, size_t max_bytes, void **bytes)
{
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (size < 0)
        return -errno;
    if (size > (off_t)max_bytes)
        return -EFBIG;
    *bytes = calloc(1, (size_t)size + 1);
    return *bytes ? fd_pread_full(fd, *bytes, (size_t)size, 0) : -ENOMEM;
}

int cli_package_read_file(const char *path, size_t max_bytes, void **bytes, size_t *length_bytes,
                          struct error *err)
{
    void *all = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int64_t got = read_all(fd, max_bytes, &all);

    if (fd >= 0)
        close(fd);
    if (got < 0) {
        free(all);
        error_set_errno(err, (int)got, "cannot read \"%s\"", path);
        return (int)got;
    }
    *bytes = all;
    *length_bytes = (size_t)got;
    return 0;
}

// A new file, or none.
static int write_file(const char *path, mode_t mode, const char *text, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    int64_t written = fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));

    if (fd >= 0 && (fsync(fd) < 0 || close(fd) < 0) && written >= 0)
        written = -errno;
    if (fd >= 0 && written < 0)
        unlink(path);
    return written < 0 ? error_set_errno(err, (int)written, "cannot write \"%s\"", path) : 0;
}

int cli_package_replace(const char *path, const struct package_source *sources, size_t count,
                        struct error *err)
{
    char *beside;

    if (asprintf(&beside, "%s.XXXXXX", path) < 0)
        return error_set_errno(err, -ENOMEM, "cannot write \"%s\"", path);
    int fd = mkostemp(beside, O_CLOEXEC);
    int rc = fd < 0 ? error_set_errno(err, -errno, "cannot write \"%s\"", beside)
                    : package_archive_write(fd, sources, count, err);
    mode_t mask = umask(0);
    umask(mask);
    if (rc == 0 && (fchmod(fd, 0666 & ~mask) < 0 || fsync(fd) < 0 || rename(beside, path) < 0))
        rc = error_set_errno(err, -errno, "cannot write \"%s\"", path);
    if (fd >= 0) {
        close(fd);
        if (rc < 0)
            unlink(beside);
    }
    free(beside);
    return rc;
}

// ---- Keys ---------------------------------------------------------------------------------------

// A line of standard input, unseen where that is a terminal.
static int read_password(const char *prompt, char password[PASSWORD_MAX_BYTES], struct error *err)
{
    struct termios was, unseen;
    bool terminal = tcgetattr(STDIN_FILENO, &was) == 0;

    if (terminal) {
        unseen = was;
        unseen.c_lflag &= ~(tcflag_t)ECHO;
        fprintf(stderr, "%s: ", prompt);
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &unseen);
    }
    bool got = fgets(password, PASSWORD_MAX_BYTES, stdin);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &was);
        fputc('\n', stderr);
    }
    if (!got)
        return error_set(err, -EINVAL, "there is no password on standard input");
    password[strcspn(password, "\n")] = '\0';
    return 0;
}

static int read_new_password(char password[PASSWORD_MAX_BYTES], struct error *err)
{
    char again[PASSWORD_MAX_BYTES];
    int rc = read_password("Password of the new key", password, err);

    if (rc < 0 || !isatty(STDIN_FILENO))
        return rc;
    rc = read_password("The same again", again, err);
    if (rc == 0 && strcmp(password, again) != 0)
        rc = error_set(err, -EINVAL, "the passwords differ");
    explicit_bzero(again, sizeof(again));
    return rc;
}

int cli_package_load_key(struct package_key **out, const char *path, struct error *err)
{
    char password[PASSWORD_MAX_BYTES];
    size_t count = 0;
    void *bytes = NULL;
    struct stat status;
    int rc = cli_package_read_file(path, KEY_FILE_MAX_BYTES, &bytes, &count, err);

    if (rc < 0)
        return rc;
    if (stat(path, &status) == 0 && status.st_mode & (S_IRWXG | S_IRWXO))
        log_line(LOG_WARN, "the secret key \"%s\" is not its owner's alone: chmod 600", path);
    rc = package_key_parse(out, bytes, count, NULL, err);
    if (rc == -EACCES && (rc = read_password("Password of the key", password, err)) == 0) {
        rc = package_key_parse(out, bytes, count, password, err);
        explicit_bzero(password, sizeof(password));
    }
    if (bytes)
        explicit_bzero(bytes, count);
    free(bytes);
    if (rc < 0)
        error_prefix(err, "cannot use the key \"%s\"", path);
    return rc;
}

static int write_key(const struct package_key *key, const char *name, const char *password,
                     struct error *err)
{
    char *secret = NULL, *public = NULL, *secret_path = NULL, *public_path = NULL;
    int rc = package_key_secret_text(key, password, &secret, err);

    if (rc == 0 &&
        (package_key_public_text(key, &public) < 0 || asprintf(&secret_path, "%s.key", name) < 0 ||
         asprintf(&public_path, "%s.pub", name) < 0))
        error_set_errno(err, rc = -ENOMEM, "cannot write the key");
    if (rc == 0)
        rc = write_file(secret_path, 0600, secret, err);
    if (rc == 0 && (rc = write_file(public_path, 0644, public, err)) < 0)
        unlink(secret_path);
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
    free(public);
    free(secret_path);
    free(public_path);
    return rc;
}

static int keygen(const struct cli_package_options *options, const char *name, struct error *err)
{
    char password[PASSWORD_MAX_BYTES], id[PACKAGE_KEY_ID_CHARS];
    struct package_key *key;
    int rc = options->no_password ? 0 : read_new_password(password, err);

    if (rc < 0)
        return rc;
    rc = package_key_generate(&key, err);
    if (rc < 0)
        return rc;
    rc = write_key(key, name, options->no_password ? NULL : password, err);
    package_key_id(key, id);
    package_key_destroy(key);
    explicit_bzero(password, sizeof(password));
    if (rc == 0)
        printf("key %s: %s.pub is for hosts to trust, %s.key to sign with\n", id, name, name);
    return rc;
}

// ---- Opened packages ----------------------------------------------------------------------------

struct opened {
    struct package_archive *archive;  // NULL: a manifest alone
    struct package_manifest *manifest;
    void *text, *signature;  // signature NULL: there is none
    size_t text_bytes, signature_bytes;
};

static void close_package(struct opened *opened)
{
    package_manifest_destroy(opened->manifest);
    package_archive_close(opened->archive);
    free(opened->text);
    free(opened->signature);
}

static int read_head(struct opened *opened, struct error *err)
{
    int rc =
        package_archive_read(opened->archive, PACKAGE_MANIFEST_NAME, PACKAGE_MANIFEST_MAX_BYTES,
                             &opened->text, &opened->text_bytes, err);

    if (rc == 0 && package_archive_find(opened->archive, PACKAGE_SIGNATURE_NAME))
        rc = package_archive_read(opened->archive, PACKAGE_SIGNATURE_NAME,
                                  PACKAGE_SIGNATURE_MAX_BYTES, &opened->signature,
                                  &opened->signature_bytes, err);
    return rc;
}

static int parse_head(struct opened *opened, struct error *err)
{
    int rc = package_manifest_parse(&opened->manifest, opened->text, opened->text_bytes, err);

    return rc < 0 ? rc : package_archive_check(opened->archive, opened->manifest, err);
}

// ---- Signing ------------------------------------------------------------------------------------

int cli_package_sign(const struct package_key *key, const char *text, size_t length_bytes,
                     const struct package_manifest *manifest, char **signature, struct error *err)
{
    char comment[128];

    // What minisign -V shows; no time, so that signing again gives the same bytes.
    snprintf(comment, sizeof(comment), "%.40s %s for %.40s, epoch %u", manifest->product,
             manifest->version, manifest->architecture, manifest->epoch);
    return package_sign(key, text, length_bytes, comment, signature, err);
}

static struct package_source member_of(const struct opened *opened, const struct package_file *file)
{
    return (struct package_source){
        .name = file->name, .archive = opened->archive, .length_bytes = file->bytes};
}

// The members as they are, but for the signature.
static int rewrite(const struct opened *opened, const char *path, const char *signature,
                   struct error *err)
{
    const struct package_manifest *manifest = opened->manifest;
    struct package_source sources[PACKAGE_MEMBERS_MAX];
    size_t count = 0;

    sources[count++] = (struct package_source){
        .name = PACKAGE_MANIFEST_NAME, .bytes = opened->text, .length_bytes = opened->text_bytes};
    sources[count++] = (struct package_source){
        .name = PACKAGE_SIGNATURE_NAME, .bytes = signature, .length_bytes = strlen(signature)};
    for (size_t i = 0; i < manifest->payload_count; i++)
        sources[count++] = member_of(opened, &manifest->payloads[i].file);
    for (size_t i = 0; i < manifest->extension_count; i++)
        sources[count++] = member_of(opened, &manifest->extensions[i].file);
    return cli_package_replace(path, sources, count, err);
}

// In a folder the signature is a file like others; whatever was there is replaced.
static int write_signature(const char *folder, const char *signature, struct error *err)
{
    char *path;
    int rc;

    if (asprintf(&path, "%s/%s", folder, PACKAGE_SIGNATURE_NAME) < 0)
        return error_set_errno(err, -ENOMEM, "cannot write the signature");
    rc = unlink(path) < 0 && errno != ENOENT
             ? error_set_errno(err, -errno, "cannot replace \"%s\"", path)
             : write_file(path, 0644, signature, err);
    free(path);
    return rc;
}

static int sign_opened(const struct opened *opened, const struct cli_package_options *options,
                       const char *path, struct error *err)
{
    struct package_key *key;
    char *signature;
    struct stat status;
    int rc = cli_package_load_key(&key, options->key, err);

    if (rc < 0)
        return rc;
    rc = cli_package_sign(key, opened->text, opened->text_bytes, opened->manifest, &signature, err);
    package_key_destroy(key);
    if (rc < 0)
        return rc;
    rc = stat(path, &status) == 0 && S_ISDIR(status.st_mode)
             ? write_signature(path, signature, err)
             : rewrite(opened, path, signature, err);
    free(signature);
    return rc;
}

static int sign(const struct cli_package_options *options, const char *path, struct error *err)
{
    struct opened opened = {0};

    if (!options->key)
        return error_set(err, -EINVAL, "no key is named: --key");
    int rc = package_archive_open(&opened.archive, path, err);
    if (rc == 0)
        rc = read_head(&opened, err);
    if (rc == 0)
        rc = parse_head(&opened, err);
    if (rc == 0)
        rc = sign_opened(&opened, options, path, err);
    close_package(&opened);
    return rc;
}

// ---- Verifying ----------------------------------------------------------------------------------

struct verification {
    const struct cli_package_options *options;
    struct opened opened;
    char key_id[PACKAGE_KEY_ID_CHARS];
    bool unpacked[PACKAGE_PAYLOADS_MAX];
};

static int load_trust(struct package_trust **trust, const struct cli_package_options *options,
                      struct error *err)
{
    if (!options->public)
        return package_trust_load(
            trust, options->trusted ? options->trusted : PACKAGE_TRUSTED_FOLDER, err);
    if (package_trust_create(trust) < 0)
        return error_set_errno(err, -ENOMEM, "cannot keep a key");
    int rc = package_trust_add(*trust, options->public, err);
    if (rc < 0)
        package_trust_destroy(*trust);
    return rc;
}

static int verify_signature(struct verification *verification, struct error *err)
{
    const struct opened *opened = &verification->opened;
    enum package_signature verdict;
    struct package_trust *trust;

    if (!opened->signature)
        return error_set(err, -ENODATA, "the package is not signed");
    int rc = load_trust(&trust, verification->options, err);
    if (rc < 0)
        return rc;
    rc = package_verify_signature(opened->text, opened->text_bytes, opened->signature,
                                  opened->signature_bytes, trust, verification->key_id, &verdict,
                                  err);
    package_trust_destroy(trust);
    return rc;
}

// The base that was named, if it is the one that the payload is a delta to; else -1.
static int open_base(const struct verification *verification, const struct package_payload *payload)
{
    char sha256[PACKAGE_DIGEST_CHARS];
    uint64_t bytes;

    for (size_t i = 0; i < verification->options->base_count; i++) {
        const struct cli_package_base *base = &verification->options->bases[i];
        int fd = open(base->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0 && package_measure(fd, &bytes, sha256, NULL) == 0 &&
            strcmp(sha256, payload->base_sha256) == 0)
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -1;
}

static int check_file(struct verification *verification, const struct package_file *file,
                      struct error *err)
{
    char sha256[PACKAGE_DIGEST_CHARS];
    int fd, rc = package_archive_seek(verification->opened.archive, file->name, &fd, err);

    if (rc == 0)
        rc = package_copy(fd, -1, file->bytes, sha256, err);
    if (rc == 0 && strcmp(sha256, file->sha256) != 0)
        rc = error_set(err, -EBADMSG, "the digest of \"%s\" is not what the manifest says",
                       file->name);
    return rc;
}

static int unpack(struct verification *verification, const struct package_payload *payload,
                  int base_fd, struct error *err)
{
    int fd, rc = package_archive_seek(verification->opened.archive, payload->file.name, &fd, err);
    int program_fd = memfd_create("program", MFD_CLOEXEC);

    if (rc == 0 && program_fd < 0)
        rc = error_set_errno(err, -errno, "cannot unpack the program");
    if (rc == 0)
        rc = package_unpack_program(verification->opened.manifest, payload, fd, base_fd, program_fd,
                                    PACKAGE_PROGRAM_MAX_BYTES, err);
    if (rc == 0)
        rc = package_program_check(program_fd, err);
    if (program_fd >= 0)
        close(program_fd);
    return rc;
}

// A delta is unpacked if its base was named; else its digest is what can be checked.
static int check_payload(struct verification *verification, size_t index, struct error *err)
{
    const struct package_payload *payload = &verification->opened.manifest->payloads[index];
    int base_fd = payload->base_version ? open_base(verification, payload) : -1, rc;

    verification->unpacked[index] = !payload->base_version || base_fd >= 0;
    rc = verification->unpacked[index] ? unpack(verification, payload, base_fd, err)
                                       : check_file(verification, &payload->file, err);
    if (base_fd >= 0)
        close(base_fd);
    return rc;
}

static int check_expiry(const struct package_manifest *manifest, struct error *err)
{
    char text[PACKAGE_TIME_CHARS];

    if ((uint64_t)manifest->expires_s > clock_realtime_ns() / 1000000000u)
        return 0;
    package_time_format(text, manifest->expires_s);
    return error_set(err, -ETIME, "the package has expired at %s", text);
}

// In the order of a host: nothing is looked into before its signature has been found good.
static int check_all(struct verification *verification, struct error *err)
{
    struct opened *opened = &verification->opened;
    int rc = read_head(opened, err);

    if (rc == 0)
        rc = verify_signature(verification, err);
    if (rc == 0)
        rc = parse_head(opened, err);
    if (rc == 0)
        rc = check_expiry(opened->manifest, err);
    for (size_t i = 0; rc == 0 && i < opened->manifest->payload_count; i++)
        rc = check_payload(verification, i, err);
    for (size_t i = 0; rc == 0 && i < opened->manifest->extension_count; i++)
        rc = check_file(verification, &opened->manifest->extensions[i].file, err);
    return rc;
}

static int print_json(json_t *json)
{
    int rc = json ? json_dumpf(json, stdout, JSON_INDENT(2)) : -1;

    json_decref(json);
    putchar('\n');
    return rc < 0 ? -ENOMEM : 0;
}

static void print_verified(const struct verification *verification, const char *path)
{
    const struct package_manifest *manifest = verification->opened.manifest;

    if (verification->options->json) {
        json_t *unpacked = json_array();
        for (size_t i = 0; i < manifest->payload_count; i++)
            if (verification->unpacked[i])
                json_array_append_new(unpacked, json_string(manifest->payloads[i].file.name));
        print_json(json_pack("{s:s,s:o,s:o}", "key", verification->key_id, "unpacked", unpacked,
                             "manifest", package_manifest_to_json(manifest)));
        return;
    }
    printf("%s: %s %s, signed by key %s, is good\n", path, manifest->product, manifest->version,
           verification->key_id);
    for (size_t i = 0; i < manifest->payload_count; i++)
        if (!verification->unpacked[i])
            printf("%s was not unpacked: that needs version %s (--base)\n",
                   manifest->payloads[i].file.name, manifest->payloads[i].base_version);
}

static int verify(const struct cli_package_options *options, const char *path, struct error *err)
{
    struct verification verification = {.options = options};
    int rc = package_archive_open(&verification.opened.archive, path, err);

    if (rc == 0 && (rc = check_all(&verification, err)) < 0)
        error_prefix(err, "\"%s\"", path);
    if (rc == 0)
        print_verified(&verification, path);
    close_package(&verification.opened);
    return rc;
}

// ---- Showing ------------------------------------------------------------------------------------

// A package, or a manifest alone, as slots have it.
static int open_any(struct opened *opened, const char *path, struct error *err)
{
    char first = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
    bool is_text = fd >= 0 && read(fd, &first, 1) == 1 && strchr("{ \t\r\n", first) && first;

    if (fd >= 0)
        close(fd);
    if (is_text) {
        rc = cli_package_read_file(path, PACKAGE_MANIFEST_MAX_BYTES, &opened->text,
                                   &opened->text_bytes, err);
        return rc < 0 ? rc
                      : package_manifest_parse(&opened->manifest, opened->text, opened->text_bytes,
                                               err);
    }
    rc = package_archive_open(&opened->archive, path, err);
    if (rc == 0)
        rc = read_head(opened, err);
    return rc < 0 ? rc : parse_head(opened, err);
}

static void print_manifest(const struct package_manifest *manifest)
{
    char expires[PACKAGE_TIME_CHARS];

    package_time_format(expires, manifest->expires_s);
    printf("%s %s for %s, epoch %u\n", manifest->product, manifest->version, manifest->architecture,
           manifest->epoch);
    printf("loads states   %u to %u\n", manifest->state_oldest, manifest->state_newest);
    printf("program        %" PRIu64 " bytes, sha256 %s\n", manifest->program_bytes,
           manifest->program_sha256);
    for (size_t i = 0; i < manifest->payload_count; i++) {
        const struct package_payload *payload = &manifest->payloads[i];
        printf("payload        %s, %" PRIu64 " bytes%s%s\n", payload->file.name,
               payload->file.bytes, payload->base_version ? ", a delta to " : "",
               payload->base_version ? payload->base_version : "");
    }
    for (size_t i = 0; i < manifest->extension_count; i++) {
        const struct package_extension *extension = &manifest->extensions[i];
        printf("for guests     %s %s, %s, %" PRIu64 " bytes\n", extension->package,
               extension->version, extension->architecture, extension->file.bytes);
    }
    printf("expires        %s\n", expires);
}

static int print_opened(const struct opened *opened, bool as_json, struct error *err)
{
    const struct package_manifest *manifest = opened->manifest;
    char key_id[PACKAGE_KEY_ID_CHARS] = "";
    int rc = opened->signature
                 ? package_signature_key_id(opened->signature, opened->signature_bytes, key_id, err)
                 : 0;
    if (rc < 0)
        return rc;
    if (as_json)
        return print_json(json_pack("{s:s?,s:o}", "key", *key_id ? key_id : NULL, "manifest",
                                    package_manifest_to_json(manifest)));
    print_manifest(manifest);
    if (*key_id)
        printf("signed by      key %s, it says\n", key_id);
    else if (opened->archive)
        printf("not signed\n");
    if (*manifest->notes)
        printf("\n%s\n", manifest->notes);
    return 0;
}

static int show(const struct cli_package_options *options, const char *path, struct error *err)
{
    struct opened opened = {0};
    int rc = open_any(&opened, path, err);

    if (rc == 0)
        rc = print_opened(&opened, options->json, err);
    if (rc < 0)
        error_prefix(err, "cannot show \"%s\"", path);
    close_package(&opened);
    return rc;
}

// ---- The command --------------------------------------------------------------------------------

static int build(const struct cli_package_options *options, const char *path, struct error *err)
{
    if (!options->expires)
        return error_set(err, -EINVAL, "no end is named: --expires");
    return cli_package_build(options, path, err);
}

static const struct {
    const char *name;
    enum verb verb;
    int (*run)(const struct cli_package_options *options, const char *path, struct error *err);
} verbs[] = {{"keygen", KEYGEN, keygen},
             {"build", BUILD, build},
             {"sign", SIGN, sign},
             {"verify", VERIFY, verify},
             {"show", SHOW, show}};

static int parse_range(void *target, const char *value, struct error *err)
{
    struct cli_package_options *options = target;
    const char *dash = strchr(value, '-');
    char oldest[16];

    if (!dash || dash - value >= (int)sizeof(oldest))
        return error_set(err, -EINVAL, "is no range such as 1-2");
    snprintf(oldest, sizeof(oldest), "%.*s", (int)(dash - value), value);
    int rc = parse_unsigned(&options->state_oldest, oldest, err);
    return rc < 0 ? rc : parse_unsigned(&options->state_newest, dash + 1, err);
}

static int parse_base(void *target, const char *value, struct error *err)
{
    struct cli_package_options *options = target;
    const char *path = strchr(value, '=');
    struct cli_package_base *base = &options->bases[options->base_count];

    if (options->base_count == BASE_COUNT_OF(options->bases))
        return error_set(err, -E2BIG, "there are too many");
    if (!path || !path[1] || path - value > (int)PACKAGE_VERSION_MAX)
        return error_set(err, -EINVAL, "is not VERSION=FILE");
    snprintf(base->version, sizeof(base->version), "%.*s", (int)(path - value), value);
    if (!package_version_valid(base->version))
        return error_set(err, -EINVAL, "\"%s\" is no version", base->version);
    base->path = path + 1;
    options->base_count++;
    return 0;
}

static int parse_guest(void *target, const char *value, struct error *err)
{
    struct cli_package_options *options = target;

    if (options->guest_count == BASE_COUNT_OF(options->guests))
        return error_set(err, -E2BIG, "there are too many");
    options->guests[options->guest_count++] = value;
    return 0;
}

#define AT(member) offsetof(struct cli_package_options, member)
// Name, value, help, verbs that have it, parser, where its value goes.
#define OPTIONS(X)                                                                                 \
    X("key", "FILE", "(build, sign) secret key to sign with; build leaves it out: unsigned",       \
      BUILD | SIGN, cli_parse_string, AT(key))                                                     \
    X("no-password", NULL, "(keygen) leave the secret key unencrypted", KEYGEN, cli_parse_flag,    \
      AT(no_password))                                                                             \
    X("program", "FILE", "(build) what is packed (default: this program)", BUILD,                  \
      cli_parse_string, AT(program))                                                               \
    X("version", "X.Y.Z", "(build) its version (default: this program's)", BUILD,                  \
      cli_parse_string, AT(version))                                                               \
    X("epoch", "N", "(build) its security epoch (default: this program's)", BUILD,                 \
      cli_parse_unsigned, AT(epoch))                                                               \
    X("states", "A-B", "(build) versions of state that it loads (default: this program's)", BUILD, \
      parse_range, 0)                                                                              \
    X("base", "VERSION=FILE",                                                                      \
      "(build) add a delta to this program; (verify) unpack "                                      \
      "deltas to it; may be repeated",                                                             \
      BUILD | VERIFY, parse_base, 0)                                                               \
    X("guest", "FILE", "(build) a Debian package for guests; may be repeated", BUILD, parse_guest, \
      0)                                                                                           \
    X("expires", "TIME", "(build) when it ends to be offered, as 2027-11-22T00:00:00Z", BUILD,     \
      cli_parse_string, AT(expires))                                                               \
    X("notes", "FILE", "(build) release notes", BUILD, cli_parse_string, AT(notes))                \
    X("trusted", "DIR", "(verify) folder of trusted keys (default: " PACKAGE_TRUSTED_FOLDER ")",   \
      VERIFY, cli_parse_string, AT(trusted))                                                       \
    X("public", "FILE", "(verify) public key that alone is trusted", VERIFY, cli_parse_string,     \
      AT(public))                                                                                  \
    X("json", NULL, "(verify, show) print JSON", VERIFY | SHOW, cli_parse_flag, AT(json))

static const struct {
    const char *name;
    unsigned verbs;
    int (*parse)(void *target, const char *value, struct error *err);
    size_t offset;
} rules[] = {
#define X(name, value, help, verbs, parse, offset) {name, verbs, parse, offset},
    OPTIONS(X)
#undef X
};

static int set_option(void *target, const char *name, const char *value, struct error *err)
{
    struct cli_package_options *options = target;
    size_t i = 0;

    while (strcmp(rules[i].name, name) != 0)
        i++;
    options->verbs &= rules[i].verbs;
    return rules[i].parse((char *)options + rules[i].offset, value, err);
}

static const struct cli_option package_option_table[] = {
#define X(name_, value_, help_, verbs_, parse_, offset_)                                           \
    {.name = name_, .value = value_, .help = help_, .set = set_option},
    OPTIONS(X)
#undef X
        {.name = NULL},
};

// The verb's place in the table, or -EINVAL.
static int find_verb(const struct cli_package_options *options, int argc, char **argv,
                     struct error *err)
{
    for (size_t i = 0; argc > 0 && i < BASE_COUNT_OF(verbs); i++) {
        if (strcmp(verbs[i].name, argv[0]) != 0)
            continue;
        if (!(options->verbs & verbs[i].verb))
            return error_set(err, -EINVAL, "an option is not one of \"%s\"", argv[0]);
        if (argc != 2)
            return error_set(err, -EINVAL, "\"%s\" takes one name", argv[0]);
        return (int)i;
    }
    return error_set(err, -EINVAL, argc > 0 ? "there is no \"%s\"" : "it is not said what to do%s",
                     argc > 0 ? argv[0] : "");
}

static int run_package(const struct cli_command *command, int argc, char **argv)
{
    struct cli_package_options options = {.version = STRAKE_VERSION,
                                          .epoch = STRAKE_EPOCH,
                                          .state_oldest = STATE_SET_OLDEST,
                                          .state_newest = STATE_SET_VERSION,
                                          .verbs = ~0u};
    struct error err = {0};
    int next = cli_parse(command, argc, argv, &options, &err);

    if (next > argc)
        return CLI_EXIT_OK;
    int verb = next < 0 ? next : find_verb(&options, argc - next, argv + next, &err);
    if (verb < 0)
        return cli_misused(command, &err);
    return verbs[verb].run(&options, argv[next + 1], &err) < 0 ? cli_failed(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_package = {
    .name = "package",
    .usage = "keygen|build|sign|verify|show [OPTIONS] FILE",
    .summary = "Make update packages, and look at them",
    .details =
        "keygen makes a pair of keys, FILE.key and FILE.pub, in minisign's format; the secret "
        "one is encrypted with a password. build packs a program into FILE. sign replaces the "
        "signature of a package. verify checks signature, expiry, digests and programs, with "
        "the keys that a host trusts. show prints what a package, or a manifest alone, says. "
        "FILE may be a folder with the files of a package. docs/package.md has the format.",
    .options = package_option_table,
    .run = run_package,
};
