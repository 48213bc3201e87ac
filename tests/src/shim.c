/* Faults for a server under test, through LD_PRELOAD. Each is off unless its variable is set:
 *
 *   SHIM_SHORT=1    every write of more than a sector takes half of it, or is interrupted first
 *   SHIM_TORN=N     the N-th write takes the first half of its sectors, and the process is killed
 *   SHIM_CLOCK=F    the wall clock is ahead by the milliseconds (64 bits) in the file F
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512 };

static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int short_writes;
static atomic_long writes_left = -1;
static atomic_ulong calls;
static volatile int64_t *ahead_ms;

__attribute__((constructor)) static void start(void)
{
    const char *torn = getenv("SHIM_TORN");
    const char *clock_file = getenv("SHIM_CLOCK");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    short_writes = getenv("SHIM_SHORT") != NULL;
    if (torn)
        writes_left = atol(torn);
    if (clock_file) {
        int fd = open(clock_file, O_RDONLY);
        void *page = mmap(NULL, sizeof *ahead_ms, PROT_READ, MAP_SHARED, fd, 0);
        if (fd < 0 || page == MAP_FAILED)
            abort();
        ahead_ms = page;
        close(fd);
    }
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    if (writes_left > 0 && atomic_fetch_sub(&writes_left, 1) == 1) {
        size_t sectors = length / SECTOR;
        real_pwrite(fd, bytes, sectors / 2 * SECTOR, offset);
        kill(getpid(), SIGKILL);
    }
    if (short_writes) {
        if (atomic_fetch_add(&calls, 1) % 5 == 0) {
            errno = EINTR;
            return -1;
        }
        if (length > SECTOR)
            length /= 2;
    }
    return real_pwrite(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    return pwrite64(fd, bytes, length, offset);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = real_clock_gettime ? real_clock_gettime(clock, time) : -1;
    if (result == 0 && clock == CLOCK_REALTIME && ahead_ms) {
        int64_t ms = *ahead_ms;
        time->tv_sec += ms / 1000;
        time->tv_nsec += ms % 1000 * 1000000;
        if (time->tv_nsec < 0) {
            time->tv_nsec += 1000000000;
            time->tv_sec -= 1;
        } else if (time->tv_nsec >= 1000000000) {
            time->tv_nsec -= 1000000000;
            time->tv_sec += 1;
        }
    }
    return result;
}
