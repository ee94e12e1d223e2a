/*
 * Lets user-mode Linux run on processors whose state is larger than it knows.
 *
 * Linux accepts the registers of a process (PTRACE_SETREGSET, NT_X86_XSTATE)
 * only as a whole: xstateregs_set() in arch/x86/kernel/fpu/regset.c answers a
 * shorter buffer with EFAULT. User-mode Linux 6.1 has a buffer of a fixed size.
 * On processors with AMX, which need 11 KiB, its first process dies with
 * "ptrace set fp regs failed, errno = 14". This library is loaded before the C
 * library, and fills such a buffer up. The components that are not in the
 * buffer are marked as not in use.
 *
 * User-mode Linux reads these registers at each system call of a process, and
 * writes them back before the process goes on. Most of the time they are the
 * same. Then this library leaves the second call out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define LARGEST (64 * 1024)
/* The offset of XSTATE_BV, the components in use (Intel SDM, volume 1, 13.4). */
#define IN_USE 512
#define HEADER_END 576

typedef long call(enum __ptrace_request, pid_t, void *, void *);

/* User-mode Linux sets registers from one thread only. */
static uint8_t whole[LARGEST] __attribute__((aligned(64)));
/* The registers that were read last, of a process that has not run since. */
static uint8_t read_last[LARGEST];
static size_t read_length;
static pid_t read_from;
/* The size of the host's registers, or 0 before the first call. */
static size_t size;

/* Returns the components that end within the first `length` bytes. */
static uint64_t components(size_t length)
{
	static size_t of_length;
	static uint64_t found;
	if (of_length == length)
		return found;
	found = 3; /* x87 and SSE are always there */
	for (unsigned i = 2; i < 63; i++) {
		uint32_t a = 0xd, b, c = i, d;
		__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
		if (a && !(c & 1) && b + a <= length)
			found |= UINT64_C(1) << i;
	}
	of_length = length;
	return found;
}

/* Whether the extended registers may be others after the request. */
static int may_change(enum __ptrace_request request)
{
	switch (request) {
	case PTRACE_GETREGS:
	case PTRACE_SETREGS:
	case PTRACE_PEEKUSER:
	case PTRACE_PEEKDATA:
	case PTRACE_POKEDATA:
		return 0;
	default:
		return 1;
	}
}

long ptrace(enum __ptrace_request request, ...)
{
	static call *next;
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);
	if (!next)
		next = (call *)dlsym(RTLD_NEXT, "ptrace");
	struct iovec *given = data;
	int extended = address == (void *)NT_X86_XSTATE;
	if (request == PTRACE_GETREGSET && extended) {
		long result = next(request, pid, address, data);
		read_from = 0;
		if (!result && given->iov_len <= LARGEST) {
			memcpy(read_last, given->iov_base, given->iov_len);
			read_length = given->iov_len;
			read_from = pid;
		}
		return result;
	}
	if (request != PTRACE_SETREGSET || !extended) {
		if (pid == read_from && may_change(request))
			read_from = 0;
		return next(request, pid, address, data);
	}
	if (pid == read_from && given->iov_len >= read_length &&
	    !memcmp(given->iov_base, read_last, read_length))
		return 0;
	if (pid == read_from)
		read_from = 0;
	if (!size) {
		struct iovec all = { whole, LARGEST };
		if (next(PTRACE_GETREGSET, pid, address, &all))
			return -1;
		memset(whole, 0, LARGEST);
		size = all.iov_len;
	}
	if (given->iov_len >= size || given->iov_len < HEADER_END)
		return next(request, pid, address, data);
	memcpy(whole, given->iov_base, given->iov_len);
	uint64_t in_use;
	memcpy(&in_use, whole + IN_USE, sizeof in_use);
	in_use &= components(given->iov_len);
	memcpy(whole + IN_USE, &in_use, sizeof in_use);
	struct iovec all = { whole, size };
	return next(request, pid, address, &all);
}
