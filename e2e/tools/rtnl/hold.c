/*
 * Makes the kernel's rtnetlink hang, for a test of what an agent does then.
 *
 *     hold-rtnl FILE
 *
 * FILE contains a struct ethtool_value, and is on a file system that is frozen.
 * The program maps FILE and lets the kernel answer an ethtool request into it.
 * The kernel writes the answer while it holds the lock of rtnetlink (rtnl_lock()
 * in dev_ethtool(), net/ethtool/ioctl.c). The write to a frozen file system
 * waits, so the kernel keeps the lock until the file system is thawed. Then the
 * program ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	struct ifreq request = {.ifr_name = "lo"};
	volatile struct ethtool_value *answer;
	int file, any = socket(AF_INET, SOCK_DGRAM, 0);

	if (argc != 2)
		return fprintf(stderr, "usage: hold-rtnl FILE\n"), 2;
	file = open(argv[1], O_RDWR | O_NOATIME);
	if (any < 0 || file < 0)
		return fail(argv[1]);
	answer = mmap(NULL, sizeof(*answer), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (answer == MAP_FAILED)
		return fail("mmap");
	/* Reading maps the page read-only, so that the kernel's write faults. */
	printf("asking for %#x\n", answer->cmd);
	fflush(stdout);
	request.ifr_data = (char *)answer;
	if (ioctl(any, SIOCETHTOOL, &request) < 0)
		return fail("SIOCETHTOOL");
	return 0;
}
