/* A library to preload (ld.so(8)) that changes what a program sees of its surroundings: the clock and the order in
 * which folders are read. The sandbox gives its jobs a fresh environment and no file of the host, so the library
 * copies itself into the job's own /dev (a tmpfs, gone afterwards) when a program is executed without it.
 *
 * DISTURB_CLOCK    seconds added to the time of day, inside the sandbox
 * DISTURB_CLOCK_HERE  the same for the process it is preloaded into
 * DISTURB_FOLDERS  a number: folders are read in an order that depends on it
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The oldest version of the symbol, so that targets with an older C library can load us. */
__asm__(".symver dlsym,dlsym@GLIBC_2.2.5");

#define PLANTED "/dev/disturb.so"
#define LARGEST 57344
#define VARIABLES 4096

extern char **environ;

static long clock_shift;
static unsigned long folder_seed;
static char own_bytes[LARGEST];
static ssize_t own_size;
static char preload_variable[] = "LD_PRELOAD=" PLANTED;
static char clock_variable[64] = "DISTURB_CLOCK_HERE=0";
static char folder_variable[64] = "DISTURB_FOLDERS=0";
static char inner_clock_variable[64] = "DISTURB_CLOCK=0";

static long number_of(const char *name) {
    const char *value = getenv(name);
    return value ? strtol(value, NULL, 10) : 0;
}

static void put_number(char *variable, long value) {
    char digits[24];
    int length = 0;
    char *end = strchr(variable, '=') + 1;
    unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
    do
        digits[length++] = '0' + rest % 10;
    while (rest /= 10);
    if (value < 0)
        *end++ = '-';
    while (length)
        *end++ = digits[--length];
    *end = 0;
}

__attribute__((constructor)) static void begin(void) {
    Dl_info own;
    clock_shift = number_of("DISTURB_CLOCK_HERE");
    folder_seed = number_of("DISTURB_FOLDERS");
    put_number(clock_variable, number_of("DISTURB_CLOCK"));
    put_number(inner_clock_variable, number_of("DISTURB_CLOCK"));
    put_number(folder_variable, folder_seed);
    if (dladdr((void *)begin, &own) && own.dli_fname) {
        int file = open(own.dli_fname, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            own_size = read(file, own_bytes, sizeof own_bytes);
            close(file);
        }
    }
}

/* The caller may be a fresh clone with other threads' locks held: system calls and the stack only. */
int execve(const char *path, char *const argv[], char *const envp[]) {
    char *extended[VARIABLES + 5];
    size_t count = 0;
    for (; envp && envp[count] && count < VARIABLES; count++) {
        if (strncmp(envp[count], "LD_PRELOAD=", 11) == 0)
            return syscall(SYS_execve, path, argv, envp);
        extended[count] = envp[count];
    }
    int file = open(PLANTED, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file >= 0) {
        if (write(file, own_bytes, own_size) != own_size)
            unlink(PLANTED);
        close(file);
    }
    if (access(PLANTED, R_OK) == 0) {
        extended[count++] = preload_variable;
        extended[count++] = clock_variable;
        extended[count++] = inner_clock_variable;
        extended[count++] = folder_variable;
    }
    extended[count] = NULL;
    return syscall(SYS_execve, path, argv, extended);
}

/* The time of day. */

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += clock_shift;
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}

/* Folders. */

struct stream {
    DIR *folder;
    struct dirent *entries;
    size_t count, next;
    struct stream *after;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static struct stream *streams;

static uint64_t rank(const char *name) {
    uint64_t hash = 14695981039346656037u ^ folder_seed;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return hash ^ hash >> 29;
}

static int by_rank(const void *one, const void *two) {
    uint64_t first = rank(((const struct dirent *)one)->d_name), second = rank(((const struct dirent *)two)->d_name);
    return first < second ? -1 : first > second;
}

static struct stream **find(DIR *folder) {
    struct stream **at = &streams;
    while (*at && (*at)->folder != folder)
        at = &(*at)->after;
    return at;
}

static void forget(DIR *folder) {
    pthread_mutex_lock(&turn);
    struct stream **at = find(folder), *old = *at;
    if (old) {
        *at = old->after;
        free(old->entries);
        free(old);
    }
    pthread_mutex_unlock(&turn);
}

static struct stream *read_all(DIR *folder) {
    struct dirent *(*next)(DIR *) = dlsym(RTLD_NEXT, "readdir64");
    struct stream *stream = calloc(1, sizeof *stream);
    size_t room = 0;
    struct dirent *entry;
    while ((entry = next(folder))) {
        if (stream->count == room) {
            room = room ? room * 2 : 64;
            stream->entries = realloc(stream->entries, room * sizeof *entry);
        }
        memcpy(&stream->entries[stream->count++], entry, entry->d_reclen < sizeof *entry ? entry->d_reclen : sizeof *entry);
    }
    qsort(stream->entries, stream->count, sizeof *entry, by_rank);
    stream->folder = folder;
    stream->after = streams;
    streams = stream;
    return stream;
}

struct dirent *readdir(DIR *folder) {
    if (!folder_seed) {
        struct dirent *(*next)(DIR *) = dlsym(RTLD_NEXT, "readdir64");
        return next(folder);
    }
    pthread_mutex_lock(&turn);
    struct stream *stream = *find(folder);
    if (!stream)
        stream = read_all(folder);
    struct dirent *entry = stream->next < stream->count ? &stream->entries[stream->next++] : NULL;
    pthread_mutex_unlock(&turn);
    return entry;
}

struct dirent64 *readdir64(DIR *folder) { return (struct dirent64 *)readdir(folder); }

void rewinddir(DIR *folder) {
    void (*real)(DIR *) = dlsym(RTLD_NEXT, "rewinddir");
    forget(folder);
    real(folder);
}

int closedir(DIR *folder) {
    int (*real)(DIR *) = dlsym(RTLD_NEXT, "closedir");
    forget(folder);
    return real(folder);
}
