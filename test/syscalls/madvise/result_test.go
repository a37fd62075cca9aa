// These tests claim what madvise returns, for every advice on every kind of mapping, and for arguments that
// make no sense.
package madvise

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// kinds are the kinds of mapping in the order of the table below.
var kinds = []struct {
	name        string
	prot, flags int
	file        func(t *testing.T) int // nil for anonymous memory
}{
	{"anonymous", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil},
	{"shared anonymous", kit.RW, unix.MAP_SHARED | unix.MAP_ANONYMOUS, nil},
	{"private file", kit.RW, unix.MAP_PRIVATE, diskFile},
	{"shared file", kit.RW, unix.MAP_SHARED, diskFile},
	{"memfd", kit.RW, unix.MAP_SHARED, func(t *testing.T) int { return kit.Memfd(t, 4, 0) }},
	{"read only", unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil},
	{"no access", unix.PROT_NONE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, nil},
	{"locked", kit.RW, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_LOCKED, nil},
	{"shared file, opened for reading", unix.PROT_READ, unix.MAP_SHARED, func(t *testing.T) int {
		return kit.Open(t, kit.Dirs()[0].NamedFile(t, 4), unix.O_RDONLY)
	}},
}

func diskFile(t *testing.T) int { return kit.File(t, 4) }

const (
	ok     = unix.Errno(0)
	einval = unix.EINVAL
	eacces = unix.EACCES
)

var results = []struct {
	name   string
	advice int
	want   [9]unix.Errno
}{
	//                                          anon    sh.anon pr.file sh.file memfd   r.o.    none    locked  sh.r.o.
	{"NORMAL", unix.MADV_NORMAL, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"RANDOM", unix.MADV_RANDOM, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"SEQUENTIAL", unix.MADV_SEQUENTIAL, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"WILLNEED", unix.MADV_WILLNEED, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"DONTNEED", unix.MADV_DONTNEED, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, einval, ok}},
	{"FREE", unix.MADV_FREE, [9]unix.Errno{ok, einval, einval, einval, einval, ok, ok, einval, einval}},
	{"REMOVE", unix.MADV_REMOVE, [9]unix.Errno{einval, ok, eacces, ok, ok, einval, einval, einval, eacces}},
	{"DONTFORK", unix.MADV_DONTFORK, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"DOFORK", unix.MADV_DOFORK, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"MERGEABLE", unix.MADV_MERGEABLE, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"UNMERGEABLE", unix.MADV_UNMERGEABLE, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"HUGEPAGE", unix.MADV_HUGEPAGE, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"NOHUGEPAGE", unix.MADV_NOHUGEPAGE, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"DONTDUMP", unix.MADV_DONTDUMP, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"DODUMP", unix.MADV_DODUMP, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"WIPEONFORK", unix.MADV_WIPEONFORK, [9]unix.Errno{ok, einval, einval, einval, einval, ok, ok, ok, einval}},
	{"KEEPONFORK", unix.MADV_KEEPONFORK, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"COLD", unix.MADV_COLD, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, einval, ok}},
	{"PAGEOUT", unix.MADV_PAGEOUT, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, einval, ok}},
	{"POPULATE_READ", unix.MADV_POPULATE_READ, [9]unix.Errno{ok, ok, ok, ok, ok, ok, einval, ok, ok}},
	{"POPULATE_WRITE", unix.MADV_POPULATE_WRITE, [9]unix.Errno{ok, ok, ok, ok, ok, einval, einval, ok, einval}},
	{"DONTNEED_LOCKED", unix.MADV_DONTNEED_LOCKED, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	// No huge page fits into what is mapped here.
	{"COLLAPSE", unix.MADV_COLLAPSE, [9]unix.Errno{einval, einval, einval, einval, einval, einval, einval, einval, einval}},
	{"GUARD_INSTALL", guardInstall, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, einval, ok}},
	{"GUARD_REMOVE", guardRemove, [9]unix.Errno{ok, ok, ok, ok, ok, ok, ok, ok, ok}},
	{"unknown", 5, [9]unix.Errno{einval, einval, einval, einval, einval, einval, einval, einval, einval}},
}

