/* Loaded before the C library of the serving process: makes its storage fail, answer briefly or be
 * interrupted, and moves its clock, as the file FAULTS says at the moment:
 *   errno N    reads of the file ARCHIVE fail with errno N
 *   short      they return at most 1,000 bytes
 *   eintr      every second one is interrupted
 *   clock N    the time of day is N seconds later
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void now(char *word, long *number) {
  *word = 0, *number = 0;
  FILE *file = fopen(getenv("FAULTS"), "re");
  if (file) {
    if (fscanf(file, "%15s %ld", word, number) < 1) *word = 0;
    fclose(file);
  }
}

ssize_t pread64(int fd, void *buf, size_t count, off64_t offset) {
  static ssize_t (*real)(int, void *, size_t, off64_t);
  static int calls;
  char word[16];
  long number;
  struct stat one, other;
  if (!real) real = dlsym(RTLD_NEXT, "pread64");
  if (!fstat(fd, &one) && !stat(getenv("ARCHIVE"), &other) && one.st_ino == other.st_ino) {
    now(word, &number);
    if (!strcmp(word, "errno")) return errno = number, -1;
    if (!strcmp(word, "eintr") && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) % 2)
      return errno = EINTR, -1;
    if (!strcmp(word, "short") && count > 1000) count = 1000;
  }
  return real(fd, buf, count, offset);
}

static long moved(void) {
  char word[16];
  long number;
  now(word, &number);
  return strcmp(word, "clock") ? 0 : number;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  if (!result && clock == CLOCK_REALTIME) time->tv_sec += moved();
  return result;
}
