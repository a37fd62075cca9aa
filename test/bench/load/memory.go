package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	page = 4 << 10
	kib  = 1 << 10
	mib  = 1 << 20
	gib  = 1 << 30

	rw   = unix.PROT_READ | unix.PROT_WRITE
	anon = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
)

// Memory is raw addresses here: the runtime must not know of it.

func mmap(addr, length uintptr, prot, flags int, fd int, off int64) uintptr {
	p, _, errno := syscall.Syscall6(unix.SYS_MMAP, addr, length, uintptr(prot), uintptr(flags), uintptr(fd), uintptr(off))
	checkErrno(errno, "mmap")
	return p
}

func mapAnon(length uintptr, flags int) uintptr {
	return mmap(0, length, rw, anon|flags, -1, 0)
}

// aside is where mappings of a row lie that leave holes: far from where the kernel puts what the runtime maps, which is not
// to end up in them.
const aside = 16 * gib

// mapAside is mapAnon there. One is there at a time.
func mapAside(length uintptr, flags int) uintptr {
	return mmap(aside, length, rw, anon|flags|unix.MAP_FIXED_NOREPLACE, -1, 0)
}

func munmap(addr, length uintptr) {
	_, _, errno := syscall.Syscall(unix.SYS_MUNMAP, addr, length, 0)
	checkErrno(errno, "munmap")
}

func mprotect(addr, length uintptr, prot int) {
	_, _, errno := syscall.Syscall(unix.SYS_MPROTECT, addr, length, uintptr(prot))
	checkErrno(errno, "mprotect")
}

func madvise(addr, length uintptr, advice int) {
	_, _, errno := syscall.Syscall(unix.SYS_MADVISE, addr, length, uintptr(advice))
	checkErrno(errno, "madvise")
}

func mremap(addr, old, length uintptr, flags int, to uintptr) uintptr {
	p, _, errno := syscall.Syscall6(unix.SYS_MREMAP, addr, old, length, uintptr(flags), to, 0)
	checkErrno(errno, "mremap")
	return p
}

func brk(addr uintptr) uintptr {
	p, _, _ := syscall.RawSyscall(unix.SYS_BRK, addr, 0, 0)
	return p
}

// touch writes to a page in each step bytes.
func touch(addr, length, step uintptr) {
	for end := addr + length; addr < end; addr += step {
		store(addr)
	}
}

func store(addr uintptr) { *(*byte)(pointer(addr)) = 1 }

func load(addr uintptr) byte { return *(*byte)(pointer(addr)) }

// pointer hides from vet that addr is no Go pointer.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

func bytesAt(addr, length uintptr) []byte { return unsafe.Slice((*byte)(pointer(addr)), length) }

// memfd is a file of that length in memory, all written.
func memfd(length int64) int {
	fd, err := unix.MemfdCreate("load", 0)
	check(err, "memfd_create")
	zeroes := make([]byte, mib)
	for off := int64(0); off < length; off += mib {
		n, err := unix.Pwrite(fd, zeroes[:min(mib, length-off)], off)
		if err == nil && n == 0 {
			err = fmt.Errorf("nothing written")
		}
		check(err, "writing the file")
	}
	return fd
}

// fork runs a child that ends at once, or executes path with args if it is not empty, and waits for it.
func fork(path *byte, args **byte) {
	pid := clone(path, args)
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		check(err, "wait4")
		break
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		check(fmt.Errorf("wait status %#x", uint32(status)), "the child")
	}
}

// clone forks. The child does nothing that the runtime would have to know of, and gets no signals: what the
// runtime sends its threads is not for it.
//
//go:noinline
func clone(path *byte, args **byte) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, old := uint64(math.MaxUint64), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		if path != nil {
			var none *byte
			syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(args)), uintptr(unsafe.Pointer(&none)))
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
		}
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	checkErrno(errno, "clone")
	return int(pid)
}

func checkErrno(errno syscall.Errno, what string) {
	if errno != 0 {
		check(os.NewSyscallError(what, errno), "load")
	}
}
