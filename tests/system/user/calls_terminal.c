// SPDX-License-Identifier: BSD-2-Clause
// A terminal of its own: modes, size, sessions, and what ioctl does not know.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "check.h"

static void modes(int master, int terminal)
{
    struct termios mode, again;
    struct winsize size = {24, 80, 1, 2}, read_size = {0};
    char bytes[64] = "";
    int count = 0;

    check(isatty(terminal) && isatty(master) && strncmp(ttyname(terminal), "/dev/pts/", 9) == 0,
          "a terminal with a name");
    check(tcgetattr(terminal, &mode) == 0 && (mode.c_lflag & (ICANON | ECHO)) == (ICANON | ECHO) &&
              mode.c_cc[VINTR] == 3 && cfgetospeed(&mode) == B38400,
          "has its usual modes");
    check(ioctl(master, TIOCSWINSZ, &size) == 0 && ioctl(terminal, TIOCGWINSZ, &read_size) == 0 &&
              memcmp(&size, &read_size, sizeof(size)) == 0,
          "its size is what it is set to");
    write(master, "line\n", 5);
    check(read(terminal, bytes, sizeof(bytes)) == 5 && memcmp(bytes, "line\n", 5) == 0,
          "a line is read");
    check(read(master, bytes, sizeof(bytes)) == 6 && memcmp(bytes, "line\r\n", 6) == 0,
          "and echoed");
    cfmakeraw(&mode);
    mode.c_cc[VMIN] = 1;
    check(tcsetattr(terminal, TCSAFLUSH, &mode) == 0 && tcgetattr(terminal, &again) == 0 &&
              again.c_lflag == mode.c_lflag && again.c_oflag == mode.c_oflag,
          "raw");
    write(master, "\003x", 2);
    check(poll(&(struct pollfd){.fd = terminal, .events = POLLIN}, 1, 10000) == 1 &&
              ioctl(terminal, FIONREAD, &count) == 0 && count == 2 &&
              read(terminal, bytes, 8) == 2 && bytes[0] == 3,
          "nothing is special then");
    write(terminal, "\n", 1);
    check(read(master, bytes, 8) == 1, "nor on the way out");
    check(tcdrain(terminal) == 0 && tcflush(terminal, TCIOFLUSH) == 0 &&
              tcsendbreak(terminal, 0) == 0,
          "drained, flushed, broken");
}

static volatile sig_atomic_t caught;

static void on_signal(int signal)
{
    caught = signal;
}

static bool catches(int signal)
{
    for (int i = 0; i < 10000 && caught != signal; i++)
        usleep(1000);
    return caught == signal;
}

// In a session whose terminal it is.
static int in_session(int terminal, int master)
{
    struct termios mode;
    struct winsize size = {10, 10, 0, 0};
    pid_t group = 0;

    if (setsid() != getpid() || ioctl(terminal, TIOCSCTTY, 0))
        return 1;
    if (tcgetpgrp(terminal) != getpid() || tcgetsid(terminal) != getpid())
        return 2;
    if (ioctl(terminal, TIOCGPGRP, &group) || group != getpid())
        return 3;
    tcgetattr(terminal, &mode);
    mode.c_lflag |= ISIG | ICANON;
    tcsetattr(terminal, TCSANOW, &mode);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGWINCH, &action, NULL);
    write(master, "\003", 1);
    if (!catches(SIGINT))
        return 4;
    ioctl(master, TIOCSWINSZ, &size);
    return catches(SIGWINCH) ? 0 : 5;
}

int main(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY), status = 0, flags = 0;
    char name[64];
    struct stat of_name, of_fd;

    check(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 &&
              ptsname_r(master, name, sizeof(name)) == 0,
          "a terminal is made");
    int terminal = open(name, O_RDWR | O_NOCTTY);
    check(terminal >= 0 && stat(name, &of_name) == 0 && fstat(terminal, &of_fd) == 0 &&
              of_name.st_rdev == of_fd.st_rdev && S_ISCHR(of_fd.st_mode),
          "and opened");
    modes(master, terminal);
    pid_t child = fork();
    if (child == 0)
        _exit(in_session(terminal, master));
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
          "it is a session's, whose processes it signals");
    int file = open("plain", O_RDWR | O_CREAT, 0600);
    check(!isatty(file) && errno == ENOTTY, "a file is no terminal");
    check(ioctl(file, FIGETBSZ, &flags) == 0 && flags >= 512, "a request to a file");
    check(ioctl(file, FIOCLEX) == 0 && fcntl(file, F_GETFD) == FD_CLOEXEC,
          "a request without argument");
    check(ioctl(file, 0xdead, 0x1234) == -1 && errno == ENOTTY, "a request that is none");
    return check_done();
}
