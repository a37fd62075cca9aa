// Package traps has a test for each trap of the design that a program can see from outside, through
// system calls on real file systems. Every claim is Linux's: the tests pass without a sandbox, and
// runsc-integration builds them statically and runs them in containers too.
//
// TRAPS_DIRS names the folders to use files in, as name=folder pairs with spaces between; each is on a
// file system of its own kind. TRAPS_MANDATORY makes a test that would be skipped fail.
package traps

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var pageSize = os.Getpagesize()

const rw = unix.PROT_READ | unix.PROT_WRITE

func TestMain(m *testing.M) {
	// Threads that really run side by side, or are at least interrupted anywhere.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 6))
	os.Exit(m.Run())
}

// eachDir runs a test on every kind of file system there is.
func eachDir(t *testing.T, test func(t *testing.T, dir string)) {
	dirs := os.Getenv("TRAPS_DIRS")
	if dirs == "" {
		dirs = "disk=" + os.TempDir() + " tmpfs=/dev/shm"
	}
	for pair := range strings.FieldsSeq(dirs) {
		name, dir, _ := strings.Cut(pair, "=")
		t.Run(name, func(t *testing.T) {
			own, err := os.MkdirTemp(dir, "traps-")
			require.NoError(t, err)
			t.Cleanup(func() { os.RemoveAll(own) })
			test(t, own)
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("TRAPS_MANDATORY") != "" {
		t.Fatal("not root")
	}
	t.Skip("needs root, to mount a file system")
}

// lowAddress is where these tests map what they also unmap. Neither Go's runtime nor the kernel, which
// goes from the top down, puts anything there unasked, so an address stays free once it was given up.
const lowAddress = 0x20_0000_0000

// low is an address range of its own for a test, mapped by nobody yet. Tests do not run in parallel.
func low(pages int) []byte {
	address := uintptr(lowAddress)
	// Not a Go object: the conversion keeps nothing alive, and the collector ignores the address.
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), pages*pageSize)
}

func start(area []byte) uintptr { return uintptr(unsafe.Pointer(&area[0])) }

// anon maps anonymous memory at area, over whatever is there.
func anon(t *testing.T, area []byte, flags int) {
	t.Helper()
	require.NoError(t, mapAt(area, rw, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|flags, -1, 0))
	t.Cleanup(func() { unmap(area) })
}

// shared maps a file at area, over whatever is there.
func shared(t *testing.T, area []byte, fd int, offset int64) {
	t.Helper()
	require.NoError(t, mapAt(area, rw, unix.MAP_SHARED|unix.MAP_FIXED, fd, offset))
	t.Cleanup(func() { unmap(area) })
}

func mapAt(area []byte, prot, flags, fd int, offset int64) error {
	_, err := unix.MmapPtr(fd, offset, unsafe.Pointer(&area[0]), uintptr(len(area)), prot, flags)
	return err
}

func unmap(area []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(&area[0]), uintptr(len(area)))
}

func moveTo(to, from []byte) error {
	_, err := unix.MremapPtr(unsafe.Pointer(&from[0]), uintptr(len(from)),
		unsafe.Pointer(&to[0]), uintptr(len(to)), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	return err
}

// load reads a byte with the processor. It is not ok where that faults: SIGSEGV or SIGBUS.
func load(at *byte) (value byte, ok bool) {
	ok = !faults(func() { value = *(*byte)(unsafe.Pointer(at)) })
	return value, ok
}

// store writes a byte with the processor.
func store(at *byte, value byte) (ok bool) {
	return !faults(func() { *at = value })
}

func faults(access func()) (faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); !fault {
				panic(p)
			}
			faulted = true
		}
	}()
	access()
	return false
}

// create makes a file of zeros and opens it.
func create(t *testing.T, name string, pages int) int {
	t.Helper()
	fd := open(t, name, unix.O_CREAT|unix.O_EXCL)
	require.NoError(t, unix.Ftruncate(fd, int64(pages*pageSize)))
	return fd
}

func open(t *testing.T, name string, flags int) int {
	t.Helper()
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC|flags, 0o600)
	require.NoError(t, err, name)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
