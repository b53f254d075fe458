// A disk that fails when it is told to, for one process: loaded before libc with LD_PRELOAD.
//
// In: calls that read, write and sync files whose path begins with KUMAFAST_DISK_FILES; what to do, in the file
// KUMAFAST_DISK, which the test maps too (faulty_disk.py has the same layout).
// A failed sync loses what was written since the last one that worked, as Linux may: the next sync then says that all
// is well. A power cut loses it too, and ends the process.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, SYNC = 4, OPEN = 8 };
enum { FAIL = 1, KILL = 2, POWER_CUT = 3 };

typedef struct {
    int32_t action, error, kinds, left, calls, failures;
} Control;

typedef struct Undo {
    struct Undo* next;
    int fd;
    off_t offset, file_length;
    size_t length;
    char data[];
} Undo;

static Control* control;
static const char* files;
static Undo* undo;  // The newest write first.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_pread)(int, void*, size_t, off_t);
static ssize_t (*real_pwrite)(int, const void*, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t), (*real_close)(int);
static int (*real_open)(const char*, int, ...);

__attribute__((constructor)) static void load(void) {
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_open = dlsym(RTLD_NEXT, "open64");
    files = getenv("KUMAFAST_DISK_FILES");
    const char* path = getenv("KUMAFAST_DISK");
    int fd = path != NULL ? real_open(path, O_RDWR) : -1;
    if (fd < 0 || files == NULL) return;
    void* mapped = mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) control = mapped;
    real_close(fd);
}

static int is_ours(int fd) {
    char link[64], path[4096];
    if (control == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t expected = strlen(files);
    return length >= (ssize_t)expected && memcmp(path, files, expected) == 0;
}

// Whether this call is one that is to fail.
static int is_due(int kind) {
    __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
    if (control->action == 0 || (control->kinds & kind) == 0) return 0;
    return __atomic_sub_fetch(&control->left, 1, __ATOMIC_SEQ_CST) < 0;
}

static void forget(int fd) {
    for (Undo** at = &undo; *at != NULL;) {
        Undo* entry = *at;
        if (entry->fd == fd) {
            *at = entry->next;
            free(entry);
        } else {
            at = &entry->next;
        }
    }
}

// Take back what was written to a file, or to all (-1), and not synced.
static void lose(int fd) {
    for (Undo* entry = undo; entry != NULL; entry = entry->next) {
        if (fd != -1 && entry->fd != fd) continue;
        if (entry->length > 0) real_pwrite(entry->fd, entry->data, entry->length, entry->offset);
        real_ftruncate(entry->fd, entry->file_length);
    }
    if (fd != -1) forget(fd);
}

static void remember(int fd, off_t offset, size_t length) {
    struct stat status;
    if (fstat(fd, &status) != 0) return;
    off_t left = status.st_size > offset ? status.st_size - offset : 0;
    size_t held = (off_t)length < left ? length : (size_t)left;
    Undo* entry = malloc(sizeof(Undo) + held);
    ssize_t got = held > 0 ? real_pread(fd, entry->data, held, offset) : 0;
    *entry = (Undo){undo, fd, offset, status.st_size, got > 0 ? (size_t)got : 0};
    undo = entry;
}

static int end(int fd, int kind) {
    if (control->action == KILL) kill(getpid(), SIGKILL);
    if (control->action == POWER_CUT) {
        lose(-1);
        kill(getpid(), SIGKILL);
    }
    __atomic_add_fetch(&control->failures, 1, __ATOMIC_SEQ_CST);
    if (kind == SYNC) lose(fd);
    errno = control->error;
    return -1;
}

ssize_t pread64(int fd, void* data, size_t length, off_t offset) {
    if (is_ours(fd) && is_due(READ)) return end(fd, READ);
    return real_pread(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void* data, size_t length, off_t offset) {
    if (!is_ours(fd)) return real_pwrite(fd, data, length, offset);
    pthread_mutex_lock(&lock);
    remember(fd, offset, length);
    ssize_t result;
    if (is_due(WRITE)) {
        // What dies in a write has written half of it.
        if (control->action != FAIL) real_pwrite(fd, data, length / 2, offset);
        result = end(fd, WRITE);
    } else {
        result = real_pwrite(fd, data, length, offset);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int sync_with(int (*real)(int), int fd) {
    if (!is_ours(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    // The kernel keeps what was written whatever becomes of this process: what a sync is worth is in `undo`.
    int result = is_due(SYNC) ? end(fd, SYNC) : 0;
    if (result == 0) forget(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return sync_with(real_fsync, fd); }
int fdatasync(int fd) { return sync_with(real_fdatasync, fd); }

int ftruncate64(int fd, off_t length) {
    if (is_ours(fd) && is_due(WRITE)) return end(fd, WRITE);
    return real_ftruncate(fd, length);
}

int close(int fd) {
    // What a closed file holds is not taken back any more: its number may be another's.
    if (undo != NULL && is_ours(fd)) {
        pthread_mutex_lock(&lock);
        forget(fd);
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}

int open64(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
    va_end(rest);
    int is_write = (flags & O_ACCMODE) != O_RDONLY;
    if (control != NULL && is_write && strncmp(path, files, strlen(files)) == 0 && is_due(OPEN)) return end(-1, OPEN);
    return real_open(path, flags, mode);
}

ssize_t pread(int, void*, size_t, off_t) __attribute__((alias("pread64")));
ssize_t pwrite(int, const void*, size_t, off_t) __attribute__((alias("pwrite64")));
int ftruncate(int, off_t) __attribute__((alias("ftruncate64")));
int open(const char*, int, ...) __attribute__((alias("open64")));
