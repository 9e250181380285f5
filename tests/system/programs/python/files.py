# SPDX-License-Identifier: BSD-2-Clause
import array, contextlib, fcntl, io, mmap, os, pathlib, shutil, stat, tempfile, time, zipfile, zlib, bz2, lzma

folder = pathlib.Path("tree")
for name in ("a/one", "a/b/two", "c/three"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name * 1000)
    os.utime(path, ns=(10 ** 18, 10 ** 18 + 123456789))
(folder / "link").symlink_to("a/one")
os.link(folder / "a/one", folder / "c/hard")
for where, folders, files in sorted(os.walk(folder)):
    print(where, sorted(folders), sorted(files))
status = os.stat(folder / "link")
print(status.st_size, status.st_nlink, stat.filemode(status.st_mode), status.st_mtime_ns)
print(os.readlink(folder / "link"), stat.filemode(os.lstat(folder / "link").st_mode))
print(sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in os.scandir(folder)))
shutil.copytree(folder, "copy", symlinks=True)
os.rename("copy/a", "copy/z")
os.chmod("copy/z/one", 0o440)
print(sorted(map(str, pathlib.Path("copy").rglob("*"))), oct(os.stat("copy/z/one").st_mode))
with open("sparse", "w+b") as file:
    file.seek(1 << 30)
    file.write(b"end")
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    print(file.tell(), os.fstat(file.fileno()).st_blocks < 1000, os.pread(file.fileno(), 10, (1 << 30) - 3))
    os.ftruncate(file.fileno(), 8192)
    with mmap.mmap(file.fileno(), 8192) as view:
        view[4094:4100] = b"across"
        view.flush()
        print(view.find(b"across"), view.size())
    os.lseek(file.fileno(), 4090, os.SEEK_SET)
    print(os.read(file.fileno(), 12), os.readv(file.fileno(), [bytearray(5), bytearray(6)]))
    fcntl.flock(file, fcntl.LOCK_EX)
    with open("sparse", "rb") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            print(error)
    fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
for path in ("missing", "tree", "tree/a/one/x"):
    try:
        open(path, "w" if path == "tree" else "r")
    except OSError as error:
        print(error)
text = "".join(f"line {i}\n" for i in range(20000)).encode()
for module in (zlib, bz2, lzma):
    print(module.__name__, module.decompress(module.compress(text)) == text)
with zipfile.ZipFile("archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("inside", text)
with zipfile.ZipFile("archive.zip") as archive:
    print(archive.namelist(), archive.read("inside") == text, archive.testzip())
with tempfile.TemporaryDirectory() as scratch:
    print(pathlib.Path(scratch).is_dir())
print(pathlib.Path(scratch).exists(), sorted(os.listdir(".")))
print(os.access("copy/z/one", os.R_OK), shutil.disk_usage(".").total > 0, os.statvfs(".").f_bsize > 0)
os.sendfile(os.open("sent", os.O_WRONLY | os.O_CREAT), os.open("archive.zip", os.O_RDONLY), 0, 1 << 20)
print(os.stat("sent").st_size == os.stat("archive.zip").st_size)
with contextlib.redirect_stdout(io.StringIO()) as caught:
    print("caught")
print(repr(caught.getvalue()), array.array("d", [1.5, 2]).tobytes())
print(time.strftime("%c", time.gmtime(1e9)), time.mktime((2001, 9, 9, 1, 46, 40, 0, 0, 0)))
