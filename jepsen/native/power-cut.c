/*
 * Cuts the power of a mounted file system: from now on nothing reaches its disk, and what has not
 * been synced never will. Unmount it and mount it again to see what is left: not the file
 * "not-synced", which is written the moment before.
 *
 *     power-cut MOUNTPOINT
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* As ext4, xfs and f2fs have them; no header of the C library does. */
#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define NOLOGFLUSH 2

int main(int count, char **arguments) {
  uint32_t flags = NOLOGFLUSH;
  int directory = count == 2 ? open(arguments[1], O_RDONLY | O_DIRECTORY) : -1;
  if (directory >= 0) {
    int marker = openat(directory, "not-synced", O_CREAT | O_WRONLY, 0644);
    if (marker < 0 || write(marker, "gone in a moment", 16) != 16) perror("not-synced");
  }
  if (directory < 0 || ioctl(directory, FS_IOC_SHUTDOWN, &flags) != 0) {
    perror(count == 2 ? arguments[1] : "power-cut MOUNTPOINT");
    return 1;
  }
  return 0;
}
