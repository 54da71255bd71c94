/* Preloaded into a process. It shifts the process's wall clock by the whole seconds in the file CLOCK_SHIFT_FILE, which
 * may change while it runs; monotonic clocks stay as they are. And it makes each flush of a file's content take
 * FLUSH_DELAY_MS longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    static const char *path;
    char text[32];
    if (!path && !(path = getenv("CLOCK_SHIFT_FILE"))) return 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

int fdatasync(int file) {
    static int (*real)(int);
    const char *delay = getenv("FLUSH_DELAY_MS");
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (delay) usleep(strtol(delay, NULL, 10) * 1000);
    return real(file);
}

time_t time(time_t *out) {
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    if (out) *out = precise.tv_sec;
    return precise.tv_sec;
}
