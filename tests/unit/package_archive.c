// SPDX-License-Identifier: BSD-2-Clause
// The archive: what is written can be read, the same each time; every byte of a small package
// altered, every length of it, and what other tars have in them is refused.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/package.h"
#include "unit.h"

#define TAR_MAX_BYTES (1u << 20)
#define BLOCK 512u

struct tar {
    uint8_t bytes[TAR_MAX_BYTES];
    size_t count;
};

static const struct package_source small[] = {
    {.name = "manifest.json", .bytes = "{}\n", .length_bytes = 3},
    {.name = "manifest.json.minisig", .bytes = "signature\n", .length_bytes = 10},
    {.name = "monitor-full.zst", .bytes = "payload", .length_bytes = 7},
    {.name = "guest/a_1_riscv64.deb", .bytes = "deb", .length_bytes = 3},
};

static int fd_of(const void *bytes, size_t count)
{
    int fd = memfd_create("package", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, bytes, count), count);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void write_tar(struct tar *tar, const struct package_source *sources, size_t count)
{
    int fd = memfd_create("package", MFD_CLOEXEC);
    struct error err = {0};

    if (package_archive_write(fd, sources, count, &err) < 0)
        fail_msg("%s", err.message);
    tar->count = (size_t)fd_pread_full(fd, tar->bytes, TAR_MAX_BYTES, 0);
    close(fd);
}

static int open_tar(const void *bytes, size_t count, struct package_archive **archive,
                    struct error *err)
{
    char path[64];
    int fd = fd_of(bytes, count);

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int rc = package_archive_open(archive, path, err);
    close(fd);
    return rc;
}

static void refuses(const struct tar *tar, size_t count, const char *what)
{
    struct package_archive *archive;
    struct error err = {0};

    if (open_tar(tar->bytes, count, &archive, &err) == 0)
        fail_msg("taken: %s", what);
    assert_int_equal(err.code, -EBADMSG);
    assert_true(err.message[0]);
}

static void check_member(struct package_archive *archive, const struct package_source *source)
{
    const struct package_member *member = package_archive_find(archive, source->name);
    size_t count;
    void *bytes;

    assert_non_null(member);
    assert_int_equal(member->bytes, source->length_bytes);
    assert_int_equal(package_archive_read(archive, source->name, 100, &bytes, &count, NULL), 0);
    assert_int_equal(count, source->length_bytes);
    assert_memory_equal(bytes, source->bytes, count);
    free(bytes);
}

static void test_round(void **state)
{
    struct tar *tar = calloc(1, sizeof(*tar)), *again = calloc(1, sizeof(*again));
    struct package_archive *archive;
    struct error err = {0};
    size_t count;
    void *bytes;
    (void)state;

    write_tar(tar, small, 4);
    if (open_tar(tar->bytes, tar->count, &archive, &err) < 0)
        fail_msg("%s", err.message);
    for (size_t i = 4; i-- > 0;)
        check_member(archive, &small[i]);
    assert_null(package_archive_find(archive, "monitor-none.zst"));
    assert_int_equal(package_archive_read(archive, "none", 9, &bytes, &count, &err), -ENOENT);
    assert_int_equal(package_archive_read(archive, "manifest.json", 2, &bytes, &count, &err),
                     -E2BIG);

    // From that archive, and from descriptors, comes the same.
    struct package_source sources[4];
    memcpy(sources, small, sizeof(small));
    for (size_t i = 0; i < 4; i++) {
        sources[i].bytes = NULL;
        sources[i].archive = i < 2 ? archive : NULL;
        sources[i].fd = fd_of(small[i].bytes, small[i].length_bytes);
    }
    write_tar(again, sources, 4);
    assert_int_equal(tar->count, again->count);
    assert_memory_equal(tar->bytes, again->bytes, tar->count);
    sources[2].length_bytes++;  // there is less than that
    assert_int_equal(lseek(sources[2].fd, 0, SEEK_SET), 0);
    int fd = memfd_create("package", MFD_CLOEXEC);
    assert_int_equal(package_archive_write(fd, sources, 4, &err), -EBADMSG);
    for (size_t i = 0; i < 4; i++)
        close(sources[i].fd);
    close(fd);
    package_archive_close(archive);
    free(tar);
    free(again);
}

static bool in_contents(size_t at)
{
    // Each member of `small` is one block behind its header.
    size_t block = at / BLOCK;

    return block < 8 && block % 2 == 1 && at % BLOCK < small[block / 2].length_bytes;
}

// Contents are for digests and signature to protect; everything else is for the reader.
static void test_altered(void **state)
{
    struct tar *tar = calloc(1, sizeof(*tar));
    struct package_archive *archive;
    unsigned taken = 0;
    (void)state;

    write_tar(tar, small, 4);
    for (size_t at = 0; at < tar->count; at++) {
        tar->bytes[at] ^= 1;
        if (in_contents(at)) {
            assert_int_equal(open_tar(tar->bytes, tar->count, &archive, NULL), 0);
            package_archive_close(archive);
            taken++;
        } else {
            refuses(tar, tar->count, "an altered byte");
        }
        tar->bytes[at] ^= 1;
    }
    assert_int_equal(taken, 3 + 10 + 7 + 3);
    for (size_t count = 0; count < tar->count; count++)
        refuses(tar, count, "a length");
    refuses(tar, tar->count + BLOCK, "zeros behind it");
    refuses(tar, tar->count + 10240, "a record behind it");
    printf("%zu bytes altered and %zu lengths refused\n", tar->count - taken, tar->count);
    free(tar);
}

