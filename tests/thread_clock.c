/*
 * Preloaded into qemu-img: the clock of a thread's computing time runs a hundred times as fast.
 *
 * QEMU measures with it how often this machine can stretch a key in a second.
 */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FASTER = 100 };

int getrusage(__rusage_who_t who, struct rusage *usage)
{
    int result = syscall(SYS_getrusage, who, usage);
    if (result == 0 && who == RUSAGE_THREAD) {
        long long microseconds = (usage->ru_utime.tv_sec * 1000000LL + usage->ru_utime.tv_usec) * FASTER;
        usage->ru_utime.tv_sec = microseconds / 1000000;
        usage->ru_utime.tv_usec = microseconds % 1000000;
    }
    return result;
}
