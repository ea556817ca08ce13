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
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BYTES 64

/* Mapped before the process gives up the right to open it. Its first byte is written last, and zero
 * while the rest changes. */
static volatile const char *faults;

__attribute__((constructor)) static void map(void) {
  int fd = open(getenv("FAULTS"), O_RDONLY | O_CLOEXEC);
  void *at = fd < 0 ? MAP_FAILED : mmap(0, BYTES, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) abort();
  faults = at;
  close(fd);
}

static void now(char *word, long *number) {
  char text[BYTES + 1] = {0};
  *word = 0, *number = 0;
  if (!faults) return;
  for (int i = 0; i < BYTES; i++) text[i] = faults[i];
  if (sscanf(text, "%15s %ld", word, number) < 1) *word = 0;
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
