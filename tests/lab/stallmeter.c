/*
 * Runs in the lab guest: writes to a mounted disk all the time and says on the console how long a write or an fdatasync was held.
 *
 *   STALL at=<ms> ms=<ms> mount=<path> call=write|fdatasync      the call took longer than the threshold; `at` is when it was sent
 *   METER mount=<path> at=<ms> writes=<n> seq=<n> ack=<n> max_ms=<ms> max_sync_ms=<ms>     once a second
 *
 * Times are milliseconds of CLOCK_MONOTONIC, which in the guest is the time since boot. Every block carries its sequence number;
 * `ack` is the highest one that an fdatasync made durable, so no copy of the disk taken later may lack it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

struct options {
    long size_mb, interval_us, sync_every;
    double threshold_ms;
};

struct meter {
    const char *mount;
    struct options options;
    int fd;
    unsigned long long blocks, sequence, acknowledged, writes;
    double beat_at, max_ms, max_sync_ms;
};

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000.0 + now.tv_nsec / 1e6;
}

/* One write(2) a line, so that the lines of several meters on one console do not mix. */
static void say(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(STDOUT_FILENO, line, length) < 0)
        _exit(1);
}

static void fail(const char *mount, const char *what)
{
    say("METER-ERROR mount=%s %s: %s\n", mount, what, strerror(errno));
    exit(1);
}

static void put_block(struct meter *meter, unsigned long long sequence, unsigned long long index)
{
    static char block[BLOCK];
    memset(block, '.', sizeof block);
    snprintf(block, sizeof block, "SEQ %020llu\n", sequence);
    while (pwrite(meter->fd, block, BLOCK, (off_t)index * BLOCK) != BLOCK)
        usleep(100000); /* a full or failing disk shows as one long stall */
}

/* The file is filled once, so that the measured writes allocate nothing; a second boot goes on from the highest number found. */
static void open_file(struct meter *meter)
{
    char path[256], block[BLOCK];
    snprintf(path, sizeof path, "%s/meter.dat", meter->mount);
    meter->fd = open(path, O_RDWR | O_CREAT, 0644);
    if (meter->fd < 0)
        fail(meter->mount, "open");
    for (unsigned long long index = 0; index < meter->blocks; index++) {
        unsigned long long found = 0;
        if (pread(meter->fd, block, BLOCK, (off_t)index * BLOCK) != BLOCK)
            put_block(meter, 0, index);
        else if (sscanf(block, "SEQ %20llu", &found) == 1 && found > meter->sequence)
            meter->sequence = found;
    }
    if (fsync(meter->fd) < 0)
        fail(meter->mount, "fsync");
    meter->acknowledged = meter->sequence;
}

static void beat(struct meter *meter, double now)
{
    say("METER mount=%s at=%.3f writes=%llu seq=%llu ack=%llu max_ms=%.3f max_sync_ms=%.3f\n", meter->mount, now, meter->writes,
        meter->sequence, meter->acknowledged, meter->max_ms, meter->max_sync_ms);
    meter->beat_at = now + 1000;
    meter->writes = 0;
    meter->max_ms = meter->max_sync_ms = 0;
}

/* A late fdatasync is told as well: the cache of the guest takes writes for a while after its disk has ceased to answer. */
static double took_since(const struct meter *meter, double sent, const char *call)
{
    double took = now_ms() - sent;
    if (took > meter->options.threshold_ms)
        say("STALL at=%.3f ms=%.3f mount=%s call=%s\n", sent, took, meter->mount, call);
    return took;
}

static void write_once(struct meter *meter)
{
    double sent = now_ms();
    put_block(meter, meter->sequence + 1, (meter->sequence + 1) % meter->blocks);
    double took = took_since(meter, sent, "write");
    meter->sequence++;
    meter->writes++;
    if (took > meter->max_ms)
        meter->max_ms = took;
}

static void sync_when_due(struct meter *meter)
{
    if (meter->options.sync_every == 0 || meter->sequence % meter->options.sync_every != 0)
        return;
    double sent = now_ms();
    if (fdatasync(meter->fd) < 0)
        fail(meter->mount, "fdatasync");
    double took = took_since(meter, sent, "fdatasync");
    meter->acknowledged = meter->sequence;
    if (took > meter->max_sync_ms)
        meter->max_sync_ms = took;
}

static struct options parse(int count, char **words)
{
    struct options options = {.size_mb = 1, .interval_us = 1000, .sync_every = 0, .threshold_ms = 5};
    for (int i = 0; i < count; i++) {
        if (sscanf(words[i], "size_mb=%ld", &options.size_mb) != 1 && sscanf(words[i], "interval_us=%ld", &options.interval_us) != 1
            && sscanf(words[i], "sync_every=%ld", &options.sync_every) != 1
            && sscanf(words[i], "threshold_ms=%lf", &options.threshold_ms) != 1) {
            say("METER-ERROR unknown option %s\n", words[i]);
            exit(2);
        }
    }
    return options;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        say("usage: stallmeter MOUNT [size_mb=1] [interval_us=1000] [sync_every=0] [threshold_ms=5]\n");
        return 2;
    }
    struct meter meter = {.mount = argv[1], .options = parse(argc - 2, argv + 2)};
    meter.blocks = meter.options.size_mb * 256ULL;
    open_file(&meter);
    beat(&meter, now_ms());
    for (;;) {
        write_once(&meter);
        sync_when_due(&meter);
        double now = now_ms();
        if (now >= meter.beat_at)
            beat(&meter, now);
        usleep(meter.options.interval_us);
    }
}
