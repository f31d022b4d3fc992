/*
 * Preloaded into a node: its disk fails, is full or is slow, as a control file says.
 *
 * BAD_DISK_CONTROL names a file of five 32-bit integers, which the test writes at any time:
 *   0  error of writes (an errno; 0: none)      1  error of syncs
 *   2  delay of a sync, microseconds            3  calls that are still to fail; -1: all
 *   4  calls that failed or were delayed so far, counted here
 * BAD_DISK_DATA is the directory that it is about: other files, and RocksDB's own diary (LOG), whose
 * errors nobody needs to notice, are left alone. What failed is told to the file BAD_DISK_DIARY.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE_ERROR, SYNC_ERROR, SYNC_DELAY, LEFT, TOUCHED, FIELDS };

static volatile int32_t *control;
static const char *data;
static int diary = -1;

__attribute__((constructor)) static void open_control(void) {
  const char *path = getenv("BAD_DISK_CONTROL");
  int file = path != NULL ? open(path, O_RDWR) : -1;
  data = getenv("BAD_DISK_DATA");
  if (file < 0 || data == NULL) return;
  diary = open(getenv("BAD_DISK_DIARY"), O_WRONLY | O_APPEND | O_CREAT, 0644);
  void *mapped = mmap(NULL, FIELDS * 4, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) control = mapped;
}

static int is_data(int file, char path[4096]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, 4095);
  if (length < 0) return 0;
  path[length] = 0;
  const char *name = strrchr(path, '/');
  return strncmp(path, data, strlen(data)) == 0 && name != NULL && strcmp(name, "/LOG") != 0;
}

/* Writes to such a file end when they are on disk: they are syncs too. */
static int is_synced(int file) { return (fcntl(file, F_GETFL) & O_DSYNC) != 0; }

/* The error that this call is to end with; 0: none. */
static int verdict(int file, int kind) {
  if (control == NULL) return 0;
  int syncs = kind == SYNC_ERROR || is_synced(file);
  int error = control[kind] != 0 ? control[kind] : syncs ? control[SYNC_ERROR] : 0;
  int delay = syncs ? control[SYNC_DELAY] : 0;
  char path[4096];
  if ((error == 0 && delay == 0) || !is_data(file, path)) return 0;
  if (delay > 0) {
    __sync_fetch_and_add(&control[TOUCHED], 1);
    usleep(delay);
  }
  if (error == 0 || control[LEFT] == 0) return 0;
  if (control[LEFT] > 0) __sync_fetch_and_sub(&control[LEFT], 1);
  __sync_fetch_and_add(&control[TOUCHED], 1);
  dprintf(diary, "%s of %s failed\n", kind == SYNC_ERROR ? "sync" : "write", path);
  return error;
}

#define BAD(result, name, kind, parameters, arguments)                                             \
  result name parameters {                                                                         \
    static result(*real) parameters;                                                               \
    if (real == NULL) real = dlsym(RTLD_NEXT, #name);                                              \
    int error = verdict(file, kind);                                                               \
    if (error != 0) {                                                                              \
      errno = error;                                                                               \
      return -1;                                                                                   \
    }                                                                                              \
    return real arguments;                                                                         \
  }

BAD(ssize_t, write, WRITE_ERROR, (int file, const void *from, size_t length), (file, from, length))
BAD(ssize_t, pwrite, WRITE_ERROR, (int file, const void *from, size_t length, off_t at),
    (file, from, length, at))
BAD(ssize_t, pwrite64, WRITE_ERROR, (int file, const void *from, size_t length, off64_t at),
    (file, from, length, at))
BAD(ssize_t, writev, WRITE_ERROR, (int file, const struct iovec *from, int count),
    (file, from, count))
BAD(ssize_t, pwritev, WRITE_ERROR, (int file, const struct iovec *from, int count, off_t at),
    (file, from, count, at))
BAD(ssize_t, pwritev64, WRITE_ERROR, (int file, const struct iovec *from, int count, off64_t at),
    (file, from, count, at))
BAD(int, fsync, SYNC_ERROR, (int file), (file))
BAD(int, fdatasync, SYNC_ERROR, (int file), (file))
