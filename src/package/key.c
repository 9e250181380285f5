// SPDX-License-Identifier: BSD-2-Clause
// Secret keys, and signing with them. They live in memory of libsodium's, which is locked against
// swapping where the limits allow it, and wiped when it is freed.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "package/minisign.h"

// What minisign asks of scrypt, and what is granted to a file: one that asks for more is refused.
#define SCRYPT_OPERATIONS crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE
#define SCRYPT_MEMORY_BYTES crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE

struct package_key {
    struct minisign_sealed sealed;  // in the clear
};

static int key_allocate(struct package_key **out, struct error *err)
{
    *out = sodium_init() < 0 ? NULL : sodium_malloc(sizeof(**out));
    if (*out)
        return 0;
    error_set_errno(err, -ENOMEM, "cannot keep a key");
    return -ENOMEM;
}

void package_key_destroy(struct package_key *key)
{
    sodium_free(key);
}

static void key_check(const struct minisign_sealed *sealed, uint8_t check[crypto_generichash_BYTES])
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES);
    crypto_generichash_update(&state, (const uint8_t *)"Ed", 2);
    crypto_generichash_update(&state, sealed->id, sizeof(sealed->id));
    crypto_generichash_update(&state, sealed->key, sizeof(sealed->key));
    crypto_generichash_final(&state, check, crypto_generichash_BYTES);
}

int package_key_generate(struct package_key **out, struct error *err)
{
    uint8_t public[crypto_sign_PUBLICKEYBYTES];
    int rc = key_allocate(out, err);

    if (rc < 0)
        return rc;
    struct minisign_sealed *sealed = &(*out)->sealed;
    randombytes_buf(sealed->id, sizeof(sealed->id));
    crypto_sign_keypair(public, sealed->key);
    key_check(sealed, sealed->check);
    return 0;
}

void package_key_id(const struct package_key *key, char key_id[PACKAGE_KEY_ID_CHARS])
{
    minisign_id_format(key_id, key->sealed.id);
}

// ---- Reading ------------------------------------------------------------------------------------

static uint64_t get_u64(const uint8_t bytes[8])
{
    uint64_t number = 0;

    for (unsigned i = 0; i < 8; i++)
        number |= (uint64_t)bytes[i] << 8 * i;
    return number;
}

static void put_u64(uint8_t bytes[8], uint64_t number)
{
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> 8 * i);
}

// Encrypts or decrypts: the stream that scrypt makes of the password is laid over it.
static int apply_password(struct minisign_secret *secret, const char *password, struct error *err)
{
    uint64_t operations = get_u64(secret->operations), memory = get_u64(secret->memory_bytes);
    uint8_t *sealed = (uint8_t *)&secret->sealed, stream[sizeof(secret->sealed)];

    if (operations > SCRYPT_OPERATIONS || memory > SCRYPT_MEMORY_BYTES)
        return error_set(err, -EBADMSG, "its password takes more work than minisign ever asks for");
    if (crypto_pwhash_scryptsalsa208sha256(stream, sizeof(stream), password, strlen(password),
                                           secret->salt, operations, memory) < 0)
        return error_set_errno(err, -ENOMEM, "its password takes %llu MiB of memory",
                               (unsigned long long)memory >> 20);
    for (size_t i = 0; i < sizeof(stream); i++)
        sealed[i] ^= stream[i];
    sodium_memzero(stream, sizeof(stream));
    return 0;
}

// Whether the two halves belong together: an Ed25519 secret key ends in the public one.
static bool is_whole(const struct minisign_sealed *sealed)
{
    uint8_t public[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];

    crypto_sign_seed_keypair(public, secret, sealed->key);
    bool whole = sodium_memcmp(secret, sealed->key, sizeof(secret)) == 0;
    sodium_memzero(secret, sizeof(secret));
    return whole;
}

static int open_secret(struct minisign_secret *secret, const char *password, struct error *err)
{
    uint8_t check[crypto_generichash_BYTES];
    bool encrypted = memcmp(secret->kdf, "Sc", 2) == 0;

    if (memcmp(secret->algorithm, "Ed", 2) != 0 || memcmp(secret->check, "B2", 2) != 0 ||
        (!encrypted && memcmp(secret->kdf, "\0\0", 2) != 0))
        return error_set(err, -EBADMSG, "it is of a kind that is not known");
    if (encrypted && !password)
        return error_set(err, -EACCES, "it is encrypted, and there is no password");
    int rc = encrypted ? apply_password(secret, password, err) : 0;
    if (rc < 0)
        return rc;
    // The check sum is there to recognise the password by; minisign leaves it zero when there is
    // none.
    key_check(&secret->sealed, check);
    if (encrypted && sodium_memcmp(check, secret->sealed.check, sizeof(check)) != 0)
        return error_set(err, -EKEYREJECTED, "the password is wrong");
    return is_whole(&secret->sealed) ? 0 : error_set(err, -EBADMSG, "it is damaged");
}

