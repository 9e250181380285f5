// SPDX-License-Identifier: BSD-2-Clause
// Whom a host trusts, and whether they signed something.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/minisign.h"

#define KEYS_MAX 1024u  // of a folder; a bound, not a wish

struct trust_key {
    struct minisign_public public;
    bool revokes;  // it is of a file that revokes it
    char *file;
};

struct package_trust {
    struct trust_key *keys;
    size_t count;
};

int package_trust_create(struct package_trust **out)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : -ENOMEM;
}

void package_trust_destroy(struct package_trust *trust)
{
    if (!trust)
        return;
    for (size_t i = 0; i < trust->count; i++)
        free(trust->keys[i].file);
    free(trust->keys);
    free(trust);
}

// ---- Keys of files ------------------------------------------------------------------------------

static bool parse_public(struct minisign_public *key, const char *bytes, size_t length)
{
    struct minisign_reader reader = {bytes, bytes + length};
    size_t comment;

    return minisign_line(&reader, "untrusted comment: ", &comment) &&
           minisign_line_bytes(&reader, key, sizeof(*key)) && reader.at == reader.end &&
           memcmp(key->algorithm, "Ed", 2) == 0;
}

// Whoever may write to a key of the folder, or to the folder, decides what runs on this host.
static int check_writers(int fd, const char *name, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_set_errno(err, -errno, "cannot look at \"%s\"", name);
    if ((status.st_uid != geteuid() && status.st_uid != 0) ||
        (status.st_mode & (S_IWGRP | S_IWOTH)))
        return error_set(err, -EPERM, "others than this user and root may write to \"%s\"", name);
    return 0;
}

static int read_public(struct minisign_public *key, int folder, const char *name, struct error *err)
{
    char bytes[MINISIGN_FILE_MAX_BYTES];
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
    int64_t length = fd < 0 ? -errno : fd_read_full(fd, bytes, sizeof(bytes));

    if (fd >= 0 && folder != AT_FDCWD)
        rc = check_writers(fd, name, err);
    if (fd >= 0)
        close(fd);
    if (rc < 0)
        return rc;
    if (length < 0)
        return error_set_errno(err, (int)length, "cannot read the key \"%s\"", name);
    if (!parse_public(key, bytes, (size_t)length))
        return error_set(err, -EBADMSG, "the key \"%s\" is no public key of minisign", name);
    return 0;
}

static int add(struct package_trust *trust, int folder, const char *name, bool revokes,
               struct error *err)
{
    struct trust_key key = {.revokes = revokes};
    struct trust_key *grown = NULL;
    int rc = read_public(&key.public, folder, name, err);

    if (rc < 0)
        return rc;
    if (trust->count < KEYS_MAX)
        grown = realloc(trust->keys, (trust->count + 1) * sizeof(*grown));
    if (grown)
        trust->keys = grown;
    key.file = grown ? strdup(name) : NULL;
    if (!key.file)
        return error_set(err, -ENOMEM, "there are too many keys, or there is too little memory");
    grown[trust->count++] = key;
    return 0;
}

int package_trust_add(struct package_trust *trust, const char *path, struct error *err)
{
    return add(trust, AT_FDCWD, path, false, err);
}

static bool ends_in(const char *name, const char *suffix)
{
    size_t length = strlen(name), tail = strlen(suffix);

    return length > tail && strcmp(name + length - tail, suffix) == 0;
}

static int load_file(struct package_trust *trust, int folder, const char *name, struct error *err)
{
    bool revokes = ends_in(name, ".revoked");

    return revokes || ends_in(name, ".pub") ? add(trust, folder, name, revokes, err) : 0;
}

static int load_files(struct package_trust *trust, DIR *folder, struct error *err)
{
    int rc = check_writers(dirfd(folder), ".", err);

    while (rc == 0) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry)
            return errno ? error_set_errno(err, -errno, "it cannot be listed") : 0;
        rc = load_file(trust, dirfd(folder), entry->d_name, err);
    }
    return rc;
}

static int compare_files(const void *one, const void *other)
{
    return strcmp(((const struct trust_key *)one)->file, ((const struct trust_key *)other)->file);
}

int package_trust_load(struct package_trust **out, const char *path, struct error *err)
{
    struct package_trust *trust;
    DIR *folder = opendir(path);
    int rc = folder || errno == ENOENT ? 0 : -errno;

    if (rc < 0)
        return error_set_errno(err, rc, "cannot open the folder of trusted keys \"%s\"", path);
    rc = package_trust_create(&trust);
    if (rc < 0)
        error_set_errno(err, rc, "there is no memory");
    else if (folder)
        rc = load_files(trust, folder, err);
    if (folder)
        closedir(folder);
    if (rc < 0) {
        error_prefix(err, "cannot take the trusted keys of \"%s\"", path);
        package_trust_destroy(trust);
        return rc;
    }
    if (trust->count > 0)
        qsort(trust->keys, trust->count, sizeof(*trust->keys), compare_files);
    *out = trust;
    return 0;
}

// ---- Verifying ----------------------------------------------------------------------------------

struct signature_file {
    struct minisign_signature body;
    const char *comment;  // trusted, not terminated
    size_t comment_bytes;
    uint8_t global[crypto_sign_BYTES];  // of the signature and the trusted comment
};

