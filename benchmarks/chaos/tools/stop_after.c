/* Kills its process after the n-th call that changes files below a folder: STOP_BELOW, STOP_AFTER (from 1).
   With STOP_COUNT set, it appends a byte to that file at each call instead, so that they can be counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int calls;

static int below(const char *path) {
    const char *folder = getenv("STOP_BELOW");
    return folder && path && strstr(path, folder) != NULL;
}

static int below_of(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static void done(void) {
    const char *count = getenv("STOP_COUNT"), *after = getenv("STOP_AFTER");
    int number = ++calls;
    if (count) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        ssize_t (*put)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        int file = real(count, O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (file >= 0 && put(file, ".", 1) == 1) close(file);
    } else if (after && number == atoi(after)) {
        kill(getpid(), SIGKILL);
    }
}

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)
#define PATHS(name, test, types, ...) \
    int name types { REAL(int, name, ); int got = ((int (*) types)real)(__VA_ARGS__); if (got == 0 && (test)) done(); return got; }

int open(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);
    REAL(int, open, const char *, int, ...);
    int got = real(path, flags, mode);
    if (got >= 0 && (flags & (O_CREAT | O_TRUNC)) && below(path)) done();
    return got;
}
int open64(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);
    REAL(int, open64, const char *, int, ...);
    int got = real(path, flags, mode);
    if (got >= 0 && (flags & (O_CREAT | O_TRUNC)) && below(path)) done();
    return got;
}
int openat(int at, const char *path, int flags, ...) {
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);
    REAL(int, openat, int, const char *, int, ...);
    int got = real(at, path, flags, mode);
    if (got >= 0 && (flags & (O_CREAT | O_TRUNC)) && below_of(got)) done();
    return got;
}
ssize_t write(int descriptor, const void *content, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    ssize_t got = real(descriptor, content, size);
    if (got > 0 && below_of(descriptor)) done();
    return got;
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    ssize_t got = real(descriptor, parts, count);
    if (got > 0 && below_of(descriptor)) done();
    return got;
}
ssize_t pwrite64(int descriptor, const void *content, size_t size, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    ssize_t got = real(descriptor, content, size, at);
    if (got > 0 && below_of(descriptor)) done();
    return got;
}
int fsync(int descriptor) {
    REAL(int, fsync, int);
    int got = real(descriptor);
    if (got == 0 && below_of(descriptor)) done();
    return got;
}
int ftruncate64(int descriptor, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    int got = real(descriptor, size);
    if (got == 0 && below_of(descriptor)) done();
    return got;
}
PATHS(rename, below(from) || below(to), (const char *from, const char *to), from, to)
PATHS(unlink, below(path), (const char *path), path)
PATHS(rmdir, below(path), (const char *path), path)
PATHS(mkdir, below(path), (const char *path, mode_t mode), path, mode)
PATHS(link, below(to), (const char *from, const char *to), from, to)
PATHS(unlinkat, below(path) || below_of(at), (int at, const char *path, int flags), at, path, flags)
