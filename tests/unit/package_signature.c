// SPDX-License-Identifier: BSD-2-Clause
// Signatures and keys: every byte counts, a cut anywhere is noticed, revoked keys are revoked
// whatever else is there. (That minisign itself agrees is tests/system/package.py's.)
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/minisign.h"
#include "package/package.h"
#include "unit.h"

static const char manifest[] = "{\"any\": \"bytes\"}\n";

struct bench {
    char folder[32];
    struct package_key *key, *other;
};

static void write_file(const struct bench *bench, const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", bench->folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_public(const struct bench *bench, const char *name, const struct package_key *key)
{
    char *text;

    assert_int_equal(package_key_public_text(key, &text), 0);
    write_file(bench, name, text);
    free(text);
}

static void remove_file(const struct bench *bench, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", bench->folder, name);
    assert_int_equal(unlink(path), 0);
}

static void set_up(struct bench *bench)
{
    strcpy(bench->folder, "/tmp/strake-unit-XXXXXX");
    assert_non_null(mkdtemp(bench->folder));
    assert_int_equal(package_key_generate(&bench->key, NULL), 0);
    assert_int_equal(package_key_generate(&bench->other, NULL), 0);
    write_public(bench, "mine.pub", bench->key);
    write_file(bench, "README", "is no key\n");
}

static void tear_down(struct bench *bench)
{
    remove_file(bench, "mine.pub");
    remove_file(bench, "README");
    assert_int_equal(rmdir(bench->folder), 0);
    package_key_destroy(bench->key);
    package_key_destroy(bench->other);
}

static char *sign(const struct package_key *key)
{
    struct error err = {0};
    char *text = NULL;

    if (package_sign(key, manifest, strlen(manifest), "version 0.2.0", &text, &err) < 0)
        fail_msg("%s", err.message);
    return text;
}

static enum package_signature verify(const struct package_trust *trust, const char *bytes,
                                     const char *signature, size_t length)
{
    static const int codes[] = {[PACKAGE_SIGNATURE_GOOD] = 0,
                                [PACKAGE_SIGNATURE_MALFORMED] = -EBADMSG,
                                [PACKAGE_SIGNATURE_UNKNOWN_KEY] = -ENOKEY,
                                [PACKAGE_SIGNATURE_REVOKED_KEY] = -EKEYREVOKED,
                                [PACKAGE_SIGNATURE_BAD] = -EKEYREJECTED};
    char id[PACKAGE_KEY_ID_CHARS];
    enum package_signature verdict;
    struct error err = {0};
    char *exact = malloc(length + !length);  // so that ASan sees what is read beyond

    memcpy(exact, signature, length);
    int rc =
        package_verify_signature(bytes, strlen(bytes), exact, length, trust, id, &verdict, &err);
    free(exact);
    assert_int_equal(rc, codes[verdict]);
    assert_int_equal(rc == 0, err.message[0] == '\0');
    assert_int_equal(strlen(id), verdict == PACKAGE_SIGNATURE_MALFORMED ? 0 : 16);
    return verdict;
}

static enum package_signature verify_in(const struct bench *bench, const char *signature)
{
    struct package_trust *trust;
    struct error err = {0};

    if (package_trust_load(&trust, bench->folder, &err) < 0)
        fail_msg("%s", err.message);
    enum package_signature verdict = verify(trust, manifest, signature, strlen(signature));
    package_trust_destroy(trust);
    return verdict;
}

// Two keys in three files, one of which revokes the first.
static void check_listed(const struct bench *bench)
{
    struct package_trust *trust;
    unsigned revoked = 0;

    assert_int_equal(package_trust_load(&trust, bench->folder, NULL), 0);
    assert_int_equal(package_trust_count(trust), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct package_trust_key key = package_trust_key(trust, i);
        assert_int_equal(strlen(key.id), PACKAGE_KEY_ID_CHARS - 1);
        assert_true(i == 0 || strcmp(package_trust_key(trust, i - 1).file, key.file) < 0);
        assert_int_equal(key.revoked, strcmp(key.file, "rotated.pub") != 0);
        revoked += key.revoked;
    }
    assert_int_equal(revoked, 2);
    package_trust_destroy(trust);
}

static void test_verdicts(void **state)
{
    struct bench bench;
    (void)state;

    set_up(&bench);
    char *mine = sign(bench.key), *others = sign(bench.other), *again = sign(bench.key);
    assert_string_equal(mine, again);
    assert_int_equal(verify_in(&bench, mine), PACKAGE_SIGNATURE_GOOD);
    assert_int_equal(verify_in(&bench, others), PACKAGE_SIGNATURE_UNKNOWN_KEY);
    write_public(&bench, "rotated.pub", bench.other);
    assert_int_equal(verify_in(&bench, others), PACKAGE_SIGNATURE_GOOD);
    write_public(&bench, "whatever.revoked", bench.key);
    assert_int_equal(verify_in(&bench, mine), PACKAGE_SIGNATURE_REVOKED_KEY);
    assert_int_equal(verify_in(&bench, others), PACKAGE_SIGNATURE_GOOD);
    check_listed(&bench);
    remove_file(&bench, "whatever.revoked");
    remove_file(&bench, "rotated.pub");
    free(mine);
    free(others);
    free(again);
    tear_down(&bench);
}

// The same key under another id: what is revoked is the key.
static void test_revoked_by_another_name(void **state)
{
    struct bench bench;
    struct package_key *twin;
    struct package_trust *trust;
    char *text;
    (void)state;

    set_up(&bench);
    assert_int_equal(package_key_secret_text(bench.key, NULL, &text, NULL), 0);
    assert_int_equal(package_key_parse(&twin, text, strlen(text), NULL, NULL), 0);
    *(uint8_t *)twin ^= 1;  // its first byte is the id's
    write_public(&bench, "twin.pub", twin);
    char *signature = sign(twin);
    assert_int_equal(verify_in(&bench, signature), PACKAGE_SIGNATURE_GOOD);
    write_public(&bench, "mine.revoked", bench.key);
    assert_int_equal(verify_in(&bench, signature), PACKAGE_SIGNATURE_REVOKED_KEY);
    remove_file(&bench, "mine.revoked");

    // A file that might revoke something, and cannot be read, is not passed over.
    write_file(&bench, "mine.revoked", "RWQ\n");
    struct error err = {0};
    assert_int_equal(package_trust_load(&trust, bench.folder, &err), -EBADMSG);
    assert_non_null(strstr(err.message, "mine.revoked"));
    remove_file(&bench, "mine.revoked");
    remove_file(&bench, "twin.pub");
    package_key_destroy(twin);
    free(text);
    free(signature);
    tear_down(&bench);
}

static int load_with(const struct bench *bench, const char *name, mode_t mode, const char *told)
{
    struct package_trust *trust;
    struct error err = {0};
    struct stat was;
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", bench->folder, name);
    assert_int_equal(stat(path, &was), 0);
    assert_int_equal(chmod(path, mode), 0);
    int rc = package_trust_load(&trust, bench->folder, &err);
    assert_int_equal(chmod(path, was.st_mode & 07777), 0);
    if (rc == 0)
        package_trust_destroy(trust);
    else
        assert_non_null(strstr(err.message, told));
    return rc;
}

// Nobody else can add a key, replace one, or take a revocation back.
static void test_writers(void **state)
{
    struct bench bench;
    (void)state;

    set_up(&bench);
    write_public(&bench, "other.revoked", bench.other);
    for (mode_t bit = 1; bit <= 0777; bit <<= 1) {
        int expected = bit & (S_IWGRP | S_IWOTH) ? -EPERM : 0;
        assert_int_equal(load_with(&bench, ".", 0700 | bit, bench.folder), expected);
        assert_int_equal(load_with(&bench, "mine.pub", 0600 | bit, "mine.pub"), expected);
        assert_int_equal(load_with(&bench, "other.revoked", 0600 | bit, "other.revoked"), expected);
        assert_int_equal(load_with(&bench, "README", 0600 | bit, ""), 0);  // is no key
    }
    if (geteuid() == 0) {
        char path[128];
        snprintf(path, sizeof(path), "%s/mine.pub", bench.folder);
        assert_int_equal(chown(path, 12345, 0), 0);
        assert_int_equal(load_with(&bench, "mine.pub", 0644, "mine.pub"), -EPERM);
    }
    remove_file(&bench, "other.revoked");
    tear_down(&bench);
}

static void test_no_folder(void **state)
{
    struct package_trust *trust;
    struct bench bench;
    (void)state;

    set_up(&bench);
    char *signature = sign(bench.key);
    assert_int_equal(package_trust_load(&trust, "/nowhere/trusted.d", NULL), 0);
    assert_int_equal(verify(trust, manifest, signature, strlen(signature)),
                     PACKAGE_SIGNATURE_UNKNOWN_KEY);
    package_trust_destroy(trust);
    assert_int_equal(package_trust_load(&trust, "/proc/self/exe", NULL), -ENOTDIR);
    free(signature);
    tear_down(&bench);
}

// Every byte of signature and manifest changed in turn, and the signature cut at every length: only
// the untrusted comment may say what it likes.
static void test_altered(void **state)
{
    unsigned verdicts[PACKAGE_SIGNATURE_BAD + 1] = {0};
    struct package_trust *trust;
    struct bench bench;
    char bytes[sizeof(manifest)];
    (void)state;

    set_up(&bench);
    char *signature = sign(bench.key);
    size_t comment_end = strcspn(signature, "\n");
    assert_int_equal(package_trust_load(&trust, bench.folder, NULL), 0);
    for (size_t i = 0; signature[i]; i++) {
        char was = signature[i];
        signature[i] ^= 1;
        enum package_signature verdict = verify(trust, manifest, signature, strlen(signature));
        verdicts[verdict]++;
        bool untrusted = i < comment_end && i >= strlen("untrusted comment: ");
        assert_int_equal(verdict == PACKAGE_SIGNATURE_GOOD, untrusted);
        signature[i] = was;
    }
    for (size_t length = 0; length < strlen(signature); length++)
        assert_int_equal(verify(trust, manifest, signature, length), PACKAGE_SIGNATURE_MALFORMED);
    for (size_t i = 0; manifest[i]; i++) {
        strcpy(bytes, manifest);
        bytes[i] ^= 1;
        assert_int_equal(verify(trust, bytes, signature, strlen(signature)), PACKAGE_SIGNATURE_BAD);
    }
    // Bytes that are no letters of base64, all of them, in the place of each letter.
    for (size_t i = comment_end + 1; signature[i] != '\n'; i++) {
        char was = signature[i];
        for (int byte = 128; byte < 256; byte++) {
            signature[i] = (char)byte;
            assert_int_equal(verify(trust, manifest, signature, strlen(signature)),
                             PACKAGE_SIGNATURE_MALFORMED);
        }
        signature[i] = was;
    }
    printf("bytes of the signature altered: %u malformed, %u of an unknown key, %u bad, %u good "
           "(untrusted comment)\n",
           verdicts[PACKAGE_SIGNATURE_MALFORMED], verdicts[PACKAGE_SIGNATURE_UNKNOWN_KEY],
           verdicts[PACKAGE_SIGNATURE_BAD], verdicts[PACKAGE_SIGNATURE_GOOD]);
    package_trust_destroy(trust);
    free(signature);
    tear_down(&bench);
}

static void test_long(void **state)
{
    struct package_trust *trust;
    struct bench bench;
    char *text, comment[PACKAGE_SIGNATURE_MAX_BYTES + 1];
    (void)state;

    set_up(&bench);
    assert_int_equal(package_trust_load(&trust, bench.folder, NULL), 0);
    memset(comment, 'c', sizeof(comment));
    comment[PACKAGE_SIGNATURE_MAX_BYTES] = '\0';
    assert_int_equal(package_sign(bench.key, manifest, strlen(manifest), comment, &text, NULL),
                     -EINVAL);
    comment[PACKAGE_SIGNATURE_MAX_BYTES - 512] = '\0';
    assert_int_equal(package_sign(bench.key, manifest, strlen(manifest), comment, &text, NULL), 0);
    assert_true(strlen(text) <= PACKAGE_SIGNATURE_MAX_BYTES);
    assert_int_equal(verify(trust, manifest, text, strlen(text)), PACKAGE_SIGNATURE_GOOD);
    free(text);
    assert_int_equal(package_sign(bench.key, manifest, strlen(manifest), "a\nb", &text, NULL),
                     -EINVAL);

    // Longer than it may be, if by its untrusted comment only.
    char *signature = sign(bench.key);
    size_t body = strcspn(signature, "\n");
    assert_true(asprintf(&text, "untrusted comment: %s%s", comment, signature + body) > 0);
    assert_int_equal(verify(trust, manifest, text, strlen(text)), PACKAGE_SIGNATURE_GOOD);
    free(text);
    assert_true(asprintf(&text, "untrusted comment: %s%s%s", comment, comment, signature + body) >
                0);
    assert_int_equal(verify(trust, manifest, text, strlen(text)), PACKAGE_SIGNATURE_MALFORMED);
    free(text);
    free(signature);
    package_trust_destroy(trust);
    tear_down(&bench);
}

static int parse_secret(const char *text, size_t length, const char *password)
{
    struct package_key *key;
    struct error err = {0};
    int rc = package_key_parse(&key, text, length, password, &err);

    if (rc == 0)
        package_key_destroy(key);
    else
        assert_true(err.message[0]);
    return rc;
}

// As a secret key in the clear, and as one that is encrypted with as little work as scrypt allows
// (minisign's own takes 1 GiB; tests/system/package.py does that).
static char *encrypt(const char *clear, const char *password, uint64_t operations, uint64_t memory)
{
    struct minisign_reader reader = {clear, clear + strlen(clear)};
    struct minisign_secret secret;
    uint8_t stream[sizeof(secret.sealed)];
    char encoded[512], *text;
    size_t length;

    assert_non_null(minisign_line(&reader, "untrusted comment: ", &length));
    assert_true(minisign_line_bytes(&reader, &secret, sizeof(secret)));
    memcpy(secret.kdf, "Sc", 2);
    memset(secret.salt, 0x5a, sizeof(secret.salt));
    for (unsigned i = 0; i < 8; i++) {
        secret.operations[i] = (uint8_t)(operations >> 8 * i);
        secret.memory_bytes[i] = (uint8_t)(memory >> 8 * i);
    }
    if (operations < 1 << 20)
        assert_int_equal(crypto_pwhash_scryptsalsa208sha256(stream, sizeof(stream), password,
                                                            strlen(password), secret.salt,
                                                            operations, memory),
                         0);
    for (size_t i = 0; i < sizeof(stream); i++)
        ((uint8_t *)&secret.sealed)[i] ^= stream[i];
    minisign_encode(encoded, sizeof(encoded), &secret, sizeof(secret));
    assert_true(asprintf(&text, "untrusted comment: any\n%s\n", encoded) > 0);
    return text;
}

static void test_secrets(void **state)
{
    struct bench bench;
    char *clear;
    (void)state;

    set_up(&bench);
    assert_int_equal(package_key_secret_text(bench.key, NULL, &clear, NULL), 0);
    assert_int_equal(parse_secret(clear, strlen(clear), NULL), 0);
    for (size_t length = 0; length < strlen(clear); length++)
        assert_int_equal(parse_secret(clear, length, NULL), -EBADMSG);
    char *body = strchr(clear, '\n') + 1;
    unsigned taken = 0;
    for (char *c = body; *c; c++) {
        char was = *c;
        *c = was == 'A' ? 'B' : 'A';
        taken += parse_secret(clear, strlen(clear), NULL) == 0;
        *c = was;
    }
    // In the clear, salt, limits and check sum are of no meaning, and the id may be any.
    struct minisign_secret *none = NULL;
    assert_true(taken <= (sizeof(none->salt) + 16 + sizeof(none->sealed.id) +
                          sizeof(none->sealed.check) + 4) *
                             4 / 3);
    assert_true(taken > 0);
    printf("characters of a secret key in the clear altered: %u taken, of %zu\n", taken,
           strlen(body));

    uint64_t operations = crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_MIN,
             memory = crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_MIN;
    char *encrypted = encrypt(clear, "open sesame", operations, memory);
    assert_int_equal(parse_secret(encrypted, strlen(encrypted), "open sesame"), 0);
    assert_int_equal(parse_secret(encrypted, strlen(encrypted), "open says me"), -EKEYREJECTED);
    assert_int_equal(parse_secret(encrypted, strlen(encrypted), NULL), -EACCES);
    free(encrypted);
    encrypted = encrypt(clear, "", 1ull << 40, memory);
    assert_int_equal(parse_secret(encrypted, strlen(encrypted), ""), -EBADMSG);
    free(encrypted);
    free(clear);
    tear_down(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_revoked_by_another_name),
        cmocka_unit_test(test_writers),  cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_altered),  cmocka_unit_test(test_long),
        cmocka_unit_test(test_secrets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