static bool parse_signature(struct signature_file *file, const void *bytes, size_t length)
{
    struct minisign_reader reader = {bytes, (const char *)bytes + length};
    size_t untrusted;

    if (length == 0 || length > PACKAGE_SIGNATURE_MAX_BYTES ||
        !minisign_line(&reader, "untrusted comment: ", &untrusted) ||
        !minisign_line_bytes(&reader, &file->body, sizeof(file->body)))
        return false;
    file->comment = minisign_line(&reader, "trusted comment: ", &file->comment_bytes);
    return file->comment && minisign_line_bytes(&reader, file->global, sizeof(file->global)) &&
           reader.at == reader.end &&
           (memcmp(file->body.algorithm, "Ed", 2) == 0 ||
            memcmp(file->body.algorithm, "ED", 2) == 0);
}

static bool signed_by(const struct minisign_public *key, const struct signature_file *file,
                      const void *bytes, size_t length)
{
    uint8_t digest[crypto_generichash_BYTES_MAX],
        global[crypto_sign_BYTES + PACKAGE_SIGNATURE_MAX_BYTES];

    memcpy(global, file->body.signature, crypto_sign_BYTES);
    memcpy(global + crypto_sign_BYTES, file->comment, file->comment_bytes);
    if (file->body.algorithm[1] == 'D') {
        crypto_generichash(digest, sizeof(digest), bytes, length, NULL, 0);
        bytes = digest;
        length = sizeof(digest);
    }
    return crypto_sign_verify_detached(file->body.signature, bytes, length, key->key) == 0 &&
           crypto_sign_verify_detached(file->global, global,
                                       crypto_sign_BYTES + file->comment_bytes, key->key) == 0;
}

// A key's id in a signature is not signed: whoever has a revoked key may write another id there, or
// have put it into the set under another one. So what counts is the key itself, too.
static bool is_revoked(const struct package_trust *trust, const uint8_t *id, const uint8_t *key)
{
    for (size_t i = 0; i < trust->count; i++) {
        const struct minisign_public *other = &trust->keys[i].public;
        if (trust->keys[i].revokes && (memcmp(other->id, id, MINISIGN_ID_BYTES) == 0 ||
                                       (key && memcmp(other->key, key, sizeof(other->key)) == 0)))
            return true;
    }
    return false;
}

size_t package_trust_count(const struct package_trust *trust)
{
    return trust->count;
}

struct package_trust_key package_trust_key(const struct package_trust *trust, size_t index)
{
    const struct trust_key *key = &trust->keys[index];
    struct package_trust_key told = {.file = key->file};

    minisign_id_format(told.id, key->public.id);
    told.revoked = is_revoked(trust, key->public.id, key->public.key);
    return told;
}

static enum package_signature judge(const struct package_trust *trust,
                                    const struct signature_file *file, const void *bytes,
                                    size_t length)
{
    enum package_signature verdict = PACKAGE_SIGNATURE_UNKNOWN_KEY;

    if (is_revoked(trust, file->body.id, NULL))
        return PACKAGE_SIGNATURE_REVOKED_KEY;
    for (size_t i = 0; i < trust->count; i++) {
        const struct minisign_public *key = &trust->keys[i].public;
        if (trust->keys[i].revokes || memcmp(key->id, file->body.id, MINISIGN_ID_BYTES) != 0)
            continue;
        if (is_revoked(trust, key->id, key->key))
            return PACKAGE_SIGNATURE_REVOKED_KEY;
        if (signed_by(key, file, bytes, length))
            return PACKAGE_SIGNATURE_GOOD;
        verdict = PACKAGE_SIGNATURE_BAD;
    }
    return verdict;
}

static int refuse(enum package_signature verdict, const char *key_id, struct error *err)
{
    switch (verdict) {
    case PACKAGE_SIGNATURE_GOOD:
        return 0;
    case PACKAGE_SIGNATURE_MALFORMED:
        return error_set(err, -EBADMSG, "the signature is not one of minisign's format");
    case PACKAGE_SIGNATURE_UNKNOWN_KEY:
        return error_set(err, -ENOKEY, "the key %s that signed the manifest is not trusted here",
                         key_id);
    case PACKAGE_SIGNATURE_REVOKED_KEY:
        return error_set(err, -EKEYREVOKED, "the key %s that signed the manifest is revoked",
                         key_id);
    default:
        return error_set(err, -EKEYREJECTED, "the signature of key %s is not one of this manifest",
                         key_id);
    }
}

int package_verify_signature(const void *manifest, size_t manifest_bytes, const void *signature,
                             size_t signature_bytes, const struct package_trust *trust,
                             char key_id[PACKAGE_KEY_ID_CHARS], enum package_signature *verdict,
                             struct error *err)
{
    struct signature_file file;

    *key_id = '\0';
    *verdict = PACKAGE_SIGNATURE_MALFORMED;
    if (parse_signature(&file, signature, signature_bytes)) {
        minisign_id_format(key_id, file.body.id);
        *verdict = judge(trust, &file, manifest, manifest_bytes);
    }
    return refuse(*verdict, key_id, err);
}

int package_signature_key_id(const void *signature, size_t signature_bytes,
                             char key_id[PACKAGE_KEY_ID_CHARS], struct error *err)
{
    struct signature_file file;

    if (!parse_signature(&file, signature, signature_bytes))
        return refuse(PACKAGE_SIGNATURE_MALFORMED, "", err);
    minisign_id_format(key_id, file.body.id);
    return 0;
}