static int parse_secret(struct minisign_secret *secret, const void *bytes, size_t length_bytes,
                        struct error *err)
{
    struct minisign_reader reader = {bytes, (const char *)bytes + length_bytes};
    size_t comment;

    if (!minisign_line(&reader, "untrusted comment: ", &comment) ||
        !minisign_line_bytes(&reader, secret, sizeof(*secret)) || reader.at != reader.end)
        return error_set(err, -EBADMSG, "it is no secret key of minisign");
    return 0;
}

int package_key_parse(struct package_key **out, const void *bytes, size_t length_bytes,
                      const char *password, struct error *err)
{
    struct package_key *key;
    struct minisign_secret secret;
    int rc = key_allocate(&key, err);

    if (rc < 0)
        return rc;
    rc = parse_secret(&secret, bytes, length_bytes, err);
    if (rc == 0)
        rc = open_secret(&secret, password, err);
    key->sealed = secret.sealed;
    sodium_memzero(&secret, sizeof(secret));
    if (rc < 0)
        package_key_destroy(key);
    else
        *out = key;
    return rc;
}

// ---- Writing ------------------------------------------------------------------------------------

// "untrusted comment: WHAT [ID]\nBASE64\n"
static int make_text(char **text, const char *what, const char *id, const void *bytes,
                     size_t length)
{
    char encoded[512];

    minisign_encode(encoded, sizeof(encoded), bytes, length);
    int rc = asprintf(text, "untrusted comment: %s%s%s\n%s\n", what, *id ? " " : "", id, encoded);
    sodium_memzero(encoded, sizeof(encoded));
    return rc < 0 ? -ENOMEM : 0;
}

int package_key_public_text(const struct package_key *key, char **text)
{
    struct minisign_public public = {.algorithm = "Ed"};
    char id[PACKAGE_KEY_ID_CHARS];

    package_key_id(key, id);
    memcpy(public.id, key->sealed.id, sizeof(public.id));
    crypto_sign_ed25519_sk_to_pk(public.key, key->sealed.key);
    return make_text(text, "minisign public key", id, &public, sizeof(public));
}

int package_key_secret_text(const struct package_key *key, const char *password, char **text,
                            struct error *err)
{
    struct minisign_secret secret = {.algorithm = "Ed", .check = "B2", .sealed = key->sealed};
    int rc = 0;

    if (password) {
        memcpy(secret.kdf, "Sc", 2);
        randombytes_buf(secret.salt, sizeof(secret.salt));
        put_u64(secret.operations, SCRYPT_OPERATIONS);
        put_u64(secret.memory_bytes, SCRYPT_MEMORY_BYTES);
        rc = apply_password(&secret, password, err);
    }
    if (rc == 0) {
        rc = make_text(text, password ? "minisign encrypted secret key" : "minisign secret key", "",
                       &secret, sizeof(secret));
        if (rc < 0)
            error_set_errno(err, rc, "there is no memory");
    }
    sodium_memzero(&secret, sizeof(secret));
    return rc;
}

// ---- Signing ------------------------------------------------------------------------------------

int package_sign(const struct package_key *key, const void *bytes, size_t length_bytes,
                 const char *comment, char **text, struct error *err)
{
    struct minisign_signature body = {.algorithm = "ED"};
    uint8_t digest[crypto_generichash_BYTES_MAX], global[crypto_sign_BYTES],
        to_sign[crypto_sign_BYTES + PACKAGE_SIGNATURE_MAX_BYTES];
    char body_text[128], global_text[128], id[PACKAGE_KEY_ID_CHARS];
    size_t comment_bytes = strlen(comment);

    // What is around the comment takes less than 512 bytes.
    if (comment_bytes > PACKAGE_SIGNATURE_MAX_BYTES - 512 || strpbrk(comment, "\r\n"))
        return error_set(err, -EINVAL, "the trusted comment is too long, or not one line");
    crypto_generichash(digest, sizeof(digest), bytes, length_bytes, NULL, 0);
    memcpy(body.id, key->sealed.id, sizeof(body.id));
    crypto_sign_detached(body.signature, NULL, digest, sizeof(digest), key->sealed.key);
    memcpy(to_sign, body.signature, crypto_sign_BYTES);
    memcpy(to_sign + crypto_sign_BYTES, comment, comment_bytes + 1);
    crypto_sign_detached(global, NULL, to_sign, crypto_sign_BYTES + comment_bytes, key->sealed.key);
    package_key_id(key, id);
    minisign_encode(body_text, sizeof(body_text), &body, sizeof(body));
    minisign_encode(global_text, sizeof(global_text), global, sizeof(global));
    if (asprintf(text, "untrusted comment: signature of key %s\n%s\ntrusted comment: %s\n%s\n", id,
                 body_text, comment, global_text) < 0)
        return error_set_errno(err, -ENOMEM, "cannot sign");
    return 0;
}
