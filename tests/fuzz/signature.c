// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the readers of minisign's files. The input's first byte says whether the rest is
// a signature, a public key or a secret key. No input is the signature of a key that is trusted
// here but the one that is in the corpus.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "package/package.h"
#include "replay.h"

static const char manifest[] = "{\"any\": \"bytes\"}\n";

// A key that was made for this, and its signature of the bytes above.
#define KEY_LINE "RWRChViF3N4KsvVGJzYf+bKAMzppsMidyilq16Fx74hsttAK3A0t6UAd"
#define SIGNATURE_LINES                                                                            \
    "RURChViF3N4KsrjWslMCnL3BIEGalRMXrnznhqecZvPGkgn/"                                             \
    "LnEZwGIuhUWgB+KVozYRRqBiVaJFJmKwT6ZJVQK6T2VQVEr52Qk=\n"                                       \
    "trusted comment: for the fuzz target\n"                                                       \
    "s12vsUKuSzj8Dav0/W4TwbTFUqxhLHNI3G9yrQ4aDAsGyjb9t1WiobEITWkL/+HDfdVPmTStkm6PJ3/7fRTeBw==\n"

static void promise(bool kept)
{
    if (!kept)
        abort();
}

// As a file of its own; the path is good as long as the descriptor.
static int file_of(const void *bytes, size_t count, char path[64])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    promise(fd >= 0 && fd_write_full(fd, bytes, count) == (int64_t)count);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

static struct package_trust *make_trust(void)
{
    static const char key[] = "untrusted comment: any\n" KEY_LINE "\n";
    struct package_trust *trust;
    char path[64];
    int fd = file_of(key, strlen(key), path);

    promise(package_trust_create(&trust) == 0 && package_trust_add(trust, path, NULL) == 0);
    close(fd);
    return trust;
}

// Behind the untrusted comment it must be what was signed.
static bool is_known(const uint8_t *bytes, size_t count)
{
    const uint8_t *end = memchr(bytes, '\n', count);
    size_t left = end ? count - (size_t)(end + 1 - bytes) : 0;

    return left == strlen(SIGNATURE_LINES) && memcmp(end + 1, SIGNATURE_LINES, left) == 0;
}

static void try_signature(const uint8_t *bytes, size_t count)
{
    struct package_trust *trust = make_trust();
    enum package_signature verdict;
    char id[PACKAGE_KEY_ID_CHARS];
    struct error err = {0};

    int rc = package_verify_signature(manifest, strlen(manifest), bytes, count, trust, id, &verdict,
                                      &err);
    promise((rc == 0) == (verdict == PACKAGE_SIGNATURE_GOOD));
    promise(rc < 0 || is_known(bytes, count));
    promise((rc == 0) == !err.message[0]);
    promise(strlen(id) == (verdict == PACKAGE_SIGNATURE_MALFORMED ? 0 : 16));
    package_trust_destroy(trust);
}

static void try_public(const uint8_t *bytes, size_t count)
{
    struct package_trust *trust;
    struct error err = {0};
    char path[64];
    int fd = file_of(bytes, count, path);

    promise(package_trust_create(&trust) == 0);
    int rc = package_trust_add(trust, path, &err);
    promise(rc == 0 || (rc == -EBADMSG && err.message[0]));
    package_trust_destroy(trust);
    close(fd);
}

// A key that is taken comes back as it was. No password is tried: scrypt may take a gigabyte.
static void try_secret(const uint8_t *bytes, size_t count)
{
    struct package_key *key, *again;
    struct error err = {0};
    char *text, *text_again;
    int rc = package_key_parse(&key, bytes, count, NULL, &err);

    promise(rc == 0 || ((rc == -EBADMSG || rc == -EACCES) && err.message[0]));
    if (rc < 0)
        return;
    promise(package_key_secret_text(key, NULL, &text, NULL) == 0);
    promise(package_key_parse(&again, text, strlen(text), NULL, NULL) == 0);
    promise(package_key_secret_text(again, NULL, &text_again, NULL) == 0);
    promise(strlen(text) == strlen(text_again));
    free(text);
    free(text_again);
    package_key_destroy(key);
    package_key_destroy(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t count)
{
    static void (*const tries[])(const uint8_t *, size_t) = {try_signature, try_public, try_secret};

    if (count < 2)
        return 0;
    uint8_t *bytes = malloc(count - 1);  // exact, so that ASan sees what is read beyond
    promise(bytes);
    memcpy(bytes, input + 1, count - 1);
    tries[*input % 3](bytes, count - 1);
    free(bytes);
    return 0;
}
