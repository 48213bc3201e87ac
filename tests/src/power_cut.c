/* Shuts a file system down as a power cut does: nothing that was not synced is written any more, and
 * its journal is not flushed. ext4 and xfs. The argument is any path on it. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

/* FS_IOC_SHUTDOWN and its flag NOLOGFLUSH, as in the kernel's include/uapi/linux/fs.h; the C library
 * has them not everywhere. */
#define SHUTDOWN _IOR('X', 125, uint32_t)
#define NOLOGFLUSH 2

int main(int count, char **words)
{
    uint32_t flag = NOLOGFLUSH;
    int fd = count == 2 ? open(words[1], O_RDONLY) : -1;
    if (fd < 0 || ioctl(fd, SHUTDOWN, &flag) != 0) {
        perror("power_cut");
        return 1;
    }
    return 0;
}
