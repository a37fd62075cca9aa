// The arguments of the matrix, as data.
package matrix

import (
	"runtime"

	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// top is where the address space of an application ends.
var top = map[string]uintptr{"amd64": 0x7fff_ffff_f000, "arm64": 1 << 48}[runtime.GOARCH]

// A place is an address: page and rest in the arena, or absolute if page is below 0.
type place struct {
	name string
	page int
	rest uintptr
}

// outside is the page of addresses that are not in the arena.
const outside = -1

var places = []place{
	{"rw", 0, 0},
	{"unaligned", 0, 1},
	{"rw-end", 3, 0},
	{"read-only", 4, 0},
	{"hole", 9, 0},
	{"hole-end", 11, 0},
	{"shared-file", 12, 0},
	{"read-only-file", 16, 0},
	{"reserved", 20, 0},
	{"private-file", 25, 0},
	{"shared-anonymous", 28, 0},
	{"grows-down", 32, 0},
	{"locked", 36, 0},
	{"beyond-eof", 42, 0},
	{"shm", 48, 0},
	{"empty", 56, 0},
	{"null", outside, 0},
	{"top-page", outside, top - P},
	{"top", outside, top},
	{"last-page", outside, -P},
	{"non-canonical", outside, 1 << 62},
}

func (p place) address(s *scene) uintptr {
	if p.page == outside {
		return p.rest
	}
	return s.a.Page(p.page) + p.rest
}

// A length in bytes.
type length struct {
	name  string
	bytes uintptr
}

// ordinary are lengths that fit, huge those that cannot.
var ordinary = []length{
	{"0", 0},
	{"1", 1},
	{"1p", P},
	{"2p+1", 2*P + 1},
	{"8p", 8 * P},
	{"64p", 64 * P},
}

var huge = []length{
	{"top", top},
	{"2^62", 1 << 62},
	{"-1p", -P},
	{"-1", ^uintptr(0)},
}

// endangers reports whether a call that succeeds on the range takes away the memory of the test itself.
func endangers(addr, n uintptr) bool { return n >= 1<<30 && addr+n >= addr && addr+n <= top }

// A form is a call with everything but address and length fixed.
type form struct {
	name string
	nr   uintptr
	args func(s *scene, addr, n uintptr) []uintptr

	// wrecks: a range that is valid is really done away with, whatever it covers.
	wrecks bool
	// beyond: the same, and where the range ends beyond the address space, too.
	beyond bool
	// places: the result is an address.
	places bool
	// partial: if it fails in the middle, what comes before has been done.
	partial bool
	// loses: if it fails, what was at the range may be gone, and Linux does not say when.
	loses bool
	// quiet: nothing that it does shows in the scene, which is looked at once for all lengths.
	quiet bool
	// locks: what is locked afterwards is part of the result.
	locks bool
}

func addrLen(rest ...uintptr) func(*scene, uintptr, uintptr) []uintptr {
	return func(_ *scene, addr, n uintptr) []uintptr { return append([]uintptr{addr, n}, rest...) }
}

func mapping(prot, flags int, fd func(*scene) int, offset uintptr) func(*scene, uintptr, uintptr) []uintptr {
	return func(s *scene, addr, n uintptr) []uintptr {
		return []uintptr{addr, n, uintptr(prot), uintptr(flags), uintptr(fd(s)), offset}
	}
}

func none(*scene) int       { return -1 }
func file(s *scene) int     { return s.file }
func readOnly(s *scene) int { return s.readOnly }

const (
	growsDown = 0x01000000 // PROT_GROWSDOWN
	growsUp   = 0x02000000 // PROT_GROWSUP

	anonymous = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	noReplace = unix.MAP_FIXED_NOREPLACE
)

var forms = []form{
	{name: "munmap", nr: unix.SYS_MUNMAP, args: addrLen(), wrecks: true},

	{name: "mmap-hint", nr: unix.SYS_MMAP, args: mapping(kit.RW, anonymous|unix.MAP_NORESERVE, none, 0), places: true, wrecks: true},
	{name: "mmap-fixed", nr: unix.SYS_MMAP, args: mapping(kit.RW, anonymous|unix.MAP_FIXED, none, 0), places: true, wrecks: true},
	{name: "mmap-fixed-reserve", nr: unix.SYS_MMAP, args: mapping(0, anonymous|unix.MAP_FIXED|unix.MAP_NORESERVE, none, 0), places: true, wrecks: true},
	{name: "mmap-noreplace", nr: unix.SYS_MMAP, args: mapping(kit.RW, anonymous|noReplace|unix.MAP_NORESERVE, none, 0), places: true, wrecks: true},
	{name: "mmap-fixed-shared", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_FIXED, none, 0), places: true, wrecks: true},
	{name: "mmap-fixed-grows-down", nr: unix.SYS_MMAP, args: mapping(kit.RW, anonymous|unix.MAP_FIXED|unix.MAP_GROWSDOWN, none, 0), places: true, wrecks: true},
	{name: "mmap-fixed-file", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_PRIVATE|unix.MAP_FIXED, file, P), places: true, wrecks: true},
	{name: "mmap-fixed-file-shared", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, file, P), places: true, wrecks: true},
	{name: "mmap-fixed-file-locked", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_LOCKED, file, 0), places: true, wrecks: true},
	{name: "mmap-fixed-file-denied", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, readOnly, 0), places: true, wrecks: true},
	{name: "mmap-fixed-last-offset", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, file, -P), places: true, wrecks: true},
	{name: "mmap-fixed-odd-offset", nr: unix.SYS_MMAP, args: mapping(kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, file, 1), places: true, wrecks: true},
	{name: "mmap-fixed-anonymous-odd-offset", nr: unix.SYS_MMAP, args: mapping(kit.RW, anonymous|unix.MAP_FIXED, none, 1), places: true, wrecks: true},

	{name: "mprotect-none", nr: unix.SYS_MPROTECT, args: addrLen(unix.PROT_NONE), partial: true},
	{name: "mprotect-read", nr: unix.SYS_MPROTECT, args: addrLen(unix.PROT_READ), partial: true},
	{name: "mprotect-write", nr: unix.SYS_MPROTECT, args: addrLen(kit.RW), partial: true},
	{name: "mprotect-grows-down", nr: unix.SYS_MPROTECT, args: addrLen(unix.PROT_READ | growsDown), partial: true},
	{name: "mprotect-grows-up", nr: unix.SYS_MPROTECT, args: addrLen(unix.PROT_READ | growsUp), partial: true},
	{name: "mprotect-both-ways", nr: unix.SYS_MPROTECT, args: addrLen(unix.PROT_READ | growsDown | growsUp), partial: true},
	{name: "mprotect-unknown", nr: unix.SYS_MPROTECT, args: addrLen(0x100), partial: true},
	{name: "pkey_mprotect-no-key", nr: unix.SYS_PKEY_MPROTECT, args: addrLen(unix.PROT_READ, ^uintptr(0)), partial: true},
	{name: "pkey_mprotect-bad-key", nr: unix.SYS_PKEY_MPROTECT, args: addrLen(unix.PROT_READ, 99), partial: true},

	{name: "mlock", nr: unix.SYS_MLOCK, args: addrLen(), partial: true, locks: true},
	{name: "mlock2", nr: unix.SYS_MLOCK2, args: addrLen(0), partial: true, locks: true},
	{name: "mlock2-on-fault", nr: unix.SYS_MLOCK2, args: addrLen(unix.MLOCK_ONFAULT), partial: true, locks: true},
	{name: "mlock2-unknown", nr: unix.SYS_MLOCK2, args: addrLen(2), quiet: true},
	{name: "munlock", nr: unix.SYS_MUNLOCK, args: addrLen(), partial: true, locks: true},

	{name: "msync-none", nr: unix.SYS_MSYNC, args: addrLen(0), quiet: true},
	{name: "msync-sync", nr: unix.SYS_MSYNC, args: addrLen(unix.MS_SYNC), quiet: true},
	{name: "msync-async", nr: unix.SYS_MSYNC, args: addrLen(unix.MS_ASYNC), quiet: true},
	{name: "msync-invalidate", nr: unix.SYS_MSYNC, args: addrLen(unix.MS_INVALIDATE), quiet: true},
	{name: "msync-sync-invalidate", nr: unix.SYS_MSYNC, args: addrLen(unix.MS_SYNC | unix.MS_INVALIDATE), quiet: true},
	{name: "msync-contradiction", nr: unix.SYS_MSYNC, args: addrLen(unix.MS_SYNC | unix.MS_ASYNC), quiet: true},
	{name: "msync-unknown", nr: unix.SYS_MSYNC, args: addrLen(8), quiet: true},

	{name: "mincore", nr: unix.SYS_MINCORE, args: func(s *scene, addr, n uintptr) []uintptr {
		return []uintptr{addr, n, s.scratch}
	}, quiet: true},
	{name: "mincore-bad-vector", nr: unix.SYS_MINCORE, args: func(s *scene, addr, n uintptr) []uintptr {
		return []uintptr{addr, n, s.a.Page(8)}
	}, quiet: true},

	{name: "remap_file_pages", nr: unix.SYS_REMAP_FILE_PAGES, args: addrLen(0, 2, 0), wrecks: true},
	{name: "remap_file_pages-protection", nr: unix.SYS_REMAP_FILE_PAGES, args: addrLen(unix.PROT_READ, 2, 0), wrecks: true},
}