// ---- What other tars have -----------------------------------------------------------------------

static void set_sum(uint8_t *header)
{
    unsigned sum = 0;

    memset(header + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf((char *)header + 148, 7, "%06o", sum);
}

// What is put where in the first header, and its check sum made right.
static const struct {
    const char *what;
    size_t offset;
    const char *bytes;
    size_t count;
} headers[] = {
#define HEADER(what, offset, bytes)                                                                \
    {                                                                                              \
        what, offset, bytes, sizeof(bytes) - 1                                                     \
    }
    HEADER("a folder", 156, "5"),
    HEADER("a hard link", 156, "1"),
    HEADER("a symbolic link", 156, "2"),
    HEADER("a device", 156, "3"),
    HEADER("a pipe", 156, "6"),
    HEADER("a contiguous file", 156, "7"),
    HEADER("a pax header", 156, "x"),
    HEADER("a global pax header", 156, "g"),
    HEADER("a long name of GNU", 156, "L"),
    HEADER("a long link of GNU", 156, "K"),
    HEADER("a sparse file of GNU", 156, "S"),
    HEADER("a volume's name of GNU", 156, "V"),
    HEADER("an old tar's file", 156, "\0"),
    HEADER("GNU's magic", 257, "ustar  \0"),
    HEADER("no magic", 257, "\0\0\0\0\0\0\0\0"),
    HEADER("a prefix", 345, "guest"),
    HEADER("a link's name", 157, "/etc/passwd"),
    HEADER("an owner", 265, "root"),
    HEADER("another mode", 100, "0000755"),
    HEADER("set-user-ID", 100, "0004644"),
    HEADER("another user", 108, "0000001"),
    HEADER("a time", 136, "00000000001"),
    HEADER("spaces in a number", 124, "          3"),
    HEADER("a size in base 256", 124, "\x80\0\0\0\0\0\0\0\0\0\0\3"),
    HEADER("a negative size", 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    HEADER("the largest size", 124, "77777777777"),
    HEADER("a size without end", 124, "000000000030"),
    HEADER("no digits", 124, "0000000000x"),
    HEADER("an absolute name", 0, "/anifest.json"),
    HEADER("a name above", 0, "../ifest.json"),
    HEADER("a name above, below", 0, "m/../est.json"),
    HEADER("a name here", 0, "./nifest.json"),
    HEADER("a hidden name", 0, ".anifest.json"),
    HEADER("a hidden name below", 0, "m/.ifest.json"),
    HEADER("an option", 0, "-anifest.json"),
    HEADER("a deep name", 0, "m/n/fest.json"),
    HEADER("a folder's name", 0, "manifest.jso/"),
    HEADER("a name with a space", 0, "manifest json"),
    HEADER("a name with a line's end", 0, "manifest\njson"),
    HEADER("a name of another alphabet", 0, "manif\xc3\xa9st.json"),
    HEADER("no name", 0, "\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    HEADER("a name with an end in it", 0, "manifest\0json"),
    HEADER("a name twice", 0, "monitor-full.zst"),
#undef HEADER
};

static void test_headers(void **state)
{
    struct tar *tar = calloc(1, sizeof(*tar));
    (void)state;

    for (size_t i = 0; i < BASE_COUNT_OF(headers); i++) {
        write_tar(tar, small, 4);
        memcpy(tar->bytes + headers[i].offset, headers[i].bytes, headers[i].count);
        set_sum(tar->bytes);
        refuses(tar, tar->count, headers[i].what);
        printf("refused %s\n", headers[i].what);
    }
    // The longest name that fills the field has no end.
    write_tar(tar, small, 4);
    memset(tar->bytes, 'm', 100);
    set_sum(tar->bytes);
    refuses(tar, tar->count, "a name without end");
    memset(tar->bytes + 99, 0, 1);
    set_sum(tar->bytes);
    struct package_archive *archive;
    assert_int_equal(open_tar(tar->bytes, tar->count, &archive, NULL), 0);
    package_archive_close(archive);
    free(tar);
}

static void test_writer_refuses(void **state)
{
    static const char *const names[] = {"", "/m", "../m", ".m", "m/", "m/n/o", "m\n", NULL};
    int fd = memfd_create("package", MFD_CLOEXEC);
    char name[102];
    (void)state;

    for (size_t i = 0; names[i]; i++) {
        struct package_source source = {.name = names[i], .bytes = "", .length_bytes = 0};
        assert_int_equal(package_archive_write(fd, &source, 1, NULL), -EINVAL);
    }
    memset(name, 'm', 101);
    name[100] = '\0';
    struct package_source source = {.name = name, .bytes = "", .length_bytes = 0};
    assert_int_equal(package_archive_write(fd, &source, 1, NULL), -EINVAL);
    name[99] = '\0';
    assert_int_equal(package_archive_write(fd, &source, 1, NULL), 0);
    source.length_bytes = PACKAGE_FILE_MAX_BYTES;
    assert_int_equal(package_archive_write(fd, &source, 1, NULL), -EINVAL);
    close(fd);
}

static void test_too_many(void **state)
{
    struct package_source sources[PACKAGE_MEMBERS_MAX + 1] = {0};
    char names[PACKAGE_MEMBERS_MAX + 1][16];
    struct tar *tar = calloc(1, sizeof(*tar));
    struct package_archive *archive;
    (void)state;

    for (size_t i = 0; i <= PACKAGE_MEMBERS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "file%zu", i);
        sources[i] = (struct package_source){.name = names[i], .bytes = ""};
    }
    write_tar(tar, sources, PACKAGE_MEMBERS_MAX);
    assert_int_equal(open_tar(tar->bytes, tar->count, &archive, NULL), 0);
    package_archive_close(archive);
    write_tar(tar, sources, PACKAGE_MEMBERS_MAX + 1);
    refuses(tar, tar->count, "too many files");
    free(tar);
}

// ---- Against a manifest -------------------------------------------------------------------------

static int check_against(const struct package_source *sources, size_t count)
{
    struct package_payload payload = {.file = {.name = "monitor-full.zst", .bytes = 7}};
    struct package_extension extension = {.file = {.name = "guest/a_1_riscv64.deb", .bytes = 3}};
    struct package_manifest manifest = {
        .payloads = &payload, .payload_count = 1, .extensions = &extension, .extension_count = 1};
    struct tar *tar = calloc(1, sizeof(*tar));
    struct package_archive *archive;
    struct error err = {0};

    write_tar(tar, sources, count);
    assert_int_equal(open_tar(tar->bytes, tar->count, &archive, NULL), 0);
    int rc = package_archive_check(archive, &manifest, &err);
    assert_int_equal(rc == 0, err.message[0] == '\0');
    package_archive_close(archive);
    free(tar);
    return rc;
}

static void test_manifest(void **state)
{
    struct package_source sources[5];
    (void)state;

    memcpy(sources, small, sizeof(small));
    assert_int_equal(check_against(sources, 4), 0);
    assert_int_equal(check_against(sources, 3), -EBADMSG);  // one is missing
    sources[4] = (struct package_source){.name = "more", .bytes = "", .length_bytes = 0};
    assert_int_equal(check_against(sources, 5), -EBADMSG);
    sources[2].length_bytes--;
    assert_int_equal(check_against(sources, 4), -EBADMSG);
    sources[2] = small[3];
    sources[3] = small[2];
    assert_int_equal(check_against(sources, 4), -EBADMSG);  // the wrong way round
    sources[1] = small[2];
    sources[2] = small[3];
    assert_int_equal(check_against(sources, 3), 0);             // not signed
    assert_int_equal(check_against(sources + 1, 2), -EBADMSG);  // no manifest
}

// ---- Folders ------------------------------------------------------------------------------------

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void drop(const char *folder, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    assert_int_equal(remove(path), 0);
}

static void folder_refused(const char *folder, const char *odd)
{
    struct package_archive *archive;
    struct error err = {0};

    assert_true(package_archive_open(&archive, folder, &err) < 0);
    assert_true(err.message[0]);
    drop(folder, odd);
}

static void test_folder(void **state)
{
    char folder[] = "/tmp/strake-unit-XXXXXX", path[128];
    struct package_archive *archive;
    struct error err = {0};
    (void)state;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/guest", folder);
    assert_int_equal(mkdir(path, 0755), 0);
    for (size_t i = 0; i < 4; i++)
        put_file(folder, small[i].name, small[i].bytes);
    if (package_archive_open(&archive, folder, &err) < 0)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < 4; i++)
        check_member(archive, &small[i]);
    package_archive_close(archive);

    put_file(folder, ".hidden", "");
    folder_refused(folder, ".hidden");
    put_file(folder, "guest/a b", "");
    folder_refused(folder, "guest/a b");
    snprintf(path, sizeof(path), "%s/more", folder);
    assert_int_equal(mkdir(path, 0755), 0);
    folder_refused(folder, "more");
    assert_int_equal(mkfifo(path, 0644), 0);
    folder_refused(folder, "more");
    assert_int_equal(symlink("manifest.json", path), 0);
    folder_refused(folder, "more");
    snprintf(path, sizeof(path), "%s/guest/guest", folder);
    assert_int_equal(mkdir(path, 0755), 0);
    folder_refused(folder, "guest/guest");

    for (size_t i = 0; i < 4; i++)
        drop(folder, small[i].name);
    drop(folder, "guest");
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(package_archive_open(&archive, folder, &err), -ENOENT);
    assert_int_equal(package_archive_open(&archive, "/dev/zero", &err), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),    cmocka_unit_test(test_altered),
        cmocka_unit_test(test_headers),  cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_too_many), cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