func TestResult(t *testing.T) {
	for _, r := range results {
		t.Run(r.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			for i, kind := range kinds {
				fd := -1
				if kind.file != nil {
					fd = kind.file(t)
				}
				a.Map(t, 0, 4, kind.prot, kind.flags, fd, 0)
				got := advise(a, 0, 4, r.advice)
				assert.Equal(t, r.want[i], got, "%s: %s", kind.name, kit.ErrnoName(got))
				kit.Say(t, "%s: %s", kind.name, kit.ErrnoName(got))
			}
		})
	}
}

func TestArguments(t *testing.T) {
	page := uintptr(kit.PageSize)
	for _, c := range []struct {
		name   string
		addr   func(a *kit.Arena) uintptr
		length uintptr
		advice int
		want   unix.Errno
	}{
		{"unaligned address", func(a *kit.Arena) uintptr { return a.Page(0) + 1 }, page, unix.MADV_DONTNEED, einval},
		{"unaligned address, nothing mapped", func(a *kit.Arena) uintptr { return a.End() + 1 }, page, unix.MADV_DONTNEED, einval},
		{"unaligned address, no length", func(a *kit.Arena) uintptr { return a.Page(0) + 1 }, 0, unix.MADV_DONTNEED, einval},
		{"no length", func(a *kit.Arena) uintptr { return a.Page(0) }, 0, unix.MADV_DONTNEED, ok},
		{"no length, nothing mapped", func(a *kit.Arena) uintptr { return a.End() }, 0, unix.MADV_DONTNEED, ok},
		{"no length, unknown advice", func(a *kit.Arena) uintptr { return a.Page(0) }, 0, 99, einval},
		{"unknown advice, nothing mapped", func(a *kit.Arena) uintptr { return a.End() }, page, 99, einval},
		{"negative advice", func(a *kit.Arena) uintptr { return a.Page(0) }, page, -1, einval},
		{"wraps around", func(a *kit.Arena) uintptr { return a.Page(1) }, -page, unix.MADV_DONTNEED, einval},
		{"length that rounds up to nothing", func(a *kit.Arena) uintptr { return a.Page(1) }, ^uintptr(0), unix.MADV_DONTNEED, einval},
		{"nothing mapped", func(a *kit.Arena) uintptr { return a.End() }, page, unix.MADV_DONTNEED, unix.ENOMEM},
		{"the kernel's addresses", func(*kit.Arena) uintptr { return 1 << 63 }, page, unix.MADV_DONTNEED, unix.ENOMEM},
		{"unaligned, DONTFORK", func(a *kit.Arena) uintptr { return a.Page(0) + 8 }, page, unix.MADV_DONTFORK, einval},
		{"nothing mapped, DONTFORK", func(a *kit.Arena) uintptr { return a.End() }, page, unix.MADV_DONTFORK, unix.ENOMEM},
		{"unaligned, NORMAL", func(a *kit.Arena) uintptr { return a.Page(0) + 8 }, page, unix.MADV_NORMAL, einval},
		{"nothing mapped, NORMAL", func(a *kit.Arena) uintptr { return a.End() }, page, unix.MADV_NORMAL, unix.ENOMEM},
		{"nothing mapped, WILLNEED", func(a *kit.Arena) uintptr { return a.End() }, page, unix.MADV_WILLNEED, unix.ENOMEM},
		{"unaligned, HUGEPAGE", func(a *kit.Arena) uintptr { return a.Page(0) + 8 }, page, unix.MADV_HUGEPAGE, einval},
		{"nothing mapped, HUGEPAGE", func(a *kit.Arena) uintptr { return a.End() }, page, unix.MADV_HUGEPAGE, unix.ENOMEM},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			a.Anon(t, 0, 2, kit.RW, 0)
			a.Fill(t, 0, 2, 1)
			got := kit.Me.Madvise(c.addr(a), c.length, c.advice)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			assert.Equal(t, "01 02", contents(a, kit.Me, 0, 2))
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}

func TestPoisonIsForThePrivilegedOnly(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, kit.RW, 0)
	child := kit.Fork(t)
	const nobody = 65534
	assert.True(t, child.Call(unix.SYS_SETRESUID, nobody, nobody, nobody).OK())
	// EINVAL where the kernel is built without it.
	assert.Contains(t, []unix.Errno{unix.EPERM, unix.EINVAL}, child.Madvise(a.Page(0), kit.Len(1), unix.MADV_HWPOISON))
	assert.Equal(t, "00", contents(a, child, 0, 1))
}
